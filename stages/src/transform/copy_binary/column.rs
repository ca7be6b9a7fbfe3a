//! Builders: binary field values of one column into one arrow array.
//!
//! Invariant: after a refused `push` the builder is as before but for unused bytes; the caller then pushes
//! a null, so every builder has one slot per row. Texts are checked for UTF-8 once per batch.

use super::{inet, numeric};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray,
    ListArray, NullBufferBuilder, PrimitiveArray, StringArray, StringBuilder,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use schemas::ColumnType;
use std::sync::Arc;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
const EPOCH_US: i64 = 946_684_800_000_000;
/// `24:00:00`, the largest `time`.
const TIME_US_MAX: i64 = 86_400_000_000;
/// Texts are given this many bytes per row at first.
const TEXT_BYTES_ESTIMATE: usize = 16;

/// Why a value cannot be carried; a phrase without the value.
type Problem = &'static str;

const WRONG_LENGTH: Problem = "the value has an unexpected length";
const OUT_OF_RANGE: Problem = "the time is out of range";

/// A finished column.
pub(super) struct Finished {
    pub(super) array: ArrayRef,
    /// Rows whose text is not UTF-8; they are null in the array.
    pub(super) not_utf8: Vec<usize>,
}

/// Collects the values of one column.
pub(super) struct ColumnBuilder {
    nulls: NullBufferBuilder,
    values: Values,
}

enum Values {
    Bool(BooleanBufferBuilder),
    Int2(Vec<i16>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    Float4(Vec<f32>),
    Float8(Vec<f64>),
    Numeric(Texts),
    Inet(Texts),
    Text(Texts),
    Jsonb(Texts),
    Bytea(Texts),
    Uuid(Vec<u8>),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    TimestampTz(Vec<i64>),
    Array { ends: Vec<i32>, elements: Box<ColumnBuilder>, item: Arc<Field> },
}

/// Variable-length values back to back.
struct Texts {
    /// Starts with 0; one more per value.
    ends: Vec<i32>,
    data: Vec<u8>,
}

impl Texts {
    fn new(rows: usize, batch_bytes: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        let data = Vec::with_capacity(rows.saturating_mul(TEXT_BYTES_ESTIMATE).min(batch_bytes));
        Self { ends, data }
    }

    /// Ends a value where the data ends now; `finish` refuses a column whose data outgrew the offsets.
    #[inline]
    fn end(&mut self) {
        self.ends.push(to_offset(self.data.len()));
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "`finish` refuses a column in which this wrapped"
)]
fn to_offset(bytes: usize) -> i32 {
    bytes as i32
}

impl ColumnBuilder {
    pub(super) fn new(column_type: &ColumnType, rows: usize, batch_bytes: usize) -> Self {
        let texts = || Texts::new(rows, batch_bytes);
        let values = match column_type {
            ColumnType::Bool => Values::Bool(BooleanBufferBuilder::new(rows)),
            ColumnType::Int2 => Values::Int2(Vec::with_capacity(rows)),
            ColumnType::Int4 => Values::Int4(Vec::with_capacity(rows)),
            ColumnType::Int8 => Values::Int8(Vec::with_capacity(rows)),
            ColumnType::Float4 => Values::Float4(Vec::with_capacity(rows)),
            ColumnType::Float8 => Values::Float8(Vec::with_capacity(rows)),
            ColumnType::Numeric => Values::Numeric(texts()),
            ColumnType::Inet => Values::Inet(texts()),
            ColumnType::Text | ColumnType::Printed(_) | ColumnType::Json => Values::Text(texts()),
            ColumnType::Jsonb => Values::Jsonb(texts()),
            // PostgreSQL has none of those after the first; a batch of them would not fit its schema.
            ColumnType::Bytea
            | ColumnType::Bytes
            | ColumnType::Decimal128
            | ColumnType::Decimal256
            | ColumnType::Interval
            | ColumnType::Range(_)
            | ColumnType::Struct(_) => Values::Bytea(texts()),
            ColumnType::Uuid => Values::Uuid(Vec::with_capacity(rows * 16)),
            ColumnType::Date => Values::Date(Vec::with_capacity(rows)),
            ColumnType::Time => Values::Time(Vec::with_capacity(rows)),
            ColumnType::Timestamp => Values::Timestamp(Vec::with_capacity(rows)),
            ColumnType::TimestampTz => Values::TimestampTz(Vec::with_capacity(rows)),
            ColumnType::Array(element) => {
                let mut ends = Vec::with_capacity(rows + 1);
                ends.push(0);
                Values::Array {
                    ends,
                    elements: Box::new(Self::new(element, rows, batch_bytes)),
                    item: Arc::new(Field::new("item", element.arrow(), true)),
                }
            }
        };
        Self { nulls: NullBufferBuilder::new(rows), values }
    }

