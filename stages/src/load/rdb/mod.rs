//! RDB files as a target: one file per node, made under a hidden name in the folder that was asked for.
//!
//! Invariant: a name that somebody else may read holds a whole file or nothing; what a batch is acknowledged for is in the
//! file and in the list of its extents, so a killed process loses nothing that was committed.

mod extents;
mod finish;
mod folder;
mod header;

pub use extents::Extent;
pub use finish::Finished;

use crate::batch::Encoded;
use crate::error::{Error, Kind, Result};
use crate::extract::redis_entries::Stored;
use crate::failpoint::{Point, pass};
use crate::load::{
    Difference, Footprint, Numbered, Pressure, Sampled, Sentinel, Sink, Standing, TargetState,
    Versioned, Written,
};
use async_trait::async_trait;
use bytes::Bytes;
use folder::RunFolder;
use schemas::{BoundRoute, PartitionId, SlotCut};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the target says it is, where a server would tell its process.
const PROCESS: &str = "rdb files";

/// Where the files of a run are to be.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder that was asked for.
    pub folder: PathBuf,
    /// Which file a key belongs to.
    pub cut: Arc<SlotCut>,
    /// The database that the keys are loaded into.
    pub database: u32,
}

impl Place {
    /// The names of the files, in the order of the nodes: the one that a server looks for by itself, or one per range of
    /// slots.
    pub fn names(&self) -> Vec<String> {
        let ranges = self.cut.ranges();
        if ranges.len() == 1 {
            return vec!["dump.rdb".to_owned()];
        }
        let name =
            |range: &schemas::SlotRange| format!("slots-{:05}-{:05}.rdb", range.first, range.last);
        ranges.iter().map(name).collect()
    }

    /// The paths of the finished files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.names().iter().map(|name| self.folder.join(name)).collect()
    }
}

/// Sink for RDB files.
pub struct RdbSink {
    place: Place,
    address: String,
    open: Mutex<Option<Arc<RunFolder>>>,
    /// Whether what is there of this run was found to lack what was committed.
    is_void: Mutex<bool>,
}

impl RdbSink {
    /// Makes a sink; nothing is created yet.
    pub fn new(place: Place) -> Self {
        let address = format!("the rdb files in {}", place.folder.display());
        Self { place, address, open: Mutex::default(), is_void: Mutex::default() }
    }

    /// Where the files are to be.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Fails where a file that somebody else made has one of the names.
    pub fn refuse_existing(&self) -> Result<()> {
        for path in self.place.paths() {
            if folder::is_foreign(&path, &self.place.folder)? {
                let message = format!("{} exists, and is not overwritten", path.display());
                return Err(Error::new(Kind::Config, message).with_hint(
                    "move it away, name another folder with --to-rdb, or overwrite it by name: --replace-rdb",
                ));
            }
        }
        Ok(())
    }

    /// Makes whole files of what these partitions wrote, under hidden names; blocks.
    ///
    /// `started_ms` (since 1970) is the time that the files are said to be of. Asked again, it makes the same files.
    pub fn finish(&self, partitions: &[PartitionId], started_ms: i64) -> Result<Vec<Finished>> {
        self.run_folder()?.finish(partitions, started_ms)
    }

    /// Puts finished files on disk; blocks, and may do so beside whoever reads them.
    pub fn sync(&self) -> Result<()> {
        self.run_folder()?.sync()
    }

    /// Gives finished files, which are on disk, their names; blocks. Fails where a name is taken, unless `replace` says otherwise.
    pub fn publish(&self, replace: bool) -> Result<()> {
        self.run_folder()?.publish(replace)
    }

    /// What a partition wrote, batch by batch in order; of each batch at most one extent per file.
    pub fn batches(&self, partition: &PartitionId) -> Result<Vec<Vec<Extent>>> {
        Ok(self.run_folder()?.list().batches(partition))
    }

    fn run_folder(&self) -> Result<Arc<RunFolder>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| Error::new(Kind::Internal, "the rdb files were not begun"))
    }

    fn hidden(&self, run_id: &str) -> PathBuf {
        folder::hidden(&self.place.folder, run_id)
    }

    fn target_state(&self) -> TargetState {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Place { folder, cut, database } = &self.place;
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let files = cut.ranges().len();
        TargetState {
            process_id: PROCESS.to_owned(),
            history_id: format!(
                "--to-rdb {} --rdb-nodes {files}, database {database}",
                folder.display()
            ),
            version: format!("rdb {}", header::VERSION),
            entries: 0,
            used_bytes: open.as_ref().map_or(0, |open| open.list().bytes()),
            limit_bytes: None,
            eviction: "none".to_owned(),
            evicted: 0,
            refusal: None,
        }
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| {
        Error::new(Kind::Internal, "a write to the rdb files did not end").with_source(error)
    })?
}

/// A failure of the file system under the folder of the files.
fn io_error(operation: &str, path: &Path, error: io::Error) -> Error {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    let hint = if is_full {
        "free space where --to-rdb points, then run the same command again: it resumes"
    } else {
        "check the folder given by --to-rdb, then run the same command again"
    };
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Config,
        _ => Kind::Internal,
    };
    Error::new(kind, format!("cannot {operation} {}", path.display()))
        .with_hint(hint)
        .with_source(error)
}

