//! What a replay came to, for people and programs.
//!
//! Invariant: every row of a replayed file is counted once; no value of a row is told.

use crate::cli::figures::{count, seconds, things};
use crate::lane::now_ms;
use crate::outcome::Exit;
use crate::summarize::rfc3339;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

/// Reasons of a route that are told one by one.
pub(super) const REASONS_MAX: usize = 100;

/// What became of rejected rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Files that were replayed.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Rows written, and read back.
    pub written: u64,
    /// Rows whose key held them already, or something that the route leaves there.
    pub agreed: u64,
    /// Rows that have expired meanwhile.
    pub expired: u64,
    /// Rows that the source has no more.
    pub gone: u64,
    /// Rows that stay rejected.
    pub rejected: u64,
    /// Rows that cannot be found again: what would tell them apart is null or was not read.
    pub unidentified: u64,
    /// Rows left alone because they, or their keys, were being changed.
    pub moving: u64,
    /// Rows whose key held something else right after it was written.
    pub differing: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.rows += other.rows;
        self.written += other.written;
        self.agreed += other.agreed;
        self.expired += other.expired;
        self.gone += other.gone;
        self.rejected += other.rejected;
        self.unidentified += other.unidentified;
        self.moving += other.moving;
        self.differing += other.differing;
    }

    /// Rows that the next replay finds again.
    pub fn left(&self) -> u64 {
        self.rejected + self.unidentified + self.moving + self.differing
    }
}

/// A reason and the rows that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Why they were rejected; names columns, never values.
    pub reason: String,
    /// How many.
    pub rows: u64,
}

/// Reasons with their counts; of more than [`REASONS_MAX`] the rest is told as one.
#[derive(Debug, Clone, Default)]
pub(super) struct Reasons {
    counted: BTreeMap<String, u64>,
    other: u64,
}

impl Reasons {
    pub(super) fn note(&mut self, reason: &str) {
        if let Some(rows) = self.counted.get_mut(reason) {
            *rows += 1;
        } else if self.counted.len() < REASONS_MAX {
            self.counted.insert(reason.to_owned(), 1);
        } else {
            self.other += 1;
        }
    }

    /// Most frequent first.
    pub(super) fn list(&self) -> Vec<Reason> {
        let counted = self.counted.iter();
        let mut list: Vec<Reason> =
            counted.map(|(reason, rows)| Reason { reason: reason.clone(), rows: *rows }).collect();
        list.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.reason.cmp(&b.reason)));
        if self.other > 0 {
            list.push(Reason { reason: "other reasons".to_owned(), rows: self.other });
        }
        list
    }
}

/// What became of a rejected row.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Written and read back.
    Written,
    /// Its key held it already, or something that stays.
    Agreed,
    Expired,
    /// The source has it no more.
    Gone,
    /// It stays rejected, for this reason.
    Rejected(String),
    /// One end was being changed.
    Moving,
    /// It was written, and the key holds something else.
    Differs,
}

/// What became of the rows of one route.
#[derive(Debug, Clone, Serialize)]
pub struct RouteReport {
    /// Its name.
    pub name: String,
    /// Its rows.
    #[serde(flatten)]
    pub counts: Counts,
    /// Why rows stay rejected.
    pub reasons: Vec<Reason>,
    #[serde(skip)]
    noted: Reasons,
}

impl RouteReport {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            counts: Counts::default(),
            reasons: Vec::new(),
            noted: Reasons::default(),
        }
    }

    pub(super) fn note(&mut self, reason: &str) {
        self.noted.note(reason);
    }
}

impl RouteReport {
    /// Counts one row; returns the reason where it stays rejected. `before` is the reason so far.
    pub(super) fn count(&mut self, outcome: Option<&Outcome>, before: &str) -> Option<String> {
        let counts = &mut self.counts;
        counts.rows += 1;
        let (counter, reason) = match outcome {
            None => (&mut counts.unidentified, Some(before.to_owned())),
            Some(Outcome::Written) => (&mut counts.written, None),
            Some(Outcome::Agreed) => (&mut counts.agreed, None),
            Some(Outcome::Expired) => (&mut counts.expired, None),
            Some(Outcome::Gone) => (&mut counts.gone, None),
            Some(Outcome::Rejected(reason)) => (&mut counts.rejected, Some(reason.clone())),
            Some(Outcome::Moving) => (&mut counts.moving, Some(before.to_owned())),
            Some(Outcome::Differs) => (&mut counts.differing, Some(before.to_owned())),
        };
        *counter += 1;
        if let Some(reason) = &reason {
            self.note(reason);
        }
        reason
    }
}

