//! The end of the files: header, end and checksum, without holes, and their names.
//!
//! Invariant: a name is given to a file that is whole and on disk, by a link, which never replaces what has the name.

use super::extents::{Extent, Extents};
use super::folder::{Current, Head, RunFolder, open_file, open_files, to_line};
use super::header::{self, Header};
use super::io_error;
use crate::crc64::{checksum, joined};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{Point, pass};
use schemas::{PartitionId, SlotRange};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A whole file.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Where it will be.
    pub path: PathBuf,
    /// Where it is until then.
    pub hidden: PathBuf,
    /// Which slots its keys have.
    pub slots: SlotRange,
    /// Its length.
    pub bytes: u64,
    /// Bytes in front of the first entry.
    pub header_bytes: u64,
    /// Its keys, and those of them that expire.
    pub keys: u64,
    /// Keys that expire.
    pub expiring: u64,
    /// The CRC-64 at its end.
    pub crc: u64,
}

impl RunFolder {
    /// Makes every file whole.
    pub(super) fn finish(
        &self,
        partitions: &[PartitionId],
        started_ms: i64,
    ) -> Result<Vec<Finished>> {
        let header_bytes = self.header(0, 0, 0).bytes().len() as u64;
        let mut live = self.live(partitions);
        if live.iter().any(|extents| has_holes(extents, header_bytes)) {
            self.join(partitions, &live, header_bytes)?;
            live = self.live(partitions);
            pass(Point::FilesJoined);
        }
        let (generation, files) = {
            let current = self.current();
            (current.generation, current.files.clone())
        };
        let mut finished = Vec::with_capacity(files.len());
        for (node, (file, extents)) in files.iter().zip(&live).enumerate() {
            let sum = |of: fn(&Extent) -> u64| extents.iter().map(of).sum::<u64>();
            let keys = sum(|extent| extent.part.entries.into());
            let expiring = sum(|extent| extent.part.expiring.into());
            let header = self.header(started_ms / 1000, keys, expiring).bytes();
            let (mut crc, mut at) = (checksum(&header), header_bytes);
            for Extent { part, .. } in extents {
                crc = joined(crc, part.crc, part.bytes);
                at += part.bytes;
            }
            let end = header::end();
            crc = joined(crc, checksum(&end), end.len() as u64);
            let hidden = self.file_path(node, generation);
            let tail = [&end[..], &crc.to_le_bytes()].concat();
            let bytes = at + tail.len() as u64;
            file.write_all_at(&header, 0)
                .and_then(|()| file.set_len(bytes))
                .and_then(|()| file.write_all_at(&tail, at))
                .map_err(|error| io_error("finish", &hidden, error))?;
            let slots = self.place.cut.ranges()[node];
            let path = self.place.paths().swap_remove(node);
            finished.push(Finished {
                path,
                hidden,
                slots,
                bytes,
                header_bytes,
                keys,
                expiring,
                crc,
            });
        }
        pass(Point::FilesFinished);
        Ok(finished)
    }

    /// Puts finished files on disk.
    pub(super) fn sync(&self) -> Result<()> {
        let (generation, files) = {
            let current = self.current();
            (current.generation, current.files.clone())
        };
        for (node, file) in files.iter().enumerate() {
            let path = self.file_path(node, generation);
            file.sync_all().map_err(|error| io_error("sync", &path, error))?;
            if self.flushing.has_failed() {
                return Err(io_error("sync", &path, io::Error::other("an earlier flush failed")));
            }
        }
        sync_folder(&self.hidden)
    }

