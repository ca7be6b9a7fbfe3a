//! One run from its set-up to its proof: load, catch up, read back.
//!
//! Invariant: every failure is in the findings; what a failed run wrote stays known to the journal.

use super::assemble::engine;
use super::end::remove_temporary;
use super::{Findings, Options, Watcher};
use super::{connect, patiently, selected_routes};
use crate::catch_up::partitions_of;
use crate::checkpoint::Status;
use crate::cut_over::CutOverRun;
use crate::engine::{Engine, order};
use crate::guard;
use crate::journal::{Journal, RunRecord};
use crate::live;
use crate::ordered::emptied;
use crate::outcome::from_journal;
use crate::prepare::{self, Opened, Target};
use crate::progress::Phase;
use crate::readback::{ReadBack, Tier, is_count_proven, read_back};
use crate::summary::DriftSummary;
use crate::wiring::ArchiveRead;
use crate::{drift, rdb, streams, wiring};
use schemas::Plan;
use schemas::drift::Drift;
use stages::failpoint::{Point, pass};
use stages::load::rdb::RdbSink;
use stages::{Error, Kind};
use std::sync::Arc;

/// Times a target or a route may be lost and started over within one process.
const RESTARTS_MAX: usize = 3;

/// A run that is set up: connected, journaled, claimed.
pub(super) struct Run {
    pub(super) engine: Arc<Engine>,
    pub(super) plan: Plan,
    pub(super) record: RunRecord,
    pub(super) target: Target,
    pub(super) sources: wiring::Sources,
    pub(super) cut_over: Option<CutOverRun>,
    /// Where files are written instead of a server.
    pub(super) files: Option<Arc<RdbSink>>,
    /// How tables differ from what they were when this run, or the one before it, read them.
    pub(super) drift: Vec<Drift>,
    /// What is read from the archive in place of BigQuery, and what a person should know of it.
    archived: (Vec<ArchiveRead>, Vec<String>),
    /// Whether routes were written again because the target had lost what it had acknowledged.
    pub(super) has_rewritten: bool,
}

impl Run {
    pub(super) async fn new(plan: &Plan, options: &Options) -> Result<Self, Vec<Error>> {
        let one = |error: Error| vec![error];
        let chosen = selected_routes(plan, &options.routes)?;
        if options.to_rdb.is_some() {
            rdb::refuse(&chosen)?;
        }
        let wiring::Written { sink, encoding, files } =
            wiring::written(plan, options).map_err(one)?;
        let journal =
            Journal::open(&options.state).await.map_err(|error| one(from_journal(error)))?;
        prepare::refuse_other_source(&journal, options).await.map_err(one)?;
        let cut_over = match &files {
            Some(_) => None,
            None => CutOverRun::prepare(plan, options, &journal).await.map_err(one)?,
        };
        let (retry_for, cancel) = (options.retry_for, &options.cancel);
        let mut sources = connect(plan, &chosen, options).await?;
        sources.sort_in(emptied(options.state.join("sorted")).map_err(one)?);
        if let Some(files) = &files {
            rdb::sweep(&journal, files).await.map_err(one)?;
            sources.read_each_row_once();
        }
        patiently(retry_for, cancel, || sink.state()).await.map_err(one)?;
        let described = match wiring::describe_routes(&sources, &chosen).await {
            Ok(described) => described,
            Err(errors) => {
                return Err(drift::explained(&journal, &sources, &chosen, errors).await);
            }
        };
        let archived = wiring::archive_reads(&sources, &described);
        let routes = wiring::run_routes_as(&sources, &encoding, described).map_err(one)?;
        let gauge = sources.gauge().filter(|_| options.limits.watches_source());
        if let Some(gauge) = &gauge {
            gauge.check_rights().await.map_err(one)?;
        }
        if let Some(run_id) = &options.take_over {
            sink.release(run_id).await.map_err(one)?;
        }
        let opened = prepare::open_run(&journal, plan, options, &routes, &*sink).await?;
        let Opened { record: run, is_resumed, drift } = opened;
        crate::rejects::forget_old(&options.state, plan, &run.id).map_err(one)?;
        if let Some(cut_over) = &cut_over {
            cut_over.begin(&journal, &run.id).await.map_err(one)?;
        }
        let engine =
            engine(plan, options, &run, journal, (sink, gauge), routes).await.map_err(one)?;
        sources.resume_at(&engine.shared.snapshots.all().await);
        let is_swapped = cut_over.as_ref().is_some_and(|cut_over| cut_over.proven().is_some());
        let target = if is_swapped {
            // What was built serves; there is nothing left to look at in the other database.
            Target::AsLeft
        } else {
            prepare::inspect_target(&engine, is_resumed).await.map_err(one)?
        };
        let (record, plan) = (run, plan.clone());
        let has_rewritten = false;
        Ok(Self {
            engine,
            plan,
            record,
            target,
            sources,
            cut_over,
            files,
            drift,
            archived,
            has_rewritten,
        })
    }

