//! The rows of Redis, page by page: read on connections of their own, decoded and marked on the CPU pool.
//!
//! Invariant: every key of the spool, and every entry of a stream up to the last one that was there, is read once; a
//! page is bounded by the number of its rows, which shrinks where rows are heavy.

use super::super::apart::{Marked, Side, Spread};
use super::{Comparison, Way};
use crate::restore::ends;
use crate::spool::{Cut, Record, Records};
use arrow::datatypes::SchemaRef;
use futures::stream::{self, StreamExt};
use schemas::key::key_hash;
use stages::extract::redis_rows::{Commands, EntryId, RowReader};
use stages::transform::redis_rows::{Page, decode};
use stages::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What the replies of a page should weigh.
const PAGE_BYTES: u64 = 1 << 20;
/// Rows of the first page, when nothing is known yet, and of the largest.
const ROWS_FIRST: u64 = 64;
const ROWS_MAX: u64 = 4_096;
/// Rows that cannot be read back and are named.
const NAMED_MAX: usize = 10_000;
/// Marked pages that wait to be taken.
const WAITING: usize = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// What was read of Redis.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: u64,
    pub(super) rejects: u64,
    /// Keys and reasons of the first of them.
    pub(super) reject_examples: Vec<(String, String)>,
}

/// One page, decoded and marked.
struct Marks {
    rows: Vec<Marked>,
    rejects: Vec<(String, String)>,
}

/// Reads all partitions of a spool, several at once, and spreads their rows.
pub(super) async fn read(
    comparison: &Comparison<'_>,
    way: &Way,
    path: &Path,
    cuts: Vec<Cut>,
    spread: &mut Spread,
) -> Result<Found> {
    let schema = arrow_schema(comparison, way).await?;
    let (sender, mut marks) = mpsc::channel(WAITING);
    let every_lane = sender.clone();
    let lanes = stream::iter(cuts).map(move |cut| {
        let lane = Lane {
            comparison,
            way,
            schema: Arc::clone(&schema),
            path,
            reader: comparison.rows.reader(),
            rows: ROWS_FIRST,
            sender: every_lane.clone(),
        };
        lane.run(cut)
    });
    // The channel ends with its last sender.
    drop(sender);
    let reading = async move {
        let mut lanes = lanes.buffer_unordered(comparison.shared.lanes);
        while let Some(done) = lanes.next().await {
            done?;
        }
        Ok::<_, Error>(())
    };
    let taking = async {
        let mut found = Found::default();
        while let Some(page) = marks.recv().await {
            let Marks { rows, rejects } = page;
            found.rows += rows.len() as u64;
            found.rejects += rejects.len() as u64;
            let room = NAMED_MAX.saturating_sub(found.reject_examples.len());
            found.reject_examples.extend(rejects.into_iter().take(room));
            spread.push(Side::Redis, &rows)?;
        }
        Ok(found)
    };
    let ((), found) = tokio::try_join!(reading, taking)?;
    Ok(found)
}

/// The columns of the table as a read gives them, which the decoder is made for.
async fn arrow_schema(comparison: &Comparison<'_>, way: &Way) -> Result<SchemaRef> {
    let shared = comparison.shared;
    let reading = comparison.reading(shared.snapshot_us);
    let session = stages::extract::table_rows::open(&shared.bigquery, &reading).await?;
    let schema = stages::transform::arrow_message::schema(&session.schema)?;
    let places = way.reverse.schema().columns.iter().map(|column| {
        let same =
            |field: &arrow::datatypes::FieldRef| field.name().eq_ignore_ascii_case(&column.name);
        schema.fields().iter().position(same).ok_or_else(|| {
            Error::new(Kind::Schema, format!("bigquery sent rows without column {}", column.name))
        })
    });
    let places = places.collect::<Result<Vec<_>>>()?;
    let schema = schema.project(&places).map_err(|error| {
        Error::new(Kind::Internal, "cannot take columns of a schema").with_source(error)
    })?;
    Ok(Arc::new(schema))
}

