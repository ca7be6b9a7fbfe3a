//! The control of AlloyDB's own backups: their age against the recovery point objective.
//!
//! Invariant: nothing is said where the plan names no cluster, and nothing is called fine that could not be asked.

use super::controls::Control;
use crate::alloydb_backups::backup_age;
use crate::evidence::Verdict;
use schemas::Plan;

/// Looks at the backups of the cluster that the plan names.
pub(super) async fn controls(plan: &Plan) -> Vec<Control> {
    const NAME: &str = "alloydb backups";
    let Some(age) = backup_age(plan).await else { return Vec::new() };
    let control = match age.verdict {
        Verdict::Met => Control::ok(NAME, age.detail),
        Verdict::Missed => Control::late(NAME, age.detail),
        Verdict::Unknown => Control::unknown(NAME, age.detail),
    };
    vec![control.with_fix(age.fix.as_deref())]
}
