//! What in evidence is a problem that a person has to look at.
//!
//! Invariant: the id of a problem is made of the number of its evidence and of its kind, so it is the same whenever it is
//! looked for; pure.

use super::records::Closing;
use crate::evidence::{Evidence, Verdict};
use crate::outcome::Exit;
use crate::schedule::Standing;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What kind of problem, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    /// A run that failed, or was stopped and never went on.
    Failed,
    /// Older copies stand for what the source lost, or a difference was found.
    Held,
    /// An objective was missed.
    Missed,
    /// A scheduled run did not happen.
    Schedule,
    /// Rows that could not be carried.
    Rejects,
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its name, for `log close`.
    pub id: String,
    /// What kind it is.
    pub kind: Rank,
    /// Its place among others.
    #[serde(skip)]
    pub rank: Rank,
    /// The number of its evidence; absent of a run that did not happen.
    pub evidence: Option<u64>,
    /// The run.
    pub run_id: Option<String>,
    /// The command.
    pub command: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Until when, of times in a row that were missed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_at: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What a strict review ends with.
    pub exit_code: u8,
    /// The same.
    #[serde(skip)]
    pub exit: Exit,
    /// Who closed it; absent while it is open.
    pub closed: Option<Closing>,
}

impl Problem {
    fn of_evidence(
        number: u64,
        evidence: &Evidence,
        (kind, exit): (Rank, Exit),
        what: String,
    ) -> Self {
        let word = match kind {
            Rank::Failed => "failed",
            Rank::Held => "held",
            Rank::Missed => "missed",
            Rank::Schedule => "schedule",
            Rank::Rejects => "rejects",
        };
        Self {
            id: format!("{number}.{word}"),
            kind,
            rank: kind,
            evidence: Some(number),
            run_id: Some(evidence.run_id.clone()),
            command: evidence.command.clone(),
            since: evidence.made_at.clone(),
            last_at: None,
            what,
            exit_code: exit.code(),
            exit,
            closed: None,
        }
    }

    /// The open problems of a schedule.
    pub(super) fn of_schedule(standing: &Standing) -> Vec<Self> {
        let problem = |missed: &crate::schedule::Missed| {
            let what = match missed.times {
                1 => format!("MISSED: no run at {}", missed.first_at),
                times => format!(
                    "MISSED {times} times: no run from {} to {}",
                    missed.first_at, missed.last_at
                ),
            };
            Self {
                id: missed.id.clone(),
                kind: Rank::Schedule,
                rank: Rank::Schedule,
                evidence: None,
                run_id: None,
                command: missed.command.clone(),
                since: missed.first_at.clone(),
                last_at: Some(missed.last_at.clone()),
                what,
                exit_code: Exit::Objective.code(),
                exit: Exit::Objective,
                closed: None,
            }
        };
        standing.missed.iter().map(problem).collect()
    }
}

/// Finds the problems in evidence.
pub(super) fn problems_of(evidence: &[(u64, Evidence)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, one) in evidence {
        let went_on =
            evidence.iter().any(|(later, other)| later > number && other.run_id == one.run_id);
        problems.extend(of_one(*number, one, went_on));
    }
    problems
}

fn of_one(number: u64, evidence: &Evidence, went_on: bool) -> Vec<Problem> {
    let summary = &evidence.summary;
    let problem = |rank, exit, what| Problem::of_evidence(number, evidence, (rank, exit), what);
    let mut problems = Vec::new();
    let code = evidence.ended.exit_code;
    let exit = Exit::of_code(code).unwrap_or(Exit::Internal);
    let held = held(summary);
    match exit {
        // What a resume has brought to an end is no problem any more.
        Exit::Interrupted | Exit::Terminated if went_on => {}
        Exit::Interrupted | Exit::Terminated => problems.push(problem(
            Rank::Failed,
            Exit::Objective,
            format!("stopped by a signal (exit code {code}), and it did not go on"),
        )),
        Exit::Done | Exit::Objective | Exit::Rejects => {}
        Exit::Difference => {
            let what = if held.is_empty() {
                first_finding(evidence, "a difference was found")
            } else {
                format!("older copies stand for what the source lost: {}", held.join(", "))
            };
            problems.push(problem(Rank::Held, exit, what));
        }
        Exit::Internal | Exit::Usage | Exit::Held | Exit::Unreachable | Exit::Capacity => {
            let what = first_finding(evidence, "it failed");
            problems.push(problem(Rank::Failed, exit, format!("exit code {code}: {what}")));
        }
    }
    if exit != Exit::Difference && !held.is_empty() {
        let what = format!("older copies stand for what the source lost: {}", held.join(", "));
        problems.push(problem(Rank::Held, Exit::Difference, what));
    }
    let missed: Vec<String> = evidence
        .objectives
        .iter()
        .filter(|objective| objective.verdict == Verdict::Missed)
        .map(|objective| format!("{} of {}", objective.name, objective.system))
        .collect();
    if !missed.is_empty() || exit == Exit::Objective {
        let what = if missed.is_empty() {
            "an objective was missed".to_owned()
        } else {
            format!("missed: {}", missed.join(", "))
        };
        problems.push(problem(Rank::Missed, Exit::Objective, what));
    }
    let rejects = summary["rejects"].as_u64().unwrap_or(0);
    if rejects > 0 || exit == Exit::Rejects {
        let what = format!("{rejects} rows were rejected; rekindle rejects list names them");
        problems.push(problem(Rank::Rejects, Exit::Rejects, what));
    }
    problems
}

/// What the run told first of what went wrong.
fn first_finding(evidence: &Evidence, otherwise: &str) -> String {
    evidence.findings.first().cloned().unwrap_or_else(|| otherwise.to_owned())
}

/// Table partitions whose older copy stays because the source lost rows of them.
fn held(summary: &Value) -> Vec<String> {
    let tables = summary["tables"].as_array().into_iter().flatten();
    let of_table = |table: &Value| {
        let name = table["table"].as_str().unwrap_or("?").to_owned();
        let held = table["held"].as_array().cloned().unwrap_or_default();
        held.into_iter()
            .filter_map(move |held| Some(format!("{name}${}", held.as_str()?)))
            .collect::<Vec<_>>()
    };
    tables.flat_map(of_table).collect()
}
