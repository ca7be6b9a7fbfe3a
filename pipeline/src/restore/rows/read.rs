//! Pages of rows on their way from Redis to a lane: read ahead on a connection of their own, decoded on rayon.
//!
//! Invariant: pages come in the order of the spool, and a bounded number of them is on its way.

use super::super::load::Lane;
use super::RowSource;
use crate::spool::{Cut, Pages};
use arrow::datatypes::SchemaRef;
use schemas::digest::BatchHasher;
use schemas::{Digest, ReverseRoute};
use stages::extract::redis_rows::Held;
use stages::load::bigquery::REQUEST_BYTES_MAX;
use stages::transform::arrow_rows::{self, Message};
use stages::transform::redis_rows::{Page, Reject, decode};
use stages::{Error, Kind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pages on their way from Redis to the lane.
const READAHEAD: usize = 2;
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
        let work = Reading { lane: lane.clone(), source: source.clone(), cut: cut.clone(), sender };
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
    sender: mpsc::Sender<Result<Decoding>>,
}

/// Nobody waits for more pages.
struct Left;

impl Reading {
    async fn run(self) {
        // The lane that left has its reason; there is nobody to tell.
        if let Err(error) = self.read().await {
            drop(self.sender.send(Err(error)).await);
        }
    }

    async fn read(&self) -> Result<()> {
        let (source, retry_for) = (&self.source, self.lane.shared.retry_for);
        let (cut, reader) = (self.cut.clone(), source.rows.reader());
        let mut pages = Pages::open(&source.path, cut, source.held, reader, retry_for)?;
        while let Some(page) = pages.next(|_| true).await? {
            if let Err(Left) = self.send(page).await {
                break;
            }
        }
        Ok(())
    }

    async fn send(&self, page: Page) -> std::result::Result<(), Left> {
        let (reverse, schema) = (Arc::clone(&self.source.reverse), Arc::clone(&self.lane.schema));
        let held = self.source.held;
        let work = self.lane.shared.cpu.submit(move || rows(&reverse, &schema, held, &page));
        self.sender.send(Ok(Box::pin(work))).await.map_err(|_| Left)
    }
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
