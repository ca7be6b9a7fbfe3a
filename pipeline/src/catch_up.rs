//! Catch-up: after a run that used more than one snapshot, brings every row to one last snapshot.
//!
//! Invariant: when it returns, each route's keys equal the source as of one snapshot: rows whose versions an
//! earlier snapshot may not have seen were read again, keys of rows that are gone were removed.

use crate::engine::Engine;
use crate::journal::{PartitionRecord, RouteRecord};
use crate::outcome::from_journal;
use crate::progress::Phase;
use crate::rebuild::patiently;
use crate::reconcile::{Reconciled, reconcile};
use crate::route::RouteRun;
use schemas::{Bounds, Partition};
use stages::failpoint::{Point, pass};
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// Rounds after which a source whose snapshots change faster than they can be read is given up.
const ROUNDS_MAX: usize = 5;

/// What a catch-up did for one route.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CaughtUp {
    /// Id of the snapshot the route now shows; absent when it has no partition.
    pub snapshot: Option<i64>,
    /// Keys removed because their rows are gone, by the whole run.
    pub dropped: u64,
    /// File that names them.
    pub names: Option<std::path::PathBuf>,
}

/// Brings one route up to date. All its ordinary partitions must be done.
pub async fn catch_up(
    engine: &Arc<Engine>,
    route: &Arc<RouteRun>,
    record: &mut RouteRecord,
) -> std::result::Result<CaughtUp, Vec<Error>> {
    for _ in 0..ROUNDS_MAX {
        let partitions = partitions_of(engine, route.name()).await.map_err(one)?;
        let Some(shown) = shown_snapshot(&partitions, record) else {
            return Ok(CaughtUp::default());
        };
        let (retry_for, stop) = (engine.retry_for, engine.shared.stop.token());
        let open = || current_snapshot(engine, route);
        let current = patiently(retry_for, &stop, open).await.map_err(one)?;
        if shown != current && route.source.no_catch_up().is_none() {
            engine.shared.counters.enter(route.index, Phase::CatchingUp);
            record.reconcile = true;
            record.caught_up = Some(read_changes(engine, route, &partitions, shown).await?);
            pass(Point::ChangesRead);
            store(engine, record).await.map_err(one)?;
            continue;
        }
        if !record.reconcile {
            return Ok(CaughtUp { snapshot: Some(shown), ..CaughtUp::default() });
        }
        engine.shared.counters.enter(route.index, Phase::CatchingUp);
        let cover: Vec<Partition> = partitions
            .into_iter()
            .map(|record| record.partition)
            .filter(|partition| !matches!(partition.bounds, Bounds::ChangedSince { .. }))
            .collect();
        let reconciling = reconcile(&engine.shared, route, &cover);
        let outcome = engine.shared.stop.unless_cancelled(reconciling).await;
        let Reconciled { snapshot, dropped, is_total } = match outcome {
            // The snapshot was replaced on the way: what it proved is void, catch up again.
            Err(error) if error.kind() == Kind::SnapshotLost => continue,
            other => other.map_err(one)?,
        };
        let read_in = match &snapshot {
            Some(snapshot) => engine.shared.snapshots.record(snapshot).await.map_err(one)?,
            None => shown,
        };
        // Kept across rounds and resumes.
        record.dropped_keys = if is_total { dropped } else { record.dropped_keys + dropped };
        record.reconcile = read_in != shown;
        store(engine, record).await.map_err(one)?;
        if record.reconcile {
            continue;
        }
        let dropped = record.dropped_keys;
        let names = (dropped > 0).then(|| engine.shared.ledger.dropped_names(route.name()));
        return Ok(CaughtUp { snapshot: Some(shown), dropped, names });
    }
    Err(one(Error::new(
        Kind::SnapshotLost,
        format!(
            "route {} could not be read under one last snapshot in {ROUNDS_MAX} rounds",
            route.name()
        ),
    )
    .with_hint("raise snapshot_max of [alloydb], then run the same command again")))
}

