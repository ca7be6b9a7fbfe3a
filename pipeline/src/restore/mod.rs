//! `rekindle restore bigquery`: a table of BigQuery from its duplicate in Redis.
//!
//! Rows go into PENDING write streams of a staging table, one stream per table partition; staging is proven by count
//! and digest; one job publishes it; the destination is proven, and only then is staging dropped.
//!
//! Invariant: the destination changes by jobs whose ids are in the journal, and by nothing else; so a run that is
//! killed or loses an answer anywhere ends with every row once.

pub(crate) mod archived;
mod blocks;
mod choose;
mod commit;
mod destination;
mod duplicate;
pub mod forecast;
mod guards;
mod load;
mod open;
mod prove;
mod publish;
mod rows;
mod run;
mod scan;
pub mod stage;
mod staging;
pub mod standing;
mod table;
mod target;
mod time_travel;
mod told;
mod way;

pub use choose::PartitionRange;
pub(crate) use rows::held_in;

use crate::cpu::CpuPool;
use crate::journal::Journal;
use crate::place::Place;
use crate::progress::Counters;
use crate::rebuild::{Ended, Watcher};
use crate::stop::StopSwitch;
use schemas::plan::Origin;
use schemas::{Plan, Route};
use serde::{Deserialize, Serialize};
use stages::connect::bigquery::BigQuery;
use stages::policy::Retry;
use stages::{Error, Kind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The command's name in the journal and in summaries.
pub const COMMAND: &str = "restore bigquery";
/// Pause before the second try; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What was asked of a restore. A resumed run must be asked the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The copy that is read.
    #[serde(default)]
    pub from: Place,
    /// Replace what the table holds.
    pub replace: bool,
    /// Add what the table lacks.
    pub fill: bool,
    /// Only these table partitions.
    pub partitions: Option<PartitionRange>,
    /// The state at this time, microseconds since 1970.
    pub as_of_us: Option<i64>,
    /// Believe the headers of blocks where manifests are lost.
    pub from_scan: bool,
    /// Tables whose copies are taken although they were created anew.
    pub accept_recreated: Vec<String>,
    /// Tables that are restored without the row access policies they had.
    #[serde(default)]
    pub accept_no_row_policies: Vec<String>,
    /// Restore into this dataset instead of the one that was recorded; for a drill.
    #[serde(default)]
    pub into: Option<String>,
}

/// How a restore was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the journal lives.
    pub state: PathBuf,
    /// Table partitions at once.
    pub lanes: usize,
    /// Routes to restore; empty means every backup route.
    pub routes: Vec<String>,
    /// Replaces the RTO of the plan.
    pub deadline: Option<Duration>,
    /// When the data was lost, milliseconds since 1970.
    pub lost_at_ms: Option<i64>,
    /// Abandon an unfinished run and start over.
    pub fresh: bool,
    /// Read the destination back before calling it done.
    pub verify: bool,
    /// How long a system may stay away.
    pub retry_for: Duration,
    /// What is restored, and how.
    pub asked: Asked,
    /// Tables that are made for a measurement, in the place of those that the routes name.
    pub scratch: Option<Scratch>,
    /// Cancelled by a signal.
    pub cancel: CancellationToken,
}

/// Where the tables of a measurement are: their names are their own, so that no table of production can be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scratch {
    /// Their dataset.
    pub dataset: String,
    /// What their names begin with; the name of the route's table follows.
    pub prefix: String,
}

impl Options {
    /// The dataset and the table that a route is restored into; `None` where it names no table.
    fn place_of(&self, route: &Route) -> Option<(String, String)> {
        let Origin::Table { schema, table, .. } = &route.origin else { return None };
        Some(match &self.scratch {
            Some(scratch) => (scratch.dataset.clone(), format!("{}{table}", scratch.prefix)),
            None => (self.asked.destination(schema).to_owned(), table.clone()),
        })
    }
}

/// What every part of a restore needs.
pub(crate) struct Shared {
    run_id: String,
    bigquery: BigQuery,
    journal: Journal,
    cpu: CpuPool,
    counters: Arc<Counters>,
    stop: StopSwitch,
    lanes: usize,
    retry_for: Duration,
    staging_dataset: String,
    lost_at_ms: Option<i64>,
    /// Whether the destinations are tables of a measurement.
    is_scratch: bool,
}

impl Shared {
    /// Runs `attempt` until it works, fails for good, or nothing worked for `retry_for`.
    async fn patiently<T, F: Future<Output = Result<T>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        let mut retry = Retry::within(self.retry_for);
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => retry.wait_after(error).await?,
            }
        }
    }
}

/// Restores the tables of the plan's backup routes. Never panics on bad input; every failure is in `Ended`.
pub async fn restore_bigquery(plan: &Plan, options: Options, watcher: Arc<dyn Watcher>) -> Ended {
    run::restore(plan, &options, &*watcher).await
}

/// Returns the name of a route's own table, whatever it is restored into.
fn own_name(route: &Route) -> String {
    match &route.origin {
        Origin::Table { schema, table, .. } => format!("{schema}.{table}"),
        Origin::Query { .. } => String::new(),
    }
}

impl Asked {
    /// The dataset that a table of `dataset` is restored into.
    fn destination<'a>(&'a self, dataset: &'a str) -> &'a str {
        self.into.as_deref().unwrap_or(dataset)
    }
}

/// Returns the name of a table of the plan's project, as SQL quotes it.
fn quoted(project: &str, dataset: &str, table: &str) -> String {
    format!("`{project}.{dataset}.{table}`")
}

/// The error of a plan that lacks what a restore needs.
fn lacks(what: &str) -> Error {
    Error::new(Kind::Config, format!("the plan has no {what}"))
        .with_hint("mend the plan, then: rekindle restore bigquery")
}
