//! Ends a backup: in the journal, in Redis, and in a summary.
//!
//! Invariant: a backup that held a table partition against the source is complete, and still ends with exit code 4.

use super::super::report::{BackupSummary, TableSummary};
use super::super::rows::RowTable;
use super::super::table::Table;
use super::super::{Ended, Options};
use super::{Findings, Run};
use crate::checkpoint::Counts;
use crate::journal::RunStatus;
use crate::lane::now_ms;
use crate::outcome::{Exit, from_journal};
use crate::summarize::{peak_rss_bytes, rfc3339};
use crate::summary::{DriftSummary, RouteSummary, RunEnd, Summary, Verified};
use crate::tuning::Limit;
use schemas::Digest;
use schemas::drift::Drift;
use schemas::manifest::{self, Manifest, Version};
use stages::failpoint::{Point, pass};
use std::time::Instant;

impl Run {
    /// Ends the run in journal and target, and makes the summary.
    pub(in crate::backup) async fn end(
        self,
        mut findings: Findings,
        options: &Options,
        clock: Instant,
    ) -> Ended {
        if let Err(error) = self.commits.flush().await {
            findings.errors.push(from_journal(error));
        }
        if let Err(error) = self.duplicate.release(&self.record.id).await {
            findings.errors.push(error);
        }
        pass(Point::MarkReleased);
        let mut exits: Vec<Exit> =
            findings.errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
        if options.cancel.is_cancelled() {
            exits.push(Exit::Interrupted);
        }
        let is_complete = findings.complete.len() == self.tables.len() + self.row_tables.len();
        let status = match (is_complete, exits.is_empty()) {
            (true, true) => RunEnd::Done,
            _ if exits.contains(&Exit::Interrupted) => RunEnd::Interrupted,
            _ => RunEnd::Failed,
        };
        let summary = self.summary(&findings, options, status, clock);
        if status == RunEnd::Done
            && !(summary.run.within_rto && summary.run.within_rpo != Some(false))
        {
            exits.push(Exit::Objective);
        }
        let text = serde_json::to_string(&summary).unwrap_or_default();
        // A held table partition does not make a run unfinished: another start would find the same.
        let stored = match status {
            RunEnd::Interrupted => RunStatus::Interrupted,
            _ if is_complete => RunStatus::Done,
            _ => RunStatus::Failed,
        };
        let ended = Some(now_ms());
        let noted = self.journal.set_run_status(&self.record.id, stored, ended, Some(&text)).await;
        if let Err(error) = noted {
            let error = from_journal(error);
            exits.push(Exit::of_kind(error.kind()));
            findings.errors.push(error);
        }
        Ended { summary: Some(summary), exits, errors: findings.errors }
    }

    /// How the tables that were copied or counted differ from what the duplicate recorded.
    fn drifts(&self) -> Vec<&Drift> {
        let copied = self.tables.iter().filter(|table| table.is_open);
        let counted = self.row_tables.iter().filter(|table| table.is_open);
        let counted = counted.flat_map(|table| &table.drift);
        copied.flat_map(|table| &table.drift).chain(counted).collect()
    }

