//! Extract: systems that rows are read from.

pub mod bigquery;
pub mod postgres;
pub mod rdb_entries;
pub mod redis_entries;
pub mod redis_keys;
pub mod redis_rows;
pub mod redis_streams;
pub mod redis_values;
pub mod table_rows;

use crate::batch::RawBatch;
use crate::error::Result;
use crate::load::SourcePressure;
use crate::transform::TakeApart;
use async_trait::async_trait;
use schemas::drift::Drift;
use schemas::{Bounds, Partition, PartitionId, Position};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A state of the source that reads see, and how to tell whether a later one continues it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Oldest transaction still running when it was taken (`pg_snapshot_xmin`), 64 bits.
    pub xmin: u64,
    /// First transaction not yet assigned then (`pg_snapshot_xmax`), 64 bits.
    pub xmax: u64,
    /// The source's clock, microseconds since 1970.
    pub taken_us: i64,
    /// Write-ahead log position in bytes.
    pub lsn: u64,
    /// Which server and which history; empty when the source does not tell. It begins with [`PINNED_MARK`] where every
    /// read of a run is at the time of one snapshot.
    pub identity: String,
}

/// What the identity of a pinned snapshot begins with.
pub const PINNED_MARK: &str = "pinned:";

impl Snapshot {
    /// Whether this snapshot sees the same history as `earlier`, later on; a pinned one, the very same state.
    ///
    /// Only then do transaction ids and tuple positions of `earlier` mean anything here. A server that
    /// does not tell who it is never continues anything.
    pub fn continues(&self, earlier: &Self) -> bool {
        !self.identity.is_empty()
            && self.identity == earlier.identity
            && self.xmax >= earlier.xmax
            && self.lsn >= earlier.lsn
            && (!self.is_pinned() || self.taken_us == earlier.taken_us)
    }

    /// Whether it is a time that can be read again, rather than a state that dies with a connection.
    pub fn is_pinned(&self) -> bool {
        self.identity.starts_with(PINNED_MARK)
    }
}

/// What a read would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Rows, where known.
    pub rows: Option<u64>,
    /// Bytes that are read, where known.
    pub bytes_read: Option<u64>,
    /// Bytes that the system bills.
    pub bytes_billed: u64,
}

/// A part of the rows as it was read under an earlier snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBefore<'a> {
    /// The part.
    pub bounds: &'a Bounds,
    /// `xmin` of that snapshot.
    pub xmin: u64,
    /// Rows that it had.
    pub rows: u64,
}

/// Which columns a read returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// All that the route needs.
    All,
    /// Only those of the key, without a position.
    Key,
}

/// Raw batches of one read, produced by a task of its own; dropping it ends the task.
#[derive(Debug)]
pub struct BatchStream {
    batches: mpsc::Receiver<Result<RawBatch>>,
    task: Option<JoinHandle<()>>,
}

impl BatchStream {
    /// Wraps a producer task and the channel it fills.
    pub fn new(batches: mpsc::Receiver<Result<RawBatch>>, task: JoinHandle<()>) -> Self {
        Self { batches, task: Some(task) }
    }

    /// Wraps a channel that somebody else fills and closes.
    pub fn fed(batches: mpsc::Receiver<Result<RawBatch>>) -> Self {
        Self { batches, task: None }
    }

    /// Returns the next batch, or `None` at the end.
    pub async fn next(&mut self) -> Option<Result<RawBatch>> {
        self.batches.recv().await
    }
}

