//! A report: evidence as a person reads it, in Markdown or as one HTML page.
//!
//! Invariant: it says nothing that the evidence does not hold, and leaves out no finding, no unknown objective and nothing
//! that was not tested. Both forms are made of the same parts.

mod bars;
mod chart;
mod drilled;
mod fitted;
mod html;
mod markdown;
#[cfg(test)]
mod tests;

use crate::cli::figures::{bytes, clock_of_seconds, count, seconds};
use crate::evidence::{Evidence, Objective, Verdict};
use crate::wiring::ArchiveRead;
use serde_json::Value;
use std::fmt::Write as _;

/// A report.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    title: String,
    parts: Vec<Part>,
}

/// What a report is made of.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Heading(&'static str),
    Paragraph(String),
    List(Vec<String>),
    Table {
        head: Vec<&'static str>,
        rows: Vec<Vec<String>>,
    },
    /// A drawing with its caption; only where drawings can be shown.
    Drawing {
        svg: String,
        caption: &'static str,
    },
}

impl Report {
    /// Makes the report of a piece of evidence that is in `file`, whose SHA-256 is `sha256`.
    pub fn of(evidence: &Evidence, file: &str, sha256: &str) -> Self {
        let mut parts = vec![Part::Paragraph(verdict(evidence)), Part::Heading("Objectives")];
        parts.push(objectives(&evidence.objectives));
        let drilled = drilled::parts(&evidence.summary);
        let is_drill = !drilled.is_empty();
        // A drill draws its phases instead.
        let clock = (!is_drill).then(|| chart::clock(evidence)).flatten();
        parts.extend(
            clock.map(|svg| Part::Drawing { svg, caption: "Time from the loss, beside the RTO" }),
        );
        parts.extend(drilled);
        parts.extend([Part::Heading("What was run"), ran(evidence)]);
        parts.extend([Part::Heading("Timeline"), timeline(evidence)]);
        let fitted = fitted::parts(&evidence.summary);
        let is_bench = !fitted.is_empty();
        parts.extend(fitted);
        if !is_bench {
            parts.extend([Part::Heading("What was carried"), carried(&evidence.summary)]);
            parts.extend(routes(&evidence.summary));
        }
        parts.extend(chart::throughput(&evidence.throughput).map(|svg| Part::Drawing {
            svg,
            caption: "Rows per second; a dashed line is where a process ended and the next one went on",
        }));
        if !is_bench && !is_drill {
            parts.extend([Part::Heading("Integrity"), integrity(&evidence.summary)]);
        }
        parts.extend([Part::Heading("Findings"), list(&evidence.findings, "None.")]);
        parts.extend([
            Part::Heading("What this does not show"),
            list(&evidence.not_tested, "Nothing is known to be missing."),
        ]);
        parts.extend([
            Part::Heading("Seal"),
            Part::Paragraph(format!(
                "This report is made of {file}, SHA-256 {sha256}, which was found as its manifest seals it. Each manifest \
                 seals the one before; `sha256sum --check` reads them. What was cut off at the end of the chain cannot be \
                 seen from the chain: keep the newest manifest in another place too."
            )),
            Part::Paragraph("Reviewed by: ______________________    Date: ____________    Next test due: ____________".to_owned()),
        ]);
        let title = format!(
            "{}, {}",
            evidence.command,
            evidence.summary["started_at"].as_str().unwrap_or(&evidence.made_at)
        );
        Self { title, parts }
    }

    /// Writes it as Markdown, without its drawings.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }

    /// Writes it as one HTML page that needs nothing beside itself.
    pub fn html(&self) -> String {
        html::render(self)
    }
}

fn verdict(evidence: &Evidence) -> String {
    let ended = &evidence.ended;
    let of = |verdict: Verdict| {
        let objectives =
            evidence.objectives.iter().filter(|objective| objective.verdict == verdict);
        objectives
            .map(|objective| format!("{} of {}", objective.name, objective.system))
            .collect::<Vec<_>>()
    };
    let mut text = format!("The run ended as {} (exit code {}).", ended.status, ended.exit_code);
    for (verdict, word) in
        [(Verdict::Met, "Met"), (Verdict::Missed, "MISSED"), (Verdict::Unknown, "Unknown")]
    {
        let found = of(verdict);
        if !found.is_empty() {
            write!(text, " {word}: {}.", found.join(", "))
                .expect("writing to a string cannot fail");
        }
    }
    text
}

fn objectives(objectives: &[Objective]) -> Part {
    let row = |objective: &Objective| {
        vec![
            objective.system.clone(),
            objective.name.clone(),
            clock_of_seconds(objective.target_seconds as f64),
            objective.measured_seconds.map_or_else(|| "not measured".to_owned(), clock_of_seconds),
            objective.margin_seconds.map_or_else(String::new, margin),
            objective.verdict.word().to_owned(),
            objective.how.clone(),
        ]
    };
    Part::Table {
        head: vec!["system", "objective", "target", "measured", "margin", "verdict", "how"],
        rows: objectives.iter().map(row).collect(),
    }
}

