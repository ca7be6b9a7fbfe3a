//! Puts the parts of a run together.
//!
//! Invariant: the ledger is made durable before every commit of the journal.

use super::{COMMIT_COST_GUESS, CRASH_EVERY, Options};
use crate::checkpoint::commit_interval;
use crate::cpu::CpuPool;
use crate::engine::Engine;
use crate::growth::Growth;
use crate::guard::Guard;
use crate::journal::{Committer, Journal, RunRecord};
use crate::lane::Shared;
use crate::ledger::Ledger;
use crate::progress::Counters;
use crate::refused::Refusals;
use crate::rejects::RejectWriter;
use crate::route::RouteRun;
use crate::snapshots::Snapshots;
use crate::stop::StopSwitch;
use crate::tuning::Dials;
use schemas::Plan;
use stages::extract::Gauge;
use stages::load::Sink;
use std::sync::Arc;

/// Makes the engine of a run: ledger, committer, counters, transform threads. Fails where the state folder cannot be
/// written.
pub async fn engine(
    plan: &Plan,
    options: &Options,
    run: &RunRecord,
    journal: Journal,
    (sink, gauge): (Arc<dyn Sink>, Option<Arc<dyn Gauge>>),
    routes: Vec<RouteRun>,
) -> stages::Result<Arc<Engine>> {
    let ledger = Arc::new(Ledger::open(&options.state, &run.id)?);
    let synced = Arc::clone(&ledger);
    let interval = commit_interval(COMMIT_COST_GUESS, CRASH_EVERY);
    let (commits, _task) = Committer::start(
        journal.clone(),
        run.id.clone(),
        interval,
        Arc::new(move |partitions| synced.sync(partitions)),
    );
    let names: Vec<String> = routes.iter().map(|route| route.name().to_owned()).collect();
    let rto = options.deadline.unwrap_or(plan.redis_objective.rto);
    let growth = if sink.is_file() { Growth::NONE } else { Growth::OF_REDIS };
    let counters = Counters::new(&names, run.lost_at_ms, rto.as_secs()).growing(growth);
    let shared = Shared {
        run_id: run.id.clone(),
        snapshots: Snapshots::load(journal.clone(), &run.id).await?,
        refusals: Refusals::default(),
        rejects: RejectWriter::new(&options.state, &run.id, &plan.fingerprint()),
        journal,
        commits,
        sink,
        cpu: CpuPool::new()?,
        ledger,
        guard: Guard::new(options.limits.clone(), routes.len()),
        dials: Dials::new(options.lanes, options.limits.redis_latency),
        counters: Arc::new(counters),
        stop: StopSwitch::new(options.cancel.clone()),
    };
    Ok(Arc::new(Engine {
        shared: Arc::new(shared),
        routes: routes.into_iter().map(Arc::new).collect(),
        retry_for: options.retry_for,
        gauge,
        outage: options.outage,
        share: options.share,
        rto_ends_ms: run
            .lost_at_ms
            .saturating_add(i64::try_from(rto.as_millis()).unwrap_or(i64::MAX)),
    }))
}
