//! Repair: what is damaged in the duplicate is copied again from BigQuery, after a dry run has shown it.
//!
//! Invariant: only what the last dry run has shown and this run has found again is repaired, and only in the
//! duplicate. Rows that an application keeps, and differences where either side may be right, are never touched.

use super::report::{RepairReport, State, TableReport};
use super::{BigQueryOptions, findings};
use crate::backup::{self, Damaged, backup_bigquery};
use crate::ledger::io_error;
use crate::place::Place;
use crate::rebuild::Watcher;
use schemas::Plan;
use serde::{Deserialize, Serialize};
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NAME: &str = "bigquery.repair.json";

/// Damaged versions by route and table partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown(Damaged);

impl Shown {
    /// What of a report a repair would copy again.
    pub(super) fn of(tables: &[TableReport]) -> Self {
        let mut shown = Self::default();
        for table in tables {
            let damaged = table
                .parts
                .iter()
                .filter(|part| part.state == State::Damaged && part.is_repairable)
                .map(|part| (part.table_partition.clone(), part.damaged_generations.clone()));
            let damaged: BTreeMap<String, Vec<u64>> = damaged.collect();
            if !damaged.is_empty() {
                shown.0.insert(table.route.clone(), damaged);
            }
        }
        shown
    }

    /// Reads what the last dry run has shown.
    pub(super) fn read(state: &Path) -> Result<Self> {
        let path = path(state);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = "--repair writes only what a dry run has shown, and there was none";
                return Err(Error::new(Kind::Config, message)
                    .with_hint("rekindle verify bigquery --tier full --repair --dry-run"));
            }
            Err(error) => return Err(io_error("read", &path, error)),
        };
        serde_json::from_slice(&text).map_err(|error| {
            Error::new(Kind::Config, format!("{} is altered", path.display()))
                .with_hint("rekindle verify bigquery --tier full --repair --dry-run")
                .with_source(error)
        })
    }

    /// Keeps it for the repair.
    pub(super) fn write(&self, state: &Path) -> Result<()> {
        let path = path(state);
        let text = serde_json::to_vec(self).map_err(findings::unprintable)?;
        std::fs::write(&path, text).map_err(|error| io_error("write", &path, error))
    }

    /// What of it was shown before.
    pub(super) fn shown_in(&self, before: &Self) -> Self {
        let mut both = Self::default();
        for (route, parts) in &self.0 {
            let Some(shown) = before.0.get(route) else { continue };
            let mut parts = parts.clone();
            parts.retain(|part, _| shown.contains_key(part));
            if !parts.is_empty() {
                both.0.insert(route.clone(), parts);
            }
        }
        both
    }

    /// Whether there is nothing to repair.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn path(state: &Path) -> PathBuf {
    findings::folder(state).join(NAME)
}

/// Tells what is copied again, and what is left and why.
pub(super) fn told(tables: &[TableReport], wanted: &Shown, dry_run: bool) -> RepairReport {
    let mut told = RepairReport { dry_run, ..RepairReport::default() };
    for table in tables {
        let parts = wanted.0.get(&table.route);
        for part in &table.parts {
            let name = format!("{}${}", table.table, part.table_partition);
            let is_wanted = parts.is_some_and(|parts| parts.contains_key(&part.table_partition));
            let why = match part.state {
                _ if is_wanted => {
                    told.copied_again.push(name);
                    continue;
                }
                State::Damaged if part.is_repairable => "the last dry run has not shown it",
                State::Damaged => "bigquery has fewer rows than its copy",
                State::Different | State::Lost => {
                    "which side is right has to be decided by a person"
                }
                State::Missing => "a backup copies it",
                _ => continue,
            };
            let hint = part.hint.clone().unwrap_or_default();
            told.left.push(format!("{name}: {why}; {hint}"));
        }
        let has_rows =
            table.rows.as_ref().is_some_and(|rows| rows.rows.is_some() || rows.rejects > 0);
        if has_rows {
            told.left.push(format!(
                "route {}: its rows are the application's; rekindle rebuild redis, where the route rebuilds, or the application writes them again",
                table.route
            ));
        }
    }
    told
}

/// Copies the damaged table partitions again: a backup of their routes that knows of the damage.
pub(super) async fn run(
    plan: &Plan,
    options: &BigQueryOptions,
    wanted: &Shown,
    watcher: &Arc<dyn Watcher>,
) -> Vec<Error> {
    let verify = &options.verify;
    let asked = backup::Options {
        to: Place::Redis,
        state: verify.state.clone(),
        lanes: verify.lanes,
        routes: wanted.0.keys().cloned().collect(),
        deadline: None,
        full: false,
        accept_loss: Vec::new(),
        retry_for: verify.retry_for,
        fresh: false,
        take_over: None,
        damaged: wanted.0.clone(),
        share: None,
        cancel: verify.cancel.clone(),
    };
    // What it names of the damage is what it mends; the look afterwards tells what stays.
    let ended = Box::pin(backup_bigquery(plan, asked, Arc::clone(watcher))).await;
    ended.errors.into_iter().filter(|error| error.kind() != Kind::Difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(parts: &[&str]) -> Shown {
        let parts = parts.iter().map(|part| ((*part).to_owned(), vec![1])).collect();
        Shown([("logs".to_owned(), parts)].into())
    }

    #[test]
    fn only_what_was_shown_and_found_again_is_repaired() {
        let both = shown(&["1", "2"]).shown_in(&shown(&["2", "3"]));
        assert_eq!(both, shown(&["2"]));
        assert!(shown(&["1"]).shown_in(&shown(&["2"])).is_empty());
        assert!(shown(&["1"]).shown_in(&Shown::default()).is_empty());
    }
}
