//! How old the duplicate of each table is, read from its own record.
//!
//! Invariant: nothing is written, and BigQuery is not asked: this must work while it is lost.

use super::rows::{is_row_route, keys_of, may_drop, row_server};
use super::run::table_of;
use super::sealing::Sealing;
use crate::lane::now_ms;
use crate::summarize::rfc3339;
use crate::wiring;
use schemas::manifest::{Census, Run};
use schemas::{Plan, Route};
use serde::Serialize;
use stages::load::redis::duplicate::Duplicate;
use stages::{Kind, Result};
use std::time::Duration;

/// The record of the last complete backup of a route, if there is one, or what is wrong with it and what to do about that.
pub(super) type Record = std::result::Result<Option<Run>, (String, String)>;

/// How the duplicate of one table stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Age {
    /// The route.
    pub route: String,
    /// `dataset.table`.
    pub table: String,
    /// Up to when everything is in the duplicate, RFC 3339; absent before the first complete backup.
    pub data_as_of: Option<String>,
    /// Seconds since then.
    pub age_seconds: Option<f64>,
    /// The recovery point objective.
    pub rpo_seconds: u64,
    /// Whether the age is within it.
    pub within_rpo: bool,
    /// Table partitions whose older copy stays because the source lost rows of them.
    pub held: Vec<String>,
    /// Rows of the table that redis lacked at the last backup; row routes only.
    pub lacking_rows: u64,
    /// Whether the server may evict the duplicate.
    pub may_be_evicted: bool,
    /// How its copies are sealed; absent where neither the plan nor the record knows of a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealing: Option<Sealing>,
    /// What is wrong with the record.
    pub problem: Option<String>,
    /// What to do about that.
    #[serde(skip)]
    pub(crate) fix: Option<String>,
}

impl Age {
    /// Reads it from the record of the last complete backup. What the record does not tell, whoever asks adds: whether the
    /// server may evict the copy, and how it is sealed.
    pub(super) fn of(route: &str, table: String, record: Record, rpo: Duration) -> Self {
        let (run, problem) = match record {
            Ok(run) => (run, None),
            Err(problem) => (None, Some(problem)),
        };
        let (problem, fix) = problem.unzip();
        let as_of_us = run.as_ref().and_then(Run::complete_us);
        let census = run.as_ref().and_then(|run| run.census.as_ref());
        let age = as_of_us.map(|us| (now_ms() as f64 - us as f64 / 1000.0).max(0.0) / 1000.0);
        let held = run.iter().flat_map(|run| &run.held);
        Self {
            route: route.to_owned(),
            table,
            data_as_of: as_of_us.map(|us| rfc3339(us / 1_000)),
            age_seconds: age,
            rpo_seconds: rpo.as_secs(),
            within_rpo: age.is_some_and(|age| age <= rpo.as_secs_f64()),
            held: held.map(|held| held.table_partition.clone()).collect(),
            lacking_rows: census.map_or(0, Census::lacking),
            may_be_evicted: false,
            sealing: None,
            problem,
            fix,
        }
    }

    /// Returns one line for people.
    pub fn line(&self) -> String {
        let mut line = match (&self.problem, &self.data_as_of, self.age_seconds) {
            (Some(problem), ..) => problem.clone(),
            (None, Some(as_of), Some(age)) => {
                let verdict = if self.within_rpo { "within" } else { "older than" };
                let hours = age / 3600.0;
                format!(
                    "data as of {as_of}, {hours:.1} h old, {verdict} the RPO of {} s",
                    self.rpo_seconds
                )
            }
            _ => "no complete backup yet".to_owned(),
        };
        if !self.held.is_empty() {
            let held = self.held.join(", ");
            line = format!("{line}; older copies stand for what bigquery lost: {held}");
        }
        if self.lacking_rows > 0 {
            line = format!("{line}; redis lacked {} rows at the last backup", self.lacking_rows);
        }
        if let Some(sealing) = &self.sealing {
            line = format!("{line}; {}", sealing.words());
        }
        if self.may_be_evicted {
            line.push_str("; warning: this redis may evict it");
        }
        line
    }
}

/// Reads the age of every backup route.
pub async fn ages(plan: &Plan) -> Result<Vec<Age>> {
    let routes = plan.routes.iter().filter(|route| route.uses.backup);
    let routes: Vec<_> = routes.collect();
    if routes.is_empty() {
        return Ok(Vec::new());
    }
    let (duplicate, _) = wiring::make_duplicate(plan)?;
    let may_be_evicted = duplicate.state().await?.eviction.starts_with("allkeys");
    let of_rows = if routes.iter().any(|route| is_row_route(route)) {
        Some(row_server(plan)?.state().await?)
    } else {
        None
    };
    let rpo = plan.bigquery_objective.rpo;
    let mut ages = Vec::with_capacity(routes.len());
    for route in routes {
        let record = record(&duplicate, route).await?;
        let run = record.as_ref().ok().and_then(Option::as_ref);
        let sealed = run.filter(|_| !is_row_route(route));
        let sealing = sealed.and_then(|run| Sealing::of(duplicate.seals(), run));
        let may_be_evicted = match &of_rows {
            Some(state) if is_row_route(route) => may_drop(state, route) || may_be_evicted,
            _ => may_be_evicted,
        };
        let age = Age::of(&route.name, table_of(route), record, rpo);
        ages.push(Age { may_be_evicted, sealing, ..age });
    }
    Ok(ages)
}

/// Reads the record of a route.
async fn record(duplicate: &Duplicate, route: &Route) -> Result<Record> {
    let stored = match duplicate.get(&keys_of(route).run()).await {
        Ok(stored) => stored,
        // It is sealed with a key that the plan does not have: that concerns this route alone.
        Err(error) if error.kind() == Kind::Config => {
            let fix = error.hint().unwrap_or("rekindle plan").to_owned();
            return Ok(Err((error.to_string(), fix)));
        }
        Err(error) => return Err(error),
    };
    Ok(parsed(stored.as_deref()))
}

/// Reads what is stored as the record of a backup.
pub(super) fn parsed(stored: Option<&[u8]>) -> Record {
    let run = stored.map(Run::parse).transpose();
    run.map_err(|error| (error.to_string(), "rekindle backup bigquery".to_owned()))
}
