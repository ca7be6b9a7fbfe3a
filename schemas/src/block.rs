//! Blocks: many rows of a table in one value, as an arrow IPC stream in one zstd frame behind a header of our own.
//!
//! Invariant: `decode(encode(rows)) == rows`, bit by bit, for every type that BigQuery's arrow has, at any depth.
//! Bytes that do not match their check are named as altered and never decoded.

mod header;
#[cfg(test)]
mod tests;

pub use header::{CODEC_ZSTD_ARROW, Header, MAGIC, VERSION, VERSION_SEALED};

use crate::arrow_stream;
use crate::digest::{BatchHasher, Digest, UnknownType};
use crate::seal::{self, SealError, Seals};
use crate::zstd_frame;
use arrow::array::Array;
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow::record_batch::RecordBatch;
use std::borrow::Cow;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Stored bytes a block aims at: values of 0.5 to 2 MiB move fastest and hold the event loop of the server shortest.
pub const BLOCK_BYTES_AIM: usize = 1 << 20;
/// Stored bytes above which a block is cut in two, unless it holds a single row.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;
/// Rows above which a block is closed whatever it weighs.
pub const BLOCK_ROWS_MAX: usize = 1 << 18;
/// Alignment of the buffers in the stream: decoded arrays point into it, and 256-bit decimals ask for 16.
const ALIGNMENT: usize = 16;
/// Largest uncompressed stream that is believed; a row of BigQuery ends at 100 MB, an arrow offset at 2 GiB.
const RAW_BYTES_MAX: u64 = 1 << 31;

/// What is wrong with a block.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BlockError {
    /// The value is something else.
    #[error("the value is no block")]
    NotABlock,
    /// Written by a newer program.
    #[error("the block has format version {version}, this program knows {VERSION_SEALED}")]
    UnknownVersion {
        /// The version found.
        version: u16,
    },
    /// Written by a newer program.
    #[error("the block has codec {codec}, which this program does not know")]
    UnknownCodec {
        /// The codec found.
        codec: u8,
    },
    /// The header does not match its check.
    #[error("the header of the block is altered or cut off")]
    HeaderAltered,
    /// The body does not match the header.
    #[error("the body of the block is altered or cut off")]
    BodyAltered,
    /// The body matches its check and is still not what the header says.
    #[error("the body of the block cannot be read: {0}")]
    Unreadable(String),
    /// The body is sealed, and cannot be opened for want of its key.
    #[error(transparent)]
    Seal(SealError),
    /// A column type whose rows cannot be hashed.
    #[error(transparent)]
    UnknownType(#[from] UnknownType),
}

/// Rows in stored form, without the header that tells where they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The arrow IPC stream in its zstd frame.
    pub bytes: Vec<u8>,
    /// Length of the stream without the frame.
    pub raw_bytes: u64,
    /// Rows in it.
    pub rows: u32,
    /// Sum of their hashes.
    pub digest: Digest,
    /// XXH3-64 of the bytes.
    pub xxh3: u64,
}

/// Returns the bytes that rows occupy uncompressed, each shared buffer counted for its own slice only.
pub fn raw_bytes(rows: &RecordBatch) -> usize {
    rows.columns()
        .iter()
        // A type without this figure is still bounded by its buffers.
        .map(|column| {
            column
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_else(|_| column.get_buffer_memory_size())
        })
        .sum()
}

/// Encodes rows into bodies of at most [`BLOCK_BYTES_MAX`] each; a row that is larger has one of its own.
///
/// Batches of one schema are joined first. No rows make one body without rows.
pub fn encode(batches: &[RecordBatch]) -> Result<Vec<Body>, BlockError> {
    let joined;
    let rows = match batches {
        [] => return Ok(Vec::new()),
        [rows] => rows,
        [first, ..] => {
            joined = concat_batches(first.schema_ref(), batches).map_err(unreadable)?;
            &joined
        }
    };
    let mut bodies = Vec::with_capacity(1);
    encode_into(rows, &mut bodies)?;
    Ok(bodies)
}

fn encode_into(rows: &RecordBatch, bodies: &mut Vec<Body>) -> Result<(), BlockError> {
    let count = rows.num_rows();
    if count > BLOCK_ROWS_MAX {
        return encode_halves(rows, bodies);
    }
    let raw = write(rows).map_err(unreadable)?;
    let bytes = zstd_frame::compress(&raw).map_err(unreadable)?;
    if bytes.len() > BLOCK_BYTES_MAX && count > 1 {
        return encode_halves(rows, bodies);
    }
    let (xxh3, raw_bytes) = (xxh3_64(&bytes), raw.len() as u64);
    let rows_in_body = u32::try_from(count).map_err(unreadable)?;
    bodies.push(Body { bytes, raw_bytes, rows: rows_in_body, digest: digest(rows)?, xxh3 });
    Ok(())
}

