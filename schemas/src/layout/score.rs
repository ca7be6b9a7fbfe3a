//! Scores of a sorted set: a column as a double, exactly, or not at all.
//!
//! Invariant: two values of a column that differ never get one score, and a score read back tells its value: what a
//! double cannot hold is refused.

use crate::bind::ScoreScale;
use crate::text::{TextColumn, TypeMismatch, values::Values, write_float8};
use crate::type_map::ColumnType;
use arrow::array::Array;
use std::fmt::Write as _;

const US_PER_DAY: i64 = 86_400_000_000;

/// The score column of one batch, downcast once.
#[derive(Debug)]
pub(super) struct ScoreValues<'a> {
    column: TextColumn<'a>,
    scale: ScoreScale,
    /// Texts at hand, kept to save allocations.
    digits: [String; 2],
    text: Vec<u8>,
}

impl<'a> ScoreValues<'a> {
    pub(super) fn new(
        array: &'a dyn Array,
        column_type: &ColumnType,
        scale: ScoreScale,
    ) -> Result<Self, TypeMismatch> {
        let column = TextColumn::new(array, column_type)?;
        Ok(Self { column, scale, digits: Default::default(), text: Vec::new() })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.column.is_null(row)
    }

    /// Returns the score of a row, or `None` where no double holds the value exactly.
    ///
    /// A decimal counts as held where the shortest text of the double nearest to it is that decimal.
    pub(super) fn score(&mut self, row: usize) -> Option<f64> {
        let score = match &self.column.values {
            Values::Int2(values) => f64::from(values[row]),
            Values::Int4(values) => f64::from(values[row]),
            Values::Int8(values) => whole(values[row])?,
            Values::Float4(values) => f64::from(values[row]),
            Values::Float8(values) => values[row],
            Values::Numeric(values) => {
                let text = std::str::from_utf8(values.get(row)).ok()?;
                decimal(text, &mut self.digits)?
            }
            Values::Decimal128(..) | Values::Decimal256(..) => {
                self.text.clear();
                self.column.write(row, &mut self.text);
                decimal(std::str::from_utf8(&self.text).ok()?, &mut self.digits)?
            }
            Values::Date(values) => match values[row] {
                i32::MAX => f64::INFINITY,
                i32::MIN => f64::NEG_INFINITY,
                days => self.time(i64::from(days).checked_mul(US_PER_DAY)?)?,
            },
            Values::Timestamp(values) | Values::TimestampTz(values) => match values[row] {
                i64::MAX => f64::INFINITY,
                i64::MIN => f64::NEG_INFINITY,
                us => self.time(us)?,
            },
            // `BoundRoute::bind` refuses a score column of any other type.
            _ => return None,
        };
        // Redis refuses NaN, and tells 0 from -0 in what it prints only.
        (!score.is_nan()).then_some(if score == 0.0 { 0.0 } else { score })
    }

    fn time(&mut self, us: i64) -> Option<f64> {
        let per_unit: i64 = match self.scale {
            ScoreScale::Number | ScoreScale::Microseconds => return whole(us),
            ScoreScale::Milliseconds => 1_000,
            ScoreScale::Seconds => 1_000_000,
        };
        let (units, rest) = (us / per_unit, (us % per_unit).abs());
        if rest == 0 {
            return whole(units);
        }
        let width = if per_unit == 1_000 { 3 } else { 6 };
        let sign = if us < 0 { "-" } else { "" };
        let mut text = String::with_capacity(24);
        write!(text, "{sign}{}.{rest:0width$}", units.abs()).ok()?;
        decimal(&text, &mut self.digits)
    }
}

/// Appends a score as Redis reads it.
pub(super) fn write_score(score: f64, out: &mut Vec<u8>) {
    if score.is_infinite() {
        out.extend_from_slice(if score > 0.0 { b"inf" } else { b"-inf" });
    } else {
        write_float8(score, out);
    }
}

