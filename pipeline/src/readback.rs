//! Read-back: asks the target for what the ledger says was written, before anything is called done.
//!
//! Invariant: every key of the ledger is asked for; a sample (or all) of the values and expiries is compared
//! through the layout. A key that is gone or differs is counted, never explained away.

use crate::lane::{Shared, now_ms};
use crate::ledger::FrameReader;
use crate::route::RouteRun;
use bytes::Bytes;
use schemas::key::key_hash;
use schemas::plan::OnConflict;
use serde::{Deserialize, Serialize};
use stages::Result;
use stages::load::Difference;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Keys whose values a sample compares, per route, about.
pub const SAMPLE: u64 = 1_000;
/// Keys asked for in one exchange.
const KEYS_PER_EXCHANGE: usize = 8_192;

/// What a read-back covered and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    /// Keys whose existence was checked.
    pub counted: u64,
    /// Keys whose value and expiry were compared.
    pub compared: u64,
    /// Keys missing, though not expired.
    pub missing: u64,
    /// Keys with another value or expiry.
    pub different: u64,
    /// Keys that hold a newer version than was read: an application wrote them.
    pub newer: u64,
    /// Up to five of the missing and different, by name.
    pub examples: Vec<String>,
}

impl ReadBack {
    /// Adds another route's findings.
    pub fn add(&mut self, other: &Self) {
        self.counted += other.counted;
        self.compared += other.compared;
        self.missing += other.missing;
        self.different += other.different;
        self.newer += other.newer;
        self.examples.extend(other.examples.iter().take(5 - self.examples.len().min(5)).cloned());
    }

    /// Keys missing or different.
    pub fn differences(&self) -> u64 {
        self.missing + self.different
    }

    /// Counts a key whose version cannot be read, so that nothing tells whether it is newer.
    pub(crate) fn note_unreadable(&mut self, key: &[u8]) {
        self.different += 1;
        self.example(key, "a version that cannot be read");
    }

    /// Counts a stream that no partition made.
    pub(crate) fn note_stray(&mut self, key: &[u8]) {
        self.different += 1;
        self.example(key, "a stream of no partition");
    }

    /// Counts a key that is not as it was written.
    pub(crate) fn note(&mut self, key: &[u8], difference: Difference) {
        let what = match difference {
            Difference::Missing => {
                self.missing += 1;
                "missing"
            }
            Difference::Value => {
                self.different += 1;
                "another value"
            }
            Difference::Expiry => {
                self.different += 1;
                "another expiry"
            }
        };
        self.example(key, what);
    }

    fn example(&mut self, key: &[u8], what: &str) {
        if self.examples.len() < 5 {
            self.examples.push(format!("{} ({what})", String::from_utf8_lossy(key)));
        }
    }
}

type Expected = (Bytes, u64, i64);

/// How thorough a read-back is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// About [`SAMPLE`] values per route are compared; that no key is missing is proven by the size of the database.
    SampleOnly,
    /// Every key is asked for, about [`SAMPLE`] values per route are compared.
    Sample,
    /// Every value is compared.
    Full,
}

/// Whether the size of the database alone proves that every key is there: it was empty when it was claimed, every ledger
/// entry is one key, and it now holds exactly these keys and the run's mark. A key that has expired by now makes it smaller,
/// so that every key is asked for.
pub async fn is_count_proven(shared: &Shared, routes: &[Arc<RouteRun>]) -> Result<bool> {
    let mut expected = 1;
    for route in routes {
        let plan = &route.bound.route;
        let is_blank = route.target_was_empty.load(Ordering::Relaxed) && route.has_own_keys;
        let is_key_once = route.bound.key_is_proven_unique || route.bound.is_stream();
        if !is_blank || plan.on_conflict != OnConflict::Replace || !is_key_once {
            return Ok(false);
        }
        expected += shared.ledger.entries(route.name())?;
    }
    Ok(shared.sink.state().await?.entries == expected)
}

