//! Bucket files: a disk-based hash partitioning of keyed records.
//!
//! Invariant: records of one bucket come back in the order they were pushed; the files are gone when the
//! buckets are dropped.

use crate::ledger::{damaged, io_error, make_folder};
use stages::{Error, Kind, Result};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Records per bucket that keep one bucket's hash map near 10 MiB.
const BUCKET_ROWS: u64 = 64_000;
/// What one record of a bucket takes in memory: hash, payload with a key of common length, map and allocator overhead.
const RECORD_BYTES: u64 = 160;
/// Open files a pass may use; beyond it buckets grow instead (1 000 M keys: 3.9 M a bucket, about 600 MiB).
const BUCKETS_MAX: u64 = 256;
/// Buffer per open bucket.
const BUFFER_BYTES: usize = 16 * 1024;

/// One keyed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Hash of the key.
    pub hash: u128,
    /// What was pushed with it.
    pub payload: Vec<u8>,
}

/// Bucket files being written.
#[derive(Debug)]
pub struct Buckets {
    files: Vec<(PathBuf, BufWriter<File>)>,
}

/// A bucket ready to be read; removes its file when dropped.
#[derive(Debug)]
pub struct Bucket {
    path: PathBuf,
}

impl Buckets {
    /// Number of buckets for about `rows` records.
    pub fn wanted(rows: u64) -> u64 {
        rows.div_ceil(BUCKET_ROWS).clamp(1, BUCKETS_MAX)
    }

    /// Memory that a reconciliation of about `rows` records takes: one bucket, and the buffers of both sides.
    pub fn memory_bytes(rows: u64) -> u64 {
        let buckets = Self::wanted(rows);
        rows.div_ceil(buckets).max(BUCKET_ROWS) * RECORD_BYTES + buckets * 2 * BUFFER_BYTES as u64
    }

    /// Creates empty buckets for about `rows` records.
    pub fn create(folder: &Path, name: &str, rows: u64) -> Result<Self> {
        make_folder(folder)?;
        let files = (0..Self::wanted(rows))
            .map(|number| {
                let path = folder.join(format!("{name}.{number}"));
                let file = File::create(&path).map_err(|error| io_error("create", &path, error))?;
                Ok((path, BufWriter::with_capacity(BUFFER_BYTES, file)))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { files })
    }

    /// Appends a record to its bucket.
    pub fn push(&mut self, hash: u128, payload: &[u8]) -> Result<()> {
        let count = self.files.len() as u128;
        let (path, file) = &mut self.files[(hash % count) as usize];
        let length = u32::try_from(payload.len())
            .map_err(|_| Error::new(Kind::Internal, "a key is longer than 4 GiB"))?;
        file.write_all(&hash.to_le_bytes())
            .and_then(|()| file.write_all(&length.to_le_bytes()))
            .and_then(|()| file.write_all(payload))
            .map_err(|error| io_error("write", path, error))
    }

    /// Ends writing and returns the buckets.
    pub fn finish(self) -> Result<Vec<Bucket>> {
        self.files
            .into_iter()
            .map(|(path, mut file)| {
                file.flush().map_err(|error| io_error("write", &path, error))?;
                Ok(Bucket { path })
            })
            .collect()
    }
}

impl Bucket {
    /// Hands every record to `take`, in order.
    pub fn for_each(&self, take: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let file = File::open(&self.path).map_err(|error| io_error("open", &self.path, error))?;
        let mut file = BufReader::with_capacity(256 * 1024, file);
        let mut head = [0; 20];
        loop {
            match file.read_exact(&mut head) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(io_error("read", &self.path, error)),
            }
            let (hash, length) = head.split_at(16);
            let hash = hash.try_into().map_or(0, u128::from_le_bytes);
            let length = length.try_into().map_or(0, u32::from_le_bytes);
            let mut payload = vec![0; length as usize];
            file.read_exact(&mut payload)
                .map_err(|error| damaged(&self.path, &format!("a record is cut short: {error}")))?;
            take(Record { hash, payload })?;
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a spool file could not be removed");
        }
    }
}
