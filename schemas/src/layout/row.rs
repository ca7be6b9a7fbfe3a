//! The fields of a row as Redis stores them: hash fields, one string, or one JSON object.
//!
//! Invariant: the null policy is applied here and nowhere else; buffers are reused, nothing is allocated
//! per row.

use super::{size, write_sized};
use crate::bind::{BoundRoute, FieldValue};
use crate::plan::{Layout, NullPolicy};
use crate::text::{TextColumn, TypeMismatch, write_json_string};
use arrow::record_batch::RecordBatch;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

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
}

impl fmt::Display for RowRefusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NullField { column } => write!(f, "column {column} is null"),
            Self::EmptyHash => f.write_str("every field is null, redis cannot hold an empty hash"),
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
    value: Value<'a>,
}

#[derive(Debug)]
enum Value<'a> {
    Column(TextColumn<'a>),
    Constant { text: &'a [u8], json: Vec<u8> },
}

impl<'a> RowValues<'a> {
    /// Downcasts the field columns of a batch.
    pub fn new(rows: &'a RecordBatch, bound: &'a BoundRoute) -> Result<Self, TypeMismatch> {
        let mut fields = Vec::with_capacity(bound.fields.len());
        for field in &bound.fields {
            let (column, value) = match &field.value {
                FieldValue::Column(index) => {
                    let column = &bound.schema.columns[*index];
                    let array = rows.column(*index).as_ref();
                    let values = TextColumn::new(array, &column.column_type)?;
                    (column.name.as_str(), Value::Column(values))
                }
                FieldValue::Constant(text) => {
                    let mut json = Vec::new();
                    write_json_string(text.as_bytes(), &mut json);
                    ("", Value::Constant { text: text.as_bytes(), json })
                }
            };
            let (mut sized_name, mut member) = (Vec::new(), Vec::new());
            write_sized(field.name.as_bytes(), &mut sized_name);
            if bound.route.layout == Layout::Json {
                write_json_string(field.name.as_bytes(), &mut member);
                member.push(b':');
            }
            fields.push(Field { column, sized_name, member, value });
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
            let values = match &field.value {
                Value::Column(values) if !values.is_null(row) => Some(values),
                Value::Column(_) => match self.null {
                    NullPolicy::Omit => continue,
                    NullPolicy::Empty => None,
                    NullPolicy::Error => {
                        return Err(RowRefusal::NullField { column: field.column });
                    }
                },
                Value::Constant { .. } => None,
            };
            canonical.extend_from_slice(&field.sized_name);
            canonical.extend_from_slice(&[0; 4]);
            let start = canonical.len();
            match (values, &field.value) {
                (Some(values), _) => values.write(row, canonical),
                (None, Value::Constant { text, .. }) => canonical.extend_from_slice(text),
                (None, Value::Column(_)) => {}
            }
            let end = canonical.len();
            canonical[start - 4..start].copy_from_slice(&size(end - start));
            out.spans.push(FieldSpan { field: index, start, end });
        }
        if out.spans.is_empty() { Err(RowRefusal::EmptyHash) } else { Ok(()) }
    }

    /// Whether the column of a field is null.
    #[inline]
    pub(super) fn has_null(&self, row: usize) -> bool {
        self.fields.iter().any(|field| match &field.value {
            Value::Column(values) => values.is_null(row),
            Value::Constant { .. } => false,
        })
    }

    /// Appends the value of a string row: the text of its only field.
    #[inline]
    pub fn string(&self, row: usize, out: &mut Vec<u8>) -> Result<(), RowRefusal<'a>> {
        for field in &self.fields {
            match &field.value {
                Value::Column(values) if !values.is_null(row) => values.write(row, out),
                Value::Column(_) => match self.null {
                    NullPolicy::Omit => {
                        return Err(RowRefusal::NullString { column: field.column });
                    }
                    NullPolicy::Empty => {}
                    NullPolicy::Error => {
                        return Err(RowRefusal::NullField { column: field.column });
                    }
                },
                Value::Constant { text, .. } => out.extend_from_slice(text),
            }
        }
        Ok(())
    }

    /// Appends the value of a JSON row: one object, members in route order, no spaces.
    #[inline]
    pub fn json(&self, row: usize, out: &mut Vec<u8>) -> Result<(), RowRefusal<'a>> {
        out.push(b'{');
        let start = out.len();
        for field in &self.fields {
            if let Value::Column(values) = &field.value
                && values.is_null(row)
            {
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
            match &field.value {
                Value::Column(values) => values.write_json(row, out),
                Value::Constant { json, .. } => out.extend_from_slice(json),
            }
        }
        out.push(b'}');
        Ok(())
    }
}
