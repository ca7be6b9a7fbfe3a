//! `rekindle drill`: a restoration test in scratch targets: lose, recover by the very code of a recovery, prove, measure, and
//! take down.
//!
//! Invariant: nothing is touched before every target is known not to be one that serves, and only what carries the mark
//! of a drill is ever emptied, but for a Redis of production that was confirmed twice. What was not measured is unknown.

mod dataset;
mod found;
mod objectives;
mod phases;
mod read;
mod report;
mod run;
mod steps;
mod tables;
mod targets;
mod tear_down;
mod work;

pub use phases::{Part, Phase};
pub use read::Read;
pub use report::DrillReport;
pub use steps::{Mark, Step};

use crate::journal::StateLock;
use crate::ledger::io_error;
use crate::ordered::emptied;
use crate::outcome::{Exit, from_journal};
use crate::rebuild::Options;
use run::Drill;
use schemas::Plan;
use serde::{Deserialize, Serialize};
use stages::{Error, Kind};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use targets::Targets;
use work::Work;

/// The command's name in evidence.
pub const COMMAND: &str = "drill";

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// The Redis cache.
    Redis,
    /// The tables of BigQuery that have a duplicate.
    BigQuery,
    /// BigQuery, and then Redis from what was restored of it.
    Both,
}

impl Loss {
    /// Whether Redis is lost.
    pub fn redis(self) -> bool {
        self != Self::BigQuery
    }

    /// Whether BigQuery is lost.
    pub fn bigquery(self) -> bool {
        self != Self::Redis
    }

    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::BigQuery => "bigquery",
            Self::Both => "both",
        }
    }
}

/// What was asked of a drill.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What is lost.
    pub lose: Loss,
    /// What somebody timed around the tool.
    pub marks: Vec<Mark>,
    /// Leave the scratch targets as they are at the end.
    pub keep: bool,
    /// Empty the Redis of production instead of a scratch.
    pub in_production: bool,
    /// The name of that Redis, as it was typed.
    pub confirm: Option<String>,
    /// Tables that are restored without the row access policies they had.
    pub accept_no_row_policies: Vec<String>,
    /// How long an application may take between its write to the source and its write to Redis.
    pub settle: Duration,
}

/// How a drill ended.
#[derive(Debug)]
pub struct Drilled {
    /// What was measured and proven; absent where it was refused.
    pub report: Option<DrillReport>,
    /// Everything that happened; the worst (by order) is the exit code.
    pub exits: Vec<Exit>,
    /// Errors in the order they were met.
    pub errors: Vec<Error>,
}

impl Drilled {
    fn failed(errors: Vec<Error>) -> Self {
        let exits = errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
        Self { report: None, exits, errors }
    }
}

/// Drills. `options` are those of a rebuild; its state folder holds those of the parts. `tell` is called with a line as
/// each phase ends.
pub async fn drill(
    plan: &Plan,
    options: &Options,
    asked: &Asked,
    tell: &(dyn Fn(&str) + Sync),
) -> Drilled {
    let steps = match steps::timed(asked.lose, &asked.marks) {
        Ok(steps) => steps,
        Err(message) => {
            let error = Error::new(Kind::Config, message).with_hint("rekindle drill --help");
            return Drilled::failed(vec![error]);
        }
    };
    let work = match Work::of(plan, &options.routes, asked) {
        Ok(work) => work,
        Err(errors) => return Drilled::failed(errors),
    };
    stages::policy::begin(options.retry_for);
    let targets = match Box::pin(Targets::find(plan, &work, options, asked)).await {
        Ok(targets) => targets,
        Err(error) => return Drilled::failed(vec![error]),
    };
    let folder = options.state.join(COMMAND);
    let held = match opened(&options.state, &folder) {
        Ok(held) => held,
        Err(error) => return Drilled::failed(vec![error]),
    };
    let drill =
        Drill { plan, options, asked, work: &work, targets: &targets, folder: &folder, tell };
    let drilled = Box::pin(drill.run(steps)).await;
    // What a drill that failed has left may tell why; the next one removes it.
    if drilled.report.as_ref().is_some_and(|report| report.status == report::DONE)
        && let Err(error) = fs::remove_dir_all(&folder)
    {
        tracing::warn!(%error, folder = %folder.display(), "what the parts were run with is still there");
    }
    drop(held);
    drilled
}

/// Takes the folder that the parts leave their journals in, apart from those of real runs, and removes what the last drill
/// left there: a drill always starts over.
fn opened(state: &Path, folder: &Path) -> stages::Result<StateLock> {
    fs::create_dir_all(state).map_err(|error| io_error("create", state, error))?;
    let held = StateLock::take(&state.join("drill.lock")).map_err(from_journal)?;
    let folder: PathBuf = emptied(folder.to_owned())?;
    fs::create_dir_all(&folder).map_err(|error| io_error("create", &folder, error))?;
    Ok(held)
}
