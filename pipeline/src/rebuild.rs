//! `rekindle rebuild redis`: the order of events of a run, from plan to proof.
//!
//! Invariant: a run ends `done` only after every route was loaded, brought to one snapshot, read back, and the
//! target was still the one that was written to.

mod assemble;
mod end;
mod run;

use crate::evidence::Recording;
use crate::guard::{Limits, Omitted};
use crate::journal::CommitHandle;
use crate::lane::now_ms;
use crate::live::Lag;
use crate::outcome::Exit;
use crate::progress::Counters;
use crate::readback::ReadBack;
use crate::share::Share;
use crate::summary::{CutOverSummary, DriftSummary, FileSummary, Summary};
use crate::tuning::Lanes;
use crate::wiring::{self, ArchiveRead, Sources};
pub use assemble::engine as assemble;
use run::Run;
use schemas::{Plan, Route};
use stages::load::redis::WayChoice;
use stages::policy::{self, Retry};
use stages::{Error, Kind};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The command's name in the journal and in summaries.
pub const COMMAND: &str = "rebuild redis";
/// The same of a rebuild into files: what one of them left, the other does not resume.
pub const FILES_COMMAND: &str = "rebuild redis --to-rdb";
/// Assumed time between crashes, for the checkpoint interval; pessimistic on purpose.
pub const CRASH_EVERY: Duration = Duration::from_hours(1);
/// Commit cost assumed until the first commits were measured: two flushes of a slow disk.
pub const COMMIT_COST_GUESS: Duration = Duration::from_millis(20);

/// How a rebuild was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where journal, ledger and rejects live.
    pub state: PathBuf,
    /// Partitions at once.
    pub lanes: Lanes,
    /// Routes to run; empty means all.
    pub routes: Vec<String>,
    /// Replaces the RTO of the plan.
    pub deadline: Option<Duration>,
    /// When the data was lost, milliseconds since 1970.
    pub lost_at_ms: Option<i64>,
    /// Abandon an unfinished run and start over.
    pub fresh: bool,
    /// Read the target back before calling it done.
    pub verify: bool,
    /// How long a system may stay away.
    pub retry_for: Duration,
    /// How long it may in the middle of a run, where that was asked for; else a part of what the RTO leaves.
    pub outage: Option<Duration>,
    /// Remove the sentinel of this dead run first.
    pub take_over: Option<String>,
    /// How hashes are written.
    pub way: WayChoice,
    /// Build in this database of the same server, and swap it with the one of the plan when it is proven.
    pub cut_over: Option<u32>,
    /// Read tables of BigQuery from the archive of the plan.
    pub from_archive: bool,
    /// Write files instead of a server.
    pub to_rdb: Option<ToRdb>,
    /// Read this part of every table only: for a run that measures. `None` reads everything.
    pub share: Option<Share>,
    /// How hard to push.
    pub limits: Limits,
    /// Cancelled by a signal.
    pub cancel: CancellationToken,
}

/// Files that are written instead of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToRdb {
    /// The folder that they are to be in.
    pub folder: PathBuf,
    /// How many, one for the slots of each node.
    pub nodes: u16,
    /// Overwrite what has their names.
    pub replace: bool,
}

impl Options {
    /// The command in the journal and in summaries.
    pub fn command(&self) -> &'static str {
        if self.to_rdb.is_some() { FILES_COMMAND } else { COMMAND }
    }
}

/// How a rebuild ended.
#[derive(Debug)]
pub struct Ended {
    /// The summary, once there was a run.
    pub summary: Option<Summary>,
    /// Everything that happened; the worst (by order) is the exit code.
    pub exits: Vec<Exit>,
    /// Errors in the order they were met.
    pub errors: Vec<Error>,
}

/// Shows progress; called by the run.
pub trait Watcher: Send + Sync {
    /// The run is about to load.
    fn begin(&self, counters: Arc<Counters>, commits: Option<CommitHandle>);
    /// A line worth showing at once.
    fn say(&self, line: &str);
    /// The run has ended.
    fn end(&self);
}

/// Everything a run found out on its way, for the summary.
#[derive(Debug, Default)]
pub struct Findings {
    /// Failures.
    pub errors: Vec<Error>,
    /// How tables differ from what they were.
    pub drift: Vec<DriftSummary>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What the read-back covered; `None` when there was none.
    pub read_back: Option<ReadBack>,
    /// Whether it compared every value.
    pub read_back_is_full: bool,
    /// How far behind its source each route was when its last pass ended, where the plan asks for it.
    pub lags: BTreeMap<String, Lag>,
    /// What was left out as asked; `None` unless the run ended so.
    pub omitted: Option<Vec<Omitted>>,
    /// Whether the run was refused before anything of it was written.
    pub is_refused: bool,
    /// What became of the cut-over, where one was asked for.
    pub cut_over: Option<CutOverSummary>,
    /// The files that were written.
    pub files: Vec<FileSummary>,
    /// What was read from the archive.
    pub archive: Vec<ArchiveRead>,
}

