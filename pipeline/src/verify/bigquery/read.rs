//! Reads both sides: rows of BigQuery as of a time, and blocks, each checked bit by bit before its rows are believed.
//!
//! Invariant: rows are looked at on the CPU pool, a few messages or blocks at a time, so memory does not depend on the
//! size of a table partition; a block that is missing or altered is named and the next one is read.

use super::Shared;
use super::shape::Columns;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use schemas::block::{self, BlockError, Header};
use schemas::manifest::{BlockEntry, Keys, Version};
use schemas::seal::{SealError, id_text};
use schemas::{Digest, Seals, digest::BatchHasher};
use stages::extract::table_rows::{self, Reading};
use stages::transform::arrow_message;
use stages::{Error, Kind, Result, sealed};
use std::sync::Arc;

/// Messages of a read, and blocks of a table partition, that are decoded or waiting at once.
const AT_ONCE: usize = 3;
/// Below this one stream of BigQuery is as fast.
const ONE_STREAM_BYTES: u64 = 64 << 20;
/// Streams of a large read.
pub(super) const STREAMS: u16 = 4;

/// What is made of a batch of rows, on a transform thread.
pub(super) type Look<T> = Arc<dyn Fn(&RecordBatch) -> Result<T> + Send + Sync>;
/// Takes what was made of a batch, in no order.
pub(super) type Take<'a, T> = &'a mut (dyn FnMut(T) -> Result<()> + Send);

/// Streams that a read of so many bytes asks for.
pub(super) fn streams_for(bytes: u64) -> u16 {
    if bytes < ONE_STREAM_BYTES { 1 } else { STREAMS }
}

/// Reads rows of BigQuery once; whoever calls it starts over where that fails.
pub(super) async fn rows<T: Send + 'static>(
    shared: &Shared,
    reading: &Reading,
    columns: &Columns,
    look: &Look<T>,
    take: Take<'_, T>,
) -> Result<()> {
    let mut session = table_rows::open(&shared.bigquery, reading).await?;
    let (schema, columns) = (session.schema.clone(), Arc::new(columns.clone()));
    let mut at_work = FuturesUnordered::new();
    loop {
        if at_work.len() >= AT_ONCE
            && let Some(made) = at_work.next().await
        {
            take(made?)?;
        }
        let Some(raw) = session.rows.try_next().await? else { break };
        shared.progress.rows(raw.rows, raw.message.len() as u64);
        let (schema, columns, look) = (schema.clone(), Arc::clone(&columns), Arc::clone(look));
        at_work.push(shared.cpu.submit(move || {
            let rows = arrow_message::rows(&schema, &raw.message, raw.rows)?;
            look(&projected(&rows, &columns)?)
        }));
    }
    while let Some(made) = at_work.next().await {
        take(made?)?;
    }
    Ok(())
}

/// Leaves columns out that a copy does not have.
fn projected(rows: &RecordBatch, columns: &Columns) -> Result<RecordBatch> {
    let Columns::Only(names) = columns else { return Ok(rows.clone()) };
    let schema = rows.schema_ref();
    let place = |name: &String| {
        let is_named = |field: &&Arc<_>| {
            let field: &arrow::datatypes::Field = field;
            field.name().eq_ignore_ascii_case(name)
        };
        schema.fields().iter().position(|field| is_named(&field)).ok_or_else(|| {
            Error::new(Kind::Schema, format!("bigquery sent rows without column {name}"))
        })
    };
    let places = names.iter().map(place).collect::<Result<Vec<_>>>()?;
    rows.project(&places).map_err(|error| {
        Error::new(Kind::Internal, "cannot take columns of a batch").with_source(error)
    })
}

/// A block that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    /// Its key.
    pub(super) key: String,
    /// What is wrong with it, for example `is missing`.
    pub(super) what: String,
}

/// What the blocks of one version must be.
#[derive(Clone)]
pub(super) struct Blocks {
    pub(super) keys: Keys,
    /// `dataset.table`.
    pub(super) table: String,
    pub(super) table_partition: String,
    pub(super) version: Arc<Version>,
}

impl Blocks {
    /// The key of a block.
    pub(super) fn key(&self, ordinal: u32) -> String {
        self.keys.block(&self.table_partition, self.version.generation, ordinal)
    }