    #[inline]
    pub(super) fn push_null(&mut self) {
        self.nulls.append_null();
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int2(values) => values.push(0),
            Values::Int4(values) | Values::Date(values) => values.push(0),
            Values::Int8(values)
            | Values::Time(values)
            | Values::Timestamp(values)
            | Values::TimestampTz(values) => values.push(0),
            Values::Float4(values) => values.push(0.0),
            Values::Float8(values) => values.push(0.0),
            Values::Numeric(texts)
            | Values::Inet(texts)
            | Values::Text(texts)
            | Values::Jsonb(texts)
            | Values::Bytea(texts) => texts.end(),
            Values::Uuid(values) => values.extend_from_slice(&[0; 16]),
            // Elements of a refused array stay behind the null, where nobody looks.
            Values::Array { ends, elements, .. } => ends.push(to_offset(elements.nulls.len())),
        }
    }

    /// Adds a value in the binary format of its type (`*_send` in `src/backend/utils/adt`).
    #[inline]
    pub(super) fn push(&mut self, field: &[u8]) -> Result<(), Problem> {
        match &mut self.values {
            Values::Bool(values) => values.append(fixed::<1>(field)?[0] != 0),
            Values::Int2(values) => values.push(i16::from_be_bytes(fixed(field)?)),
            Values::Int4(values) => values.push(i32::from_be_bytes(fixed(field)?)),
            Values::Int8(values) => values.push(i64::from_be_bytes(fixed(field)?)),
            Values::Float4(values) => values.push(f32::from_be_bytes(fixed(field)?)),
            Values::Float8(values) => values.push(f64::from_be_bytes(fixed(field)?)),
            Values::Numeric(texts) => {
                numeric::write_text(field, &mut texts.data)?;
                texts.end();
            }
            Values::Inet(texts) => {
                inet::write_text(field, &mut texts.data)?;
                texts.end();
            }
            Values::Text(texts) | Values::Bytea(texts) => {
                texts.data.extend_from_slice(field);
                texts.end();
            }
            Values::Jsonb(texts) => {
                let Some((1, text)) = field.split_first() else {
                    return Err("the jsonb version is not known");
                };
                texts.data.extend_from_slice(text);
                texts.end();
            }
            Values::Uuid(values) => values.extend_from_slice(&fixed::<16>(field)?),
            Values::Date(values) => values.push(date(i32::from_be_bytes(fixed(field)?))?),
            Values::Time(values) => {
                let us = i64::from_be_bytes(fixed(field)?);
                if !(0..=TIME_US_MAX).contains(&us) {
                    return Err(OUT_OF_RANGE);
                }
                values.push(us);
            }
            Values::Timestamp(values) | Values::TimestampTz(values) => {
                values.push(timestamp(i64::from_be_bytes(fixed(field)?))?);
            }
            Values::Array { ends, elements, .. } => {
                push_elements(field, elements)?;
                ends.push(to_offset(elements.nulls.len()));
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Finished, ArrowError> {
        let nulls = self.nulls.finish();
        let array: ArrayRef = match self.values {
            Values::Bool(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int2(values) => primitive::<Int16Type>(values, nulls)?,
            Values::Int4(values) => primitive::<Int32Type>(values, nulls)?,
            Values::Int8(values) => primitive::<Int64Type>(values, nulls)?,
            Values::Float4(values) => primitive::<Float32Type>(values, nulls)?,
            Values::Float8(values) => primitive::<Float64Type>(values, nulls)?,
            Values::Numeric(texts)
            | Values::Inet(texts)
            | Values::Text(texts)
            | Values::Jsonb(texts) => return finish_texts(texts, nulls),
            Values::Bytea(texts) => {
                let (offsets, data) = buffers(texts)?;
                Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
            }
            Values::Uuid(values) => {
                Arc::new(FixedSizeBinaryArray::try_new(16, Buffer::from_vec(values), nulls)?)
            }
            Values::Date(values) => primitive::<Date32Type>(values, nulls)?,
            Values::Time(values) => primitive::<Time64MicrosecondType>(values, nulls)?,
            Values::Timestamp(values) => primitive::<TimestampMicrosecondType>(values, nulls)?,
            Values::TimestampTz(values) => {
                let array =
                    PrimitiveArray::<TimestampMicrosecondType>::try_new(values.into(), nulls)?;
                Arc::new(array.with_timezone("UTC"))
            }
            Values::Array { ends, elements, item } => {
                let finished = elements.finish()?;
                let mut not_utf8: Vec<usize> = finished
                    .not_utf8
                    .iter()
                    .map(|element| row_of_element(&ends, *element))
                    .collect();
                not_utf8.dedup();
                let nulls = without_rows(nulls, ends.len() - 1, &not_utf8);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                let array = ListArray::try_new(item, offsets, finished.array, nulls)?;
                return Ok(Finished { array: Arc::new(array), not_utf8 });
            }
        };
        Ok(Finished { array, not_utf8: Vec::new() })
    }
}

/// Adds the elements of an array value: dimensions, null flag, element type, then per dimension its
/// size and lower bound, then the elements as fields (`array_send`).
fn push_elements(field: &[u8], elements: &mut ColumnBuilder) -> Result<(), Problem> {
    const BROKEN: Problem = "the array is malformed";
    let (header, mut rest) = field.split_at_checked(12).ok_or(BROKEN)?;
    match header[..4] {
        [0, 0, 0, 0] => return if rest.is_empty() { Ok(()) } else { Err(BROKEN) },
        [0, 0, 0, 1] => {}
        _ => return Err("the array has more than one dimension"),
    }
    let (dimension, after) = rest.split_first_chunk::<8>().ok_or(BROKEN)?;
    let [a, b, c, d, bound @ ..] = *dimension;
    let count = usize::try_from(i32::from_be_bytes([a, b, c, d])).map_err(|_| BROKEN)?;
    // A JSON array has no place for another lower bound.
    if bound != [0, 0, 0, 1] {
        return Err("the array does not begin at index 1");
    }
    rest = after;
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(BROKEN)?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            elements.push_null();
            rest = after;
            continue;
        }
        let length = usize::try_from(length).map_err(|_| BROKEN)?;
        let (element, after) = after.split_at_checked(length).ok_or(BROKEN)?;
        elements.push(element)?;
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(BROKEN) }
}

#[inline]
fn fixed<const N: usize>(field: &[u8]) -> Result<[u8; N], Problem> {
    field.try_into().map_err(|_| WRONG_LENGTH)
}

/// Moves a date to the epoch of 1970; the infinities stay the extremes.
#[inline]
fn date(days: i32) -> Result<i32, Problem> {
    match days {
        i32::MIN | i32::MAX => Ok(days),
        _ => days.checked_add(EPOCH_DAYS).filter(|days| *days != i32::MAX).ok_or(OUT_OF_RANGE),
    }
}

/// Moves a timestamp to the epoch of 1970; the infinities stay the extremes.
#[inline]
fn timestamp(us: i64) -> Result<i64, Problem> {
    match us {
        i64::MIN | i64::MAX => Ok(us),
        _ => us.checked_add(EPOCH_US).filter(|us| *us != i64::MAX).ok_or(OUT_OF_RANGE),
    }
}

type Nulls = Option<NullBuffer>;

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Nulls,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(values.into(), nulls)?))
}