/// What a replay came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Always `rejects replay`.
    pub command: &'static str,
    /// Whose rows; absent where no run has any.
    pub run_id: Option<String>,
    /// `done`: nothing is left; `rejects`: some rows stay rejected; `different`: the read-back found something else.
    pub status: &'static str,
    /// When it ended, RFC 3339.
    pub ended_at: String,
    /// Seconds it took.
    pub seconds: f64,
    /// Whether the plan is another than the one under which rows were rejected.
    pub is_plan_changed: bool,
    /// All rows.
    #[serde(flatten)]
    pub counts: Counts,
    /// Per route.
    pub routes: Vec<RouteReport>,
    /// Other runs that have rejected rows.
    pub other_runs: Vec<String>,
}

impl Report {
    pub(super) fn nothing(took: Duration) -> Self {
        Self {
            command: "rejects replay",
            run_id: None,
            status: "done",
            ended_at: rfc3339(now_ms()),
            seconds: took.as_secs_f64(),
            is_plan_changed: false,
            counts: Counts::default(),
            routes: Vec::new(),
            other_runs: Vec::new(),
        }
    }

    pub(super) fn new(run: &str, others: Vec<String>, plans: &HashSet<String>, plan: &str) -> Self {
        Self {
            run_id: Some(run.to_owned()),
            is_plan_changed: plans.iter().any(|other| other != plan),
            other_runs: others,
            ..Self::nothing(Duration::ZERO)
        }
    }

    pub(super) fn add(&mut self, route: RouteReport) {
        self.counts.add(&route.counts);
        self.routes.push(RouteReport { reasons: route.noted.list(), ..route });
        self.status = match self.counts {
            Counts { differing: 1.., .. } => "different",
            counts if counts.left() > 0 => "rejects",
            _ => "done",
        };
        self.ended_at = rfc3339(now_ms());
    }

    /// Returns how the command ends.
    pub fn exit(&self) -> Exit {
        match self.status {
            "different" => Exit::Difference,
            "rejects" => Exit::Rejects,
            _ => Exit::Done,
        }
    }

    /// Renders it for people.
    pub fn render(&self) -> String {
        let Some(run) = &self.run_id else {
            return "no run has rejected rows\n".to_owned();
        };
        let mut text = format!(
            "run {run}: {} replayed in {}\n",
            things(self.counts.rows, "rejected row"),
            seconds(self.seconds)
        );
        if self.is_plan_changed {
            text.push_str(
                "the plan has changed since they were rejected; they went by the one of now\n",
            );
        }
        for route in &self.routes {
            text.push_str(&route.render());
        }
        if self.counts.left() > 0 {
            let left = things(self.counts.left(), "row");
            writeln!(
                text,
                "{left} stay rejected: mend the rows or the route, then the same command again"
            )
            .expect("writing to a string cannot fail");
        }
        for other in &self.other_runs {
            writeln!(
                text,
                "run {other} has rejected rows too: rekindle rejects replay --run {other}"
            )
            .expect("writing to a string cannot fail");
        }
        text
    }
}

impl RouteReport {
    fn render(&self) -> String {
        let counts = &self.counts;
        let parts: Vec<String> = [
            (counts.written, "written and read back"),
            (counts.agreed, "there already"),
            (counts.expired, "expired"),
            (counts.gone, "gone from the source"),
            (counts.rejected, "rejected again"),
            (counts.unidentified, "that cannot be found again"),
            (counts.moving, "being changed"),
            (counts.differing, "different after they were written"),
        ]
        .into_iter()
        .filter(|(rows, _)| *rows > 0)
        .map(|(rows, what)| format!("{} {what}", count(rows)))
        .collect();
        let mut text = format!("  {}: {}\n", self.name, parts.join(", "));
        for Reason { reason, rows } in &self.reasons {
            writeln!(text, "    {} x {reason}", count(*rows))
                .expect("writing to a string cannot fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded_and_the_most_frequent_comes_first() {
        let mut reasons = Reasons::default();
        for number in 0..REASONS_MAX + 5 {
            reasons.note(&format!("reason {number}"));
        }
        reasons.note("reason 7");
        let list = reasons.list();
        assert_eq!((list.len(), list[0].rows), (REASONS_MAX + 1, 2));
        assert_eq!(list.last().unwrap(), &Reason { reason: "other reasons".into(), rows: 5 });
    }

    #[test]
    fn the_end_is_the_worst_of_what_is_left() {
        let mut report = Report::new("r", Vec::new(), &HashSet::new(), "p");
        let route = |counts| RouteReport { counts, ..RouteReport::new("a") };
        report.add(route(Counts { rows: 2, written: 1, gone: 1, ..Counts::default() }));
        assert_eq!((report.status, report.exit()), ("done", Exit::Done));
        report.add(route(Counts { rows: 1, moving: 1, ..Counts::default() }));
        assert_eq!((report.status, report.exit()), ("rejects", Exit::Rejects));
        report.add(route(Counts { rows: 1, differing: 1, ..Counts::default() }));
        assert_eq!((report.status, report.exit()), ("different", Exit::Difference));
        assert_eq!((report.counts.rows, report.counts.left()), (4, 2));
    }
}
