//! Random tables of BigQuery: types to some depth, values up to their limits, and the arrow arrays that hold them.
//!
//! Invariant: arrays are built by arrow's own constructors, so that nothing of the decoder is used to test it.

use crate::text::write_json_string;
use crate::type_map::ColumnType;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    Float64Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, IntervalMonthDayNano, i256};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;

/// A value of any type; absent values are `None` around it.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Bool(bool),
    Date(i32),
    Int(i64),
    Float(f64),
    Decimal(i128),
    BigDecimal(i256),
    Interval(IntervalMonthDayNano),
    Text(String),
    Bytes(Vec<u8>),
    Members(Vec<Option<Cell>>),
    Elements(Vec<Cell>),
}

/// Types that a key can have.
pub(super) fn key_kind() -> BoxedStrategy<ColumnType> {
    prop_oneof![
        Just(ColumnType::Bool),
        Just(ColumnType::Int8),
        Just(ColumnType::Text),
        Just(ColumnType::Decimal128),
        Just(ColumnType::Decimal256),
        Just(ColumnType::Date),
        Just(ColumnType::Time),
        Just(ColumnType::Timestamp),
        Just(ColumnType::TimestampTz),
    ]
    .boxed()
}

/// Any type that a route can read back.
pub(super) fn kind() -> BoxedStrategy<ColumnType> {
    let ranges = prop_oneof![
        Just(ColumnType::Date),
        Just(ColumnType::Timestamp),
        Just(ColumnType::TimestampTz)
    ];
    let member = prop_oneof![
        6 => key_kind(),
        1 => Just(ColumnType::Float8),
        1 => Just(ColumnType::Bytes),
        1 => Just(ColumnType::Interval),
        1 => ranges.prop_map(|end| ColumnType::Range(Box::new(end))),
    ];
    let nested = member.prop_recursive(3, 12, 3, |inner| {
        let members = vec(inner.clone(), 1..4).prop_map(|kinds| {
            let name = |(index, kind)| (format!("m{index}é\""), kind);
            ColumnType::Struct(kinds.into_iter().enumerate().map(name).collect())
        });
        let array = inner.prop_map(|kind| match kind {
            ColumnType::Array(_) => kind,
            kind => ColumnType::Array(Box::new(kind)),
        });
        prop_oneof![members, array]
    });
    let json = prop_oneof![
        3 => Just(ColumnType::Json),
        1 => Just(ColumnType::Array(Box::new(ColumnType::Json))),
    ];
    prop_oneof![8 => nested, 1 => json].boxed()
}

/// Values of a type, its limits among them.
pub(super) fn cell(kind: &ColumnType) -> BoxedStrategy<Cell> {
    const FIRST_DAY: i32 = -719_162;
    const LAST_DAY: i32 = 2_932_896;
    let days = || prop_oneof![Just(FIRST_DAY), Just(LAST_DAY), FIRST_DAY..=LAST_DAY];
    let day_us = prop_oneof![Just(0), Just(86_399_999_999), Just(1_000_000), 0..86_400_000_000_i64];
    let moment =
        (days(), day_us.clone()).prop_map(|(day, us)| i64::from(day) * 86_400_000_000 + us);
    match kind {
        ColumnType::Bool => any::<bool>().prop_map(Cell::Bool).boxed(),
        ColumnType::Int8 => any::<i64>().prop_map(Cell::Int).boxed(),
        ColumnType::Float8 => prop_oneof![
            Just(f64::NAN),
            Just(f64::NEG_INFINITY),
            Just(-0.0),
            Just(f64::from_bits(1)),
            any::<u64>().prop_map(f64::from_bits),
            any::<i32>().prop_map(f64::from),
        ]
        .prop_map(|value| Cell::Float(if value.is_nan() { f64::NAN } else { value }))
        .boxed(),
        ColumnType::Decimal128 => decimal().prop_map(Cell::Decimal).boxed(),
        ColumnType::Decimal256 => prop_oneof![
            Just(i256::MIN),
            Just(i256::MAX),
            any::<(u128, i128)>().prop_map(|(low, high)| i256::from_parts(low, high)),
            decimal().prop_map(i256::from_i128),
        ]
        .prop_map(Cell::BigDecimal)
        .boxed(),
        ColumnType::Date => days().prop_map(Cell::Date).boxed(),
        ColumnType::Time => day_us.prop_map(Cell::Int).boxed(),
        ColumnType::Timestamp | ColumnType::TimestampTz => moment.prop_map(Cell::Int).boxed(),
        ColumnType::Interval => interval().prop_map(Cell::Interval).boxed(),
        ColumnType::Text => any::<String>().prop_map(Cell::Text).boxed(),
        ColumnType::Bytes => vec(any::<u8>(), 0..20).prop_map(Cell::Bytes).boxed(),
        ColumnType::Json => json().prop_map(Cell::Text).boxed(),
        ColumnType::Range(end) => {
            let end = option::of(cell(end));
            (end.clone(), end).prop_filter_map("starts before it ends", range).boxed()
        }
        ColumnType::Struct(members) => {
            let members: Vec<_> = members.iter().map(|(_, kind)| optional(kind)).collect();
            members.prop_map(Cell::Members).boxed()
        }
        ColumnType::Array(element) => vec(cell(element), 0..4).prop_map(Cell::Elements).boxed(),
        other => unreachable!("{} is no type of bigquery", other.name()),
    }
}

/// A value or NULL; arrays of BigQuery are never NULL.
pub(super) fn optional(kind: &ColumnType) -> BoxedStrategy<Option<Cell>> {
    match kind {
        ColumnType::Array(_) => cell(kind).prop_map(Some).boxed(),
        _ => option::of(cell(kind)).boxed(),
    }
}

