//! Keys of a partition's ledger file that the target refused: they were noted before they were sent, and never arrived.
//!
//! Beside `<partition>.ledger` stands `<partition>.ledger.refused`: the xxh3-128 of each such key, 16 bytes little-endian.
//!
//! Invariant: a key is in the list before the attempt that met its refusal has ended; whoever reads the file passes it over.

use super::io_error;
use schemas::key::key_hash;
use stages::Result;
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const HASH_BYTES: usize = 16;

fn beside(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".refused");
    PathBuf::from(name)
}

/// Adds keys to the list of a ledger file and makes it durable; before that, forgets what is in it where `anew` says so.
pub(super) fn note<'k>(
    ledger: &Path,
    keys: impl Iterator<Item = &'k [u8]>,
    anew: bool,
) -> Result<()> {
    let path = beside(ledger);
    let bytes: Vec<u8> = keys.flat_map(|key| key_hash(key).to_le_bytes()).collect();
    if bytes.is_empty() && !anew {
        return Ok(());
    }
    if bytes.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path, error))
            }
            _ => Ok(()),
        };
    }
    let failed = |error| io_error("write", &path, error);
    let mut file = OpenOptions::new()
        .create(true)
        .append(!anew)
        .write(true)
        .truncate(anew)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// Reads the list of a ledger file; a torn last hash is that of a key whose refusal will be met again.
pub(super) fn of(ledger: &Path) -> Result<HashSet<u128>> {
    let path = beside(ledger);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        bytes => bytes.map_err(|error| io_error("read", &path, error))?,
    };
    let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
    Ok(hashes.iter().map(|hash| u128::from_le_bytes(*hash)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_forgotten_and_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("a@0.ledger");
        let keys = |keys: &'static [&'static str]| keys.iter().map(|key| key.as_bytes());
        assert!(of(&ledger).unwrap().is_empty());
        note(&ledger, keys(&["k:1"]), false).unwrap();
        note(&ledger, keys(&["k:2"]), false).unwrap();
        let path = beside(&ledger);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(b"torn");
        fs::write(&path, bytes).unwrap();
        assert_eq!(of(&ledger).unwrap(), HashSet::from([key_hash(b"k:1"), key_hash(b"k:2")]));
        note(&ledger, keys(&["k:3"]), true).unwrap();
        assert_eq!(of(&ledger).unwrap(), HashSet::from([key_hash(b"k:3")]));
        note(&ledger, keys(&[]), true).unwrap();
        note(&ledger, keys(&[]), true).unwrap();
        assert!(of(&ledger).unwrap().is_empty());
    }
}
