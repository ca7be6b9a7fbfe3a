//! The file of a spool: written once, checked, read in ranges. Its format is described in `spool`.
//!
//! Invariant: it gets its name only when it is durable, and a record is believed only after the whole file was checked.

use crate::ledger::{io_error, make_folder};
use serde::{Deserialize, Serialize};
use stages::extract::redis_rows::{EntryId, StreamState};
use stages::{Error, Kind, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const MAGIC: &[u8; 8] = b"rekindle";
const END: &[u8; 8] = b"spoolend";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;
const TAIL_BYTES: u64 = 24;
const STREAM_BYTES: u64 = 40;
/// Longest key that Redis takes.
const KEY_BYTES_MAX: u32 = 512 << 20;

/// Bytes of a file with so many records.
pub(super) fn bytes_of(records: u64, key_bytes: u64, is_streams: bool) -> u64 {
    let record = 4 + if is_streams { STREAM_BYTES } else { 0 };
    HEAD_BYTES as u64 + records * record + key_bytes + TAIL_BYTES
}

/// What is journaled of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Length of the file.
    pub bytes: u64,
    /// XXH3-64 of what comes before it in the file, 16 hex digits.
    pub xxh3: String,
    /// Keys.
    pub records: u64,
    /// Bytes of the keys.
    pub key_bytes: u64,
    /// Entries of all streams; 0 for keys.
    pub entries: u64,
}

/// One key, and what it held where it is a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Vec<u8>,
    /// What the stream held when it was looked at.
    pub stream: Option<StreamState>,
}

/// Writes a file.
pub(crate) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    part: PathBuf,
    hash: Xxh3,
    facts: Facts,
}

impl Writer {
    /// Begins a file beside its name.
    pub(crate) fn new(path: &Path, is_streams: bool) -> Result<Self> {
        make_folder(path.parent().unwrap_or(Path::new(".")))?;
        let part = path.with_extension("part");
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let file = file.map_err(|error| io_error("create", &part, error))?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 20, file),
            path: path.to_owned(),
            part,
            hash: Xxh3::new(),
            facts: Facts::default(),
        };
        writer.put(MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        writer.put(&u32::from(is_streams).to_le_bytes())?;
        Ok(writer)
    }

    /// Adds a record; keys ascend.
    pub(crate) fn push(&mut self, key: &[u8], stream: Option<StreamState>) -> Result<()> {
        self.put(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        self.put(key)?;
        if let Some(StreamState { entries, first, last }) = stream {
            for number in [first.ms, first.seq, last.ms, last.seq, entries] {
                self.put(&number.to_le_bytes())?;
            }
            self.facts.entries += entries;
        }
        self.facts.records += 1;
        self.facts.key_bytes += key.len() as u64;
        Ok(())
    }

    /// Makes the file durable and gives it its name.
    pub(crate) fn finish(mut self) -> Result<Facts> {
        let records = self.facts.records;
        self.put(END)?;
        self.put(&records.to_le_bytes())?;
        let hash = self.hash.digest();
        self.put(&hash.to_le_bytes())?;
        self.facts.xxh3 = format!("{hash:016x}");
        let failed = |error| io_error("write", &self.part, error);
        self.file.flush().map_err(failed)?;
        self.file.get_ref().sync_all().map_err(failed)?;
        fs::rename(&self.part, &self.path).map_err(|error| io_error("name", &self.path, error))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| io_error("write", folder, error))?;
        Ok(self.facts)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.facts.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| io_error("write", &self.part, error))
    }
}

/// Checks a whole file against what was journaled of it; returns why it cannot be used, if it cannot.
pub fn check(path: &Path, facts: &Facts) -> Result<Option<String>> {
    match fs::metadata(path) {
        Ok(found) if found.len() == facts.bytes && facts.bytes >= TAIL_BYTES => {}
        Ok(found) => {
            return Ok(Some(format!("it has {} bytes and not {}", found.len(), facts.bytes)));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some("it is gone".to_owned()));
        }
        Err(error) => return Err(io_error("read", path, error)),
    }
    let failed = |error| io_error("read", path, error);
    let mut file = File::open(path).map_err(failed)?.take(facts.bytes.saturating_sub(8));
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let mut stored = [0; 8];
    file.into_inner().read_exact(&mut stored).map_err(failed)?;
    let found = hash.digest();
    let is_same = u64::from_le_bytes(stored) == found && facts.xxh3 == format!("{found:016x}");
    Ok((!is_same).then(|| "it is altered".to_owned()))
}

