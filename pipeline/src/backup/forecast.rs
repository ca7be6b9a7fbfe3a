//! What a backup would do: table partitions to copy, bytes to read, room in Redis; for `plan`.
//!
//! Invariant: both sides are only read.

use super::decide::Fate;
use super::source;
use super::table::{Common, Table};
use crate::wiring;
use schemas::{Plan, Route};
use serde::Serialize;
use stages::Result;

/// What a backup would do with one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// The route.
    pub route: String,
    /// `dataset.table`.
    pub table: String,
    /// Table partitions that have not changed.
    pub kept: u64,
    /// Table partitions that would be copied.
    pub copied: u64,
    /// Rows in them.
    pub rows_estimate: u64,
    /// Bytes in them, as BigQuery bills a read of them.
    pub bytes_estimate: u64,
    /// Bytes the copies would take in Redis, beside the ones they replace.
    pub stored_estimate: u64,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Looks at both sides of the backup routes that are named, or of all.
pub async fn forecast(plan: &Plan, names: &[String]) -> Result<Vec<Forecast>> {
    let is_chosen =
        |route: &&Route| route.uses.backup && (names.is_empty() || names.contains(&route.name));
    let routes: Vec<&Route> = plan.routes.iter().filter(is_chosen).collect();
    if routes.is_empty() {
        return Ok(Vec::new());
    }
    let bigquery = wiring::connect_backup_source(plan).await?;
    let (duplicate, warnings) = wiring::make_duplicate(plan)?;
    let snapshot_us = source::now_us(&bigquery).await?;
    let common = Common { bigquery: &bigquery, duplicate: &duplicate, snapshot_us, full: false };
    let mut forecasts = Vec::with_capacity(routes.len());
    for route in routes {
        let table = Table::inspect(&common, route, false, Vec::new()).await?;
        let mut notes = warnings.clone();
        notes.extend(table.findings.iter().map(ToString::to_string));
        if table.has_windows() {
            notes.push(
                "windows of a watermark are copied again when their number of rows differs; updates, and deletions that insertions make up for, need: rekindle backup bigquery --full".to_owned(),
            );
        }
        forecasts.push(of(&table, notes));
    }
    Ok(forecasts)
}

fn of(table: &Table, notes: Vec<String>) -> Forecast {
    let copied = || {
        table.fates.values().filter_map(|fate| match fate {
            Fate::Copy(found, _) => Some(found),
            _ => None,
        })
    };
    Forecast {
        route: table.route.name.clone(),
        table: table.full_name(),
        kept: table.fates.values().filter(|fate| **fate == Fate::Keep).count() as u64,
        copied: copied().count() as u64,
        rows_estimate: copied().map(|found| found.rows).sum(),
        bytes_estimate: copied().map(|found| found.bytes).sum(),
        stored_estimate: table.stored_estimate(),
        notes,
    }
}

impl Forecast {
    /// Renders it for people.
    pub fn render(&self) -> String {
        let mut text = format!(
            "backup of {}: {} table partitions to copy, {} unchanged; ~{} rows, ~{} bytes to read, ~{} bytes more in redis\n",
            self.table,
            self.copied,
            self.kept,
            self.rows_estimate,
            self.bytes_estimate,
            self.stored_estimate
        );
        for note in &self.notes {
            text.push_str("  note: ");
            text.push_str(note);
            text.push('\n');
        }
        text
    }
}