/// Rebuilds Redis. Never panics on bad input; every failure is in `Ended`.
pub async fn rebuild_redis(plan: &Plan, options: Options, watcher: Arc<dyn Watcher>) -> Ended {
    let clock = Instant::now();
    let rto = options.deadline.unwrap_or(plan.redis_objective.rto);
    let lost_for = options.lost_at_ms.map_or(0, |lost_at| now_ms().saturating_sub(lost_at));
    let rto_left =
        rto.saturating_sub(Duration::from_millis(u64::try_from(lost_for).unwrap_or_default()));
    policy::begin(policy::outage_max(options.outage, rto_left));
    let mut run = match Box::pin(Run::new(plan, &options)).await {
        Ok(run) => run,
        Err(errors) => return failed(errors),
    };
    watcher.begin(Arc::clone(&run.engine.shared.counters), Some(run.engine.shared.commits.clone()));
    let counters = &run.engine.shared.counters;
    let recording = Recording::begin(&options.state, &run.record.id, counters);
    let mut findings = run.work(&options, &*watcher).await;
    run.note_drift(&mut findings);
    run.cut_over(&options, &mut findings).await;
    let ended = run.end(findings, &options, clock).await;
    drop(recording);
    watcher.end();
    ended
}

fn failed(errors: Vec<Error>) -> Ended {
    let exits = errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
    Ended { summary: None, exits, errors }
}

/// Returns the routes that `--route` names, in plan order; by default all that rebuild Redis.
pub fn selected_routes(plan: &Plan, names: &[String]) -> Result<Vec<Route>, Vec<Error>> {
    let unknown: Vec<Error> = names
        .iter()
        .filter(|name| plan.routes.iter().all(|route| route.name != **name))
        .map(|name| {
            let known: Vec<&str> = plan.routes.iter().map(|route| route.name.as_str()).collect();
            Error::new(Kind::Config, format!("--route {name}: the plan has no such route"))
                .with_hint(format!("its routes are: {}", known.join(", ")))
        })
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let is_wanted = |route: &&Route| names.is_empty() || names.contains(&route.name);
    let chosen: Vec<&Route> = plan.routes.iter().filter(is_wanted).collect();
    let no_rebuild = chosen.iter().filter(|route| !route.uses.rebuild && !names.is_empty());
    let refused: Vec<Error> = no_rebuild
        .map(|route| {
            let message =
                format!("--route {}: it is a backup, redis is not rebuilt by it", route.name);
            Error::new(Kind::Config, message)
                .with_hint(format!("rekindle backup bigquery --route {}", route.name))
        })
        .collect();
    if !refused.is_empty() {
        return Err(refused);
    }
    let routes: Vec<Route> =
        chosen.into_iter().filter(|route| route.uses.rebuild).cloned().collect();
    if routes.is_empty() {
        let message = "the plan has no route that rebuilds redis";
        return Err(vec![
            Error::new(Kind::Config, message).with_hint("add a [[route]], then: rekindle plan"),
        ]);
    }
    Ok(routes)
}

/// Connects to what routes read; refuses what an archive cannot stand in for, where one is read.
pub(crate) async fn connect(
    plan: &Plan,
    chosen: &[Route],
    options: &Options,
) -> Result<Sources, Vec<Error>> {
    if options.from_archive {
        wiring::refuse_unarchived(plan, chosen)?;
    }
    let (lanes, from_archive) = (options.lanes.most, options.from_archive);
    let connect = || wiring::connect_with(plan, chosen, lanes, from_archive);
    patiently(options.retry_for, &options.cancel, connect).await.map_err(|error| vec![error])
}

/// Runs `attempt` until it works, fails for good, or `retry_for` has passed.
pub async fn patiently<T, F: Future<Output = stages::Result<T>>>(
    retry_for: Duration,
    cancel: &CancellationToken,
    attempt: impl Fn() -> F,
) -> stages::Result<T> {
    let mut retry = Retry::within(retry_for);
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        tokio::select! {
            waited = retry.wait_after(error) => waited?,
            () = cancel.cancelled() => return Err(Error::new(Kind::Cancelled, "the run was asked to stop")),
        }
    }
}
