//! Starts routes over: their partitions, and what the ledger knows of them.
//!
//! Invariant: that keys of rows that are gone have to be looked for is journaled before anything that was committed is given
//! up, so that a crash in between cannot forget it.

use crate::engine::Engine;
use crate::journal::RouteRecord;
use crate::outcome::from_journal;
use crate::route::RouteRun;
use stages::Result;
use std::sync::Arc;

/// Starts one route over with the same cut; keys of rows deleted since are looked for at its end.
pub async fn void_route(engine: &Engine, mut record: RouteRecord) -> Result<()> {
    let shared = &engine.shared;
    note_written(engine, &mut record).await?;
    let reset = shared.journal.reset_partitions(&shared.run_id, &record.name, &[]);
    reset.await.map_err(from_journal)?;
    forget_written(engine, &record.name)
}

/// Voids the partitions of a route, so that it can be cut anew; keys of rows deleted since are looked for at its end.
pub async fn restart_route(engine: &Engine, record: &mut RouteRecord) -> Result<()> {
    let shared = &engine.shared;
    note_written(engine, record).await?;
    shared.journal.void_partitions(&shared.run_id, &record.name).await.map_err(from_journal)?;
    forget_written(engine, &record.name)?;
    if let Some(route) = route_of(engine, &record.name) {
        route.start_over();
    }
    Ok(())
}

fn route_of<'a>(engine: &'a Engine, name: &str) -> Option<&'a Arc<RouteRun>> {
    engine.routes.iter().find(|route| route.name() == name)
}

/// Whether what was written is taken back otherwise: files forget what was not committed, and streams of an earlier cut are
/// found by their names and removed before the route is written again.
fn is_taken_back(engine: &Engine, name: &str) -> bool {
    engine.shared.sink.is_file()
        || route_of(engine, name).is_some_and(|route| route.bound.is_stream())
}

/// Notes that keys of rows that are gone have to be looked for, where any may have been written.
pub(super) fn look_for_removed(engine: &Engine, record: &mut RouteRecord) -> Result<()> {
    if !is_taken_back(engine, &record.name) {
        record.reconcile |= engine.shared.ledger.entries(&record.name)? > 0;
    }
    Ok(())
}

/// Journals that, and that nothing of the route is complete.
async fn note_written(engine: &Engine, record: &mut RouteRecord) -> Result<()> {
    look_for_removed(engine, record)?;
    record.caught_up = None;
    record.completed_ms = None;
    engine.shared.journal.update_route(record).await.map_err(from_journal)?;
    if is_taken_back(engine, &record.name) {
        return Ok(());
    }
    engine.shared.ledger.doubt_route(&record.name)
}

/// Forgets what the ledger has of a route that starts over: all of it, or what was compacted.
fn forget_written(engine: &Engine, name: &str) -> Result<()> {
    let ledger = &engine.shared.ledger;
    if is_taken_back(engine, name) {
        ledger.forget_route(name)
    } else {
        ledger.forget_compacted(name)
    }
}
