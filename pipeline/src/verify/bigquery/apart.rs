//! Which rows are on one side only: both sides are spread over bucket files by key, or by row hash where rows have no
//! key, and compared bucket by bucket.
//!
//! Invariant: rows are a multiset; each counts as often as it is there. Memory is one bucket of both sides, whatever
//! the number of rows, and the names of the first rows that differ.

use super::super::EXAMPLES_MAX;
use crate::keys::{Bucket, Buckets, Record};
use serde::Serialize;
use stages::Result;
use std::path::Path;

/// One row on its way to a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marked {
    /// By what it meets its like: the hash of its key, or of the row.
    pub(super) bucket: u128,
    /// Hash of all its values.
    pub(super) row: u128,
    /// When its key is gone by itself, milliseconds since 1970; the largest number never.
    pub(super) expires_ms: i64,
    /// Its key as text; empty where it has none.
    pub(super) name: Vec<u8>,
}

/// A side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// The duplicate, or the rows in Redis.
    Redis,
    /// The table.
    BigQuery,
}

/// Rows that one side has and the other has not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Apart {
    /// Rows that only Redis has.
    pub(super) missing_in_bigquery: Named,
    /// Rows that only BigQuery has.
    pub(super) missing_in_redis: Named,
    /// Keys that both have with other values.
    pub(super) different: Named,
}

/// What became of a row that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Only Redis has it.
    MissingInBigQuery,
    /// Only BigQuery has it.
    MissingInRedis,
    /// Both have its key, with other values.
    Different,
}

impl Sort {
    /// Returns the word of findings.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::MissingInBigQuery => "missing_in_bigquery",
            Self::MissingInRedis => "missing_in_redis",
            Self::Different => "different",
        }
    }
}

/// Rows of one sort: how many, and the names of the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Named {
    pub(super) rows: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) examples: Vec<String>,
}

/// Takes the name of every row that differs.
pub(super) type Name<'a> = &'a mut dyn FnMut(Sort, &[u8]) -> Result<()>;

impl Apart {
    /// Whether both sides have the same rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Rows that differ, of all sorts.
    pub(super) fn rows(&self) -> u64 {
        self.missing_in_bigquery.rows + self.missing_in_redis.rows + self.different.rows
    }

    fn add(&mut self, sort: Sort, name: &[u8]) {
        let named = match sort {
            Sort::MissingInBigQuery => &mut self.missing_in_bigquery,
            Sort::MissingInRedis => &mut self.missing_in_redis,
            Sort::Different => &mut self.different,
        };
        named.rows += 1;
        if named.examples.len() < EXAMPLES_MAX && !name.is_empty() {
            named.examples.push(String::from_utf8_lossy(name).into_owned());
        }
    }
}

/// Both sides while they are read.
pub(super) struct Spread {
    redis: Buckets,
    bigquery: Buckets,
}

impl Spread {
    /// Makes room for about so many rows of each side under a folder.
    pub(super) fn new(folder: &Path, name: &str, rows: u64) -> Result<Self> {
        Ok(Self {
            redis: Buckets::create(folder, &format!("{name}.redis"), rows)?,
            bigquery: Buckets::create(folder, &format!("{name}.bigquery"), rows)?,
        })
    }

    /// Takes rows of one side.
    pub(super) fn push(&mut self, side: Side, rows: &[Marked]) -> Result<()> {
        let buckets = match side {
            Side::Redis => &mut self.redis,
            Side::BigQuery => &mut self.bigquery,
        };
        let mut payload = Vec::with_capacity(64);
        for row in rows {
            payload.clear();
            payload.extend_from_slice(&row.row.to_le_bytes());
            payload.extend_from_slice(&row.expires_ms.to_le_bytes());
            payload.extend_from_slice(&row.name);
            buckets.push(row.bucket, &payload)?;
        }
        Ok(())
    }

    /// Compares the buckets one by one and hands every row that one side has alone to `each`.
    pub(super) fn left_over(self, each: &mut dyn FnMut(Side, &Marked) -> Result<()>) -> Result<()> {
        let (redis, bigquery) = (self.redis.finish()?, self.bigquery.finish()?);
        for (redis, bigquery) in redis.iter().zip(&bigquery) {
            let (redis, bigquery) = (sorted(redis)?, sorted(bigquery)?);
            let (mut a, mut b) = (redis.iter().peekable(), bigquery.iter().peekable());
            let order = |row: &Marked| (row.bucket, row.row);
            loop {
                match (a.peek(), b.peek()) {
                    (Some(x), Some(y)) if order(x) == order(y) => {
                        a.next();
                        b.next();
                    }
                    (Some(x), y) if y.is_none_or(|y| order(x) < order(y)) => {
                        each(Side::Redis, x)?;
                        a.next();
                    }
                    (_, Some(y)) => {
                        each(Side::BigQuery, y)?;
                        b.next();
                    }
                    (_, None) => break,
                }
            }
        }
        Ok(())
    }

