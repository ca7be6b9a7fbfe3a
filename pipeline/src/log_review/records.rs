//! Reviews and closings: the folder `reviews/`, sealed as evidence is.
//!
//! Invariant: records are only added; a review names the seal of the last evidence it saw, so evidence that is cut off or
//! exchanged after a review is found out, which the chain of evidence alone could not tell.

use super::problem::{Problem, Rank};
use crate::evidence::{Chain, Evidence, sha256};
use crate::outcome::Exit;
use crate::schedule::Closed;
use serde::{Deserialize, Serialize};
use stages::{Error, Kind, Result};
use std::path::{Path, PathBuf};

const FOLDER: &str = "reviews";
const FORMAT: u32 = 1;

/// A review that somebody signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reviewed {
    /// Who reviewed, as typed.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// The account that recorded it, as the system names it.
    pub run_by: String,
    /// The number of the last evidence that was there.
    pub evidence_through: u64,
    /// SHA-256 of its manifest, which seals all before it; absent where there was none.
    pub evidence_sealed: Option<String>,
    /// Runs that were listed.
    pub runs: usize,
    /// Problems that were open.
    pub open: Vec<String>,
}

/// Who closed a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Who closed it, as typed.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub note: String,
    /// The account that recorded it, as the system names it.
    pub run_by: String,
}

/// A problem as a closing names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClosedProblem {
    id: String,
    kind: Rank,
    command: String,
    since: String,
    last_at: Option<String>,
    what: String,
}

impl ClosedProblem {
    pub(super) fn of(problem: &Problem) -> Self {
        Self {
            id: problem.id.clone(),
            kind: problem.kind,
            command: problem.command.clone(),
            since: problem.since.clone(),
            last_at: problem.last_at.clone(),
            what: problem.what.clone(),
        }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    review: Option<Reviewed>,
    closing: Option<Closing>,
    /// What the closing closes.
    #[serde(default)]
    problems: Vec<ClosedProblem>,
}

impl Record {
    pub(super) fn review(review: Reviewed) -> Self {
        Self { format: FORMAT, review: Some(review), closing: None, problems: Vec::new() }
    }

    pub(super) fn closing(closing: Closing, problems: Vec<ClosedProblem>) -> Self {
        Self { format: FORMAT, review: None, closing: Some(closing), problems }
    }
}

/// All records, oldest first.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<Record>);

impl Records {
    /// Reads them; refuses what was altered.
    pub(super) fn read(state: &Path) -> Result<Self> {
        Chain::of_records(state, FOLDER).records(FORMAT.into()).map(Self)
    }

    /// Adds one and returns its file.
    pub(super) fn add(state: &Path, label: &str, record: &Record) -> Result<PathBuf> {
        Chain::of_records(state, FOLDER).seal(label, record)
    }

    pub(super) fn last_review(&self) -> Option<&Reviewed> {
        self.0.iter().rev().find_map(|record| record.review.as_ref())
    }

    fn closings(&self) -> impl Iterator<Item = (&Closing, &ClosedProblem)> {
        self.0.iter().flat_map(|record| {
            let closing = record.closing.as_ref();
            record.problems.iter().filter_map(move |problem| Some((closing?, problem)))
        })
    }

    /// Times of schedules that were closed as missed.
    pub(super) fn closed_times(&self) -> Vec<Closed> {
        let ms =
            |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
        let misses = self.closings().filter(|(_, problem)| problem.kind == Rank::Schedule);
        misses
            .filter_map(|(_, problem)| Some((ms(&problem.since)?, ms(problem.last_at.as_ref()?)?)))
            .collect()
    }

    /// Marks the problems that were closed.
    pub(super) fn close(&self, problems: &mut [Problem]) {
        for problem in problems {
            let found = self.closings().find(|(_, closed)| closed.id == problem.id);
            problem.closed = found.map(|(closing, _)| closing.clone());
        }
    }

    /// Problems that were closed and are not among these: times of a schedule that knows them as closed, a run that was
    /// killed and went on after all.
    pub(super) fn gone(&self, problems: &[Problem]) -> Vec<Problem> {
        let is_gone = |closed: &ClosedProblem| !problems.iter().any(|found| found.id == closed.id);
        self.closings()
            .filter(|(_, closed)| is_gone(closed))
            .map(|(closing, closed)| Problem {
                id: closed.id.clone(),
                kind: closed.kind,
                rank: closed.kind,
                evidence: None,
                run_id: None,
                command: closed.command.clone(),
                since: closed.since.clone(),
                last_at: closed.last_at.clone(),
                what: closed.what.clone(),
                exit_code: Exit::Objective.code(),
                exit: Exit::Objective,
                closed: Some(closing.clone()),
            })
            .collect()
    }

    /// Fails where evidence that was reviewed is not the evidence that is there.
    pub(super) fn check(&self, state: &Path, evidence: &[(u64, Evidence)]) -> Result<()> {
        let reviews = self.0.iter().filter_map(|record| record.review.as_ref());
        for review in reviews.filter(|review| review.evidence_through > 0) {
            let number = review.evidence_through;
            let is_there = evidence.iter().any(|(other, _)| *other == number);
            if is_there && seal_of(state, number) == review.evidence_sealed {
                continue;
            }
            let message = format!(
                "evidence {number}, which {} reviewed at {}, is {}",
                review.by,
                review.at,
                if is_there { "another one now" } else { "gone" }
            );
            return Err(Error::new(Kind::Difference, message).with_hint(
                "bring the files of evidence/ back from a copy, then: rekindle log review",
            ));
        }
        Ok(())
    }
}

/// SHA-256 of the manifest of a piece of evidence.
pub(super) fn seal_of(state: &Path, number: u64) -> Option<String> {
    let entries = Chain::of_state(state).list().ok()?;
    let entry = entries.into_iter().find(|entry| entry.number == number)?;
    let manifest = std::fs::read(entry.path.with_extension("sha256")).ok()?;
    Some(sha256(&manifest))
}