struct Lane<'a> {
    comparison: &'a Comparison<'a>,
    way: &'a Way,
    schema: SchemaRef,
    path: &'a Path,
    reader: RowReader,
    /// Rows of the next page.
    rows: u64,
    sender: mpsc::Sender<Marks>,
}

impl Lane<'_> {
    async fn run(mut self, cut: Cut) -> Result<()> {
        let mut records = Records::open_at(self.path, cut.offset, cut.records)?;
        let mut batch: Vec<Record> = Vec::new();
        let mut rows = 0;
        while let Some(record) = records.next()? {
            if record.stream.is_none() && !self.way.share.has(key_hash(&record.key)) {
                continue;
            }
            let weight = record.stream.map_or(1, |stream| stream.entries);
            let is_large = record.stream.is_some() && (cut.ids.is_some() || weight > self.rows);
            if !batch.is_empty() && (is_large || rows + weight > self.rows) {
                self.page(std::mem::take(&mut batch)).await?;
                rows = 0;
            }
            if is_large {
                self.large(&record, &cut).await?;
            } else {
                batch.push(record);
                rows += weight;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.page(batch).await }
    }

    /// One page of whole keys.
    async fn page(&mut self, batch: Vec<Record>) -> Result<()> {
        let held = self.comparison.table.held;
        let mut commands = Commands::default();
        let mut rows = 0;
        for record in &batch {
            if let Some(stream) = record.stream {
                commands.range(&record.key, EntryId::MIN, stream.last, stream.entries);
                rows += stream.entries;
            } else {
                commands.read(held, &record.key);
                rows += 1;
            }
        }
        let replies = self.ask(&commands).await?;
        self.learn(rows, replies.len() as u64);
        let keys = batch.into_iter().map(|record| record.key).collect();
        self.send(Page { keys, replies }).await
    }

    /// The entries of one stream in pages of its own.
    async fn large(&mut self, record: &Record, cut: &Cut) -> Result<()> {
        let last = record.stream.map_or(EntryId::MAX, |stream| stream.last);
        let (mut from, to) = cut.range(last);
        while from <= to {
            let asked = self.rows;
            let mut commands = Commands::default();
            commands.range(&record.key, from, to, asked);
            let replies = self.ask(&commands).await?;
            let (entries, end) = ends(&replies)?;
            self.learn(entries, replies.len() as u64);
            self.send(Page { keys: vec![record.key.clone()], replies }).await?;
            match end.and_then(EntryId::after) {
                Some(next) if entries == asked => from = next,
                _ => break,
            }
        }
        Ok(())
    }

    /// Asks again while the server may come back.
    async fn ask(&mut self, commands: &Commands) -> Result<bytes::Bytes> {
        let started = std::time::Instant::now();
        loop {
            match self.reader.ask(commands).await {
                Err(error)
                    if error.kind().is_transient()
                        && started.elapsed() < self.comparison.shared.retry_for =>
                {
                    tracing::warn!(%error, "reading the page again");
                }
                done => return done,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sizes the next page; it grows slowly, because the next rows may be heavier.
    fn learn(&mut self, rows: u64, bytes: u64) {
        let each = (bytes / rows.max(1)).max(1);
        self.rows = (PAGE_BYTES / each).clamp(1, ROWS_MAX).min(self.rows * 4);
    }

    /// Decodes and marks a page and hands it over.
    async fn send(&self, page: Page) -> Result<()> {
        let (reverse, schema) = (Arc::clone(&self.way.reverse), Arc::clone(&self.schema));
        let (look, held) = (Arc::clone(&self.way.look), self.comparison.table.held);
        let work = self.comparison.shared.cpu.submit(move || {
            let decoded = decode(&reverse, &schema, held, &page)?;
            let rejects = decoded
                .rejects
                .into_iter()
                .map(|reject| (String::from_utf8_lossy(&reject.key).into_owned(), reject.reason));
            Ok(Marks { rejects: rejects.collect(), rows: look(&decoded.rows)? })
        });
        let marks = work.await?;
        // Whoever took them has left with an error of its own.
        self.sender
            .send(marks)
            .await
            .map_err(|_| Error::new(Kind::Cancelled, "the rows of redis are not wanted any more"))
    }
}
