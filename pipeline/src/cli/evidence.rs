//! Keeps the evidence of a command that has ended, also of one that was refused before it had anything to sum up.
//!
//! Invariant: whatever becomes of the evidence changes nothing of how the command ended; where it cannot be written, that
//! is told.

use super::args::Shared;
use super::failure::{say, tell};
use super::loading;
use crate::evidence::{Chain, Evidence, History, PlanUsed, Ran, Verdict, sha256};
use crate::lane::now_ms;
use crate::outcome::Exit;
use crate::summarize::rfc3339;
use schemas::Plan;
use schemas::plan::Objective;
use serde::Serialize;
use serde_json::{Value, json};
use stages::Error;
use std::time::Duration;
use uuid::Uuid;

/// Reads the plan of a run; mistakes in it are told, and are evidence that the run did not happen.
pub(super) fn plan_of(shared: &Shared, command: &str) -> Result<Plan, Exit> {
    loading::load(&shared.plan, &shared.routes).map_err(|failures| {
        tell(&failures, shared.json);
        let errors = failures.iter().map(super::failure::Failure::message).collect();
        write(shared, &Aims::default(), refusal(command), (Exit::Usage, errors), true);
        Exit::Usage
    })
}

/// Writes and seals the evidence of a summary.
pub(super) fn keep(
    shared: &Shared,
    plan: &Plan,
    summary: &impl Serialize,
    (exit, errors): (Exit, &[Error]),
) {
    match serde_json::to_value(summary) {
        Ok(summary) => write(shared, &Aims::of(plan), summary, (exit, texts(errors)), false),
        Err(error) => unkept(&error),
    }
}

/// Writes and seals the evidence of a run that ended before it had a summary. Where there is no state folder yet, there is
/// nothing to keep it in, and a refusal makes none; nor is one that somebody stopped refused.
pub(super) fn keep_refusal(
    shared: &Shared,
    plan: &Plan,
    command: &str,
    (exit, errors): (Exit, &[Error]),
) {
    if !matches!(exit, Exit::Done | Exit::Interrupted | Exit::Terminated) {
        write(shared, &Aims::of(plan), refusal(command), (exit, texts(errors)), true);
    }
}

/// What the plan aims at; nothing where there is no plan.
#[derive(Default)]
struct Aims {
    objectives: Vec<(&'static str, Objective)>,
    alloydb_rpo: Option<Duration>,
}

impl Aims {
    fn of(plan: &Plan) -> Self {
        let is_named = plan.alloydb.as_ref().is_some_and(|alloydb| alloydb.backups.is_some());
        Self {
            objectives: vec![
                ("redis", plan.redis_objective),
                ("bigquery", plan.bigquery_objective),
            ],
            alloydb_rpo: is_named.then_some(plan.alloydb_objective.rpo),
        }
    }
}

fn texts(errors: &[Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What there is to say of a run that was refused. It has an id so that its problem can be closed by it.
fn refusal(command: &str) -> Value {
    json!({
        "command": command,
        "run_id": Uuid::new_v4().to_string(),
        "status": "refused",
        "ended_at": rfc3339(now_ms()),
        "not_tested": ["everything: it ended before it carried a row"],
    })
}

fn write(
    shared: &Shared,
    aims: &Aims,
    summary: Value,
    (exit, errors): (Exit, Vec<String>),
    is_refusal: bool,
) {
    let run_id = summary["run_id"].as_str().unwrap_or_default().to_owned();
    // Where there is no folder of state, the id of a refusal leads nowhere.
    let is_kept = !is_refusal || shared.state.is_dir();
    if is_kept {
        shared.noted.run(&run_id);
    }
    let ran = Ran {
        plan: PlanUsed {
            path: shared.plan.display().to_string(),
            sha256: std::fs::read(&shared.plan).ok().map(|bytes| sha256(&bytes)),
        },
        objectives: &aims.objectives,
        alloydb_rpo: aims.alloydb_rpo,
        exit,
        errors,
        history: History::read(&shared.state, &run_id),
        now_ms: now_ms(),
    };
    let evidence = Evidence::of(summary, ran);
    note(shared, &evidence);
    if !is_kept {
        return;
    }
    match Chain::of_state(&shared.state).add(&evidence) {
        Ok(path) => tracing::info!(path = %path.display(), "evidence kept"),
        Err(error) => unkept(&error),
    }
}

/// Notes for `--on-problem` what the evidence says went wrong.
fn note(shared: &Shared, evidence: &Evidence) {
    let missed = evidence.objectives.iter().find(|objective| objective.verdict == Verdict::Missed);
    match (evidence.ended.exit_code, missed) {
        (0, _) => {}
        (6, Some(missed)) => {
            shared.noted.problem(format!("{} of {} missed", missed.name, missed.system));
        }
        _ => evidence.findings.iter().take(1).for_each(|finding| shared.noted.problem(finding)),
    }
}

fn unkept(error: &dyn std::fmt::Display) {
    say(&format!("warning: no evidence of this run was kept: {error}\n"));
}
