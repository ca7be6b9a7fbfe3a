//! The summary of a run for people, on stdout.
//!
//! Invariant: it says what the JSON says, nothing more, and never calls a run done that is not.

use super::figures::{bytes, clock, clock_of_seconds, count, per_second, seconds, things};
use super::{guard_text, live_text};
use crate::coverage::left_out::{Declared, NotBroughtBack};
use crate::summary::{FileSummary, RouteSummary, RunEnd, Summary};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Renders a summary. `rejects` is the folder the rejected rows are in.
pub(crate) fn render(summary: &Summary, rejects: &Path) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        writeln!(text, "{label:<9} {value}").expect("writing to a string cannot fail");
    };
    line("status", status(summary));
    line("run", run(summary));
    line("rows", rows(summary));
    if let Some(folded) = folded(&summary.routes) {
        line("folded", folded);
    }
    line(
        "speed",
        format!(
            "{} rows/s over the {} of this {}, {} read in all, peak memory {}",
            per_second(summary.rows_per_second),
            seconds(summary.seconds),
            if summary.resumed > 0 { "attempt" } else { "run" },
            bytes(summary.bytes),
            bytes(summary.peak_rss_bytes)
        ),
    );
    if let Some(way) = &summary.way {
        line("hashes", format!("by {way}"));
    }
    for read in &summary.archive {
        line("archive", read.told());
    }
    for file in &summary.files {
        line("file", told_file(file));
    }
    line("verified", verified(summary));
    line("RTO", rto(summary));
    line("RPO", rpo(summary));
    for (label, value) in live_text::lines(summary) {
        line(label, value);
    }
    if !summary.priorities.is_empty() {
        let done: Vec<String> = summary
            .priorities
            .iter()
            .map(|done| {
                format!("priority {} complete after {}", done.priority, seconds(done.seconds))
            })
            .collect();
        line("order", done.join(", "));
    }
    if summary.rejects > 0 {
        line(
            "rejects",
            format!(
                "{}, with reason and origin in {}",
                things(summary.rejects, "row"),
                rejects.display()
            ),
        );
    }
    for (label, value) in guard_text::lines(&summary.guard) {
        line(label, value);
    }
    for (label, value) in summary.not_brought_back.iter().flat_map(left_out) {
        line(label, value);
    }
    for warning in &summary.warnings {
        line("warning", warning.clone());
    }
    if !summary.routes.is_empty() {
        text.push('\n');
        text.push_str(&table(&summary.routes));
    }
    text
}

fn told_file(file: &FileSummary) -> String {
    format!(
        "{}: {}, {}, {} of them with an expiry, slots {}, RDB version {}, CRC-64 {}",
        file.path,
        bytes(file.bytes),
        things(file.keys, "key"),
        count(file.expiring),
        file.slots,
        file.rdb_version,
        file.crc64
    )
}

