//! Prepares a run: new or resumed, target claimed, partitions cut, and what a resume may still believe.
//!
//! Invariant: what was committed is believed only where source and target are provably the ones it was
//! committed against; everything else starts over, and its written keys are reconciled at the end.

mod failed_over;
mod files;
mod other_source;
mod start_over;
mod unchanged;

pub use other_source::refuse_other_source;
pub use start_over::{restart_route, void_route};

use crate::catch_up::{next_ordinal, partitions_of};
use crate::checkpoint::Status;
use crate::drift::{self, changed_lines};
use crate::engine::Engine;
use crate::journal::{Journal, NewRoute, NewRun, RouteRecord, RunRecord, RunStatus, ServerRecord};
use crate::lane::{Shared, now_ms};
use crate::outcome::from_journal;
use crate::rebuild::{Options, patiently};
use crate::route::RouteRun;
use crate::snapshots::Snapshots;
use failed_over::distrust_removals;
use schemas::Plan;
use schemas::drift::Drift;
use schemas::plan::Layout;
use stages::failpoint::{Point, pass};
use stages::load::{Sentinel, Sink};
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use unchanged::keep_unchanged;

/// Partitions per lane that a table is cut into at least, so that lanes end together.
pub const PARTITIONS_PER_LANE: usize = 8;
/// Role of the target in the journal's list of servers.
const TARGET: &str = "redis";

/// A run that is found or created.
pub struct Opened {
    /// The run.
    pub record: RunRecord,
    /// Whether it was there already.
    pub is_resumed: bool,
    /// How tables differ from what they were when it began; of a new run, when the last one was done.
    pub drift: Vec<Drift>,
}

/// Finds the unfinished run of this plan or creates a new one.
pub async fn open_run(
    journal: &Journal,
    plan: &Plan,
    options: &Options,
    routes: &[RouteRun],
    sink: &dyn Sink,
) -> std::result::Result<Opened, Vec<Error>> {
    let one = |error| vec![from_journal(error)];
    let unfinished = journal.unfinished_run(options.command()).await.map_err(one)?;
    match unfinished {
        Some(run) if options.fresh => {
            sink.release(&run.id).await.map_err(|error| vec![error])?;
            let status = RunStatus::Abandoned;
            journal.set_run_status(&run.id, status, Some(now_ms()), None).await.map_err(one)?;
        }
        Some(mut run) => {
            let drift = refuse_changes(journal, &run, routes).await?;
            files::refuse_elsewhere(journal, &run, sink).await.map_err(|error| vec![error])?;
            journal.note_attempt(&run.id).await.map_err(one)?;
            run.attempts += 1;
            let status = RunStatus::Running;
            journal.set_run_status(&run.id, status, None, None).await.map_err(one)?;
            return Ok(Opened { record: run, is_resumed: true, drift });
        }
        None => {}
    }
    let drift = if options.fresh { Vec::new() } else { drift::check_new(journal, routes).await? };
    let started_ms = now_ms();
    let run = NewRun {
        command: options.command().to_owned(),
        plan_fingerprint: plan.fingerprint(),
        binary_version: env!("CARGO_PKG_VERSION").to_owned(),
        lost_at_ms: options.lost_at_ms.unwrap_or(started_ms),
        lost_at_given: options.lost_at_ms.is_some(),
        started_ms,
        target_was_empty: false,
    };
    let record =
        journal.create_run(run, routes.iter().map(new_route).collect()).await.map_err(one)?;
    Ok(Opened { record, is_resumed: false, drift })
}

fn new_route(route: &RouteRun) -> NewRoute {
    NewRoute {
        name: route.name().to_owned(),
        definition: route.journaled(),
        schema_lines: route.bound.schema.identity_lines(),
        shape: route.shape.clone(),
        relations: route.source.relations(),
    }
}

/// A resumed run must mean the same: same routes, same columns. Every difference is shown; returns what changed in the
/// tables all the same.
async fn refuse_changes(
    journal: &Journal,
    run: &RunRecord,
    routes: &[RouteRun],
) -> std::result::Result<Vec<Drift>, Vec<Error>> {
    let recorded = journal.routes(&run.id).await.map_err(|error| vec![from_journal(error)])?;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut changes = Vec::new();
    for record in &recorded {
        match routes.iter().find(|route| route.name() == record.name) {
            None => changes.push(format!("- route {}", record.name)),
            Some(route) => changes.extend(changed_lines(
                &record.name,
                &lines(&record.definition),
                &lines(&route.journaled()),
            )),
        }
    }
    let added = routes.iter().filter(|route| recorded.iter().all(|r| r.name != route.name()));
    changes.extend(added.map(|route| format!("+ route {}", route.name())));
    if !changes.is_empty() {
        let changes = changes.join("\n  ");
        let message = format!("the plan's routes changed since run {} began:\n  {changes}", run.id);
        return Err(vec![Error::new(Kind::Config, message).with_hint(
            "undo the change to resume, or start over with: rekindle rebuild redis --fresh",
        )]);
    }
    drift::check_resumed(journal, run, recorded, routes).await
}