fn buffers(texts: Texts) -> Result<(OffsetBuffer<i32>, Buffer), ArrowError> {
    if i32::try_from(texts.data.len()).is_err() {
        return Err(ArrowError::OffsetOverflowError(texts.data.len()));
    }
    Ok((OffsetBuffer::new(ScalarBuffer::from(texts.ends)), Buffer::from_vec(texts.data)))
}

/// Checks all texts of a batch in one pass, and one by one only when that fails.
fn finish_texts(texts: Texts, nulls: Nulls) -> Result<Finished, ArrowError> {
    let (offsets, data) = buffers(texts)?;
    match StringArray::try_new(offsets.clone(), data.clone(), nulls.clone()) {
        Ok(array) => Ok(Finished { array: Arc::new(array), not_utf8: Vec::new() }),
        Err(_) => Ok(without_invalid(&BinaryArray::try_new(offsets, data, nulls)?)),
    }
}

fn without_invalid(values: &BinaryArray) -> Finished {
    let mut not_utf8 = Vec::new();
    let mut texts = StringBuilder::with_capacity(values.len(), values.value_data().len());
    for (row, value) in values.iter().enumerate() {
        match value.map(std::str::from_utf8) {
            None => texts.append_null(),
            Some(Ok(text)) => texts.append_value(text),
            Some(Err(_)) => {
                not_utf8.push(row);
                texts.append_null();
            }
        }
    }
    Finished { array: Arc::new(texts.finish()), not_utf8 }
}

/// Makes rows null, besides those that are.
fn without_rows(nulls: Nulls, row_count: usize, rows: &[usize]) -> Nulls {
    if rows.is_empty() {
        return nulls;
    }
    let mut is_valid = vec![true; row_count];
    for row in rows {
        is_valid[*row] = false;
    }
    NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::from(is_valid)))
}

/// Returns the row whose elements include an element.
fn row_of_element(ends: &[i32], element: usize) -> usize {
    ends.partition_point(|end| end.cast_unsigned() as usize <= element).saturating_sub(1)
}