/// Reads one route back.
pub async fn read_back(shared: &Shared, route: &RouteRun, tier: Tier) -> Result<ReadBack> {
    let is_full = tier == Tier::Full;
    let mut found = ReadBack::default();
    let entries = shared.ledger.entries(route.name())?;
    let every = u128::from((entries / SAMPLE).max(1));
    // An existing key that was kept holds the application's value: only its existence can be asked for.
    let compares = route.bound.route.on_conflict != OnConflict::Keep;
    let mut sample: HashMap<Bytes, (u64, i64)> = HashMap::new();
    let mut waiting: Vec<Expected> = Vec::with_capacity(KEYS_PER_EXCHANGE);
    for path in shared.ledger.files(route.name())? {
        let mut reader = FrameReader::open(&path)?;
        while let Some(frame) = reader.next_frame()? {
            for (key, hash, expires_ms) in frame.iter() {
                if compares && !is_full && key_hash(key).is_multiple_of(every) {
                    sample.insert(Bytes::copy_from_slice(key), (hash, expires_ms));
                }
                if tier != Tier::SampleOnly {
                    waiting.push((Bytes::copy_from_slice(key), hash, expires_ms));
                }
            }
            if tier == Tier::SampleOnly {
                found.counted += frame.len() as u64;
            }
            if waiting.len() >= KEYS_PER_EXCHANGE {
                let asked = std::mem::take(&mut waiting);
                for key in exchange(shared, route, is_full && compares, &asked, &mut found).await? {
                    sample.remove(&key);
                }
            }
        }
    }
    // What is missing was counted already.
    for key in exchange(shared, route, is_full && compares, &waiting, &mut found).await? {
        sample.remove(&key);
    }
    let sampled: Vec<Expected> =
        sample.into_iter().map(|(key, (hash, expires_ms))| (key, hash, expires_ms)).collect();
    compare(shared, route, &sampled, &mut found, false).await?;
    Ok(found)
}

/// Asks for keys; returns those that are missing.
async fn exchange(
    shared: &Shared,
    route: &RouteRun,
    compares_all: bool,
    expected: &[Expected],
    found: &mut ReadBack,
) -> Result<Vec<Bytes>> {
    if expected.is_empty() {
        return Ok(Vec::new());
    }
    if compares_all {
        found.counted += expected.len() as u64;
        return compare(shared, route, expected, found, false).await;
    }
    // Keys that have expired meanwhile are rightly gone.
    let now = now_ms();
    let living: Vec<Expected> = expected
        .iter()
        .filter(|(_, _, expires)| *expires == 0 || *expires > now)
        .cloned()
        .collect();
    let keys: Vec<Bytes> = living.iter().map(|(key, _, _)| key.clone()).collect();
    found.counted += keys.len() as u64;
    let existing = shared.sink.count_existing(&keys).await?;
    if existing == keys.len() as u64 {
        return Ok(Vec::new());
    }
    compare(shared, route, &living, found, true).await
}

/// Compares values; returns the keys that are missing.
async fn compare(
    shared: &Shared,
    route: &RouteRun,
    expected: &[Expected],
    found: &mut ReadBack,
    only_missing: bool,
) -> Result<Vec<Bytes>> {
    let mut missing = Vec::new();
    for slice in expected.chunks(KEYS_PER_EXCHANGE) {
        let differences = shared.sink.compare(&route.bound, slice).await?;
        if !only_missing {
            found.compared += slice.len() as u64;
        }
        for (index, difference) in differences {
            if difference == Difference::Missing {
                missing.push(slice[index].0.clone());
            }
            if !only_missing || difference == Difference::Missing {
                found.note(&slice[index].0, difference);
            }
        }
    }
    Ok(missing)
}

/// Says what a sample of `compared` keys would have found: with 95 % probability at least one of the damaged
/// keys, if at least this share of them were damaged (`1 - 0.05^(1/n)`, the rule of three for large n).
pub fn detection_power(compared: u64) -> String {
    if compared == 0 {
        return "no value was compared".into();
    }
    let share = 1.0 - 0.05_f64.powf(1.0 / compared as f64);
    format!(
        "damage of {:.2} % of all values or more, evenly spread, with 95 % probability",
        share * 100.0
    )
}
