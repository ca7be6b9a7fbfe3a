//! Copies one table partition into blocks, reads them back, and publishes them by one SET.
//!
//! Invariant: until that SET nothing of the last published version was touched; after it the new one is whole. Ordinals
//! go through one connection in order, so what a crash leaves is a prefix.

use super::decide::InSource;
use super::publish::publish;
use super::waits::Waits;
use crate::cpu::CpuPool;
use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt, TryStreamExt};
use schemas::Digest;
use schemas::block::{BLOCK_BYTES_AIM, Body};
use schemas::digest::DIGEST_VERSION;
use schemas::manifest::{BlockEntry, FORMAT, Keys, Manifest, Version};
use stages::connect::bigquery::BigQuery;
use stages::extract::table_rows::{self, RawRows, Reading, TableRows};
use stages::failpoint::{Point, pass};
use stages::load::store::{Store, VALUES_MAX, Writer};
use stages::transform::arrow_message;
use stages::{Error, Kind, Result};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Encodings of one table partition that may be at work or waiting at once.
const ENCODINGS_MAX: usize = 2;
/// Blocks of one table partition that may be on their way to the server at once.
const WRITES_MAX: usize = 3;
/// Bytes of arrow messages that become one block, before the first one has shown how well they compress.
const WIRE_BYTES_GUESS: u64 = (BLOCK_BYTES_AIM as u64) * 2;
/// Streams of the session of a large table partition.
pub(crate) const STREAMS: u16 = 4;
/// Below this one stream is as fast.
const ONE_STREAM_BYTES: u64 = 64 << 20;

/// What all table partitions of one table have in common.
pub struct TableCopy {
    /// The source.
    pub bigquery: BigQuery,
    /// The target.
    pub duplicate: Arc<dyn Store>,
    /// Transform threads.
    pub cpu: Arc<CpuPool>,
    /// Keys of the route.
    pub keys: Keys,
    /// The dataset.
    pub dataset: String,
    /// The table.
    pub table: String,
    /// `id` of the table resource.
    pub table_id: String,
    /// `creationTime` of the table, milliseconds since 1970.
    pub table_created_ms: i64,
    /// Names the recorded table.
    pub schema_hash: u128,
    /// The pinned time.
    pub snapshot_us: i64,
    /// Versions kept, the newest one included.
    pub keep_versions: usize,
    /// Whether a copy may have fewer rows than the one before it.
    pub may_shrink: bool,
    /// Bytes of arrow messages that make one block, as the last blocks had it.
    pub wire_bytes_per_block: AtomicU64,
    /// What its table partitions waited for.
    pub waits: Waits,
}

/// One table partition to be copied.
#[derive(Debug, Clone)]
pub struct Unit {
    /// As the source shows it.
    pub source: InSource,
    /// The condition that reads it.
    pub filter: Option<String>,
    /// The generation that is written.
    pub generation: u64,
    /// What is published now.
    pub published: Option<Manifest>,
    /// Generations that cannot be restored and are not kept.
    pub damaged: Vec<u64>,
    /// Whether its rows move into other table partitions, so that it may have fewer than before.
    pub is_buffer: bool,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The manifest as published.
    pub manifest: Manifest,
    /// Bytes read from the source.
    pub wire_bytes: u64,
    /// Rows and their hashes.
    pub digest: Digest,
}

impl TableCopy {
    /// Makes what the table partitions of a table share.
    pub fn wire_bytes_guess() -> AtomicU64 {
        AtomicU64::new(WIRE_BYTES_GUESS)
    }

    /// Copies, reads back and publishes one table partition. `progress` is told rows and bytes read.
    pub async fn copy(&self, unit: &Unit, progress: impl Fn(u64, u64)) -> Result<Copied> {
        let reading = Reading {
            dataset: self.dataset.clone(),
            table: self.table.clone(),
            filter: unit.filter.clone(),
            snapshot_us: self.snapshot_us,
            streams: if unit.source.bytes < ONE_STREAM_BYTES { 1 } else { STREAMS },
        };
        let session = table_rows::open(&self.bigquery, &reading).await?;
        let mut blocks = Blocks {
            table: self,
            unit,
            writer: self.duplicate.writer().await?,
            held: None,
            entries: Vec::new(),
            digest: Digest::default(),
            writes: FuturesOrdered::new(),
        };
        let wire_bytes = self.carry(session, &mut blocks, progress).await?;
        let (entries, digest) = blocks.finish().await?;
        self.refuse_loss(unit, digest.count)?;
        Waits::count(&self.waits.target, self.read_back(unit, &entries)).await?;
        pass(Point::BlocksProven);
        let manifest = self.publish(unit, entries, digest).await?;
        Ok(Copied { manifest, wire_bytes, digest })
    }

