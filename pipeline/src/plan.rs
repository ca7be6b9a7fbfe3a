//! `rekindle plan`: what a rebuild would do, without doing it.
//!
//! Invariant: it writes nothing, neither to the target nor under `--state`; every figure says whether it is
//! measured, derived or unknown.

mod foreseen;
mod held;
pub mod lost;
mod measured;
mod memory;
mod notes;
mod predicted;
mod readable;
pub mod sample;
mod text;

use foreseen::Rebuild;
pub(crate) use foreseen::{RestoresForeseen, of_restores_of};
use held::Held;
pub use memory::MemoryReport;
use notes::{cut_over_notes, target_notes};
pub(crate) use predicted::WHOLE;
pub use predicted::{FittedTo, Predicted};
pub(crate) use readable::commands;
pub(crate) use text::mib;
use text::on_conflict;

use crate::bench::{Needed, Quota};
use crate::checkpoint::commit_interval;
use crate::documents;
use crate::keys::Buckets;
use crate::prepare::PARTITIONS_PER_LANE;
use crate::rebuild::{
    COMMIT_COST_GUESS, CRASH_EVERY, Options, connect, patiently, selected_routes,
};
use crate::route::RouteRun;
use crate::tuning::Lanes;
use crate::wiring::{self, Described, Facts, Sources};
use schemas::plan::{Layout, OnCollision};
use schemas::{Bounds, Column, Plan};
use serde::Serialize;
use stages::Error;
use stages::extract::{BATCH_BYTES, Estimate};
use stages::load::Sink;
use stages::load::redis::RedisSink;
use std::sync::Arc;

/// Resident memory that a run adds to what `plan` itself uses: journal, TLS, allocator slack. Measured on
/// rebuilds of 1 M to 5 M rows (see `benches/README.md`) and rounded up.
pub(crate) const RUN_BASE_BYTES: u64 = 24 << 20;
/// What one lane holds beside its batches: its connection's buffers and its thread's allocator arena.
pub(crate) const LANE_BASE_BYTES: u64 = 2 << 20;
/// Ledger bytes per row beside the key: half of the value hash and expiry columns compress away.
const LEDGER_ROW_BYTES: u64 = 14;

/// What a rebuild would do.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// Always `rebuild redis`.
    pub command: String,
    /// Fingerprint that a resume compares.
    pub fingerprint: String,
    /// `host:port/database`, or what names another system; several with a comma between.
    pub source: String,
    /// The same, with the word of each system.
    #[serde(skip)]
    pub sources: Vec<(&'static str, String)>,
    /// What one batch may hold.
    #[serde(skip)]
    pub batch_bytes: u64,
    /// How many batches one lane may hold.
    #[serde(skip)]
    pub lane_batches: u64,
    /// `host:port/db`.
    pub target: TargetReport,
    /// Partitions at once, at first.
    pub lanes: usize,
    /// Partitions at once at most: the run adds lanes as long as that makes it faster. The memory bound counts these.
    pub lanes_max: usize,
    /// The recovery time objective.
    pub rto_seconds: u64,
    /// Upper bound of this process's resident memory during the run.
    pub memory_bound_bytes: u64,
    /// The part of it that was measured now or is fixed.
    pub memory_base_bytes: u64,
    /// The part of it that a pass over all keys of the largest route takes (after an interruption, or to check keys).
    pub memory_keys_bytes: u64,
    /// Source bytes that may be sent and not yet answered when the process dies.
    pub in_flight_bytes: u64,
    /// Seconds between checkpoints: work lost per crash, beside what is in flight.
    pub checkpoint_seconds: f64,
    /// Bytes the ledger under `--state` will take, about.
    pub ledger_bytes: Option<u64>,
    /// What the run would add to the target's memory.
    pub memory: MemoryReport,
    /// Routes in the order they would run.
    pub routes: Vec<RouteReport>,
    /// Sum of the estimates; absent when one is unknown.
    pub rows_estimate: Option<u64>,
    /// How long it will take; absent where no such run was measured yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
    /// How many lanes, Redis nodes and machines would meet the RTO; absent where the time is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<Needed>,
    /// Limits of others that it would meet.
    pub quotas: Vec<Quota>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// The target as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct TargetReport {
    /// `host:port/db`.
    pub address: String,
    /// Product and version.
    pub version: String,
    /// Entries in the database.
    pub entries: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Memory limit; absent when there is none.
    pub limit_bytes: Option<u64>,
    /// What happens at the limit.
    pub eviction: String,
}

