//! Evidence: what one run was meant to do, did, proved and did not test, as one object that is written once.
//!
//! Invariant: every figure is taken from the summary of the run or from what was recorded while it worked; what was not
//! measured is unknown, never met. Content: what NIST SP 800-84 (section 6.5) asks of an after-action report.

mod canonical;
mod chain;
mod drilled;
mod history;
mod machine;
#[cfg(test)]
mod tests;

pub use canonical::canonical;
pub use chain::{Chain, Entry, Fault, sha256};
pub use history::{History, Point, Recording};
pub use machine::{Machine, machine};

pub(crate) use machine::account;

use crate::outcome::Exit;
use schemas::plan::Objective as Aim;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Version of the format.
pub const FORMAT: u32 = 1;

/// The evidence of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// [`FORMAT`] when it was written.
    pub format: u32,
    /// The command, for example `rebuild redis`.
    pub command: String,
    /// The run.
    pub run_id: String,
    /// When this was written, RFC 3339.
    pub made_at: String,
    /// The program and its version.
    pub tool: String,
    /// Where it ran.
    pub machine: Machine,
    /// The account that ran it, as the system names it.
    pub run_by: String,
    /// The plan file.
    pub plan: PlanUsed,
    /// How it ended.
    pub ended: Ended,
    /// Every objective of the plan.
    pub objectives: Vec<Objective>,
    /// What happened, in order.
    pub timeline: Vec<Event>,
    /// What each process of the run carried, over time.
    pub throughput: Vec<Vec<Point>>,
    /// What a person has to follow up.
    pub findings: Vec<String>,
    /// What this does not show.
    pub not_tested: Vec<String>,
    /// The summary, as the run printed it.
    pub summary: Value,
}

/// The plan file that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanUsed {
    /// Where it was.
    pub path: String,
    /// SHA-256 of the file, in hex; absent where it could not be read again.
    pub sha256: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The exit code.
    pub exit_code: u8,
    /// Its status, as the summary has it.
    pub status: String,
}

/// Whether an objective was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Measured, and within the objective.
    Met,
    /// Measured, and beyond it.
    Missed,
    /// Not measured, or by a run that did not end as asked.
    Unknown,
}

impl Verdict {
    /// As reports write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// One objective beside what was measured of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// The system.
    pub system: String,
    /// `RTO` or `RPO`.
    pub name: String,
    /// The objective, in seconds.
    pub target_seconds: u64,
    /// What was measured, in seconds; absent where nothing was.
    pub measured_seconds: Option<f64>,
    /// The objective less what was measured.
    pub margin_seconds: Option<f64>,
    /// Whether it was met.
    pub verdict: Verdict,
    /// How it was measured, or why not.
    pub how: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// When, RFC 3339.
    pub at: String,
    /// What.
    pub what: String,
}

/// What evidence is made of beside the summary.
pub struct Ran<'a> {
    /// Path and content of the plan file.
    pub plan: PlanUsed,
    /// The objective of each system, by name.
    pub objectives: &'a [(&'static str, Aim)],
    /// The recovery point objective of AlloyDB, where the plan names the cluster whose backups it is of.
    pub alloydb_rpo: Option<Duration>,
    /// How it ended.
    pub exit: Exit,
    /// What went wrong, as it was told.
    pub errors: Vec<String>,
    /// What was recorded while it worked.
    pub history: History,
    /// Now, milliseconds since 1970.
    pub now_ms: i64,
}

impl Evidence {
    /// Makes the evidence of a run from its summary.
    pub fn of(summary: Value, ran: Ran<'_>) -> Self {
        let text = |name: &str| summary[name].as_str().unwrap_or_default().to_owned();
        let command = text("command");
        // What was not read back, or is there in part, has met nothing.
        let is_as_asked =
            text("status") == "done" && matches!(ran.exit, Exit::Done | Exit::Objective);
        let of_run = || {
            let of = |(system, aim): &(&'static str, Aim)| {
                objectives(system, *aim, &summary, &command, is_as_asked)
            };
            let of_runs = ran.objectives.iter().flat_map(of);
            of_runs.chain(ran.alloydb_rpo.map(not_asked)).collect()
        };
        let objectives = drilled::objectives(&summary).unwrap_or_else(of_run);
        Self {
            format: FORMAT,
            run_id: text("run_id"),
            made_at: time(ran.now_ms),
            tool: format!("rekindle {}", env!("CARGO_PKG_VERSION")),
            machine: machine(),
            run_by: account(),
            plan: ran.plan,
            ended: Ended { exit_code: ran.exit.code(), status: text("status") },
            objectives,
            timeline: timeline(&summary, &ran.history),
            throughput: ran.history.processes,
            findings: findings(&summary, ran.errors),
            not_tested: not_tested(&summary),
            command,
            summary,
        }
    }
}

fn time(ms: i64) -> String {
    crate::summarize::rfc3339(ms)
}

/// RTO and RPO of one system.
fn objectives(
    system: &str,
    aim: Aim,
    summary: &Value,
    command: &str,
    is_as_asked: bool,
) -> [Objective; 2] {
    let recovers = command.starts_with(&format!("rebuild {system}"))
        || command.starts_with(&format!("restore {system}"));
    let since = summary["seconds_since_loss"].as_f64().filter(|_| recovers);
    let from = summary["clock_from"].as_str().unwrap_or("start");
    // `--deadline` stands in for the objective of the plan.
    let rto = summary["rto_seconds"].as_u64().filter(|_| recovers).unwrap_or(aim.rto.as_secs());
    let from_loss = match (recovers, from) {
        (false, _) => format!("this run does not recover {system}"),
        (true, "loss") => {
            "from the loss (--lost-at) to the end of the run, read-back included".to_owned()
        }
        (true, _) => "from the start of the run, not from the loss, to its end, read-back included"
            .to_owned(),
    };
    let age = summary["rpo_seconds"].as_f64().filter(|_| recovers);
    let of_state = if recovers {
        "age, at the loss, of the oldest source state that was used".to_owned()
    } else {
        format!("this run does not recover {system}")
    };
    [
        measured(system, "RTO", rto, since, from_loss, is_as_asked),
        measured(system, "RPO", aim.rpo.as_secs(), age, of_state, is_as_asked),
    ]
}

