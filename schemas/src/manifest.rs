//! What a duplicate holds besides blocks: manifests, the record of the last complete backup, recorded tables, and keys.
//!
//! Invariant: every document carries the XXH3-64 of its own text, so an altered one is named and never believed.
//! Unknown fields are refused: a document that says more than this program understands is not restored by half.

mod keys;
mod record;
#[cfg(test)]
mod tests;

pub use keys::{BlockKey, Keys};
pub use record::TableRecord;

use crate::block::Body;
use crate::digest::{DIGEST_VERSION, Digest};
use crate::seal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Version of all documents of a duplicate.
pub const FORMAT: u32 = 1;

/// What is wrong with a document of a duplicate.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// Not the JSON that is written there.
    #[error("{document} is altered: {reason}")]
    Altered {
        /// For example `the manifest of table partition 20261101`.
        document: String,
        /// What does not fit.
        reason: String,
    },
    /// Written by a newer program.
    #[error("{document} has format {format}, this program knows {FORMAT}")]
    Newer {
        /// Which document.
        document: String,
        /// The format found.
        format: u64,
    },
}

/// The manifest of one table partition: its versions, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// `dataset.table`.
    pub table: String,
    /// `id` of the table resource.
    pub table_id: String,
    /// BigQuery's id of the table partition, or `w:<from>..<to>`.
    pub table_partition: String,
    /// What is kept, newest first; at least one.
    pub versions: Vec<Version>,
    /// Generations that are no version any more and whose blocks may not be deleted yet, with their number of blocks.
    pub retired: Vec<(u64, u64)>,
    /// XXH3-64 of this document with an empty `check`.
    pub check: String,
}

/// One complete copy of a table partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Ascending with every rewriting; part of the keys of the blocks.
    pub generation: u64,
    /// When the source was read, microseconds since 1970.
    pub snapshot_us: i64,
    /// When the source changed the table partition last before that.
    pub last_modified_us: i64,
    /// `creationTime` of the table it was read from, milliseconds since 1970.
    pub table_created_ms: i64,
    /// When the source lets it expire.
    pub expires_us: Option<i64>,
    /// Rows.
    pub rows: u64,
    /// Bytes of the table partition in the source, as far as it tells.
    pub source_bytes: u64,
    /// Bytes of all blocks, headers included.
    pub stored_bytes: u64,
    /// Sum of the row hashes, 32 hex digits.
    pub digest: String,
    /// Version of the row hash.
    pub digest_version: u32,
    /// Names the recorded table, 32 hex digits.
    pub schema_hash: String,
    /// Id of the key that its blocks are sealed with, 16 hex digits; absent where they are not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Every block in order.
    pub blocks: Vec<BlockEntry>,
}

/// One block of a version: stored bytes with the header, rows, XXH3-64 of the body as 16 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry(pub u64, pub u32, pub String);

impl BlockEntry {
    /// Describes a body under a header of that many bytes.
    pub fn of(body: &Body, header_bytes: usize) -> Self {
        let bytes = (body.bytes.len() + header_bytes) as u64;
        Self(bytes, body.rows, format!("{:016x}", body.xxh3))
    }

    /// Stored bytes, header included.
    pub fn bytes(&self) -> u64 {
        self.0
    }

    /// Rows.
    pub fn rows(&self) -> u32 {
        self.1
    }

    /// XXH3-64 of the body.
    pub fn xxh3(&self) -> Option<u64> {
        u64::from_str_radix(&self.2, 16).ok()
    }
}

impl Version {
    /// Returns the XXH3-64 of the text of this version, 16 hex digits.
    pub fn xxh3_hex(&self) -> String {
        xxh3_hex(&text(self))
    }

    /// Returns the digest and count, or `None` when another version of the row hash made it.
    pub fn digest(&self) -> Option<Digest> {
        (self.digest_version == DIGEST_VERSION)
            .then(|| Digest::from_hex(&self.digest, self.rows))
            .flatten()
    }
}

