//! The control of schedules: whether the runs that were asked for happened.
//!
//! Invariant: nothing is said where no schedule was recorded, and nothing is called fine whose records cannot be read.

use super::controls::Control;
use crate::log_review;
use std::path::Path;

/// Looks at every schedule of the state folder.
pub(super) async fn controls(state: &Path) -> Vec<Control> {
    let schedules = match log_review::schedules(state).await {
        Ok(schedules) => schedules,
        Err(error) => {
            let fix = error.hint().map(str::to_owned);
            let control = Control::unknown("schedules", error.to_string());
            return vec![control.with_fix(fix.as_deref())];
        }
    };
    let control = |schedule: &crate::schedule::Standing| {
        let name = format!("schedule of {}", schedule.command);
        if schedule.is_behind {
            let fix = format!(
                "rekindle {}, then see why cron did not start it; rekindle log review",
                schedule.command
            );
            return Control::late(name, schedule.line()).with_fix(Some(&fix));
        }
        let fix = (!schedule.missed.is_empty()).then_some("rekindle log review");
        Control::ok(name, schedule.line()).with_fix(fix)
    };
    schedules.iter().map(control).collect()
}
