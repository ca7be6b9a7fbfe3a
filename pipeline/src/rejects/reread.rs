//! Rejected rows as their source has them now.
//!
//! Invariant: a row that is not among what was found is not in the state of the source that was read.

use super::identity::Identity;
use crate::cpu::CpuPool;
use crate::route::RouteRun;
use crate::verify::redis::judge::Expected;
use crate::verify::redis::rows::{KEYS_BY_VALUE, RawRow, THEN_MS, copy};
use schemas::version::OLDEST;
use schemas::{BoundRoute, Bounds, Partition, Position};
use stages::extract::Columns;
use stages::transform::{Decoder, Style, Transform};
use stages::{RawBatch, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A row as it is now.
pub(super) enum Fresh {
    /// The route carries it.
    Carried { key: Vec<u8>, expected: Expected, row: RawRow },
    /// The route still cannot carry it.
    Rejected(String),
    /// It has expired before 1970: no key was ever kept for it.
    Expired,
    /// Several rows have its key, and nothing says which of them counts.
    Collides,
}

/// Rows by identity.
pub(super) type Found = HashMap<Vec<u8>, Fresh>;

/// Reads the rows with these identities.
pub(super) async fn reread(
    cpu: &CpuPool,
    route: &RouteRun,
    identity: &Identity,
    wanted: &Arc<HashSet<Vec<u8>>>,
) -> Result<Found> {
    let mut found = Found::new();
    let identities: Vec<&[u8]> = wanted.iter().map(Vec::as_slice).collect();
    if identity.partition(route, &[]).is_some() {
        for some in identities.chunks(KEYS_BY_VALUE) {
            if let Some(partition) = identity.partition(route, some) {
                read(cpu, route, identity, wanted, &partition, &mut found).await?;
            }
        }
    } else {
        for partition in route.source.partitions(1, 0).await? {
            read(cpu, route, identity, wanted, &partition, &mut found).await?;
        }
    }
    Ok(found)
}

async fn read(
    cpu: &CpuPool,
    route: &RouteRun,
    identity: &Identity,
    wanted: &Arc<HashSet<Vec<u8>>>,
    partition: &Partition,
    found: &mut Found,
) -> Result<()> {
    let session = route.source.open().await?;
    let mut stream = session.read(partition, &Position::Start, Columns::All);
    while let Some(raw) = stream.next().await {
        let raw = raw?;
        let search = Search {
            // As of 1970, so that a row that has expired has a key too.
            transform: (route.transform)(&partition.bounds, Style::Blank),
            decoder: (route.decoder_of)(&partition.bounds),
            bound: Arc::clone(&route.bound),
            bounds: partition.bounds.clone(),
            identity: identity.clone(),
            wanted: Arc::clone(wanted),
        };
        for (identity, fresh) in cpu.submit(move || search.of_batch(&raw)).await? {
            let fresh = if found.contains_key(&identity) { Fresh::Collides } else { fresh };
            found.insert(identity, fresh);
        }
    }
    Ok(())
}

/// How the rows of a batch are looked through; runs on the transform threads.
struct Search {
    transform: Arc<dyn Transform>,
    decoder: Decoder,
    bound: Arc<BoundRoute>,
    bounds: Bounds,
    identity: Identity,
    wanted: Arc<HashSet<Vec<u8>>>,
}

impl Search {
    fn of_batch(&self, raw: &RawBatch) -> Result<Vec<(Vec<u8>, Fresh)>> {
        let decoded = self.decoder.decode(raw, &self.bound.schema)?;
        let identities = self.identity.of_rows(&self.bound, &decoded.rows)?;
        let mut found = Vec::new();
        for (row, identity) in identities.into_iter().enumerate() {
            let Some(identity) = identity.filter(|identity| self.wanted.contains(identity)) else {
                continue;
            };
            let single = self.decoder.pick(&decoded, &[row])?;
            found.push((identity, self.of_row(single)?));
        }
        Ok(found)
    }

    fn of_row(&self, single: RawBatch) -> Result<Fresh> {
        let encoded = self.transform.apply(copy(&single), THEN_MS)?;
        if let Some(rejected) = &encoded.rejected {
            return Ok(Fresh::Rejected(rejected.reasons.join("; ")));
        }
        let Some((key, entry)) = encoded.keyed().next() else { return Ok(Fresh::Expired) };
        let version = encoded.versions.first().copied().unwrap_or(OLDEST);
        let expected = Expected { hash: entry.value_hash, expires_ms: entry.expires_ms, version };
        let row = RawRow { bounds: self.bounds.clone(), raw: single };
        Ok(Fresh::Carried { key: key.to_vec(), expected, row })
    }
}
