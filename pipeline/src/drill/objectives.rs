//! The objectives of what a drill lost, beside what was measured of them.
//!
//! Invariant: what is too long already is missed, whatever is unknown; met is only what nothing unknown is part of.

use super::found::Found;
use super::steps::{marked_seconds, unknown};
use crate::cli::figures::things;
use crate::evidence::{Objective, Verdict};
use crate::rebuild::Options;
use crate::summary::Summary;
use schemas::Plan;
use schemas::plan::Objective as Aim;
use std::fmt::Write as _;

/// RTO and RPO of what was lost.
pub(super) fn objectives(plan: &Plan, options: &Options, found: &Found) -> Vec<Objective> {
    let lost = [
        ("redis", plan.redis_objective, found.loss.redis()),
        ("bigquery", plan.bigquery_objective, found.loss.bigquery()),
    ];
    let mut all = Vec::new();
    for (system, aim, _) in lost.into_iter().filter(|(.., is_lost)| *is_lost) {
        let rto = options.deadline.unwrap_or(aim.rto);
        let served = found.served.iter().find(|(name, _)| *name == system);
        let since = served.map(|(_, since)| since + marked_seconds(&found.steps));
        all.push(objective(system, ("RTO", rto.as_secs()), since, rto_how(found), found));
        all.push(recovery_point(system, aim, found));
    }
    all
}

fn rto_how(found: &Found) -> String {
    let left = unknown(&found.steps);
    let timed = found.steps.len() - left.len();
    let mut how =
        "from the declared loss until it was recovered, compared in full and answered as known"
            .to_owned();
    if timed > 0 {
        let minutes = marked_seconds(&found.steps) / 60.0;
        write!(how, ", and {} around it ({minutes} min)", things(timed as u64, "timed step"))
            .expect("writing to a string cannot fail");
    }
    if !left.is_empty() {
        write!(how, "; not in it, because nobody timed them: {}", left.join(", "))
            .expect("writing to a string cannot fail");
    }
    how
}

fn recovery_point(system: &str, aim: Aim, found: &Found) -> Objective {
    let is_of = |summary: &&Summary| summary.command.ends_with(system);
    let age = found.summaries.iter().find(is_of).and_then(|summary| summary.rpo_seconds);
    let how = "age, at the declared loss, of the oldest source state that was recovered".to_owned();
    let found_age = objective(system, ("RPO", aim.rpo.as_secs()), age, how, found);
    // No step around the tool makes the data older.
    let is_met = found_age.verdict == Verdict::Unknown && !found.is_failed && age.is_some();
    if is_met { Objective { verdict: Verdict::Met, ..found_age } } else { found_age }
}

/// Missed where the measured part is too long already; met only where nothing is unknown.
fn objective(
    system: &str,
    (name, target_seconds): (&str, u64),
    measured_seconds: Option<f64>,
    how: String,
    found: &Found,
) -> Objective {
    let target = target_seconds as f64;
    let is_known = !found.is_failed && unknown(&found.steps).is_empty();
    let verdict = match measured_seconds {
        Some(measured) if measured > target => Verdict::Missed,
        Some(_) if is_known => Verdict::Met,
        _ => Verdict::Unknown,
    };
    Objective {
        system: system.to_owned(),
        name: name.to_owned(),
        target_seconds,
        measured_seconds,
        margin_seconds: measured_seconds.map(|measured| target - measured),
        verdict,
        how,
    }
}
