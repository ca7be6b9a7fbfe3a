//! Makes the summary of a run from journal, counters and findings.
//!
//! Invariant: totals come from the journal, so they cover every attempt; speeds come from this process only.

use crate::catch_up::partitions_of;
use crate::coverage::left_out::not_brought_back;
use crate::engine::Engine;
use crate::guard::GuardSummary;
use crate::journal::{PartitionRecord, RouteRecord, RunRecord};
use crate::lane::now_ms;
use crate::live::compares_versions;
use crate::outcome::from_journal;
use crate::progress::RouteCounters;
use crate::readback::{ReadBack, detection_power};
use crate::rebuild::{Findings, Options};
use crate::summary::{Freshness, PriorityDone, RouteSummary, RunEnd, Summary, Verified};
use crate::tuning::bottleneck;
use schemas::{Digest, Plan};
use stages::Result;
use stages::extract::Snapshot;
use std::collections::BTreeMap;
use std::time::Instant;

/// Makes the summary.
#[expect(clippy::too_many_arguments, reason = "it gathers what the whole run found out, once")]
pub async fn summarize(
    engine: &Engine,
    plan: &Plan,
    run: &RunRecord,
    options: &Options,
    findings: &Findings,
    status: RunEnd,
    clock: Instant,
) -> Result<Summary> {
    let shared = &engine.shared;
    let ended_ms = now_ms();
    let records = shared.journal.routes(&run.id).await.map_err(from_journal)?;
    let mut routes = Vec::new();
    let mut as_of: Option<i64> = None;
    for route in &engine.routes {
        let partitions = partitions_of(engine, route.name()).await?;
        let record = records.iter().find(|record| record.name == route.name());
        let taken_us = shown(engine, &partitions, record).await.map(|shown| shown.taken_us);
        as_of = as_of.into_iter().chain(taken_us).min();
        let counters = &shared.counters.routes[route.index];
        let counted = route_summary(route.name(), &partitions, record, counters, engine);
        routes.push(RouteSummary {
            freshness: taken_us.map(|us| Freshness {
                data_as_of: rfc3339(us / 1000),
                stale_seconds: (ended_ms as f64 / 1e3 - us as f64 / 1e6).max(0.0),
                lag_seconds: findings.lags.get(route.name()).map(|lag| lag.reached.as_secs_f64()),
                compares_versions: compares_versions(route),
            }),
            ..counted
        });
    }
    let seconds = clock.elapsed().as_secs_f64();
    let since_loss = (ended_ms - run.lost_at_ms).max(0) as f64 / 1000.0;
    let rto = options.deadline.unwrap_or(plan.redis_objective.rto);
    let rpo_seconds = as_of.map(|us| (run.lost_at_ms as f64 / 1e3 - us as f64 / 1e6).max(0.0));
    let total = |of: fn(&RouteSummary) -> u64| routes.iter().map(of).sum();
    Ok(Summary {
        command: options.command().to_owned(),
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
        within_rpo: rpo_seconds.map(|age| age <= plan.redis_objective.rpo.as_secs_f64()),
        rows: total(|route| route.rows),
        bytes: total(|route| route.bytes),
        written: total(|route| route.written),
        kept: total(|route| route.kept),
        expired: total(|route| route.expired),
        rejects: total(|route| route.rejects),
        dropped_keys: total(|route| route.dropped_keys),
        rows_per_second: shared.counters.rows_now() as f64 / seconds.max(1e-9),
        peak_rss_bytes: peak_rss_bytes(),
        resumed: run.attempts.saturating_sub(1),
        verified: verified(findings),
        priorities: priorities(engine, &records, run.started_ms),
        routes,
        way: shared.sink.way_note(),
        tuned: Some(shared.dials.tuned()),
        guard: GuardSummary {
            omitted: findings.omitted.clone().unwrap_or_default(),
            ..shared.guard.told()
        },
        cut_over: findings.cut_over.clone(),
        files: findings.files.clone(),
        archive: findings.archive.clone(),
        not_brought_back: Some(not_brought_back(plan, &options.routes, &options.state)),
        drift: findings.drift.clone(),
        warnings: findings.warnings.clone(),
    })
}

