//! What a drill found: the object of `--json`, and its text.
//!
//! Invariant: every time is measured or typed by whoever measured it; what nobody timed is UNKNOWN and never makes an
//! objective met.

use super::found::Found;
use super::objectives::objectives;
use super::phases::{Part, Phase};
use super::read::Read;
use super::steps::{Step, marked_seconds, unknown};
use super::{COMMAND, Loss};
use crate::cli::figures::{clock_of_seconds, count, seconds, things};
use crate::evidence::{self, Objective};
use crate::lane::now_ms;
use crate::outcome::Exit;
use crate::rebuild::Options;
use crate::summarize::{peak_rss_bytes, rfc3339};
use crate::summary::{RouteSummary, Summary, Verified};
use schemas::Plan;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// Always `drill`.
    pub command: String,
    /// The id of this drill.
    pub run_id: String,
    /// `done`, `failed` or `interrupted`.
    pub status: String,
    /// What was lost.
    pub lose: Loss,
    /// When the loss was declared, RFC 3339; absent where it did not come so far.
    pub lost_at: Option<String>,
    /// Always `loss`: the clock runs from the declared loss.
    pub clock_from: String,
    /// When the first phase began, RFC 3339.
    pub started_at: String,
    /// When the last one ended, RFC 3339.
    pub ended_at: String,
    /// Seconds from the one to the other.
    pub seconds: f64,
    /// From the loss until everything served again, as measured; absent where it did not come so far.
    pub seconds_since_loss: Option<f64>,
    /// The same with the steps around the tool that were timed.
    pub seconds_with_steps: Option<f64>,
    /// The shortest recovery time objective of what was lost.
    pub rto_seconds: u64,
    /// Whether what was measured is within the objectives; absent where it did not come so far.
    pub within_rto: Option<bool>,
    /// What it comes to, in words.
    pub verdict: String,
    /// What was done, in order.
    pub phases: Vec<Phase>,
    /// The steps around the tool.
    pub steps: Vec<Step>,
    /// Those of them that nobody timed.
    pub unknown_steps: Vec<String>,
    /// The runs it is made of.
    pub parts: Vec<Part>,
    /// Reads with a known answer.
    pub reads: Vec<Read>,
    /// What became of the scratch targets.
    pub torn_down: Vec<String>,
    /// Every objective of what was lost.
    pub objectives: Vec<Objective>,
    /// What differs, and where.
    pub differences: Vec<String>,
    /// What this does not show.
    pub not_tested: Vec<String>,
    /// What the recoveries carried.
    #[serde(flatten)]
    pub carried: Carried,
    /// Peak resident memory of this process.
    pub peak_rss_bytes: u64,
    /// Always 0: a drill starts over.
    pub resumed: u32,
    /// What was compared in full.
    pub verified: Verified,
}

/// What the recoveries of a drill carried together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// Oldest source state that was recovered, RFC 3339.
    pub data_as_of: Option<String>,
    /// Its age at the loss, in seconds.
    pub rpo_seconds: Option<f64>,
    /// Whether that is within the objectives.
    pub within_rpo: Option<bool>,
    /// Rows that were read of sources and of the duplicate.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Rows written.
    pub written: u64,
    /// Rows whose key was kept.
    pub kept: u64,
    /// Rows that had expired.
    pub expired: u64,
    /// Rows that could not be carried.
    pub rejects: u64,
    /// Rows per second of the recoveries.
    pub rows_per_second: f64,
    /// Per route of the recoveries.
    pub routes: Vec<RouteSummary>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl Carried {
    fn of(summaries: &[Summary]) -> Self {
        let total = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
        let rows = total(|summary| summary.rows);
        let seconds: f64 = summaries.iter().map(|summary| summary.seconds).sum();
        let within = summaries.iter().filter_map(|summary| summary.within_rpo);
        Self {
            data_as_of: summaries.iter().filter_map(|summary| summary.data_as_of.clone()).min(),
            rpo_seconds: summaries.iter().filter_map(|one| one.rpo_seconds).reduce(f64::max),
            within_rpo: within.reduce(|all, one| all && one),
            rows,
            bytes: total(|summary| summary.bytes),
            written: total(|summary| summary.written),
            kept: total(|summary| summary.kept),
            expired: total(|summary| summary.expired),
            rejects: total(|summary| summary.rejects),
            rows_per_second: rows as f64 / seconds.max(1e-9),
            routes: summaries.iter().flat_map(|summary| summary.routes.clone()).collect(),
            warnings: summaries.iter().flat_map(|summary| summary.warnings.clone()).collect(),
        }
    }
}

/// The status of a drill that came to its end.
pub(super) const DONE: &str = "done";
/// What no drill shows.
const NOT_TESTED: [&str; 2] = [
    "the scratch targets are other machines than those of production, with another network to them",
    "no application read the result; the reads with a known answer stand for it",
];
const MARK_IN_REDIS: &str = "the scratch redis held the mark of the drill, so keys were replaced as in a database in use, \
    which is never faster than filling an empty one";

