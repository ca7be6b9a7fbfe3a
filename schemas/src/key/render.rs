//! Rendering of keys from the rows of a batch.
//!
//! Invariant: a rendered key is taken apart again by the template it was made with, or the row is refused.

use super::{Filter, KeyTemplate, find};
use crate::table::TableSchema;
use crate::text::{TextColumn, TypeMismatch, US_PER_DAY, values::Values};
use arrow::record_batch::RecordBatch;
use std::fmt;

/// A key template whose columns are resolved to indexes in the extracted row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundKey {
    template: KeyTemplate,
    /// One per placeholder.
    columns: Vec<BoundColumn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BoundColumn {
    index: usize,
    column_type: crate::ColumnType,
}

/// Why a row has no key. The text names the column, never the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError<'a> {
    /// A key column is null.
    Null {
        /// The column.
        column: &'a str,
    },
    /// The value contains the literal that ends it in the template, so the key could not be taken apart.
    ContainsLiteral {
        /// The column.
        column: &'a str,
        /// The literal.
        literal: &'a str,
    },
    /// The date is infinite or its year does not have four digits.
    DateOutOfRange {
        /// The column.
        column: &'a str,
    },
}

impl fmt::Display for KeyError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null { column } => write!(f, "key column {column} is null"),
            Self::ContainsLiteral { column, literal } => write!(
                f,
                "key column {column} contains {literal:?}, the text that follows it in the key; use {{{column}|urlencode}}"
            ),
            Self::DateOutOfRange { column } => {
                write!(f, "key column {column} is not a date from year 1 to 9999")
            }
        }
    }
}

impl std::error::Error for KeyError<'_> {}

impl KeyError<'_> {
    /// The same of a member, which is rendered as a key is.
    pub(crate) fn of_member(&self) -> String {
        match self {
            Self::Null { column } => format!("member column {column} is null"),
            Self::ContainsLiteral { column, literal } => format!(
                "member column {column} contains {literal:?}, the text that follows it in the member; use {{{column}|urlencode}}"
            ),
            Self::DateOutOfRange { column } => {
                format!("member column {column} is not a date from year 1 to 9999")
            }
        }
    }
}

impl BoundKey {
    /// Resolves the columns; an error is the name of a column that the schema lacks.
    ///
    /// Types are judged by `BoundRoute::bind`.
    pub fn new(template: &KeyTemplate, schema: &TableSchema) -> Result<Self, String> {
        let columns = template
            .columns()
            .map(|(name, _)| {
                let index = schema.index_of(name).ok_or_else(|| name.to_owned())?;
                let column_type = schema.columns[index].column_type.clone();
                Ok(BoundColumn { index, column_type })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { template: template.clone(), columns })
    }

    /// Returns the template.
    pub fn template(&self) -> &KeyTemplate {
        &self.template
    }

    /// Iterates over the indexes of the key columns in order of appearance.
    pub fn indexes(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().map(|column| column.index)
    }

    /// Returns the same key over rows that hold only the columns `kept`, in that order.
    pub(crate) fn reindexed(&self, kept: &[usize]) -> Self {
        let mut reindexed = self.clone();
        for column in &mut reindexed.columns {
            // Every key column is among those kept, so each is found.
            column.index = kept.iter().take_while(|index| **index != column.index).count();
        }
        reindexed
    }

    /// Downcasts the key columns of a batch.
    pub fn renderer<'a>(&'a self, rows: &'a RecordBatch) -> Result<KeyRenderer<'a>, TypeMismatch> {
        let parts = self
            .columns
            .iter()
            .zip(&self.template.placeholders)
            .map(|(column, placeholder)| {
                let array = rows.column(column.index).as_ref();
                Ok(Part {
                    column: TextColumn::new(array, &column.column_type)?,
                    name: &placeholder.column,
                    filter: &placeholder.filter,
                    literal: &placeholder.literal,
                    is_checked: placeholder.may_contain_literal(),
                    is_null_empty: false,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(KeyRenderer { leading: self.template.leading.as_bytes(), parts })
    }
}

/// Renders the keys of one batch.
#[derive(Debug)]
pub struct KeyRenderer<'a> {
    leading: &'a [u8],
    parts: Vec<Part<'a>>,
}

#[derive(Debug)]
struct Part<'a> {
    column: TextColumn<'a>,
    name: &'a str,
    filter: &'a Filter,
    literal: &'a str,
    /// Whether the value has to be searched for the literal.
    is_checked: bool,
    /// Whether a null is an empty text.
    is_null_empty: bool,
}

impl<'a> KeyRenderer<'a> {
    /// Renders a null as an empty text instead of refusing it.
    pub(crate) fn with_empty_nulls(mut self) -> Self {
        for part in &mut self.parts {
            part.is_null_empty = true;
        }
        self
    }

    /// Appends the key of a row; on error `out` is left as it was.
    #[inline]
    pub fn render(&self, row: usize, out: &mut Vec<u8>) -> Result<(), KeyError<'a>> {
        let start = out.len();
        out.extend_from_slice(self.leading);
        for part in &self.parts {
            if let Err(error) = part.render(row, out) {
                out.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl<'a> Part<'a> {
    #[inline]
    fn render(&self, row: usize, out: &mut Vec<u8>) -> Result<(), KeyError<'a>> {
        let column = self.name;
        if self.column.is_null(row) {
            if self.is_null_empty {
                out.extend_from_slice(self.literal.as_bytes());
                return Ok(());
            }
            return Err(KeyError::Null { column });
        }
        let start = out.len();
        let mut time = None;
        if matches!(self.filter, Filter::Date(_)) {
            time = time_us(&self.column, row);
        } else {
            self.column.write(row, out);
        }
        if !self.filter.apply(start, time, out) {
            return Err(KeyError::DateOutOfRange { column });
        }
        let end = out.len();
        let literal = self.literal.as_bytes();
        out.extend_from_slice(literal);
        // Searched with the literal in place, so that one that begins inside the value is found too.
        if self.is_checked && find(&out[start..], literal) != Some(end - start) {
            return Err(KeyError::ContainsLiteral { column, literal: self.literal });
        }
        Ok(())
    }
}

/// Microseconds since 1970-01-01 of a date or timestamp; `None` for other types and the infinities.
fn time_us(column: &TextColumn<'_>, row: usize) -> Option<i64> {
    match &column.values {
        Values::Date(values) => match values[row] {
            i32::MIN | i32::MAX => None,
            days => i64::from(days).checked_mul(US_PER_DAY),
        },
        Values::Timestamp(values) | Values::TimestampTz(values) => match values[row] {
            i64::MIN | i64::MAX => None,
            us => Some(us),
        },
        _ => None,
    }
}