    fn summary(
        &self,
        findings: &Findings,
        options: &Options,
        status: RunEnd,
        clock: Instant,
    ) -> BackupSummary {
        let ended_ms = now_ms();
        let seconds = clock.elapsed().as_secs_f64();
        let since_start = (ended_ms - self.record.started_ms).max(0) as f64 / 1000.0;
        let rto = options.deadline.unwrap_or(self.plan.bigquery_objective.rto);
        let add = |sum: Counts, counts: &Counts| sum.checked_add(*counts).unwrap_or(sum);
        let total = findings.counts.values().fold(Counts::default(), add);
        let rows = self.row_tables.iter().map(|table| table.run.as_ref());
        let runs = self.tables.iter().map(|table| table.standing.run.as_ref()).chain(rows);
        let as_of_us: Option<i64> =
            runs.map(|run| run.and_then(manifest::Run::complete_us)).min().flatten();
        let age = as_of_us.map(|us| (ended_ms as f64 - us as f64 / 1000.0).max(0.0) / 1000.0);
        let drifts = self.drifts();
        let run = Summary {
            command: options.to.backup_command().to_owned(),
            run_id: self.record.id.clone(),
            status,
            lost_at: rfc3339(self.record.started_ms),
            clock_from: "start".to_owned(),
            started_at: rfc3339(self.record.started_ms),
            ended_at: rfc3339(ended_ms),
            seconds,
            seconds_since_loss: since_start,
            rto_seconds: rto.as_secs(),
            within_rto: since_start <= rto.as_secs_f64(),
            data_as_of: as_of_us.map(|us| rfc3339(us / 1_000)),
            rpo_seconds: age,
            within_rpo: age.map(|age| age <= self.plan.bigquery_objective.rpo.as_secs_f64()),
            rows: total.rows,
            bytes: total.bytes,
            written: total.written,
            kept: 0,
            expired: 0,
            rejects: 0,
            dropped_keys: 0,
            rows_per_second: if seconds > 0.0 { total.rows as f64 / seconds } else { 0.0 },
            peak_rss_bytes: peak_rss_bytes(),
            resumed: self.record.attempts.saturating_sub(1),
            verified: verified(findings),
            priorities: Vec::new(),
            routes: self
                .tables
                .iter()
                .map(|table| route_summary(table, findings))
                .chain(self.row_tables.iter().map(|table| counted(&table.route.name)))
                .collect(),
            way: None,
            tuned: None,
            guard: crate::guard::GuardSummary::default(),
            cut_over: None,
            files: Vec::new(),
            archive: Vec::new(),
            not_brought_back: None,
            drift: drifts.iter().map(|drift| DriftSummary::of(drift)).collect(),
            warnings: self
                .warnings
                .iter()
                .cloned()
                .chain(drifts.iter().map(ToString::to_string))
                .collect(),
        };
        let is_complete = |table: &Table| findings.complete.contains(&table.route.name);
        let tables = self.tables.iter().map(|table| TableSummary::of(table, is_complete(table)));
        let is_counted = |table: &RowTable| findings.complete.contains(&table.route.name);
        let counted =
            self.row_tables.iter().map(|table| TableSummary::of_rows(table, is_counted(table)));
        let tables = tables.chain(counted);
        BackupSummary { run, duplicate: self.duplicate.address(), tables: tables.collect() }
    }
}

/// A row route copies nothing; its numbers are those of its census.
fn counted(name: &str) -> RouteSummary {
    RouteSummary {
        name: name.to_owned(),
        rows: 0,
        bytes: 0,
        partitions: 0,
        written: 0,
        folded: 0,
        kept: 0,
        expired: 0,
        rejects: 0,
        dropped_keys: 0,
        seconds: 0.0,
        bottleneck: "source".to_owned(),
        bottleneck_share: None,
        freshness: None,
        digest: None,
    }
}

fn route_summary(table: &Table, findings: &Findings) -> RouteSummary {
    let counts = findings.counts.get(&table.route.name).copied().unwrap_or_default();
    let busy = findings.busy.get(&table.route.name).copied();
    let (limit, share, seconds) = busy.unwrap_or((Limit::None, 0.0, 0.0));
    let newest = table.standing.manifests.values().filter_map(Manifest::newest);
    let digests: Option<Vec<Digest>> = newest.map(Version::digest).collect();
    let digest = digests.map(|all| {
        all.into_iter().fold(Digest::default(), |mut sum, digest| {
            sum += digest;
            sum
        })
    });
    RouteSummary {
        name: table.route.name.clone(),
        rows: counts.rows,
        bytes: counts.bytes,
        partitions: table.fates.len() as u64,
        written: counts.written,
        folded: 0,
        kept: 0,
        expired: 0,
        rejects: 0,
        dropped_keys: 0,
        seconds,
        bottleneck: limit.word().to_owned(),
        bottleneck_share: Some(share).filter(|share| *share > 0.0),
        freshness: None,
        digest: digest.map(|digest| digest.hex()),
    }
}

/// Every block was read back, or it is not published.
fn verified(findings: &Findings) -> Verified {
    Verified {
        tier: "full".to_owned(),
        keys_counted: findings.blocks,
        keys_compared: findings.blocks,
        differences: 0,
        newer: 0,
        detects: "every new block was read back before it was published".to_owned(),
    }
}
