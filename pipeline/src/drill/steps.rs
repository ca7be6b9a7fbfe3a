//! The steps of RUNBOOK.md around the tool, and what somebody timed of them.
//!
//! Invariant: a step that nobody timed is unknown, never zero.

use super::Loss;
use serde::{Deserialize, Serialize};

/// A step and the minutes that it took, as typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// The step.
    pub step: String,
    /// How long it took.
    pub minutes: f64,
}

/// One step around the tool, on the way from the loss to serving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name in `--mark`.
    pub name: String,
    /// What is done.
    pub what: String,
    /// Who does it.
    pub owner: String,
    /// How long it took, in minutes; absent where nobody timed it.
    pub minutes: Option<f64>,
}

/// Name, what, owner, and whether a loss of Redis and one of BigQuery has it.
type Known = (&'static str, &'static str, &'static str, bool, bool);

/// The steps of RUNBOOK.md that come before the system serves again.
const STEPS: [Known; 8] = [
    ("declare", "declare the loss", "on call", true, true),
    ("stop-writers", "decide whether writers stop", "application", true, false),
    ("time-travel", "see whether BigQuery's own time travel is enough", "data", false, true),
    ("create-instance", "create the Redis instance", "platform", true, false),
    (
        "connect-redis",
        "put address and password in place, open the network",
        "platform",
        true,
        false,
    ),
    ("access-bigquery", "project, billing and service account", "platform", false, true),
    ("grants", "grants, row access policies, views, scheduled queries", "data", false, true),
    ("repoint", "repoint the application, producers and dashboards", "application", true, true),
];
/// A step of a week is a typing mistake.
const MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;

impl Mark {
    /// Reads `STEP=MINUTES`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((step, minutes)) = text.split_once('=') else {
            return Err("must be STEP=MINUTES, for example create-instance=12".to_owned());
        };
        if STEPS.iter().all(|known| known.0 != step) {
            let names: Vec<&str> = STEPS.iter().map(|known| known.0).collect();
            return Err(format!("there is no step {step:?}; the steps are {}", names.join(", ")));
        }
        let minutes = minutes.parse::<f64>().ok();
        match minutes.filter(|minutes| (0.0..=MINUTES_MAX).contains(minutes)) {
            Some(minutes) => Ok(Self { step: step.to_owned(), minutes }),
            None => Err("the minutes must be a number from 0 to 10080".to_owned()),
        }
    }
}

/// Returns the steps of a loss with what was timed; a mark of a step that this loss has not, or a second one, is an error.
pub(super) fn timed(loss: Loss, marks: &[Mark]) -> Result<Vec<Step>, String> {
    let is_part = |known: &&Known| (loss.redis() && known.3) || (loss.bigquery() && known.4);
    let mut steps: Vec<Step> = STEPS
        .iter()
        .filter(is_part)
        .map(|known| Step {
            name: known.0.to_owned(),
            what: known.1.to_owned(),
            owner: known.2.to_owned(),
            minutes: None,
        })
        .collect();
    for mark in marks {
        let Some(step) = steps.iter_mut().find(|step| step.name == mark.step) else {
            return Err(format!(
                "--mark {}: a loss of {} has no such step",
                mark.step,
                loss.word()
            ));
        };
        if step.minutes.replace(mark.minutes).is_some() {
            return Err(format!("--mark {} is given twice", mark.step));
        }
    }
    Ok(steps)
}

/// Names of the steps that nobody timed.
pub(super) fn unknown(steps: &[Step]) -> Vec<&str> {
    steps.iter().filter(|step| step.minutes.is_none()).map(|step| step.name.as_str()).collect()
}

/// Seconds of the steps that were timed.
pub(super) fn marked_seconds(steps: &[Step]) -> f64 {
    steps.iter().filter_map(|step| step.minutes).sum::<f64>() * 60.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(text: &str) -> Mark {
        Mark::parse(text).unwrap()
    }

    #[test]
    fn a_mark_names_a_step_and_its_minutes() {
        assert_eq!(
            mark("create-instance=12.5"),
            Mark { step: "create-instance".to_owned(), minutes: 12.5 }
        );
        for (text, told) in [
            ("repoint", "STEP=MINUTES"),
            ("repiont=3", "the steps are declare, "),
            ("repoint=", "must be a number"),
            ("repoint=-1", "must be a number"),
            ("repoint=nan", "must be a number"),
            ("repoint=10081", "must be a number"),
        ] {
            let error = Mark::parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn what_nobody_timed_is_unknown_and_never_zero() {
        let steps = timed(Loss::Redis, &[mark("declare=1"), mark("repoint=0")]).unwrap();
        assert_eq!(unknown(&steps), ["stop-writers", "create-instance", "connect-redis"]);
        assert!((marked_seconds(&steps) - 60.0).abs() < 1e-9);
        assert_eq!(timed(Loss::Both, &[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn a_step_of_another_loss_and_a_second_mark_are_refused() {
        let other = timed(Loss::BigQuery, &[mark("create-instance=5")]).unwrap_err();
        assert_eq!(other, "--mark create-instance: a loss of bigquery has no such step");
        let twice = timed(Loss::Redis, &[mark("declare=5"), mark("declare=6")]).unwrap_err();
        assert_eq!(twice, "--mark declare is given twice");
    }
}
