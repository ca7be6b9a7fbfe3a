//! What a resumed run that writes files may still believe of them.
//!
//! Invariant: a run goes on in the folder and with the cut it began with, or not at all; what its files lack is read again.

use super::{TARGET, identity_of, void_written};
use crate::catch_up::partitions_of;
use crate::engine::Engine;
use crate::journal::{Journal, RunRecord};
use crate::outcome::from_journal;
use schemas::Position;
use stages::load::Sink;
use stages::{Error, Kind, Result};

/// Refuses to go on with files of another folder or another number of nodes.
pub(super) async fn refuse_elsewhere(
    journal: &Journal,
    run: &RunRecord,
    sink: &dyn Sink,
) -> Result<()> {
    if !sink.is_file() {
        return Ok(());
    }
    let servers = journal.servers(&run.id).await.map_err(from_journal)?;
    let Some(known) = servers.into_iter().find(|server| server.role == TARGET) else {
        return Ok(());
    };
    let state = sink.state().await?;
    if known.identity == identity_of(&state) {
        return Ok(());
    }
    let begun = serde_json::from_str::<serde_json::Value>(&known.identity).unwrap_or_default();
    let begun = begun["history_id"].as_str().unwrap_or("other files").to_owned();
    let message = format!("run {} is unfinished, and writes other files: {begun}", run.id);
    Err(Error::new(Kind::Config, message).with_hint(
        "give the same folder and number of nodes to resume it, or start over: rekindle rebuild redis --to-rdb DIR --fresh",
    ))
}

/// Starts everything over where the files lack something of what was committed: a loss of power, or somebody's hand.
pub(super) async fn void_unless_kept(engine: &Engine) -> Result<()> {
    let shared = &engine.shared;
    let mut committed = Vec::new();
    for route in &engine.routes {
        for record in partitions_of(engine, route.name()).await? {
            let bytes = if record.position == Position::Start { 0 } else { record.ledger_bytes };
            let entries = shared.ledger.entries_within(&record.partition.id, bytes)?;
            committed.push((record.partition.id, entries));
        }
    }
    if shared.sink.has_kept(&shared.run_id, &committed).await? {
        return Ok(());
    }
    tracing::warn!(
        "the rdb files lack some of what was committed, after a loss of power perhaps; everything is written again"
    );
    void_written(engine).await
}

/// Why nothing of a resumed run is at its target.
pub(super) fn why_missing(sink: &dyn Sink) -> &'static str {
    if sink.is_file() {
        "the rdb files of this run are not there"
    } else {
        "redis does not carry this run's sentinel: it was emptied or replaced"
    }
}
