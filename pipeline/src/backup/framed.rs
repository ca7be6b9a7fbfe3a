//! Blocks as they go to Redis: header, body, seal, and the command around them.
//!
//! Invariant: a block is sealed on a transform thread, under the header and the key that it is stored with.

use super::copy::{TableCopy, Unit};
use bytes::Bytes;
use schemas::Seals;
use schemas::block::{self, BlockError, Body, Header};
use schemas::digest::DIGEST_VERSION;
use schemas::manifest::BlockEntry;
use schemas::seal::{BODY_BYTES_MORE, id_text};
use stages::load::redis::duplicate::set_command;
use stages::{Error, Kind, Result, sealed};
use std::sync::Arc;

impl TableCopy {
    /// Returns the id of the key that new versions are sealed with, as their manifest names it.
    pub(super) fn key_id(&self) -> Option<String> {
        self.duplicate.seals().key_id().map(id_text)
    }

    /// Returns the header of a block.
    pub(super) fn header(&self, unit: &Unit, body: &Body, ordinal: u32, is_last: bool) -> Header {
        Header {
            codec: block::CODEC_ZSTD_ARROW,
            is_last,
            rows: body.rows,
            ordinal,
            generation: unit.generation,
            snapshot_us: self.snapshot_us,
            last_modified_us: unit.source.last_modified_us.min(self.snapshot_us),
            expires_us: unit.source.expires_us,
            table_created_ms: self.table_created_ms,
            digest: body.digest,
            digest_version: DIGEST_VERSION,
            schema_hash: self.schema_hash,
            raw_bytes: body.raw_bytes,
            body_bytes: body.bytes.len() as u64,
            body_xxh3: body.xxh3,
            key_id: self.duplicate.seals().key_id(),
            table: format!("{}.{}", self.dataset, self.table),
            table_id: self.table_id.clone(),
            table_partition: unit.source.id.clone(),
        }
    }

    /// Frames a block for the server, sealed where the plan has a key.
    pub(super) async fn framed(&self, key: String, header: Header, body: Vec<u8>) -> Result<Bytes> {
        if header.key_id.is_none() {
            return Ok(set_command(&key, &header.to_bytes(), &body));
        }
        let seals = Arc::clone(self.duplicate.seals());
        let work = self.cpu.submit(move || {
            let value = block::stored(&seals, &key, &header, &body);
            let value = value.map_err(|error| cannot_seal(&key, error))?;
            Ok(set_command(&key, &value, &[]))
        });
        work.await
    }
}

/// Describes a block as it is stored under a header.
pub(super) fn entry(body: &Body, header: &Header) -> BlockEntry {
    let more = if header.key_id.is_some() { BODY_BYTES_MORE } else { 0 };
    BlockEntry::of(body, header.to_bytes().len() + more)
}

/// Whether a value read back is the block that was written.
pub(super) fn is_whole(seals: &Seals, key: &str, value: Option<&[u8]>, entry: &BlockEntry) -> bool {
    value.is_some_and(|value| {
        value.len() as u64 == entry.bytes()
            && block::open_with(seals, key, value).is_ok_and(|(header, _)| {
                entry.xxh3() == Some(header.body_xxh3) && header.key_id == seals.key_id()
            })
    })
}

fn cannot_seal(key: &str, error: BlockError) -> Error {
    let what = format!("block {key}");
    match error {
        BlockError::Seal(error) => sealed::refused(&what, &error),
        other => Error::new(Kind::Internal, format!("{what} cannot be sealed")).with_source(other),
    }
}
