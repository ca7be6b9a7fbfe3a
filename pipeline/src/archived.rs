//! Rows of a table from the copy that an archive has of it, for a rebuild that does not ask BigQuery.
//!
//! Invariant: what is read is one generation of each table partition, named by the record of one complete backup, also
//! after a resume; no row of a file is handed on before the file is proven to be the one its manifest names.

mod cut;
mod rows;

use async_trait::async_trait;
use bytes::Bytes;
use cut::partitions;
use rows::messages;
use schemas::manifest::{Keys, Version};
use schemas::{BoundRoute, Bounds, Digest, Partition, Position, TableSchema};
use stages::extract::{
    BATCH_BYTES, BatchStream, Columns, Estimate, PINNED_MARK, READAHEAD, Session, Snapshot, Source,
};
use stages::load::store::Values;
use stages::transform::form::Expected;
use stages::{Error, Kind, RawBatch, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// What one read holds beside its batches: a file of up to 8 MiB, its rows, and the messages they become. A file is made
/// of at most 16 MiB of rows, unless one row is larger.
const HELD_BYTES: u64 = (8 + 16 + 16) << 20;
/// What to do about files that are missing or altered.
pub(crate) const HINT: &str = "write anew what bigquery still has: rekindle backup bigquery --to archive; or read bigquery itself: rekindle rebuild redis --fresh";

/// What an archive has of one table.
#[derive(Debug, Clone)]
pub struct TableCopy {
    /// `dataset.table`.
    pub table: String,
    /// The names of its files.
    pub keys: Keys,
    /// Every table partition that is read, in the order of their names.
    pub parts: Vec<CopiedPart>,
    /// Up to when everything that the table had is in it, microseconds since 1970.
    pub as_of_us: i64,
    /// The backup that made it, and the check of its record: another backup, another identity.
    pub identity: String,
}

/// One table partition in the generation that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedPart {
    /// Table partition or window.
    pub table_partition: String,
    /// Its files.
    pub version: Version,
}

impl TableCopy {
    /// Rows of all table partitions.
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.version.rows).sum()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.version.stored_bytes).sum()
    }

    /// The state that every read of it shows.
    fn snapshot(&self) -> Snapshot {
        let identity = format!("{PINNED_MARK}archive of {}", self.table);
        Snapshot { xmin: 0, xmax: 0, taken_us: self.as_of_us, lsn: 0, identity }
    }
}

/// One route's source.
pub struct ArchivedSource {
    values: Arc<dyn Values>,
    copy: Arc<TableCopy>,
    bound: Arc<BoundRoute>,
    batch_bytes: AtomicUsize,
}

impl ArchivedSource {
    /// Makes the source of a bound route over what an archive has of its table.
    pub fn new(values: Arc<dyn Values>, copy: Arc<TableCopy>, bound: Arc<BoundRoute>) -> Self {
        Self { values, copy, bound, batch_bytes: AtomicUsize::new(BATCH_BYTES) }
    }
}

#[async_trait]
impl Source for ArchivedSource {
    fn relations(&self) -> String {
        self.copy.identity.clone()
    }

    /// Every attempt reads the same generations, so nothing ever changes in between.
    fn no_catch_up(&self) -> Option<&'static str> {
        None
    }

    async fn estimate(&self) -> Result<Option<Estimate>> {
        let (rows, bytes_read) = (Some(self.copy.rows()), Some(self.copy.bytes()));
        Ok(Some(Estimate { rows, bytes_read, bytes_billed: 0 }))
    }

    fn size_batches(&self, bytes: usize) {
        self.batch_bytes.store(bytes.max(1), Ordering::Relaxed);
    }

    fn held_bytes(&self) -> u64 {
        HELD_BYTES
    }

    async fn partitions(&self, wanted: usize, first: usize) -> Result<Vec<Partition>> {
        Ok(partitions(&self.copy, &self.bound.route.name, wanted, first))
    }

    fn catch_up(&self, _since_xid: u64, _first: usize) -> Vec<Partition> {
        Vec::new()
    }

    async fn open(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(ArchivedSession {
            values: Arc::clone(&self.values),
            copy: Arc::clone(&self.copy),
            bound: Arc::clone(&self.bound),
            batch_bytes: self.batch_bytes.load(Ordering::Relaxed),
            snapshot: self.copy.snapshot(),
        }))
    }
}

/// A read that has not begun.
struct ArchivedSession {
    values: Arc<dyn Values>,
    copy: Arc<TableCopy>,
    bound: Arc<BoundRoute>,
    batch_bytes: usize,
    snapshot: Snapshot,
}

impl Session for ArchivedSession {
    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn read(
        self: Box<Self>,
        partition: &Partition,
        _from: &Position,
        columns: Columns,
    ) -> BatchStream {
        let (sender, receiver) = mpsc::channel(READAHEAD);
        let bounds = partition.bounds.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = self.send(&bounds, columns, &sender).await {
                // A receiver that is gone has stopped asking; nobody is left to tell.
                if sender.send(Err(error)).await.is_err() {
                    tracing::trace!("the lane left before the read failed");
                }
            }
        });
        BatchStream::new(receiver, task)
    }
}

