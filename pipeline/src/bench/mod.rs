//! `rekindle bench`: measured recoveries of parts of the real tables, and what they say of the whole.
//!
//! Invariant: production is read only, and what is written goes to a throwaway server and to tables of the bench; a figure is
//! that of a run that was done and read back, by the very code of a rebuild, backup or restore. What lies beyond the measured
//! sizes is called so.

mod attempt;
mod quotas;
mod report;
mod scratch;
mod sizes;
mod surroundings;
mod tables;
mod tables_report;
mod throwaway;

pub use attempt::Attempt;
pub use quotas::Quota;
pub use report::{BenchReport, RouteModel, Sample};
pub use tables_report::{TableModel, TablesReport, Total};

use crate::journal::StateLock;
use crate::ordered::emptied;
use crate::outcome::{Exit, from_journal};
use crate::plan::{PlanReport, plan_rebuild};
use crate::progress::Counters;
use crate::rebuild::{Ended, Options, Watcher, rebuild_redis};
use crate::share::Share;
use crate::summary::{RunEnd, Summary};
use crate::tuning::Lanes;
use schemas::Plan;
use serde::Serialize;
use sizes::Size;
use surroundings::Surroundings;
use stages::{Error, Kind};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use throwaway::Throwaway;

/// The command's name in evidence.
pub const COMMAND: &str = "bench";
/// The system whose rebuild is measured.
const SYSTEM: &str = "redis";

/// The system whose recovery is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum System {
    /// Rebuilds of Redis.
    #[default]
    Redis,
    /// Backups and restores of BigQuery.
    Bigquery,
}

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whose recovery.
    pub system: System,
    /// Rows of all routes together, of BigQuery those of each table, one size after the other.
    pub rows: Vec<u64>,
    /// How often each size is measured.
    pub repeats: usize,
    /// Lanes to measure besides, at the largest size.
    pub lanes: Vec<usize>,
    /// The program of the throwaway server; what the PATH has where absent.
    pub server: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// Of Redis.
    Redis(Box<BenchReport>),
    /// Of BigQuery.
    BigQuery(Box<TablesReport>),
}

impl Found {
    /// Whether production would be back within its RTO, by what is expected.
    pub fn is_met(&self) -> bool {
        match self {
            Self::Redis(report) => report.is_met(),
            Self::BigQuery(report) => report.is_met(),
        }
    }

    /// Writes it for people.
    pub fn render(&self) -> String {
        match self {
            Self::Redis(report) => report.render(),
            Self::BigQuery(report) => report.render(),
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub struct Benched {
    /// What was measured; absent where it did not come so far.
    pub report: Option<Found>,
    /// What was measured before it failed; absent where nothing had begun.
    pub attempt: Option<Attempt>,
    /// Everything that happened; the worst (by order) is the exit code.
    pub exits: Vec<Exit>,
    /// Errors in the order they were met.
    pub errors: Vec<Error>,
}

impl Benched {
    fn failed(errors: Vec<Error>) -> Self {
        let exits = errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
        Self { report: None, attempt: None, exits, errors }
    }

    fn found(report: Found) -> Self {
        let exit = if report.is_met() { Exit::Done } else { Exit::Objective };
        Self { report: Some(report), attempt: None, exits: vec![exit], errors: Vec::new() }
    }

    /// Keeps what was measured of so many runs before it failed.
    fn after(self, started_ms: i64, system: &str, samples: Vec<Sample>, wanted: usize) -> Self {
        let attempt = Attempt::of(started_ms, system, samples, wanted, &self.exits);
        Self { attempt: Some(attempt), ..self }
    }
}

/// What a measured run is one of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trial {
    /// All routes together, or one alone.
    routes: Vec<String>,
    /// Whether these are all.
    is_whole: bool,
    /// Which part of their tables; `None` for all of it.
    share: Option<Share>,
    /// What is different from a rebuild; empty for none.
    variant: String,
    lanes: Lanes,
}

/// Measures, and predicts a rebuild of everything. `tell` is called with a line after every run.
pub async fn bench(
    plan: &Plan,
    options: &Options,
    asked: &Asked,
    tell: &(dyn Fn(&str) + Sync),
) -> Benched {
    let folder = options.state.join("bench");
    let held = match opened(&options.state, &folder) {
        Ok(held) => held,
        Err(error) => return Benched::failed(vec![error]),
    };
    let bench = Bench { plan, options, asked, tell, folder: &folder };
    let benched = match asked.system {
        System::Redis => Box::pin(bench.run()).await,
        System::Bigquery => Box::pin(tables::run(&bench)).await,
    };
    if let Err(error) = fs::remove_dir_all(&folder) {
        tracing::warn!(%error, folder = %folder.display(), "what was measured with is still there");
    }
    drop(held);
    benched
}

/// Takes the folder that runs leave their journals in, and removes what a killed program left there.
fn opened(state: &Path, folder: &Path) -> stages::Result<StateLock> {
    let made = |error| crate::ledger::io_error("create", folder, error);
    fs::create_dir_all(state).map_err(made)?;
    let held = StateLock::take(&state.join("bench.lock")).map_err(from_journal)?;
    let folder = emptied(folder.to_owned())?;
    fs::create_dir_all(&folder).map_err(made)?;
    Ok(held)
}

struct Bench<'a> {
    plan: &'a Plan,
    options: &'a Options,
    asked: &'a Asked,
    tell: &'a (dyn Fn(&str) + Sync),
    folder: &'a Path,
}

impl Bench<'_> {
    async fn run(&self) -> Benched {
        let started_ms = crate::lane::now_ms();
        let (planned, version) = match self.planned().await {
            Ok(planned) => planned,
            Err(errors) => return Benched::failed(errors),
        };
        let known: Vec<(&str, Option<u64>)> =
            planned.routes.iter().map(|route| (route.name.as_str(), route.rows_estimate)).collect();
        let sizes = match sizes::sizes(&known, &self.asked.rows) {
            Ok(sizes) => sizes,
            Err(errors) => return Benched::failed(errors),
        };
        let trials = self.trials(&planned, &sizes);
        let mut samples = Vec::new();
        for (number, trial) in trials.iter().enumerate() {
            let summary = match self.measured(number, trial).await {
                Ok(summary) => summary,
                Err(ended) => return ended.after(started_ms, SYSTEM, samples, trials.len()),
            };
            let sample = Sample::of(trial, &summary);
            (self.tell)(&format!("{:>2} of {}: {}", number + 1, trials.len(), sample.line()));
            samples.push(sample);
        }
        let around = Surroundings::look(self.plan, version).await;
        let Some(report) = BenchReport::of(started_ms, &planned, samples, &around) else {
            let message = "no measured run took any time or carried any row";
            let error = Error::new(Kind::Config, message)
                .with_hint("look whether the tables have rows: rekindle plan --sample 1");
            return Benched::failed(vec![error]).after(
                started_ms,
                SYSTEM,
                Vec::new(),
                trials.len(),
            );
        };
        Benched::found(Found::Redis(Box::new(report)))
    }