/// One route of a plan report.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RouteReport {
    /// Route name.
    pub name: String,
    /// Table or query.
    pub table: String,
    /// Key template.
    pub key: String,
    /// Layout.
    pub layout: String,
    /// Priority.
    pub priority: u32,
    /// How it is cut: `ctid`, `split_by`, `table partitions` or `whole`.
    pub cut: String,
    /// Partitions.
    pub partitions: usize,
    /// Routes that the same pass over the table serves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_with: Vec<String>,
    /// Estimated rows; absent when the source has no statistics.
    pub rows_estimate: Option<u64>,
    /// Bytes on disk that are read; absent for views and queries.
    pub bytes_estimate: Option<u64>,
    /// Bytes that are read, where the system tells beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<u64>,
    /// Bytes that the system bills, where it bills by bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_billed: Option<u64>,
    /// What proves that no two rows share a key.
    pub uniqueness: String,
    /// What happens to existing keys.
    pub on_conflict: String,
    /// When keys expire.
    pub expiry: String,
    /// What a resume does with this route.
    pub resume: String,
    /// Columns read, with their types.
    pub columns: Vec<String>,
    /// The same without their types.
    #[serde(skip)]
    pub column_names: Vec<String>,
}

/// Plans a rebuild of the selected routes.
pub async fn plan_rebuild(plan: &Plan, options: &Options) -> Result<PlanReport, Vec<Error>> {
    let one = |error: Error| vec![error];
    let chosen = selected_routes(plan, &options.routes)?;
    let (retry_for, cancel) = (options.retry_for, &options.cancel);
    let sources = connect(plan, &chosen, options).await?;
    let mut notes = Vec::new();
    if let Some(build) = options.cut_over {
        let databases = wiring::make_cut_over(plan, build).map_err(one)?;
        let built = patiently(retry_for, cancel, || databases.built()).await.map_err(one)?;
        notes.extend(cut_over_notes(&databases, built.entries));
    }
    let sink = wiring::make_sink_in(plan, options.way, options.cut_over).map_err(one)?;
    let state = patiently(retry_for, cancel, || sink.state()).await.map_err(one)?;
    let described = wiring::describe_routes(&sources, &chosen).await?;
    notes.extend(target_notes(&state));
    let lacking = patiently(retry_for, cancel, || documents::refusal(sink.as_ref(), &chosen));
    notes.extend(lacking.await.map_err(one)?.map(|why| format!("a run is refused: {why}")));
    let Reported { mut routes, batch_bytes, held_bytes, memory } =
        route_reports(&sources, &sink, described, (options.lanes, state.entries), &mut notes)
            .await
            .map_err(one)?;
    routes.sort_by_key(|route| route.priority);
    sources.release_snapshot().await;
    let rows_estimate = routes.iter().map(|route| route.rows_estimate).sum::<Option<u64>>();
    let held = Held::of(options.lanes.most as u64, &routes, (batch_bytes, held_bytes));
    let addresses = sources.addresses();
    let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    let rto = options.deadline.unwrap_or(plan.redis_objective.rto);
    let foreseen = foreseen::of_rebuild(&Rebuild {
        state: &options.state,
        from_archive: options.from_archive,
        routes: &names,
        rows: rows_estimate,
        rto_seconds: rto.as_secs(),
        memory: &memory,
    });
    notes.extend(foreseen.notes);
    Ok(PlanReport {
        command: crate::rebuild::COMMAND.to_owned(),
        fingerprint: plan.fingerprint(),
        source: joined(&addresses),
        sources: addresses,
        batch_bytes,
        lane_batches: held.lane_batches,
        target: TargetReport {
            address: sink.address().to_owned(),
            version: state.version,
            entries: state.entries,
            used_bytes: state.used_bytes,
            limit_bytes: state.limit_bytes,
            eviction: state.eviction,
        },
        lanes: options.lanes.start,
        lanes_max: options.lanes.most,
        rto_seconds: rto.as_secs(),
        memory_bound_bytes: held.base + 2 * held.batches + held.keys,
        memory_base_bytes: held.base,
        memory_keys_bytes: held.keys,
        in_flight_bytes: held.in_flight,
        checkpoint_seconds: commit_interval(COMMIT_COST_GUESS, CRASH_EVERY).as_secs_f64(),
        memory,
        ledger_bytes: rows_estimate.map(|rows| rows * LEDGER_ROW_BYTES),
        routes,
        rows_estimate,
        predicted: foreseen.predicted,
        needed: foreseen.needed,
        quotas: foreseen.quotas,
        notes,
    })
}

