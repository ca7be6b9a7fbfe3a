//! What the evidence of a drill takes from its summary: objectives, phases and differences that the drill told itself.
//!
//! Invariant: nothing is computed here that the summary does not hold; for anything but a drill all of it is empty.

use super::{Event, Objective};
use crate::drill::{COMMAND, Phase};
use serde_json::Value;

fn is_drill(summary: &Value) -> bool {
    summary["command"].as_str() == Some(COMMAND)
}

/// The objectives of what was lost; `None` for anything but a drill.
pub(super) fn objectives(summary: &Value) -> Option<Vec<Objective>> {
    is_drill(summary).then(|| serde_json::from_value(summary["objectives"].clone()).ok()).flatten()
}

/// The beginning of every phase.
pub(super) fn events(summary: &Value) -> Vec<Event> {
    if !is_drill(summary) {
        return Vec::new();
    }
    let phases: Vec<Phase> = serde_json::from_value(summary["phases"].clone()).unwrap_or_default();
    let event = |phase: Phase| Event {
        what: format!("{}: {}", phase.name, phase.outcome),
        at: phase.started_at,
    };
    phases.into_iter().map(event).collect()
}

/// What differed, and where.
pub(super) fn findings(summary: &Value) -> Vec<String> {
    let lines = summary["differences"].as_array().filter(|_| is_drill(summary));
    lines.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