/// A whole number that a double holds.
fn whole(value: i64) -> Option<f64> {
    let score = value as f64;
    #[expect(clippy::cast_possible_truncation, reason = "compared as wide integers")]
    let is_exact = score as i128 == i128::from(value);
    is_exact.then_some(score)
}

/// A decimal number whose double has no other shortest text.
fn decimal(text: &str, digits: &mut [String; 2]) -> Option<f64> {
    match text {
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let score: f64 = text.parse().ok().filter(|score: &f64| score.is_finite())?;
    for digits in digits.iter_mut() {
        digits.clear();
    }
    // `Display` writes the shortest digits that give the double back, without an exponent.
    write!(digits[0], "{score}").ok()?;
    digits[1].push_str(text);
    (canonical(&digits[0]) == canonical(&digits[1])).then_some(score)
}

/// Sign, digits before and behind the point, without zeros that say nothing; the sign of zero says nothing.
fn canonical(text: &str) -> (bool, &str, &str) {
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (before, behind) = text.split_once('.').unwrap_or((text, ""));
    let (before, behind) = (before.trim_start_matches('0'), behind.trim_end_matches('0'));
    (is_negative && !(before.is_empty() && behind.is_empty()), before, behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};

    fn scores(array: &dyn Array, column_type: &ColumnType, scale: ScoreScale) -> Vec<Option<f64>> {
        let mut values = ScoreValues::new(array, column_type, scale).unwrap();
        (0..array.len()).map(|row| values.score(row)).collect()
    }

    #[test]
    fn whole_numbers_are_exact_or_refused() {
        let limit = 1_i64 << 53;
        let array = Int64Array::from(vec![0, -7, limit, limit + 1, limit + 2, i64::MAX, i64::MIN]);
        let found = scores(&array, &ColumnType::Int8, ScoreScale::Number);
        let (held, next) = (9_007_199_254_740_992.0, 9_007_199_254_740_994.0);
        let least = Some(-9_223_372_036_854_775_808.0);
        assert_eq!(found, [Some(0.0), Some(-7.0), Some(held), None, Some(next), None, least]);
    }

    #[test]
    fn decimals_are_what_their_double_prints_or_refused() {
        let texts = [
            ("0.1", Some(0.1)),
            ("-19.990", Some(-19.99)),
            ("0.00", Some(0.0)),
            ("123456789012345.6", Some(123_456_789_012_345.6)),
            ("0.1000000000000000055511151231257827", None),
            ("12345678901234567.8", None),
            ("NaN", None),
            ("Infinity", Some(f64::INFINITY)),
        ];
        let array = StringArray::from_iter_values(texts.map(|(text, _)| text));
        let found = scores(&array, &ColumnType::Numeric, ScoreScale::Number);
        assert_eq!(found, texts.map(|(_, score)| score));
    }

    #[test]
    fn times_are_counted_in_their_unit() {
        let us = [1_769_810_645_123_456, 1_769_810_645_000_000, -1_500_000, i64::MAX, i64::MIN];
        let array = TimestampMicrosecondArray::from(us.to_vec());
        let of = |scale| scores(&array, &ColumnType::Timestamp, scale);
        let infinite = [Some(f64::INFINITY), Some(f64::NEG_INFINITY)];
        let seconds = [Some(1_769_810_645.123_456), Some(1_769_810_645.0), Some(-1.5)];
        assert_eq!(of(ScoreScale::Seconds), [&seconds[..], &infinite].concat());
        let ms = [Some(1_769_810_645_123.456), Some(1_769_810_645_000.0), Some(-1500.0)];
        assert_eq!(of(ScoreScale::Milliseconds), [&ms[..], &infinite].concat());
        assert_eq!(of(ScoreScale::Microseconds)[0], Some(1_769_810_645_123_456.0));
        let far = TimestampMicrosecondArray::from(vec![253_402_300_799_123_457]);
        assert_eq!(scores(&far, &ColumnType::Timestamp, ScoreScale::Microseconds), [None]);
        assert_eq!(scores(&far, &ColumnType::Timestamp, ScoreScale::Seconds), [None]);
    }
}