/// A file answers no questions about keys: what is asked of one is a defect of ours.
fn unasked(what: &str) -> Error {
    Error::new(Kind::Internal, format!("rdb files cannot {what}"))
}

#[async_trait]
impl Sink for RdbSink {
    fn address(&self) -> &str {
        &self.address
    }

    fn is_file(&self) -> bool {
        true
    }

    async fn begin(&self, partition: &PartitionId, entries: u64) -> Result<()> {
        self.run_folder()?.begin(partition, entries)
    }

    async fn has_kept(&self, run_id: &str, committed: &[(PartitionId, u64)]) -> Result<bool> {
        let (place, hidden, committed) =
            (self.place.clone(), self.hidden(run_id), committed.to_vec());
        let has_kept = blocking(move || Ok(folder::has_kept(&hidden, &place, &committed))).await?;
        *self.is_void.lock().unwrap_or_else(PoisonError::into_inner) = !has_kept;
        Ok(has_kept)
    }

    async fn write(&self, _lane: usize, _batch: &Encoded) -> Result<Written> {
        Err(unasked("take a batch of no partition"))
    }

    async fn write_of(
        &self,
        _lane: usize,
        partition: &PartitionId,
        batch: &Encoded,
    ) -> Result<Written> {
        let entries: u64 = batch.parts.iter().map(|part| u64::from(part.entries)).sum();
        if entries != batch.carried || !batch.units.is_empty() {
            return Err(unasked("take a batch of commands"));
        }
        if entries == 0 {
            return Ok(Written::default());
        }
        let open = self.run_folder()?;
        // In the order of the calls, whatever the order in which the bytes arrive.
        let reserved = open.list().reserve(partition, &batch.parts)?;
        let payload = batch.payload.clone();
        blocking(move || open.store(reserved, &payload)).await?;
        pass(Point::BatchInFile);
        Ok(Written { written: entries, ..Written::default() })
    }

    async fn state(&self) -> Result<TargetState> {
        Ok(self.target_state())
    }

    async fn pressure(&self) -> Result<Pressure> {
        let TargetState { process_id, eviction, used_bytes, .. } = self.target_state();
        Ok(Pressure { process_id, eviction, used_bytes, fragmentation: 1.0, ..Pressure::default() })
    }

    async fn ping(&self) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    async fn measure(&self, _samples: &[Sampled]) -> Result<Vec<Footprint>> {
        Err(unasked("measure keys"))
    }

    async fn sentinel(&self, run_id: &str) -> Result<Sentinel> {
        let is_there = folder::is_begun(&self.hidden(run_id));
        Ok(if is_there { Sentinel::Ours } else { Sentinel::Missing })
    }

    async fn meet(&self, run_id: &str) -> Result<TargetState> {
        if self.sentinel(run_id).await? == Sentinel::Ours {
            return Ok(self.target_state());
        }
        let message = format!("{} were removed in mid-run", self.address);
        Err(Error::new(Kind::TargetChanged, message))
    }

    async fn claim(&self, run_id: &str, _note: &str) -> Result<Sentinel> {
        let (place, run_id) = (self.place.clone(), run_id.to_owned());
        let is_void = *self.is_void.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = self.run_folder().is_ok_and(|open| folder::is_begun(&open.hidden));
        if is_open && !is_void {
            // Opened again it would not know the room of batches that are still on their way.
            return Ok(Sentinel::Ours);
        }
        let open = blocking(move || RunFolder::open(place, &run_id, is_void)).await?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(open));
        *self.is_void.lock().unwrap_or_else(PoisonError::into_inner) = false;
        Ok(Sentinel::Ours)
    }

    async fn annotate(&self, _run_id: &str, _note: &str) -> Result<()> {
        Ok(())
    }

    async fn release(&self, run_id: &str) -> Result<()> {
        let hidden = self.hidden(run_id);
        blocking(move || folder::remove(&hidden)).await?;
        pass(Point::FilesReleased);
        Ok(())
    }

    async fn count_existing(&self, _keys: &[Bytes]) -> Result<u64> {
        Err(unasked("count keys"))
    }

    async fn compare(
        &self,
        _route: &BoundRoute,
        _expected: &[(Bytes, u64, i64)],
    ) -> Result<Vec<(usize, Difference)>> {
        Err(unasked("compare keys"))
    }

    async fn stored(&self, _route: &BoundRoute, _keys: &[&[u8]]) -> Result<Vec<(Stored, i64)>> {
        Err(unasked("read keys"))
    }

    async fn standing(&self, _route: &BoundRoute, _entries: &[Versioned]) -> Result<Vec<Standing>> {
        Err(unasked("compare versions"))
    }

    async fn remove_unless_newer(
        &self,
        _route: &BoundRoute,
        _entries: &[Versioned],
    ) -> Result<Vec<usize>> {
        Err(unasked("remove keys"))
    }

    async fn numbered(&self, _route: &BoundRoute) -> Result<Numbered> {
        Ok(Numbered::default())
    }

    async fn unlink(&self, _keys: &[Bytes]) -> Result<u64> {
        Err(unasked("remove keys"))
    }

    async fn remove(&self, _keys: &[Bytes]) -> Result<u64> {
        Err(unasked("remove keys"))
    }

    async fn json_module(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn way_note(&self) -> Option<String> {
        None
    }

    fn has_changed(&self) -> bool {
        false
    }
}