/// What the target turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// As this run left it, or claimed for the first time.
    AsLeft,
    /// The same data under another process or history: everything must be read back.
    ServerChanged,
}

/// Looks at the target, and takes back what was committed to one that is no longer there. Writes nothing to it.
pub async fn inspect_target(engine: &Engine, is_resumed: bool) -> Result<Target> {
    let shared = &engine.shared;
    let sink = &shared.sink;
    let state = sink.state().await?;
    if let Some(refusal) = &state.refusal {
        let message = format!("the target redis cannot be used: {refusal}");
        return Err(Error::new(Kind::Config, message).with_hint(
            "name a single primary of version 6.2 or newer in [redis], then: rekindle check",
        ));
    }
    let routes = engine.routes.iter().map(|route| &route.bound.route);
    crate::documents::require(sink.as_ref(), routes).await?;
    let mut was_empty = false;
    let mut target = Target::AsLeft;
    match sink.sentinel(&shared.run_id).await? {
        Sentinel::Ours => {
            let servers = shared.journal.servers(&shared.run_id).await.map_err(from_journal)?;
            let known = servers.iter().find(|server| server.role == TARGET);
            let is_same = known.is_some_and(|s| s.identity == identity_of(&state));
            if sink.is_file() {
                files::void_unless_kept(engine).await?;
            } else if !is_same {
                target = Target::ServerChanged;
                distrust_removals(engine).await?;
            }
        }
        Sentinel::Missing => {
            was_empty = state.entries == 0;
            if is_resumed {
                tracing::warn!("{}; everything is written again", files::why_missing(&**sink));
                void_written(engine).await?;
            }
        }
        Sentinel::Foreign(note) => return Err(stages::load::redis::foreign(sink.address(), &note)),
    }
    for route in &engine.routes {
        route.target_was_empty.store(was_empty, Ordering::Relaxed);
    }
    Ok(target)
}

/// Leaves this run's mark on the target, right before the first write.
pub async fn claim_target(engine: &Engine) -> Result<()> {
    let shared = &engine.shared;
    let note = format!("host={} pid={}", host_name(), std::process::id());
    if let Sentinel::Foreign(note) = shared.sink.claim(&shared.run_id, &note).await? {
        return Err(stages::load::redis::foreign(shared.sink.address(), &note));
    }
    pass(Point::TargetClaimed);
    // An earlier attempt may have left that nobody is at work.
    shared.sink.annotate(&shared.run_id, &note).await?;
    let state = shared.sink.state().await?;
    let server = ServerRecord {
        run_id: shared.run_id.clone(),
        role: TARGET.to_owned(),
        identity: identity_of(&state),
    };
    shared.journal.put_server(&server).await.map_err(from_journal)
}

fn identity_of(state: &stages::load::TargetState) -> String {
    serde_json::json!({ "process_id": state.process_id, "history_id": state.history_id })
        .to_string()
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".into())
}

/// The target lost what this run wrote: every partition starts over. The ledger stays, so that keys of rows
/// deleted since are still looked for.
pub async fn void_written(engine: &Engine) -> Result<()> {
    let shared = &engine.shared;
    for record in shared.journal.routes(&shared.run_id).await.map_err(from_journal)? {
        void_route(engine, record).await?;
    }
    Ok(())
}

/// Makes sure that every route has partitions that mean something in the source as it is now.
pub async fn cut_routes(engine: &Engine) -> Result<()> {
    let shared = &engine.shared;
    let records = shared.journal.routes(&shared.run_id).await.map_err(from_journal)?;
    for mut record in records {
        let Some(route) = engine.routes.iter().find(|route| route.name() == record.name) else {
            continue;
        };
        route.source.prepare(&shared.run_id).await?;
        let partitions = partitions_of(engine, route.name()).await?;
        let is_begun = partitions.iter().any(|partition| partition.epoch > 0);
        // What was never cut cannot have gone stale.
        let void = if partitions.is_empty() {
            None
        } else {
            why_void(route, &record, is_begun, &shared.snapshots).await?
        };
        if void.is_some() && record.relations == route.source.relations() {
            let kept = keep_unchanged(engine, route, &mut record, &partitions).await?;
            if kept > 0 {
                let of = partitions.len();
                // Where all are kept nothing more is written: what was compacted leaves out the keys that were removed.
                if kept < of {
                    shared.ledger.forget_compacted(route.name())?;
                }
                tracing::info!(route = route.name(), kept, of, "partitions are as they were read");
                continue;
            }
        }
        if let Some(reason) = void {
            tracing::warn!(route = route.name(), reason, "the route starts over");
            restart_route(engine, &mut record).await?;
        } else if !partitions.is_empty() {
            if shared.ledger.compacted(route.name()).exists() {
                // More may be written, and without it nothing tells which keys were removed: they are looked for again.
                record.reconcile = true;
                shared.journal.update_route(&record).await.map_err(from_journal)?;
                shared.ledger.forget_compacted(route.name())?;
            }
            route.cut_into(partitions.iter().map(|record| &record.partition.id));
            continue;
        }
        record.relations = route.source.relations();
        let first = next_ordinal(engine, route.name()).await?;
        let wanted = engine.shared.dials.range().start * PARTITIONS_PER_LANE;
        let cut = match engine.share {
            Some(share) => share.partitions(&*route.source, wanted, first).await?,
            None => route.source.partitions(wanted, first).await?,
        };
        route.cut_into(cut.iter().map(|partition| &partition.id));
        let ordinal = i64::try_from(first).unwrap_or(i64::MAX);
        shared.journal.add_partitions(&shared.run_id, &cut, ordinal).await.map_err(from_journal)?;
        shared.journal.update_route(&record).await.map_err(from_journal)?;
    }
    Ok(())
}

