//! When the keys of a batch expire.
//!
//! Invariant: times are absolute milliseconds since 1970; a null or `infinity` never expires and
//! `-infinity` always has.

use crate::bind::BoundRoute;
use crate::text::{TextColumn, TypeMismatch, values::Values};
use arrow::record_batch::RecordBatch;

const MS_PER_DAY: i64 = 86_400_000;

/// The expiry column of one batch, downcast once.
#[derive(Debug)]
pub struct ExpiryTimes<'a> {
    /// The column and what is added to its time; absent when the route has no expiry.
    column: Option<(TextColumn<'a>, i64)>,
}

impl<'a> ExpiryTimes<'a> {
    /// Downcasts the expiry column of a batch, where the route has one.
    pub fn new(rows: &'a RecordBatch, bound: &BoundRoute) -> Result<Self, TypeMismatch> {
        let Some((index, added_ms)) = bound.expiry else { return Ok(Self { column: None }) };
        let column_type = &bound.schema.columns[index].column_type;
        let column = TextColumn::new(rows.column(index).as_ref(), column_type)?;
        Ok(Self { column: Some((column, added_ms)) })
    }

    /// Returns when the key of a row expires in milliseconds since 1970, or `None` when it never does.
    ///
    /// Microseconds are rounded down, so that a key never outlives its row's time.
    #[inline]
    pub fn expires_ms(&self, row: usize) -> Option<i64> {
        let (column, added_ms) = self.column.as_ref()?;
        if column.is_null(row) {
            return None;
        }
        let at_ms = match &column.values {
            Values::Date(values) => match values[row] {
                i32::MAX => return None,
                i32::MIN => return Some(i64::MIN),
                days => i64::from(days) * MS_PER_DAY,
            },
            Values::Timestamp(values) | Values::TimestampTz(values) => match values[row] {
                i64::MAX => return None,
                i64::MIN => return Some(i64::MIN),
                us => us.div_euclid(1_000),
            },
            // `BoundRoute::bind` refuses an expiry column of any other type.
            _ => return None,
        };
        Some(at_ms.saturating_add(*added_ms))
    }
}
