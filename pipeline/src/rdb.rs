//! A rebuild that writes RDB files instead of a server: what it refuses, what it needs, and how it ends.
//!
//! Invariant: a file has its name only after it was made whole, put on disk and read back, and holds each key once.

mod prove;
mod space;
mod unique;

pub use space::check as check_space;

use crate::catch_up::partitions_of;
use crate::engine::Engine;
use crate::journal::{Begun, Journal, RunStatus};
use crate::lane::Shared;
use crate::outcome::from_journal;
use crate::prepare::void_route;
use crate::progress::Phase;
use crate::rebuild::{FILES_COMMAND, Findings, ToRdb};
use crate::summary::FileSummary;
use schemas::plan::{Layout, OnCollision, OnConflict};
use schemas::{PartitionId, Position, Route};
use stages::failpoint::{Point, pass};
use stages::load::rdb::{Finished, RdbSink};
use stages::load::{Sentinel, Sink};
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// Version of the format that is written.
const RDB_VERSION: u32 = 10;

/// Why a route cannot be written into a file; `None` where it can.
pub fn refusal(route: &Route) -> Option<String> {
    if route.many.is_some() {
        return Some("many rows make one key, and a file takes a key in one piece".to_owned());
    }
    if !matches!(route.layout, Layout::Hash | Layout::String | Layout::Json) {
        return Some(format!("type {} is not written into files yet", route.layout.word()));
    }
    if route.on_conflict != OnConflict::Replace {
        let word = route.on_conflict.word();
        return Some(format!(
            "on_conflict = \"{word}\" asks what a key holds, and in a file none holds anything"
        ));
    }
    if matches!(route.on_collision, Some(OnCollision::Last { .. })) {
        return Some(
            "on_collision = \"last\" writes keys again, and a file holds each key once".to_owned(),
        );
    }
    // What follows a server in use (`catch_up`) compares versions, and is refused above.
    None
}

/// Refuses every route that cannot be written into a file, before anything is connected to.
pub fn refuse(routes: &[Route]) -> std::result::Result<(), Vec<Error>> {
    let refused = |route: &Route| {
        let message =
            format!("route {} cannot be written with --to-rdb: {}", route.name, refusal(route)?);
        let hint = "name the other routes with --route, and load this one after the import: rekindle rebuild redis --route";
        Some(Error::new(Kind::Config, message).with_hint(format!("{hint} {}", route.name)))
    };
    let refused: Vec<Error> = routes.iter().filter_map(refused).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// Removes the hidden folders of earlier runs that are over and were killed before they could.
pub async fn sweep(journal: &Journal, files: &RdbSink) -> Result<()> {
    for run in journal.runs().await.map_err(from_journal)? {
        let is_over = matches!(run.status, RunStatus::Done | RunStatus::Abandoned);
        if run.command == FILES_COMMAND
            && is_over
            && files.sentinel(&run.id).await? == Sentinel::Ours
        {
            files.release(&run.id).await?;
        }
    }
    Ok(())
}

/// Opens the ledger of a partition for an attempt; returns its length.
///
/// A file takes back what was not committed, so its ledger does too. What is in a server stays there, and in its ledger, but
/// for a stream, which each attempt replaces.
pub async fn begin(
    shared: &Shared,
    partition: &PartitionId,
    begun: &Begun,
    is_stream: bool,
) -> Result<u64> {
    if !shared.sink.is_file() {
        let committed = if is_stream { 0 } else { begun.ledger_bytes };
        return shared.ledger.begin(partition, committed);
    }
    // What the journal says of an earlier reading outlives it, for targets that cannot take back.
    let committed = if begun.position == Position::Start { 0 } else { begun.ledger_bytes };
    let entries = shared.ledger.begin_at(partition, committed)?;
    shared.sink.begin(partition, entries).await?;
    Ok(committed)
}

/// Makes the files whole, proves them where that was asked for, and gives them their names.
pub async fn complete(
    engine: &Arc<Engine>,
    files: &Arc<RdbSink>,
    (asked, started_ms, verify): (&ToRdb, i64, bool),
    findings: &mut Findings,
) -> std::result::Result<(), Vec<Error>> {
    let one = |error: Error| vec![error];
    let shared = &engine.shared;
    let mut partitions = Vec::new();
    for route in &engine.routes {
        shared.counters.enter(route.index, Phase::ReadingBack);
        let records = partitions_of(engine, route.name()).await.map_err(one)?;
        partitions.extend(records.into_iter().map(|record| record.partition.id));
    }
    unique::check(engine).await.map_err(one)?;
    let sink = Arc::clone(files);
    let finished = blocking(move || sink.finish(&partitions, started_ms)).await.map_err(one)?;
    let sink = Arc::clone(files);
    // Beside the reading: the disk has its own time.
    let synced = tokio::task::spawn_blocking(move || sink.sync());
    if verify {
        let proof = shared.stop.unless_cancelled(prove::prove(engine, files, &finished));
        let proof = proof.await.map_err(one)?;
        pass(Point::ReadBack);
        findings.read_back = Some(proof.found.clone());
        if let Some(error) = proof.difference() {
            // What was found wrong is written again by the next run.
            for record in
                shared.journal.routes(&shared.run_id).await.map_err(|e| one(from_journal(e)))?
            {
                void_route(engine, record).await.map_err(one)?;
            }
            return Err(one(error));
        }
    }
    synced.await.map_err(ended).and_then(|synced| synced).map_err(one)?;
    let (sink, replace) = (Arc::clone(files), asked.replace);
    blocking(move || sink.publish(replace)).await.map_err(one)?;
    findings.files = finished.iter().map(summary).collect();
    Ok(())
}

fn summary(file: &Finished) -> FileSummary {
    FileSummary {
        path: file.path.display().to_string(),
        bytes: file.bytes,
        keys: file.keys,
        expiring: file.expiring,
        crc64: format!("{:016x}", file.crc),
        slots: file.slots.to_string(),
        rdb_version: RDB_VERSION,
    }
}

/// Runs what waits for the disk on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

fn ended(error: tokio::task::JoinError) -> Error {
    Error::new(Kind::Internal, "the work on the rdb files did not end").with_source(error)
}
