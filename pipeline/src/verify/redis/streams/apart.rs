//! Which rows have no entry and which entries no row: both sides are spread over bucket files by the hash of the row and
//! compared bucket by bucket.
//!
//! Invariant: both sides are multisets; each row counts as often as it is there. Memory is one bucket of rows.

use crate::keys::{Bucket, Buckets, Record};
use stages::Result;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

/// Both sides while they are read.
pub(super) struct Sided {
    rows: Buckets,
    entries: Buckets,
    found: Buckets,
}

/// What one side has alone: rows by their hash and number among equal ones, entries with their key and id.
pub(super) struct Apart {
    buckets: Vec<Bucket>,
    count: u64,
}

/// Takes the key and id of an entry, or nothing of a row.
pub(super) type Take<'a> = &'a mut dyn FnMut(Option<(&[u8], &str)>) -> Result<()>;

/// What two looks agree on.
pub(super) struct Agreed {
    /// What both found.
    pub(super) apart: Apart,
    /// How much only the first found.
    pub(super) gone: u64,
    /// How much only the second found.
    pub(super) new: u64,
}

impl Sided {
    /// Makes room for about so many rows.
    pub(super) fn create(folder: &Path, rows: u64) -> Result<Self> {
        Ok(Self {
            rows: Buckets::create(folder, "rows", rows)?,
            entries: Buckets::create(folder, "entries", rows)?,
            // As many buckets in every look, or equal findings would not meet: what differs is little.
            found: Buckets::create(folder, "found", 0)?,
        })
    }

    /// Takes a row.
    pub(super) fn push_row(&mut self, hash: u128) -> Result<()> {
        self.rows.push(hash, &[])
    }

    /// Takes an entry; `name` is its key and id.
    pub(super) fn push_entry(&mut self, hash: u128, name: &[u8]) -> Result<()> {
        self.entries.push(hash, name)
    }

    /// Compares the buckets one by one.
    pub(super) fn compare(self) -> Result<Apart> {
        let Self { rows, entries, mut found } = self;
        let mut count = 0;
        for (rows, entries) in rows.finish()?.into_iter().zip(entries.finish()?) {
            let mut without: HashMap<u128, u64> = HashMap::new();
            rows.for_each(&mut |record| {
                *without.entry(record.hash).or_default() += 1;
                Ok(())
            })?;
            entries.for_each(&mut |Record { hash, payload }| {
                if let Some(rows) = without.get_mut(&hash).filter(|rows| **rows > 0) {
                    *rows -= 1;
                    return Ok(());
                }
                count += 1;
                let mut text = hash.to_le_bytes().to_vec();
                text.extend_from_slice(&payload);
                found.push(xxh3_128(&text), &payload)
            })?;
            for (hash, rows) in without {
                for number in 0..rows {
                    count += 1;
                    let mut text = hash.to_le_bytes().to_vec();
                    text.extend_from_slice(&number.to_le_bytes());
                    found.push(xxh3_128(&text), &[])?;
                }
            }
        }
        Ok(Apart { buckets: found.finish()?, count })
    }
}

impl Apart {
    /// Nothing.
    pub(super) fn none() -> Self {
        Self { buckets: Vec::new(), count: 0 }
    }

    /// Rows and entries.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Hands on every entry by its key and id, and `None` for every row.
    pub(super) fn for_each(&self, take: Take<'_>) -> Result<()> {
        for bucket in &self.buckets {
            bucket.for_each(&mut |record| take(named(&record.payload)))?;
        }
        Ok(())
    }
}

/// Writes the name of an entry: its id, a space, and its key.
pub(super) fn name(key: &[u8], id: &str) -> Vec<u8> {
    [id.as_bytes(), b" ", key].concat()
}

fn named(name: &[u8]) -> Option<(&[u8], &str)> {
    let space = name.iter().position(|byte| *byte == b' ')?;
    Some((&name[space + 1..], std::str::from_utf8(&name[..space]).unwrap_or("?")))
}

/// Holds what two looks found against each other.
pub(super) fn agreed(folder: &Path, first: Apart, second: &Apart) -> Result<Agreed> {
    let mut both = Buckets::create(folder, "agreed", 0)?;
    let (mut count, mut new) = (0, 0);
    for (first, second) in first.buckets.into_iter().zip(&second.buckets) {
        let mut known: HashSet<u128> = HashSet::new();
        first.for_each(&mut |record| {
            known.insert(record.hash);
            Ok(())
        })?;
        second.for_each(&mut |Record { hash, payload }| {
            if known.contains(&hash) {
                count += 1;
                both.push(hash, &payload)
            } else {
                new += 1;
                Ok(())
            }
        })?;
    }
    let apart = Apart { buckets: both.finish()?, count };
    Ok(Agreed { apart, gone: first.count - count, new })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Names of entries without a row, and how many rows have no entry.
    fn told(apart: &Apart) -> (Vec<String>, u64) {
        let (mut entries, mut rows) = (Vec::new(), 0);
        apart
            .for_each(&mut |entry| {
                match entry {
                    Some((key, id)) => {
                        entries.push(format!("{} {id}", String::from_utf8_lossy(key)));
                    }
                    None => rows += 1,
                }
                Ok(())
            })
            .unwrap();
        entries.sort();
        assert_eq!(apart.count(), entries.len() as u64 + rows);
        (entries, rows)
    }

    fn sided(folder: &Path, rows: &[u128], entries: &[u128], estimate: u64) -> Apart {
        let mut sided = Sided::create(folder, estimate).unwrap();
        for row in rows {
            sided.push_row(*row).unwrap();
        }
        for (number, entry) in entries.iter().enumerate() {
            sided.push_entry(*entry, &name(b"log:0", &format!("{}-0", number + 1))).unwrap();
        }
        sided.compare().unwrap()
    }

    #[test]
    fn what_both_looks_found_is_kept_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let first = sided(&folder.path().join("a"), &[1, 1, 2, 9], &[1, 3, 4], 10);
        assert_eq!(told(&first), (vec!["log:0 2-0".to_owned(), "log:0 3-0".to_owned()], 3));
        let second = sided(&folder.path().join("b"), &[1, 1, 2, 7], &[1, 3, 2], 1_000_000);
        assert_eq!(told(&second), (vec!["log:0 2-0".to_owned()], 2));
        let agreed = agreed(folder.path(), first, &second).unwrap();
        // Entry 3, and one of the rows 1; the row 7 is new, the rows 2 and 9 and entry 4 are not there any more.
        assert_eq!(told(&agreed.apart), (vec!["log:0 2-0".to_owned()], 1));
        assert_eq!((agreed.gone, agreed.new), (3, 1));
        drop((agreed, second));
    }

    proptest! {
        #[test]
        fn both_sides_are_multisets(
            rows in prop::collection::vec(0_u128..30, 0..120),
            entries in prop::collection::vec(0_u128..30, 0..120),
            estimate in prop::sample::select(vec![1_u64, 1_000_000]),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (found, missing) = told(&sided(folder.path(), &rows, &entries, estimate));
            let mut counts: BTreeMap<u128, i64> = BTreeMap::new();
            for (rows, more) in [(&rows, 1), (&entries, -1)] {
                for row in rows {
                    *counts.entry(*row).or_default() += more;
                }
            }
            let lost: i64 = counts.values().filter(|count| **count > 0).sum();
            let extra: i64 = -counts.values().filter(|count| **count < 0).sum::<i64>();
            prop_assert_eq!((i64::try_from(missing).unwrap(), i64::try_from(found.len()).unwrap()), (lost, extra));
            prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