fn joined(addresses: &[(&'static str, String)]) -> String {
    addresses.iter().map(|(_, address)| address.as_str()).collect::<Vec<_>>().join(", ")
}

/// What is told of the routes of a plan, and the memory that they take together, in bytes.
struct Reported {
    routes: Vec<RouteReport>,
    batch_bytes: u64,
    held_bytes: u64,
    memory: MemoryReport,
}

async fn route_reports(
    sources: &Sources,
    sink: &Arc<RedisSink>,
    described: Vec<Described>,
    (lanes, entries): (Lanes, u64),
    notes: &mut Vec<String>,
) -> stages::Result<Reported> {
    let known: Vec<Facts> = described.iter().map(Described::facts).collect();
    let runs = wiring::run_routes(sources, sink, described)?;
    let mut reports = Vec::new();
    let (mut batch_bytes, mut cuts) = (BATCH_BYTES, Vec::new());
    // Each is one partition, so at most as many are read at once as there are lanes.
    let mut held: Vec<u64> = runs.iter().map(|run| run.source.held_bytes()).collect();
    held.sort_unstable_by_key(|bytes| std::cmp::Reverse(*bytes));
    let held_bytes = held.into_iter().take(lanes.most).sum();
    for (run, mut facts) in runs.iter().zip(known) {
        batch_bytes = batch_bytes.max(run.source.batch_bytes());
        let partitions = run.source.partitions(lanes.start * PARTITIONS_PER_LANE, 0).await?;
        if facts.is_counted_by_cut {
            facts.rows = Some(partitions.iter().map(|partition| partition.rows_estimate).sum());
        }
        let estimate = run.source.estimate().await?;
        if let Some(estimate) = &estimate {
            facts.rows = estimate.rows;
        }
        let name = run.name();
        if facts.rows.is_none() {
            notes.push(format!("route {name}: rows unknown (never analysed, a view or a query); no ETA until it ran"));
        }
        if !run.has_own_keys {
            notes.push(format!("route {name}: another route may render the same keys; they are replaced one by one and never removed"));
        }
        if run.bound.is_stream() && entries > 0 {
            let start = run.bound.route.keys_begin_with();
            notes.push(format!("route {name}: streams that an earlier rebuild left under {start} are removed before the first row is written"));
        }
        if partitions.iter().all(|p| p.bounds == Bounds::Whole) {
            notes.push(format!(
                "route {name}: one partition, so one lane and no checkpoint inside it"
            ));
        }
        if run.bound.is_many() && run.source.held_bytes() > 0 {
            notes.push(format!("route {name}: its rows come in no order and are sorted in files under --state, which take about what they take in BigQuery"));
        }
        let is_billed = estimate.is_some() && !run.is_archived;
        if is_billed && wiring::needs_collision_check(&run.bound) {
            notes.push(format!("route {name}: its key columns are read, and billed, once more to check that keys are unique"));
        }
        let mut report = report(run, facts, partitions.len(), estimate);
        report.read_with = read_with(run, &runs);
        reports.push(report);
        cuts.push((run, estimate.is_none().then_some(partitions)));
    }
    let memory = memory::memory(&**sink, &cuts).await?;
    Ok(Reported { routes: reports, batch_bytes: batch_bytes as u64, held_bytes, memory })
}

/// The other routes of the pass that a route takes part in.
fn read_with(run: &RouteRun, runs: &[RouteRun]) -> Vec<String> {
    let pass_of = |run: &RouteRun| run.membership.as_ref().map(|membership| membership.pass);
    let is_other = |other: &&RouteRun| other.index != run.index && pass_of(other) == pass_of(run);
    match pass_of(run) {
        Some(_) => runs.iter().filter(is_other).map(|other| other.name().to_owned()).collect(),
        None => Vec::new(),
    }
}

fn report(
    run: &RouteRun,
    facts: Facts,
    partitions: usize,
    estimate: Option<Estimate>,
) -> RouteReport {
    let Facts { table, cut, rows, bytes, .. } = facts;
    let route = &run.bound.route;
    let uniqueness = if run.bound.is_stream() {
        let first = String::from_utf8_lossy(&route.stream_key(0)).into_owned();
        format!(
            "each partition makes one stream, from {first} on; its entries are 1-0, 2-0, and on"
        )
    } else if let Some(many) = &run.bound.many {
        match (route.layout, many.members_are_distinct) {
            (Layout::List, _) => "many rows make one key; every row is an element",
            (_, true) => "many rows make one key; its members are distinct by a unique index",
            (Layout::Set, false) => "many rows make one key; equal members are one",
            (_, false) if matches!(route.on_collision, Some(OnCollision::Last { .. })) => {
                "many rows make one key; of equal members the last by order_by stays"
            }
            (_, false) => "many rows make one key; equal members that differ otherwise end the run",
        }
        .to_owned()
    } else if run.bound.key_is_proven_unique {
        "proven by a unique index".to_owned()
    } else if wiring::needs_collision_check(&run.bound) {
        let buckets = Buckets::wanted(rows.unwrap_or(0));
        format!("checked before the first write, {buckets} spool files under --state")
    } else {
        "not proven: the last row by order_by wins".to_owned()
    };
    RouteReport {
        name: route.name.clone(),
        table,
        key: route.key.text().to_owned(),
        layout: route.layout.word().to_owned(),
        priority: route.priority,
        cut: cut.to_owned(),
        partitions,
        read_with: Vec::new(),
        rows_estimate: rows,
        bytes_estimate: (bytes > 0).then_some(bytes),
        bytes_read: estimate.and_then(|estimate| estimate.bytes_read),
        bytes_billed: estimate.map(|estimate| estimate.bytes_billed),
        uniqueness,
        on_conflict: on_conflict(route),
        expiry: route
            .expiry
            .as_ref()
            .map_or("never".into(), |e| format!("by column {}", e.column())),
        resume: match run.source.no_catch_up() {
            None if run.is_archived => {
                "continues, unless another backup was completed: then it starts over".to_owned()
            }
            None if estimate.is_some() => "continues at the same snapshot".to_owned(),
            None => "continues; rows changed since are read again".to_owned(),
            Some(_) if run.source.tells_unchanged() => {
                "keeps partitions whose rows are as they were read; the others start over"
                    .to_owned()
            }
            Some(reason) => format!("starts over, because {reason}"),
        },
        columns: run.bound.schema.columns.iter().map(told).collect(),
        column_names: run.bound.schema.columns.iter().map(|column| column.name.clone()).collect(),
    }
}

fn told(column: &Column) -> String {
    format!("{} {}", column.name, column.source_type)
}