/// The record of the last complete backup of a table, written after everything it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// The run that completed it.
    pub run_id: String,
    /// `dataset.table`.
    pub table: String,
    /// `id` of the table resource.
    pub table_id: String,
    /// `creationTime` of the table, milliseconds since 1970.
    pub table_created_ms: i64,
    /// When the source was read, microseconds since 1970.
    pub snapshot_us: i64,
    /// When the backup was complete, microseconds since 1970.
    pub completed_us: i64,
    /// Names the recorded table, 32 hex digits.
    pub schema_hash: String,
    /// The column whose windows the table is cut into, for a table without table partitions.
    pub watermark: Option<String>,
    /// Every table partition of the duplicate, in ascending order of its name.
    pub table_partitions: Vec<RunPartition>,
    /// Table partitions whose older copy was kept because the source lost rows of them.
    pub held: Vec<Held>,
    /// What was counted of a route whose rows the application writes; absent for blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub census: Option<Census>,
    /// XXH3-64 of this document with an empty `check`.
    pub check: String,
}

/// Rows of a table and rows in Redis, counted on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Census {
    /// Rows of the table, without those that had expired.
    pub rows: u64,
    /// Keys that they make; `None` for streams, whose entries need no key of their own.
    pub distinct_keys: Option<u64>,
    /// Keys in Redis that fit the template of the route.
    pub keys: u64,
    /// Entries of all streams; `None` for other layouts.
    pub entries: Option<u64>,
    /// Bytes of the keys.
    pub key_bytes: u64,
    /// Keys of the same type and prefix that do not fit the template.
    pub unfit_keys: u64,
    /// The last time at which a census found that Redis lacked nothing, microseconds since 1970.
    pub complete_us: Option<i64>,
}

impl Census {
    /// Rows in Redis.
    pub fn held(&self) -> u64 {
        self.entries.unwrap_or(self.keys)
    }

    /// Rows of the table that Redis does not have, judged by the counts.
    pub fn lacking(&self) -> u64 {
        self.rows.saturating_sub(self.held())
    }
}

/// One table partition as the last complete backup left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPartition {
    /// BigQuery's id of the table partition, or `w:<from>..<to>`.
    pub table_partition: String,
    /// Its newest generation.
    pub generation: u64,
    /// Rows of that.
    pub rows: u64,
    /// XXH3-64 of that version's text in the manifest, 16 hex digits.
    pub version_xxh3: String,
    /// Ids of the keys that its versions are sealed with, newest first, an empty one where one is not; absent where none is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_ids: Vec<String>,
}

impl RunPartition {
    /// Describes the newest version of a manifest.
    pub fn of(manifest: &Manifest) -> Option<Self> {
        let newest = manifest.newest()?;
        let key_id = |version: &Version| version.key_id.clone().unwrap_or_default();
        let mut key_ids: Vec<String> = manifest.versions.iter().map(key_id).collect();
        if key_ids.iter().all(String::is_empty) {
            key_ids.clear();
        }
        Some(Self {
            table_partition: manifest.table_partition.clone(),
            generation: newest.generation,
            rows: newest.rows,
            version_xxh3: newest.xxh3_hex(),
            key_ids,
        })
    }

    /// Whether a manifest is the one that was recorded, or one that a later backup published after it.
    pub fn is_met_by(&self, manifest: &Manifest) -> bool {
        manifest.newest().is_some_and(|newest| {
            newest.generation > self.generation
                || (newest.generation == self.generation && newest.xxh3_hex() == self.version_xxh3)
        })
    }
}

/// A table partition that the source damaged, emptied or lost: its copy is as old as it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Its name.
    pub table_partition: String,
    /// The last time at which a backup found it whole, microseconds since 1970.
    pub good_until_us: i64,
}

/// A document with a check of its own.
trait Checked: Serialize + DeserializeOwned + Clone {
    fn check(&mut self) -> &mut String;
}

impl Checked for Manifest {
    fn check(&mut self) -> &mut String {
        &mut self.check
    }
}

impl Checked for Run {
    fn check(&mut self) -> &mut String {
        &mut self.check
    }
}

impl Manifest {
    /// Returns the text to store, with its check.
    pub fn to_json(&self) -> Vec<u8> {
        seal(self)
    }