    /// What is read may be less than what the source listed a moment later.
    fn refuse_loss(&self, unit: &Unit, rows: u64) -> Result<()> {
        let Some(newest) = unit.published.as_ref().and_then(Manifest::newest) else {
            return Ok(());
        };
        let is_expired = newest.expires_us.is_some_and(|at| at <= self.snapshot_us);
        // What left the buffer was found in other table partitions before this was asked for.
        let least = if unit.is_buffer { newest.rows.min(unit.source.rows) } else { newest.rows };
        if rows >= least || self.may_shrink || is_expired {
            return Ok(());
        }
        let (name, id) = (format!("{}.{}", self.dataset, self.table), &unit.source.id);
        let message = format!(
            "table partition {name}${id} has fewer rows than its copy; its duplicate stays as it is"
        );
        Err(Error::new(Kind::Difference, message).with_hint(format!(
            "if that was meant: rekindle backup bigquery --accept-loss {name}; if not: rekindle restore bigquery"
        )))
    }

    /// Reads, encodes and writes all rows; returns the bytes read.
    async fn carry(
        &self,
        mut session: TableRows,
        blocks: &mut Blocks<'_>,
        progress: impl Fn(u64, u64),
    ) -> Result<u64> {
        let unit = blocks.unit;
        let mut encodings: FuturesOrdered<_> = FuturesOrdered::new();
        let mut wire_bytes = 0;
        let (mut group, mut group_bytes) = (Vec::new(), 0);
        while let Some(rows) = Waits::count(&self.waits.source, session.rows.try_next()).await? {
            let bytes = rows.message.len() as u64;
            progress(rows.rows, bytes);
            wire_bytes += bytes;
            group_bytes += bytes;
            group.push(rows);
            if group_bytes < self.wire_bytes_per_block.load(Ordering::Relaxed) {
                continue;
            }
            if encodings.len() == ENCODINGS_MAX {
                let encoded: Option<Result<Encoded>> =
                    Waits::count(&self.waits.cpu, encodings.next()).await;
                blocks.take(encoded).await?;
            }
            encodings.push_back(self.encode(unit, &session.schema, std::mem::take(&mut group)));
            group_bytes = 0;
        }
        if !group.is_empty() {
            encodings.push_back(self.encode(unit, &session.schema, group));
        }
        while let Some(encoded) = Waits::count(&self.waits.cpu, encodings.next()).await {
            blocks.take(Some(encoded)).await?;
        }
        Ok(wire_bytes)
    }

    /// Starts to decode and encode at once, on a transform thread.
    fn encode(
        &self,
        unit: &Unit,
        schema: &Bytes,
        group: Vec<RawRows>,
    ) -> impl Future<Output = Result<Encoded>> + use<> {
        let (schema, form) = (schema.clone(), self.duplicate.form().clone());
        let labels = self.labels(unit);
        self.cpu.submit(move || {
            let wire_bytes = group.iter().map(|rows| rows.message.len() as u64).sum();
            let batches = group
                .iter()
                .map(|rows| arrow_message::rows(&schema, &rows.message, rows.rows))
                .collect::<Result<Vec<_>>>()?;
            let bodies = form.encode(&batches, &labels)?;
            Ok(Encoded { bodies, wire_bytes })
        })
    }

    /// Reads every new block and compares it with what was meant to be written.
    async fn read_back(&self, unit: &Unit, entries: &[BlockEntry]) -> Result<()> {
        for expected in self.expected(unit, entries).chunks(VALUES_MAX) {
            let keys: Vec<String> = expected.iter().map(|block| block.key.clone()).collect();
            let values = self.duplicate.get_some(&keys).await?;
            let (form, expected) = (self.duplicate.form().clone(), expected.to_vec());
            let wrong = self.cpu.submit(move || {
                let mut pairs = values.iter().zip(&expected);
                Ok(pairs.position(|(value, expected)| !form.is_whole(value.as_ref(), expected)))
            });
            if let Some(at) = wrong.await? {
                let place = self.duplicate.place();
                let message = format!("block {} is not in {place} as it was written", keys[at]);
                return Err(Error::new(Kind::TargetChanged, message).with_hint(
                    "see that nothing else writes or evicts these keys, then run the same command again",
                ));
            }
        }
        Ok(())
    }

