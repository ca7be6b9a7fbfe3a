//! Entries of streams, read in pages: how many to ask for, and what a page says.
//!
//! Invariant: pages are sized by what the one before weighed, so that memory is bounded by bytes and not by entries.

use super::redis_rows::{EntryId, Replies, Reply};
use crate::error::{Error, Kind, Result};
use schemas::BoundRoute;
use schemas::layout::StoredHash;

/// What a page should weigh.
const PAGE_BYTES: u64 = 1 << 20;
/// Entries of the first page, when nothing is known yet, and of the largest.
const ENTRIES_FIRST: u64 = 64;
const ENTRIES_MAX: u64 = 4_096;

/// How many entries to ask for next.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    entries: u64,
}

impl Default for Paging {
    fn default() -> Self {
        Self { entries: ENTRIES_FIRST }
    }
}

impl Paging {
    /// Entries of the next page.
    pub fn entries(self) -> u64 {
        self.entries
    }

    /// Learns from a page of so many entries and bytes.
    pub fn learn(&mut self, entries: u64, bytes: u64) {
        let weight = (bytes / entries.max(1)).max(1);
        // Entries that weigh little may be followed by others that do not.
        self.entries = (PAGE_BYTES / weight).clamp(1, ENTRIES_MAX.min(self.entries * 4));
    }
}

/// One entry as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadEntry {
    /// Its id.
    pub id: EntryId,
    /// The hash of its fields that is the same for equal rows.
    pub hash: u128,
}

/// Parses the reply of one `XRANGE`; a key that is gone or of another type has no entries.
pub fn entries(bound: &BoundRoute, bytes: &[u8]) -> Result<Vec<ReadEntry>> {
    let mut replies = Replies::new(bytes);
    let count = match replies.token()? {
        Reply::Array(count) => count,
        Reply::Null | Reply::Error(_) => return Ok(Vec::new()),
        _ => return Err(unexpected()),
    };
    let mut stored = StoredHash::new(bound);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (Reply::Array(2), Reply::Text(id)) = (replies.token()?, replies.token()?) else {
            return Err(unexpected());
        };
        let id = EntryId::parse(id).ok_or_else(unexpected)?;
        stored.begin();
        let Reply::Array(words) = replies.token()? else { return Err(unexpected()) };
        for _ in 0..words / 2 {
            let (Reply::Text(name), Reply::Text(value)) = (replies.token()?, replies.token()?)
            else {
                return Err(unexpected());
            };
            stored.push(name, value);
        }
        entries.push(ReadEntry { id, hash: stored.long_hash() });
    }
    Ok(entries)
}

fn unexpected() -> Error {
    Error::new(Kind::Connection, "redis answered XRANGE with another kind of reply")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_step_by_step_and_shrink_at_once() {
        let mut paging = Paging::default();
        paging.learn(64, 6_400);
        assert_eq!(paging.entries(), 256);
        for _ in 0..9 {
            paging.learn(paging.entries(), paging.entries() * 100);
        }
        assert_eq!(paging.entries(), 4_096);
        paging.learn(1, 10 << 20);
        assert_eq!(paging.entries(), 1);
        paging.learn(0, 0);
        assert_eq!(paging.entries(), 4);
    }
}
