//! What a resume keeps of a route whose changed rows do not tell the others of their keys.
//!
//! Invariant: a partition is kept only where the source shows that it has the very rows it was read with; every other one
//! starts over with the same cut, under the snapshot that showed it.

use crate::checkpoint::Status;
use crate::engine::Engine;
use crate::journal::{PartitionRecord, RouteRecord};
use crate::outcome::from_journal;
use crate::route::RouteRun;
use schemas::PartitionId;
use stages::Result;
use stages::extract::ReadBefore;

/// Starts the partitions of a route over that may have changed since they were read; returns how many are kept. Where
/// that is none, nothing was done.
pub(super) async fn keep_unchanged(
    engine: &Engine,
    route: &RouteRun,
    record: &mut RouteRecord,
    partitions: &[PartitionRecord],
) -> Result<usize> {
    let shared = &engine.shared;
    let mut read = Vec::new();
    for partition in partitions.iter().filter(|partition| partition.status == Status::Done) {
        // Read in two snapshots it is the state of neither.
        let Some(id) = partition.first_snapshot.filter(|id| partition.last_snapshot == Some(*id))
        else {
            continue;
        };
        if let Some(snapshot) = shared.snapshots.get(id).await {
            read.push((partition, snapshot));
        }
    }
    if read.is_empty() {
        return Ok(0);
    }
    let parts: Vec<ReadBefore<'_>> = read
        .iter()
        .map(|(record, snapshot)| ReadBefore {
            bounds: &record.partition.bounds,
            xmin: snapshot.xmin,
            rows: record.counts.rows,
        })
        .collect();
    let Some((snapshot, same)) = route.source.unchanged(&parts).await? else { return Ok(0) };
    let kept: Vec<PartitionId> = read
        .iter()
        .zip(same)
        .filter(|((_, before), is_same)| *is_same && snapshot.continues(before))
        .map(|((record, _), _)| record.partition.id.clone())
        .collect();
    if kept.is_empty() {
        return Ok(0);
    }
    // What is read from now on has to be of the state that was looked at, which the kept partitions show too.
    route.start_over();
    let id = shared.snapshots.record(&snapshot).await?;
    route.accept_snapshot(id)?;
    record.caught_up = Some(id);
    let is_part = kept.len() < partitions.len();
    if is_part {
        // A file forgets what a partition wrote when it is begun anew.
        record.reconcile |= !shared.sink.is_file() && shared.ledger.entries(&record.name)? > 0;
        record.completed_ms = None;
    }
    // Journaled first: a crash in between must not forget that keys have to be looked for.
    shared.journal.update_route(record).await.map_err(from_journal)?;
    if is_part {
        let (run_id, name) = (&shared.run_id, &record.name);
        shared.journal.reset_partitions(run_id, name, &kept).await.map_err(from_journal)?;
    }
    Ok(kept.len())
}
