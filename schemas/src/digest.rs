//! The row digest: an order-independent sum of 128-bit row hashes, comparable between runs.
//!
//! Invariant: digests are added mod 2^128 together with the row count, never by XOR (equal rows would cancel).
//! A row hash covers typed values, before any null policy or text form; `schemas/TYPES.md` lists the bytes.

mod batch;

pub use batch::{BatchHasher, UnknownType};

use crate::bind::BoundRoute;
use crate::text::values::Values;
use crate::text::{TextColumn, TypeMismatch};
use arrow::record_batch::RecordBatch;
use std::ops::AddAssign;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Version of the row hash: column order, tags, canonical bytes, hash function and key together.
pub const DIGEST_VERSION: u32 = 1;

/// The public seed of the row hash (XXH3-128); the ASCII bytes of `rekindle`, big-endian.
pub const DIGEST_SEED: u64 = 0x7265_6b69_6e64_6c65;

/// Returns what a key that many rows make adds to a digest: the hash of its length (u32 LE), itself and its value hash
/// (u64 LE), which covers its elements in a canonical way.
pub fn entry_hash(key: &[u8], value_hash: u64) -> u128 {
    let mut canonical = Vec::with_capacity(key.len() + 12);
    write_bytes(key, &mut canonical);
    canonical.extend_from_slice(&value_hash.to_le_bytes());
    xxh3_128_with_seed(&canonical, DIGEST_SEED)
}

/// Tag of a null.
const NULL: u8 = 0;
/// Tag of a value.
const VALUE: u8 = 1;

/// Sum mod 2^128 of row hashes, and how many rows it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// Sum of the row hashes mod 2^128.
    pub sum: u128,
    /// Rows added.
    pub count: u64,
}

impl Digest {
    /// Adds one row hash.
    pub fn add_row(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_add(hash);
        self.count += 1;
    }

    /// Returns the digest of 32 hex digits and a count, or `None` when they are none.
    pub fn from_hex(hex: &str, count: u64) -> Option<Self> {
        let is_hex = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(hex, 16).ok()).flatten().map(|sum| Self { sum, count })
    }

    /// Returns the 32 hex digits of the sum.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count += other.count;
    }
}

/// Hashes the rows of one batch over the digest columns of a route, in name order.
#[derive(Debug)]
pub struct RowHasher<'a> {
    columns: Vec<TextColumn<'a>>,
    canonical: Vec<u8>,
}

impl<'a> RowHasher<'a> {
    /// Downcasts the digest columns of a batch.
    pub fn new(rows: &'a RecordBatch, bound: &BoundRoute) -> Result<Self, TypeMismatch> {
        let columns = bound
            .digest_columns
            .iter()
            .map(|index| {
                let column_type = &bound.schema.columns[*index].column_type;
                TextColumn::new(rows.column(*index).as_ref(), column_type)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { columns, canonical: Vec::with_capacity(256) })
    }

    /// Returns the hash of a row.
    #[inline]
    pub fn hash(&mut self, row: usize) -> u128 {
        self.canonical.clear();
        for column in &self.columns {
            write_tagged(column, row, &mut self.canonical);
        }
        xxh3_128_with_seed(&self.canonical, DIGEST_SEED)
    }
}

/// Appends tag, length (u32 LE) and canonical bytes of one value.
#[inline]
fn write_tagged(column: &TextColumn<'_>, row: usize, out: &mut Vec<u8>) {
    if column.is_null(row) {
        out.extend_from_slice(&[NULL, 0, 0, 0, 0]);
        return;
    }
    match &column.values {
        Values::Bool(values) => write_fixed([u8::from(values.value(row))], out),
        Values::Int2(values) => write_fixed(i64::from(values[row]).to_le_bytes(), out),
        Values::Int4(values) => write_fixed(i64::from(values[row]).to_le_bytes(), out),
        Values::Int8(values)
        | Values::Time(values)
        | Values::Timestamp(values)
        | Values::TimestampTz(values) => write_fixed(values[row].to_le_bytes(), out),
        // All NaNs are one value to PostgreSQL, and one text in Redis.
        Values::Float4(values) => {
            let value = if values[row].is_nan() { f32::NAN } else { values[row] };
            write_fixed(value.to_bits().to_le_bytes(), out);
        }
        Values::Float8(values) => {
            let value = if values[row].is_nan() { f64::NAN } else { values[row] };
            write_fixed(value.to_bits().to_le_bytes(), out);
        }
        Values::Date(values) => write_fixed(values[row].to_le_bytes(), out),
        Values::Uuid(values) => write_bytes(values.value(row), out),
        Values::Text(values)
        | Values::Numeric(values)
        | Values::Json(values)
        | Values::Bytea(values)
        | Values::Bytes(values) => write_bytes(values.get(row), out),
        Values::Decimal128(_) | Values::Decimal256(_) => {
            write_nested(out, |out| column.write(row, out));
        }
        Values::Interval(values) => write_nested(out, |out| {
            out.extend_from_slice(&values[row].months.to_le_bytes());
            out.extend_from_slice(&values[row].days.to_le_bytes());
            out.extend_from_slice(&values[row].nanoseconds.to_le_bytes());
        }),
        Values::Range(ends) => write_nested(out, |out| {
            for end in ends.iter() {
                write_tagged(end, row, out);
            }
        }),
        Values::Struct(fields) => write_nested(out, |out| {
            out.extend_from_slice(&length(fields.len()));
            for field in fields {
                write_tagged(&field.values, row, out);
            }
        }),
        Values::Array(array) => write_nested(out, |out| {
            let elements = array.range(row);
            out.extend_from_slice(&length(elements.len()));
            for element in elements {
                write_tagged(&array.elements, element, out);
            }
        }),
    }
}

/// Appends the tag, the length and what `write` appends.
#[inline]
fn write_nested(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[VALUE, 0, 0, 0, 0]);
    write(out);
    let written = length(out.len() - start - 5);
    out[start + 1..start + 5].copy_from_slice(&written);
}

