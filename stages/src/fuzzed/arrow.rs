//! Arrow messages of BigQuery: rows of a rebuild, of a backup, and of what is read back; plain and compressed.

use super::{fuzz, table};
use crate::error::Kind;
use crate::transform::{arrow_ipc, arrow_message, arrow_rows};
use ::arrow::array::{ArrayRef, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray};
use ::arrow::buffer::Buffer;
use ::arrow::datatypes::Int64Type;
use ::arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use ::arrow::ipc::{CompressionType, MetadataVersion};
use bytes::Bytes;
use fixtures::fuzz::Told;
use schemas::ColumnType;
use std::sync::Arc;

const COUNT: i64 = 50;
/// Budget of the reader: LZ4 keeps two blocks of 4 MiB beside what it makes, and makes up to 255 bytes of one; a panic
/// that is caught reads symbols for its backtrace first.
const HEAP: (u64, u64) = (64 << 20, 1024);

fn rows() -> RecordBatch {
    let numbers = || (0..COUNT).map(|n| (n % 3 > 0).then_some(n));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..COUNT))),
        (
            "name",
            Arc::new(numbers().map(|n| n.map(|n| format!("name {n}"))).collect::<StringArray>()),
        ),
        ("ok", Arc::new(numbers().map(|n| n.map(|n| n % 2 == 0)).collect::<BooleanArray>())),
        (
            "many",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
                (0..COUNT).map(|n| Some((0..n % 4).map(Some))),
            )),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

/// A schema message and a message of rows.
fn messages(compression: Option<CompressionType>) -> (Vec<u8>, Vec<u8>) {
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).unwrap();
    let options = options.try_with_compression(compression).unwrap();
    let rows = rows();
    let schema = arrow_rows::schema_message(&rows.schema()).unwrap().to_vec();
    let mut encoder = StreamEncoder::try_new_with_options(&rows.schema(), options).unwrap();
    let all = encoder.encode(&rows).unwrap();
    let bytes: Vec<u8> =
        all.iter().flat_map(|buffer: &Buffer| buffer.as_slice().to_vec()).collect();
    (schema.clone(), bytes.strip_prefix(&schema[..]).map_or(bytes.clone(), <[u8]>::to_vec))
}

#[test]
fn arrow_rows_of_anybody() {
    let columns = [
        ("id", ColumnType::Int8),
        ("name", ColumnType::Text),
        ("ok", ColumnType::Bool),
        ("many", ColumnType::Array(Box::new(ColumnType::Int8))),
    ];
    let wanted = table(&columns);
    let parts = [messages(None), messages(Some(CompressionType::LZ4_FRAME))];
    let corpus: Vec<Vec<u8>> =
        parts.iter().map(|(schema, rows)| [&schema[..], rows].concat()).collect();
    fuzz("arrow rows of a rebuild", corpus).heap(HEAP.0, HEAP.1).run(|input, _| {
        let decoded = arrow_ipc::decode(&Bytes::copy_from_slice(input), &wanted);
        match &decoded {
            Ok(rows) => assert_eq!(rows.num_columns(), columns.len()),
            Err(error) => assert!(
                matches!(error.kind(), Kind::Unavailable | Kind::Schema),
                "{:?}",
                error.kind()
            ),
        }
        Told::from(&decoded)
    });
}

#[test]
fn arrow_messages_of_anybody() {
    let (schema, plain) = messages(None);
    let (_, compressed) = messages(Some(CompressionType::LZ4_FRAME));
    let schema = Bytes::from(schema);
    let expected = u64::try_from(COUNT).unwrap();
    fuzz("arrow messages", vec![plain, compressed]).heap(HEAP.0, HEAP.1).run(|input, _| {
        let message = Bytes::copy_from_slice(input);
        let decoded = arrow_message::rows(&schema, &message, expected);
        if let Err(error) = &decoded {
            assert!(
                matches!(error.kind(), Kind::Unavailable | Kind::Internal),
                "{:?}",
                error.kind()
            );
        }
        let read_back = arrow_rows::read_rows(&schema, &message);
        assert!(decoded.is_err() || read_back.is_ok());
        Told::from(&decoded)
    });
}

#[test]
fn an_arrow_schema_of_anybody() {
    let (schema, _) = messages(None);
    let with_end = [&schema[..], &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]].concat();
    fuzz("an arrow schema", vec![schema, with_end]).heap(HEAP.0, HEAP.1).run(|input, _| {
        let read = arrow_rows::read_schema(input);
        if let Err(error) = &read {
            assert_eq!(error.kind(), Kind::Internal);
        }
        Told::from(&read)
    });
}