/// Why the committed positions of a route mean nothing any more; `None` when they still do.
async fn why_void(
    route: &RouteRun,
    record: &RouteRecord,
    is_begun: bool,
    snapshots: &Snapshots,
) -> Result<Option<&'static str>> {
    if !is_begun {
        // Nothing was read yet; only the cut itself may be stale.
        let is_stale = record.relations != route.source.relations();
        return Ok(is_stale.then_some("its relations are others than when it was cut"));
    }
    if route.source.no_catch_up().is_some() {
        return Ok(Some("rows changed since cannot be told from others"));
    }
    if record.relations != route.source.relations() {
        return Ok(Some("its table was rewritten, or its partitions changed"));
    }
    let session = route.source.open().await?;
    let snapshot = session.snapshot();
    let earlier = snapshots.last_like(snapshot).await;
    let continues = earlier.is_some_and(|earlier| snapshot.continues(&earlier));
    let reason = if snapshot.is_pinned() {
        "the state it began to read can no longer be read"
    } else {
        "the source is another server or an earlier state of it"
    };
    Ok((!continues).then_some(reason))
}

/// Fills the live counters with what the journal knows.
pub async fn load_counters(engine: &Engine, shared: &Shared) -> Result<()> {
    for route in &engine.routes {
        let partitions = partitions_of(engine, route.name()).await?;
        let counters = &shared.counters.routes[route.index];
        let sum =
            |of: &dyn Fn(&crate::journal::PartitionRecord) -> u64| partitions.iter().map(of).sum();
        let rows = sum(&|record| record.counts.rows);
        counters.rows.store(rows, Ordering::Relaxed);
        counters.rows_before.store(rows, Ordering::Relaxed);
        counters.rejects.store(sum(&|record| record.counts.rejects), Ordering::Relaxed);
        counters
            .rows_estimate
            .store(sum(&|record| record.partition.rows_estimate), Ordering::Relaxed);
        counters.partitions.store(partitions.len() as u64, Ordering::Relaxed);
        let done = sum(&|record| u64::from(record.status == Status::Done));
        counters.partitions_done.store(done, Ordering::Relaxed);
    }
    Ok(())
}

/// Checks keys that nothing proves unique, before the first row of their route is written.
pub async fn check_keys(engine: &Arc<Engine>) -> Result<()> {
    let shared = &engine.shared;
    for route in &engine.routes {
        if !crate::wiring::needs_collision_check(&route.bound) && !route.bound.is_many() {
            continue;
        }
        let partitions = partitions_of(engine, route.name()).await?;
        if partitions.iter().any(|partition| partition.epoch > 0) {
            continue;
        }
        shared.counters.enter(route.index, crate::progress::Phase::CheckingKeys);
        if route.bound.is_many() {
            let token = shared.stop.token();
            patiently(engine.retry_for, &token, || check_members(route)).await?;
            continue;
        }
        let cover: Vec<_> = partitions.into_iter().map(|record| record.partition).collect();
        let (scratch, token) = (shared.ledger.scratch(), shared.stop.token());
        let check = || crate::keys::check_collisions(&shared.cpu, route, &cover, &scratch);
        patiently(engine.retry_for, &token, check).await?;
    }
    Ok(())
}

/// Refuses a key of many rows in which a member has several scores or a field several values.
async fn check_members(route: &RouteRun) -> Result<()> {
    let found = route.source.contradictions().await?;
    if found == 0 {
        return Ok(());
    }
    let what = match route.bound.route.layout {
        Layout::Zset => "members of its keys have several scores",
        _ => "fields of its keys have several values",
    };
    let message = format!("route {}: {found} {what}", route.name());
    Err(Error::new(Kind::Data, message).with_hint(
        "add a column to member, or say on_collision = \"last\" with order_by; nothing was written",
    ))
}
