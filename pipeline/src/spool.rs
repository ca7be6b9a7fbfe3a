//! The keys of rows that an application wrote: looked for by SCAN, sorted on disk, each once, in one file.
//!
//! Format, all numbers little-endian: `rekindle`, u32 version, u32 kind (0 keys, 1 streams); per record u32 length and
//! the key, for streams also first id (2 x u64), last id (2 x u64) and number of entries (u64); at the end `spoolend`,
//! u64 number of records, u64 XXH3-64 of everything before it.
//!
//! Invariant: records are in ascending order of their keys without repetition, and a file is used only after its
//! length, its order and its hash were checked; so a partition, which is a range of it, is the same in every attempt.

mod collect;
mod cut;
mod file;
mod pages;
mod sort;

pub use collect::{Looked, Search};
pub use cut::{Cut, cut};
pub(crate) use file::Records;
use file::Writer;
pub use file::{Facts, Record, check};
pub use pages::Pages;
use sort::SORTED_BYTES_MAX;
pub(crate) use sort::Sorter;

use std::path::{Path, PathBuf};

/// Where the spool of a route of a run is.
pub(crate) fn path(state: &Path, run_id: &str, route: &str) -> PathBuf {
    folder(state, run_id).join(format!("{route}.keys"))
}

/// Where the spools of a run are.
pub(crate) fn folder(state: &Path, run_id: &str) -> PathBuf {
    state.join("spool").join(run_id)
}

/// Bytes of a spool of so many keys with so many bytes together; streams have longer records.
pub(crate) fn bytes_of(keys: u64, key_bytes: u64, is_streams: bool) -> u64 {
    file::bytes_of(keys, key_bytes, is_streams)
}
