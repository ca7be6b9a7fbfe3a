//! Binding: a route checked against the table it reads, with every name resolved to a column index.
//!
//! Invariant: a `BoundRoute` can be encoded without looking up a name; everything that can be refused
//! before the first row is refused here, all mistakes at once.

use crate::key::BoundKey;
use crate::plan::Route;
use crate::table::TableSchema;

/// A mistake found when a route meets its table. The message names route and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route {route}: {message}")]
pub struct BindError {
    /// Route name.
    pub route: String,
    /// What is wrong, lowercase.
    pub message: String,
}

/// Where a field's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// Column by index in the extracted row.
    Column(usize),
    /// The same text for every row.
    Constant(String),
}

/// One field of the value, in output order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundField {
    /// Field name in Redis (JSON member name, hash field); unused by the string layout.
    pub name: String,
    /// Its value.
    pub value: FieldValue,
}

/// A route with its names resolved against the table schema.
#[derive(Debug, Clone)]
pub struct BoundRoute {
    /// The route.
    pub route: Route,
    /// The columns in extract order.
    pub schema: TableSchema,
    /// The key template with column indexes.
    pub key: BoundKey,
    /// The fields in output order.
    pub fields: Vec<BoundField>,
    /// Index of the expiry column and what is added to its time, in milliseconds.
    pub expiry: Option<(usize, i64)>,
    /// Columns that the row digest covers (key columns and field columns, each once), in name order.
    pub digest_columns: Vec<usize>,
    /// Whether a unique key of the table lies inside the losslessly rendered key columns.
    pub key_is_proven_unique: bool,
}
