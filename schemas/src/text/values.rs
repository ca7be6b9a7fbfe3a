//! Typed access to the arrays of a batch, downcast once per batch.
//!
//! Invariant: a `Values` exists only for an array of exactly the arrow type that its column type names.

use super::TextColumn;
use crate::type_map::ColumnType;
use arrow::array::{
    Array, ArrowPrimitiveType, AsArray, BooleanArray, FixedSizeBinaryArray, GenericByteArray,
    StructArray,
};
use arrow::datatypes::{
    BinaryType, ByteArrayType, DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type,
    Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType, Utf8Type, i256,
};

/// The values of one column; a slice index is a row.
#[derive(Debug)]
pub(crate) enum Values<'a> {
    Bool(&'a BooleanArray),
    Int2(&'a [i16]),
    Int4(&'a [i32]),
    Int8(&'a [i64]),
    Float4(&'a [f32]),
    Float8(&'a [f64]),
    Numeric(ByteValues<'a>),
    Text(ByteValues<'a>),
    Json(ByteValues<'a>),
    Bytea(ByteValues<'a>),
    Uuid(&'a FixedSizeBinaryArray),
    Date(&'a [i32]),
    Time(&'a [i64]),
    Timestamp(&'a [i64]),
    TimestampTz(&'a [i64]),
    Array(ListValues<'a>),
    Bytes(ByteValues<'a>),
    Decimal128(&'a [i128]),
    Decimal256(&'a [i256]),
    Interval(&'a [IntervalMonthDayNano]),
    Range(Box<[TextColumn<'a>; 2]>),
    Struct(Vec<StructField<'a>>),
}

/// One field of a struct column.
#[derive(Debug)]
pub(crate) struct StructField<'a> {
    /// `"name":` of a JSON member.
    pub(super) member: Vec<u8>,
    pub(crate) values: TextColumn<'a>,
}

/// Variable-length values: row `i` is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteValues<'a> {
    offsets: &'a [i32],
    data: &'a [u8],
}

impl<'a> ByteValues<'a> {
    #[inline]
    pub(crate) fn get(&self, row: usize) -> &'a [u8] {
        &self.data[range(self.offsets, row)]
    }
}

/// One-dimensional arrays: row `i` is elements `offsets[i]..offsets[i + 1]`.
#[derive(Debug)]
pub(crate) struct ListValues<'a> {
    offsets: &'a [i32],
    pub(crate) elements: Box<TextColumn<'a>>,
}

impl ListValues<'_> {
    #[inline]
    pub(crate) fn range(&self, row: usize) -> std::ops::Range<usize> {
        range(self.offsets, row)
    }

    /// Appends the elements of a row as a JSON array without spaces.
    pub(super) fn write_json(&self, row: usize, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, element) in self.range(row).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.elements.write_json(element, out);
        }
        out.push(b']');
    }
}

/// Arrow offsets are never negative, so the sign bit carries nothing.
#[inline]
fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    offsets[row].cast_unsigned() as usize..offsets[row + 1].cast_unsigned() as usize
}

impl<'a> Values<'a> {
    /// Returns `None` when the array does not have the arrow type of `column_type`.
    pub(crate) fn new(array: &'a dyn Array, column_type: &ColumnType) -> Option<Self> {
        Some(match column_type {
            ColumnType::Bool => Self::Bool(array.as_boolean_opt()?),
            ColumnType::Int2 => Self::Int2(primitive::<Int16Type>(array)?),
            ColumnType::Int4 => Self::Int4(primitive::<Int32Type>(array)?),
            ColumnType::Int8 => Self::Int8(primitive::<Int64Type>(array)?),
            ColumnType::Float4 => Self::Float4(primitive::<Float32Type>(array)?),
            ColumnType::Float8 => Self::Float8(primitive::<Float64Type>(array)?),
            ColumnType::Numeric => Self::Numeric(bytes::<Utf8Type>(array)?),
            ColumnType::Text | ColumnType::Inet | ColumnType::Printed(_) => {
                Self::Text(bytes::<Utf8Type>(array)?)
            }
            ColumnType::Json | ColumnType::Jsonb => Self::Json(bytes::<Utf8Type>(array)?),
            ColumnType::Bytea => Self::Bytea(bytes::<BinaryType>(array)?),
            ColumnType::Uuid => Self::Uuid(
                array.as_fixed_size_binary_opt().filter(|array| array.value_length() == 16)?,
            ),
            ColumnType::Date => Self::Date(primitive::<Date32Type>(array)?),
            ColumnType::Time => Self::Time(primitive::<Time64MicrosecondType>(array)?),
            ColumnType::Timestamp => Self::Timestamp(primitive::<TimestampMicrosecondType>(array)?),
            ColumnType::TimestampTz => {
                Self::TimestampTz(primitive::<TimestampMicrosecondType>(array)?)
            }
            ColumnType::Array(element) => {
                let list = array.as_list_opt::<i32>()?;
                Self::Array(ListValues {
                    offsets: list.value_offsets(),
                    elements: Box::new(TextColumn::new(list.values().as_ref(), element).ok()?),
                })
            }
            ColumnType::Bytes => Self::Bytes(bytes::<BinaryType>(array)?),
            ColumnType::Decimal128 if *array.data_type() == column_type.arrow() => {
                Self::Decimal128(primitive::<Decimal128Type>(array)?)
            }
            ColumnType::Decimal256 if *array.data_type() == column_type.arrow() => {
                Self::Decimal256(primitive::<Decimal256Type>(array)?)
            }
            // Another scale would be another number.
            ColumnType::Decimal128 | ColumnType::Decimal256 => return None,
            ColumnType::Interval => Self::Interval(primitive::<IntervalMonthDayNanoType>(array)?),
            ColumnType::Range(element) => {
                let ends = array.as_struct_opt()?;
                let end = |name| TextColumn::new(ends.column_by_name(name)?.as_ref(), element).ok();
                Self::Range(Box::new([end("start")?, end("end")?]))
            }
            ColumnType::Struct(fields) => {
                Self::Struct(struct_fields(array.as_struct_opt()?, fields)?)
            }
        })
    }
}

/// Fields are matched by place, because `GoogleSQL` lets two fields of a query's struct share a name.
fn struct_fields<'a>(
    array: &'a StructArray,
    fields: &[(String, ColumnType)],
) -> Option<Vec<StructField<'a>>> {
    let DataType::Struct(found) = array.data_type() else { return None };
    if found.len() != fields.len() {
        return None;
    }
    fields
        .iter()
        .zip(found)
        .enumerate()
        .map(|(index, ((name, column_type), found))| {
            let is_same = found.name() == name;
            let values = TextColumn::new(array.column(index).as_ref(), column_type).ok()?;
            let mut member = Vec::with_capacity(name.len() + 3);
            super::write_json_string(name.as_bytes(), &mut member);
            member.push(b':');
            is_same.then_some(StructField { member, values })
        })
        .collect()
}

fn primitive<T: ArrowPrimitiveType>(array: &dyn Array) -> Option<&[T::Native]> {
    Some(array.as_primitive_opt::<T>()?.values())
}

fn bytes<T: ByteArrayType<Offset = i32>>(array: &dyn Array) -> Option<ByteValues<'_>> {
    let array: &GenericByteArray<T> = array.as_bytes_opt::<T>()?;
    Some(ByteValues { offsets: array.value_offsets(), data: array.value_data() })
}
