//! Keeps the evidence of a command that has ended.
//!
//! Invariant: whatever becomes of the evidence changes nothing of how the command ended; where it cannot be written, that
//! is told.

use super::args::Shared;
use super::failure::say;
use crate::evidence::{Chain, Evidence, History, PlanUsed, Ran, sha256};
use crate::lane::now_ms;
use crate::outcome::Exit;
use schemas::Plan;
use serde::Serialize;
use stages::Error;

/// Writes and seals the evidence of a summary.
pub(super) fn keep(
    shared: &Shared,
    plan: &Plan,
    summary: &impl Serialize,
    (exit, errors): (Exit, &[Error]),
) {
    let kept =
        serde_json::to_value(summary).map_err(|error| error.to_string()).and_then(|summary| {
            let run_id = summary["run_id"].as_str().unwrap_or_default().to_owned();
            let ran = Ran {
                plan: PlanUsed {
                    path: shared.plan.display().to_string(),
                    sha256: std::fs::read(&shared.plan).ok().map(|bytes| sha256(&bytes)),
                },
                objectives: &[
                    ("redis", plan.redis_objective),
                    ("bigquery", plan.bigquery_objective),
                ],
                exit,
                errors: errors.iter().map(ToString::to_string).collect(),
                history: History::read(&shared.state, &run_id),
                now_ms: now_ms(),
            };
            let evidence = Evidence::of(summary, ran);
            Chain::of_state(&shared.state).add(&evidence).map_err(|error| error.to_string())
        });
    match kept {
        Ok(path) => tracing::info!(path = %path.display(), "evidence kept"),
        Err(error) => say(&format!("warning: no evidence of this run was kept: {error}\n")),
    }
}
