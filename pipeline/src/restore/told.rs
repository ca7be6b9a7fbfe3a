//! Makes the summary of a restore.
//!
//! Invariant: rows restored and rows kept come from jobs and proofs, speeds from this process only.

use super::run::Proof;
use super::stage::TableStage;
use super::table::Table;
use super::{COMMAND, Options, Shared};
use crate::journal::RunRecord;
use crate::lane::now_ms;
use crate::summarize::{peak_rss_bytes, rfc3339};
use crate::summary::{PriorityDone, RouteSummary, RunEnd, Summary, Verified};
use schemas::{Digest, Plan};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Makes the summary.
#[expect(clippy::too_many_arguments, reason = "it gathers what the whole run found out, once")]
pub(super) fn summary(
    shared: &Shared,
    plan: &Plan,
    run: &RunRecord,
    options: &Options,
    tables: &[Table],
    proof: &Proof,
    (status, clock): (RunEnd, Instant),
) -> Summary {
    let ended_ms = now_ms();
    let seconds = clock.elapsed().as_secs_f64();
    let since_loss = (ended_ms - run.lost_at_ms).max(0) as f64 / 1000.0;
    let objective = plan.bigquery_objective;
    let rto = options.deadline.unwrap_or(objective.rto);
    let as_of = tables.iter().filter_map(|table| table.choice.as_of_us).min();
    let rpo_seconds = as_of.map(|us| (run.lost_at_ms as f64 / 1e3 - us as f64 / 1e6).max(0.0));
    // A restore to an earlier state is as old as it was asked to be.
    let within_rpo = rpo_seconds
        .filter(|_| options.asked.as_of_us.is_none())
        .map(|age| age <= objective.rpo.as_secs_f64());
    let routes: Vec<RouteSummary> = tables.iter().map(|table| route(shared, table)).collect();
    let total = |of: fn(&RouteSummary) -> u64| routes.iter().map(of).sum();
    let is_complete = tables.iter().all(|table| table.record.stage == TableStage::Complete);
    Summary {
        command: COMMAND.to_owned(),
        run_id: run.id.clone(),
        status,
        lost_at: rfc3339(run.lost_at_ms),
        clock_from: if run.lost_at_given { "loss" } else { "start" }.to_owned(),
        started_at: rfc3339(run.started_ms),
        ended_at: rfc3339(ended_ms),
        seconds,
        seconds_since_loss: since_loss,
        rto_seconds: rto.as_secs(),
        within_rto: since_loss <= rto.as_secs_f64(),
        data_as_of: as_of.map(|us| rfc3339(us / 1000)),
        rpo_seconds,
        within_rpo,
        rows: total(|route| route.rows),
        bytes: total(|route| route.bytes),
        written: total(|route| route.written),
        kept: total(|route| route.kept),
        expired: 0,
        rejects: total(|route| route.rejects),
        dropped_keys: 0,
        rows_per_second: shared.counters.rows_now() as f64 / seconds.max(1e-9),
        peak_rss_bytes: peak_rss_bytes(),
        resumed: run.attempts.saturating_sub(1),
        verified: verified(options, proof, status),
        priorities: if is_complete {
            vec![PriorityDone {
                priority: 0,
                seconds: (ended_ms - run.started_ms).max(0) as f64 / 1000.0,
            }]
        } else {
            Vec::new()
        },
        routes,
        way: None,
        tuned: None,
        guard: crate::guard::GuardSummary::default(),
        cut_over: None,
        files: Vec::new(),
        archive: Vec::new(),
        not_brought_back: None,
        drift: Vec::new(),
        warnings: tables
            .iter()
            .flat_map(|table| warnings(table, options.asked.into.is_none()))
            .collect(),
    }
}

fn warnings(table: &Table, is_in_place: bool) -> Vec<String> {
    let mut warnings = table.findings.warnings.clone();
    let vanished = table.findings.loaded.as_ref().map_or(0, |loaded| loaded.vanished);
    if vanished > 0 {
        warnings.push(format!(
            "{vanished} rows of {} were in redis when its keys were looked for and gone when they were read: expired, deleted or trimmed",
            table.name()
        ));
    }
    let is_made = table.findings.makes_destination && table.record.stage == TableStage::Complete;
    if is_in_place && is_made {
        let name = table.name();
        warnings.push(format!(
            "{name} was made anew, which a backup takes for a loss until it is told: rekindle backup bigquery --accept-loss {name}"
        ));
    }
    warnings
}

fn route(shared: &Shared, table: &Table) -> RouteSummary {
    let counters = &shared.counters.routes[table.index];
    let loaded = table.findings.loaded.as_ref();
    let mut digest = Digest::default();
    for part in &table.choice.parts {
        digest += Digest::from_hex(&part.digest, part.rows).unwrap_or_default();
    }
    let source = counters.source_wait_us.load(Ordering::Relaxed);
    let target = counters.target_us.load(Ordering::Relaxed);
    RouteSummary {
        name: table.route.clone(),
        rows: table.rows(),
        bytes: table.taken.iter().map(|taken| taken.version.stored_bytes).sum::<u64>()
            + loaded.map_or(0, |loaded| loaded.bytes),
        partitions: table.choice.parts.len() as u64,
        written: table.findings.written,
        folded: 0,
        kept: table.findings.kept,
        expired: 0,
        rejects: loaded.map_or(0, |loaded| loaded.rejects),
        dropped_keys: 0,
        seconds: (source + target) as f64 / 1e6,
        bottleneck: if source > target { "source" } else { "target" }.to_owned(),
        bottleneck_share: None,
        freshness: None,
        digest: Some(loaded.map_or_else(|| digest.hex(), |loaded| loaded.digest.clone())),
    }
}

fn verified(options: &Options, proof: &Proof, status: RunEnd) -> Verified {
    // A table without rows is proven to have none.
    let is_proven = proof.counted > 0 || status == RunEnd::Done;
    if !options.verify || !is_proven {
        return Verified { tier: "none".into(), ..Verified::default() };
    }
    let is_full = proof.compared == proof.counted;
    Verified {
        tier: if is_full { "full" } else { "count" }.into(),
        keys_counted: proof.counted,
        keys_compared: proof.compared,
        differences: 0,
        newer: 0,
        detects: if is_full {
            "any missing, added or altered row".into()
        } else {
            "any missing row of a table partition; its digest was compared in staging".into()
        },
    }
}
