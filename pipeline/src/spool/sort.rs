//! Sorts keys in bounded memory: sorted runs on disk, merged into one order, each key once.
//!
//! Invariant: memory is the buffer of one run and one buffer per run that is merged; the files are gone when the
//! sorter is dropped.

use crate::ledger::{io_error, make_folder};
use stages::Result;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of keys that are sorted in memory.
pub(crate) const SORTED_BYTES_MAX: usize = 64 << 20;
/// Runs that are merged at once; more are merged into one first.
const RUNS_MAX: usize = 100;

/// Takes keys in any order.
pub(crate) struct Sorter {
    folder: PathBuf,
    name: String,
    bytes_max: usize,
    bytes: Vec<u8>,
    /// Place and length of each key.
    keys: Vec<(u32, u32)>,
    runs: Vec<PathBuf>,
    made: u64,
}

impl Sorter {
    /// Makes a sorter whose files lie in a folder and begin with a name.
    pub(crate) fn new(folder: &Path, name: &str, bytes_max: usize) -> Result<Self> {
        make_folder(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            bytes_max: bytes_max.min(u32::MAX as usize / 2),
            bytes: Vec::new(),
            keys: Vec::new(),
            runs: Vec::new(),
            made: 0,
        })
    }

    /// Takes one key.
    pub(crate) fn push(&mut self, key: &[u8]) -> Result<()> {
        let place = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.keys.push((place, u32::try_from(key.len()).unwrap_or(u32::MAX)));
        self.bytes.extend_from_slice(key);
        // A short key costs its place too.
        if self.bytes.len() + self.keys.len() * size_of::<(u32, u32)>() >= self.bytes_max {
            self.spill()?;
        }
        Ok(())
    }

    /// Calls `each` with every key once, in ascending order.
    pub(crate) fn merge(mut self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.runs.is_empty() {
            self.sort();
            return self.sorted().try_for_each(each);
        }
        self.spill()?;
        merge(&self.runs, &mut each)
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        let key = |(place, length): (u32, u32)| &bytes[place as usize..][..length as usize];
        self.keys.sort_unstable_by(|a, b| key(*a).cmp(key(*b)));
        self.keys.dedup_by(|a, b| key(*a) == key(*b));
    }

    fn sorted(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|(place, length)| &self.bytes[*place as usize..][..*length as usize])
    }

    fn spill(&mut self) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        self.sort();
        if self.runs.len() >= RUNS_MAX {
            let mut merged = self.new_run()?;
            merge(&self.runs, &mut |key| merged.push(key))?;
            let path = merged.finish()?;
            for run in std::mem::replace(&mut self.runs, vec![path]) {
                remove(&run)?;
            }
        }
        let mut run = self.new_run()?;
        self.sorted().try_for_each(|key| run.push(key))?;
        let path = run.finish()?;
        self.runs.push(path);
        self.bytes.clear();
        self.keys.clear();
        Ok(())
    }

    fn new_run(&mut self) -> Result<Run> {
        self.made += 1;
        let path = self.folder.join(format!("{}.run{}", self.name, self.made));
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| io_error("create", &path, error))?;
        Ok(Run { file: BufWriter::new(file), path })
    }
}

impl Drop for Sorter {
    fn drop(&mut self) {
        for run in &self.runs {
            if let Err(error) = fs::remove_file(run) {
                tracing::debug!(%error, run = %run.display(), "a sorted run stays behind");
            }
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|error| io_error("remove", path, error))
}

struct Run {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Run {
    fn push(&mut self, key: &[u8]) -> Result<()> {
        let length = u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes();
        let written = self.file.write_all(&length).and_then(|()| self.file.write_all(key));
        written.map_err(|error| io_error("write", &self.path, error))
    }

    fn finish(mut self) -> Result<PathBuf> {
        self.file.flush().map_err(|error| io_error("write", &self.path, error))?;
        Ok(self.path)
    }
}

/// Reads the next key of a run; `None` at its end.
fn next(path: &Path, file: &mut BufReader<File>) -> Result<Option<Vec<u8>>> {
    let failed = |error| io_error("read", path, error);
    let mut length = [0; 4];
    match file.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read.map_err(failed)?,
    }
    let mut key = vec![0; u32::from_le_bytes(length) as usize];
    file.read_exact(&mut key).map_err(failed)?;
    Ok(Some(key))
}

fn merge(runs: &[PathBuf], each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut files = Vec::with_capacity(runs.len());
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for (place, path) in runs.iter().enumerate() {
        let file = File::open(path).map_err(|error| io_error("open", path, error))?;
        let mut file = BufReader::with_capacity(64 << 10, file);
        if let Some(key) = next(path, &mut file)? {
            heads.push(Reverse((key, place)));
        }
        files.push(file);
    }
    let mut last: Option<Vec<u8>> = None;
    while let Some(Reverse((key, place))) = heads.pop() {
        if let Some(following) = next(&runs[place], &mut files[place])? {
            heads.push(Reverse((following, place)));
        }
        if last.as_ref() != Some(&key) {
            each(&key)?;
            last = Some(key);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn sorted(keys: &[Vec<u8>], bytes_max: usize) -> (Vec<Vec<u8>>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(folder.path(), "keys", bytes_max).unwrap();
        for key in keys {
            sorter.push(key).unwrap();
        }
        let made = sorter.runs.len();
        let mut found = Vec::new();
        sorter
            .merge(|key| {
                found.push(key.to_vec());
                Ok(())
            })
            .unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "files stay behind");
        (found, made)
    }

    #[test]
    fn keys_come_in_order_and_once_whatever_fits_in_memory() {
        // Repeated keys, keys that are prefixes of others, an empty one, bytes that are no text.
        let mut keys: Vec<Vec<u8>> = (0..5_000_u32)
            .map(|number| format!("log:{}", number.wrapping_mul(2_654_435_761) % 1_700).into())
            .collect();
        keys.extend([vec![], vec![255, 0], vec![0], vec![255, 0], b"log:".to_vec()]);
        let expected: Vec<Vec<u8>> =
            keys.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        for bytes_max in [100, 5_000, usize::MAX] {
            let (found, runs) = sorted(&keys, bytes_max);
            assert!(found == expected, "with {bytes_max} bytes");
            assert_eq!(runs == 0, bytes_max == usize::MAX);
            assert!(runs <= RUNS_MAX + 1, "{runs} runs");
        }
        assert!(sorted(&[], 100).0.is_empty());
    }
}