impl DrillReport {
    pub(super) fn of(plan: &Plan, options: &Options, found: &mut Found) -> Self {
        let objectives = objectives(plan, options, found);
        let is_missed = |of: &Objective| of.verdict == evidence::Verdict::Missed;
        if objectives.iter().any(is_missed) {
            found.exits.push(Exit::Objective);
        }
        let rtos = || objectives.iter().filter(|of| of.name == "RTO");
        let is_rto_missed = rtos().any(is_missed);
        let rto_seconds = rtos().map(|of| of.target_seconds).min().unwrap_or_default();
        let is_served = found.served.len() == wanted(found.loss);
        let since = found.served.last().map(|(_, seconds)| *seconds).filter(|_| is_served);
        let first = found.clock.phases.first().map(|phase| phase.started_at.clone());
        let carried = Carried::of(&found.summaries);
        Self {
            command: COMMAND.to_owned(),
            run_id: found.id.clone(),
            status: status(found).to_owned(),
            lose: found.loss,
            lost_at: found.clock.lost_ms().map(rfc3339),
            clock_from: "loss".to_owned(),
            started_at: first.unwrap_or_else(now_text),
            ended_at: now_text(),
            seconds: found.clock.seconds(),
            seconds_since_loss: since,
            seconds_with_steps: since.map(|since| since + marked_seconds(&found.steps)),
            rto_seconds,
            within_rto: since.map(|_| !is_rto_missed),
            verdict: verdict(found, is_rto_missed, is_served),
            phases: found.clock.phases.clone(),
            unknown_steps: unknown(&found.steps).into_iter().map(str::to_owned).collect(),
            steps: found.steps.clone(),
            parts: found.parts.clone(),
            reads: found.reads.clone(),
            torn_down: found.torn_down.clone(),
            objectives,
            differences: found.differences.clone(),
            not_tested: not_tested(found),
            carried,
            peak_rss_bytes: peak_rss_bytes(),
            resumed: 0,
            verified: verified(found, is_served),
        }
    }

    /// Renders it for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text).unwrap_or_default();
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "drill {}: loss of {}, {}", self.run_id, self.lose.word(), self.status)?;
        for phase in &self.phases {
            let since =
                phase.since_loss.map(|since| format!(", {} after the loss", seconds(since)));
            writeln!(
                out,
                "  {:<40} {:<7} {}{}",
                phase.name,
                phase.outcome,
                seconds(phase.seconds),
                since.unwrap_or_default()
            )?;
        }
        for read in &self.reads {
            let asked = if read.asked.is_empty() { "not asked" } else { &read.asked };
            writeln!(out, "  known answer, route {}: {asked}: {}", read.route, read.note)?;
        }
        for step in &self.steps {
            let took = match step.minutes {
                Some(minutes) => format!("{minutes} min"),
                None => "UNKNOWN".to_owned(),
            };
            writeln!(out, "  step {:<16} {took:<9} {} ({})", step.name, step.what, step.owner)?;
        }
        for objective in &self.objectives {
            let measured = objective.measured_seconds;
            writeln!(
                out,
                "  {} of {}: {} of {}, {}",
                objective.name,
                objective.system,
                measured.map_or_else(|| "not measured".to_owned(), clock_of_seconds),
                clock_of_seconds(objective.target_seconds as f64),
                objective.verdict.word()
            )?;
        }
        for line in &self.torn_down {
            writeln!(out, "  afterwards: {line}")?;
        }
        for line in &self.differences {
            writeln!(out, "  DIFFERENT: {line}")?;
        }
        writeln!(
            out,
            "  {} rows carried, {} compared",
            count(self.carried.rows),
            count(self.verified.keys_compared)
        )?;
        writeln!(out, "verdict: {}", self.verdict)
    }
}

fn now_text() -> String {
    rfc3339(now_ms())
}

/// How many systems have to serve again.
fn wanted(loss: Loss) -> usize {
    usize::from(loss.redis()) + usize::from(loss.bigquery())
}

fn status(found: &Found) -> &'static str {
    let is_stop = |exit: &Exit| matches!(exit, Exit::Interrupted | Exit::Terminated);
    match found.is_failed {
        true if found.exits.iter().any(is_stop) => "interrupted",
        true => "failed",
        false => DONE,
    }
}

fn verdict(found: &Found, is_rto_missed: bool, is_served: bool) -> String {
    if !found.differences.is_empty() {
        return format!(
            "{} found; nothing is proven",
            things(found.differences.len() as u64, "difference")
        );
    }
    if found.is_failed || !is_served {
        return "it did not come to its end; nothing is proven".to_owned();
    }
    let left = unknown(&found.steps);
    match (is_rto_missed, left.len()) {
        (true, _) => "the data is right, and the RTO was missed".to_owned(),
        (false, 0) => "the data is right, and the whole recovery fits the RTO".to_owned(),
        (false, steps) => format!(
            "the data is right, and the measured part fits the RTO; {} UNKNOWN: {}",
            if steps == 1 { "1 step is".to_owned() } else { format!("{steps} steps are") },
            left.join(", ")
        ),
    }
}

fn not_tested(found: &Found) -> Vec<String> {
    let mut lines: Vec<String> = NOT_TESTED.map(str::to_owned).to_vec();
    if found.loss.redis() {
        lines.push(MARK_IN_REDIS.to_owned());
    }
    let left = unknown(&found.steps);
    if !left.is_empty() {
        lines.push(format!(
            "these steps around the tool were not timed: UNKNOWN: {}",
            left.join(", ")
        ));
    }
    let unread = found.reads.iter().filter(|read| read.is_as_known.is_none());
    lines.extend(unread.map(|read| format!("route {} was not asked: {}", read.route, read.note)));
    lines.extend(found.not_tested.iter().cloned());
    lines
}

fn verified(found: &Found, is_served: bool) -> Verified {
    let is_verify = |part: &&Part| part.command.starts_with("verify");
    let compared: u64 = found.parts.iter().filter(is_verify).map(|part| part.rows).sum();
    let differences = found.differences.len() as u64;
    if !is_served {
        return Verified { tier: "none".to_owned(), differences, ..Verified::default() };
    }
    Verified {
        tier: "full".to_owned(),
        keys_counted: compared,
        keys_compared: compared,
        differences,
        newer: 0,
        detects: "any missing, added or altered key or row".to_owned(),
    }
}

#[cfg(test)]
mod tests;