fn margin(seconds: f64) -> String {
    format!("{}{}", if seconds < 0.0 { "-" } else { "" }, clock_of_seconds(seconds.abs()))
}

/// Rows of two columns.
fn pairs(pairs: Vec<(&'static str, String)>) -> Part {
    let rows = pairs.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Part::Table { head: vec!["what", "value"], rows }
}

fn ran(evidence: &Evidence) -> Part {
    let machine = &evidence.machine;
    let memory = machine.memory_bytes.map_or_else(|| "unknown memory".to_owned(), bytes);
    let host = machine.host.as_deref().unwrap_or("unknown");
    let sha256 = evidence.plan.sha256.as_deref().unwrap_or("unknown");
    pairs(vec![
        ("command", evidence.command.clone()),
        ("run", evidence.run_id.clone()),
        ("program", evidence.tool.clone()),
        ("plan", format!("{}, SHA-256 {sha256}", evidence.plan.path)),
        ("run by", format!("{} on {host}", evidence.run_by)),
        ("machine", format!("{} cores, {memory}, {}", machine.cores, machine.system)),
        ("written", evidence.made_at.clone()),
    ])
}

fn timeline(evidence: &Evidence) -> Part {
    let rows =
        evidence.timeline.iter().map(|event| vec![event.at.clone(), event.what.clone()]).collect();
    Part::Table { head: vec!["time (UTC)", "what"], rows }
}

fn number(value: &Value, name: &str) -> String {
    value[name].as_u64().map_or_else(|| "unknown".to_owned(), count)
}

fn carried(summary: &Value) -> Part {
    let figure = |name: &str, write: fn(f64) -> String| {
        summary[name].as_f64().map_or_else(|| "unknown".to_owned(), write)
    };
    let size = |name: &str| summary[name].as_u64().map_or_else(|| "unknown".to_owned(), bytes);
    // What is no such list was not read from an archive.
    let reads: Vec<ArchiveRead> =
        serde_json::from_value(summary["archive"].clone()).unwrap_or_default();
    let mut carried: Vec<(&'static str, String)> =
        reads.iter().map(|read| ("read in place of bigquery", read.told())).collect();
    carried.extend([
        ("rows read", number(summary, "rows")),
        ("written", number(summary, "written")),
        ("kept", number(summary, "kept")),
        ("expired", number(summary, "expired")),
        ("rejected", number(summary, "rejects")),
        ("bytes read", size("bytes")),
        ("seconds of the last process", figure("seconds", seconds)),
        (
            "rows per second of the last process",
            figure("rows_per_second", crate::cli::figures::per_second),
        ),
        ("peak memory", size("peak_rss_bytes")),
        ("processes before the last one", number(summary, "resumed")),
    ]);
    pairs(carried)
}

fn routes(summary: &Value) -> Option<Part> {
    let routes = summary["routes"].as_array().filter(|routes| !routes.is_empty())?;
    let row = |route: &Value| {
        let text = |name: &str| route[name].as_str().unwrap_or("").to_owned();
        let share = route["bottleneck_share"].as_f64();
        let share = share.map_or_else(String::new, |share| format!(" {:.0} %", share * 100.0));
        vec![
            text("name"),
            number(route, "rows"),
            number(route, "partitions"),
            number(route, "rejects"),
            route["seconds"].as_f64().map_or_else(|| "unknown".to_owned(), seconds),
            format!("{}{share}", text("bottleneck")),
            text("digest"),
        ]
    };
    Some(Part::Table {
        head: vec![
            "route",
            "rows",
            "partitions",
            "rejects",
            "lane seconds",
            "waited for",
            "digest",
        ],
        rows: routes.iter().map(row).collect(),
    })
}

/// Of a run what its read-back found, of a verification what that found.
fn integrity(summary: &Value) -> Part {
    let verified = &summary["verified"];
    if verified.is_null() {
        let text = |name: &str| summary[name].as_str().unwrap_or("unknown").to_owned();
        let figures =
            ["keys", "compared", "missing", "different_value", "different_expiry", "unexplained"];
        let told = figures.into_iter().filter(|name| !summary[*name].is_null());
        let mut rows = vec![("compared at tier", text("tier"))];
        rows.extend(told.map(|name| (name, number(summary, name))));
        rows.push(("what it detects", text("detects")));
        return pairs(rows);
    }
    let text = |name: &str| verified[name].as_str().unwrap_or("none").to_owned();
    pairs(vec![
        ("read back", text("tier")),
        ("keys whose existence was checked", number(verified, "keys_counted")),
        ("keys whose value was compared", number(verified, "keys_compared")),
        ("differences", number(verified, "differences")),
        ("what it detects", text("detects")),
    ])
}

fn list(entries: &[String], none: &str) -> Part {
    if entries.is_empty() { Part::Paragraph(none.to_owned()) } else { Part::List(entries.to_vec()) }
}
