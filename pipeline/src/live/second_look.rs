//! The read-back of routes that compare versions.
//!
//! Invariant: every key of the ledger is compared by its version; one that is missing or differs is looked at again
//! after the changes of its source were read, because an application changes both while nobody holds it.

use super::one_pass;
use crate::engine::Engine;
use crate::lane::Shared;
use crate::ledger::FrameReader;
use crate::readback::ReadBack;
use crate::route::RouteRun;
use crate::wiring::Sources;
use bytes::Bytes;
use schemas::version::OLDEST;
use stages::load::{Standing, Versioned};
use stages::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Times the keys that differ are looked at again; the last time only those whose rows are at rest.
const LOOKS_MAX: usize = 4;
/// Keys that are looked at again at most; more of them are no application at work (about 100 bytes each).
const AGAIN_MAX: usize = 100_000;
/// Keys asked for in one exchange: their values are held at once.
const KEYS_PER_EXCHANGE: usize = 1_024;

/// What one look found.
#[derive(Debug, Default)]
struct Look {
    compared: u64,
    newer: u64,
    differing: HashMap<Bytes, Standing>,
    /// Keys that differ beyond those that are remembered.
    more: u64,
}

/// Reads a route back whole, by version.
pub async fn read_back(
    engine: &Arc<Engine>,
    sources: &Sources,
    route: &Arc<RouteRun>,
) -> std::result::Result<ReadBack, Vec<Error>> {
    let shared = &engine.shared;
    let one = |error: Error| vec![error];
    let looking = look(shared, route, None);
    let mut found = shared.stop.unless_cancelled(looking).await.map_err(one)?;
    for left in (0..LOOKS_MAX).rev() {
        // What is partly loaded is not caught up: its next run looks again.
        let is_partial = shared.guard.is_full();
        let is_settled = found.differing.is_empty() || found.more > 0 || is_partial;
        if is_settled || route.source.no_catch_up().is_some() {
            break;
        }
        let before = shared.ledger.raw_files(route.name()).map_err(one)?;
        sources.release_snapshot().await;
        one_pass(engine, route, &mut BTreeMap::new()).await?;
        let mut differing = std::mem::take(&mut found.differing);
        if left == 0 {
            // A row that changes all the time is never seen at rest: this pass has just written what it holds.
            let files = shared.ledger.raw_files(route.name()).map_err(one)?;
            let new = files.into_iter().filter(|file| !before.contains(file));
            let rewritten = keys_among(new, &differing).map_err(one)?;
            differing.retain(|key, _| !rewritten.contains(key));
        }
        let looking = look(shared, route, Some(&differing));
        let again = shared.stop.unless_cancelled(looking).await.map_err(one)?;
        found.newer += again.newer;
        found.differing = again.differing;
    }
    sources.release_snapshot().await;
    Ok(found.told())
}

/// Compares the keys of the ledger, or those of `only`. A key of `only` that the ledger no longer has belongs to a row
/// that is gone.
async fn look(
    shared: &Shared,
    route: &RouteRun,
    only: Option<&HashMap<Bytes, Standing>>,
) -> Result<Look> {
    let mut found = Look::default();
    let mut waiting: Vec<Versioned> = Vec::new();
    for path in shared.ledger.files(route.name())? {
        let mut reader = FrameReader::open(&path)?;
        while let Some(frame) = reader.next_frame()? {
            for (index, (key, value_hash, expires_ms)) in frame.iter().enumerate() {
                if only.is_some_and(|only| !only.contains_key(key)) {
                    continue;
                }
                let key = Bytes::copy_from_slice(key);
                let version = frame.version(index).unwrap_or(OLDEST);
                waiting.push(Versioned { key, value_hash, expires_ms, version });
            }
            while waiting.len() >= KEYS_PER_EXCHANGE {
                let rest = waiting.split_off(KEYS_PER_EXCHANGE);
                found.ask(shared, route, &waiting).await?;
                waiting = rest;
            }
        }
    }
    found.ask(shared, route, &waiting).await?;
    Ok(found)
}

/// Those of the keys that some frame of the files holds.
fn keys_among(
    files: impl Iterator<Item = PathBuf>,
    keys: &HashMap<Bytes, Standing>,
) -> Result<HashSet<Bytes>> {
    let mut found = HashSet::new();
    for path in files {
        let mut reader = FrameReader::open(&path)?;
        while let Some(frame) = reader.next_frame()? {
            let known = frame.iter().filter(|(key, ..)| keys.contains_key(*key));
            found.extend(known.map(|(key, ..)| Bytes::copy_from_slice(key)));
        }
    }
    Ok(found)
}

impl Look {
    async fn ask(
        &mut self,
        shared: &Shared,
        route: &RouteRun,
        entries: &[Versioned],
    ) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let standing = shared.sink.standing(&route.bound, entries).await?;
        self.compared += entries.len() as u64;
        for (entry, standing) in entries.iter().zip(standing) {
            // The same key may stand in the ledger more than once; what was written last is what counts.
            let before = self.differing.remove(&entry.key);
            match standing {
                Standing::AsWritten => {}
                Standing::Newer => self.newer += 1,
                _ if self.differing.len() < AGAIN_MAX || before.is_some() => {
                    self.differing.insert(entry.key.clone(), standing);
                }
                _ => self.more += 1,
            }
        }
        Ok(())
    }

    fn told(self) -> ReadBack {
        let mut told = ReadBack {
            counted: self.compared,
            compared: self.compared,
            newer: self.newer,
            different: self.more,
            ..ReadBack::default()
        };
        let mut differing: Vec<(Bytes, Standing)> = self.differing.into_iter().collect();
        differing.sort_unstable_by(|(key, _), (other, _)| key.cmp(other));
        for (key, standing) in differing {
            match standing {
                Standing::Differs(difference) => told.note(&key, difference),
                _ => told.note_unreadable(&key),
            }
        }
        told
    }
}