fn encode_halves(rows: &RecordBatch, bodies: &mut Vec<Body>) -> Result<(), BlockError> {
    let half = rows.num_rows() / 2;
    encode_into(&rows.slice(0, half), bodies)?;
    encode_into(&rows.slice(half, rows.num_rows() - half), bodies)
}

/// Writes an IPC stream of one batch; its buffers are copied once.
fn write(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut encoder = StreamEncoder::try_new_with_options(rows.schema_ref(), options)?;
    let mut pieces = encoder.encode(rows)?;
    pieces.extend(encoder.finish()?);
    Ok(arrow_stream::joined(&pieces))
}

/// Reads the header of a value that is not sealed, checks the body against it, and returns both.
pub fn open(value: &[u8]) -> Result<(Header, &[u8]), BlockError> {
    let (header, header_bytes) = Header::parse(value)?;
    if let Some(id) = header.key_id {
        return Err(SealError::NoKey { sealed: seal::id_text(id) }.into());
    }
    let body = &value[header_bytes..];
    check(&header, body)?;
    Ok((header, body))
}

/// Reads the header of the value under a key of Redis, opens the body where it is sealed, checks it against the header,
/// and returns both.
pub fn open_with<'a>(
    seals: &Seals,
    redis_key: &str,
    value: &'a [u8],
) -> Result<(Header, Cow<'a, [u8]>), BlockError> {
    let (header, header_bytes) = Header::parse(value)?;
    let (readable, stored) = value.split_at(header_bytes);
    let body = match header.key_id {
        None => Cow::Borrowed(stored),
        Some(id) => Cow::Owned(seals.open_body(redis_key, id, readable, stored)?),
    };
    check(&header, &body)?;
    Ok((header, body))
}

fn check(header: &Header, body: &[u8]) -> Result<(), BlockError> {
    if body.len() as u64 != header.body_bytes || xxh3_64(body) != header.body_xxh3 {
        return Err(BlockError::BodyAltered);
    }
    Ok(())
}

/// Returns the value to store under a key of Redis: the header, and the body behind it, sealed where the header names
/// a key. That key has to be the one that `seals` seals with.
pub fn stored(
    seals: &Seals,
    redis_key: &str,
    header: &Header,
    body: &[u8],
) -> Result<Vec<u8>, BlockError> {
    let readable = header.to_bytes();
    if header.key_id.is_none() {
        return Ok([&readable[..], body].concat());
    }
    Ok(seals.seal_block(redis_key, &readable, body)?)
}

/// A seal that does not open is an altered body like any other.
impl From<SealError> for BlockError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Altered => Self::BodyAltered,
            other => Self::Seal(other),
        }
    }
}

/// Decodes a body that [`open`] has checked. The rows are compared with the header by count, not by digest.
pub fn decode(header: &Header, body: &[u8]) -> Result<RecordBatch, BlockError> {
    if header.raw_bytes > RAW_BYTES_MAX {
        return Err(BlockError::Unreadable(format!("{} bytes are too many", header.raw_bytes)));
    }
    let raw_bytes = usize::try_from(header.raw_bytes).map_err(unreadable)?;
    let raw = zstd_frame::decompress(body, raw_bytes).map_err(unreadable)?;
    if raw.len() != raw_bytes {
        return Err(BlockError::Unreadable("it is not as long as the header says".to_owned()));
    }
    let rows = one_batch(raw)?;
    if rows.num_rows() != header.rows as usize {
        return Err(BlockError::Unreadable(format!(
            "{} rows where the header says {}",
            rows.num_rows(),
            header.rows
        )));
    }
    Ok(rows)
}

/// Reads an arrow IPC stream of exactly one batch.
fn one_batch(raw: Vec<u8>) -> Result<RecordBatch, BlockError> {
    let mut stream = Buffer::from_vec(raw);
    let mut decoder = StreamDecoder::new();
    let rows = arrow_stream::next(&mut decoder, &mut stream).map_err(unreadable)?;
    let schema = decoder.schema().ok_or_else(|| unreadable("it has no schema"))?;
    let rows = rows.unwrap_or_else(|| RecordBatch::new_empty(schema));
    let more = arrow_stream::next(&mut decoder, &mut stream).map_err(unreadable)?;
    if more.is_some() || !stream.is_empty() {
        return Err(BlockError::Unreadable("more than one batch".to_owned()));
    }
    Ok(rows)
}

/// Returns the digest of decoded rows, to be compared with the recorded one.
pub fn digest(rows: &RecordBatch) -> Result<Digest, BlockError> {
    let mut digest = Digest::default();
    BatchHasher::new(rows)?.add_to(&mut digest);
    Ok(digest)
}

fn unreadable(error: impl std::fmt::Display) -> BlockError {
    BlockError::Unreadable(error.to_string())
}
