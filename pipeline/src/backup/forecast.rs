//! What a backup would do: table partitions to copy, bytes to read, room in Redis; for `plan`.
//!
//! Invariant: both sides are only read.

use super::decide::Fate;
use super::rows::{self, RowTable};
use super::source;
use super::table::{Common, Table};
use crate::spool;
use crate::wiring;
use schemas::{Plan, Route};
use serde::Serialize;
use stages::Result;
use std::collections::BTreeMap;

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
    /// Bytes that a restore spools under `--state`, by the last census; row routes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_bytes: Option<u64>,
    /// What a person should know.
    pub notes: Vec<String>,
    #[serde(skip)]
    pub(crate) is_row_route: bool,
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
    let common = Common {
        bigquery: &bigquery,
        duplicate: &duplicate,
        snapshot_us,
        full: false,
        share: None,
    };
    let mut forecasts = Vec::with_capacity(routes.len());
    for route in routes {
        if rows::is_row_route(route) {
            let table = RowTable::inspect(&bigquery, &duplicate, route, false).await?;
            forecasts.push(of_rows(&table, &warnings));
            continue;
        }
        let table = Table::inspect(&common, route, false, Vec::new(), &BTreeMap::new()).await?;
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
        spool_bytes: None,
        notes,
        is_row_route: false,
    }
}

/// A row route copies nothing; what a restore needs is the room for its spool.
fn of_rows(table: &RowTable, warnings: &[String]) -> Forecast {
    let census = table.run.as_ref().and_then(|run| run.census.as_ref());
    let spool_bytes =
        census.map(|found| spool::bytes_of(found.keys, found.key_bytes, found.entries.is_some()));
    let mut notes = warnings.to_vec();
    notes.extend(table.findings.iter().map(ToString::to_string));
    let source = table.source.as_ref();
    let partitions = || source.iter().flat_map(|source| &source.partitions);
    Forecast {
        route: table.route.name.clone(),
        table: table.full_name(),
        kept: 0,
        copied: 0,
        rows_estimate: partitions().map(|partition| partition.rows).sum(),
        bytes_estimate: 0,
        stored_estimate: 0,
        spool_bytes,
        notes,
        is_row_route: true,
    }
}

impl Forecast {
    /// Renders it for people.
    pub fn render(&self) -> String {
        let mut text = if self.is_row_route { self.render_rows() } else { self.render_blocks() };
        for note in &self.notes {
            text.push_str("  note: ");
            text.push_str(note);
            text.push('\n');
        }
        text
    }

    fn render_rows(&self) -> String {
        let spool = match self.spool_bytes {
            Some(bytes) => format!("~{bytes} bytes under --state"),
            None => "unknown until the first backup".to_owned(),
        };
        format!(
            "backup of {}: its rows are the application's, ~{} are counted on both sides; spool of a restore: {spool}\n",
            self.table, self.rows_estimate
        )
    }

    fn render_blocks(&self) -> String {
        format!(
            "backup of {}: {} table partitions to copy, {} unchanged; ~{} rows, ~{} bytes to read, ~{} bytes more in redis\n",
            self.table,
            self.copied,
            self.kept,
            self.rows_estimate,
            self.bytes_estimate,
            self.stored_estimate
        )
    }
}
