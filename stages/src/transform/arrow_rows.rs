//! Rows of a block as `AppendRows` takes them: fitted to the table's columns, cut, as uncompressed IPC messages.
//!
//! Invariant: the cut is a function of the rows alone, so a second attempt makes the same requests at the same
//! offsets; fitting never changes a value: columns are put in order, missing ones are null, vanished ones left out.

use crate::error::{Error, Kind, Result};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, new_null_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use schemas::arrow_stream::{self, joined};
use schemas::block::raw_bytes;
use std::sync::Arc;

/// Counts changes of the way blocks are cut into requests; a stream begun with another one is not continued.
pub const CUT_VERSION: u32 = 1;
/// Marks the end of an IPC stream, which a message for BigQuery must not have.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Rows of one request.
#[derive(Debug, Clone)]
pub struct Message {
    /// Number of rows.
    pub rows: usize,
    /// An IPC record batch message.
    pub bytes: Bytes,
}

fn failed(what: &'static str) -> impl Fn(ArrowError) -> Error {
    move |error| Error::new(Kind::Internal, what).with_source(error)
}

fn options() -> Result<IpcWriteOptions> {
    IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
        .map_err(failed("cannot write arrow rows"))
}

/// Returns the IPC schema message.
pub fn schema_message(schema: &Schema) -> Result<Bytes> {
    let failed = failed("cannot write an arrow schema");
    let encoder = StreamEncoder::try_new_with_options(schema, options()?).map_err(&failed)?;
    let mut bytes = joined(&encoder.finish().map_err(failed)?);
    bytes.truncate(bytes.len().saturating_sub(END.len()));
    Ok(bytes.into())
}

/// Reads an IPC schema message, with or without an end mark.
pub fn read_schema(message: &[u8]) -> Result<SchemaRef> {
    let wrong = failed("cannot read the arrow schema of a table");
    // The decoder takes a message for whole only when something follows it.
    let head = [message.strip_suffix(&END).unwrap_or(message), &END].concat();
    let (mut decoder, mut head) = (StreamDecoder::new(), Buffer::from(head));
    read_head(&mut decoder, &mut head).map_err(&wrong)?;
    decoder.schema().ok_or_else(|| wrong(ArrowError::IpcError("it ends too early".to_owned())))
}

/// Reads up to the schema and not further.
fn read_head(
    decoder: &mut StreamDecoder,
    head: &mut Buffer,
) -> std::result::Result<(), ArrowError> {
    while !head.is_empty() && decoder.schema().is_none() {
        arrow_stream::next(decoder, head)?;
    }
    Ok(())
}

/// Reads record batch messages of one schema.
pub fn read_rows(schema: &[u8], message: &Bytes) -> Result<Vec<RecordBatch>> {
    let wrong = failed("cannot read arrow rows");
    let mut decoder = StreamDecoder::new();
    let mut head = Buffer::from(schema);
    read_head(&mut decoder, &mut head).map_err(&wrong)?;
    let mut batches = Vec::new();
    let mut rows = Buffer::from(message.clone());
    while !rows.is_empty() {
        batches.extend(arrow_stream::next(&mut decoder, &mut rows).map_err(&wrong)?);
    }
    Ok(batches)
}

/// Cuts rows into messages of at most `bytes_max` each, unless a single row is larger.
pub fn cut(rows: &RecordBatch, bytes_max: usize) -> Result<Vec<Message>> {
    let mut messages = Vec::with_capacity(1);
    if rows.num_rows() > 0 {
        cut_into(rows, bytes_max, &mut messages)?;
    }
    Ok(messages)
}

fn cut_into(rows: &RecordBatch, bytes_max: usize, messages: &mut Vec<Message>) -> Result<()> {
    let count = rows.num_rows();
    // What is plainly too large is cut before it is encoded; the message itself decides.
    let bytes = raw_bytes(rows);
    let encoded = if bytes > bytes_max && count > 1 { None } else { Some(message(rows)?) };
    let bytes = encoded.as_ref().map_or(bytes, Bytes::len);
    match encoded {
        Some(bytes) if bytes.len() <= bytes_max || count == 1 => {
            messages.push(Message { rows: count, bytes });
        }
        _ => {
            // In as many parts as the average row asks for; a part that is still too large is cut again.
            let parts = bytes.div_ceil(bytes_max).clamp(2, count);
            let each = count.div_ceil(parts);
            for from in (0..count).step_by(each) {
                cut_into(&rows.slice(from, each.min(count - from)), bytes_max, messages)?;
            }
        }
    }
    Ok(())
}

/// Encodes rows; the schema message that comes first in a stream is left out.
fn message(rows: &RecordBatch) -> Result<Bytes> {
    let failed = failed("cannot write arrow rows");
    let mut encoder =
        StreamEncoder::try_new_with_options(rows.schema_ref(), options()?).map_err(&failed)?;
    let all = joined(&encoder.encode(rows).map_err(failed)?);
    let head = schema_message(rows.schema_ref())?.len();
    Ok(Bytes::from(all).slice(head..))
}