type Sender = mpsc::Sender<Result<RawBatch>>;

impl ArchivedSession {
    async fn send(&self, bounds: &Bounds, columns: Columns, to: &Sender) -> Result<()> {
        let reading = Arc::new(match columns {
            Columns::All => Wanted { schema: self.bound.schema.clone(), never_null: Vec::new() },
            Columns::Key => Wanted {
                schema: self.bound.key_only().schema,
                never_null: self.bound.never_null().into_iter().map(str::to_owned).collect(),
            },
        });
        for (part, files) in self.files(bounds)? {
            self.send_part(part, files, &reading, to).await?;
        }
        Ok(())
    }

    /// The files that bounds name.
    fn files(&self, bounds: &Bounds) -> Result<Vec<(&CopiedPart, Range<usize>)>> {
        let (table_partition, generation, files) = match bounds {
            Bounds::Whole => {
                let all = self.copy.parts.iter().map(|part| (part, 0..part.version.blocks.len()));
                return Ok(all.collect());
            }
            Bounds::Files { table_partition, generation, from, to } => {
                (table_partition, generation, *from as usize..*to as usize)
            }
            other => {
                let message = format!("an archive has no rows of {other:?}");
                return Err(Error::new(Kind::Internal, message));
            }
        };
        let is_meant = |part: &&CopiedPart| {
            part.table_partition == *table_partition
                && part.version.generation == *generation
                && files.end <= part.version.blocks.len()
        };
        match self.copy.parts.iter().find(is_meant) {
            Some(part) => Ok(vec![(part, files)]),
            None => Err(damaged(format!(
                "generation {generation} of table partition {table_partition} of {} is not what the last complete backup names",
                self.copy.table
            ))),
        }
    }

    /// Reads files of one table partition in their order.
    async fn send_part(
        &self,
        part: &CopiedPart,
        files: Range<usize>,
        wanted: &Arc<Wanted>,
        to: &Sender,
    ) -> Result<()> {
        let is_whole = files == (0..part.version.blocks.len());
        let mut digest = Digest::default();
        for place in files {
            let file = self.file(part, place).await?;
            let (of_file, messages) = self.decode(file, wanted).await?;
            digest += of_file;
            for (bytes, rows) in messages {
                if to.send(Ok(RawBatch::new(bytes, rows, false))).await.is_err() {
                    return Err(Error::new(Kind::Cancelled, "the lane stopped reading"));
                }
            }
        }
        if is_whole && part.version.digest().is_some_and(|recorded| recorded != digest) {
            return Err(damaged(format!(
                "rows of table partition {} of {} have another digest than its manifest says",
                part.table_partition, self.copy.table
            )));
        }
        Ok(())
    }

    /// Reads a file as it is stored.
    async fn file(&self, part: &CopiedPart, place: usize) -> Result<(Bytes, Expected)> {
        let ordinal = u32::try_from(place).unwrap_or(u32::MAX);
        let (table_partition, generation) = (&part.table_partition, part.version.generation);
        let key = self.copy.keys.block(table_partition, generation, ordinal);
        let Some(value) = self.values.get(&key).await? else {
            return Err(damaged(format!("block {key} is missing in {}", self.values.place())));
        };
        let expected = Expected {
            key,
            table_partition: table_partition.clone(),
            generation,
            ordinal,
            key_id: part.version.key_id.clone(),
            entry: part.version.blocks[place].clone(),
        };
        Ok((value, expected))
    }

    /// Proves a file and makes messages of its rows, on a thread that may block.
    async fn decode(
        &self,
        (value, expected): (Bytes, Expected),
        wanted: &Arc<Wanted>,
    ) -> Result<(Digest, Vec<(Bytes, usize)>)> {
        let (form, wanted) = (self.values.form().clone(), Arc::clone(wanted));
        let (place, batch_bytes) = (self.values.place(), self.batch_bytes);
        let work = move || -> Result<(Digest, Vec<(Bytes, usize)>)> {
            let (rows, digest) =
                form.decode(&value, &expected).map_err(|error| match error.kind() {
                    Kind::Difference => {
                        let key = &expected.key;
                        damaged(format!("block {key} is altered in {place}: {error}"))
                    }
                    _ => error,
                })?;
            Ok((digest, messages(&rows, &wanted, batch_bytes)?))
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            Error::new(Kind::Internal, "decoding a file of the archive panicked").with_source(error)
        })?
    }
}

/// What a read returns of every row, and of which rows.
struct Wanted {
    schema: TableSchema,
    /// Columns that are null in no row that is returned.
    never_null: Vec<String>,
}

/// Returns the error of something missing or altered.
pub(crate) fn damaged(message: String) -> Error {
    Error::new(Kind::Difference, message).with_hint(HINT)
}
