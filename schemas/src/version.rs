//! Versions of rows: what `on_conflict = "newest"` compares, read from the row and from the value stored under its key.
//!
//! Invariant: versions of one kind have one total order, and the digits that a server compares as text have the same
//! order; whatever is not read exactly is unreadable, never guessed.

mod digits;
mod stored;
#[cfg(test)]
mod tests;

pub use stored::Stored;

use crate::bind::BoundRoute;
use crate::text::{TextColumn, TypeMismatch, values::Values};
use crate::type_map::ColumnType;
use arrow::record_batch::RecordBatch;

/// How the versions of a route are read and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VersionKind {
    /// `int2`, `int4`, `int8`: the number.
    Integer,
    /// `date`: the day.
    Date,
    /// `timestamp`: the microsecond, without a zone.
    Timestamp,
    /// `timestamptz`: the microsecond in UTC.
    TimestampTz,
}

/// The place of a version in the order of its kind; a null and the smallest value of its type are the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(i128);

/// The column that holds the version, and the field that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundVersion {
    /// Index of the column in the extracted row.
    pub column: usize,
    /// Index into `BoundRoute::fields`.
    pub field: usize,
    /// How it is compared.
    pub kind: VersionKind,
}

/// The version of a row that is null; it ranks with the smallest value of its type.
pub const OLDEST: i64 = i64::MIN;

impl VersionKind {
    /// Returns the kind of a column type; `None` for types that have no exact order of 64 bits.
    pub fn of(column_type: &ColumnType) -> Option<Self> {
        match column_type {
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => Some(Self::Integer),
            ColumnType::Date => Some(Self::Date),
            ColumnType::Timestamp => Some(Self::Timestamp),
            ColumnType::TimestampTz => Some(Self::TimestampTz),
            _ => None,
        }
    }

    /// Returns the letter that names the kind to a script.
    pub fn letter(self) -> u8 {
        match self {
            Self::Integer => b'i',
            Self::Date => b'd',
            Self::Timestamp => b't',
            Self::TimestampTz => b'z',
        }
    }

    /// Returns the rank of a row's version: a number, days since 1970-01-01, or microseconds since then, where the
    /// largest value of 64 bits is `infinity` of a time.
    pub fn rank(self, version: i64) -> Rank {
        match (self, version) {
            (_, OLDEST) => Rank::OLDEST,
            (Self::Integer, _) => Rank(version.into()),
            (_, i64::MAX) => Rank::LAST,
            _ => Rank(version.into()),
        }
    }
}

impl Rank {
    const OLDEST: Self = Self(i128::MIN);
    const LAST: Self = Self(i128::MAX);
}

/// The versions of one batch, downcast once.
#[derive(Debug)]
pub struct RowVersions<'a> {
    column: Option<TextColumn<'a>>,
}

impl<'a> RowVersions<'a> {
    /// Downcasts the version column of a batch, where the route has one.
    pub fn new(rows: &'a RecordBatch, bound: &BoundRoute) -> Result<Self, TypeMismatch> {
        let Some(version) = bound.version else { return Ok(Self { column: None }) };
        let column_type = &bound.schema.columns[version.column].column_type;
        let column = TextColumn::new(rows.column(version.column).as_ref(), column_type)?;
        Ok(Self { column: Some(column) })
    }

    /// Returns the version of a row as [`VersionKind::rank`] takes it; `None` where the route has none.
    #[inline]
    pub fn version(&self, row: usize) -> Option<i64> {
        let column = self.column.as_ref()?;
        if column.is_null(row) {
            return Some(OLDEST);
        }
        match &column.values {
            Values::Int2(values) => Some(values[row].into()),
            Values::Int4(values) => Some(values[row].into()),
            Values::Int8(values) | Values::Timestamp(values) | Values::TimestampTz(values) => {
                Some(values[row])
            }
            Values::Date(values) => Some(match values[row] {
                i32::MAX => i64::MAX,
                i32::MIN => OLDEST,
                days => days.into(),
            }),
            // `BoundRoute::bind` refuses a version column of any other type.
            _ => None,
        }
    }
}
