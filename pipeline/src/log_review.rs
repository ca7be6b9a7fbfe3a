//! The review of what runs left: problems that stay open until somebody closes them, and who looked at what, when.
//!
//! Invariant: nothing is told of evidence or reviews that were altered; a review and a closing are records that are written
//! once and sealed, so a problem is never open for one person and closed for another.

mod killed;
mod problem;
mod records;
#[cfg(test)]
mod tests;
mod text;

pub use problem::{Problem, Rank};
pub use records::{Closing, Reviewed};

use crate::evidence::{Chain, Evidence};
use crate::lane::now_ms;
use crate::outcome::Exit;
use crate::schedule::{self, Closed, Standing};
use crate::summarize::rfc3339;
use problem::problems_of;
use records::{ClosedProblem, Record, Records};
use serde::Serialize;
use stages::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// The log as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct Review {
    /// Always `log review`.
    pub command: &'static str,
    /// The last review before this one.
    pub last_review: Option<Reviewed>,
    /// Problems that nobody has closed, the worst first.
    pub problems: Vec<Problem>,
    /// Problems that were closed since the last review.
    pub closed: Vec<Problem>,
    /// Runs since the last review, oldest first.
    pub runs: Vec<Run>,
    /// Every schedule.
    pub schedules: Vec<Standing>,
    /// This review, where it was recorded.
    pub recorded: Option<Reviewed>,
    /// The file of that record.
    pub path: Option<PathBuf>,
}

/// One run that left evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The number of its evidence.
    pub evidence: u64,
    /// Its command.
    pub command: String,
    /// Its id.
    pub run_id: String,
    /// When its evidence was written, RFC 3339.
    pub made_at: String,
    /// How it ended.
    pub status: String,
    /// Its exit code.
    pub exit_code: u8,
    /// Its problems, closed ones too.
    pub problems: usize,
}

/// What `log close` did.
#[derive(Debug, Clone, Serialize)]
pub struct Closure {
    /// Always `log close`.
    pub command: &'static str,
    /// The problems that it closed.
    pub problems: Vec<Problem>,
    /// The file of the record.
    pub path: PathBuf,
}

/// Everything in the state folder that a review is made of.
struct Log {
    evidence: Vec<(u64, Evidence)>,
    records: Records,
    schedules: Vec<Standing>,
    problems: Vec<Problem>,
}

impl Log {
    async fn read(state: &Path) -> Result<Self> {
        let evidence = evidence(state)?;
        let records = Records::read(state)?;
        records.check(state, &evidence)?;
        let closed = records.closed_times();
        let plain: Vec<Evidence> = evidence.iter().map(|(_, evidence)| evidence.clone()).collect();
        let schedules = schedule::standings(state, &plain, &closed).await?;
        let mut problems = problems_of(&evidence);
        problems.extend(schedules.iter().flat_map(Problem::of_schedule));
        problems.extend(killed::problems(state).await?);
        records.close(&mut problems);
        // What was closed and is not found any more is told by its record.
        let gone = records.gone(&problems);
        problems.extend(gone);
        problems.sort_by(|a, b| (a.rank, &a.since, &a.id).cmp(&(b.rank, &b.since, &b.id)));
        Ok(Self { evidence, records, schedules, problems })
    }
}

/// Reads all evidence with its numbers; refuses what was altered.
pub fn evidence(state: &Path) -> Result<Vec<(u64, Evidence)>> {
    let chain = Chain::of_state(state);
    chain.unaltered()?;
    let read = |entry: &crate::evidence::Entry| Ok((entry.number, Chain::read(entry)?));
    chain.list()?.iter().map(read).collect()
}

/// How every schedule stands, without what was closed.
pub async fn schedules(state: &Path) -> Result<Vec<Standing>> {
    if schedule::records(state)?.is_empty() {
        return Ok(Vec::new());
    }
    let evidence: Vec<Evidence> =
        evidence(state)?.into_iter().map(|(_, evidence)| evidence).collect();
    let closed: Vec<Closed> = Records::read(state)?.closed_times();
    schedule::standings(state, &evidence, &closed).await
}

