//! Runs that were killed: the journal knows them, and evidence does not.
//!
//! Invariant: a run counts as killed only while no process holds its lock; once it was resumed it is no problem any more.

use super::problem::{Problem, Rank};
use crate::cli::status::{holder, is_at};
use crate::journal::{Journal, RunRecord, RunStatus};
use crate::outcome::{Exit, from_journal};
use crate::summarize::rfc3339;
use stages::Result;
use std::path::Path;

/// The commands that leave runs in the journal.
const COMMANDS: [&str; 4] = [
    crate::rebuild::COMMAND,
    crate::rebuild::FILES_COMMAND,
    crate::backup::COMMAND,
    crate::restore::COMMAND,
];

/// The last run of each command, where it was killed.
pub(super) async fn problems(state: &Path) -> Result<Vec<Problem>> {
    let Some(journal) = Journal::open_read_only(state).await.map_err(from_journal)? else {
        return Ok(Vec::new());
    };
    let mut problems = Vec::new();
    for command in COMMANDS {
        let run = journal.latest_run(command).await.map_err(from_journal)?;
        problems.extend(run.filter(|run| is_killed(state, run)).as_ref().map(problem));
    }
    journal.close().await;
    Ok(problems)
}

fn is_killed(state: &Path, run: &RunRecord) -> bool {
    run.status == RunStatus::Running && !holder(state).is_some_and(|pid| is_at(pid, &run.command))
}

fn problem(run: &RunRecord) -> Problem {
    Problem {
        id: format!("{}.killed", run.id),
        kind: Rank::Failed,
        rank: Rank::Failed,
        evidence: None,
        run_id: Some(run.id.clone()),
        command: run.command.clone(),
        since: rfc3339(run.started_ms),
        last_at: None,
        what: format!("killed: it did not end; rekindle {} resumes it", run.command),
        exit_code: Exit::Objective.code(),
        exit: Exit::Objective,
        closed: None,
    }
}
