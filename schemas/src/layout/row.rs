//! The fields of a row as Redis stores them: hash fields, one string, one JSON object, or one document.
//!
//! Invariant: the null policy is applied here and nowhere else; buffers are reused, nothing is allocated
//! per row.

use super::{Documents, NotHeld, size, write_sized};
use crate::bind::{BoundRoute, FieldValue};
use crate::json_path::{self, JsonPath, NotJson};
use crate::plan::{Layout, NullPolicy};
use crate::text::{TextColumn, TypeMismatch, write_json_string};
use crate::type_map::ColumnType;
use arrow::record_batch::RecordBatch;
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Why a row has no value. The text names the column, never the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowRefusal<'a> {
    /// A field is null and the route says `null = "error"`.
    NullField {
        /// The column.
        column: &'a str,
    },
    /// Every field is null and left out; Redis cannot hold an empty hash.
    EmptyHash,
    /// The only column of a string layout is null and left out.
    NullString {
        /// The column.
        column: &'a str,
    },
    /// A path leads into a text that is not JSON, or to a string that is not Unicode.
    NotJson {
        /// The column.
        column: &'a str,
    },
    /// A document of Redis' JSON module would not give the value back.
    NotHeld {
        /// The column.
        column: &'a str,
        /// Why not.
        why: NotHeld,
    },
}

impl fmt::Display for RowRefusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NullField { column } => write!(f, "column {column} is null"),
            Self::EmptyHash => f.write_str("every field is null, redis cannot hold an empty hash"),
            Self::NotJson { column } => write!(
                f,
                "column {column} holds no JSON that its path could be followed in, or a string that is not unicode"
            ),
            Self::NotHeld { column, why } => write!(f, "column {column} holds {why}"),
            Self::NullString { column } => {
                write!(
                    f,
                    "column {column} is null, so there is no value to write; null = \"empty\" writes an empty string"
                )
            }
        }
    }
}

impl std::error::Error for RowRefusal<'_> {}

/// One field of a hash row: which field, and where its value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldSpan {
    /// Index into `BoundRoute::fields`.
    pub field: usize,
    /// Start of the value in the canonical bytes.
    pub start: usize,
    /// End of the value.
    pub end: usize,
}

/// The fields of one hash row; reused from row to row.
#[derive(Debug, Default)]
pub struct HashFields {
    canonical: Vec<u8>,
    spans: Vec<FieldSpan>,
}

impl HashFields {
    /// Returns the fields present, in route order.
    #[inline]
    pub fn spans(&self) -> &[FieldSpan] {
        &self.spans
    }

    /// Returns the value of a field.
    #[inline]
    pub fn value(&self, span: &FieldSpan) -> &[u8] {
        &self.canonical[span.start..span.end]
    }

    /// Iterates over the fields present, in route order: index into `BoundRoute::fields`, and value.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (usize, &[u8])> + Clone {
        self.spans.iter().map(|span| (span.field, self.value(span)))
    }

    /// Returns the value hash, the one that `hash_value_hash` gives for the same pairs.
    #[inline]
    pub fn value_hash(&self) -> u64 {
        xxh3_64(&self.canonical)
    }

    /// Returns a longer hash of the same, by which many equal rows are told from different ones.
    #[inline]
    pub fn long_hash(&self) -> u128 {
        xxh3_128(&self.canonical)
    }
}

/// The fields of one batch, downcast once.
#[derive(Debug)]
pub struct RowValues<'a> {
    fields: Vec<Field<'a>>,
    null: NullPolicy,
}

#[derive(Debug)]
struct Field<'a> {
    /// Name of the source column; empty for a constant.
    column: &'a str,
    /// Length and name, as the value hash covers them.
    sized_name: Vec<u8>,
    /// `"name":` of a JSON member.
    member: Vec<u8>,
    /// Whether a document may not hold a value; only then it is looked at.
    is_doubtful: bool,
    value: Value<'a>,
}

