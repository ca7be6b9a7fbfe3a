//! The ledger: every key a run may have written, with the hash of its value and its expiry.
//!
//! One file per partition under `<state>/runs/<run>/ledger`, appended before a batch is sent. It answers
//! without the source or a SCAN what the run has written: which keys to read back, and which to remove when
//! their rows are gone after a resume.
//!
//! Invariant: a key is in the ledger before it can be in the target. A torn last frame was never sent and is
//! cut off; any other damage is an error.

mod doubt;
mod frame;
#[cfg(test)]
mod fuzzed;
mod refused;

pub use doubt::Doubt;
pub use frame::{Frame, FrameReader, encode_frame};

use bytes::Bytes;
use schemas::PartitionId;
use stages::failpoint::{Point, pass};
use stages::{Error, Kind, Result};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The ledger files of one run.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    open: Mutex<HashMap<PartitionId, Arc<File>>>,
}

impl Ledger {
    /// Opens the folder of a run, making it with mode 0700 when it is missing.
    pub fn open(state: &Path, run_id: &str) -> Result<Self> {
        let folder = state.join("runs").join(run_id).join("ledger");
        make_folder(&folder)?;
        Ok(Self { folder, open: Mutex::default() })
    }

    /// Path of a partition's file.
    pub fn path(&self, partition: &PartitionId) -> PathBuf {
        // Route names are limited to letters, digits, '_', '.' and '-', so '/' only separates the ordinal.
        self.folder.join(format!("{}.ledger", partition.0.replace('/', "@")))
    }

    /// Opens a partition's file for appending, cuts off a torn last frame, and returns its length.
    ///
    /// `committed` is what the journal knows; a shorter file has lost what was promised to be durable. What stands behind it
    /// was listed by an attempt that may not have come to send it.
    pub fn begin(&self, partition: &PartitionId, committed: u64) -> Result<u64> {
        let whole = self.open_whole(partition, committed)?;
        doubt::note(&self.path(partition), &(committed..whole))?;
        Ok(whole)
    }

