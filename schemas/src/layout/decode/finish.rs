//! From filled columns to arrow arrays.
//!
//! Invariant: buffers are handed over, not copied, and the column is empty afterwards.

use super::column::{Column, Strings, Values};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, ListArray, PrimitiveArray,
    StringArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Fields, Float64Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use std::mem;
use std::sync::Arc;

impl Column {
    /// Takes the values as an array of the column's arrow type; room for as many is made anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let rows = self.nulls.len();
        let nulls = self.nulls.finish();
        let data_type = &self.data_type;
        match &mut self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int8(values) => primitive::<Int64Type>(values, nulls, data_type),
            Values::Float8(values) => primitive::<Float64Type>(values, nulls, data_type),
            Values::Decimal128(values) => primitive::<Decimal128Type>(values, nulls, data_type),
            Values::Decimal256(values) => primitive::<Decimal256Type>(values, nulls, data_type),
            Values::Date(values) => primitive::<Date32Type>(values, nulls, data_type),
            Values::Time(values) => primitive::<Time64MicrosecondType>(values, nulls, data_type),
            Values::Timestamp(values) | Values::TimestampTz(values) => {
                primitive::<TimestampMicrosecondType>(values, nulls, data_type)
            }
            Values::Interval(values) => {
                primitive::<IntervalMonthDayNanoType>(values, nulls, data_type)
            }
            Values::Text(values) | Values::Json(values) => {
                let (offsets, data) = values.take();
                Arc::new(StringArray::new(offsets, data, nulls))
            }
            Values::Bytes(values) => {
                let (offsets, data) = values.take();
                Arc::new(BinaryArray::new(offsets, data, nulls))
            }
            Values::Range(ends) => {
                let arrays = ends.iter_mut().map(Self::finish).collect();
                structure(data_type, arrays, nulls, rows)
            }
            Values::Struct(members) => {
                let arrays = members.iter_mut().map(|(_, member)| member.finish()).collect();
                structure(data_type, arrays, nulls, rows)
            }
            Values::Array { offsets, elements } => {
                let DataType::List(item) = data_type else {
                    unreachable!("checked by Column::new")
                };
                let offsets = offset_buffer(offsets);
                Arc::new(ListArray::new(Arc::clone(item), offsets, elements.finish(), nulls))
            }
        }
    }
}

impl Strings {
    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let data = mem::take(&mut self.data);
        // The next batch is like this one.
        self.data.reserve(data.len());
        (offset_buffer(&mut self.offsets), Buffer::from_vec(data))
    }
}

/// Takes the offsets and starts new ones.
fn offset_buffer(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let mut next = Vec::with_capacity(offsets.len());
    next.push(0);
    OffsetBuffer::new(ScalarBuffer::from(mem::replace(offsets, next)))
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> ArrayRef {
    let next = Vec::with_capacity(values.len());
    let values = ScalarBuffer::from(mem::replace(values, next));
    Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(data_type.clone()))
}

fn structure(
    data_type: &DataType,
    arrays: Vec<ArrayRef>,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> ArrayRef {
    let fields = match data_type {
        DataType::Struct(fields) => fields.clone(),
        _ => Fields::empty(),
    };
    debug_assert!(
        arrays.iter().all(|array| array.len() == rows),
        "children are as long as the parent"
    );
    if arrays.is_empty() {
        return Arc::new(StructArray::new_empty_fields(rows, nulls));
    }
    Arc::new(StructArray::new(fields, arrays, nulls))
}
