//! The controls of the duplicate of BigQuery: its age against the RPO, and whether its server may drop it.
//!
//! Invariant: only reads; what is in the duplicate is told by its own record.

use super::controls::Control;
use crate::backup::age::{Age, ages};
use schemas::Plan;

/// Looks at the duplicate of every backup route.
pub(super) async fn controls(plan: &Plan) -> Vec<Control> {
    match ages(plan).await {
        Ok(ages) => {
            let allowed = plan.duplicate.as_ref().is_some_and(|section| section.allow_eviction);
            ages.iter().map(|age| control(age, allowed)).collect()
        }
        Err(error) => vec![Control::of_error("duplicate", &error)],
    }
}

fn control(age: &Age, eviction_is_allowed: bool) -> Control {
    let name = format!("duplicate of {}", age.table);
    let line = age.line();
    if age.problem.is_some() {
        return Control::failed(name, line).with_fix(Some("rekindle backup bigquery"));
    }
    if age.may_be_evicted && !eviction_is_allowed {
        return Control::full(name, line).with_fix(Some(
            "set maxmemory-policy noeviction, or name another server in [redis.duplicate]",
        ));
    }
    if age.within_rpo {
        return Control::ok(name, line);
    }
    Control::late(name, line).with_fix(Some("rekindle backup bigquery"))
}