    /// Compares the buckets one by one and counts what differs; rows that share a key are one row that differs. Only
    /// rows that are to be counted are.
    pub(super) fn compare(
        self,
        counts: &mut dyn FnMut(Side, &Marked) -> bool,
        name: Name<'_>,
    ) -> Result<Apart> {
        let mut sorting = Sorting::default();
        self.left_over(&mut |side, row| {
            if counts(side, row) { sorting.take(side, row, name) } else { Ok(()) }
        })?;
        sorting.close(name)?;
        Ok(sorting.apart)
    }
}

/// Sorts rows that one side has alone; rows of one key come one after the other.
#[derive(Default)]
struct Sorting {
    apart: Apart,
    bucket: Option<u128>,
    redis: Vec<Vec<u8>>,
    bigquery: Vec<Vec<u8>>,
}

impl Sorting {
    fn take(&mut self, side: Side, row: &Marked, name: Name<'_>) -> Result<()> {
        if self.bucket != Some(row.bucket) {
            self.close(name)?;
            self.bucket = Some(row.bucket);
        }
        match side {
            Side::Redis => self.redis.push(row.name.clone()),
            Side::BigQuery => self.bigquery.push(row.name.clone()),
        }
        Ok(())
    }

    fn close(&mut self, name: Name<'_>) -> Result<()> {
        let both = self.redis.len().min(self.bigquery.len());
        let (redis, bigquery) =
            (std::mem::take(&mut self.redis), std::mem::take(&mut self.bigquery));
        let different = redis[..both].iter().map(|row| (Sort::Different, row));
        let lost = redis[both..].iter().map(|row| (Sort::MissingInBigQuery, row));
        let more = bigquery[both..].iter().map(|row| (Sort::MissingInRedis, row));
        for (sort, row) in different.chain(lost).chain(more) {
            self.apart.add(sort, row);
            name(sort, row)?;
        }
        Ok(())
    }
}

fn sorted(bucket: &Bucket) -> Result<Vec<Marked>> {
    let mut rows = Vec::new();
    bucket.for_each(&mut |Record { hash, mut payload }| {
        let name = payload.split_off(24.min(payload.len()));
        let expires = payload.split_off(16.min(payload.len()));
        let row = payload.try_into().map_or(0, u128::from_le_bytes);
        let expires_ms = expires.try_into().map_or(i64::MAX, i64::from_le_bytes);
        rows.push(Marked { bucket: hash, row, expires_ms, name });
        Ok(())
    })?;
    rows.sort_unstable_by_key(|row| (row.bucket, row.row));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn marked(key: u128, row: u128) -> Marked {
        Marked { bucket: key, row, expires_ms: i64::MAX, name: format!("k{key}").into_bytes() }
    }

    fn apart(redis: &[Marked], bigquery: &[Marked], rows: u64) -> Apart {
        let folder = tempfile::tempdir().unwrap();
        let mut spread = Spread::new(folder.path(), "t", rows).unwrap();
        spread.push(Side::Redis, redis).unwrap();
        spread.push(Side::BigQuery, bigquery).unwrap();
        let mut named = 0;
        let apart = spread
            .compare(&mut |_, _| true, &mut |_, _| {
                named += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(named, apart.rows());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files stay behind");
        apart
    }

    #[test]
    fn rows_are_named_by_what_became_of_them() {
        let redis = [marked(1, 10), marked(2, 20), marked(3, 30), marked(3, 30)];
        let bigquery = [marked(1, 10), marked(2, 21), marked(3, 30), marked(4, 40)];
        let apart = apart(&redis, &bigquery, 10);
        assert_eq!(apart.different, Named { rows: 1, examples: vec!["k2".into()] });
        assert_eq!(apart.missing_in_bigquery, Named { rows: 1, examples: vec!["k3".into()] });
        assert_eq!(apart.missing_in_redis, Named { rows: 1, examples: vec!["k4".into()] });
    }

    proptest! {
        /// Compared with counting every row of both sides in memory, over one bucket and over many.
        #[test]
        fn both_sides_are_multisets(
            redis in prop::collection::vec((0_u128..40, 0_u128..3), 0..120),
            bigquery in prop::collection::vec((0_u128..40, 0_u128..3), 0..120),
            rows in prop::sample::select(vec![1_u64, 1_000_000]),
        ) {
            let mut counts: BTreeMap<u128, BTreeMap<u128, i64>> = BTreeMap::new();
            for (side, more) in [(&redis, 1), (&bigquery, -1)] {
                for (key, row) in side {
                    *counts.entry(*key).or_default().entry(*row).or_default() += more;
                }
            }
            let (mut lost, mut extra, mut different) = (0, 0, 0);
            for rows in counts.values() {
                let more: i64 = rows.values().filter(|count| **count > 0).sum();
                let fewer: i64 = -rows.values().filter(|count| **count < 0).sum::<i64>();
                different += more.min(fewer);
                lost += more - more.min(fewer);
                extra += fewer - more.min(fewer);
            }
            let marks = |side: &[(u128, u128)]| -> Vec<Marked> {
                side.iter().map(|(key, row)| marked(*key, *row)).collect()
            };
            let apart = apart(&marks(&redis), &marks(&bigquery), rows);
            let found = [apart.missing_in_bigquery.rows, apart.missing_in_redis.rows, apart.different.rows];
            prop_assert_eq!(found.map(|rows| i64::try_from(rows).unwrap()), [lost, extra, different]);
        }
    }
}
