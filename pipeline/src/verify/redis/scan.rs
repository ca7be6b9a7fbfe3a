//! Keys that no row explains: a walk over the keys of Redis, held against the keys of all rows.
//!
//! Invariant: memory is one bucket, whatever the number of keys. A key counts only where every route that it fits is
//! looked at; what is declared `[[unrouted]]`, what rekindle keeps for itself and what other routes write is left alone.

use crate::coverage::explain::{Explainer, Named};
use crate::coverage::has_duplicate;
use crate::keys::{Bucket, Buckets, Record};
use schemas::key::key_hash;
use schemas::{Plan, Route};
use stages::connect::redis::Endpoint;
use stages::extract::redis_keys::KeyScan;
use stages::{Error, Kind, Result};
use std::collections::HashSet;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// The part of the time in which a request of the walk may be on its way: all of it. Each request is a millisecond of the
/// server's time, and the lanes ask as fast as they are answered meanwhile; a walk that rests for as long as it waited
/// behind them only makes the whole last longer.
const SHARE: f64 = 1.0;

/// Tells to which routes a key belongs.
pub(super) struct Owners<'a> {
    explainer: Explainer<'a>,
    /// For each route of the plan, its number among the routes that are looked at.
    chosen: Vec<Option<usize>>,
}

impl<'a> Owners<'a> {
    /// Takes the plan and the names of the routes that are looked at, in order.
    pub(super) fn new(plan: &'a Plan, endpoint: &Endpoint, names: &[String]) -> Result<Self> {
        let place = |route: &Route| {
            // The entries of streams are compared, not their keys.
            let is_chosen = |chosen: &String| *chosen == route.name && !route.is_rebuilt_stream();
            names.iter().position(is_chosen)
        };
        Ok(Self {
            explainer: Explainer::new(plan, has_duplicate(plan, endpoint)?),
            chosen: plan.routes.iter().map(place).collect(),
        })
    }

    /// Returns the routes whose rows would explain a key; none where that is not for this verification to say.
    pub(super) fn of(&self, key: &[u8]) -> Vec<usize> {
        let Named::Routes(fitting) = self.explainer.named(key) else { return Vec::new() };
        let chosen: Option<Vec<usize>> = fitting.iter().map(|route| self.chosen[*route]).collect();
        chosen.unwrap_or_default()
    }
}

/// Walks over all keys and keeps those that the rows of a route should explain. `rows` is what the other side was
/// created for: equal keys must meet in the same bucket.
pub(super) async fn walk(
    owners: &Owners<'_>,
    endpoint: &Endpoint,
    folder: &Path,
    rows: u64,
    stop: &CancellationToken,
) -> Result<Buckets> {
    let mut present = Buckets::create(folder, "present", rows)?;
    let mut scan = KeyScan::begin(endpoint, SHARE).await?;
    while let Some(keys) = scan.next().await? {
        if stop.is_cancelled() {
            return Err(Error::new(Kind::Cancelled, "the command was asked to stop"));
        }
        for key in keys {
            if !owners.of(&key).is_empty() {
                present.push(key_hash(&key), &key)?;
            }
        }
    }
    Ok(present)
}

/// Calls `take` with every key that is present and that no row explains, each once.
pub(super) fn unexplained(
    explained: Vec<Bucket>,
    present: Vec<Bucket>,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for (explained, present) in explained.into_iter().zip(present) {
        let mut known: HashSet<u128> = HashSet::new();
        explained.for_each(&mut |record: Record| {
            known.insert(record.hash);
            Ok(())
        })?;
        present.for_each(&mut |record: Record| {
            // SCAN may tell a key twice.
            if known.insert(record.hash) { take(&record.payload) } else { Ok(()) }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_row_come_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut explained = Buckets::create(folder.path(), "explained", 200_000).unwrap();
        let mut present = Buckets::create(folder.path(), "present", 200_000).unwrap();
        let key = |number: u32| format!("k:{number}").into_bytes();
        for number in 0..1_000 {
            explained.push(key_hash(&key(number)), &[]).unwrap();
        }
        for number in [5, 999, 1_000, 7, 2_000, 1_000] {
            present.push(key_hash(&key(number)), &key(number)).unwrap();
        }
        let mut found = Vec::new();
        let (explained, present) = (explained.finish().unwrap(), present.finish().unwrap());
        unexplained(explained, present, &mut |key| {
            found.push(key.to_vec());
            Ok(())
        })
        .unwrap();
        found.sort();
        assert_eq!(found, [key(1_000), key(2_000)]);
    }
}
