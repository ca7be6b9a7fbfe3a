//! Rows of every type for a lost table: nulls, infinities, nested values, at any depth.
//!
//! Invariant: the rows of a day are a function of the day and their number.

#![allow(clippy::from_iter_instead_of_collect, reason = "an array names its type where it is made")]

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    Float64Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, SchemaRef, i256};
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

/// 2026-11-01 in days since 1970.
const FIRST_DAY: i64 = 20_758;
const DAY_US: i64 = 86_400_000_000;

/// Returns so many rows of a day of November 2026, or of none.
pub(crate) fn rows_of(
    schema: &SchemaRef,
    day: Option<i64>,
    count: usize,
    name: &str,
) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| column(field, day, count, name)).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

/// Values of a column; every seventh is null where it may be.
fn column(field: &Field, day: Option<i64>, count: usize, name: &str) -> ArrayRef {
    let rows = || 0..i64::try_from(count).unwrap();
    match field.name().as_str() {
        "ts" => {
            let times: Vec<Option<i64>> = rows()
                .map(|row| day.map(|day| (FIRST_DAY + day) * DAY_US + row % DAY_US))
                .collect();
            return Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        }
        "log_id" => {
            return Arc::new(StringArray::from_iter_values(
                rows().map(|row| format!("{name}-{row:08}")),
            ));
        }
        "geo" => {
            return Arc::new(StringArray::from_iter(
                rows().map(|row| (row % 7 != 0).then(|| format!("POINT({} 2)", row % 90))),
            ));
        }
        "js" => {
            return Arc::new(StringArray::from_iter(
                rows().map(|row| (row % 7 != 0).then(|| format!("{{\"a\":{row}}}"))),
            ));
        }
        _ => {}
    }
    values(field.data_type(), count, field.is_nullable())
}

#[allow(clippy::cast_precision_loss, reason = "any float will do")]
#[allow(clippy::too_many_lines, reason = "one arm per type")]
fn values(data_type: &DataType, count: usize, is_nullable: bool) -> ArrayRef {
    let given = |row: &i64| !(is_nullable && row % 7 == 3);
    let rows = || (0..i64::try_from(count).unwrap()).map(|row| Some(row).filter(given));
    match data_type {
        DataType::Utf8 => {
            Arc::new(StringArray::from_iter(rows().map(|row| row.map(|row| format!("text {row}")))))
        }
        DataType::Binary => {
            let bytes: Vec<Option<[u8; 3]>> =
                rows().map(|row| row.map(|row| [0, 255, row.to_le_bytes()[0]])).collect();
            Arc::new(BinaryArray::from_iter(bytes))
        }
        DataType::Int64 => {
            Arc::new(Int64Array::from_iter(rows().map(|row| row.map(|row| i64::MIN + row))))
        }
        DataType::Float64 => Arc::new(Float64Array::from_iter(rows().map(|row| {
            row.map(|row| match row % 5 {
                0 => f64::NAN,
                1 => f64::NEG_INFINITY,
                2 => -0.0,
                _ => row as f64 / 3.0,
            })
        }))),
        DataType::Decimal128(..) => Arc::new(
            Decimal128Array::from_iter(
                rows().map(|row| row.map(|row| i128::from(row) * 1_234_567_891)),
            )
            .with_precision_and_scale(38, 9)
            .unwrap(),
        ),
        DataType::Decimal256(..) => Arc::new(
            Decimal256Array::from_iter(
                rows().map(|row| row.map(|row| i256::from_i128(i128::MAX - i128::from(row)))),
            )
            .with_precision_and_scale(76, 38)
            .unwrap(),
        ),
        DataType::Boolean => {
            Arc::new(BooleanArray::from_iter(rows().map(|row| row.map(|row| row % 2 == 0))))
        }
        DataType::Date32 => Arc::new(Date32Array::from_iter(
            rows().map(|row| row.map(|row| i32::try_from(row % 30_000).unwrap())),
        )),
        DataType::Time64(_) => Arc::new(Time64MicrosecondArray::from_iter(
            rows().map(|row| row.map(|row| row % DAY_US)),
        )),
        DataType::Timestamp(_, zone) => Arc::new(
            TimestampMicrosecondArray::from_iter(rows().map(|row| row.map(|row| row * 1_000_003)))
                .with_timezone_opt(zone.clone()),
        ),
        DataType::Interval(_) => {
            Arc::new(IntervalMonthDayNanoArray::from_iter(rows().map(|row| {
                row.map(|row| {
                    IntervalMonthDayNano::new(i32::try_from(row % 12).unwrap(), -3, row * 1000)
                })
            })))
        }
        DataType::Struct(fields) => {
            let columns = fields
                .iter()
                .map(|field| values(field.data_type(), count, field.is_nullable()))
                .collect();
            let nulls: NullBuffer = (0..count).map(|row| !is_nullable || row % 11 != 5).collect();
            Arc::new(
                StructArray::try_new(fields.clone(), columns, Some(nulls).filter(|_| is_nullable))
                    .unwrap(),
            )
        }
        DataType::List(item) => {
            let lengths: Vec<usize> = (0..count).map(|row| row % 3).collect();
            let total = lengths.iter().sum();
            let elements = values(item.data_type(), total, false);
            Arc::new(
                ListArray::try_new(
                    Arc::clone(item),
                    OffsetBuffer::from_lengths(lengths),
                    elements,
                    None,
                )
                .unwrap(),
            )
        }
        other => new_null_array(other, count),
    }
}
