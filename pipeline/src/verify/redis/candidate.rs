//! Keys that differed at a first look, on disk until they are looked at again.
//!
//! Invariant: memory is one buffer per open pile, whatever the number of keys; the files are gone with their pile.

use super::judge::{Expected, Look};
use crate::ledger::{io_error, make_folder};
use schemas::version::Stored as StoredVersion;
use stages::Result;
use stages::extract::redis_entries::Stored;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes in front of each key: the length, what is known, and five numbers.
const HEAD_BYTES: usize = 46;
const HAS_ROW: u8 = 1;
const WAS_ASKED: u8 = 1;
const IS_THERE: u8 = 2;
const HAS_VALUE: u8 = 4;

/// A key that differed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) key: Vec<u8>,
    pub(super) look: Look,
}

/// Keys being collected; the file is made with the first one.
#[derive(Debug)]
pub(super) struct Pile {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    keys: u64,
}

impl Pile {
    /// Makes an empty pile.
    pub(super) fn new(folder: &Path, name: &str) -> Result<Self> {
        make_folder(folder)?;
        Ok(Self { path: folder.join(name), file: None, keys: 0 })
    }

    /// Number of keys.
    pub(super) fn len(&self) -> u64 {
        self.keys
    }

    /// Adds a key.
    pub(super) fn push(&mut self, key: &[u8], look: Look) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&self.path)
                    .map_err(|error| io_error("create", &self.path, error))?;
                none.insert(BufWriter::new(file))
            }
        };
        let head = head(key, look);
        let written = file.write_all(&head).and_then(|()| file.write_all(key));
        written.map_err(|error| io_error("write", &self.path, error))?;
        self.keys += 1;
        Ok(())
    }

    /// Starts to read from the first key.
    pub(super) fn read(&mut self) -> Result<Reader<'_>> {
        let Some(file) = &mut self.file else {
            return Ok(Reader { path: &self.path, file: None });
        };
        file.flush().map_err(|error| io_error("write", &self.path, error))?;
        let file = File::open(&self.path).map_err(|error| io_error("open", &self.path, error))?;
        Ok(Reader { path: &self.path, file: Some(BufReader::with_capacity(256 << 10, file)) })
    }
}

impl Drop for Pile {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, path = %self.path.display(), "a pile of keys stays behind");
        }
    }
}

/// Reads a pile.
pub(super) struct Reader<'a> {
    path: &'a Path,
    file: Option<BufReader<File>>,
}

impl Reader<'_> {
    /// Returns up to so many of the next keys, or `None` at the end.
    pub(super) fn some(&mut self, keys: usize) -> Result<Option<Vec<Candidate>>> {
        let found = self.next(keys)?;
        Ok((!found.is_empty()).then_some(found))
    }

    /// Returns up to so many of the next keys; none at the end.
    fn next(&mut self, keys: usize) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        let Some(file) = &mut self.file else { return Ok(found) };
        let mut head = [0; HEAD_BYTES];
        while found.len() < keys {
            match file.read_exact(&mut head) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(io_error("read", self.path, error)),
            }
            let (length, look) = parsed(&head);
            let mut key = vec![0; length];
            file.read_exact(&mut key).map_err(|error| io_error("read", self.path, error))?;
            found.push(Candidate { key, look });
        }
        Ok(found)
    }
}

fn head(key: &[u8], look: Look) -> [u8; HEAD_BYTES] {
    let (row, expected) = match look.expected {
        Some(expected) => (HAS_ROW, expected),
        None => (0, Expected::new(0, 0)),
    };
    let (state, value, expires_ms) = match look.stored {
        None => (0, 0, 0),
        Some(Stored::Missing) => (WAS_ASKED, 0, 0),
        // The version is told by the value; it is read anew at the next look.
        Some(Stored::There { value: None, expires_ms, .. }) => {
            (WAS_ASKED | IS_THERE, 0, expires_ms)
        }
        Some(Stored::There { value: Some(value), expires_ms, .. }) => {
            (WAS_ASKED | IS_THERE | HAS_VALUE, value, expires_ms)
        }
    };
    let mut head = [0; HEAD_BYTES];
    // A key of Redis ends at 512 MiB.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    head[..4].copy_from_slice(&length.to_le_bytes());
    (head[4], head[5]) = (row, state);
    head[6..14].copy_from_slice(&expected.hash.to_le_bytes());
    head[14..22].copy_from_slice(&expected.expires_ms.to_le_bytes());
    head[22..30].copy_from_slice(&value.to_le_bytes());
    head[30..38].copy_from_slice(&expires_ms.to_le_bytes());
    head[38..].copy_from_slice(&expected.version.to_le_bytes());
    head
}

fn parsed(head: &[u8; HEAD_BYTES]) -> (usize, Look) {
    let eight = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[at..at + 8]);
        bytes
    };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let expected = (head[4] == HAS_ROW).then(|| Expected {
        hash: u64::from_le_bytes(eight(6)),
        expires_ms: i64::from_le_bytes(eight(14)),
        version: i64::from_le_bytes(eight(38)),
    });
    let value = (head[5] & HAS_VALUE != 0).then(|| u64::from_le_bytes(eight(22)));
    let stored = match head[5] {
        0 => None,
        WAS_ASKED => Some(Stored::Missing),
        _ => Some(Stored::There {
            value,
            expires_ms: i64::from_le_bytes(eight(30)),
            version: StoredVersion::Nothing,
        }),
    };
    (length as usize, Look { expected, stored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pile_gives_back_what_it_took_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let row = Some(Expected { hash: u64::MAX, expires_ms: -5, version: 77 });
        let version = StoredVersion::Nothing;
        let there = |value, expires_ms| Some(Stored::There { value, expires_ms, version });
        let looks = [
            Look { expected: None, stored: None },
            Look { expected: row, stored: Some(Stored::Missing) },
            Look { expected: row, stored: there(None, 7) },
            Look { expected: None, stored: there(Some(0), 0) },
        ];
        let mut pile = Pile::new(folder.path(), "pile").unwrap();
        assert!(pile.read().unwrap().some(9).unwrap().is_none());
        for (number, look) in looks.iter().enumerate() {
            pile.push(&vec![b'k'; number * 3], *look).unwrap();
        }
        let mut reader = pile.read().unwrap();
        let found = [reader.next(3).unwrap(), reader.next(3).unwrap()].concat();
        assert!(reader.some(3).unwrap().is_none());
        let candidate =
            |(number, look): (usize, &Look)| Candidate { key: vec![b'k'; number * 3], look: *look };
        assert_eq!(found, looks.iter().enumerate().map(candidate).collect::<Vec<_>>());
        assert_eq!(pile.len(), 4);
        drop(pile);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
