//! The end of a run: cut-over, summary, and what is left in journal and target.
//!
//! Invariant: the target's mark is removed only from a run that is complete; a run that failed stays resumable.

use super::run::Run;
use super::{Ended, Findings, Options, failed};
use crate::catch_up::partitions_of;
use crate::checkpoint::Counts;
use crate::guard::PARTIAL_NOTE;
use crate::journal::RunStatus;
use crate::lane::{Shared, now_ms};
use crate::outcome::{Exit, from_journal};
use crate::summarize;
use crate::summary::{RunEnd, Summary};
use schemas::Route;
use schemas::plan::RejectsMax;
use stages::failpoint::{Point, pass};
use stages::load::Sink;
use stages::{Error, Kind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end of a run may take to remove temporary keys.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(1);

impl Run {
    /// Lets what was built and proven take the place of what serves, where that was asked for.
    pub(super) async fn cut_over(&mut self, options: &Options, findings: &mut Findings) {
        let shared = Arc::clone(&self.engine.shared);
        let is_proven = findings.errors.is_empty() && !shared.stop.is_run_cancelled();
        let over = if is_proven { self.rejects_over_budget().await } else { Ok(false) };
        let Some(cut_over) = &mut self.cut_over else { return };
        let swapped = match over {
            Ok(false) if is_proven => {
                let proof = findings.read_back.as_ref();
                cut_over.swap(&shared.journal, &shared.run_id, options, proof).await
            }
            Ok(true) => {
                let way = cut_over.summary().way_back;
                findings.warnings.push(format!(
                    "the databases are not swapped, because of the rejected rows; to take what was built all the same: {way}"
                ));
                Ok(())
            }
            other => other.map(drop),
        };
        findings.errors.extend(swapped.err());
        findings.cut_over = Some(cut_over.summary());
    }

    async fn rejects_over_budget(&self) -> stages::Result<bool> {
        for route in &self.engine.routes {
            let partitions = partitions_of(&self.engine, route.name()).await?;
            let total = |of: fn(&Counts) -> u64| partitions.iter().map(|p| of(&p.counts)).sum();
            let (rows, rejects) = (total(|counts| counts.rows), total(|counts| counts.rejects));
            if is_over_budget(&route.bound.route, rows, rejects) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the mark off a target. What is partly loaded stays marked, so that the next run finds what is its own.
    async fn unmark(&self, is_partial: bool) -> stages::Result<()> {
        if is_partial {
            let shared = &self.engine.shared;
            return shared.sink.annotate(&shared.run_id, PARTIAL_NOTE).await;
        }
        self.release().await
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
        findings.errors.extend(shared.commits.flush().await.map_err(from_journal).err());
        let mut exits: Vec<Exit> =
            findings.errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
        if shared.stop.is_run_cancelled() {
            exits.push(Exit::Interrupted);
        }
        let is_complete = exits.is_empty();
        let is_partial = findings.omitted.is_some();
        let status = match (is_complete, options.verify) {
            (true, _) if is_partial => RunEnd::Partial,
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
        // The hidden folder of files stays until the journal needs nothing of it any more.
        if is_complete
            && self.files.is_none()
            && let Err(error) = self.unmark(is_partial).await
        {
            exits.push(Exit::of_kind(error.kind()));
            findings.errors.push(error);
        }
        if is_complete {
            let over = self.over_budget(&summary);
            exits.extend(over.iter().map(|_| Exit::Rejects));
            findings.errors.extend(over);
            let is_behind = findings.lags.values().any(|lag| !lag.is_met());
            if !summary.within_rto || summary.within_rpo == Some(false) || is_behind {
                exits.push(Exit::Objective);
            }
        }
        let mut summary = summary;
        match self.store_end(&summary, is_complete && !is_partial, &findings).await {
            // Only now: a run that the journal does not call done may still have to read it.
            Ok(()) if matches!(status, RunEnd::Done | RunEnd::Unverified) => {
                summary.warnings.extend(self.let_go(status).await);
            }
            Ok(()) => {}
            Err(error) => {
                exits.push(Exit::of_kind(error.kind()));
                findings.errors.push(error);
            }
        }
        Ended { summary: Some(summary), exits, errors: findings.errors }
    }

    /// Removes this run's mark from wherever it is.
    async fn release(&self) -> stages::Result<()> {
        let shared = &self.engine.shared;
        let is_released = match &self.cut_over {
            Some(cut_over) => cut_over.release(&shared.run_id).await?,
            None => false,
        };
        if !is_released {
            shared.sink.release(&shared.run_id).await?;
        }
        pass(Point::MarkReleased);
        Ok(())
    }

    /// Removes what was made for this run alone; says what stays.
    async fn let_go(&self, status: RunEnd) -> Vec<String> {
        let mut left = if status == RunEnd::Done { self.discard().await } else { Vec::new() };
        if let Some(files) = &self.files
            && let Err(error) = files.release(&self.engine.shared.run_id).await
        {
            left.push(format!("{error}; the next run with the same --to-rdb removes it"));
        }
        left
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

    async fn store_end(
        &self,
        summary: &Summary,
        is_over: bool,
        findings: &Findings,
    ) -> stages::Result<()> {
        let shared = &self.engine.shared;
        // Refused before its first write, it leaves nothing to be resumed, and other routes may be asked for.
        let is_void = findings.is_refused && summary.rows == 0 && self.record.attempts == 1;
        let status = match summary.status {
            _ if is_void => RunStatus::Abandoned,
            RunEnd::Partial => RunStatus::Partial,
            RunEnd::Done | RunEnd::Unverified => RunStatus::Done,
            RunEnd::Interrupted => RunStatus::Interrupted,
            RunEnd::Failed => RunStatus::Failed,
        };
        let text = serde_json::to_string(summary).map_err(|error| {
            Error::new(Kind::Internal, "cannot store the summary").with_source(error)
        })?;
        let ended = (is_over || is_void).then(now_ms);
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
            is_over_budget(route, counts.rows, counts.rejects).then(|| {
                Error::new(
                    Kind::Data,
                    format!(
                        "route {}: {} of {} rows were rejected, more than rejects_max allows; they are in {folder}",
                        route.name, counts.rejects, counts.rows
                    ),
                )
                .with_hint("mend the rows or the route, then: rekindle rejects replay; or raise rejects_max; everything else was written")
            })
        };
        self.engine.routes.iter().filter_map(|route| over(&route.bound.route)).collect()
    }
}

fn is_over_budget(route: &Route, rows: u64, rejects: u64) -> bool {
    let allowed = match route.rejects_max {
        RejectsMax::Rows(rows) => rows as f64,
        RejectsMax::Percent(share) => rows as f64 * share / 100.0,
    };
    rejects as f64 > allowed
}

/// Removes the keys that attempts at partitions of many-row routes began to build and did not finish.
///
/// Only once no lane is at work: what a lost connection still has on its way then finds its key as it left it.
pub(super) async fn remove_temporary(shared: &Shared) -> stages::Result<()> {
    let names = shared.ledger.temporary()?;
    if names.is_empty() {
        return Ok(());
    }
    shared.sink.remove(&names).await?;
    pass(Point::TemporaryRemoved);
    shared.ledger.forget_temporary()
}