    fn header(&self, created_s: i64, keys: u64, expiring: u64) -> Header<'_> {
        let database = self.place.database;
        Header { run_id: &self.run_id, created_s, database, keys, expiring }
    }

    /// The extents of these partitions, per file, in its order.
    fn live(&self, partitions: &[PartitionId]) -> Vec<Vec<Extent>> {
        let list = self.list();
        let mut live = vec![Vec::new(); self.place.cut.ranges().len()];
        for extent in partitions.iter().flat_map(|id| list.batches(id)).flatten() {
            live[usize::from(extent.part.node)].push(extent);
        }
        for extents in &mut live {
            extents.sort_unstable_by_key(|extent| extent.offset);
        }
        live
    }

    /// Copies what counts into new files, because attempts that were given up left holes in the old ones.
    fn join(
        &self,
        partitions: &[PartitionId],
        live: &[Vec<Extent>],
        header_bytes: u64,
    ) -> Result<()> {
        let (generation, old) = {
            let current = self.current();
            (current.generation + 1, current.files.clone())
        };
        let mut places: HashMap<(u16, u64), u64> = HashMap::new();
        for (node, (extents, from)) in live.iter().zip(&old).enumerate() {
            let path = self.file_path(node, generation);
            let mut to = create(&path).map_err(|error| io_error("create", &path, error))?;
            let mut at = header_bytes;
            let copied = copy(extents, from, &mut to, header_bytes, |extent| {
                places.insert((extent.part.node, extent.offset), at);
                at += extent.part.bytes;
            });
            copied.and_then(|()| to.sync_all()).map_err(|error| io_error("write", &path, error))?;
        }
        let lines = self.list().moved(partitions, |extent| {
            places.get(&(extent.part.node, extent.offset)).copied().unwrap_or(extent.offset)
        });
        let mut extents = Extents::new(live.len(), header_bytes);
        let mut text = to_line(&Head { generation })?;
        for line in &lines {
            text.extend(to_line(line)?);
            let replayed = extents.replay(line);
            replayed.ok_or_else(|| Error::new(Kind::Internal, "a joined list is not sound"))?;
        }
        let (path, new) = (self.list_path(), self.hidden.join("extents.new"));
        let written = create(&new).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        written.map_err(|error| io_error("write", &new, error))?;
        fs::rename(&new, &path).map_err(|error| io_error("replace", &path, error))?;
        sync_folder(&self.hidden)?;
        // From here on the new files are the ones that count; the old ones go.
        let files = open_files(&self.hidden, &self.place, generation)?;
        let log = Arc::new(open_file(&path)?);
        self.take(Current { generation, files, log }, extents);
        Ok(())
    }

    /// Gives the files their names.
    pub(super) fn publish(&self, replace: bool) -> Result<()> {
        let generation = self.current().generation;
        for (node, path) in self.place.paths().iter().enumerate() {
            let hidden = self.file_path(node, generation);
            if replace {
                // A second name in the same folder, which then takes the place of whatever has the first.
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let beside = self.place.folder.join(format!(".{name}.{}", self.run_id));
                remove_if_there(&beside)?;
                fs::hard_link(&hidden, &beside).map_err(|error| linked(&beside, error))?;
                fs::rename(&beside, path).map_err(|error| io_error("replace", path, error))?;
                // Renaming one name of a file to another of its own does nothing.
                remove_if_there(&beside)?;
            } else {
                fs::hard_link(&hidden, path).map_err(|error| linked(path, error))?;
            }
        }
        sync_folder(&self.place.folder)?;
        pass(Point::FilesPublished);
        Ok(())
    }
}

/// Whether extents do not stand behind each other from the header on.
fn has_holes(extents: &[Extent], header_bytes: u64) -> bool {
    let mut at = header_bytes;
    extents.iter().any(|extent| {
        let is_apart = extent.offset != at;
        at = extent.offset + extent.part.bytes;
        is_apart
    })
}

/// Copies extents behind each other; those that stand together already go in one piece.
fn copy(
    extents: &[Extent],
    from: &File,
    to: &mut File,
    header_bytes: u64,
    mut copied: impl FnMut(&Extent),
) -> io::Result<()> {
    to.seek(SeekFrom::Start(header_bytes))?;
    let mut rest = extents;
    while let Some(first) = rest.first() {
        let mut end = first.offset;
        let together = rest.iter().take_while(|extent| {
            let is_next = extent.offset == end;
            end += if is_next { extent.part.bytes } else { 0 };
            is_next
        });
        let (piece, behind) = rest.split_at(together.count());
        piece.iter().for_each(&mut copied);
        let mut source = from;
        source.seek(SeekFrom::Start(first.offset))?;
        let length = end - first.offset;
        if io::copy(&mut source.take(length), to)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest = behind;
    }
    Ok(())
}

/// Makes a file that its owner alone may read.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn linked(path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        let message = format!("{} exists, and is not overwritten", path.display());
        return Error::new(Kind::Config, message).with_hint(
            "move it away, then run the same command again: it resumes; or overwrite it by name: --replace-rdb",
        );
    }
    io_error("link", path, error)
}

/// Makes the names in a folder durable.
fn sync_folder(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| io_error("sync", path, error))
}
