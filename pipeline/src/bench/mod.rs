//! `rekindle bench`: measured recoveries of parts of the real tables, and what they say of the whole.
//!
//! Invariant: production's sources are read only; what is written goes to a throwaway server, or under names that no other
//! bench has, and is gone afterwards. A figure is that of a run that was done and read back, by the very code of a rebuild,
//! backup or restore. What lies beyond the measured sizes is called so.

mod attempt;
mod head;
mod keys;
mod needed;
pub(crate) mod quotas;
mod rebuilds;
mod report;
mod scratch;
mod sizes;
mod surroundings;
mod tables;
mod tables_report;
mod throwaway;
mod widths;

pub use attempt::Attempt;
pub use head::Head;
pub use keys::Against;
pub(crate) use keys::PREFIX as KEY_PREFIX;
pub use needed::{LaneTime, Needed};
pub(crate) use needed::{Measured, Time};
pub use quotas::Quota;
pub(crate) use quotas::verdict;
pub use report::{BenchReport, RouteModel, Sample};
pub(crate) use tables::RESTORE;
pub use tables_report::{TableModel, TablesReport, Total};

use crate::journal::StateLock;
use crate::ordered::emptied;
use crate::outcome::{Exit, from_journal};
use crate::progress::Counters;
use crate::rebuild::{Options, Watcher};
use keys::OwnKeys;
use schemas::Plan;
use serde::Serialize;
use stages::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use throwaway::Throwaway;

/// The command's name in evidence.
pub const COMMAND: &str = "bench";

/// The system whose recovery is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum System {
    /// Rebuilds of Redis.
    #[default]
    Redis,
    /// Backups and restores of BigQuery.
    Bigquery,
}

impl System {
    /// Its name in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Bigquery => "bigquery",
        }
    }
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
    /// Measure each route alone with half of its fields too.
    pub widths: bool,
    /// Write into the plan's own Redis, under keys of the bench alone, in the place of a throwaway server.
    pub against: bool,
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
    pub attempt: Option<Box<Attempt>>,
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
    fn after(self, started_ms: i64, system: System, samples: Vec<Sample>, wanted: usize) -> Self {
        let attempt = Attempt::of(started_ms, system, samples, wanted, &self.exits);
        Self { attempt: Some(Box::new(attempt)), ..self }
    }
}

/// Measures, and predicts a recovery of everything. `tell` is called with a line after every run.
pub async fn bench(
    plan: &Plan,
    options: &Options,
    asked: &Asked,
    tell: &(dyn Fn(&str) + Sync),
) -> Benched {
    let folder = options.state.join("bench");
    let (held, own) = match Box::pin(opened(plan, options, asked.against, &folder)).await {
        Ok(opened) => opened,
        Err(error) => return Benched::failed(vec![error]),
    };
    let bench = Bench { plan, options, asked, tell, folder: &folder, own };
    let benched = match asked.system {
        System::Redis => Box::pin(rebuilds::run(&bench)).await,
        System::Bigquery => Box::pin(tables::run(&bench)).await,
    };
    if let Err(error) = fs::remove_dir_all(&folder) {
        tracing::warn!(%error, folder = %folder.display(), "what was measured with is still there");
    }
    drop(held);
    benched
}

/// Takes the folder that runs leave their journals in, and removes what a killed program left: first in Redis, which only
/// that folder knows of.
async fn opened(
    plan: &Plan,
    options: &Options,
    against: bool,
    folder: &Path,
) -> stages::Result<(StateLock, Option<OwnKeys>)> {
    let (state, retry_for) = (&options.state, options.retry_for);
    let made = |error| crate::ledger::io_error("create", folder, error);
    fs::create_dir_all(state).map_err(made)?;
    let held = StateLock::take(&state.join("bench.lock")).map_err(from_journal)?;
    keys::clean(plan, state, folder, retry_for).await?;
    let folder = emptied(folder.to_owned())?;
    fs::create_dir_all(&folder).map_err(made)?;
    let own = against.then(|| OwnKeys::begin(plan, state, retry_for)).transpose()?;
    Ok((held, own))
}

struct Bench<'a> {
    plan: &'a Plan,
    options: &'a Options,
    asked: &'a Asked,
    tell: &'a (dyn Fn(&str) + Sync),
    folder: &'a Path,
    /// What is written into the plan's own Redis, where that was asked for.
    own: Option<OwnKeys>,
}

impl Bench<'_> {
    /// Starts a server of our own.
    async fn server(&self) -> stages::Result<Throwaway> {
        Throwaway::start(self.asked.server.as_deref(), self.folder).await
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
