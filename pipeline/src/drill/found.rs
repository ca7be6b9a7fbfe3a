//! What a drill has met so far.
//!
//! Invariant: an error, an exit and a difference are noted where they are met, once; nothing is taken back.

use super::Loss;
use super::phases::{Clock, Part};
use super::read::Read;
use super::steps::Step;
use crate::outcome::Exit;
use crate::summary::{RunEnd, Summary};
use crate::verify::{Told, Verdict};
use serde_json::Value;
use stages::{Error, Kind};

/// Everything noted on the way.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) loss: Loss,
    pub(super) steps: Vec<Step>,
    pub(super) clock: Clock,
    /// Systems that serve again, with the seconds from the loss.
    pub(super) served: Vec<(&'static str, f64)>,
    pub(super) parts: Vec<Part>,
    /// Of the restore and the rebuild.
    pub(super) summaries: Vec<Summary>,
    pub(super) reads: Vec<Read>,
    pub(super) torn_down: Vec<String>,
    pub(super) differences: Vec<String>,
    pub(super) not_tested: Vec<String>,
    pub(super) exits: Vec<Exit>,
    pub(super) errors: Vec<Error>,
    pub(super) is_failed: bool,
}

/// What was met is in [`Found`] already where this is returned.
pub(super) struct Stopped;

/// Whether the drill goes on.
pub(super) type Went = Result<(), Stopped>;

impl Found {
    pub(super) fn new(id: String, loss: Loss, steps: Vec<Step>) -> Self {
        Self {
            id,
            loss,
            steps,
            clock: Clock::new(),
            served: Vec::new(),
            parts: Vec::new(),
            summaries: Vec::new(),
            reads: Vec::new(),
            torn_down: Vec::new(),
            differences: Vec::new(),
            not_tested: Vec::new(),
            exits: Vec::new(),
            errors: Vec::new(),
            is_failed: false,
        }
    }

    /// Notes errors; the exit of each counts.
    pub(super) fn fail(&mut self, errors: Vec<Error>) -> Stopped {
        self.exits.extend(errors.iter().map(|error| Exit::of_kind(error.kind())));
        let told = errors.iter().filter(|error| error.kind() == Kind::Difference);
        self.differences.extend(told.map(ToString::to_string));
        self.errors.extend(errors);
        self.is_failed = true;
        // What is not known to have ended well is no success.
        if self.exits.iter().all(|exit| matches!(exit, Exit::Done | Exit::Objective)) {
            self.exits.push(Exit::Internal);
        }
        Stopped
    }

    pub(super) fn lacks_target(&mut self) -> Stopped {
        self.fail(vec![Error::new(Kind::Internal, "a system is drilled that has no target")])
    }

    /// Notes that a system serves again.
    pub(super) fn serves(&mut self, system: &'static str) {
        self.served.push((system, self.clock.since_loss()));
    }

    /// Notes how the run of a part ended.
    pub(super) fn take(&mut self, summary: Summary) {
        self.parts.push(Part {
            command: summary.command.clone(),
            run_id: summary.run_id.clone(),
            status: status(summary.status).to_owned(),
            rows: summary.rows,
            seconds: summary.seconds,
        });
        self.summaries.push(summary);
    }

    /// Notes what a verification has found.
    pub(super) fn take_verified(&mut self, told: &Told) {
        self.parts.push(part_of(told.verdict, &told.json));
        if told.verdict != Verdict::Pass {
            self.exits.push(told.verdict.exit());
            self.differences.extend(differences(&told.json));
            self.is_failed = true;
        }
    }

    /// Notes reads; one with another answer is a difference.
    pub(super) fn read(&mut self, reads: Vec<Read>) -> Went {
        let wrong: Vec<Error> = reads
            .iter()
            .filter(|read| read.is_as_known == Some(false))
            .map(|read| {
                let message = format!("route {}: {}: {}", read.route, read.asked, read.note);
                Error::new(Kind::Difference, message).with_hint("rekindle report")
            })
            .collect();
        self.reads.extend(reads);
        if wrong.is_empty() { Ok(()) } else { Err(self.fail(wrong)) }
    }
}

fn status(end: RunEnd) -> &'static str {
    match end {
        RunEnd::Done => "done",
        RunEnd::Unverified => "unverified",
        RunEnd::Partial => "partial",
        RunEnd::Interrupted => "interrupted",
        RunEnd::Failed => "failed",
    }
}

/// The line of a verification among the parts.
fn part_of(verdict: Verdict, json: &Value) -> Part {
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let rows_of = |table: &Value| table["rows_compared"].as_u64().unwrap_or(0);
    let of_tables = json["tables"].as_array().into_iter().flatten().map(rows_of).sum();
    Part {
        command: text("command"),
        run_id: text("run_id"),
        status: verdict.word().to_owned(),
        rows: json["rows"].as_u64().unwrap_or(of_tables),
        seconds: json["seconds"].as_f64().unwrap_or(0.0),
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("?").replace('_', " ")
}

/// Where both ends differ: keys of routes, or table partitions of tables.
fn differences(json: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for route in list(json, "routes") {
        let name = word(&route["name"]);
        for example in list(route, "examples") {
            let key = example["key"].as_str().unwrap_or("?");
            lines.push(format!("route {name}: key {key}: {}", word(&example["difference"])));
        }
        lines.extend(route["unproven"].as_str().map(|why| format!("route {name}: {why}")));
    }
    for table in list(json, "tables") {
        let name = table["table"].as_str().unwrap_or("?");
        for part in list(table, "parts") {
            let partition = part["table_partition"].as_str().unwrap_or("?");
            lines.push(format!("table {name}: partition {partition}: {}", word(&part["state"])));
        }
        if table["verdict"].as_str() != Some("pass") && list(table, "parts").is_empty() {
            lines.push(format!("table {name}: {}", word(&table["verdict"])));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_keys_and_table_partitions() {
        let redis = json!({"routes": [
            {"name": "builds", "examples": [{"key": "build:7", "difference": "different_value"}], "unproven": null},
            {"name": "users", "examples": []},
        ]});
        assert_eq!(differences(&redis), ["route builds: key build:7: different value"]);
        let bigquery = json!({"tables": [
            {"table": "logs.a", "verdict": "fail", "parts": [{"table_partition": "20261101", "state": "lost"}]},
            {"table": "logs.b", "verdict": "inconclusive"},
            {"table": "logs.c", "verdict": "pass"},
        ]});
        assert_eq!(
            differences(&bigquery),
            ["table logs.a: partition 20261101: lost", "table logs.b: inconclusive"]
        );
    }

    #[test]
    fn a_read_with_another_answer_is_a_difference_and_one_that_could_not_be_is_none() {
        let read = |is_as_known| Read {
            route: "builds".to_owned(),
            asked: "GET build:7".to_owned(),
            is_as_known,
            note: "there is no such key".to_owned(),
        };
        let mut found = Found::new("d".to_owned(), Loss::Redis, Vec::new());
        assert!(found.read(vec![read(Some(true)), read(None)]).is_ok());
        assert!(found.exits.is_empty() && !found.is_failed);
        assert!(found.read(vec![read(Some(false))]).is_err());
        assert_eq!(found.exits, [Exit::Difference]);
        assert_eq!(found.differences, ["route builds: GET build:7: there is no such key"]);
    }
}
