//! The summary of a backup: what every run says, and what became of each table.
//!
//! Invariant: a table partition that was held is counted as held in every summary until its loss is accepted or mended.

use super::decide::{Fate, Why};
use super::rows::RowTable;
use super::table::Table;
use crate::summary::Summary;
use schemas::manifest::Census;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// One backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// What every run says.
    #[serde(flatten)]
    pub run: Summary,
    /// Where the copy is, without credentials.
    pub duplicate: String,
    /// Per table.
    pub tables: Vec<TableSummary>,
}

/// One table of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSummary {
    /// `dataset.table`.
    pub table: String,
    /// Whether everything the source has is in the duplicate now.
    pub is_complete: bool,
    /// Table partitions that had not changed.
    pub kept: u64,
    /// Table partitions copied for the first time.
    pub added: u64,
    /// Table partitions copied because the source changed them, or emptied because their rows moved into others.
    pub changed: u64,
    /// Table partitions copied because their copy was missing or altered.
    pub mended: u64,
    /// Table partitions whose older copy stays because the source lost rows of them.
    pub held: Vec<String>,
    /// Table partitions that had expired.
    pub expired: u64,
    /// Table partitions whose loss was accepted.
    pub emptied: u64,
    /// Rows in the duplicate.
    pub rows: u64,
    /// Bytes they take in Redis.
    pub stored_bytes: u64,
    /// Bytes they take in BigQuery, as far as it tells.
    pub source_bytes: u64,
    /// What was counted of a route whose rows the application writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub census: Option<Census>,
}

impl TableSummary {
    /// Counts what became of a table.
    pub fn of(table: &Table, is_complete: bool) -> Self {
        let count = |wanted: &dyn Fn(&Fate) -> bool| {
            table.fates.values().filter(|fate| wanted(fate)).count() as u64
        };
        let why = |reason: Why| {
            count(&move |fate| matches!(fate, Fate::Copy(_, found) if *found == reason))
        };
        let newest = || table.standing.manifests.values().filter_map(|manifest| manifest.newest());
        Self {
            table: table.full_name(),
            is_complete,
            kept: count(&|fate| *fate == Fate::Keep),
            added: why(Why::New),
            changed: why(Why::Changed) + why(Why::Asked) + count(&|fate| *fate == Fate::Move),
            mended: why(Why::Damaged),
            held: table.held().into_iter().map(|(id, _)| id).collect(),
            expired: count(&|fate| *fate == Fate::Expire),
            emptied: count(&|fate| *fate == Fate::Empty),
            rows: newest().map(|version| version.rows).sum(),
            stored_bytes: newest().map(|version| version.stored_bytes).sum(),
            source_bytes: newest().map(|version| version.source_bytes).sum(),
            census: None,
        }
    }

    /// Tells what was counted of a row route; nothing of it is copied.
    pub(crate) fn of_rows(table: &RowTable, is_complete: bool) -> Self {
        let census = table.run.as_ref().and_then(|run| run.census.clone());
        Self {
            table: table.full_name(),
            is_complete,
            kept: 0,
            added: 0,
            changed: 0,
            mended: 0,
            held: Vec::new(),
            expired: 0,
            emptied: 0,
            rows: census.as_ref().map_or(0, Census::held),
            stored_bytes: 0,
            source_bytes: 0,
            census,
        }
    }
}

impl BackupSummary {
    /// Renders it for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let run = &self.run;
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        let end = serde_json::to_value(run.status).unwrap_or_default();
        line(format!("{}: {}", run.command, end.as_str().unwrap_or("unknown")));
        line(format!("  run         {}", run.run_id));
        let word = if run.command == super::ARCHIVE_COMMAND { "archive" } else { "duplicate" };
        line(format!("  {word:<11} {}", self.duplicate));
        line(format!("  data as of  {}", run.data_as_of.as_deref().unwrap_or("unknown")));
        line(format!(
            "  copied      {} rows, {} bytes read, in {:.1} s",
            run.rows, run.bytes, run.seconds
        ));
        for table in &self.tables {
            line(table.render());
        }
        for warning in &run.warnings {
            line(format!("  warning     {warning}"));
        }
        text
    }
}

impl TableSummary {
    fn render(&self) -> String {
        if let Some(census) = &self.census {
            return self.render_census(census);
        }
        let mut text = format!(
            "  {:<11} {} rows in {} bytes ({} in bigquery); table partitions: {} kept, {} added, {} changed",
            self.table,
            self.rows,
            self.stored_bytes,
            self.source_bytes,
            self.kept,
            self.added,
            self.changed
        );
        let others = [
            (self.mended, "mended"),
            (self.held.len() as u64, "held"),
            (self.expired, "expired"),
            (self.emptied, "emptied"),
        ];
        for (count, word) in others.into_iter().filter(|(count, _)| *count > 0) {
            // Writing to a string cannot fail.
            write!(text, ", {count} {word}").unwrap_or_default();
        }
        if !self.is_complete {
            text.push_str("; not complete");
        }
        text
    }

    fn render_census(&self, census: &Census) -> String {
        let held = match census.entries {
            Some(entries) => format!("{entries} entries of {} streams", census.keys),
            None => format!("{} keys", census.keys),
        };
        let mut text =
            format!("  {:<11} {} rows in bigquery, {held} in redis", self.table, census.rows);
        if census.unfit_keys > 0 {
            // Writing to a string cannot fail.
            write!(text, ", {} keys do not fit", census.unfit_keys).unwrap_or_default();
        }
        if !self.is_complete {
            text.push_str("; not complete");
        }
        text
    }
}