fn decimal() -> BoxedStrategy<i128> {
    let limit = 10_i128.pow(38);
    prop_oneof![
        Just(limit - 1),
        Just(1 - limit),
        Just(0),
        any::<i64>().prop_map(i128::from),
        any::<i128>().prop_map(move |value| value % limit),
    ]
    .boxed()
}

fn interval() -> BoxedStrategy<IntervalMonthDayNano> {
    let nanos = 87_840 * 3_600_000_000_000_i64;
    let parts = (-120_000..=120_000, -3_660_000..=3_660_000, -nanos..=nanos, 0..10_u32);
    parts
        .prop_map(|(months, days, nanoseconds, zeros)| {
            let unit = 10_i64.pow(zeros);
            IntervalMonthDayNano { months, days, nanoseconds: nanoseconds / unit * unit }
        })
        .boxed()
}

fn range((start, end): (Option<Cell>, Option<Cell>)) -> Option<Cell> {
    let is_before = match (&start, &end) {
        (Some(Cell::Date(start)), Some(Cell::Date(end))) => start < end,
        (Some(Cell::Int(start)), Some(Cell::Int(end))) => start < end,
        _ => true,
    };
    is_before.then(|| Cell::Members(vec![start, end]))
}

/// JSON as BigQuery may send it: numbers that a float would change, `null`, strings with escapes.
fn json() -> BoxedStrategy<String> {
    const FIXED: [&str; 7] =
        ["null", "1.50", "-0", "12345678901234567890.123456789e-7", "{}", "[ ]", "true"];
    let text = any::<String>().prop_map(|text| {
        let mut out = Vec::new();
        write_json_string(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    });
    let leaf = prop_oneof![proptest::sample::select(FIXED.to_vec()).prop_map(str::to_owned), text];
    leaf.prop_recursive(3, 8, 3, |inner| {
        vec(inner, 1..3).prop_map(|inner| format!("{{\"k\": [{}]}}", inner.join(" ,")))
    })
    .boxed()
}

macro_rules! collect {
    ($cells:expr, $array:ty, $variant:ident) => {
        Arc::new(
            $cells
                .iter()
                .map(|cell| match cell {
                    Some(Cell::$variant(value)) => Some(value.clone()),
                    _ => None,
                })
                .collect::<$array>(),
        )
    };
}

/// Builds the array of a column.
pub(super) fn array(kind: &ColumnType, cells: &[Option<Cell>]) -> ArrayRef {
    match kind {
        ColumnType::Bool => collect!(cells, BooleanArray, Bool),
        ColumnType::Int8 => collect!(cells, Int64Array, Int),
        ColumnType::Float8 => collect!(cells, Float64Array, Float),
        ColumnType::Decimal128 => {
            let array: Arc<Decimal128Array> = collect!(cells, Decimal128Array, Decimal);
            Arc::new(array.as_ref().clone().with_precision_and_scale(38, 9).unwrap())
        }
        ColumnType::Decimal256 => {
            let array: Arc<Decimal256Array> = collect!(cells, Decimal256Array, BigDecimal);
            Arc::new(array.as_ref().clone().with_data_type(kind.arrow()))
        }
        ColumnType::Date => collect!(cells, Date32Array, Date),
        ColumnType::Time => collect!(cells, Time64MicrosecondArray, Int),
        ColumnType::Timestamp => collect!(cells, TimestampMicrosecondArray, Int),
        ColumnType::TimestampTz => {
            let array: Arc<TimestampMicrosecondArray> =
                collect!(cells, TimestampMicrosecondArray, Int);
            Arc::new(array.as_ref().clone().with_timezone("UTC"))
        }
        ColumnType::Interval => collect!(cells, IntervalMonthDayNanoArray, Interval),
        ColumnType::Text | ColumnType::Json => collect!(cells, StringArray, Text),
        ColumnType::Bytes => collect!(cells, BinaryArray, Bytes),
        ColumnType::Range(end) => {
            structure(kind, &[end.as_ref().clone(), end.as_ref().clone()], cells)
        }
        ColumnType::Struct(members) => {
            let kinds: Vec<ColumnType> = members.iter().map(|(_, kind)| kind.clone()).collect();
            structure(kind, &kinds, cells)
        }
        ColumnType::Array(element) => {
            let of = |cell: &Option<Cell>| match cell {
                Some(Cell::Elements(elements)) => elements.clone(),
                _ => Vec::new(),
            };
            let lists: Vec<Vec<Cell>> = cells.iter().map(of).collect();
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
            let elements: Vec<Option<Cell>> = lists.into_iter().flatten().map(Some).collect();
            let DataType::List(item) = kind.arrow() else { unreachable!("an array is a list") };
            Arc::new(ListArray::new(item, offsets, array(element, &elements), None))
        }
        other => unreachable!("{} is no type of bigquery", other.name()),
    }
}

fn structure(kind: &ColumnType, kinds: &[ColumnType], cells: &[Option<Cell>]) -> ArrayRef {
    let DataType::Struct(fields) = kind.arrow() else { unreachable!("a struct is a struct") };
    let member = |index: usize| {
        let of = |cell: &Option<Cell>| match cell {
            Some(Cell::Members(members)) => members[index].clone(),
            _ => None,
        };
        let cells: Vec<Option<Cell>> = cells.iter().map(of).collect();
        array(&kinds[index], &cells)
    };
    let arrays = (0..kinds.len()).map(member).collect();
    let nulls: NullBuffer = cells.iter().map(Option::is_some).collect();
    Arc::new(StructArray::new(fields, arrays, Some(nulls)))
}