/// Reads the log, and records the review where somebody signs it.
pub async fn review(state: &Path, by: Option<&str>) -> Result<Review> {
    let log = Log::read(state).await?;
    let last_review = log.records.last_review().cloned();
    let through = last_review.as_ref().map_or(0, |review| review.evidence_through);
    let since = last_review.as_ref().map(|review| review.at.clone()).unwrap_or_default();
    let (problems, closed): (Vec<Problem>, Vec<Problem>) =
        log.problems.iter().cloned().partition(|problem| problem.closed.is_none());
    let is_new = |problem: &Problem| {
        problem.closed.as_ref().is_some_and(|closing| is_after(&closing.at, &since))
    };
    let closed: Vec<Problem> = closed.into_iter().filter(is_new).collect();
    let runs = log.evidence.iter().filter(|(number, _)| *number > through);
    let runs: Vec<Run> = runs
        .map(|(number, evidence)| Run {
            evidence: *number,
            command: evidence.command.clone(),
            run_id: evidence.run_id.clone(),
            made_at: evidence.made_at.clone(),
            status: evidence.ended.status.clone(),
            exit_code: evidence.ended.exit_code,
            problems: log
                .problems
                .iter()
                .filter(|problem| problem.evidence == Some(*number))
                .count(),
        })
        .collect();
    let mut review = Review {
        command: "log review",
        last_review,
        problems,
        closed,
        runs,
        schedules: log.schedules,
        recorded: None,
        path: None,
    };
    if let Some(by) = by {
        let evidence_through = log.evidence.last().map_or(through, |(number, _)| *number);
        let reviewed = Reviewed {
            by: by.to_owned(),
            at: rfc3339(now_ms()),
            run_by: crate::evidence::account(),
            evidence_through,
            evidence_sealed: records::seal_of(state, evidence_through),
            runs: review.runs.len(),
            open: review.problems.iter().map(|problem| problem.id.clone()).collect(),
        };
        review.path = Some(Records::add(state, "review", &Record::review(reviewed.clone()))?);
        review.recorded = Some(reviewed);
    }
    Ok(review)
}

/// Closes a problem, or all open ones of a run.
pub async fn close(state: &Path, wanted: &str, by: &str, note: &str) -> Result<Closure> {
    let log = Log::read(state).await?;
    let is_wanted =
        |problem: &&Problem| problem.id == wanted || problem.run_id.as_deref() == Some(wanted);
    let found: Vec<&Problem> = log.problems.iter().filter(is_wanted).collect();
    let open: Vec<&Problem> =
        found.iter().copied().filter(|problem| problem.closed.is_none()).collect();
    if open.is_empty() {
        let closed = found.iter().find_map(|problem| problem.closed.as_ref());
        let message = match closed {
            Some(closing) => {
                format!("{wanted} was closed by {} at {}", closing.by, closing.at)
            }
            None => format!("there is no problem {wanted} in {}", state.display()),
        };
        return Err(Error::new(Kind::Config, message).with_hint("rekindle log review"));
    }
    let closing = Closing {
        by: by.to_owned(),
        at: rfc3339(now_ms()),
        note: note.to_owned(),
        run_by: crate::evidence::account(),
    };
    let problems: Vec<ClosedProblem> =
        open.iter().map(|problem| ClosedProblem::of(problem)).collect();
    let record = Record::closing(closing.clone(), problems);
    let path = Records::add(state, "close", &record)?;
    let problems = open
        .into_iter()
        .map(|problem| Problem { closed: Some(closing.clone()), ..problem.clone() })
        .collect();
    Ok(Closure { command: "log close", problems, path })
}

impl Review {
    /// Returns the exit code of a strict review: that of the worst problem that is open.
    pub fn worst(&self) -> Exit {
        self.problems.iter().map(|problem| problem.exit).min().unwrap_or(Exit::Done)
    }

    /// Renders it for people.
    pub fn render(&self, state: &Path) -> String {
        text::review(self, state)
    }
}

impl Closure {
    /// Renders it for people.
    pub fn render(&self) -> String {
        text::closure(self)
    }
}

/// Whether a time is not before another one; both RFC 3339, the other one may be empty.
fn is_after(time: &str, other: &str) -> bool {
    let at = |text: &str| text.parse::<jiff::Timestamp>().ok();
    match (at(time), at(other)) {
        (Some(time), Some(other)) => time >= other,
        _ => true,
    }
}