/// The earliest snapshot that some row of the route may still show.
fn shown_snapshot(partitions: &[PartitionRecord], record: &RouteRecord) -> Option<i64> {
    let earliest = partitions
        .iter()
        .filter(|partition| !matches!(partition.partition.bounds, Bounds::ChangedSince { .. }))
        .filter_map(|partition| partition.first_snapshot)
        .min()?;
    Some(record.caught_up.map_or(earliest, |caught_up| caught_up.max(earliest)))
}

/// Reads what may have changed since `shown`; returns the snapshot the route shows afterwards.
async fn read_changes(
    engine: &Arc<Engine>,
    route: &Arc<RouteRun>,
    partitions: &[PartitionRecord],
    shown: i64,
) -> std::result::Result<i64, Vec<Error>> {
    let since = engine.shared.snapshots.get(shown).await.ok_or_else(|| {
        one(Error::new(Kind::Internal, format!("snapshot {shown} is not in the journal")))
    })?;
    let first = next_ordinal(engine, route.name()).await.map_err(one)?;
    let changed = route.source.catch_up(since.xmin, first);
    let ordinal = partitions.iter().map(|p| p.ordinal).max().unwrap_or(0) + 1;
    let shared = &engine.shared;
    shared
        .journal
        .add_partitions(&shared.run_id, &changed, ordinal)
        .await
        .map_err(|error| one(from_journal(error)))?;
    let pending: Vec<PartitionRecord> = partitions_of(engine, route.name())
        .await
        .map_err(one)?
        .into_iter()
        .filter(|record| changed.iter().any(|partition| partition.id == record.partition.id))
        .collect();
    let counters = &shared.counters.routes[route.index];
    counters.partitions.fetch_add(pending.len() as u64, std::sync::atomic::Ordering::Relaxed);
    let failures = engine.run_round(pending).await;
    if shared.stop.is_run_cancelled() {
        return Err(one(Error::new(Kind::Cancelled, "the run was asked to stop")));
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    let done = partitions_of(engine, route.name()).await.map_err(one)?;
    done.iter()
        .filter(|record| changed.iter().any(|partition| partition.id == record.partition.id))
        .filter_map(|record| record.first_snapshot)
        .min()
        .ok_or_else(|| one(Error::new(Kind::Cancelled, "the run was asked to stop")))
}

/// Returns the route's partitions that are not void.
pub async fn partitions_of(engine: &Engine, route: &str) -> Result<Vec<PartitionRecord>> {
    let shared = &engine.shared;
    let all = shared.journal.partitions(&shared.run_id).await.map_err(from_journal)?;
    Ok(all.into_iter().filter(|record| record.partition.route == route).collect())
}

/// Returns the first number that no partition of the route, void ones included, has used in its name.
pub async fn next_ordinal(engine: &Engine, route: &str) -> Result<usize> {
    let shared = &engine.shared;
    let mut all = shared.journal.partitions(&shared.run_id).await.map_err(from_journal)?;
    all.extend(shared.journal.void_partitions_of(&shared.run_id).await.map_err(from_journal)?);
    let numbers =
        all.iter().filter(|record| record.partition.route == route).filter_map(|record| {
            record
                .partition
                .id
                .0
                .rsplit_once('/')
                .and_then(|(_, number)| number.parse::<usize>().ok())
        });
    Ok(numbers.max().map_or(0, |number| number + 1))
}

async fn current_snapshot(engine: &Engine, route: &RouteRun) -> Result<i64> {
    let session = route.source.open().await?;
    engine.shared.snapshots.record(session.snapshot()).await
}

async fn store(engine: &Engine, record: &RouteRecord) -> Result<()> {
    engine.shared.journal.update_route(record).await.map_err(from_journal)
}

fn one(error: Error) -> Vec<Error> {
    vec![error]
}