impl Drop for BatchStream {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A table, view or query that one route reads.
///
/// Promises: `partitions` covers every row exactly once under one snapshot; nothing is read before
/// `open`; sessions are independent and may run at once.
#[async_trait]
pub trait Source: Send + Sync {
    /// Identity of the physical relations read; a position is void when it changes.
    fn relations(&self) -> String;
    /// What changed in the shape of what is read since this source was made, where reads went on all the same.
    fn drift(&self) -> Vec<Drift> {
        Vec::new()
    }
    /// Why changed rows cannot be told from unchanged ones after a snapshot is lost; `None` when they can.
    fn no_catch_up(&self) -> Option<&'static str>;
    /// Makes what the run of this id reads, before it is cut; asked again, it finds what is there.
    async fn prepare(&self, _run_id: &str) -> Result<()> {
        Ok(())
    }
    /// Removes what [`Self::prepare`] made, once the run is done and proven and nothing reads it again.
    async fn discard(&self) -> Result<()> {
        Ok(())
    }
    /// What a read would take, where the system tells beforehand.
    async fn estimate(&self) -> Result<Option<Estimate>> {
        Ok(None)
    }
    /// Rows of the whole route by the statistics of the source, where they tell more than those of its partitions.
    async fn rows_expected(&self) -> Result<Option<u64>> {
        Ok(None)
    }
    /// Asks for batches of about so many bytes from the next read on, where the source has a choice.
    fn size_batches(&self, _bytes: usize) {}
    /// Bytes that one raw batch may hold.
    fn batch_bytes(&self) -> usize {
        BATCH_BYTES
    }
    /// Bytes that one read holds beside its batches.
    fn held_bytes(&self) -> u64 {
        0
    }
    /// Cuts the rows into about `wanted` partitions named `<route>/<first>..`.
    async fn partitions(&self, wanted: usize, first: usize) -> Result<Vec<Partition>>;
    /// Counts members of keys of many rows that have several scores, or fields with several values, where that must not be.
    async fn contradictions(&self) -> Result<u64> {
        Ok(0)
    }
    /// Whether [`Self::unchanged`] may tell anything.
    fn tells_unchanged(&self) -> bool {
        false
    }
    /// Tells of each part whether it has the very rows it had then, and the snapshot that shows it; `None` where the
    /// source cannot tell.
    async fn unchanged(&self, _parts: &[ReadBefore<'_>]) -> Result<Option<(Snapshot, Vec<bool>)>> {
        Ok(None)
    }
    /// Partitions that re-read every row a snapshot with this `xmin` may not have seen.
    fn catch_up(&self, since_xid: u64, first: usize) -> Vec<Partition>;
    /// A partition that holds every row that renders to one of these keys, perhaps more; `None` where such rows cannot
    /// be found without reading everything.
    fn rows_of(&self, _keys: &[&[u8]]) -> Option<Partition> {
        None
    }
    /// A partition that holds every row whose columns (by their places in the schema) have one of these texts, perhaps
    /// more; `None` where such rows cannot be found by value.
    fn rows_with(&self, _columns: &[usize], _texts: &[Vec<&[u8]>]) -> Option<Partition> {
        None
    }
    /// Starts a session under the run's current snapshot, or under its own where none can be shared.
    async fn open(&self) -> Result<Box<dyn Session>>;
}

/// Looks at how pressed a source is.
#[async_trait]
pub trait Gauge: Send + Sync {
    /// Looks once.
    async fn look(&self) -> Result<SourcePressure>;
    /// Fails with `Auth` where the server hides what is looked at.
    async fn check_rights(&self) -> Result<()>;
}

/// One read under one snapshot.
pub trait Session: Send {
    /// The snapshot it sees.
    fn snapshot(&self) -> &Snapshot;
    /// Streams whole rows after `from`, in partition order.
    ///
    /// Memory: at most [`READAHEAD`] batches wait in the stream and one is being filled.
    fn read(
        self: Box<Self>,
        partition: &Partition,
        from: &Position,
        columns: Columns,
    ) -> BatchStream;
    /// Streams some whole rows after `from`: `rows_max` of them, or more where the system is not told where to stop.
    fn sample(
        self: Box<Self>,
        partition: &Partition,
        from: &Position,
        _rows_max: usize,
    ) -> BatchStream {
        self.read(partition, from, Columns::All)
    }
}

/// A table that several routes read, in one pass of all of them.
#[async_trait]
pub trait PassSource: Send + Sync {
    /// Starts a session as [`Source::open`] does.
    async fn open(&self) -> Result<Box<dyn PassSession>>;
}

/// One pass under one snapshot.
pub trait PassSession: Send {
    /// The snapshot it sees.
    fn snapshot(&self) -> &Snapshot;
    /// Streams every row that one of the readers has not had yet, in partition order, and returns what takes the
    /// stream apart: part `i` is what reader `i` would have read alone.
    fn read(
        self: Box<Self>,
        bounds: &Bounds,
        readers: &[Reader],
    ) -> (BatchStream, Box<dyn TakeApart>);
}

/// Who takes part in a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// Which route of the pass.
    pub route: usize,
    /// The partition it reads, for messages.
    pub partition: PartitionId,
    /// How far it has come.
    pub from: Position,
}

/// Batches that wait between extract and transform.
pub const READAHEAD: usize = 2;
/// A raw batch is closed at this size, in wire bytes.
pub const BATCH_BYTES: usize = 256 * 1024;
