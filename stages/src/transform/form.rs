//! How a block of rows is written: in one value with a header for Redis, in one Parquet file for an archive.
//!
//! Invariant: what is read is what was written: a block is checked against its manifest before it is decoded, and its
//! rows are hashed after. A value of Redis that is sealed opens under its own key of Redis only.

use super::parquet_file;
use crate::error::{Error, Kind, Result};
use crate::sealed;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use schemas::block::{self, BLOCK_BYTES_AIM, BlockError, Body, Header};
use schemas::manifest::BlockEntry;
use schemas::seal::{BODY_BYTES_MORE, id_text};
use schemas::{Digest, EncryptKey, Seals};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Stored bytes that a Parquet file is made for.
const FILE_BYTES_AIM: usize = 4 << 20;
/// Bytes of arrow messages that are collected for one block at most, however well they compress.
const BLOCK_WIRE_BYTES_MAX: u64 = 8 << 20;
const FILE_WIRE_BYTES_MAX: u64 = 16 << 20;

/// How rows are written at one place.
#[derive(Debug, Clone)]
pub enum Form {
    /// A header and a compressed arrow stream, which is sealed where there is a key to seal with.
    Block(Arc<Seals>),
    /// A Parquet file, encrypted where there is a key.
    Parquet(Option<Arc<EncryptKey>>),
}

/// A block as it is stored: two parts of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framed {
    /// What comes first; empty where the body is all.
    pub head: Vec<u8>,
    /// What follows it.
    pub body: Vec<u8>,
}

/// What a block must be, as key and manifest say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The key that it lies under, which a seal is bound to.
    pub key: String,
    /// Table partition or window.
    pub table_partition: String,
    /// Which rewriting of it.
    pub generation: u64,
    /// Place in the generation.
    pub ordinal: u32,
    /// Id of the key that its version is sealed with, if it is.
    pub key_id: Option<String>,
    /// Length, rows and check.
    pub entry: BlockEntry,
}

impl Form {
    /// Stored bytes that a block is made for.
    pub fn bytes_aim(&self) -> usize {
        match self {
            Self::Block(_) => BLOCK_BYTES_AIM,
            Self::Parquet(_) => FILE_BYTES_AIM,
        }
    }

    /// Bytes of arrow messages that are collected for one block at most.
    pub fn wire_bytes_max(&self) -> u64 {
        match self {
            Self::Block(_) => BLOCK_WIRE_BYTES_MAX,
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
            Self::Block(_) => block::encode(batches).map_err(|error| unfit(error.into())),
            Self::Parquet(key) => {
                parquet_file::encode(batches, labels, key.as_deref()).map_err(unfit)
            }
        }
    }

    /// Id of the key that new blocks are sealed with; Parquet files have an encryption of their own, and name its key.
    pub fn key_id(&self) -> Option<[u8; 8]> {
        match self {
            Self::Block(seals) => seals.key_id(),
            Self::Parquet(_) => None,
        }
    }

    /// Describes a body as it is stored with that header.
    pub fn entry(&self, body: &Body, header: &Header) -> BlockEntry {
        match self {
            Self::Block(_) => {
                let more = if header.key_id.is_some() { BODY_BYTES_MORE } else { 0 };
                BlockEntry::of(body, header.to_bytes().len() + more)
            }
            Self::Parquet(_) => BlockEntry::of(body, 0),
        }
    }

    /// Frames a body for a key: its header in front of it, sealed where the header names the key to seal with.
    pub fn frame(&self, key: &str, header: &Header, body: Vec<u8>) -> Result<Framed> {
        match self {
            Self::Block(seals) if header.key_id.is_some() => {
                let value = block::stored(seals, key, header, &body);
                let value = value.map_err(|error| cannot_seal(key, error))?;
                Ok(Framed { head: Vec::new(), body: value })
            }
            Self::Block(_) => Ok(Framed { head: header.to_bytes(), body }),
            Self::Parquet(_) => Ok(Framed { head: Vec::new(), body }),
        }
    }

    /// Whether a value read back is the block that was written. Files are decoded too: nothing else shows that Parquet
    /// has kept every value.
    pub fn is_whole(&self, value: Option<&Bytes>, expected: &Expected) -> bool {
        let entry = &expected.entry;
        value.is_some_and(|value| match self {
            Self::Block(seals) => {
                value.len() as u64 == entry.bytes()
                    && block::open_with(seals, &expected.key, value).is_ok_and(|(header, _)| {
                        entry.xxh3() == Some(header.body_xxh3)
                            && header.key_id.map(id_text) == expected.key_id
                    })
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
            Self::Block(seals) => decode_block(seals, value, expected),
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

fn decode_block(
    seals: &Seals,
    value: &Bytes,
    expected: &Expected,
) -> Result<(RecordBatch, Digest)> {
    let opened = block::open_with(seals, &expected.key, value);
    let (header, body) = opened.map_err(|error| match error {
        BlockError::Seal(error) => sealed::refused(&format!("block {}", expected.key), &error),
        other => altered(other),
    })?;
    let is_expected = header.table_partition == expected.table_partition
        && header.generation == expected.generation
        && header.ordinal == expected.ordinal
        && header.rows == expected.entry.rows()
        && header.key_id.map(id_text) == expected.key_id
        && expected.entry.xxh3().is_none_or(|xxh3| xxh3 == header.body_xxh3);
    if !is_expected {
        return Err(altered("it is another block than its manifest says"));
    }
    let rows = block::decode(&header, &body).map_err(altered)?;
    let digest = block::digest(&rows).map_err(altered)?;
    if header.is_digest_comparable() && header.digest != digest {
        return Err(altered("its rows have another digest than its header says"));
    }
    Ok((rows, digest))
}

fn altered(reason: impl std::fmt::Display) -> Error {
    Error::new(Kind::Difference, reason.to_string())
}

fn cannot_seal(key: &str, error: BlockError) -> Error {
    let what = format!("block {key}");
    match error {
        BlockError::Seal(error) => sealed::refused(&what, &error),
        other => Error::new(Kind::Internal, format!("{what} cannot be sealed")).with_source(other),
    }
}

#[cfg(test)]
mod tests;
