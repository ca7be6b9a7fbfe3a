//! Hashes the rows of an arrow batch of any nesting, by the same canonical bytes as the rows of a route.
//!
//! Invariant: the hash of a row depends on its values and on the names of its columns alone, not on how the batch is
//! sliced, nor on what lies under a null.

use super::{DIGEST_SEED, Digest, NULL, VALUE, length, write_bytes, write_fixed};
use arrow::array::{Array, AsArray, BooleanArray, FixedSizeBinaryArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Fields, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, i256,
};
use arrow::record_batch::RecordBatch;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A column type that has no canonical bytes.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("column {column}: arrow type {data_type} has no row hash")]
pub struct UnknownType {
    /// Column, with the path to a nested field.
    pub column: String,
    /// The arrow type.
    pub data_type: String,
}

/// Hashes the rows of one batch over all its columns, in name order.
#[derive(Debug)]
pub struct BatchHasher<'a> {
    columns: Vec<Nested<'a>>,
    rows: usize,
    canonical: Vec<u8>,
}

impl<'a> BatchHasher<'a> {
    /// Downcasts the columns of a batch.
    pub fn new(rows: &'a RecordBatch) -> Result<Self, UnknownType> {
        let schema = rows.schema_ref();
        let columns = in_name_order(schema.fields())
            .into_iter()
            .map(|index| Nested::new(rows.column(index).as_ref(), schema.field(index).name()))
            .collect::<Result<_, _>>()?;
        Ok(Self { columns, rows: rows.num_rows(), canonical: Vec::with_capacity(1024) })
    }

    /// Returns the hash of a row.
    #[inline]
    pub fn hash(&mut self, row: usize) -> u128 {
        self.canonical.clear();
        for column in &self.columns {
            column.write(row, &mut self.canonical);
        }
        xxh3_128_with_seed(&self.canonical, DIGEST_SEED)
    }

    /// Adds the hashes of all rows.
    pub fn add_to(&mut self, digest: &mut Digest) {
        for row in 0..self.rows {
            digest.add_row(self.hash(row));
        }
    }
}

fn in_name_order(fields: &Fields) -> Vec<usize> {
    let mut order: Vec<usize> = (0..fields.len()).collect();
    order.sort_by_key(|index| fields[*index].name().as_bytes());
    order
}

#[derive(Debug)]
struct Nested<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