/// Returns rows with exactly the columns of the table, in its order.
pub fn fit(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if rows.schema_ref() == schema {
        return Ok(rows.clone());
    }
    let own = rows.schema_ref().fields();
    let columns = fitted(own, rows.columns(), schema.fields(), rows.num_rows(), "")?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| {
        Error::new(Kind::Schema, "rows of the duplicate do not fit the recorded schema")
            .with_source(error)
    })
}

fn fitted(
    own: &Fields,
    columns: &[ArrayRef],
    wanted: &Fields,
    rows: usize,
    path: &str,
) -> Result<Vec<ArrayRef>> {
    let find = |field: &Field| {
        own.iter().position(|other| other.name().eq_ignore_ascii_case(field.name()))
    };
    wanted
        .iter()
        .map(|field| {
            let path = format!("{path}{}", field.name());
            match find(field) {
                Some(place) => fitted_column(&columns[place], field, &path),
                None => missing(field, rows, &path),
            }
        })
        .collect()
}

/// A column that the table got later: null in every earlier row, or empty where it repeats.
fn missing(field: &Field, rows: usize, path: &str) -> Result<ArrayRef> {
    match field.data_type() {
        DataType::List(item) => {
            let offsets = arrow::buffer::OffsetBuffer::new_zeroed(rows);
            let values = new_null_array(item.data_type(), 0);
            let list = ListArray::try_new(Arc::clone(item), offsets, values, None);
            Ok(Arc::new(list.map_err(failed("cannot make an empty column"))?))
        }
        _ if !field.is_nullable() => Err(Error::new(
            Kind::Schema,
            format!("column {path} is REQUIRED, and rows of the duplicate do not have it"),
        )
        .with_hint("restore an earlier state: rekindle restore bigquery --as-of TIME")),
        data_type => Ok(new_null_array(data_type, rows)),
    }
}

fn fitted_column(column: &ArrayRef, field: &Field, path: &str) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    let wrong = failed("cannot fit a column of the duplicate to the table");
    match (column.data_type(), field.data_type()) {
        (DataType::Struct(own), DataType::Struct(wanted)) => {
            let record = column.as_struct();
            let path = format!("{path}.");
            let columns = fitted(own, record.columns(), wanted, record.len(), &path)?;
            let nulls = record.nulls().cloned();
            let made =
                StructArray::try_new_with_length(wanted.clone(), columns, nulls, record.len());
            Ok(Arc::new(made.map_err(wrong)?))
        }
        (DataType::List(_), DataType::List(item)) => {
            let list = column.as_list::<i32>();
            let values = fitted_column(list.values(), item, path)?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            let made = ListArray::try_new(Arc::clone(item), offsets, values, nulls);
            Ok(Arc::new(made.map_err(wrong)?))
        }
        (own, wanted) => Err(Error::new(
            Kind::Schema,
            format!("column {path} is {wanted} in the table and {own} in the duplicate"),
        )
        .with_hint("restore an earlier state: rekindle restore bigquery --as-of TIME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};

    fn rows(count: usize) -> RecordBatch {
        let ids = Int64Array::from_iter_values(0..i64::try_from(count).unwrap());
        let texts = (0..count).map(|row| (row % 3 != 0).then(|| "x".repeat(row % 50)));
        let texts: StringArray = texts.collect();
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(ids) as ArrayRef, false),
            ("text", Arc::new(texts) as ArrayRef, true),
        ])
        .unwrap()
    }

    #[test]
    fn what_is_cut_reads_back_in_order_and_within_the_limit() {
        let rows = rows(5_000);
        let schema = schema_message(rows.schema_ref()).unwrap();
        assert_eq!(read_schema(&schema).unwrap(), rows.schema());
        let messages = cut(&rows, 10_000).unwrap();
        assert!(messages.len() > 5);
        let mut at = 0;
        for message in &messages {
            assert!(message.bytes.len() <= 10_000);
            let read = read_rows(&schema, &message.bytes).unwrap();
            assert_eq!(read, [rows.slice(at, message.rows)]);
            at += message.rows;
        }
        assert_eq!(at, 5_000);
        let again: Vec<usize> = cut(&rows, 10_000).unwrap().iter().map(|m| m.rows).collect();
        assert_eq!(again, messages.iter().map(|message| message.rows).collect::<Vec<_>>());
    }

    #[test]
    fn no_rows_make_no_message_and_a_large_row_one_of_its_own() {
        assert!(cut(&rows(0), 100).unwrap().is_empty());
        assert_eq!(cut(&rows(3), 1).unwrap().len(), 3);
    }

    #[test]
    fn rows_are_fitted_to_columns_that_came_and_went() {
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        let wanted: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("new", DataType::Float64, true),
            Field::new("tags", DataType::List(item), false),
            Field::new("id", DataType::Int64, false),
        ]));
        let fitted = fit(&rows(4), &wanted).unwrap();
        assert_eq!((fitted.num_columns(), fitted.column(0).null_count()), (3, 4));
        assert_eq!(fitted.column(1).null_count(), 0);
        assert_eq!(fitted.column(2), rows(4).column(0));
        let required: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        assert_eq!(fit(&rows(1), &required).unwrap_err().kind(), Kind::Schema);
        let other: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true)]));
        assert_eq!(fit(&rows(1), &other).unwrap_err().kind(), Kind::Schema);
    }
}