/// The age of AlloyDB's backups: a run does not depend on the service that tells it.
fn not_asked(rpo: Duration) -> Objective {
    let how = "not asked by a run; see `rekindle status`".to_owned();
    measured("alloydb", "RPO", rpo.as_secs(), None, how, false)
}

fn measured(
    system: &str,
    name: &str,
    target_seconds: u64,
    measured_seconds: Option<f64>,
    mut how: String,
    is_as_asked: bool,
) -> Objective {
    let target = target_seconds as f64;
    let verdict = match measured_seconds {
        Some(seconds) if seconds > target => Verdict::Missed,
        Some(_) if is_as_asked => Verdict::Met,
        Some(_) => {
            how.push_str("; it did not end as done, so nothing is met");
            Verdict::Unknown
        }
        None => Verdict::Unknown,
    };
    Objective {
        system: system.to_owned(),
        name: name.to_owned(),
        target_seconds,
        measured_seconds,
        margin_seconds: measured_seconds.map(|seconds| target - seconds),
        verdict,
        how,
    }
}

fn timeline(summary: &Value, history: &History) -> Vec<Event> {
    let event = |name: &str, what: &str| {
        let at = summary[name].as_str()?.to_owned();
        Some(Event { at, what: what.to_owned() })
    };
    let is_loss = summary["clock_from"].as_str() == Some("loss");
    let mut events: Vec<Event> = [
        is_loss.then(|| event("lost_at", "declared lost")).flatten(),
        event("started_at", "run started"),
        event("data_as_of", "oldest source state that is shown"),
        event("ended_at", "run ended"),
    ]
    .into_iter()
    .flatten()
    .collect();
    for (number, process) in history.processes.iter().enumerate().skip(1) {
        let (Some(first), Some(before)) = (process.first(), history.processes[number - 1].last())
        else {
            continue;
        };
        events.push(Event {
            at: time(before.at_ms),
            what: format!("process {number} was last seen, at {} rows", before.rows),
        });
        events.push(Event {
            at: time(first.at_ms),
            what: format!("process {} went on from {} rows", number + 1, first.rows),
        });
    }
    let started = summary["started_at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    for done in summary["priorities"].as_array().into_iter().flatten() {
        let (Some(started), Some(seconds)) = (started, done["seconds"].as_f64()) else { continue };
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a run")]
        let ms = started.as_millisecond() + (seconds * 1e3) as i64;
        events
            .push(Event { at: time(ms), what: format!("priority {} complete", done["priority"]) });
    }
    events.extend(drilled::events(summary));
    // Times of one form sort as text; what has fractions stands behind what has none within a second.
    events.sort_by_key(|event| event.at.parse::<jiff::Timestamp>().ok());
    events
}

fn findings(summary: &Value, errors: Vec<String>) -> Vec<String> {
    let mut found = errors;
    // An error may have told of one already.
    let differences = drilled::findings(summary);
    let is_new = |line: &String| !found.contains(line);
    let new: Vec<String> = differences.into_iter().filter(is_new).collect();
    found.extend(new);
    let count = |name: &str| summary[name].as_u64().unwrap_or(0);
    if count("rejects") > 0 {
        found.push(format!(
            "{} rows were rejected; rekindle rejects list names them",
            count("rejects")
        ));
    }
    let differences = summary["verified"]["differences"].as_u64().unwrap_or(0);
    if differences > 0 {
        found.push(format!("{differences} keys differed when they were read back"));
    }
    for drift in summary["drift"].as_array().into_iter().flatten() {
        let text = |name: &str| drift[name].as_str().unwrap_or("?").to_owned();
        found.push(format!("{}: column {} was {}", text("table"), text("column"), text("change")));
    }
    let warnings = summary["warnings"].as_array().into_iter().flatten();
    found.extend(warnings.filter_map(Value::as_str).map(str::to_owned));
    found
}

fn not_tested(summary: &Value) -> Vec<String> {
    // What measures instead of recovering says so itself.
    if let Some(told) = summary["not_tested"].as_array() {
        return told.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }
    let mut missing = vec![
        "the steps around the run (a new instance, network, credentials, repointing the application) were not timed here: UNKNOWN"
            .to_owned(),
        "no application read the result".to_owned(),
    ];
    // A verification tells these of itself.
    let proof = if summary["verified"].is_null() { summary } else { &summary["verified"] };
    match proof["tier"].as_str() {
        Some("full") => {}
        Some("sample" | "count") => {
            let detects = proof["detects"].as_str().unwrap_or("");
            missing.push(format!("values outside the sample; it detects {detects}"));
        }
        _ => missing.push("what was written was not read back".to_owned()),
    }
    if let Some(left_out) = summary["omitted"].as_array().filter(|omitted| !omitted.is_empty()) {
        missing.push(format!("{} ranges that did not fit were left out", left_out.len()));
    }
    if summary["files"].as_array().is_some_and(|files| !files.is_empty()) {
        missing.push("the files were not loaded into a server".to_owned());
    }
    missing
}