    /// Loads, catches up and reads back; everything found is in the findings.
    pub(super) async fn work(&mut self, options: &Options, watcher: &dyn Watcher) -> Findings {
        let (archive, notes) = std::mem::take(&mut self.archived);
        let mut findings = Findings { archive, ..Findings::default() };
        for note in notes {
            watcher.say(&note);
            findings.warnings.push(note);
        }
        for drift in &self.drift {
            tracing::warn!("{drift}");
            findings.warnings.push(drift.to_string());
            findings.drift.push(DriftSummary::of(drift));
        }
        if let Some(proof) = self.cut_over.as_ref().and_then(CutOverRun::proven) {
            findings.read_back = Some(proof);
            return findings;
        }
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

    /// Adds what changed in the tables while they were read.
    pub(super) fn note_drift(&self, findings: &mut Findings) {
        let noticed = self.engine.routes.iter().flat_map(|route| route.source.drift());
        for drift in noticed.filter(|drift| !self.drift.contains(drift)) {
            findings.warnings.push(drift.to_string());
            findings.drift.push(DriftSummary::of(&drift));
        }
    }

    async fn start_over(&mut self, errors: &[Error], options: &Options) -> stages::Result<()> {
        let shared = &self.engine.shared;
        if errors.iter().any(|error| error.kind() == Kind::TargetChanged) {
            // A target that was replaced may still be on its way up.
            let (engine, cancel) = (&self.engine, &options.cancel);
            let inspect = || prepare::inspect_target(engine, true);
            let found = patiently(options.retry_for, cancel, inspect).await?;
            // Once it was another server, only a full read-back proves.
            if self.target == Target::AsLeft {
                self.target = found;
            }
        }
        if errors.iter().any(|error| error.kind() == Kind::RouteRestart) {
            let records = shared.journal.routes(&shared.run_id).await.map_err(from_journal)?;
            for mut record in records {
                let routes = &self.engine.routes;
                let Some(route) = routes.iter().find(|route| route.name() == record.name) else {
                    continue;
                };
                // Where the source tells which partitions are as they were, the next pass decides.
                if route.source.no_catch_up().is_some() && !route.source.tells_unchanged() {
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
        let stale = patiently(retry_for, cancel, || streams::look(&engine)).await.map_err(one)?;
        let fits = patiently(retry_for, cancel, || self.fits()).await;
        findings.is_refused = fits.as_ref().is_err_and(|error| error.kind() == Kind::Capacity);
        for unknown in fits.map_err(one)? {
            tracing::warn!("{unknown}");
            findings.warnings.push(unknown);
        }
        patiently(retry_for, cancel, || prepare::claim_target(&engine)).await.map_err(one)?;
        for stale in stale {
            let line = patiently(retry_for, cancel, || stale.remove(shared)).await.map_err(one)?;
            watcher.say(&line);
            findings.warnings.push(line);
        }
        self.load().await?;
        remove_temporary(shared).await.map_err(one)?;
        if shared.guard.is_full() {
            findings.omitted = Some(guard::omitted(&engine).await.map_err(one)?);
            self.sources.release_snapshot().await;
            return if options.verify { self.prove(findings).await } else { Ok(()) };
        }
        shared.guard.end_share();
        let (caught_up, lags) = live::follow(&engine, &self.sources).await?;
        for (name, caught_up) in caught_up {
            if let Some(names) = caught_up.names {
                let count = caught_up.dropped;
                let line = format!(
                    "route {name}: {count} keys belong to rows deleted since they were written; they are named in {}",
                    names.display()
                );
                watcher.say(&line);
                findings.warnings.push(line);
            }
        }
        for (name, lag) in lags.iter().filter(|(_, lag)| !lag.is_met()) {
            let line = lag.told(name);
            watcher.say(&line);
            findings.warnings.push(line);
        }
        findings.lags = lags;
        // Nothing is read from the source any more, but for a second look.
        self.sources.release_snapshot().await;
        if let (Some(files), Some(asked)) = (&self.files, &options.to_rdb) {
            let how = (asked, self.record.started_ms, options.verify);
            rdb::complete(&engine, files, how, findings).await?;
        } else if options.verify {
            self.prove(findings).await?;
        }
        for route in &engine.routes {
            shared.counters.enter(route.index, Phase::Done);
        }
        Ok(())
    }

    /// Refuses what does not fit where it is to be; returns what is unknown.
    async fn fits(&self) -> stages::Result<Vec<String>> {
        match &self.files {
            Some(files) => rdb::check_space(&self.engine, files).await,
            None => guard::fits::check(&self.engine).await,
        }
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

    /// Reads every route back; the target must still be the one that was written to, before and after.
    async fn prove(&mut self, findings: &mut Findings) -> Result<(), Vec<Error>> {
        let one = |error: Error| vec![error];
        let engine = Arc::clone(&self.engine);
        let shared = &engine.shared;
        self.meet_target().await.map_err(one)?;
        let is_full = self.target == Target::ServerChanged;
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
            let mut found = if live::compares_versions(route) {
                live::read_back(&engine, &self.sources, route).await?
            } else {
                let reading = read_back(shared, route, tier);
                shared.stop.unless_cancelled(reading).await.map_err(one)?
            };
            if route.bound.is_stream() && tier != Tier::SampleOnly {
                streams::find_strays(shared, route, &mut found).await.map_err(one)?;
            }
            if found.differences() > 0 {
                differing.push(route.name().to_owned());
            }
            total.add(&found);
        }
        self.meet_target().await.map_err(one)?;
        pass(Point::ReadBack);
        findings.read_back_is_full = is_full;
        findings.read_back = Some(total.clone());
        // What was found wrong is written again by the next run.
        let records = shared.journal.routes(&shared.run_id).await;
        for record in records.map_err(|error| one(from_journal(error)))? {
            if differing.contains(&record.name) {
                prepare::void_route(&engine, record).await.map_err(one)?;
            }
        }
        if total.differences() > 0 {
            if is_full && !std::mem::replace(&mut self.has_rewritten, true) {
                let keys = total.differences();
                let message =
                    format!("redis lost {keys} keys that another server had acknowledged");
                return Err(one(Error::new(Kind::TargetChanged, message)));
            }
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

    /// The address may lead to another server by now, which lacks what the one before it had acknowledged last: what was
    /// written as well as what was removed. Then all of it is proven anew.
    async fn meet_target(&self) -> stages::Result<()> {
        let shared = &self.engine.shared;
        let meet = || shared.sink.meet(&shared.run_id);
        patiently(self.engine.retry_for, &shared.stop.token(), meet).await?;
        if shared.sink.has_changed() {
            let message = "redis was restarted or failed over in mid-run";
            return Err(Error::new(Kind::TargetChanged, message));
        }
        Ok(())
    }
}
