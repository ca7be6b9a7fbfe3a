//! One page of keys: what rows say of them, the questions to Redis, and the answers beside each other.
//!
//! Invariant: pure CPU work, done on the transform threads; I/O lies between its two halves.

use super::judge::{Agreement, Expected, Look, Rules};
use bytes::Bytes;
use schemas::BoundRoute;
use schemas::key::key_hash;
use schemas::plan::OnConflict;
use schemas::version::OLDEST;
use stages::extract::redis_entries::{Ask, Stored, answers, questions};
use stages::extract::redis_rows::Commands;
use stages::{Encoded, Error, Kind, Result};

/// What was counted of some rows or keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Rows read.
    pub(super) rows: u64,
    /// Bytes read of the source.
    pub(super) bytes: u64,
    /// Rows that could not be carried.
    pub(super) rejects: u64,
    /// Keys asked for.
    pub(super) keys: u64,
    /// Keys whose values were compared.
    pub(super) compared: u64,
    /// Rows that have expired and whose key is gone.
    pub(super) expired: u64,
    /// Keys that hold something else, which the route keeps.
    pub(super) kept: u64,
    /// Keys that hold a newer version than their row.
    pub(super) newer: u64,
}

impl Tally {
    /// Adds another one.
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.rejects += other.rejects;
        self.keys += other.keys;
        self.compared += other.compared;
        self.expired += other.expired;
        self.kept += other.kept;
        self.newer += other.newer;
    }

    /// Counts in which way a key agrees.
    pub(super) fn agree(&mut self, agreement: Agreement) {
        match agreement {
            Agreement::Same | Agreement::Absent => {}
            Agreement::Expired => self.expired += 1,
            Agreement::Kept => self.kept += 1,
            Agreement::Newer => self.newer += 1,
        }
    }
}

/// Keys with what their rows say, in the order in which they are asked for.
#[derive(Debug, Default)]
pub(super) struct Page {
    keys: Bytes,
    /// End of each key, and its row.
    entries: Vec<(usize, Expected)>,
    /// What was counted on the way here.
    pub(super) tally: Tally,
}

impl Page {
    /// Takes the entries of a batch. One that was encoded as of 1970 has those of expired rows too.
    pub(super) fn of_batch(encoded: Encoded) -> Self {
        let entries = encoded.entries.iter().enumerate().map(|(number, entry)| {
            let version = encoded.versions.get(number).copied().unwrap_or(OLDEST);
            let (hash, expires_ms) = (entry.value_hash, entry.expires_ms);
            (entry.key_end as usize, Expected { hash, expires_ms, version })
        });
        let rejects = encoded.rejected.as_ref().map_or(0, |rejected| rejected.reasons.len() as u64);
        Self {
            entries: entries.collect(),
            tally: Tally {
                rows: encoded.rows_read,
                bytes: encoded.bytes_read,
                rejects,
                // Before 1970: nobody kept a key for it.
                expired: encoded.expired,
                ..Tally::default()
            },
            keys: encoded.keys,
        }
    }

    /// Takes keys one by one.
    pub(super) fn of_keys<'k>(keys: impl IntoIterator<Item = (&'k [u8], Expected)>) -> Self {
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        for (key, expected) in keys {
            bytes.extend_from_slice(key);
            entries.push((bytes.len(), expected));
        }
        Self { keys: bytes.into(), entries, tally: Tally::default() }
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Iterates over keys and rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Expected)> {
        let mut start = 0;
        self.entries.iter().map(move |(end, expected)| {
            let key = &self.keys[start..*end];
            start = *end;
            (key, *expected)
        })
    }

    /// Writes the questions about all keys.
    pub(super) fn questions(&self, bound: &BoundRoute, ask: Ask) -> Result<Commands> {
        questions(bound, ask, self.iter().map(|(key, _)| key))
    }

    /// Compares the answers; what differs is among the looks, with its key.
    pub(super) fn compare(&self, bound: &BoundRoute, ask: Ask, bytes: &[u8]) -> Result<Compared> {
        self.compare_each(bound, ask, |take| {
            answers(bound, ask, bytes, |_, stored, now_ms| take(stored, now_ms))
        })
    }

    /// Compares what was read of each key, in order, with the server's time in ms.
    pub(super) fn compare_stored(
        &self,
        bound: &BoundRoute,
        ask: Ask,
        found: &[(Stored, i64)],
    ) -> Result<Compared> {
        self.compare_each(bound, ask, |take| {
            found.iter().try_for_each(|(stored, now_ms)| take(*stored, *now_ms))
        })
    }

    fn compare_each(
        &self,
        bound: &BoundRoute,
        ask: Ask,
        each: impl FnOnce(&mut dyn FnMut(Stored, i64) -> Result<()>) -> Result<()>,
    ) -> Result<Compared> {
        let rules = rules_of(bound, ask);
        let mut compared = Compared { tally: self.tally, differing: Vec::new() };
        let mut entries = self.iter();
        each(&mut |stored, now_ms| {
            let (key, expected) = entries.next().ok_or_else(torn)?;
            if let Ok(agreement) = rules.compare(Some(expected), stored, now_ms) {
                compared.tally.agree(agreement);
            } else {
                let look = Look { expected: Some(expected), stored: Some(stored) };
                compared.differing.push((key.to_vec(), look));
            }
            Ok(())
        })?;
        if entries.next().is_some() {
            return Err(torn());
        }
        let keys = self.len() as u64;
        compared.tally.keys += keys;
        compared.tally.compared += if ask == Ask::Value { keys } else { 0 };
        Ok(compared)
    }

    /// Returns the hash of every key.
    pub(super) fn hashes(&self) -> Vec<u128> {
        self.iter().map(|(key, _)| key_hash(key)).collect()
    }
}

/// What a page came to.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) tally: Tally,
    pub(super) differing: Vec<(Vec<u8>, Look)>,
}

/// What comparisons of a route go by.
pub(crate) fn rules_of(bound: &BoundRoute, ask: Ask) -> Rules {
    Rules {
        keeps: bound.route.on_conflict == OnConflict::Keep,
        versions: bound.version.map(|version| version.kind),
        values: ask == Ask::Value,
    }
}

/// What is asked of the keys of a route at least as much as `ask` says: versions are told by values only.
pub(super) fn asked_of(bound: &BoundRoute, ask: Ask) -> Ask {
    if bound.version.is_some() { Ask::Value } else { ask }
}

pub(crate) fn torn() -> Error {
    Error::new(Kind::Connection, "redis gave another number of answers than it was asked questions")
}
