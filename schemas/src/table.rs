//! The schema of a table as read from its system: columns, uniqueness, and a fingerprint.
//!
//! Invariant: column order is the order of the extracted row, so an index here indexes a batch too.

use crate::type_map::ColumnType;
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// One column that a route reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name in the source.
    pub name: String,
    /// How it is carried.
    pub column_type: ColumnType,
    /// The system's own type name, for messages and the fingerprint, for example `character varying(20)`.
    pub source_type: String,
    /// Whether the source casts it to text because the route lists it in `as_text`.
    pub as_text: bool,
}

/// The columns a route reads, in extract order, and what proves its key unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Name for messages, for example `public.builds`.
    pub table: String,
    /// Columns in extract order.
    pub columns: Vec<Column>,
    /// Column sets that a primary key or a valid, immediate, non-partial unique index keeps distinct.
    pub unique_keys: Vec<Vec<String>>,
}

impl TableSchema {
    /// Returns the position of a column in the extracted row.
    pub fn index_of(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == column)
    }

    /// Returns the arrow schema of an extracted batch; every field is nullable.
    pub fn arrow(&self) -> SchemaRef {
        let fields: Vec<Field> =
            self.columns.iter().map(|c| Field::new(&c.name, c.column_type.arrow(), true)).collect();
        Arc::new(Schema::new(fields))
    }

    /// Returns the lines that identify the schema, one `name type` per column, sorted by name.
    ///
    /// A resumed run compares them with the journaled ones and prints the difference.
    pub fn identity_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.columns.iter().map(|c| format!("{} {}", c.name, c.source_type)).collect();
        lines.sort();
        lines
    }

    /// Returns a 128-bit hex fingerprint of the identity lines.
    pub fn fingerprint(&self) -> String {
        format!("{:032x}", xxh3_128(self.identity_lines().join("\n").as_bytes()))
    }
}
