//! One run from its set-up to its end: load, catch up, prove, summarise.
//!
//! Invariant: the target's mark is removed only after the read-back; a run that failed stays resumable.

use super::assemble::engine;
use super::{Ended, Findings, Options, Watcher};
use super::{failed, patiently, selected_routes};
use crate::catch_up::{catch_up, partitions_of};
use crate::checkpoint::Status;
use crate::engine::{Engine, order};
use crate::journal::{Journal, RunRecord, RunStatus};
use crate::lane::now_ms;
use crate::outcome::{Exit, from_journal};
use crate::prepare::{self, Target};
use crate::progress::Phase;
use crate::readback::{ReadBack, Tier, is_count_proven, read_back};
use crate::route::RouteRun;
use crate::summarize;
use crate::summary::{RunEnd, Summary};
use crate::wiring;
use schemas::plan::RejectsMax;
use schemas::{Plan, Route};
use stages::load::{Sentinel, Sink};
use stages::{Error, Kind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Times a target or a route may be lost and started over within one process.
const RESTARTS_MAX: usize = 3;

/// How long the end of a run may take to remove temporary keys.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A run that is set up: connected, journaled, claimed.
pub(super) struct Run {
    pub(super) engine: Arc<Engine>,
    plan: Plan,
    record: RunRecord,
    target: Target,
    sources: wiring::Sources,
}

impl Run {
    pub(super) async fn new(plan: &Plan, options: &Options) -> Result<Self, Vec<Error>> {
        let one = |error: Error| vec![error];
        let chosen = selected_routes(plan, &options.routes)?;
        let journal =
            Journal::open(&options.state).await.map_err(|error| one(from_journal(error)))?;
        let (retry_for, cancel) = (options.retry_for, &options.cancel);
        let connect = || wiring::connect_sources(plan, &chosen, options.lanes);
        let sources = patiently(retry_for, cancel, connect).await.map_err(one)?;
        let sink = wiring::make_sink(plan, options.way).map_err(one)?;
        patiently(retry_for, cancel, || sink.state()).await.map_err(one)?;
        let described = wiring::describe_routes(&sources, &chosen).await?;
        let routes = wiring::run_routes(&sources, &sink, described).map_err(one)?;
        if let Some(run_id) = &options.take_over {
            sink.release(run_id).await.map_err(one)?;
        }
        let (run, is_resumed) = prepare::open_run(&journal, plan, options, &routes, &*sink).await?;
        let engine = engine(plan, options, &run, journal, sink, routes).await.map_err(one)?;
        sources.resume_at(&engine.shared.snapshots.all().await);
        let target = prepare::inspect_target(&engine, is_resumed).await.map_err(one)?;
        Ok(Self { engine, plan: plan.clone(), record: run, target, sources })
    }

    /// Loads, catches up and reads back; everything found is in the findings.
    pub(super) async fn work(&mut self, options: &Options, watcher: &dyn Watcher) -> Findings {
        let mut findings = Findings::default();
        for _ in 0..=RESTARTS_MAX {
            match self.pass(options, watcher, &mut findings).await {
                Ok(()) => return findings,
                Err(errors) => {
                    let again = errors.iter().find(|error| {
                        matches!(error.kind(), Kind::TargetChanged | Kind::RouteRestart)
                    });
                    let Some(reason) = again else {
                        findings.errors.extend(errors);
                        return findings;
                    };
                    if self.engine.shared.stop.is_run_cancelled() {
                        findings.errors.extend(errors);
                        return findings;
                    }
                    watcher.say(&format!("starting over what was lost: {reason}"));
                    findings.warnings.push(format!("started over: {reason}"));
                    self.engine.shared.stop.renew();
                    if let Err(error) = self.start_over(&errors, options).await {
                        findings.errors.push(error);
                        return findings;
                    }
                }
            }
        }
        findings.errors.push(Error::new(
            Kind::TargetChanged,
            format!("gave up after starting over {RESTARTS_MAX} times in one run"),
        ));
        findings
    }

    async fn start_over(&mut self, errors: &[Error], options: &Options) -> stages::Result<()> {
        let shared = &self.engine.shared;
        if errors.iter().any(|error| error.kind() == Kind::TargetChanged) {
            // A target that was replaced may still be on its way up.
            let (engine, cancel) = (&self.engine, &options.cancel);
            self.target =
                patiently(options.retry_for, cancel, || prepare::inspect_target(engine, true))
                    .await?;
        }
        if errors.iter().any(|error| error.kind() == Kind::RouteRestart) {
            let records = shared.journal.routes(&shared.run_id).await.map_err(from_journal)?;
            for mut record in records {
                let cannot = |route: &&Arc<RouteRun>| {
                    route.name() == record.name && route.source.no_catch_up().is_some()
                };
                if self.engine.routes.iter().any(|route| cannot(&route)) {
                    prepare::restart_route(&self.engine, &mut record).await?;
                }
            }
        }
        Ok(())
    }

    async fn pass(
        &mut self,
        options: &Options,
        watcher: &dyn Watcher,
        findings: &mut Findings,
    ) -> Result<(), Vec<Error>> {
        let one = |error: Error| vec![error];
        let engine = Arc::clone(&self.engine);
        let shared = &engine.shared;
        shared.stop.unless_cancelled(prepare::cut_routes(&engine)).await.map_err(one)?;
        prepare::load_counters(&engine, shared).await.map_err(one)?;
        shared.stop.unless_cancelled(prepare::check_keys(&engine)).await.map_err(one)?;
        let (retry_for, cancel) = (options.retry_for, &options.cancel);
        patiently(retry_for, cancel, || prepare::claim_target(&engine)).await.map_err(one)?;
        self.load().await?;
        remove_temporary(shared).await.map_err(one)?;
        for route in &engine.routes {
            let records = shared.journal.routes(&shared.run_id).await;
            let records = records.map_err(|error| one(from_journal(error)))?;
            let Some(mut record) = records.into_iter().find(|r| r.name == route.name()) else {
                continue;
            };
            let caught_up = catch_up(&engine, route, &mut record).await?;
            if let Some(names) = caught_up.names {
                let (count, name) = (caught_up.dropped, route.name());
                let line = format!(
                    "route {name}: {count} keys belong to rows deleted since they were written; they are named in {}",
                    names.display()
                );
                watcher.say(&line);
                findings.warnings.push(line);
            }
        }
        // Nothing is read from the source any more.
        self.sources.release_snapshot().await;
        if options.verify {
            self.prove(findings).await?;
        }
        for route in &engine.routes {
            shared.counters.enter(route.index, Phase::Done);
        }
        Ok(())
    }

    async fn load(&self) -> Result<(), Vec<Error>> {
        let engine = &self.engine;
        let mut pending = Vec::new();
        for route in &engine.routes {
            engine.shared.counters.enter(route.index, Phase::Loading);
            let partitions = partitions_of(engine, route.name()).await.map_err(|e| vec![e])?;
            pending.extend(partitions.into_iter().filter(|p| p.status != Status::Done));
        }
        order(&mut pending, &engine.routes);
        let failures = engine.run_round(pending).await;
        if !failures.is_empty() {
            return Err(failures);
        }
        if engine.shared.stop.is_run_cancelled() {
            return Err(vec![Error::new(Kind::Cancelled, "the run was asked to stop")]);
        }
        Ok(())
    }

    /// Reads every route back; the target must still be the one that was written to.
    async fn prove(&self, findings: &mut Findings) -> Result<(), Vec<Error>> {
        let one = |error: Error| vec![error];
        let engine = &self.engine;
        let shared = &engine.shared;
        let is_full = self.target == Target::ServerChanged || shared.sink.has_changed();
        let tier = if is_full {
            Tier::Full
        } else if is_count_proven(shared, &engine.routes).await.map_err(one)? {
            Tier::SampleOnly
        } else {
            Tier::Sample
        };
        let mut total = ReadBack::default();
        let mut differing = Vec::new();
        for route in &engine.routes {
            shared.counters.enter(route.index, Phase::ReadingBack);
            let reading = read_back(shared, route, tier);
            let found = shared.stop.unless_cancelled(reading).await.map_err(one)?;
            if found.differences() > 0 {
                differing.push(route.name().to_owned());
            }
            total.add(&found);
        }
        match shared.sink.sentinel(&shared.run_id).await.map_err(one)? {
            Sentinel::Ours => {}
            Sentinel::Missing => {
                let message = "redis was emptied or replaced before the run was done";
                return Err(one(Error::new(Kind::TargetChanged, message)));
            }
            Sentinel::Foreign(note) => {
                return Err(one(stages::load::redis::foreign(shared.sink.address(), &note)));
            }
        }
        findings.read_back_is_full = is_full;
        findings.read_back = Some(total.clone());
        // What was found wrong is written again by the next run.
        let records = shared.journal.routes(&shared.run_id).await;
        for record in records.map_err(|error| one(from_journal(error)))? {
            if differing.contains(&record.name) {
                prepare::void_route(engine, record).await.map_err(one)?;
            }
        }
        if total.differences() > 0 {
            let message = format!(
                "the read-back found {} keys missing and {} different in {}, for example {}",
                total.missing,
                total.different,
                differing.join(", "),
                total.examples.join(", ")
            );
            let hint = "if an application writes these keys, that may be all; else run the same command again: it writes these routes again";
            return Err(one(Error::new(Kind::Difference, message).with_hint(hint)));
        }
        Ok(())
    }

    /// Ends the run in journal and target, and makes the summary.
    pub(super) async fn end(
        self,
        mut findings: Findings,
        options: &Options,
        clock: Instant,
    ) -> Ended {
        let shared = Arc::clone(&self.engine.shared);
        // No lane is at work any more. What cannot be removed now goes with the next run, or by itself in an hour.
        let removal = tokio::time::timeout(REMOVAL_TIMEOUT, remove_temporary(&shared));
        if !matches!(removal.await, Ok(Ok(()))) {
            tracing::debug!("temporary keys of an attempt that ended may be left");
        }
        let flushed = shared.commits.flush().await;
        if let Err(error) = flushed {
            findings.errors.push(from_journal(error));
        }
        let mut exits: Vec<Exit> =
            findings.errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
        if shared.stop.is_run_cancelled() {
            exits.push(Exit::Interrupted);
        }
        let is_complete = exits.is_empty();
        let status = match (is_complete, options.verify) {
            (true, true) => RunEnd::Done,
            (true, false) => RunEnd::Unverified,
            (false, _) if exits.contains(&Exit::Interrupted) => RunEnd::Interrupted,
            (false, _) => RunEnd::Failed,
        };
        let summary = summarize::summarize(
            &self.engine,
            &self.plan,
            &self.record,
            options,
            &findings,
            status,
            clock,
        )
        .await;
        let summary = match summary {
            Ok(summary) => summary,
            Err(error) => {
                findings.errors.push(error);
                return failed(findings.errors);
            }
        };
        if is_complete {
            if let Err(error) = shared.sink.release(&shared.run_id).await {
                exits.push(Exit::of_kind(error.kind()));
                findings.errors.push(error);
            }
            let over = self.over_budget(&summary);
            exits.extend(over.iter().map(|_| Exit::Rejects));
            findings.errors.extend(over);
            if !summary.within_rto || summary.within_rpo == Some(false) {
                exits.push(Exit::Objective);
            }
        }
        let mut summary = summary;
        match self.store_end(&summary, is_complete).await {
            // Only now: a run that the journal does not call done may still have to read it.
            Ok(()) if status == RunEnd::Done => summary.warnings.extend(self.discard().await),
            Ok(()) => {}
            Err(error) => {
                exits.push(Exit::of_kind(error.kind()));
                findings.errors.push(error);
            }
        }
        Ended { summary: Some(summary), exits, errors: findings.errors }
    }

    /// Removes what the sources made for this run alone; says what stays until it expires.
    async fn discard(&self) -> Vec<String> {
        let mut left = Vec::new();
        for route in &self.engine.routes {
            if let Err(error) = route.source.discard().await {
                let name = route.name();
                left.push(format!(
                    "route {name}: {error}; the result of its query expires by itself"
                ));
            }
        }
        left
    }

    async fn store_end(&self, summary: &Summary, is_complete: bool) -> stages::Result<()> {
        let shared = &self.engine.shared;
        let status = match summary.status {
            RunEnd::Done | RunEnd::Unverified => RunStatus::Done,
            RunEnd::Interrupted => RunStatus::Interrupted,
            RunEnd::Failed => RunStatus::Failed,
        };
        let text = serde_json::to_string(summary).map_err(|error| {
            Error::new(Kind::Internal, "cannot store the summary").with_source(error)
        })?;
        let ended = is_complete.then(now_ms);
        shared
            .journal
            .set_run_status(&shared.run_id, status, ended, Some(text.as_str()))
            .await
            .map_err(from_journal)
    }

    /// Routes whose rejects exceed their budget.
    fn over_budget(&self, summary: &Summary) -> Vec<Error> {
        let folder = self.engine.shared.rejects.folder().display().to_string();
        let over = |route: &Route| {
            let counts = summary.routes.iter().find(|counts| counts.name == route.name)?;
            let allowed = match route.rejects_max {
                RejectsMax::Rows(rows) => rows as f64,
                RejectsMax::Percent(share) => counts.rows as f64 * share / 100.0,
            };
            (counts.rejects as f64 > allowed).then(|| {
                Error::new(
                    Kind::Data,
                    format!(
                        "route {}: {} of {} rows were rejected, more than rejects_max allows; they are in {folder}",
                        route.name, counts.rejects, counts.rows
                    ),
                )
                .with_hint("mend the rows or the route, or raise rejects_max; everything else was written")
            })
        };
        self.engine.routes.iter().filter_map(|route| over(&route.bound.route)).collect()
    }
}

/// Removes the keys that attempts at partitions of many-row routes began to build and did not finish.
///
/// Only once no lane is at work: what a lost connection still has on its way then finds its key as it left it.
async fn remove_temporary(shared: &crate::lane::Shared) -> stages::Result<()> {
    let names = shared.ledger.temporary()?;
    if names.is_empty() {
        return Ok(());
    }
    shared.sink.remove(&names).await?;
    shared.ledger.forget_temporary()
}
