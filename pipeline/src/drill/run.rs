//! The order of events of a drill, from the scratch targets that are emptied to those that are gone.
//!
//! Invariant: a system counts as serving only after its recovery was done, compared in full, and answered a question whose
//! answer is known; what fails ends the drill, and the scratch targets are taken down all the same.

use super::found::{Found, Stopped, Went};
use super::phases::{Begun, Clock};
use super::steps::Step;
use super::tables::restored;
use super::targets::Targets;
use super::work::{Rebuild, Restore, Work, table_of};
use super::{Asked, DrillReport, Drilled, read, tables};
use crate::outcome::Exit;
use crate::progress::Counters;
use crate::rebuild::{self, Options, Watcher, patiently, rebuild_redis};
use crate::restore::{self, restore_bigquery};
use crate::summary::{RunEnd, Summary};
use crate::verify::bigquery::{BigQueryOptions, verify_bigquery};
use crate::verify::redis::{RedisOptions, Repair, verify_redis};
use crate::verify::{self, Tier, Verdict};
use schemas::Plan;
use stages::{Error, Kind};
use std::path::Path;
use std::sync::Arc;

/// Everything a drill needs.
pub(super) struct Drill<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
    pub(super) asked: &'a Asked,
    pub(super) work: &'a Work,
    pub(super) targets: &'a Targets,
    pub(super) folder: &'a Path,
    pub(super) tell: &'a (dyn Fn(&str) + Sync),
}

