//! Canonical text and JSON forms of column values.
//!
//! Invariant: equal values have equal text, and the text alone (with the column's type) gives the value
//! back. The forms are documented in `schemas/TYPES.md`; nothing here allocates per row.

mod base64;
mod decimal;
mod interval;
mod json;
mod number;
pub(crate) mod parse;
mod time;
pub(crate) mod values;

pub(crate) use decimal::{write_decimal128, write_decimal256};
pub use json::write_json_string;
pub use number::{write_float4, write_float8};
pub(crate) use time::US_PER_DAY;
pub use time::{Civil, write_date, write_time, write_timestamp};

use crate::type_map::ColumnType;
use arrow::array::Array;
use arrow::buffer::NullBuffer;
use values::Values;

/// Digits of 00 to 99, two bytes each.
pub(crate) const TWO_DIGITS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// An array whose arrow type is not the one its column type asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a column of type {column_type} cannot be read from an arrow array of type {arrow_type}")]
pub struct TypeMismatch {
    /// Name of the column type.
    pub column_type: String,
    /// The arrow type met.
    pub arrow_type: String,
}

/// One column of a batch, downcast once, writing its values as text.
#[derive(Debug)]
pub struct TextColumn<'a> {
    pub(crate) nulls: Option<&'a NullBuffer>,
    pub(crate) values: Values<'a>,
}

impl<'a> TextColumn<'a> {
    /// Downcasts an array; it must have the arrow type of `column_type`.
    pub fn new(array: &'a dyn Array, column_type: &ColumnType) -> Result<Self, TypeMismatch> {
        let values = Values::new(array, column_type).ok_or_else(|| TypeMismatch {
            column_type: column_type.name(),
            arrow_type: array.data_type().to_string(),
        })?;
        // Columns without a null skip the bitmap on every row.
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        Ok(Self { nulls, values })
    }

    /// Returns whether the value of a row is null.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the canonical text of a row; what a null appends is unspecified, so ask `is_null` first.
    #[inline]
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        match &self.values {
            Values::Bool(values) => {
                out.extend_from_slice(if values.value(row) { b"true" } else { b"false" });
            }
            Values::Int2(values) => write_integer(values[row], out),
            Values::Int4(values) => write_integer(values[row], out),
            Values::Int8(values) => write_integer(values[row], out),
            Values::Float4(values) => write_float4(values[row], out),
            Values::Float8(values) => write_float8(values[row], out),
            Values::Text(values)
            | Values::Numeric(values)
            | Values::Json(values)
            | Values::Bytea(values) => {
                let bytes = values.get(row);
                if matches!(self.values, Values::Bytea(_)) {
                    out.extend_from_slice(b"\\x");
                    write_hex(bytes, out);
                } else {
                    out.extend_from_slice(bytes);
                }
            }
            Values::Uuid(values) => write_uuid(values.value(row), out),
            Values::Date(values) => write_date(values[row], out),
            Values::Time(values) => write_time(values[row], out),
            Values::Timestamp(values) => write_timestamp(values[row], false, out),
            Values::TimestampTz(values) => write_timestamp(values[row], true, out),
            Values::Array(array) => array.write_json(row, out),
            Values::Bytes(values) => base64::write_base64(values.get(row), out),
            Values::Decimal128(values) => write_decimal128(values[row], out),
            Values::Decimal256(values) => write_decimal256(values[row], out),
            Values::Interval(values) => interval::write_interval(values[row], out),
            Values::Range(ends) => write_range(ends, row, out),
            Values::Struct(fields) => write_struct(fields, row, out),
        }
    }

    /// Returns the JSON of a row as its source sends it, or `None` where the column holds no JSON.
    #[inline]
    pub(crate) fn json(&self, row: usize) -> Option<&'a [u8]> {
        match &self.values {
            Values::Json(values) => Some(values.get(row)),
            _ => None,
        }
    }

    /// Appends the value of a row as JSON (RFC 8259); a null appends `null`.
    #[inline]
    pub fn write_json(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.values {
            Values::Bool(_)
            | Values::Int2(_)
            | Values::Int4(_)
            | Values::Int8(_)
            | Values::Json(_)
            | Values::Decimal128(_)
            | Values::Decimal256(_)
            | Values::Struct(_)
            | Values::Array(_) => self.write(row, out),
            Values::Float4(values) => self.write_number(values[row].is_finite(), row, out),
            Values::Float8(values) => self.write_number(values[row].is_finite(), row, out),
            // PostgreSQL's text of a numeric is a JSON number unless it is NaN or an infinity.
            Values::Numeric(values) => {
                let is_finite = values.get(row).last().is_some_and(u8::is_ascii_digit);
                self.write_number(is_finite, row, out);
            }
            Values::Text(values) => write_json_string(values.get(row), out),
            // `\x` is the only part of these forms that JSON escapes.
            Values::Bytea(values) => {
                out.extend_from_slice(b"\"\\\\x");
                write_hex(values.get(row), out);
                out.push(b'"');
            }
            Values::Uuid(_)
            | Values::Date(_)
            | Values::Time(_)
            | Values::Timestamp(_)
            | Values::TimestampTz(_)
            | Values::Bytes(_)
            | Values::Interval(_)
            | Values::Range(_) => self.write_number(false, row, out),
        }
    }

    /// Appends the canonical text bare when it is a JSON number, else in quotes (it needs no escape).
    #[inline]
    fn write_number(&self, is_number: bool, row: usize, out: &mut Vec<u8>) {
        if is_number {
            self.write(row, out);
        } else {
            out.push(b'"');
            self.write(row, out);
            out.push(b'"');
        }
    }
}

/// Appends `[start, end)`; an end that is null has no bound.
fn write_range(ends: &[TextColumn<'_>; 2], row: usize, out: &mut Vec<u8>) {
    let [start, end] = ends;
    for (column, before) in [(start, "["), (end, ", ")] {
        out.extend_from_slice(before.as_bytes());
        if column.is_null(row) {
            out.extend_from_slice(b"UNBOUNDED");
        } else {
            column.write(row, out);
        }
    }
    out.push(b')');
}

/// Appends a struct as a JSON object, members in declared order, no spaces; a null member is `null`.
fn write_struct(fields: &[values::StructField<'_>], row: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&field.member);
        field.values.write_json(row, out);
    }
    out.push(b'}');
}

/// Appends an integer in decimal.
#[inline]
pub(crate) fn write_integer<I: itoa::Integer>(value: I, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.extend_from_slice(&hex_pair(*byte));
    }
}

#[inline]
fn hex_pair(byte: u8) -> [u8; 2] {
    [HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]
}

/// Appends 16 bytes as `8-4-4-4-12` lowercase hex digits.
fn write_uuid(bytes: &[u8], out: &mut Vec<u8>) {
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate().take(16) {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at..at + 2].copy_from_slice(&hex_pair(*byte));
        at += 2;
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests;
