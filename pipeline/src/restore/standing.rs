//! How the restores of a run stand, as the journal has them; for `status`.
//!
//! Invariant: it only reads the journal, so it tells the same beside a run at work and after one that died.

use super::stage::StreamStage;
use super::table::{Choice, Findings, Way};
use crate::journal::Journal;
use crate::outcome::from_journal;
use serde::Serialize;
use stages::Result;

/// How the restore of one table stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableStanding {
    /// The route.
    pub route: String,
    /// `planned`, `staged`, `loaded`, `proven`, `published` or `complete`.
    pub stage: &'static str,
    /// How it is published: `whole`, `partitions` or `rows`; absent when the journal's text is of another version.
    pub way: Option<&'static str>,
    /// Name of the staging table.
    pub staging: String,
    /// Number of the staging table, from 1.
    pub attempt: u32,
    /// Rows to restore.
    pub rows: Option<u64>,
    /// Rows that BigQuery has acknowledged.
    pub acknowledged: u64,
    /// Its write streams, one per table partition that has rows.
    pub streams: StreamCounts,
    /// Rows that jobs have put into the destination.
    pub written: Option<u64>,
    /// Its jobs, in the order they were asked for.
    pub jobs: Vec<JobStanding>,
}

/// Write streams by their stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamCounts {
    /// There is none yet.
    pub planned: u64,
    /// It takes rows.
    pub open: u64,
    /// It takes no more rows.
    pub finalized: u64,
    /// Its commit was asked for.
    pub committing: u64,
    /// Its rows are in staging.
    pub committed: u64,
}

impl StreamCounts {
    fn add(&mut self, stage: StreamStage) {
        let count = match stage {
            StreamStage::Planned => &mut self.planned,
            StreamStage::Open => &mut self.open,
            StreamStage::Finalized => &mut self.finalized,
            StreamStage::Committing => &mut self.committing,
            StreamStage::Committed => &mut self.committed,
        };
        *count += 1;
    }
}

/// A job as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobStanding {
    /// What it is for: `publish`, `publish 20261101`, `fill`.
    pub purpose: String,
    /// Number of the job for this purpose, from 1.
    pub attempt: u32,
    /// Its id in BigQuery.
    pub job_id: String,
    /// `asked`, `done` or `failed`.
    pub status: &'static str,
}

/// Reads how every table of a run stands.
pub async fn standings(journal: &Journal, run_id: &str) -> Result<Vec<TableStanding>> {
    let mut tables = Vec::new();
    for record in journal.restores(run_id).await.map_err(from_journal)? {
        let mut streams = StreamCounts::default();
        let mut acknowledged = 0;
        for stream in journal.streams(run_id, &record.route).await.map_err(from_journal)? {
            streams.add(stream.status);
            acknowledged += stream.acknowledged;
        }
        let jobs = journal.jobs(run_id, &record.route).await.map_err(from_journal)?;
        // Texts of another version are no failure of a command that only looks.
        let choice: Option<Choice> = serde_json::from_str(&record.choice).ok();
        let findings: Option<Findings> = serde_json::from_str(&record.findings).ok();
        tables.push(TableStanding {
            route: record.route,
            stage: record.stage.word(),
            way: choice.as_ref().map(|choice| choice.way.word()),
            staging: record.staging,
            attempt: record.attempt,
            rows: choice.map(|choice| choice.parts.iter().map(|part| part.rows).sum()),
            acknowledged,
            streams,
            written: findings.map(|findings| findings.written),
            jobs: jobs
                .into_iter()
                .map(|job| JobStanding {
                    purpose: job.purpose,
                    attempt: job.attempt,
                    job_id: job.job_id,
                    status: job.status.word(),
                })
                .collect(),
        });
    }
    Ok(tables)
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partitions => "partitions",
            Self::Rows => "rows",
        }
    }
}
