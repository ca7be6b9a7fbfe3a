//! One table of a restore: what was chosen, what was found, and how both are journaled.
//!
//! Invariant: the choice never changes within a run; findings are journaled before the step they allow.

use super::Shared;
use super::choose::Taken;
use super::duplicate::Duplicate;
use super::rows::{CountedRows, RowSource, Spool};
use super::run::Proof;
use super::stage::TableStage;
use crate::journal::{RestoreRecord, StreamRecord};
use crate::outcome::from_journal;
use schemas::Digest;
use schemas::manifest::TableRecord;
use serde::{Deserialize, Serialize};
use stages::{Error, Kind, Result};

/// How the rows get from staging into the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// One copy of the whole table.
    Whole,
    /// One copy per table partition.
    Partitions,
    /// One statement that inserts rows whose key is absent.
    Rows,
}

/// One table partition of a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) table_partition: String,
    pub(super) generation: u64,
    pub(super) rows: u64,
    pub(super) digest: String,
}

/// What is restored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Choice {
    pub(super) way: Way,
    /// Whether what the destination holds is replaced.
    pub(super) replaces: bool,
    /// Names the recorded table.
    pub(super) schema_hash: String,
    pub(super) location: String,
    pub(super) parts: Vec<Part>,
    /// Table partitions left out because they would expire at once.
    pub(super) expired: Vec<String>,
    /// The oldest state of the source among the parts, microseconds since 1970.
    pub(super) as_of_us: Option<i64>,
    pub(super) row_key: Option<String>,
    /// Whether rows belong to the table partition of their arrival: then each has a staging table of its own.
    #[serde(default)]
    pub(super) by_arrival: bool,
    /// How blocks are cut into requests; another cut cannot continue a stream.
    pub(super) cut: u32,
    /// The keys of a row route.
    #[serde(default)]
    pub(super) spool: Option<Spool>,
    /// The table as it stood, where its record was lost.
    #[serde(default)]
    pub(super) recorded: Option<TableRecord>,
}

impl Choice {
    /// The staging table of a table partition, under the name that all of this attempt begin with.
    pub(super) fn staging_of(&self, staging: &str, partition: &str) -> String {
        if self.by_arrival { format!("{staging}_{partition}") } else { staging.to_owned() }
    }

    /// All staging tables; at least one, so that there is a schema to be read.
    pub(super) fn stagings(&self, staging: &str) -> Vec<String> {
        let filled = self.parts.iter().filter(|part| self.by_arrival && part.rows > 0);
        let names: Vec<String> =
            filled.map(|part| self.staging_of(staging, &part.table_partition)).collect();
        if names.is_empty() { vec![staging.to_owned()] } else { names }
    }
}

/// What was found on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Findings {
    /// The destination was not there, and is made by this run.
    pub(super) makes_destination: bool,
    /// The filter that queries of the destination need is lifted until the end.
    pub(super) lifts_filter: bool,
    /// Rows that the jobs put into the destination.
    pub(super) written: u64,
    /// Rows of staging whose key, or table partition, was there already.
    pub(super) kept: u64,
    /// When the last job ended, milliseconds since 1970.
    pub(super) published_ms: i64,
    /// What a person should know.
    pub(super) warnings: Vec<String>,
    /// What became of the rows of a row route, by partition.
    pub(super) counted: CountedRows,
    /// What all partitions of a row route came to, once they are loaded.
    pub(super) loaded: Option<LoadedRows>,
    /// That the destination is done with; staging, which a proof may need, may be gone from then on.
    pub(super) finished: Option<Finished>,
}

/// A destination whose settings are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finished {
    /// Whether it was proven before.
    pub(super) is_proven: bool,
    /// What that counted and compared.
    pub(super) proof: Proof,
}

/// What the rows of a row route came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LoadedRows {
    /// Rows in staging.
    pub(super) rows: u64,
    /// Their digest, 32 hex digits.
    pub(super) digest: String,
    /// Bytes read from Redis.
    pub(super) bytes: u64,
    /// Rows that could not be decoded.
    pub(super) rejects: u64,
    /// Rows that were gone between the search and the read.
    pub(super) vanished: u64,
}

