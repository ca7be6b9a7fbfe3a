//! The hidden folder of one run: its files, and the list of what is in them.
//!
//! Invariant: what is there survives the process, not the machine: after a loss of power everything that was committed is
//! summed up again before it is believed. Files are replaced together with their list, by one rename.

use super::extents::{Extents, Line, Reserved};
use super::header::Header;
use super::{Place, io_error};
use crate::crc64::checksum;
use crate::error::{Error, Kind, Result};
use schemas::PartitionId;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PREFIX: &str = ".rekindle-";
const LIST: &str = "extents";
const BOOT: &str = "boot";

/// The first line of a list: which of the files it is about.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) generation: u64,
}

/// The files of one run, open.
pub(super) struct RunFolder {
    pub(super) place: Place,
    pub(super) run_id: String,
    pub(super) hidden: PathBuf,
    pub(super) current: Mutex<Current>,
    list: Mutex<Extents>,
    pub(super) flushing: Flushing,
}

/// Bytes after which a file is put on disk beside the writing: what is left for the end is then little.
const FLUSH_EVERY: u64 = 32 << 20;

/// What was written since a flush began, whether one is at work, and whether one failed.
#[derive(Debug, Default)]
pub(super) struct Flushing {
    written: AtomicU64,
    is_busy: Arc<AtomicBool>,
    has_failed: Arc<AtomicBool>,
}

impl Flushing {
    /// Begins a flush where it is time for one.
    fn note(&self, bytes: u64, file: &Arc<File>) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written < FLUSH_EVERY || self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        self.written.store(0, Ordering::Relaxed);
        let (file, is_busy) = (Arc::clone(file), Arc::clone(&self.is_busy));
        let has_failed = Arc::clone(&self.has_failed);
        let spawned = std::thread::Builder::new().name("flush".into()).spawn(move || {
            // The kernel tells of a write that failed once only: the end has to hear of it too.
            has_failed.fetch_or(file.sync_data().is_err(), Ordering::AcqRel);
            is_busy.store(false, Ordering::Release);
        });
        if spawned.is_err() {
            // Then all of it is left for the end.
            self.is_busy.store(false, Ordering::Release);
        }
    }

    /// Whether bytes that were written may not have reached the disk.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }
}

/// The files that are written to, and their list.
pub(super) struct Current {
    pub(super) generation: u64,
    pub(super) files: Vec<Arc<File>>,
    pub(super) log: Arc<File>,
}