    fn open_whole(&self, partition: &PartitionId, committed: u64) -> Result<u64> {
        let path = self.path(partition);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| io_error("open", &path, error))?;
        let whole = frame::whole_length(&path)?;
        if whole < committed {
            return Err(damaged(
                &path,
                &format!("{whole} bytes are whole, {committed} were committed"),
            ));
        }
        file.set_len(whole).map_err(|error| io_error("truncate", &path, error))?;
        self.lock().insert(partition.clone(), Arc::new(file));
        Ok(whole)
    }

    /// Opens a partition's file for appending behind what is committed, and returns how many entries that has: for a target
    /// that takes back what is not.
    pub fn begin_at(&self, partition: &PartitionId, committed: u64) -> Result<u64> {
        self.open_whole(partition, committed)?;
        let path = self.path(partition);
        let file = self.lock().get(partition).map(Arc::clone);
        let truncated = file.map_or(Ok(()), |file| file.set_len(committed));
        truncated.map_err(|error| io_error("truncate", &path, error))?;
        self.entries_within(partition, committed)
    }

    /// Number of entries in so many bytes of a partition's file, which end with a whole batch.
    pub fn entries_within(&self, partition: &PartitionId, bytes: u64) -> Result<u64> {
        if bytes == 0 {
            return Ok(0);
        }
        let path = self.path(partition);
        let (mut reader, mut entries) = (FrameReader::open(&path)?, 0);
        while reader.bytes_read() < bytes {
            let Some(rows) = reader.skip_frame()? else {
                return Err(damaged(&path, "it is shorter than what was committed"));
            };
            entries += rows as u64;
        }
        Ok(entries)
    }

    /// Forgets what a partition may have written.
    pub fn forget(&self, partition: &PartitionId) -> Result<()> {
        let path = self.path(partition);
        remove_if_there(&path)?;
        doubt::forget(&path)
    }

    /// Notes that nothing which a route has written so far need be in the target: it is written again.
    pub fn doubt_route(&self, route: &str) -> Result<()> {
        for path in self.raw_files(route)? {
            doubt::note(&path, &(0..frame::whole_length(&path)?))?;
        }
        Ok(())
    }

    /// Forgets what all partitions of a route may have written.
    pub fn forget_route(&self, route: &str) -> Result<()> {
        self.forget_compacted(route)?;
        for path in self.raw_files(route)? {
            fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
            doubt::forget(&path)?;
        }
        Ok(())
    }

    /// Appends one encoded frame to a begun partition.
    pub fn append(&self, partition: &PartitionId, frame: &[u8]) -> Result<()> {
        let file = self.lock().get(partition).map(Arc::clone).ok_or_else(|| {
            Error::new(Kind::Internal, format!("the ledger of partition {partition} is not open"))
        })?;
        (&*file)
            .write_all(frame)
            .map_err(|error| io_error("write", &self.path(partition), error))?;
        pass(Point::KeysListed);
        Ok(())
    }

    /// Makes the files of these partitions durable.
    pub fn sync(&self, partitions: &[PartitionId]) -> io::Result<()> {
        for partition in partitions {
            let file = self.lock().get(partition).map(Arc::clone);
            if let Some(file) = file {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    /// Closes a partition's file.
    pub fn end(&self, partition: &PartitionId) {
        self.lock().remove(partition);
    }

    /// Files of a route in the order they were cut, or its compacted file alone when there is one.
    pub fn files(&self, route: &str) -> Result<Vec<PathBuf>> {
        let compacted = self.compacted(route);
        if compacted.exists() {
            return Ok(vec![compacted]);
        }
        self.raw_files(route)
    }

    /// Files of a route's partitions in the order they were cut.
    pub fn raw_files(&self, route: &str) -> Result<Vec<PathBuf>> {
        let entries =
            fs::read_dir(&self.folder).map_err(|error| io_error("read", &self.folder, error))?;
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| io_error("read", &self.folder, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ordinal = name
                .strip_suffix(".ledger")
                .and_then(|stem| stem.rsplit_once('@'))
                .filter(|(owner, _)| *owner == route)
                .and_then(|(_, ordinal)| ordinal.parse::<u64>().ok());
            if let Some(ordinal) = ordinal {
                files.push((ordinal, entry.path()));
            }
        }
        files.sort();
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }

    /// Files of all partitions of all routes, in no order.
    pub fn all_files(&self) -> Result<Vec<PathBuf>> {
        let entries =
            fs::read_dir(&self.folder).map_err(|error| io_error("read", &self.folder, error))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| io_error("read", &self.folder, error))?.path();
            if path.extension().is_some_and(|kind| kind == "ledger") {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Number of entries in a route's partition files, keys written again included.
    pub fn entries(&self, route: &str) -> Result<u64> {
        let mut entries = 0;
        for path in self.raw_files(route)? {
            let mut reader = FrameReader::open(&path)?;
            while let Some(rows) = reader.skip_frame()? {
                entries += rows as u64;
            }
        }
        Ok(entries)
    }

    /// Path of the route's compacted ledger: each surviving key once, with what was written last.
    pub fn compacted(&self, route: &str) -> PathBuf {
        self.folder.join(format!("{route}@compacted"))
    }

    /// Forgets a route's compacted ledger, because more is about to be written.
    pub fn forget_compacted(&self, route: &str) -> Result<()> {
        remove_if_there(&self.compacted(route))
    }

    /// Forgets which keys of a route were removed.
    pub fn forget_dropped(&self, route: &str) -> Result<()> {
        remove_if_there(&self.dropped_names(route))
    }

    /// Path of the list of keys removed because their rows are gone.
    pub fn dropped_names(&self, route: &str) -> PathBuf {
        self.folder.with_file_name(format!("dropped-{route}.txt"))
    }

    /// Notes keys of a partition that the target refused, so that they are not read back; forgets those noted before
    /// where `anew` says that the partition begins once more.
    pub fn note_refused<'k>(
        &self,
        partition: &PartitionId,
        keys: impl Iterator<Item = &'k [u8]>,
        anew: bool,
    ) -> Result<()> {
        refused::note(&self.path(partition), keys, anew)
    }

    /// Notes temporary keys before they can be in the target.
    pub fn note_temporary(&self, names: &[Bytes]) -> Result<()> {
        let path = self.temporary_path();
        let failed = |error| io_error("write", &path, error);
        let mut file =
            OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
        let mut text = Vec::new();
        for name in names {
            let length = u32::try_from(name.len()).map_err(|_| {
                Error::new(Kind::Internal, "the name of a temporary key exceeds 4 GiB")
            })?;
            text.extend_from_slice(&length.to_le_bytes());
            text.extend_from_slice(name);
        }
        file.write_all(&text).map_err(failed)?;
        pass(Point::TemporaryNoted);
        Ok(())
    }

    /// The temporary keys noted since they were last forgotten; a torn last one was never sent.
    pub fn temporary(&self) -> Result<Vec<Bytes>> {
        let path = self.temporary_path();
        let text = match fs::read(&path) {
            Ok(text) => Bytes::from(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &path, error)),
        };
        let mut names = Vec::new();
        let mut rest = text;
        while let Some(length) = rest.first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if rest.len() < 4 + length {
                break;
            }
            names.push(rest.slice(4..4 + length));
            rest = rest.slice(4 + length..);
        }
        Ok(names)
    }

    /// Forgets the temporary keys, because none of them is left.
    pub fn forget_temporary(&self) -> Result<()> {
        let path = self.temporary_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn temporary_path(&self) -> PathBuf {
        self.folder.with_file_name("temporary.keys")
    }

    /// Folder for the temporary files of a reconciliation.
    pub fn scratch(&self) -> PathBuf {
        self.folder.with_file_name("spool")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PartitionId, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a folder readable by its owner only.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_error("create", path, error))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// An I/O failure under the state folder.
pub(crate) fn io_error(operation: &str, path: &Path, error: io::Error) -> Error {
    let hint = if error.kind() == io::ErrorKind::StorageFull {
        "free space under --state, then run the same command again: it resumes"
    } else {
        "check the folder given by --state, then run the same command again"
    };
    Error::new(Kind::Internal, format!("cannot {operation} {}", path.display()))
        .with_hint(hint)
        .with_source(error)
}

pub(crate) fn damaged(path: &Path, what: &str) -> Error {
    Error::new(Kind::Internal, format!("ledger {} is damaged: {what}", path.display()))
        .with_hint("rekindle rebuild redis --fresh")
}
