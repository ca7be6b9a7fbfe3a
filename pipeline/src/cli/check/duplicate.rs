//! The controls of the duplicate of BigQuery: its age against the RPO, and whether its server may drop it.
//!
//! Invariant: only reads; what is in the duplicate is told by its own record.

use super::controls::Control;
use crate::backup::age::{Age, ages};
use crate::backup::sealing::Sealing;
use schemas::Plan;

/// What seals everything again that the source still has.
const SEAL_AGAIN: &str = "rekindle backup bigquery --full, as many times as keep_versions";

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
        return Control::failed(name, line).with_fix(age.fix.as_deref());
    }
    if age.may_be_evicted && !eviction_is_allowed {
        return Control::full(name, line).with_fix(Some(
            "set maxmemory-policy noeviction, or name another server in [redis.duplicate]",
        ));
    }
    if age.sealing.as_ref().is_some_and(Sealing::is_lacking) {
        return Control::failed(name, line).with_fix(Some(SEAL_AGAIN));
    }
    if age.within_rpo {
        let is_behind = age
            .sealing
            .as_ref()
            .is_some_and(|sealing| sealing.key_id.is_some() && sealing.is_behind());
        return Control::ok(name, line).with_fix(is_behind.then_some(SEAL_AGAIN));
    }
    Control::late(name, line).with_fix(Some("rekindle backup bigquery"))
}