impl RunFolder {
    /// Opens the files of a run, making them where they are missing, or all anew where what is there is `void`.
    pub(super) fn open(place: Place, run_id: &str, is_void: bool) -> Result<Self> {
        let hidden = hidden(&place.folder, run_id);
        if is_void {
            remove(&hidden)?;
        }
        fs::create_dir_all(&place.folder)
            .map_err(|error| io_error("create", &place.folder, error))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&hidden)
            .map_err(|error| io_error("create", &hidden, error))?;
        let path = hidden.join(LIST);
        let read = read_list(&path, &place, run_id)
            .ok_or_else(|| damaged(&path, "a line of it cannot be read"))?;
        let log = open_file(&path)?;
        log.set_len(read.bytes).map_err(|error| io_error("truncate", &path, error))?;
        let files = open_files(&hidden, &place, read.generation)?;
        let current = Current { generation: read.generation, files, log: Arc::new(log) };
        let folder = Self {
            run_id: run_id.to_owned(),
            current: Mutex::new(current),
            list: Mutex::new(read.extents),
            flushing: Flushing::default(),
            hidden,
            place,
        };
        if read.bytes == 0 {
            folder.append(&Head { generation: 0 })?;
        }
        folder.unpublish()?;
        let boot = folder.hidden.join(BOOT);
        fs::write(&boot, boot_id()).map_err(|error| io_error("write", &boot, error))?;
        Ok(folder)
    }

    /// What the partitions wrote.
    pub(super) fn list(&self) -> MutexGuard<'_, Extents> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt at a partition behind its committed entries.
    pub(super) fn begin(&self, partition: &PartitionId, entries: u64) -> Result<()> {
        let mut list = self.list();
        let line = list.begin(partition, entries)?;
        // Still under the lock: no batch of the attempt may come before it.
        self.append(&line)
    }

    /// Puts a batch into its room, then into the list.
    pub(super) fn store(&self, reserved: Reserved, payload: &[u8]) -> Result<()> {
        let mut rest = payload;
        for extent in &reserved.extents {
            let node = usize::from(extent.part.node);
            let taken = usize::try_from(extent.part.bytes).ok();
            let Some((bytes, behind)) = taken.and_then(|bytes| rest.split_at_checked(bytes)) else {
                return Err(Error::new(Kind::Internal, "a batch is shorter than its parts"));
            };
            let file = {
                let current = self.current();
                current.files.get(node).map(Arc::clone)
            };
            let file = file.ok_or_else(|| {
                Error::new(Kind::Internal, "a batch is for a file that is not there")
            })?;
            file.write_all_at(bytes, extent.offset).map_err(|error| {
                io_error("write", &self.file_path(node, self.current().generation), error)
            })?;
            self.flushing.note(extent.part.bytes, &file);
            rest = behind;
        }
        self.append(&reserved.line())?;
        self.list().add(reserved);
        Ok(())
    }

    fn append(&self, line: &impl Serialize) -> Result<()> {
        let text = to_line(line)?;
        let log = Arc::clone(&self.current().log);
        // One write, so that lines do not mix and only the last one can be torn.
        (&*log).write_all(&text).map_err(|error| io_error("write", &self.hidden.join(LIST), error))
    }

    /// Where a file of a generation is.
    pub(super) fn file_path(&self, node: usize, generation: u64) -> PathBuf {
        file_path(&self.hidden, &self.place, node, generation)
    }

    pub(super) fn list_path(&self) -> PathBuf {
        self.hidden.join(LIST)
    }

    /// Takes another list and other files, which are there already.
    pub(super) fn take(&self, current: Current, extents: Extents) {
        *self.current() = current;
        *self.list() = extents;
    }

    /// Takes back the names of files that a run gave before it could be called done: what is still to be written must not
    /// be written into a file that somebody reads.
    fn unpublish(&self) -> Result<()> {
        let generation = self.current().generation;
        for (node, path) in self.place.paths().iter().enumerate() {
            if is_same_file(path, &self.file_path(node, generation)) {
                fs::remove_file(path).map_err(|error| io_error("remove", path, error))?;
            }
        }
        Ok(())
    }
}

/// The folder of a run in a folder that was asked for.
pub(super) fn hidden(folder: &Path, run_id: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{run_id}"))
}

/// Whether a run has begun there.
pub(super) fn is_begun(hidden: &Path) -> bool {
    hidden.join(LIST).exists()
}

/// Removes a run's folder.
pub(super) fn remove(hidden: &Path) -> Result<()> {
    match fs::remove_dir_all(hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", hidden, error))
        }
        _ => Ok(()),
    }
}