#[derive(Debug)]
enum Value<'a> {
    Column(TextColumn<'a>),
    Path { values: TextColumn<'a>, path: &'a JsonPath },
    Constant { text: &'a [u8], json: Vec<u8> },
}

/// What a field holds in one row.
enum Cell<'r, 'a> {
    Null,
    Column(&'r TextColumn<'a>),
    /// A part of a JSON column.
    Part(&'a [u8]),
    Constant {
        text: &'a [u8],
        json: &'r [u8],
    },
}

impl<'a> Field<'a> {
    #[inline]
    fn cell(&self, row: usize) -> Result<Cell<'_, 'a>, RowRefusal<'a>> {
        Ok(match &self.value {
            Value::Column(values) if values.is_null(row) => Cell::Null,
            Value::Column(values) => Cell::Column(values),
            Value::Path { values, .. } if values.is_null(row) => Cell::Null,
            Value::Path { values, path } => {
                match values.json(row).map_or(Err(NotJson), |json| path.find(json)) {
                    Ok(Some(part)) => Cell::Part(part),
                    Ok(None) => Cell::Null,
                    Err(NotJson) => return Err(self.not_json()),
                }
            }
            Value::Constant { text, json } => Cell::Constant { text, json },
        })
    }

    fn not_json(&self) -> RowRefusal<'a> {
        RowRefusal::NotJson { column: self.column }
    }
}

impl Cell<'_, '_> {
    /// Appends the text; a null has none.
    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), NotJson> {
        match self {
            Self::Null => {}
            Self::Column(values) => values.write(row, out),
            Self::Part(part) => json_path::write_text(part, out)?,
            Self::Constant { text, .. } => out.extend_from_slice(text),
        }
        Ok(())
    }

    #[inline]
    fn write_json(&self, row: usize, out: &mut Vec<u8>) -> Result<(), NotJson> {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Column(values) => values.write_json(row, out),
            Self::Part(part) => json_path::write_compact(part, out)?,
            Self::Constant { json, .. } => out.extend_from_slice(json),
        }
        Ok(())
    }
}

impl<'a> RowValues<'a> {
    /// Downcasts the field columns of a batch.
    pub fn new(rows: &'a RecordBatch, bound: &'a BoundRoute) -> Result<Self, TypeMismatch> {
        let mut fields = Vec::with_capacity(bound.fields.len());
        for field in &bound.fields {
            let (column, is_doubtful, value) = match &field.value {
                FieldValue::Column(index) => {
                    let column = &bound.schema.columns[*index];
                    let array = rows.column(*index).as_ref();
                    let values = TextColumn::new(array, &column.column_type)?;
                    let is_doubtful = is_doubtful(&column.column_type);
                    (column.name.as_str(), is_doubtful, Value::Column(values))
                }
                FieldValue::Path(index, path) => {
                    let column = &bound.schema.columns[*index];
                    let array = rows.column(*index).as_ref();
                    let values = TextColumn::new(array, &column.column_type)?;
                    (column.name.as_str(), true, Value::Path { values, path })
                }
                FieldValue::Constant(text) => {
                    let mut json = Vec::new();
                    write_json_string(text.as_bytes(), &mut json);
                    ("", false, Value::Constant { text: text.as_bytes(), json })
                }
            };
            let (mut sized_name, mut member) = (Vec::new(), Vec::new());
            write_sized(field.name.as_bytes(), &mut sized_name);
            if matches!(bound.route.layout, Layout::Json | Layout::RedisJson) {
                write_json_string(field.name.as_bytes(), &mut member);
                member.push(b':');
            }
            fields.push(Field { column, sized_name, member, is_doubtful, value });
        }
        Ok(Self { fields, null: bound.route.null })
    }

