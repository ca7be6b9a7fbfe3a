//! From the values that Redis holds back to rows of a BigQuery table: the inverse of `RowValues` and `KeyRenderer`.
//!
//! Invariant: a row is decoded whole and without loss, or not at all; what it is refused for names a column and never
//! shows a value.

mod column;
mod fault;
mod finish;
mod json;
mod key;
#[cfg(test)]
mod tests;

pub use fault::RowFault;
pub(super) use json::Cursor;
pub(crate) use json::member as json_member;

use crate::bind::{FieldValue, ReverseRoute};
use crate::plan::NullPolicy;
use crate::table::TableSchema;
use crate::text::TypeMismatch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use column::{Column, Values};
use key::Key;
use std::sync::Arc;

/// Decodes the rows of one route into batches.
#[derive(Debug)]
pub struct RowDecoder {
    arrow: SchemaRef,
    columns: Vec<Column>,
    fields: Vec<Field>,
    /// Indexes of `fields` in name order.
    by_name: Vec<usize>,
    key: Key,
    null: NullPolicy,
    rows: usize,
}

#[derive(Debug)]
struct Field {
    name: String,
    target: Target,
    /// In which row it was met last, counted from 1.
    met: usize,
}

#[derive(Debug)]
enum Target {
    Column(usize),
    Constant(String),
}

impl RowDecoder {
    /// Makes room for `rows` rows. `arrow` is the schema of the table as Storage Read gives it, columns in the order of
    /// the route's schema; a type that does not hold what the route's column holds is an error.
    pub fn new(route: &ReverseRoute, arrow: SchemaRef, rows: usize) -> Result<Self, TypeMismatch> {
        let columns = columns(&route.schema, &arrow, rows)?;
        let fields: Vec<Field> = route
            .fields
            .iter()
            .filter_map(|field| {
                let target = match &field.value {
                    FieldValue::Column(index) => Target::Column(*index),
                    FieldValue::Constant(text) => Target::Constant(text.clone()),
                    // A part of a column cannot be read back; binding has refused it.
                    FieldValue::Path(..) => return None,
                };
                Some(Field { name: field.name.clone(), target, met: 0 })
            })
            .collect();
        let mut by_name: Vec<usize> = (0..fields.len()).collect();
        by_name.sort_unstable_by_key(|index| &fields[*index].name);
        let mut decoder = Self {
            key: Key::new(route),
            arrow,
            columns,
            fields,
            by_name,
            null: route.null,
            rows: 0,
        };
        if route.null == NullPolicy::Error {
            decoder.columns.iter_mut().for_each(|column| column.is_nullable = false);
        }
        Ok(decoder)
    }