    /// What a rebuild into a throwaway server would do, and what that server is.
    async fn planned(&self) -> Result<(PlanReport, String), Vec<Error>> {
        let one = |error: Error| vec![error];
        let server = self.server().await.map_err(one)?;
        let planned = plan_rebuild(&self.against(&server), self.options).await;
        server.end().await;
        let planned = planned?;
        let version = planned.target.version.clone();
        Ok((planned, version))
    }

    async fn server(&self) -> stages::Result<Throwaway> {
        Throwaway::start(self.asked.server.as_deref(), self.folder).await
    }

    /// The plan with a throwaway server as its target.
    fn against(&self, server: &Throwaway) -> Plan {
        Plan { redis: Some(server.url().clone()), ..self.plan.clone() }
    }

    /// Sizes in turn, so that a machine that slows down meanwhile slows all of them; then each route alone, then lanes.
    fn trials(&self, planned: &PlanReport, sizes: &[Size]) -> Vec<Trial> {
        let all: Vec<String> = planned.routes.iter().map(|route| route.name.clone()).collect();
        let trial = |routes: &[String], size: &Size| Trial {
            routes: routes.to_vec(),
            is_whole: routes.len() == all.len(),
            share: size.share,
            variant: String::new(),
            lanes: self.options.lanes,
        };
        let mut trials: Vec<Trial> = (0..self.asked.repeats)
            .flat_map(|_| sizes.iter())
            .map(|size| trial(&all, size))
            .collect();
        if all.len() > 1 {
            let alone = all.iter().flat_map(|route| {
                sizes.iter().map(|size| trial(std::slice::from_ref(route), size))
            });
            trials.extend(alone);
        }
        if let Some(largest) = sizes.last() {
            trials.extend(self.asked.lanes.iter().map(|lanes| Trial {
                variant: format!("{lanes} lanes"),
                lanes: Lanes::fixed(*lanes),
                ..trial(&all, largest)
            }));
        }
        trials
    }

    /// Rebuilds a part into a new server; anything but a proven end is one of the bench.
    async fn measured(&self, number: usize, trial: &Trial) -> Result<Summary, Benched> {
        let failed = |error| Benched::failed(vec![error]);
        let server = self.server().await.map_err(failed)?;
        let options = Options {
            state: self.folder.join(number.to_string()),
            routes: trial.routes.clone(),
            lanes: trial.lanes,
            share: trial.share,
            ..self.options.clone()
        };
        let ended = Box::pin(rebuild_redis(&self.against(&server), options, unwatched())).await;
        server.end().await;
        let Ended { summary, exits, errors } = ended;
        match summary {
            Some(summary) if summary.status == RunEnd::Done && errors.is_empty() => Ok(summary),
            Some(summary) if errors.is_empty() && exits.iter().all(|exit| *exit == Exit::Done) => {
                let message =
                    format!("a measured run ended as {:?}, which measures nothing", summary.status);
                Err(failed(Error::new(Kind::Config, message).with_hint("leave --fit out")))
            }
            _ => Err(Benched { report: None, attempt: None, exits, errors }),
        }
    }
}

fn unwatched() -> Arc<dyn Watcher> {
    Arc::new(Unwatched)
}

/// Shows nothing of the runs in between.
struct Unwatched;

impl Watcher for Unwatched {
    fn begin(&self, _: Arc<Counters>, _: Option<crate::journal::CommitHandle>) {}
    fn say(&self, line: &str) {
        tracing::info!("{line}");
    }
    fn end(&self) {}
}
