//! Parts of a partition's ledger file that describe writes which may never have arrived, or are gone with a target that was
//! emptied: what an attempt listed and did not commit, and everything of an attempt that was voided.
//!
//! Beside `<partition>.ledger` stands `<partition>.ledger.doubt`: where each part begins and ends, two times 8 bytes
//! little-endian.
//!
//! Invariant: a part is noted before anything is appended behind it. Its keys may be in the target, so they are removed when
//! their rows are gone; that they are there is never asked for.

use super::io_error;
use stages::Result;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const PART_BYTES: usize = 16;

fn beside(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".doubt");
    PathBuf::from(name)
}

/// Notes a part of a ledger file, and makes that durable; a part without bytes is none.
pub(super) fn note(ledger: &Path, part: &Range<u64>) -> Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    let path = beside(ledger);
    let failed = |error| io_error("write", &path, error);
    let mut file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    let bytes = [part.start.to_le_bytes(), part.end.to_le_bytes()].concat();
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// Forgets what was noted of a ledger file.
pub(super) fn forget(ledger: &Path) -> Result<()> {
    super::remove_if_there(&beside(ledger))
}

/// The parts of a ledger file that were noted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Doubt(Vec<Range<u64>>);

impl Doubt {
    /// Reads what was noted; a torn last part is one behind which nothing was appended, and is noted again.
    pub fn of(ledger: &Path) -> Result<Self> {
        let path = beside(ledger);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            bytes => bytes.map_err(|error| io_error("read", &path, error))?,
        };
        let (parts, _) = bytes.as_chunks::<PART_BYTES>();
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        Ok(Self(parts.iter().map(|part| number(&part[..8])..number(&part[8..])).collect()))
    }

    /// Whether the frame that begins at this byte is in one of them.
    pub fn covers(&self, frame_start: u64) -> bool {
        self.0.iter().any(|part| part.contains(&frame_start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_added_read_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("a@0.ledger");
        assert_eq!(Doubt::of(&ledger).unwrap(), Doubt::default());
        note(&ledger, &(5..5)).unwrap();
        assert!(!beside(&ledger).exists());
        note(&ledger, &(0..10)).unwrap();
        note(&ledger, &(30..40)).unwrap();
        let mut bytes = fs::read(beside(&ledger)).unwrap();
        bytes.extend_from_slice(b"torn");
        fs::write(beside(&ledger), bytes).unwrap();
        let doubt = Doubt::of(&ledger).unwrap();
        let covered: Vec<u64> =
            [0, 9, 10, 29, 30, 39, 40].into_iter().filter(|at| doubt.covers(*at)).collect();
        assert_eq!(covered, [0, 9, 30, 39]);
        forget(&ledger).unwrap();
        forget(&ledger).unwrap();
        assert_eq!(Doubt::of(&ledger).unwrap(), Doubt::default());
    }
}