    /// Decodes one hash or one stream entry, given as (field, value) pairs in any order.
    ///
    /// On error nothing of the row is kept.
    pub fn pairs<'a>(
        &mut self,
        key: &[u8],
        pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), RowFault> {
        let decoded = self.push_pairs(pairs).and_then(|()| self.complete(key));
        self.settle(decoded)
    }

    /// Decodes one JSON value: an object with the fields as members.
    ///
    /// On error nothing of the row is kept.
    pub fn json(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowFault> {
        let decoded = self.push_object(value).and_then(|()| self.complete(key));
        self.settle(decoded)
    }

    /// Returns the number of rows decoded since the last `finish`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the rows decoded so far as a batch of the arrow schema, and starts anew.
    #[expect(clippy::missing_panics_doc, reason = "the columns were made for this schema")]
    pub fn finish(&mut self) -> RecordBatch {
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.fields.iter_mut().for_each(|field| field.met = 0);
        RecordBatch::try_new_with_options(Arc::clone(&self.arrow), arrays, &options)
            .expect("the columns were made for this schema")
    }

    fn push_pairs<'a>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), RowFault> {
        let mut expected = 0;
        let mut is_empty = true;
        for (name, value) in pairs {
            is_empty = false;
            let index = self.meet(name, expected)?;
            expected = index + 1;
            match &self.fields[index].target {
                Target::Column(column) => {
                    let column = *column;
                    self.push_text(column, value)
                        .map_err(|wrong| wrong.of_column(self.column_name(column)))?;
                }
                Target::Constant(text) if text.as_bytes() == value => {}
                Target::Constant(_) => return Err(self.differing(index)),
            }
        }
        if is_empty { Err(RowFault::Empty) } else { Ok(()) }
    }

    #[inline]
    fn push_text(&mut self, column: usize, value: &[u8]) -> column::Pushed {
        let column = &mut self.columns[column];
        // An empty text is a value of these two, and `bind` saw to it that it is no null.
        let is_value = matches!(column.values, Values::Text(_) | Values::Bytes(_));
        if value.is_empty() && self.null == NullPolicy::Empty && !is_value {
            column.push_absent()
        } else {
            column.push_text(value)
        }
    }

    fn push_object(&mut self, value: &[u8]) -> Result<(), RowFault> {
        let of_value = |reason| RowFault::Value { reason };
        let mut cursor = Cursor::new(value).map_err(of_value)?;
        cursor.expect(b'{').map_err(|_| of_value("is no JSON object"))?;
        let (mut expected, mut is_first) = (0, true);
        while cursor.next(is_first, b'}').map_err(of_value)? {
            is_first = false;
            let mut escaped = String::new();
            let name = cursor.string(&mut escaped).map_err(of_value)?;
            let index = self.meet(name.as_bytes(), expected)?;
            cursor.expect(b':').map_err(of_value)?;
            expected = index + 1;
            match &self.fields[index].target {
                Target::Column(column) => {
                    let column = *column;
                    self.columns[column]
                        .push_json(&mut cursor)
                        .map_err(|wrong| wrong.of_column(self.column_name(column)))?;
                }
                Target::Constant(text) => {
                    let mut escaped = String::new();
                    if cursor.string(&mut escaped) != Ok(text.as_str()) {
                        return Err(self.differing(index));
                    }
                }
            }
        }
        cursor.end().map_err(of_value)
    }

    /// Finds a field, most likely the one after the last, and notes that this row has it.
    #[inline]
    fn meet(&mut self, name: &[u8], expected: usize) -> Result<usize, RowFault> {
        let is_expected =
            self.fields.get(expected).is_some_and(|field| field.name.as_bytes() == name);
        let index = if is_expected {
            expected
        } else {
            let of = |index: &usize| self.fields[*index].name.as_bytes().cmp(name);
            let at = self.by_name.binary_search_by(of).map_err(|_| RowFault::unknown(name))?;
            self.by_name[at]
        };
        let field = &mut self.fields[index];
        if field.met == self.rows + 1 {
            return Err(RowFault::Twice { field: field.name.clone() });
        }
        field.met = self.rows + 1;
        Ok(index)
    }

    /// Pushes what the key has, then what is absent, and compares the key with the row.
    fn complete(&mut self, key: &[u8]) -> Result<(), RowFault> {
        let row = self.rows + 1;
        let lacks_constant =
            |field: &Field| field.met != row && matches!(field.target, Target::Constant(_));
        if let Some(field) = self.fields.iter().find(|field| lacks_constant(field)) {
            return Err(RowFault::Constant { field: field.name.clone() });
        }
        let name = |column: usize| self.arrow.field(column).name().clone();
        self.key.push(key, &mut self.columns, name)?;
        for (index, column) in self.columns.iter_mut().enumerate() {
            if column.len() < row {
                column.push_absent().map_err(|wrong| wrong.of_column(&name(index)))?;
            }
        }
        self.key.check(key, &self.columns, name)
    }

    /// Keeps the row, or takes back what was pushed of it.
    fn settle(&mut self, decoded: Result<(), RowFault>) -> Result<(), RowFault> {
        if decoded.is_ok() {
            self.rows += 1;
        } else {
            self.columns.iter_mut().for_each(|column| column.truncate(self.rows));
            self.fields.iter_mut().for_each(|field| field.met = 0);
        }
        decoded
    }

    fn column_name(&self, column: usize) -> &str {
        self.arrow.field(column).name()
    }

    fn differing(&self, field: usize) -> RowFault {
        RowFault::Constant { field: self.fields[field].name.clone() }
    }
}

/// Makes the columns; names, order and types have to be those of the route.
fn columns(
    schema: &TableSchema,
    arrow: &SchemaRef,
    rows: usize,
) -> Result<Vec<Column>, TypeMismatch> {
    if schema.columns.len() != arrow.fields().len() {
        return Err(TypeMismatch {
            column_type: format!("a table of {} columns", schema.columns.len()),
            arrow_type: format!("a schema of {} fields", arrow.fields().len()),
        });
    }
    schema
        .columns
        .iter()
        .zip(arrow.fields())
        .map(|(column, field)| {
            let made = Column::new(&column.column_type, field, rows);
            made.filter(|_| *field.name() == column.name).ok_or_else(|| TypeMismatch {
                column_type: format!("{} ({})", column.column_type.name(), column.name),
                arrow_type: format!("{} ({})", field.data_type(), field.name()),
            })
        })
        .collect()
}