/// Appends a value of a fixed width; tag and length are constants after inlining.
#[inline]
fn write_fixed<const N: usize>(value: [u8; N], out: &mut Vec<u8>) {
    let mut tagged = [0; 16];
    tagged[0] = VALUE;
    tagged[1..5].copy_from_slice(&length(N));
    tagged[5..5 + N].copy_from_slice(&value);
    out.extend_from_slice(&tagged[..5 + N]);
}

#[inline]
fn write_bytes(value: &[u8], out: &mut Vec<u8>) {
    let [a, b, c, d] = length(value.len());
    out.extend_from_slice(&[VALUE, a, b, c, d]);
    out.extend_from_slice(value);
}

/// PostgreSQL values end at 1 GiB, far below the u32 range.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "arrow offsets bound a value below 2 GiB")]
fn length(bytes: usize) -> [u8; 4] {
    (bytes as u32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::tests::{route, schema};
    use crate::plan::Layout;
    use crate::type_map::ColumnType;
    use arrow::array::{ArrayRef, Float64Array, Int32Array, ListArray, StringArray};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;

    fn bound() -> BoundRoute {
        let columns = [
            ("b", ColumnType::Text),
            ("id", ColumnType::Int4),
            ("a", ColumnType::Float8),
            ("l", ColumnType::Array(Box::new(ColumnType::Int4))),
        ];
        BoundRoute::bind(&route("k:{id}", Layout::Hash), schema(&columns, &[])).unwrap()
    }

    fn hash(b: Option<&str>, id: i32, a: f64, list: Option<Vec<Option<i32>>>) -> u128 {
        let bound = bound();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![b])),
            Arc::new(Int32Array::from(vec![id])),
            Arc::new(Float64Array::from(vec![a])),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([list])),
        ];
        let rows = RecordBatch::try_new(bound.schema.arrow(), arrays).unwrap();
        RowHasher::new(&rows, &bound).unwrap().hash(0)
    }

    #[test]
    fn a_row_hashes_to_the_documented_bytes() {
        let mut bytes = vec![1, 8, 0, 0, 0];
        bytes.extend_from_slice(&1.5_f64.to_le_bytes());
        bytes.extend_from_slice(&[1, 2, 0, 0, 0, b'h', b'i']);
        bytes.extend_from_slice(&[1, 8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[1, 22, 0, 0, 0, 2, 0, 0, 0]);
        bytes.extend_from_slice(&[1, 8, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        bytes.extend_from_slice(&[0, 0, 0, 0, 0]);
        let expected = xxh3_128_with_seed(&bytes, DIGEST_SEED);
        assert_eq!(hash(Some("hi"), 7, 1.5, Some(vec![Some(-1), None])), expected);
    }

    #[test]
    fn null_empty_and_signed_zero_differ_and_nans_do_not() {
        assert_ne!(hash(None, 1, 0.0, None), hash(Some(""), 1, 0.0, None));
        assert_ne!(hash(None, 1, 0.0, None), hash(None, 1, 0.0, Some(vec![])));
        assert_ne!(hash(None, 1, 0.0, None), hash(None, 1, -0.0, None));
        let other_nan = f64::from_bits(f64::NAN.to_bits() ^ 1 ^ (1 << 63));
        assert_eq!(hash(None, 1, f64::NAN, None), hash(None, 1, other_nan, None));
    }

    #[test]
    fn equal_rows_add_up() {
        let mut digest = Digest::default();
        digest.add_row(u128::MAX);
        digest.add_row(u128::MAX);
        assert_eq!(digest, Digest { sum: u128::MAX - 1, count: 2 });
        let mut total = Digest { sum: 3, count: 1 };
        total += digest;
        assert_eq!((total.hex().as_str(), total.count), ("00000000000000000000000000000001", 3));
    }
}