/// Reads records from a place on.
pub(crate) struct Records {
    file: BufReader<File>,
    path: PathBuf,
    is_streams: bool,
    left: u64,
    offset: u64,
}

impl Records {
    /// Opens a file at the first record.
    pub(crate) fn open(path: &Path, records: u64) -> Result<Self> {
        Self::open_at(path, HEAD_BYTES as u64, records)
    }

    /// Opens a file at a record, to read so many.
    pub(crate) fn open_at(path: &Path, offset: u64, records: u64) -> Result<Self> {
        let failed = |error| io_error("read", path, error);
        let mut file = BufReader::with_capacity(64 << 10, File::open(path).map_err(failed)?);
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head).map_err(failed)?;
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if head[..8] != *MAGIC || number(8) != VERSION {
            return Err(altered(path, "its head is that of no spool of this version"));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let is_streams = number(12) == 1;
        Ok(Self { file, path: path.to_owned(), is_streams, left: records, offset })
    }

    /// Where the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the next record; `None` behind the last one asked for.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let length = u32::from_le_bytes(self.take()?);
        if length > KEY_BYTES_MAX {
            return Err(altered(&self.path, "a key is longer than redis takes"));
        }
        let mut key = vec![0; length as usize];
        self.fill(&mut key)?;
        let stream = if self.is_streams {
            let mut number = || Ok::<_, Error>(u64::from_le_bytes(self.take()?));
            let first = EntryId { ms: number()?, seq: number()? };
            let last = EntryId { ms: number()?, seq: number()? };
            Some(StreamState { entries: number()?, first, last })
        } else {
            None
        };
        Ok(Some(Record { key, stream }))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact(bytes).map_err(|error| io_error("read", &self.path, error))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn altered(path: &Path, what: &str) -> Error {
    Error::new(Kind::Internal, format!("spool {} is altered: {what}", path.display()))
        .with_hint("start over: rekindle restore bigquery --fresh")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_every_altered_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.keys");
        let state = |entries| StreamState {
            entries,
            first: EntryId { ms: 1, seq: 2 },
            last: EntryId { ms: 3, seq: 4 },
        };
        for is_streams in [false, true] {
            let mut writer = Writer::new(&path, is_streams).unwrap();
            let record = |key: &str, entries| Record {
                key: key.into(),
                stream: is_streams.then(|| state(entries)),
            };
            let records = [record("", 1), record("a", 7), record("b:\u{0}", 9)];
            for Record { key, stream } in &records {
                writer.push(key, *stream).unwrap();
            }
            let facts = writer.finish().unwrap();
            assert_eq!(facts.bytes, fs::metadata(&path).unwrap().len());
            assert_eq!(facts.bytes, bytes_of(facts.records, facts.key_bytes, is_streams));
            assert_eq!((facts.records, facts.entries), (3, if is_streams { 17 } else { 0 }));
            assert_eq!(check(&path, &facts).unwrap(), None);
            let mut found = Records::open(&path, facts.records).unwrap();
            assert_eq!(found.next().unwrap().as_ref(), Some(&records[0]));
            let mut rest = Records::open_at(&path, found.offset(), 2).unwrap();
            assert_eq!(rest.next().unwrap().as_ref(), Some(&records[1]));
            assert_eq!(rest.next().unwrap().as_ref(), Some(&records[2]));
            assert_eq!(rest.next().unwrap(), None);
            let stored = fs::read(&path).unwrap();
            for at in 0..stored.len() {
                let mut changed = stored.clone();
                changed[at] ^= 1;
                fs::write(&path, changed).unwrap();
                assert!(check(&path, &facts).unwrap().is_some(), "byte {at} went unnoticed");
            }
            fs::write(&path, &stored[1..]).unwrap();
            assert!(check(&path, &facts).unwrap().is_some());
            fs::remove_file(&path).unwrap();
            assert_eq!(check(&path, &facts).unwrap().as_deref(), Some("it is gone"));
        }
    }
}