    /// Publishes the blocks as the newest version and removes what is kept no longer.
    async fn publish(
        &self,
        unit: &Unit,
        blocks: Vec<BlockEntry>,
        digest: Digest,
    ) -> Result<Manifest> {
        let version = Version {
            generation: unit.generation,
            snapshot_us: self.snapshot_us,
            // A change after the pinned time is not in these blocks.
            last_modified_us: unit.source.last_modified_us.min(self.snapshot_us),
            table_created_ms: self.table_created_ms,
            expires_us: unit.source.expires_us,
            rows: digest.count,
            source_bytes: unit.source.bytes,
            stored_bytes: blocks.iter().map(BlockEntry::bytes).sum(),
            digest: digest.hex(),
            digest_version: DIGEST_VERSION,
            schema_hash: format!("{:032x}", self.schema_hash),
            key_id: self.key_id(),
            blocks,
        };
        let published = unit.published.as_ref();
        let mut versions = vec![version];
        let before = published.iter().flat_map(|manifest| manifest.versions.clone());
        versions.extend(before.filter(|version| !unit.damaged.contains(&version.generation)));
        let dropped = versions.split_off(self.keep_versions.min(versions.len()));
        let mut retired: Vec<(u64, u64)> =
            published.map(|manifest| manifest.retired.clone()).unwrap_or_default();
        // How many blocks they have does not matter: they are looked for.
        retired.extend(unit.damaged.iter().map(|generation| (*generation, 0)));
        retired.extend(dropped.iter().map(|old| (old.generation, old.blocks.len() as u64)));
        let manifest = Manifest {
            format: FORMAT,
            table: format!("{}.{}", self.dataset, self.table),
            table_id: self.table_id.clone(),
            table_partition: unit.source.id.clone(),
            versions,
            retired,
            check: String::new(),
        };
        publish(&*self.duplicate, &self.keys, manifest).await
    }
}

struct Encoded {
    bodies: Vec<Body>,
    wire_bytes: u64,
}

type Write = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The blocks of one table partition on their way.
struct Blocks<'a> {
    table: &'a TableCopy,
    unit: &'a Unit,
    writer: Arc<dyn Writer>,
    /// The newest body: whether it is the last one is known when another one or the end comes.
    held: Option<Body>,
    entries: Vec<BlockEntry>,
    digest: Digest,
    writes: FuturesOrdered<Write>,
}

impl Blocks<'_> {
    async fn take(&mut self, encoded: Option<Result<Encoded>>) -> Result<()> {
        let Some(encoded) = encoded else { return Ok(()) };
        let Encoded { bodies, wire_bytes } = encoded?;
        let stored: usize = bodies.iter().map(|body| body.bytes.len()).sum();
        if stored > 0 {
            let form = self.table.duplicate.form();
            let aim = form.bytes_aim() as u64;
            let wanted = wire_bytes.saturating_mul(aim) / stored as u64;
            let wanted = wanted.clamp(aim / 2, form.wire_bytes_max());
            self.table.wire_bytes_per_block.store(wanted, Ordering::Relaxed);
        }
        for body in bodies {
            if let Some(before) = self.held.replace(body) {
                self.send(before, false).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, body: Body, is_last: bool) -> Result<()> {
        if self.writes.len() >= WRITES_MAX {
            let written = Waits::count(&self.table.waits.target, self.writes.next()).await;
            written.unwrap_or(Ok(()))?;
        }
        let (table, unit) = (self.table, self.unit);
        let ordinal = u32::try_from(self.entries.len())
            .map_err(|_| Error::new(Kind::Internal, "a table partition has too many blocks"))?;
        let header = table.header(unit, &body, ordinal, is_last);
        self.entries.push(table.duplicate.form().entry(&body, &header));
        self.digest += body.digest;
        let key = table.keys.block(&unit.source.id, unit.generation, ordinal);
        let framing = table.framed(&key, header, body.bytes);
        let framed = Waits::count(&table.waits.cpu, framing).await?;
        // Polled once here, so that it is on its way before the next rows are waited for.
        let writing = self.writer.write(&key, framed);
        let mut write: Write = Box::pin(async move {
            writing.await?;
            pass(Point::BlockWritten);
            Ok(())
        });
        let polled = futures::poll!(write.as_mut());
        match polled {
            std::task::Poll::Ready(done) => done,
            std::task::Poll::Pending => {
                self.writes.push_back(write);
                Ok(())
            }
        }
    }

    async fn finish(mut self) -> Result<(Vec<BlockEntry>, Digest)> {
        if let Some(last) = self.held.take() {
            self.send(last, true).await?;
        }
        while let Some(written) = Waits::count(&self.table.waits.target, self.writes.next()).await {
            written?;
        }
        Ok((self.entries, self.digest))
    }
}
