//! Arrow IPC messages, as BigQuery's Storage Read sends them, into a batch of the schema's columns.
//!
//! Invariant: a column whose arrow type is not the one of its column type is an error, never a guess.

use crate::error::{Error, Kind, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::record_batch::RecordBatchOptions;
use bytes::Bytes;
use schemas::TableSchema;
use schemas::arrow_stream;
use schemas::text::TextColumn;
use std::sync::Arc;

/// Decodes a schema message and the one record batch message that follows; columns are found by name.
pub fn decode(bytes: &Bytes, schema: &TableSchema) -> Result<RecordBatch> {
    // Bytes that were damaged on their way are worth another try.
    let broken = |error: ArrowError| {
        Error::new(Kind::Unavailable, "bigquery sent rows that cannot be decoded")
            .with_source(error)
            .with_hint("run the same command again: it resumes")
    };
    let mut buffer = Buffer::from(bytes.clone());
    let mut decoder = StreamDecoder::new();
    let Some(rows) = arrow_stream::next(&mut decoder, &mut buffer).map_err(broken)? else {
        let message = "bigquery sent rows that end too early";
        return Err(Error::new(Kind::Unavailable, message));
    };
    if !buffer.is_empty() {
        let message = "bigquery sent rows that something follows";
        return Err(Error::new(Kind::Unavailable, message));
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.columns.len());
    let mut fields = Vec::with_capacity(schema.columns.len());
    for column in &schema.columns {
        let Some(array) = rows.column_by_name(&column.name) else {
            let message = format!("column {} did not arrive", column.name);
            return Err(Error::new(Kind::Schema, message).with_hint("rekindle plan"));
        };
        TextColumn::new(array.as_ref(), &column.column_type).map_err(|error| {
            Error::new(Kind::Schema, format!("column {} changed its type", column.name))
                .with_hint("start over with: rekindle rebuild redis --fresh")
                .with_source(error)
        })?;
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        columns.push(Arc::clone(array));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(broken)
}

/// Turns columns that Parquet has no type for into their texts.
pub(super) fn storable(rows: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch> {
    let failed = |error: ArrowError| {
        Error::new(Kind::Internal, "rejected rows could not be shaped").with_source(error)
    };
    let mut columns = rows.columns().to_vec();
    let mut fields: Vec<Field> =
        rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    for (index, column) in schema.columns.iter().enumerate() {
        if !holds_interval(fields[index].data_type()) {
            continue;
        }
        let values =
            TextColumn::new(columns[index].as_ref(), &column.column_type).map_err(|error| {
                Error::new(Kind::Internal, "a decoded column has the wrong arrow type")
                    .with_source(error)
            })?;
        let mut texts = StringBuilder::new();
        let mut text = Vec::new();
        for row in 0..rows.num_rows() {
            text.clear();
            values.write(row, &mut text);
            texts.append_option((!values.is_null(row)).then(|| String::from_utf8_lossy(&text)));
        }
        columns[index] = Arc::new(texts.finish());
        fields[index] = Field::new(&column.name, DataType::Utf8, true);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
}

fn holds_interval(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(IntervalUnit::MonthDayNano) => true,
        DataType::List(item) => holds_interval(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_interval(field.data_type())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, IntervalMonthDayNanoArray, StringArray};
    use arrow::datatypes::IntervalMonthDayNano;
    use arrow::ipc::writer::StreamWriter;
    use schemas::{Column, ColumnType};

    fn table(columns: &[(&str, ColumnType)]) -> TableSchema {
        let column = |(name, column_type): &(&str, ColumnType)| Column {
            name: (*name).to_owned(),
            column_type: column_type.clone(),
            source_type: column_type.name(),
            as_text: false,
        };
        let columns = columns.iter().map(column).collect();
        TableSchema { table: "d.t".into(), columns, unique_keys: Vec::new() }
    }

    fn wire() -> Bytes {
        let span = IntervalMonthDayNano { months: 1, days: 2, nanoseconds: 0 };
        let rows = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec![Some("x"), None]))),
            ("i", Arc::new(IntervalMonthDayNanoArray::from(vec![Some(span), None]))),
        ])
        .unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
        writer.write(&rows).unwrap();
        // Without the end-of-stream marker, which `finish` would write.
        writer.flush().unwrap();
        Bytes::from(writer.get_ref().clone())
    }

    #[test]
    fn columns_are_found_by_name_and_put_in_order() {
        let wanted = table(&[("b", ColumnType::Text), ("a", ColumnType::Int8)]);
        let rows = decode(&wire(), &wanted).unwrap();
        assert_eq!(rows.num_rows(), 2);
        assert_eq!(rows.schema().field(0).name(), "b");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for (wanted, kind) in [
            (table(&[("c", ColumnType::Text)]), Kind::Schema),
            (table(&[("a", ColumnType::Text)]), Kind::Schema),
        ] {
            assert_eq!(decode(&wire(), &wanted).unwrap_err().kind(), kind);
        }
        let wanted = table(&[("a", ColumnType::Int8)]);
        let whole = wire();
        for end in [0, 8, whole.len() / 2, whole.len() - 8] {
            assert!(decode(&whole.slice(..end), &wanted).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn intervals_are_stored_as_text() {
        let wanted = table(&[("a", ColumnType::Int8), ("i", ColumnType::Interval)]);
        let rows = storable(&decode(&wire(), &wanted).unwrap(), &wanted).unwrap();
        let texts = rows.column(1).as_any().downcast_ref::<StringArray>().unwrap();
        assert_eq!((texts.value(0), texts.is_null(1)), ("0-1 2 0:0:0", true));
    }
}