/// Whether a path is taken, and not by a file that an unfinished run gave its name.
pub(super) fn is_foreign(path: &Path, folder: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("look at", path, error)),
        Ok(_) => {}
    }
    let runs = fs::read_dir(folder).map_err(|error| io_error("read", folder, error))?;
    let runs = runs
        .filter_map(io::Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let files = runs.filter_map(|run| fs::read_dir(run.path()).ok()).flatten();
    Ok(!files.filter_map(io::Result::ok).any(|file| is_same_file(path, &file.path())))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::symlink_metadata(path).ok().map(|facts| (facts.dev(), facts.ino()));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Whether the files of a run hold, of each of these partitions, exactly so many entries that were committed; after a
/// restart of the machine, whether their bytes are those that were written.
pub(super) fn has_kept(hidden: &Path, place: &Place, committed: &[(PartitionId, u64)]) -> bool {
    let run_id = hidden.file_name().unwrap_or_default().to_string_lossy();
    let run_id = run_id.trim_start_matches(PREFIX);
    let Some(read) = read_list(&hidden.join(LIST), place, run_id) else { return false };
    let told = fs::read_to_string(hidden.join(BOOT)).unwrap_or_default();
    let is_same_boot = !told.is_empty() && told == boot_id();
    let files = 0..place.cut.ranges().len();
    let files: Vec<Option<File>> = files
        .map(|node| File::open(file_path(hidden, place, node, read.generation)).ok())
        .collect();
    let mut buffer = Vec::new();
    committed.iter().all(|(partition, entries)| {
        let Some(extents) = read.extents.holds(partition, *entries) else { return false };
        extents.iter().all(|extent| {
            let Some(Some(file)) = files.get(usize::from(extent.part.node)) else { return false };
            let end = extent.offset + extent.part.bytes;
            if file.metadata().map_or(true, |facts| facts.len() < end) {
                return false;
            }
            if is_same_boot {
                return true;
            }
            buffer.resize(usize::try_from(extent.part.bytes).unwrap_or(0), 0);
            let is_read = file.read_exact_at(&mut buffer, extent.offset).is_ok();
            is_read && checksum(&buffer) == extent.part.crc
        })
    })
}

/// A list as it was read.
struct ReadList {
    generation: u64,
    extents: Extents,
    /// Bytes of its whole lines.
    bytes: u64,
}

/// Reads a list; a torn last line is left out, and one that is not there is empty. `None` where it is damaged.
fn read_list(path: &Path, place: &Place, run_id: &str) -> Option<ReadList> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(_) => return None,
    };
    let header = Header { run_id, created_s: 0, database: place.database, keys: 0, expiring: 0 };
    let mut extents = Extents::new(place.cut.ranges().len(), header.bytes().len() as u64);
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = text[..whole].split_inclusive(|byte| *byte == b'\n');
    let generation = match lines.next() {
        Some(head) => serde_json::from_slice::<Head>(head).ok()?.generation,
        None => 0,
    };
    for line in lines {
        extents.replay(&serde_json::from_slice::<Line>(line).ok()?)?;
    }
    Some(ReadList { generation, extents, bytes: whole as u64 })
}

pub(super) fn to_line(line: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)
        .map_err(|error| Error::new(Kind::Internal, "cannot list a batch").with_source(error))?;
    text.push(b'\n');
    Ok(text)
}

fn file_path(hidden: &Path, place: &Place, node: usize, generation: u64) -> PathBuf {
    let name = place.names().into_iter().nth(node).unwrap_or_default();
    hidden.join(format!("{name}.{generation}"))
}

/// Opens the files of a generation, making those that are missing, and removes those of others.
pub(super) fn open_files(hidden: &Path, place: &Place, generation: u64) -> Result<Vec<Arc<File>>> {
    let names = place.names();
    let paths: Vec<PathBuf> =
        names.iter().map(|name| hidden.join(format!("{name}.{generation}"))).collect();
    let entries = fs::read_dir(hidden).map_err(|error| io_error("read", hidden, error))?;
    for path in entries.filter_map(io::Result::ok).map(|entry| entry.path()) {
        let is_list = path.ends_with(LIST) || path.ends_with(BOOT);
        if !is_list && !paths.contains(&path) {
            fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
        }
    }
    let open = |path: &PathBuf| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map(Arc::new).map_err(|error| io_error("open", path, error))
    };
    paths.iter().map(open).collect()
}

/// Opens a list for appending.
pub(super) fn open_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.open(path).map_err(|error| io_error("open", path, error))
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::new(Kind::Internal, format!("{} is damaged: {what}", path.display()))
        .with_hint("rekindle rebuild redis --to-rdb DIR --fresh")
}

/// What changes with every start of the machine; nothing where the system does not tell, and then nothing is believed.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}