/// The lines on what a rebuild does not bring back.
fn left_out(found: &NotBroughtBack) -> Vec<(&'static str, String)> {
    let declared = |Declared { prefix, owner, comes_back }: &Declared| {
        ("not back", format!("keys {prefix}*, owner {owner}, come back: {comes_back}"))
    };
    let mut lines: Vec<(&'static str, String)> = found.declared.iter().map(declared).collect();
    if !found.routes.is_empty() {
        lines
            .push(("not back", format!("routes left out by --route: {}", found.routes.join(", "))));
    }
    lines.push(("coverage", found.coverage_note.clone()));
    lines
}

fn status(summary: &Summary) -> String {
    match summary.status {
        RunEnd::Done => "done: complete and read back".to_owned(),
        RunEnd::Unverified => "unverified: complete, but not read back (--no-verify)".to_owned(),
        RunEnd::Partial => {
            "partial: loaded up to the share that was asked for; the same command without --fit loads the rest".to_owned()
        }
        RunEnd::Interrupted => "interrupted: run the same command again to resume".to_owned(),
        RunEnd::Failed => "failed: not complete, or not proven".to_owned(),
    }
}

fn run(summary: &Summary) -> String {
    let mut text = format!(
        "{} {}, {} to {}",
        summary.command, summary.run_id, summary.started_at, summary.ended_at
    );
    if summary.resumed > 0 {
        text = format!("{text}, resumed {}", things(u64::from(summary.resumed), "time"));
    }
    text
}

fn is_restore(summary: &Summary) -> bool {
    summary.command == crate::restore::COMMAND
}

fn rows(summary: &Summary) -> String {
    if is_restore(summary) {
        let (rows, written, kept) = (summary.rows, summary.written, summary.kept);
        let (rows, written, kept) = (count(rows), count(written), count(kept));
        return format!("{rows} in the duplicate = {written} written + {kept} left as they were");
    }
    format!(
        "{} read = {} written + {} kept + {} expired + {}; {} removed",
        count(summary.rows),
        count(summary.written),
        count(summary.kept),
        count(summary.expired),
        things(summary.rejects, "reject"),
        things(summary.dropped_keys, "key")
    )
}

/// The rows that made no element of their own, by route.
fn folded(routes: &[RouteSummary]) -> Option<String> {
    let told: Vec<String> = routes
        .iter()
        .filter(|route| route.folded > 0)
        .map(|route| format!("{} ({})", things(route.folded, "row"), route.name))
        .collect();
    let what = "of those written, into members that were there already";
    (!told.is_empty()).then(|| format!("{} {what}", told.join(", ")))
}

fn verified(summary: &Summary) -> String {
    let Summary { verified, .. } = summary;
    let noun = if is_restore(summary) { "row" } else { "key" };
    if verified.tier == "none" || verified.tier.is_empty() {
        return "nothing was read back".to_owned();
    }
    let mut text = format!(
        "{}: {} counted, {} compared, {}",
        verified.tier,
        things(verified.keys_counted, noun),
        things(verified.keys_compared, noun),
        things(verified.differences, "difference")
    );
    if verified.newer > 0 {
        text = format!("{text}, {} newer than was read", things(verified.newer, noun));
    }
    if !verified.detects.is_empty() {
        text = format!("{text} ({})", verified.detects);
    }
    text
}

fn rto(summary: &Summary) -> String {
    let from = match summary.clock_from.as_str() {
        "loss" => "clock from the loss",
        _ => "clock from start, not from loss",
    };
    let is_file = !summary.files.is_empty();
    let verb = match summary.status {
        RunEnd::Done | RunEnd::Unverified if is_file => "written, and still to be loaded, in",
        RunEnd::Done | RunEnd::Unverified => "recovered in",
        RunEnd::Partial => "recovered in part in",
        RunEnd::Interrupted | RunEnd::Failed => "not recovered after",
    };
    let missed = if summary.within_rto { "" } else { "MISSED: " };
    format!(
        "{missed}{verb} {} of {}, {from}",
        clock_of_seconds(summary.seconds_since_loss),
        clock(Duration::from_secs(summary.rto_seconds))
    )
}

fn rpo(summary: &Summary) -> String {
    match (&summary.data_as_of, summary.rpo_seconds) {
        (Some(as_of), Some(age)) => {
            let missed = if summary.within_rpo == Some(false) { "MISSED: " } else { "" };
            format!("{missed}data as of {as_of}, {} old at the loss", clock_of_seconds(age))
        }
        (Some(as_of), None) => format!("data as of {as_of}"),
        (None, _) => "unknown: nothing was read".to_owned(),
    }
}

/// What was waited for most, and how much of the time.
fn waits_for(route: &RouteSummary) -> String {
    let share = route.bottleneck_share.map(|share| format!(" {:.0} %", share * 100.0));
    format!("{}{}", route.bottleneck, share.unwrap_or_default())
}

/// Renders routes as columns, numbers to the right.
fn table(routes: &[RouteSummary]) -> String {
    const HEAD: [&str; 11] = [
        "route",
        "rows",
        "bytes",
        "partitions",
        "written",
        "kept",
        "expired",
        "rejects",
        "removed",
        "seconds",
        "waits for",
    ];
    let mut lines: Vec<[String; 11]> = vec![HEAD.map(str::to_owned)];
    lines.extend(routes.iter().map(|route| {
        [
            route.name.clone(),
            count(route.rows),
            bytes(route.bytes),
            count(route.partitions),
            count(route.written),
            count(route.kept),
            count(route.expired),
            count(route.rejects),
            count(route.dropped_keys),
            format!("{:.1}", route.seconds),
            waits_for(route),
        ]
    }));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            let is_text = column == 0 || column == HEAD.len() - 1;
            if is_text { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let cells: Vec<String> = cells.collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{PriorityDone, Verified};

    fn summary() -> Summary {
        Summary {
            command: "rebuild redis".into(),
            run_id: "0198".into(),
            status: RunEnd::Done,
            lost_at: "2026-01-31T04:00:00Z".into(),
            clock_from: "start".into(),
            started_at: "2026-01-31T04:00:00Z".into(),
            ended_at: "2026-01-31T04:01:02Z".into(),
            seconds: 42.5,
            seconds_since_loss: 62.0,
            rto_seconds: 86_400,
            within_rto: true,
            data_as_of: Some("2026-01-31T04:00:01Z".into()),
            rpo_seconds: Some(0.0),
            within_rpo: Some(true),
            rows: 1_000_000,
            bytes: 168_000_000,
            written: 999_000,
            kept: 0,
            expired: 997,
            rejects: 3,
            dropped_keys: 1,
            rows_per_second: 23_529.4,
            peak_rss_bytes: 61_000_000,
            resumed: 2,
            verified: Verified {
                tier: "sample".into(),
                keys_counted: 999_000,
                keys_compared: 3_000,
                differences: 0,
                newer: 0,
                detects: "one altered key in 1,000 with 95 %".into(),
            },
            priorities: vec![PriorityDone { priority: 1, seconds: 2.25 }],
            routes: vec![RouteSummary {
                name: "builds".into(),
                rows: 1_000_000,
                bytes: 168_000_000,
                partitions: 17,
                written: 999_000,
                folded: 0,
                kept: 0,
                expired: 997,
                rejects: 3,
                dropped_keys: 1,
                seconds: 120.25,
                bottleneck: "target".into(),
                bottleneck_share: Some(0.62),
                freshness: None,
                digest: None,
            }],
            guard: crate::guard::GuardSummary::default(),
            cut_over: None,
            files: Vec::new(),
            archive: Vec::new(),
            not_brought_back: None,
            tuned: None,
            way: Some("RESTORE: in a trial 1.70 times as fast as HSET".into()),
            drift: Vec::new(),
            warnings: vec!["the server evicts under pressure".into()],
        }
    }

    #[test]
    fn a_run_that_is_done_shows_every_figure() {
        insta::assert_snapshot!(render(&summary(), Path::new(".rekindle/rejects/0198")));
    }

    #[test]
    fn what_does_not_come_back_is_told() {
        let mut summary = summary();
        summary.not_brought_back = Some(NotBroughtBack {
            declared: vec![Declared {
                prefix: "session:".into(),
                owner: "web".into(),
                comes_back: "users log in again".into(),
            }],
            routes: vec!["patches".into()],
            coverage: None,
            coverage_note: "never checked".into(),
        });
        let text = render(&summary, Path::new("x"));
        assert!(
            text.contains(
                "not back  keys session:*, owner web, come back: users log in again\n\
                 not back  routes left out by --route: patches\ncoverage  never checked\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_run_that_is_not_done_never_says_so() {
        let mut summary = summary();
        summary.status = RunEnd::Failed;
        summary.within_rto = false;
        summary.verified = Verified { tier: "none".into(), ..Verified::default() };
        summary.data_as_of = None;
        let text = render(&summary, Path::new("x"));
        assert!(
            !text.contains("done") && text.contains("MISSED: not recovered after 00:01:02"),
            "{text}"
        );
        assert!(text.contains("nothing was read back"), "{text}");
    }
}