/// One table on its way.
#[expect(
    clippy::struct_field_names,
    reason = "BigQuery calls it table id, the plan calls it table"
)]
pub(super) struct Table {
    /// Place in the counters.
    pub(super) index: usize,
    pub(super) route: String,
    pub(super) dataset: String,
    pub(super) table: String,
    pub(super) duplicate: Duplicate,
    pub(super) recorded: TableRecord,
    pub(super) taken: Vec<Taken>,
    /// Where the rows of a row route are; `None` for blocks.
    pub(super) rows: Option<RowSource>,
    pub(super) choice: Choice,
    pub(super) findings: Findings,
    pub(super) record: RestoreRecord,
}

impl Table {
    /// `dataset.table`, for messages.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.dataset, self.table)
    }

    /// All staging tables of this attempt.
    pub(super) fn stagings(&self) -> Vec<String> {
        self.choice.stagings(&self.record.staging)
    }

    /// Rows that are restored.
    pub(super) fn rows(&self) -> u64 {
        let expected = || self.choice.parts.iter().map(|part| part.rows).sum();
        self.findings.loaded.as_ref().map_or_else(expected, |loaded| loaded.rows)
    }

    /// Moves on, with the findings so far.
    pub(super) async fn step(&mut self, shared: &Shared, to: TableStage) -> Result<()> {
        self.record.findings = to_json(&self.findings)?;
        shared.journal.step_restore(&mut self.record, to).await.map_err(from_journal)
    }

    /// Journals the findings where the table is.
    pub(super) async fn note(&mut self, shared: &Shared) -> Result<()> {
        let stage = self.record.stage;
        self.step(shared, stage).await
    }

    /// Names the next staging table, and plans all streams anew.
    pub(super) async fn begin(&mut self, shared: &Shared) -> Result<()> {
        self.record.attempt += 1;
        self.record.staging = staging_name(&self.table, &shared.run_id, self.record.attempt);
        self.record.stage = TableStage::Planned;
        (self.findings.counted, self.findings.loaded) = (CountedRows::default(), None);
        self.record.choice = to_json(&self.choice)?;
        self.record.findings = to_json(&self.findings)?;
        let filled = self.choice.parts.iter().filter(|part| part.rows > 0);
        let names: Vec<String> = filled.map(|part| part.table_partition.clone()).collect();
        shared.journal.put_restore(&self.record, &names).await.map_err(from_journal)
    }

    /// The streams as the journal has them.
    pub(super) async fn streams(&self, shared: &Shared) -> Result<Vec<StreamRecord>> {
        shared.journal.streams(&shared.run_id, &self.route).await.map_err(from_journal)
    }

    /// The digest that the table partitions of this restore have once they are in the table's schema.
    pub(super) async fn expected(&self, shared: &Shared) -> Result<Digest> {
        let mut expected = Digest::default();
        for stream in self.streams(shared).await? {
            let part =
                self.choice.parts.iter().find(|p| p.table_partition == stream.table_partition);
            // How many rows a part of a spool has is known only when they were read.
            let is_counted = self.rows.is_some();
            let rows = part.map(|part| if is_counted { stream.acknowledged } else { part.rows });
            let digest = rows.and_then(|rows| Digest::from_hex(stream.digest.as_deref()?, rows));
            expected += digest.ok_or_else(|| {
                Error::new(
                    Kind::Internal,
                    format!(
                        "table partition {} has no digest in the journal",
                        stream.table_partition
                    ),
                )
                .with_hint("start over: rekindle restore bigquery --fresh")
            })?;
        }
        Ok(expected)
    }
}

/// Returns the JSON text of a record of ours.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::new(Kind::Internal, "a record of the journal is no JSON").with_source(error)
    })
}

/// The staging tables of a restore in the journal, by the name of its own where the text is of another version.
pub(super) fn recorded_stagings(record: &RestoreRecord) -> Vec<String> {
    let choice: Option<Choice> = serde_json::from_str(&record.choice).ok();
    choice.map_or_else(|| vec![record.staging.clone()], |choice| choice.stagings(&record.staging))
}

/// The name of a staging table: of the table, the run and the attempt, so that no two ever meet.
pub(super) fn staging_name(table: &str, run_id: &str, attempt: u32) -> String {
    format!("{table}_{}_{attempt}", run_id.replace('-', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_tables_have_names_of_their_own() {
        assert_eq!(staging_name("t", "0198-ab", 2), "t_0198ab_2");
        assert_ne!(staging_name("t", "r", 1), staging_name("t", "r", 2));
    }

    #[test]
    fn findings_of_an_earlier_binary_are_read() {
        let findings: Findings = serde_json::from_str(r#"{"written": 5}"#).unwrap();
        assert_eq!(findings, Findings { written: 5, ..Findings::default() });
    }
}
