//! Pages of rows on their way from Redis to a lane: read ahead on a connection of their own, decoded on rayon.
//!
//! Invariant: pages come in the order of the spool, each sized by what the ones before it weighed, so that what is on
//! its way is bounded by bytes and not by rows.

use super::super::load::Lane;
use super::RowSource;
use crate::spool::{Cut, Record, Records};
use arrow::datatypes::SchemaRef;
use schemas::digest::BatchHasher;
use schemas::{Digest, ReverseRoute};
use stages::extract::redis_rows::{Commands, EntryId, Held, Replies, Reply, RowReader};
use stages::load::bigquery::REQUEST_BYTES_MAX;
use stages::transform::arrow_rows::{self, Message};
use stages::transform::redis_rows::{Page, Reject, decode};
use stages::{Error, Kind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pages on their way from Redis to the lane.
const READAHEAD: usize = 2;
/// What the replies of a page should weigh.
const PAGE_BYTES: u64 = 1 << 20;
/// Rows of the first page, when nothing is known yet, and of the largest.
const ROWS_FIRST: u64 = 64;
const ROWS_MAX: u64 = 4096;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// A page that was decoded.
pub(super) struct Rows {
    /// The requests it makes.
    pub(super) messages: Vec<Message>,
    /// Digest of its rows as the table will hold them.
    pub(super) digest: Digest,
    /// Bytes of the replies.
    pub(super) bytes: u64,
    pub(super) vanished: u64,
    pub(super) rejects: Vec<Reject>,
}

type Decoding = Pin<Box<dyn Future<Output = Result<Rows>> + Send>>;

/// Reads the pages of one partition ahead; dropping it ends that.
pub(super) struct Reader {
    pages: mpsc::Receiver<Result<Decoding>>,
    task: JoinHandle<()>,
}

impl Reader {
    pub(super) fn start(lane: &Lane, source: &RowSource, cut: &Cut) -> Self {
        let (sender, pages) = mpsc::channel(READAHEAD);
        let work = Reading {
            lane: lane.clone(),
            source: source.clone(),
            cut: cut.clone(),
            reader: source.rows.reader(),
            rows: ROWS_FIRST,
            sender,
        };
        Self { pages, task: tokio::spawn(work.run()) }
    }

    pub(super) async fn next(&mut self, lane: &Lane) -> Result<Option<Rows>> {
        let started = Instant::now();
        let page = self.pages.recv().await;
        let rows = match page {
            Some(decoding) => Some(decoding?.await?),
            None => None,
        };
        lane.shared.counters.source_wait(lane.index, started.elapsed());
        Ok(rows)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reading {
    lane: Lane,
    source: RowSource,
    cut: Cut,
    reader: RowReader,
    /// Rows of the next page.
    rows: u64,
    sender: mpsc::Sender<Result<Decoding>>,
}

/// Nobody waits for more pages.
struct Left;

type Step = std::result::Result<(), Left>;

impl Reading {
    async fn run(mut self) {
        // The lane that left has its reason; there is nobody to tell.
        if let Err(Some(error)) = self.pages().await {
            drop(self.sender.send(Err(error)).await);
        }
    }

    /// Reads all pages; `Err(None)` where the lane has left.
    async fn pages(&mut self) -> std::result::Result<(), Option<Error>> {
        let mut records =
            Records::open_at(&self.source.path, self.cut.offset, self.cut.records).map_err(Some)?;
        let mut batch: Vec<Record> = Vec::new();
        let mut rows = 0;
        // Records are read from a local file in short steps.
        while let Some(record) = records.next().map_err(Some)? {
            let weight = record.stream.map_or(1, |stream| stream.entries);
            let is_large = self.cut.ids.is_some() || weight > self.rows;
            if !batch.is_empty() && (is_large || rows + weight > self.rows) {
                self.page(std::mem::take(&mut batch)).await?;
                rows = 0;
            }
            if is_large && record.stream.is_some() {
                self.large(&record).await?;
            } else {
                batch.push(record);
                rows += weight;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.page(batch).await }
    }

    /// One page of whole keys.
    async fn page(&mut self, batch: Vec<Record>) -> std::result::Result<(), Option<Error>> {
        let mut commands = Commands::default();
        let mut rows = 0;
        for record in &batch {
            if let Some(stream) = record.stream {
                commands.range(&record.key, EntryId::MIN, stream.last, stream.entries);
                rows += stream.entries;
            } else {
                commands.read(self.source.held, &record.key);
                rows += 1;
            }
        }
        let replies = self.ask(&commands).await.map_err(Some)?;
        self.learn(rows, replies.len() as u64);
        let keys = batch.into_iter().map(|record| record.key).collect();
        self.send(Page { keys, replies }).await.map_err(|Left| None)
    }

    /// The entries of one stream in pages of its own.
    async fn large(&mut self, record: &Record) -> std::result::Result<(), Option<Error>> {
        let last = record.stream.map_or(EntryId::MAX, |stream| stream.last);
        let (mut from, to) = self.cut.range(last);
        while from <= to {
            let asked = self.rows;
            let mut commands = Commands::default();
            commands.range(&record.key, from, to, asked);
            let replies = self.ask(&commands).await.map_err(Some)?;
            let (entries, end) = ends(&replies).map_err(Some)?;
            self.learn(entries, replies.len() as u64);
            let page = Page { keys: vec![record.key.clone()], replies };
            self.send(page).await.map_err(|Left| None)?;
            match end.and_then(EntryId::after) {
                Some(next) if entries == asked => from = next,
                _ => break,
            }
        }
        Ok(())
    }

    /// Asks again while the server may come back.
    async fn ask(&mut self, commands: &Commands) -> Result<bytes::Bytes> {
        let started = Instant::now();
        loop {
            match self.reader.ask(commands).await {
                Err(error)
                    if error.kind().is_transient()
                        && started.elapsed() < self.lane.shared.retry_for =>
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

    async fn send(&mut self, page: Page) -> Step {
        let (reverse, schema) = (Arc::clone(&self.source.reverse), Arc::clone(&self.lane.schema));
        let held = self.source.held;
        let work = self.lane.shared.cpu.submit(move || rows(&reverse, &schema, held, &page));
        self.sender.send(Ok(Box::pin(work))).await.map_err(|_| Left)
    }
}

/// Returns how many entries a page of one stream has, and the id of the last one.
pub(crate) fn ends(page: &[u8]) -> Result<(u64, Option<EntryId>)> {
    let mut replies = Replies::new(page);
    let Reply::Array(entries) = replies.token()? else { return Ok((0, None)) };
    for _ in 1..entries {
        replies.skip()?;
    }
    if entries == 0 {
        return Ok((0, None));
    }
    let (Reply::Array(_), Reply::Text(id)) = (replies.token()?, replies.token()?) else {
        return Err(Error::new(Kind::Internal, "redis sent a stream entry without an id"));
    };
    Ok((entries as u64, EntryId::parse(id)))
}

/// Decodes a page, hashes its rows and encodes them for the stream. Runs on rayon.
fn rows(reverse: &ReverseRoute, schema: &SchemaRef, held: Held, page: &Page) -> Result<Rows> {
    let decoded = decode(reverse, schema, held, page)?;
    let mut digest = Digest::default();
    let hasher = BatchHasher::new(&decoded.rows);
    let mut hasher = hasher.map_err(|error| {
        Error::new(Kind::Schema, "cannot hash rows of redis").with_source(error)
    })?;
    hasher.add_to(&mut digest);
    Ok(Rows {
        messages: arrow_rows::cut(&decoded.rows, REQUEST_BYTES_MAX)?,
        digest,
        bytes: page.replies.len() as u64,
        vanished: decoded.vanished,
        rejects: decoded.rejects,
    })
}
