//! `rekindle status` for people.
//!
//! Invariant: the last line is what to type next.

use super::{PartitionError, RunStanding, StatusReport};
use crate::cli::figures::{clock_of_seconds, count, seconds, things};
use crate::restore::standing::{JobStanding, StreamCounts, TableStanding};
use std::fmt::Write as _;

/// Errors shown; the rest is counted.
const ERRORS_MAX: usize = 10;

pub(super) fn render(report: &StatusReport) -> String {
    let mut runs: Vec<&RunStanding> = report.run.iter().chain(&report.restore).collect();
    // The newest last: its next command is what to type.
    runs.sort_by(|a, b| a.started_at.cmp(&b.started_at));
    if runs.is_empty() {
        return format!(
            "no run yet in {}; start one: rekindle rebuild redis\n",
            report.state.display()
        );
    }
    runs.into_iter().map(of_run).collect::<Vec<_>>().join("\n")
}

fn of_run(run: &RunStanding) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        writeln!(text, "{label:<11} {value}").expect("writing to a string cannot fail");
    };
    line("run", format!("{} {}", run.command, run.run_id));
    line("status", status(run));
    line(
        "attempts",
        format!("{}, first started at {}", count(u64::from(run.attempts)), run.started_at),
    );
    let from = if run.clock_from == "loss" {
        "since the loss"
    } else {
        "since the first start (no --lost-at)"
    };
    line(
        "clock",
        format!("{} {from}, at {}", clock_of_seconds(run.seconds_since_loss), run.lost_at),
    );
    if let Some(age) = run.checkpoint_age_seconds {
        line("checkpoint", format!("written {} ago", seconds(age)));
    }
    if run.tables.is_empty() {
        line("rows", format!("{} committed, {}", count(run.rows), things(run.rejects, "reject")));
    }
    for table in &run.tables {
        line("table", of_table(table));
        line("streams", of_streams(table));
        for JobStanding { purpose, attempt, job_id, status } in &table.jobs {
            line("job", format!("{purpose}: {status}, attempt {attempt}, {job_id}"));
        }
    }
    for route in &run.routes {
        let mut value = format!(
            "{}: {}/{} partitions done, {}",
            route.name,
            count(route.partitions_done),
            count(route.partitions),
            things(route.rows, "row")
        );
        if route.partitions_failed > 0 {
            value = format!("{value}, {} failed", things(route.partitions_failed, "partition"));
        }
        if let Some(at) = &route.completed_at {
            value = format!("{value}, complete at {at}");
        }
        line("route", value);
    }
    for PartitionError { partition, attempts, error } in run.errors.iter().take(ERRORS_MAX) {
        line("error", format!("{partition} (attempt {attempts}): {error}"));
    }
    if run.errors.len() > ERRORS_MAX {
        line("error", format!("and {} more, see --json", run.errors.len() - ERRORS_MAX));
    }
    if run.is_resumable {
        line("next", format!("to resume it: rekindle {}", run.command));
    }
    text
}

fn of_table(table: &TableStanding) -> String {
    let rows = table.rows.map_or_else(|| "unknown".to_owned(), count);
    format!(
        "{}: {}; {} of {rows} rows acknowledged, {} written; staging table {}",
        table.route,
        table.stage,
        count(table.acknowledged),
        table.written.map_or_else(|| "unknown".to_owned(), count),
        table.staging
    )
}

fn of_streams(table: &TableStanding) -> String {
    let StreamCounts { planned, open, finalized, committing, committed } = &table.streams;
    format!(
        "{planned} planned, {open} open, {finalized} finalized, {committing} committing, {committed} committed"
    )
}

fn status(run: &RunStanding) -> String {
    match (run.status.as_str(), run.pid, &run.ended_at) {
        ("running", Some(pid), _) => format!("running as process {pid}"),
        ("killed", _, _) => {
            "killed: it did not end, and no process on this machine is at it".to_owned()
        }
        (status, _, Some(at)) => format!("{status} at {at}"),
        (status, _, None) => status.to_owned(),
    }
}
