//! The controls of the copies of BigQuery: their age against the RPO, and whether the server of the duplicate may drop it.
//!
//! Invariant: only reads; what is in the duplicate is told by its own record.

use super::controls::Control;
use crate::backup::age::{Age, ages};
use crate::backup::archived::archive_ages;
use crate::place::Place;
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

/// Looks at the archive of every route that it holds.
pub(super) async fn archive_controls(plan: &Plan) -> Vec<Control> {
    match archive_ages(plan).await {
        Ok(ages) => ages.iter().map(archive_control).collect(),
        Err(error) => vec![Control::of_error("archive", &error)],
    }
}

fn archive_control(age: &Age) -> Control {
    let name = format!("archive of {}", age.table);
    let fix = Place::Archive.named("rekindle backup bigquery");
    match (&age.problem, age.within_rpo) {
        (Some(_), _) => Control::failed(name, age.line()).with_fix(Some(fix.as_str())),
        (None, true) => Control::ok(name, age.line()),
        (None, false) => Control::late(name, age.line()).with_fix(Some(fix.as_str())),
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
