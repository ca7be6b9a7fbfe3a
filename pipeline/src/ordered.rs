//! Rows of a source that gives no order, sorted on disk into the order that keys of many rows are made in.
//!
//! Invariant: what is read is one partition, whose rows come in `BoundRoute::order`, each once; memory is one sorted run
//! and a buffer per run, whatever the table holds. Nothing of it outlives the read: another attempt sorts anew.

mod rows;

use crate::ledger::io_error;
use crate::spool::Sorter;
use async_trait::async_trait;
use rows::{Coded, Emitter};
use schemas::{BoundRoute, Bounds, Partition, PartitionId, Position};
use stages::extract::{
    BATCH_BYTES, BatchStream, Columns, Estimate, READAHEAD, Session, Snapshot, Source,
};
use stages::{Error, Kind, RawBatch, Result};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes of rows that are sorted in memory.
const SORTED_BYTES_MAX: usize = 32 << 20;
/// What sorting takes at most: a buffer that has grown to twice its content, and those of the runs that are merged.
const HELD_BYTES: u64 = 2 * SORTED_BYTES_MAX as u64 + (16 << 20);

/// Removes what a killed process has left in a folder that nobody else sorts in.
pub fn emptied(folder: PathBuf) -> Result<PathBuf> {
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", &folder, error))
        }
        _ => Ok(folder),
    }
}

/// A source of one ordered partition, over one of unordered ones.
pub struct Ordered {
    inner: Arc<dyn Source>,
    bound: Arc<BoundRoute>,
    /// Where rows are sorted.
    folder: PathBuf,
}

impl Ordered {
    /// Puts the rows of a source of arrow messages in order, in files of a folder.
    pub fn new(inner: Arc<dyn Source>, bound: Arc<BoundRoute>, folder: PathBuf) -> Self {
        Self { inner, bound, folder }
    }
}

#[async_trait]
impl Source for Ordered {
    fn relations(&self) -> String {
        self.inner.relations()
    }

    fn no_catch_up(&self) -> Option<&'static str> {
        self.inner.no_catch_up()
    }

    async fn prepare(&self, run_id: &str) -> Result<()> {
        self.inner.prepare(run_id).await
    }

    async fn discard(&self) -> Result<()> {
        self.inner.discard().await
    }

    async fn estimate(&self) -> Result<Option<Estimate>> {
        self.inner.estimate().await
    }

    async fn rows_expected(&self) -> Result<Option<u64>> {
        self.inner.rows_expected().await
    }

    fn size_batches(&self, bytes: usize) {
        self.inner.size_batches(bytes);
    }

    /// A sorted batch is closed by the bytes that its rows take on disk, which in arrow may be more.
    fn batch_bytes(&self) -> usize {
        self.inner.batch_bytes().max(2 * BATCH_BYTES)
    }

    fn held_bytes(&self) -> u64 {
        HELD_BYTES + self.inner.held_bytes()
    }

    async fn partitions(&self, _wanted: usize, first: usize) -> Result<Vec<Partition>> {
        let parts = self.inner.partitions(1, 0).await?;
        let route = &self.bound.route.name;
        Ok(vec![Partition {
            id: PartitionId(format!("{route}/{first}")),
            route: route.clone(),
            bounds: Bounds::Whole,
            rows_estimate: parts.iter().map(|part| part.rows_estimate).sum(),
            bytes_estimate: parts.iter().map(|part| part.bytes_estimate).sum(),
            newest_us: None,
        }])
    }

    fn catch_up(&self, since_xid: u64, first: usize) -> Vec<Partition> {
        self.inner.catch_up(since_xid, first)
    }

    async fn open(&self) -> Result<Box<dyn Session>> {
        let session = self.inner.open().await?;
        Ok(Box::new(OrderedSession {
            snapshot: session.snapshot().clone(),
            inner: Arc::clone(&self.inner),
            bound: Arc::clone(&self.bound),
            folder: self.folder.clone(),
        }))
    }
}

/// A read that has not begun.
struct OrderedSession {
    inner: Arc<dyn Source>,
    bound: Arc<BoundRoute>,
    folder: PathBuf,
    snapshot: Snapshot,
}

type Batches = mpsc::Sender<Result<RawBatch>>;

impl Session for OrderedSession {
    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn read(
        self: Box<Self>,
        _partition: &Partition,
        _from: &Position,
        columns: Columns,
    ) -> BatchStream {
        let (sender, receiver) = mpsc::channel(READAHEAD);
        let task = tokio::spawn(async move {
            let outcome = match columns {
                Columns::All => self.sorted(&sender).await,
                // Keys alone are wanted in no order.
                Columns::Key => self.unordered(columns, &sender, Ok).await,
            };
            // A receiver that is gone has stopped asking; nobody is left to tell.
            if let Err(error) = outcome
                && sender.send(Err(error)).await.is_err()
            {
                tracing::trace!("the lane left before the read failed");
            }
        });
        BatchStream::new(receiver, task)
    }
}

impl OrderedSession {
    /// Hands on every batch as it comes.
    async fn unordered<T>(
        &self,
        columns: Columns,
        to: &mpsc::Sender<T>,
        shape: impl Fn(RawBatch) -> T,
    ) -> Result<()> {
        for part in self.inner.partitions(1, 0).await? {
            let session = self.inner.open().await?;
            let mut stream = session.read(&part, &Position::Start, columns);
            while let Some(batch) = stream.next().await {
                if to.send(shape(batch?)).await.is_err() {
                    return Err(Error::new(Kind::Cancelled, "the lane stopped reading"));
                }
            }
        }
        Ok(())
    }

    /// Sorts all rows on a thread that may block, and hands them on from there.
    async fn sorted(&self, to: &Batches) -> Result<()> {
        let (rows, unsorted) = mpsc::channel::<Option<RawBatch>>(READAHEAD);
        let name = format!("{}.{}", self.bound.route.name, uuid::Uuid::new_v4().simple());
        let sorter = Sorter::new(&self.folder, &name, SORTED_BYTES_MAX)?;
        let (bound, to) = (Arc::clone(&self.bound), to.clone());
        let sorting = tokio::task::spawn_blocking(move || sort(unsorted, sorter, &bound, to));
        let read = self.unordered(Columns::All, &rows, Some).await;
        if read.is_ok() && rows.send(None).await.is_err() {
            tracing::trace!("sorting has failed, which is told below");
        }
        drop(rows);
        let outcome = sorting.await.map_err(|error| {
            Error::new(Kind::Internal, "sorting rows panicked").with_source(error)
        })?;
        // A sorter that failed stops the read, which then only says that it was stopped.
        outcome.and(read)
    }
}

/// Takes rows to the mark that ends them, and sends them in order; without the mark the read has failed, and nothing is
/// sent.
fn sort(
    mut unsorted: mpsc::Receiver<Option<RawBatch>>,
    mut sorter: Sorter,
    bound: &BoundRoute,
    to: Batches,
) -> Result<()> {
    let mut coded = Coded::new(bound);
    let mut bytes_read = 0;
    loop {
        match unsorted.blocking_recv() {
            Some(Some(raw)) => {
                bytes_read += raw.bytes_read;
                coded.push(&raw, &mut sorter)?;
            }
            Some(None) => break,
            None => return Ok(()),
        }
    }
    let Some(mut emitter) = Emitter::new(coded, to, bytes_read) else { return Ok(()) };
    sorter.merge(|record| emitter.take(record))?;
    emitter.end()
}
