//! Rows of a route whose last row of a key wins, on disk until every row of a key is known.
//!
//! Invariant: the row that counts is the one that a rebuild leaves: the last that has not expired.

use super::judge::Expected;
use super::page::Page;
use crate::keys::{Bucket, Buckets};
use schemas::key::key_hash;
use stages::{Error, Kind, Result};
use std::collections::HashMap;
use std::path::Path;

/// Keys asked for in one exchange.
const PAGE_KEYS: usize = 2_000;

/// Rows being collected, in the order in which a rebuild would write them.
pub(super) struct LastRows {
    buckets: Buckets,
    payload: Vec<u8>,
}

/// Some of the keys with all of their rows.
pub(super) struct LastBucket(Bucket);

impl LastRows {
    /// Makes room for about so many rows.
    pub(super) fn create(folder: &Path, route: &str, rows: u64) -> Result<Self> {
        let buckets = Buckets::create(folder, &format!("{route}.last"), rows)?;
        Ok(Self { buckets, payload: Vec::new() })
    }

    /// Adds the next row.
    pub(super) fn push(&mut self, key: &[u8], expected: Expected) -> Result<()> {
        self.payload.clear();
        self.payload.extend_from_slice(&expected.hash.to_le_bytes());
        self.payload.extend_from_slice(&expected.expires_ms.to_le_bytes());
        self.payload.extend_from_slice(key);
        self.buckets.push(key_hash(key), &self.payload)
    }

    /// Ends the collection.
    pub(super) fn finish(self) -> Result<Vec<LastBucket>> {
        Ok(self.buckets.finish()?.into_iter().map(LastBucket).collect())
    }
}

impl LastBucket {
    /// Returns each key once, with the row that counts.
    pub(super) fn pages(&self, now_ms: i64) -> Result<Vec<Page>> {
        let mut rows: HashMap<Vec<u8>, Expected> = HashMap::new();
        self.0.for_each(&mut |record| {
            let (key, expected) = unpack(&record.payload)?;
            take_last(&mut rows, key, expected, now_ms);
            Ok(())
        })?;
        let rows: Vec<(Vec<u8>, Expected)> = rows.into_iter().collect();
        let page = |rows: &[(Vec<u8>, Expected)]| {
            Page::of_keys(rows.iter().map(|(key, expected)| (&key[..], *expected)))
        };
        Ok(rows.chunks(PAGE_KEYS).map(page).collect())
    }
}

/// Puts a later row in the place of an earlier one of its key, unless it has expired: a rebuild skips it then.
pub(super) fn take_last(
    rows: &mut HashMap<Vec<u8>, Expected>,
    key: &[u8],
    expected: Expected,
    now_ms: i64,
) {
    let has_expired = expected.expires_ms != 0 && expected.expires_ms <= now_ms;
    match rows.get_mut(key) {
        Some(_) if has_expired => {}
        Some(earlier) => *earlier = expected,
        None => {
            rows.insert(key.to_vec(), expected);
        }
    }
}

fn unpack(payload: &[u8]) -> Result<(&[u8], Expected)> {
    let eight = |at: usize| payload.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    match (eight(0), eight(8), payload.get(16..)) {
        (Some(hash), Some(expiry), Some(key)) => {
            let (hash, expires_ms) = (u64::from_le_bytes(hash), i64::from_le_bytes(expiry));
            // A plan refuses versions together with `on_collision = "last"`.
            Ok((key, Expected::new(hash, expires_ms)))
        }
        _ => Err(Error::new(Kind::Internal, "a spool record is too short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_that_has_not_expired_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = LastRows::create(folder.path(), "r", 10).unwrap();
        for (key, hash, expires_ms) in
            [("a", 1, 0), ("b", 2, 0), ("a", 3, 900), ("a", 4, 500), ("c", 5, 100), ("b", 6, 0)]
        {
            rows.push(key.as_bytes(), Expected::new(hash, expires_ms)).unwrap();
        }
        let mut found = Vec::new();
        for bucket in rows.finish().unwrap() {
            for page in bucket.pages(600).unwrap() {
                found.extend(page.iter().map(|(key, row)| (key.to_vec(), row.hash)));
            }
        }
        found.sort();
        assert_eq!(found, [(b"a".to_vec(), 3), (b"b".to_vec(), 6), (b"c".to_vec(), 5)]);
    }
}
