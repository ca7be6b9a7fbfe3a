//! How a block of rows is written: in one value with a header for Redis, in one Parquet file for an archive.
//!
//! Invariant: what is read is what was written: a block is checked against its manifest before it is decoded, and its
//! rows are hashed after.

use super::parquet_file;
use crate::error::{Error, Kind, Result};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use schemas::block::{self, BLOCK_BYTES_AIM, Body, Header};
use schemas::manifest::BlockEntry;
use schemas::{Digest, EncryptKey};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Stored bytes that a Parquet file is made for.
const FILE_BYTES_AIM: usize = 4 << 20;
/// Bytes of arrow messages that are collected for one block at most, however well they compress.
const BLOCK_WIRE_BYTES_MAX: u64 = 8 << 20;
const FILE_WIRE_BYTES_MAX: u64 = 16 << 20;

/// How rows are written at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A header and a compressed arrow stream.
    Block,
    /// A Parquet file, encrypted where there is a key.
    Parquet(Option<Arc<EncryptKey>>),
}

/// What a block must be, as key and manifest say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Table partition or window.
    pub table_partition: String,
    /// Which rewriting of it.
    pub generation: u64,
    /// Place in the generation.
    pub ordinal: u32,
    /// Length, rows and check.
    pub entry: BlockEntry,
}

impl Form {
    /// Stored bytes that a block is made for.
    pub fn bytes_aim(&self) -> usize {
        match self {
            Self::Block => BLOCK_BYTES_AIM,
            Self::Parquet(_) => FILE_BYTES_AIM,
        }
    }

    /// Bytes of arrow messages that are collected for one block at most.
    pub fn wire_bytes_max(&self) -> u64 {
        match self {
            Self::Block => BLOCK_WIRE_BYTES_MAX,
            Self::Parquet(_) => FILE_WIRE_BYTES_MAX,
        }
    }

    /// Encodes rows of one table; `labels` are what a file says of itself.
    pub fn encode(
        &self,
        batches: &[RecordBatch],
        labels: &[(&'static str, String)],
    ) -> Result<Vec<Body>> {
        let unfit = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(Kind::Schema, "rows cannot be made into blocks")
                .with_source(source)
                .with_hint("rekindle plan")
        };
        match self {
            Self::Block => block::encode(batches).map_err(|error| unfit(error.into())),
            Self::Parquet(key) => {
                parquet_file::encode(batches, labels, key.as_deref()).map_err(unfit)
            }
        }
    }

    /// The bytes in front of the body.
    pub fn header(&self, header: &Header) -> Vec<u8> {
        match self {
            Self::Block => header.to_bytes(),
            Self::Parquet(_) => Vec::new(),
        }
    }

    /// Whether a value read back is the block that was written. Files are decoded too: nothing else shows that Parquet
    /// has kept every value.
    pub fn is_whole(&self, value: Option<&Bytes>, expected: &Expected) -> bool {
        let entry = &expected.entry;
        value.is_some_and(|value| match self {
            Self::Block => {
                value.len() as u64 == entry.bytes()
                    && block::open(value)
                        .is_ok_and(|(header, _)| entry.xxh3() == Some(header.body_xxh3))
            }
            Self::Parquet(_) => self.decode(value, expected).is_ok(),
        })
    }

    /// Checks a block against its manifest and decodes it; returns the rows and the digest that they have.
    ///
    /// A block that is not what it should be is a `Difference` without a place, which the caller knows; a key that does
    /// not fit is a `Config`.
    pub fn decode(&self, value: &Bytes, expected: &Expected) -> Result<(RecordBatch, Digest)> {
        match self {
            Self::Block => decode_block(value, expected),
            Self::Parquet(key) => {
                let entry = &expected.entry;
                if value.len() as u64 != entry.bytes() || entry.xxh3() != Some(xxh3_64(value)) {
                    return Err(altered("it is another file than its manifest says"));
                }
                let (rows, recorded) = parquet_file::decode(value.clone(), key.as_deref())?;
                if rows.num_rows() as u64 != u64::from(entry.rows()) {
                    return Err(altered("it has another number of rows than its manifest says"));
                }
                let digest = block::digest(&rows).map_err(altered)?;
                if recorded.is_some_and(|recorded| recorded != digest) {
                    return Err(altered("its rows have another digest than the file says"));
                }
                Ok((rows, digest))
            }
        }
    }
}

fn decode_block(value: &Bytes, expected: &Expected) -> Result<(RecordBatch, Digest)> {
    let (header, body) = block::open(value).map_err(altered)?;
    let is_expected = header.table_partition == expected.table_partition
        && header.generation == expected.generation
        && header.ordinal == expected.ordinal
        && header.rows == expected.entry.rows()
        && expected.entry.xxh3().is_none_or(|xxh3| xxh3 == header.body_xxh3);
    if !is_expected {
        return Err(altered("it is another block than its manifest says"));
    }
    let rows = block::decode(&header, body).map_err(altered)?;
    let digest = block::digest(&rows).map_err(altered)?;
    if header.is_digest_comparable() && header.digest != digest {
        return Err(altered("its rows have another digest than its header says"));
    }
    Ok((rows, digest))
}

fn altered(reason: impl std::fmt::Display) -> Error {
    Error::new(Kind::Difference, reason.to_string())
}
