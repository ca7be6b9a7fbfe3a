//! `rekindle backup bigquery`: keeps the duplicate of BigQuery in Redis, only what is new or changed, never worse
//! than before.
//!
//! Invariant: a version of a table partition is published by one SET after its blocks were read back; a crash at any
//! instant leaves what was published before. Every start looks at both sides anew under one pinned time, so a killed
//! backup needs no position to go on from: what it published is there, and what it left behind is known to the journal.

pub mod age;
pub mod archived;
pub mod buffer;
pub mod copy;
pub mod cut;
pub mod decide;
pub mod drift;
pub mod forecast;
mod framed;
pub mod publish;
pub mod report;
mod reseal;
pub(crate) mod rows;
mod run;
pub mod sealing;
pub mod source;
pub mod standing;
pub mod table;
pub mod waits;
pub mod windows;

use crate::outcome::Exit;
use crate::place::Place;
use crate::rebuild::Watcher;
use crate::share::Share;
use report::BackupSummary;
use schemas::Plan;
use stages::Error;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The command's name in the journal and in summaries.
pub const COMMAND: &str = "backup bigquery";
/// The same of a backup to the archive: the two know nothing of each other.
pub const ARCHIVE_COMMAND: &str = "backup bigquery --to archive";

/// Generations of table partitions that are damaged, by route and name of the table partition.
pub type Damaged = BTreeMap<String, BTreeMap<String, Vec<u64>>>;

/// How a backup was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the journal lives.
    pub state: PathBuf,
    /// Where the copy is kept.
    pub to: Place,
    /// Table partitions at once.
    pub lanes: usize,
    /// Routes to back up; empty means all backup routes.
    pub routes: Vec<String>,
    /// Replaces the RTO of the plan.
    pub deadline: Option<Duration>,
    /// Copy everything, whatever seems unchanged.
    pub full: bool,
    /// Tables, as `dataset.table`, that may have lost rows.
    pub accept_loss: Vec<String>,
    /// How long a system may stay away.
    pub retry_for: Duration,
    /// Give unfinished backups up and remove everything they left, also under key prefixes the plan has no longer.
    pub fresh: bool,
    /// Remove the mark of this dead run first.
    pub take_over: Option<String>,
    /// Versions of table partitions that a verification found damaged, by route and name: they are copied again whatever
    /// their length says, and these generations are not kept.
    pub damaged: Damaged,
    /// Which part of every table's partitions, for a measurement into an empty server; `None` for all of them. What is left
    /// out would count as lost beside a copy of it.
    pub share: Option<Share>,
    /// Cancelled by a signal.
    pub cancel: CancellationToken,
}

/// How a backup ended.
#[derive(Debug)]
pub struct Ended {
    /// The summary, once there was a run.
    pub summary: Option<BackupSummary>,
    /// Everything that happened; the worst (by order) is the exit code.
    pub exits: Vec<Exit>,
    /// Errors in the order they were met.
    pub errors: Vec<Error>,
}

/// Backs up BigQuery. Never panics on bad input; every failure is in `Ended`.
pub async fn backup_bigquery(plan: &Plan, options: Options, watcher: Arc<dyn Watcher>) -> Ended {
    let clock = Instant::now();
    stages::policy::begin(options.retry_for);
    let mut run = match run::Run::new(plan, &options).await {
        Ok(run) => run,
        Err(errors) => return failed(options.to.hinted(errors)),
    };
    let findings = run.work(&options, &*watcher).await;
    let ended = run.end(findings, &options, clock).await;
    watcher.end();
    Ended { errors: options.to.hinted(ended.errors), ..ended }
}

fn failed(errors: Vec<Error>) -> Ended {
    let exits = errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
    Ended { summary: None, exits, errors }
}