impl Drill<'_> {
    pub(super) async fn run(self, steps: Vec<Step>) -> Drilled {
        let id = uuid::Uuid::new_v4().to_string();
        let mut found = Found::new(id, self.work.loss, steps);
        let went = self.recover(&mut found).await;
        if went.is_ok() && self.work.restore.is_some() {
            // What fails here is noted, and ends nothing: the scratch is served by now.
            if self.compare_source(&mut found).await.is_err() {
                (self.tell)("the source and its duplicate do not agree");
            }
        }
        self.tear_down(&mut found).await;
        let report = DrillReport::of(self.plan, self.options, &mut found);
        Drilled { report: Some(report), exits: found.exits, errors: found.errors }
    }

    async fn recover(&self, found: &mut Found) -> Went {
        let id = found.id.clone();
        self.phase("empty the scratch targets", false, found, self.seed(&id)).await?;
        found.clock.lose();
        if let Some(restore) = &self.work.restore {
            Box::pin(self.recover_bigquery(restore, found)).await?;
            found.serves("bigquery");
        }
        if let Some(rebuild) = &self.work.rebuild {
            Box::pin(self.recover_redis(rebuild, found)).await?;
            found.serves("redis");
        }
        Ok(())
    }

    /// Times something and notes what went wrong in it.
    async fn phase<T>(
        &self,
        name: &'static str,
        is_counted: bool,
        found: &mut Found,
        work: impl Future<Output = Result<T, Vec<Error>>>,
    ) -> Result<T, Stopped> {
        let begun = Clock::begin(name, is_counted);
        let done = tokio::select! {
            done = work => done,
            () = self.options.cancel.cancelled() => {
                Err(vec![Error::new(Kind::Cancelled, "the drill was asked to stop")])
            }
        };
        (self.tell)(&found.clock.end(&begun, done.is_ok()));
        done.map_err(|errors| found.fail(errors))
    }

    /// Empties the scratch targets and proves it.
    async fn seed(&self, id: &str) -> Result<(), Vec<Error>> {
        let one = |error: Error| vec![error];
        if let Some(redis) = &self.targets.redis {
            let client = &redis.client;
            let emptied = if redis.is_production {
                client.empty().await
            } else {
                client.empty_marked().await
            };
            emptied.map_err(one)?;
            client.leave_mark(&format!("{id} a drill of rekindle")).await.map_err(one)?;
            let keys = client.size().await.map_err(one)?;
            // The application of a production server writes on.
            if keys != 1 && !redis.is_production {
                let message = format!(
                    "redis at {} was emptied and holds {keys} keys where its mark is one: somebody writes to it",
                    client.address()
                );
                return Err(one(Error::new(Kind::Config, message)
                    .with_hint("name a scratch that nobody uses in [drill]")));
            }
        }
        if let Some(dataset) = &self.targets.dataset {
            self.patiently(|| dataset.seed()).await.map_err(one)?;
        }
        Ok(())
    }

    pub(super) async fn patiently<T, F: Future<Output = stages::Result<T>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> stages::Result<T> {
        patiently(self.options.retry_for, &self.options.cancel, attempt).await
    }

    async fn recover_bigquery(&self, restore: &Restore, found: &mut Found) -> Went {
        let Some(scratch) = &self.targets.dataset else { return Err(found.lacks_target()) };
        let options = self.restore_options(restore, found);
        let watcher: Arc<dyn Watcher> = Arc::new(Unwatched);
        let begun = Clock::begin("restore bigquery", true);
        let ended = Box::pin(restore_bigquery(&restore.plan, options, watcher)).await;
        let summary = self.run_ended(&begun, ended, found)?;
        let tables = match restored(restore, &summary.routes) {
            Ok(tables) => tables,
            Err(error) => return Err(found.fail(vec![error])),
        };
        let verifying = async {
            let differences = tables::verify(scratch, &tables, self.options).await;
            differed(differences.map_err(|error| vec![error])?)
        };
        self.phase("verify bigquery", true, found, verifying).await?;
        let reading = async {
            let mut reads = Vec::with_capacity(tables.len());
            for table in &tables {
                let count = || read::count(scratch, table.route, (table.table, table.rows));
                reads.push(self.patiently(count).await.map_err(|error| vec![error])?);
            }
            Ok(reads)
        };
        let reads = self.phase("ask bigquery what is known", true, found, reading).await?;
        found.read(reads)
    }

    async fn recover_redis(&self, rebuild: &Rebuild, found: &mut Found) -> Went {
        let Some(scratch) = &self.targets.redis else { return Err(found.lacks_target()) };
        let state = self.folder.join("redis");
        let options = Options {
            state: state.clone(),
            routes: rebuild.routes.clone(),
            lost_at_ms: found.clock.lost_ms(),
            ..self.options.clone()
        };
        let watcher: Arc<dyn Watcher> = Arc::new(Unwatched);
        let begun = Clock::begin("rebuild redis", true);
        let ended = Box::pin(rebuild_redis(&rebuild.plan, options, watcher)).await;
        self.run_ended(&begun, ended, found)?;
        let options = RedisOptions {
            verify: self.verify_options(&state, rebuild.routes.clone()),
            settle: self.asked.settle,
            repair: Repair::No,
            remove_unexplained: Vec::new(),
            take_over: None,
        };
        let begun = Clock::begin("verify redis", true);
        let watcher: Arc<dyn Watcher> = Arc::new(Unwatched);
        let ended = Box::pin(verify_redis(&rebuild.plan, options, watcher)).await;
        self.verified(&begun, ended, found)?;
        let reading = read::keys(&rebuild.plan, &rebuild.routes, self.options, &scratch.client);
        let reads = self.phase("ask redis what is known", true, found, reading).await?;
        found.read(reads)
    }

    /// Compares the duplicate with the tables that serve, where they are there: what was restored is the duplicate's.
    async fn compare_source(&self, found: &mut Found) -> Went {
        let (Some(restore), Some(scratch)) = (&self.work.restore, &self.targets.dataset) else {
            return Ok(());
        };
        for (dataset, table) in restore.routes.iter().filter_map(table_of) {
            match self.patiently(|| scratch.bigquery.table(dataset, table)).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let what = format!("{dataset}.{table} is not there");
                    found.not_tested.push(format!(
                        "what was restored was not compared with the tables that serve, because {what}"
                    ));
                    return Ok(());
                }
                Err(error) => return Err(found.fail(vec![error])),
            }
        }
        let names = restore.routes.iter().map(|route| route.name.clone()).collect();
        let options = BigQueryOptions {
            verify: self.verify_options(&self.folder.join("bigquery"), names),
            repair: Repair::No,
        };
        let begun = Clock::begin("compare bigquery with its duplicate", false);
        let watcher: Arc<dyn Watcher> = Arc::new(Unwatched);
        let ended = Box::pin(verify_bigquery(self.plan, options, watcher)).await;
        self.verified(&begun, ended, found)
    }

    fn restore_options(&self, restore: &Restore, found: &Found) -> restore::Options {
        restore::Options {
            state: self.folder.join("bigquery"),
            lanes: self.options.lanes.start,
            routes: restore.routes.iter().map(|route| route.name.clone()).collect(),
            deadline: self.options.deadline,
            lost_at_ms: found.clock.lost_ms(),
            fresh: false,
            verify: true,
            retry_for: self.options.retry_for,
            asked: restore::Asked {
                into: Some(restore.dataset.clone()),
                accept_no_row_policies: self.asked.accept_no_row_policies.clone(),
                ..restore::Asked::default()
            },
            scratch: None,
            cancel: self.options.cancel.clone(),
        }
    }

    fn verify_options(&self, state: &Path, routes: Vec<String>) -> verify::Options {
        verify::Options {
            state: state.to_owned(),
            lanes: self.options.lanes.start,
            routes,
            tier: Tier::Full,
            seed: 0,
            retry_for: self.options.retry_for,
            cancel: self.options.cancel.clone(),
        }
    }

    /// Notes how a rebuild or restore ended; one that is not done and proven ends the drill.
    fn run_ended(
        &self,
        begun: &Begun,
        ended: rebuild::Ended,
        found: &mut Found,
    ) -> Result<Summary, Stopped> {
        let rebuild::Ended { summary, exits, errors } = ended;
        let is_right = |exit: &Exit| matches!(exit, Exit::Done | Exit::Objective);
        let is_done = errors.is_empty()
            && exits.iter().all(is_right)
            && summary.as_ref().is_some_and(|summary| summary.status == RunEnd::Done);
        (self.tell)(&found.clock.end(begun, is_done));
        found.exits.extend(exits);
        let Some(summary) = summary else { return Err(found.fail(errors)) };
        found.take(summary.clone());
        if is_done { Ok(summary) } else { Err(found.fail(errors)) }
    }

    fn verified(&self, begun: &Begun, ended: verify::Ended, found: &mut Found) -> Went {
        let verify::Ended { told, errors } = ended;
        let is_pass = told.as_ref().is_some_and(|told| told.verdict == Verdict::Pass);
        let is_done = is_pass && errors.is_empty();
        (self.tell)(&found.clock.end(begun, is_done));
        if let Some(told) = &told {
            found.take_verified(told);
        }
        if is_done { Ok(()) } else { Err(found.fail(errors)) }
    }
}

/// Every difference is an error of its own, with what to type next.
fn differed(differences: Vec<String>) -> Result<(), Vec<Error>> {
    let error = |what: String| {
        Error::new(Kind::Difference, what)
            .with_hint("see who writes to the scratch dataset, then: rekindle drill again")
    };
    if differences.is_empty() { Ok(()) } else { Err(differences.into_iter().map(error).collect()) }
}

/// Shows nothing of the parts; the drill tells of its phases.
struct Unwatched;

impl Watcher for Unwatched {
    fn begin(&self, _: Arc<Counters>, _: Option<crate::journal::CommitHandle>) {}
    fn say(&self, line: &str) {
        tracing::info!("{line}");
    }
    fn end(&self) {}
}