/// The snapshot a route shows: the one it was caught up to, or the earliest one it was read in.
async fn shown(
    engine: &Engine,
    partitions: &[PartitionRecord],
    record: Option<&RouteRecord>,
) -> Option<Snapshot> {
    let earliest = partitions.iter().filter_map(|partition| partition.first_snapshot).min()?;
    let id = record.and_then(|record| record.caught_up).map_or(earliest, |id| id.max(earliest));
    engine.shared.snapshots.get(id).await
}

fn route_summary(
    name: &str,
    partitions: &[PartitionRecord],
    record: Option<&RouteRecord>,
    counters: &RouteCounters,
    engine: &Engine,
) -> RouteSummary {
    let total = |of: fn(&PartitionRecord) -> u64| partitions.iter().map(of).sum::<u64>();
    let mut digest = Digest::default();
    for partition in partitions {
        digest += partition.counts.digest;
    }
    let mut snapshots: Vec<Option<i64>> =
        partitions.iter().flat_map(|p| [p.first_snapshot, p.last_snapshot]).collect();
    snapshots.sort_unstable();
    snapshots.dedup();
    let (limit, share) = bottleneck(counters.waits(), engine.shared.guard.target_busy());
    RouteSummary {
        name: name.to_owned(),
        rows: total(|p| p.counts.rows),
        bytes: total(|p| p.counts.bytes),
        partitions: partitions.len() as u64,
        written: total(|p| p.counts.written),
        folded: total(|p| p.counts.folded),
        kept: total(|p| p.counts.kept),
        expired: total(|p| p.counts.expired),
        rejects: total(|p| p.counts.rejects),
        dropped_keys: record.map_or(0, |record| record.dropped_keys),
        seconds: total(|p| p.busy_ms) as f64 / 1000.0,
        bottleneck: limit.word().to_owned(),
        bottleneck_share: Some(share).filter(|share| *share > 0.0),
        freshness: None,
        // Rows read in several snapshots, some twice, have no digest that another run could repeat.
        digest: (snapshots.len() == 1).then(|| digest.hex()),
    }
}

fn verified(findings: &Findings) -> Verified {
    let Some(ReadBack { counted, compared, newer, .. }) = &findings.read_back else {
        return Verified { tier: "none".into(), ..Verified::default() };
    };
    let differences = findings.read_back.as_ref().map_or(0, ReadBack::differences);
    let (tier, detects) = if !findings.files.is_empty() {
        let power = detection_power(*compared);
        (
            "sample",
            format!(
                "any altered byte, missing key or other expiry; of values that were encoded wrongly, {power}"
            ),
        )
    } else if findings.read_back_is_full {
        ("full", "any missing key, any other value or expiry".to_owned())
    } else {
        ("sample", format!("any missing key; {}", detection_power(*compared)))
    };
    Verified {
        tier: tier.into(),
        keys_counted: *counted,
        keys_compared: *compared,
        differences,
        newer: *newer,
        detects,
    }
}

/// Seconds from the first start until every route of a priority was complete.
fn priorities(engine: &Engine, records: &[RouteRecord], started_ms: i64) -> Vec<PriorityDone> {
    let mut latest: BTreeMap<u32, Option<i64>> = BTreeMap::new();
    for route in &engine.routes {
        let done = records.iter().find(|r| r.name == route.name()).and_then(|r| r.completed_ms);
        latest
            .entry(route.bound.route.priority)
            .and_modify(|slowest| *slowest = slowest.zip(done).map(|(a, b)| a.max(b)))
            .or_insert(done);
    }
    latest
        .into_iter()
        .filter_map(|(priority, done)| {
            let seconds = (done? - started_ms).max(0) as f64 / 1000.0;
            Some(PriorityDone { priority, seconds })
        })
        .collect()
}

/// Returns a time in milliseconds since 1970 as RFC 3339 in UTC.
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

/// Returns the peak resident memory of this process (`VmHWM` of proc(5)); 0 where it is not told.
pub fn peak_rss_bytes() -> u64 {
    status_bytes("VmHWM:")
}

/// Returns the resident memory of this process (`VmRSS` of proc(5)); 0 where it is not told.
pub fn rss_bytes() -> u64 {
    status_bytes("VmRSS:")
}

fn status_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
