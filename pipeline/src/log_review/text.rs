//! The review for people: problems first, and the last line is what to type next.
//!
//! Invariant: every problem that is open is told, with the name that closes it.

use super::{Closure, Problem, Review, Run};
use crate::cli::figures::things;
use std::fmt::Write as _;
use std::path::Path;

pub(super) fn review(review: &Review, state: &Path) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line(match &review.last_review {
        Some(last) => format!("last review: {} by {}", last.at, last.by),
        None => "last review: never".to_owned(),
    });
    line(format!("open: {}", things(review.problems.len() as u64, "problem")));
    review.problems.iter().for_each(|problem| line(format!("  {}", open(problem))));
    if !review.closed.is_empty() {
        line("closed since then:".to_owned());
        review.closed.iter().for_each(|problem| line(format!("  {}", closed(problem))));
    }
    line(format!("since then: {}", things(review.runs.len() as u64, "run")));
    review.runs.iter().for_each(|run| line(format!("  {}", ran(run))));
    for schedule in &review.schedules {
        line(format!("schedule of {}: {}", schedule.command, schedule.line()));
    }
    if let (Some(recorded), Some(path)) = (&review.recorded, &review.path) {
        line(format!("reviewed by {} at {}: {}", recorded.by, recorded.at, path.display()));
    }
    line(next(review, state));
    text
}

fn next(review: &Review, state: &Path) -> String {
    if let Some(first) = review.problems.first() {
        return format!("to close one: rekindle log close {} --by NAME --note TEXT", first.id);
    }
    if review.recorded.is_none() {
        return "to sign it: rekindle log review --by NAME".to_owned();
    }
    format!("nothing is open in {}", state.display())
}

pub(super) fn closure(closure: &Closure) -> String {
    let mut text = String::new();
    for problem in &closure.problems {
        writeln!(text, "{}", closed(problem)).expect("writing to a string cannot fail");
    }
    writeln!(text, "recorded in {}", closure.path.display())
        .expect("writing to a string cannot fail");
    text
}

fn open(problem: &Problem) -> String {
    let Problem { id, since, command, what, .. } = problem;
    let run = problem.run_id.as_ref().map(|run| format!(" {run}")).unwrap_or_default();
    format!("{id}  {since}  {command}{run}: {what}")
}

fn closed(problem: &Problem) -> String {
    let told = open(problem);
    match &problem.closed {
        Some(closing) => {
            format!("{told}; closed by {} at {}: {}", closing.by, closing.at, closing.note)
        }
        None => told,
    }
}

fn ran(run: &Run) -> String {
    let Run { evidence, made_at, command, run_id, status, exit_code, .. } = run;
    format!("{evidence:>6}  {made_at}  {command} {run_id}: {status}, exit {exit_code}")
}