#[derive(Debug)]
enum Values<'a> {
    Bool(&'a BooleanArray),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    /// Integers, times and timestamps.
    Int64(&'a [i64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Date(&'a [i32]),
    Decimal128(&'a [i128]),
    Decimal256(&'a [i256]),
    Interval(&'a [IntervalMonthDayNano]),
    Bytes {
        offsets: &'a [i32],
        data: &'a [u8],
    },
    LargeBytes {
        offsets: &'a [i64],
        data: &'a [u8],
    },
    Fixed(&'a FixedSizeBinaryArray),
    List {
        offsets: &'a [i32],
        elements: Box<Nested<'a>>,
    },
    Struct(Vec<Nested<'a>>),
}

impl<'a> Nested<'a> {
    fn new(array: &'a dyn Array, path: &str) -> Result<Self, UnknownType> {
        let values = match array.data_type() {
            DataType::Boolean => Values::Bool(array.as_boolean()),
            DataType::Int16 => Values::Int16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 => Values::Int32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>().values()),
            DataType::Time64(TimeUnit::Microsecond) => {
                Values::Int64(array.as_primitive::<Time64MicrosecondType>().values())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Values::Int64(array.as_primitive::<TimestampMicrosecondType>().values())
            }
            DataType::Float32 => Values::Float32(array.as_primitive::<Float32Type>().values()),
            DataType::Float64 => Values::Float64(array.as_primitive::<Float64Type>().values()),
            DataType::Date32 => Values::Date(array.as_primitive::<Date32Type>().values()),
            DataType::Decimal128(..) => {
                Values::Decimal128(array.as_primitive::<Decimal128Type>().values())
            }
            DataType::Decimal256(..) => {
                Values::Decimal256(array.as_primitive::<Decimal256Type>().values())
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Values::Interval(array.as_primitive::<IntervalMonthDayNanoType>().values())
            }
            DataType::Utf8 => {
                let text = array.as_string::<i32>();
                Values::Bytes { offsets: text.value_offsets(), data: text.value_data() }
            }
            DataType::Binary => {
                let bytes = array.as_binary::<i32>();
                Values::Bytes { offsets: bytes.value_offsets(), data: bytes.value_data() }
            }
            DataType::LargeUtf8 => {
                let text = array.as_string::<i64>();
                Values::LargeBytes { offsets: text.value_offsets(), data: text.value_data() }
            }
            DataType::LargeBinary => {
                let bytes = array.as_binary::<i64>();
                Values::LargeBytes { offsets: bytes.value_offsets(), data: bytes.value_data() }
            }
            DataType::FixedSizeBinary(_) => Values::Fixed(array.as_fixed_size_binary()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let elements = Box::new(Self::new(list.values().as_ref(), path)?);
                Values::List { offsets: list.value_offsets(), elements }
            }
            DataType::Struct(fields) => Values::Struct(Self::fields(array, fields, path)?),
            other => {
                return Err(UnknownType { column: path.to_owned(), data_type: other.to_string() });
            }
        };
        Ok(Self { nulls: array.nulls(), values })
    }

    fn fields(array: &'a dyn Array, fields: &Fields, path: &str) -> Result<Vec<Self>, UnknownType> {
        let columns = array.as_struct().columns();
        fields
            .iter()
            .zip(columns)
            .map(|(field, column)| Self::new(column.as_ref(), &format!("{path}.{}", field.name())))
            .collect()
    }

    /// Appends tag, length (u32 LE) and canonical bytes of one value.
    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            out.extend_from_slice(&[NULL, 0, 0, 0, 0]);
            return;
        }
        match &self.values {
            Values::Bool(values) => write_fixed([u8::from(values.value(row))], out),
            Values::Int16(values) => write_fixed(i64::from(values[row]).to_le_bytes(), out),
            Values::Int32(values) => write_fixed(i64::from(values[row]).to_le_bytes(), out),
            Values::Int64(values) => write_fixed(values[row].to_le_bytes(), out),
            Values::Float32(values) => write_float32(values[row], out),
            Values::Float64(values) => write_float64(values[row], out),
            Values::Date(values) => write_fixed(values[row].to_le_bytes(), out),
            Values::Decimal128(values) => write_bytes(&values[row].to_le_bytes(), out),
            Values::Decimal256(values) => write_bytes(&values[row].to_le_bytes(), out),
            Values::Interval(values) => write_interval(values[row], out),
            Values::Bytes { offsets, data } => write_bytes(&data[range(offsets, row)], out),
            Values::LargeBytes { offsets, data } => {
                write_bytes(&data[large_range(offsets, row)], out)
            }
            Values::Fixed(values) => write_bytes(values.value(row), out),
            Values::List { offsets, elements } => write_nested(out, |out| {
                let elements_of_row = range(offsets, row);
                out.extend_from_slice(&length(elements_of_row.len()));
                elements_of_row.for_each(|element| elements.write(element, out));
            }),
            Values::Struct(fields) => write_nested(out, |out| {
                out.extend_from_slice(&length(fields.len()));
                fields.iter().for_each(|field| field.write(row, out));
            }),
        }
    }
}

/// Appends a tag, the length of what `write` appends, and that.
#[inline]
fn write_nested(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[VALUE, 0, 0, 0, 0]);
    write(out);
    let written = length(out.len() - start - 5);
    out[start + 1..start + 5].copy_from_slice(&written);
}

fn write_float32(value: f32, out: &mut Vec<u8>) {
    let value = if value.is_nan() { f32::NAN } else { value };
    write_fixed(value.to_bits().to_le_bytes(), out);
}

fn write_float64(value: f64, out: &mut Vec<u8>) {
    let value = if value.is_nan() { f64::NAN } else { value };
    write_fixed(value.to_bits().to_le_bytes(), out);
}

fn write_interval(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&value.months.to_le_bytes());
    bytes[4..8].copy_from_slice(&value.days.to_le_bytes());
    bytes[8..].copy_from_slice(&value.nanoseconds.to_le_bytes());
    write_bytes(&bytes, out);
}

/// Arrow's own arrays keep their offsets ascending and within the data.
#[inline]
#[expect(clippy::cast_sign_loss, reason = "offsets of arrow are never negative")]
fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

#[inline]
#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "offsets of arrow are never negative and index memory"
)]
fn large_range(offsets: &[i64], row: usize) -> std::ops::Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}
