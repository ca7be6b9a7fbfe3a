//! Hashes the rows of an arrow batch of any nesting, by the same canonical bytes as the rows of a route.
//!
//! Invariant: the hash of a row depends on its values and on the names of its columns alone, not on how the batch is
//! sliced, nor on what lies under a null. What a column holds is read from its arrow type, so that a block can be
//! checked without the table it came from; a range is a struct here.

use super::{DIGEST_SEED, Digest, write_tagged};
use crate::text::TextColumn;
use crate::type_map::ColumnType;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow::record_batch::RecordBatch;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A column type that has no canonical bytes.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("column {column}: arrow type {data_type} has no row hash")]
pub struct UnknownType {
    /// The column.
    pub column: String,
    /// The arrow type.
    pub data_type: String,
}

/// Hashes the rows of one batch over all its columns, in name order.
#[derive(Debug)]
pub struct BatchHasher<'a> {
    columns: Vec<TextColumn<'a>>,
    rows: usize,
    canonical: Vec<u8>,
}

impl<'a> BatchHasher<'a> {
    /// Downcasts the columns of a batch.
    pub fn new(rows: &'a RecordBatch) -> Result<Self, UnknownType> {
        let schema = rows.schema_ref();
        let mut order: Vec<usize> = (0..rows.num_columns()).collect();
        order.sort_by_key(|index| schema.field(*index).name().as_bytes());
        let column = |index: usize| {
            let array = rows.column(index).as_ref();
            let values = of_arrow(array.data_type())
                .and_then(|column_type| TextColumn::new(array, &column_type).ok());
            values.ok_or_else(|| UnknownType {
                column: schema.field(index).name().clone(),
                data_type: array.data_type().to_string(),
            })
        };
        let columns = order.into_iter().map(column).collect::<Result<_, _>>()?;
        Ok(Self { columns, rows: rows.num_rows(), canonical: Vec::with_capacity(1024) })
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

    /// Adds the hashes of all rows.
    pub fn add_to(&mut self, digest: &mut Digest) {
        for row in 0..self.rows {
            digest.add_row(self.hash(row));
        }
    }
}

/// Returns the column type with the canonical bytes of an arrow type.
fn of_arrow(data_type: &DataType) -> Option<ColumnType> {
    Some(match data_type {
        DataType::Boolean => ColumnType::Bool,
        DataType::Int16 => ColumnType::Int2,
        DataType::Int32 => ColumnType::Int4,
        DataType::Int64 => ColumnType::Int8,
        DataType::Float32 => ColumnType::Float4,
        DataType::Float64 => ColumnType::Float8,
        DataType::Utf8 => ColumnType::Text,
        DataType::Binary => ColumnType::Bytes,
        DataType::Date32 => ColumnType::Date,
        DataType::Time64(TimeUnit::Microsecond) => ColumnType::Time,
        DataType::Timestamp(TimeUnit::Microsecond, None) => ColumnType::Timestamp,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => ColumnType::TimestampTz,
        DataType::Decimal128(38, 9) => ColumnType::Decimal128,
        DataType::Decimal256(76, 38) => ColumnType::Decimal256,
        DataType::Interval(IntervalUnit::MonthDayNano) => ColumnType::Interval,
        DataType::List(element) => ColumnType::Array(Box::new(of_arrow(element.data_type())?)),
        DataType::Struct(fields) => {
            let member = |field: &arrow::datatypes::FieldRef| {
                Some((field.name().clone(), of_arrow(field.data_type())?))
            };
            ColumnType::Struct(fields.iter().map(member).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
