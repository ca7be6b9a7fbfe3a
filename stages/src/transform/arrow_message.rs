//! Turns the arrow messages of a read session into batches.
//!
//! Invariant: a message that does not hold exactly the rows it came with is an error.

use crate::error::{Error, Kind, Result};
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use schemas::arrow_stream;

/// End of an IPC stream, which some servers append to a schema.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Decodes one message of rows under the schema of its session.
pub fn rows(schema: &Bytes, message: &Bytes, expected: u64) -> Result<RecordBatch> {
    let mut decoder = StreamDecoder::new();
    let mut first = Buffer::from(without_end(schema));
    arrow_stream::next(&mut decoder, &mut first).map_err(broken)?;
    let mut second = Buffer::from(message.clone());
    let rows = arrow_stream::next(&mut decoder, &mut second)
        .map_err(broken)?
        .ok_or_else(|| Error::new(Kind::Unavailable, "bigquery sent rows that end too early"))?;
    if !second.is_empty() {
        let message = "bigquery sent rows that something follows";
        return Err(Error::new(Kind::Unavailable, message));
    }
    if rows.num_rows() as u64 == expected {
        return Ok(rows);
    }
    let message = format!("bigquery sent {} rows where it says {expected}", rows.num_rows());
    Err(Error::new(Kind::Internal, message))
}

fn without_end(serialized: &Bytes) -> Bytes {
    match serialized.strip_suffix(&END) {
        Some(schema) => serialized.slice(..schema.len()),
        None => serialized.clone(),
    }
}

/// Bytes that were damaged on their way are worth another try.
fn broken(error: ArrowError) -> Error {
    Error::new(Kind::Unavailable, "bigquery sent rows that cannot be decoded")
        .with_source(error)
        .with_hint("run the same command again")
}