    /// Reads the blocks with these ordinals; returns the bad ones.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        shared: &Shared,
        ordinals: impl IntoIterator<Item = u32>,
        look: &Look<T>,
        take: Take<'_, T>,
    ) -> Result<Vec<Bad>> {
        let mut blocks = stream::iter(ordinals)
            .map(|ordinal| self.one(shared, ordinal, look))
            .buffer_unordered(AT_ONCE);
        let mut bad = Vec::new();
        while let Some(read) = blocks.next().await {
            match read? {
                Ok(made) => take(made)?,
                Err(found) => bad.push(found),
            }
        }
        drop(blocks);
        bad.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(bad)
    }

    async fn one<T: Send + 'static>(
        &self,
        shared: &Shared,
        ordinal: u32,
        look: &Look<T>,
    ) -> Result<std::result::Result<T, Bad>> {
        let key = self.key(ordinal);
        let value = shared.patiently(|| shared.duplicate.get(&key)).await?;
        let Some(value) = value else {
            return Ok(Err(Bad { key, what: "is missing".to_owned() }));
        };
        let (blocks, look) = (self.clone(), Arc::clone(look));
        let seals = Arc::clone(shared.duplicate.seals());
        let work = shared.cpu.submit(move || {
            match blocks.check(&seals, ordinal, &value) {
                Ok(rows) => look(&rows).map(Ok),
                // Whoever wrote it knows more than this program, which must not call it damage.
                Err(Failure::Newer(error)) => Err(Error::new(
                    Kind::Internal,
                    format!("block {}: {error}", blocks.key(ordinal)),
                )
                .with_hint("use the newer rekindle that wrote this duplicate")),
                // A key that the plan lacks is no damage either.
                Err(Failure::Sealed(error)) => {
                    Err(sealed::refused(&format!("block {}", blocks.key(ordinal)), &error))
                }
                Err(Failure::Altered(what)) => {
                    Ok(Err(Bad { key: blocks.key(ordinal), what: format!("is altered: {what}") }))
                }
            }
        });
        work.await
    }

    /// Checks header, hash, place and digest of a block, and returns its rows. Runs on a transform thread.
    fn check(
        &self,
        seals: &Seals,
        ordinal: u32,
        value: &Bytes,
    ) -> std::result::Result<RecordBatch, Failure> {
        let altered = |error: BlockError| match error {
            BlockError::UnknownVersion { .. } | BlockError::UnknownCodec { .. } => {
                Failure::Newer(error)
            }
            BlockError::Seal(error) => Failure::Sealed(error),
            other => Failure::Altered(other.to_string()),
        };
        let entry = self.version.blocks.get(ordinal as usize);
        let entry =
            entry.ok_or_else(|| Failure::Altered("its manifest has no such block".into()))?;
        let (header, body) = block::open_with(seals, &self.key(ordinal), value).map_err(altered)?;
        if let Some(what) = self.misplaced(&header, ordinal, entry) {
            return Err(Failure::Altered(format!("{what} is not what its manifest says")));
        }
        let rows = block::decode(&header, &body).map_err(altered)?;
        let digest = block::digest(&rows).map_err(altered)?;
        if header.is_digest_comparable() && header.digest != digest {
            return Err(Failure::Altered(
                "its rows have another digest than its header says".to_owned(),
            ));
        }
        Ok(rows)
    }

    /// Names what a header says other than the manifest, if anything.
    fn misplaced(&self, header: &Header, ordinal: u32, entry: &BlockEntry) -> Option<&'static str> {
        let version = &self.version;
        let is_last = ordinal as usize + 1 == version.blocks.len();
        let schema_hash = format!("{:032x}", header.schema_hash);
        let key_id = header.key_id.map(id_text);
        [
            (header.table == self.table, "its table"),
            (header.table_partition == self.table_partition, "its table partition"),
            (header.generation == version.generation, "its generation"),
            (header.ordinal == ordinal, "its place"),
            (header.is_last == is_last, "the number of blocks"),
            (header.rows == entry.rows(), "its number of rows"),
            (entry.xxh3().is_none_or(|xxh3| xxh3 == header.body_xxh3), "its hash"),
            (header.snapshot_us == version.snapshot_us, "its time"),
            (header.last_modified_us == version.last_modified_us, "its time of modification"),
            (header.expires_us == version.expires_us, "its expiry"),
            (header.table_created_ms == version.table_created_ms, "the creation of its table"),
            (schema_hash == version.schema_hash, "its recorded table"),
            (key_id == version.key_id, "the key of its seal"),
        ]
        .into_iter()
        .find(|(is_same, _)| !is_same)
        .map(|(_, what)| what)
    }
}

enum Failure {
    Altered(String),
    Newer(BlockError),
    Sealed(SealError),
}

/// Makes the digest of a batch.
pub(super) fn digest() -> Look<Digest> {
    Arc::new(|rows: &RecordBatch| {
        let mut digest = Digest::default();
        BatchHasher::new(rows).map_err(no_hash)?.add_to(&mut digest);
        Ok(digest)
    })
}

/// Makes the error of a column that cannot be hashed.
pub(super) fn no_hash(error: schemas::digest::UnknownType) -> Error {
    Error::new(Kind::Schema, "rows cannot be hashed")
        .with_source(error)
        .with_hint("see TYPES.md for the types that are carried")
}
