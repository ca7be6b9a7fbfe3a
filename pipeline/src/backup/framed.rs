//! Blocks as they go to their place: what a file says of itself, header, seal, and what must be read back.
//!
//! Invariant: a block is sealed on a transform thread, under the header and the key that it is stored with.

use super::copy::{TableCopy, Unit};
use schemas::block::{self, Body, Header};
use schemas::digest::DIGEST_VERSION;
use schemas::manifest::BlockEntry;
use schemas::seal::id_text;
use stages::Result;
use stages::transform::form::{Expected, Framed};

impl TableCopy {
    /// What a file says of itself, for whoever finds it without its manifest.
    pub(super) fn labels(&self, unit: &Unit) -> Vec<(&'static str, String)> {
        vec![
            ("rekindle.table", format!("{}.{}", self.dataset, self.table)),
            ("rekindle.table_id", self.table_id.clone()),
            ("rekindle.table_partition", unit.source.id.clone()),
            ("rekindle.generation", unit.generation.to_string()),
            ("rekindle.snapshot_us", self.snapshot_us.to_string()),
            ("rekindle.schema_hash", format!("{:032x}", self.schema_hash)),
        ]
    }

    /// Returns the id of the key that new versions are sealed with, as their manifest names it; none in an archive, whose
    /// files name their own.
    pub(super) fn key_id(&self) -> Option<String> {
        self.duplicate.form().key_id().map(id_text)
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
            key_id: self.duplicate.form().key_id(),
            table: format!("{}.{}", self.dataset, self.table),
            table_id: self.table_id.clone(),
            table_partition: unit.source.id.clone(),
        }
    }

    /// Frames a block for its place, sealed where there is a key to seal with.
    pub(super) async fn framed(&self, key: &str, header: Header, body: Vec<u8>) -> Result<Framed> {
        let form = self.duplicate.form();
        if header.key_id.is_none() {
            return form.frame(key, &header, body);
        }
        let (form, key) = (form.clone(), key.to_owned());
        self.cpu.submit(move || form.frame(&key, &header, body)).await
    }

    /// Returns what the blocks of a new version must be when they are read back.
    pub(super) fn expected(&self, unit: &Unit, entries: &[BlockEntry]) -> Vec<Expected> {
        let (table_partition, generation) = (&unit.source.id, unit.generation);
        let expected = (0..).zip(entries).map(|(ordinal, entry)| Expected {
            key: self.keys.block(table_partition, generation, ordinal),
            table_partition: table_partition.clone(),
            generation,
            ordinal,
            key_id: self.key_id(),
            entry: entry.clone(),
        });
        expected.collect()
    }
}
