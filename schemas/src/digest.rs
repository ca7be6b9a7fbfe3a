//! The row digest: an order-independent sum of 128-bit row hashes, comparable between runs.
//!
//! Invariant: digests are added mod 2^128 together with the row count, never XORed (equal rows would cancel).
//! A row hash covers typed values, before any null policy or text form; `schemas/TYPES.md` lists the bytes.

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
        | Values::Bytea(values) => write_bytes(values.get(row), out),
        Values::Array(array) => {
            let elements = array.range(row);
            let start = out.len();
            out.extend_from_slice(&[VALUE, 0, 0, 0, 0]);
            out.extend_from_slice(&length(elements.len()));
            for element in elements {
                write_tagged(&array.elements, element, out);
            }
            let written = length(out.len() - start - 5);
            out[start + 1..start + 5].copy_from_slice(&written);
        }
    }
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