    /// Reads the manifest stored for a table partition.
    pub fn parse(text: &[u8], table_partition: &str) -> Result<Self, ManifestError> {
        let document = format!("the manifest of table partition {table_partition}");
        let manifest: Self = open(text, &document)?;
        let altered =
            |reason: String| Err(ManifestError::Altered { document: document.clone(), reason });
        if manifest.table_partition != table_partition {
            return altered(format!("it speaks of table partition {}", manifest.table_partition));
        }
        if manifest.versions.is_empty() {
            return altered("it has no version".to_owned());
        }
        if !manifest.versions.is_sorted_by(|newer, older| newer.generation > older.generation) {
            return altered("its versions are not in order".to_owned());
        }
        for version in &manifest.versions {
            let rows: u64 = version.blocks.iter().map(|block| u64::from(block.rows())).sum();
            let bytes: u64 = version.blocks.iter().map(BlockEntry::bytes).sum();
            if rows != version.rows || bytes != version.stored_bytes {
                return altered(format!(
                    "the blocks of generation {} do not add up",
                    version.generation
                ));
            }
        }
        Ok(manifest)
    }

    /// Returns the newest version, which every parsed manifest has.
    pub fn newest(&self) -> Option<&Version> {
        self.versions.first()
    }

    /// Returns the newest version that was read from the source at or before a time.
    pub fn as_of(&self, at_us: i64) -> Option<&Version> {
        self.versions.iter().find(|version| version.snapshot_us <= at_us)
    }
}

impl Run {
    /// Returns the text to store, with its check.
    pub fn to_json(&self) -> Vec<u8> {
        seal(self)
    }

    /// Returns the time up to which everything is in the duplicate, microseconds since 1970.
    pub fn data_as_of_us(&self) -> i64 {
        let held = self.held.iter().map(|held| held.good_until_us);
        held.fold(self.snapshot_us, i64::min)
    }

    /// Returns the time up to which everything was found in Redis, where it ever was.
    pub fn complete_us(&self) -> Option<i64> {
        match &self.census {
            Some(census) => census.complete_us,
            None => Some(self.data_as_of_us()),
        }
    }

    /// Reads the record of the last complete backup of a table.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        open(text, "the record of the last complete backup")
    }
}

/// Returns the XXH3-64 of a stored document, 16 hex digits.
pub fn xxh3_hex(text: &[u8]) -> String {
    format!("{:016x}", xxh3_64(text))
}

fn seal<T: Checked>(document: &T) -> Vec<u8> {
    let mut sealed = document.clone();
    sealed.check().clear();
    let check = xxh3_hex(&text(&sealed));
    *sealed.check() = check;
    text(&sealed)
}

/// Strings, numbers and arrays of them always become JSON.
fn text<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("a document has string keys only")
}

fn open<T: Checked>(stored: &[u8], document: &str) -> Result<T, ManifestError> {
    know_format(stored, document)?;
    let altered = |reason: String| ManifestError::Altered { document: document.to_owned(), reason };
    let parsed: T = serde_json::from_slice(stored).map_err(|error| altered(error.to_string()))?;
    // Equal text includes an equal check, and refuses what serde would read past, such as repeated white space.
    if seal(&parsed) != stored {
        return Err(altered("it does not match its check".to_owned()));
    }
    Ok(parsed)
}

/// Looks at the format before anything else, so that a newer document is called newer and not altered.
fn know_format(stored: &[u8], document: &str) -> Result<(), ManifestError> {
    let altered = |reason: String| ManifestError::Altered { document: document.to_owned(), reason };
    if stored.starts_with(&seal::MAGIC) {
        // Whoever read it would have opened it.
        return Err(altered("its seal does not open".to_owned()));
    }
    let value: serde_json::Value =
        serde_json::from_slice(stored).map_err(|error| altered(error.to_string()))?;
    match value["format"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => Ok(()),
        Some(format) => Err(ManifestError::Newer { document: document.to_owned(), format }),
        None => Err(altered("it has no format".to_owned())),
    }
}
