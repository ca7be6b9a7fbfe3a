//! Why a row of Redis is no row of the table.
//!
//! Invariant: the text names the column or the field, and never shows a value.

use std::fmt;

/// Field names are the application's; only so much of an unknown one is shown.
const SHOWN_MAX: usize = 64;

/// Why a row cannot be decoded. The text names the column, never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowFault {
    /// A value of a column is none of its type, or is missing.
    Column {
        /// The column; members of a struct follow behind dots.
        column: String,
        /// What is wrong, following the name.
        reason: &'static str,
    },
    /// A field or member that the route does not have.
    UnknownField {
        /// Its name, escaped and cut to 64 characters.
        field: String,
    },
    /// A field or member that comes twice.
    Twice {
        /// Its name.
        field: String,
    },
    /// A field that is the same in every row is missing or differs.
    Constant {
        /// Its name.
        field: String,
    },
    /// The key does not fit the template.
    Key,
    /// A hash or stream entry without fields.
    Empty,
    /// The value as a whole is not what the layout says.
    Value {
        /// What is wrong, following `the value`.
        reason: &'static str,
    },
}

impl RowFault {
    pub(super) fn unknown(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name);
        Self::UnknownField { field: name.chars().take(SHOWN_MAX).collect() }
    }
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { column, reason } => write!(f, "column {column} {reason}"),
            Self::UnknownField { field } => write!(f, "the route has no field {field:?}"),
            Self::Twice { field } => write!(f, "field {field} comes twice"),
            Self::Constant { field } => {
                write!(f, "field {field} does not have the value that the plan gives it")
            }
            Self::Key => f.write_str("the key does not fit the template of the route"),
            Self::Empty => f.write_str("there is no field"),
            Self::Value { reason } => write!(f, "the value {reason}"),
        }
    }
}

impl std::error::Error for RowFault {}

/// What is wrong with a value, and where inside of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Names of the struct members, outermost first, each behind a dot; empty for the column itself.
    path: String,
    reason: &'static str,
}

impl Wrong {
    /// The fault of the member `name` as one of the struct around it.
    pub(super) fn of_member(mut self, name: &str) -> Self {
        self.path.insert_str(0, name);
        self.path.insert(0, '.');
        self
    }

    pub(super) fn of_column(self, name: &str) -> RowFault {
        RowFault::Column { column: format!("{name}{}", self.path), reason: self.reason }
    }
}

impl From<&'static str> for Wrong {
    fn from(reason: &'static str) -> Self {
        Self { path: String::new(), reason }
    }
}