    /// Collects the hash fields of a row.
    #[inline]
    pub fn hash_fields(&self, row: usize, out: &mut HashFields) -> Result<(), RowRefusal<'a>> {
        out.canonical.clear();
        out.spans.clear();
        let canonical = &mut out.canonical;
        for (index, field) in self.fields.iter().enumerate() {
            let cell = field.cell(row)?;
            if matches!(cell, Cell::Null) {
                match self.null {
                    NullPolicy::Omit => continue,
                    NullPolicy::Empty => {}
                    NullPolicy::Error => {
                        return Err(RowRefusal::NullField { column: field.column });
                    }
                }
            }
            canonical.extend_from_slice(&field.sized_name);
            canonical.extend_from_slice(&[0; 4]);
            let start = canonical.len();
            cell.write(row, canonical).map_err(|NotJson| field.not_json())?;
            let end = canonical.len();
            canonical[start - 4..start].copy_from_slice(&size(end - start));
            out.spans.push(FieldSpan { field: index, start, end });
        }
        if out.spans.is_empty() { Err(RowRefusal::EmptyHash) } else { Ok(()) }
    }

    /// Whether a field holds nothing; what cannot be read is told when it is written.
    #[inline]
    pub(super) fn has_null(&self, row: usize) -> bool {
        self.fields.iter().any(|field| matches!(field.cell(row), Ok(Cell::Null)))
    }

    /// Appends the value of a string row: the text of its only field.
    #[inline]
    pub fn string(&self, row: usize, out: &mut Vec<u8>) -> Result<(), RowRefusal<'a>> {
        for field in &self.fields {
            let cell = field.cell(row)?;
            match (&cell, self.null) {
                (Cell::Null, NullPolicy::Omit) => {
                    return Err(RowRefusal::NullString { column: field.column });
                }
                (Cell::Null, NullPolicy::Error) => {
                    return Err(RowRefusal::NullField { column: field.column });
                }
                _ => cell.write(row, out).map_err(|NotJson| field.not_json())?,
            }
        }
        Ok(())
    }

    /// Appends the value of a JSON row: one object, members in route order, no spaces.
    #[inline]
    pub fn json(&self, row: usize, out: &mut Vec<u8>) -> Result<(), RowRefusal<'a>> {
        self.object(row, None, out)
    }

    /// Appends the document of a row: the same object, with every value as Redis' JSON module holds it.
    #[inline]
    pub fn document(
        &self,
        row: usize,
        documents: &mut Documents,
        out: &mut Vec<u8>,
    ) -> Result<(), RowRefusal<'a>> {
        self.object(row, Some(documents), out)
    }

    #[inline]
    fn object(
        &self,
        row: usize,
        mut documents: Option<&mut Documents>,
        out: &mut Vec<u8>,
    ) -> Result<(), RowRefusal<'a>> {
        out.push(b'{');
        let start = out.len();
        for field in &self.fields {
            let cell = field.cell(row)?;
            if matches!(cell, Cell::Null) {
                match self.null {
                    NullPolicy::Omit => continue,
                    NullPolicy::Empty => {}
                    NullPolicy::Error => {
                        return Err(RowRefusal::NullField { column: field.column });
                    }
                }
            }
            if out.len() > start {
                out.push(b',');
            }
            out.extend_from_slice(&field.member);
            let Some(documents) = documents.as_deref_mut().filter(|_| field.is_doubtful) else {
                cell.write_json(row, out).map_err(|NotJson| field.not_json())?;
                continue;
            };
            documents.value.clear();
            cell.write_json(row, &mut documents.value).map_err(|NotJson| field.not_json())?;
            documents
                .write(out)
                .map_err(|why| RowRefusal::NotHeld { column: field.column, why })?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// Whether values of a type may be more than a document of Redis' JSON module holds.
fn is_doubtful(column_type: &ColumnType) -> bool {
    match column_type {
        ColumnType::Float4
        | ColumnType::Float8
        | ColumnType::Numeric
        | ColumnType::Decimal128
        | ColumnType::Decimal256
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Struct(_) => true,
        ColumnType::Array(elements) => is_doubtful(elements),
        ColumnType::Bool
        | ColumnType::Int2
        | ColumnType::Int4
        | ColumnType::Int8
        | ColumnType::Text
        | ColumnType::Bytea
        | ColumnType::Bytes
        | ColumnType::Uuid
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Timestamp
        | ColumnType::TimestampTz
        | ColumnType::Inet
        | ColumnType::Printed(_)
        | ColumnType::Interval
        | ColumnType::Range(_) => false,
    }
}
