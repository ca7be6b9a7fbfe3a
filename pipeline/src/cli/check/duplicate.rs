//! The controls of the copies of BigQuery: their age against the RPO, and whether the server of the duplicate may drop it.
//!
//! Invariant: only reads; what is in the duplicate is told by its own record.

use super::controls::Control;
use crate::backup::age::{Age, ages};
use crate::backup::archived::archive_ages;
use crate::backup::sealing::Sealing;
use crate::place::Place;
use schemas::Plan;

/// What seals everything again that the source still has.
const SEAL_AGAIN: &str = "rekindle backup bigquery --full, as many times as keep_versions";

/// What opens everything again.
const NAME_KEYS: &str = "name the files of these keys in old_keys of [redis.duplicate]";

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
        return Control::failed(name, line).with_fix(age.fix.as_deref());
    }
    if age.may_be_evicted && !eviction_is_allowed {
        return Control::full(name, line).with_fix(Some(
            "set maxmemory-policy noeviction, or name another server in [redis.duplicate]",
        ));
    }
    if age.sealing.as_ref().is_some_and(|sealing| sealing.closed > 0) {
        return Control::failed(name, line).with_fix(Some(NAME_KEYS));
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

#[cfg(test)]
mod tests {
    use super::super::controls::Verdict;
    use super::*;
    use crate::outcome::Exit;

    fn age(sealing: Option<Sealing>) -> Age {
        Age {
            route: "logs".to_owned(),
            table: "d.t".to_owned(),
            data_as_of: Some("2026-11-01T00:00:00Z".to_owned()),
            age_seconds: Some(60.0),
            rpo_seconds: 3_600,
            within_rpo: true,
            held: Vec::new(),
            lacking_rows: 0,
            may_be_evicted: false,
            sealing,
            problem: None,
            fix: None,
        }
    }

    fn sealing(current: u64, old: u64, unsealed: u64) -> Sealing {
        let key_id = Some("00ff00ff00ff00ff".to_owned());
        let versions = current + old + unsealed;
        Sealing {
            key_id,
            versions,
            current,
            old,
            closed: 0,
            unsealed,
            older_versions: 0,
            missing_keys: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_sealed_fails_and_a_former_key_is_told() {
        let plain = control(&age(None), false);
        assert_eq!((plain.verdict, plain.fix), (Verdict::Ok, None));
        let sealed = control(&age(Some(sealing(2, 0, 0))), false);
        assert_eq!((sealed.verdict, sealed.fix), (Verdict::Ok, None));
        let rotated = control(&age(Some(sealing(1, 1, 0))), false);
        assert_eq!((rotated.verdict, rotated.fix.as_deref()), (Verdict::Ok, Some(SEAL_AGAIN)));
        let lacking = control(&age(Some(sealing(1, 0, 1))), false);
        assert_eq!((lacking.verdict, lacking.exit), (Verdict::Failed, Exit::Usage));
        assert_eq!(lacking.fix.as_deref(), Some(SEAL_AGAIN));
        let closed = Sealing { closed: 1, ..sealing(1, 0, 1) };
        let closed = control(&age(Some(closed)), false);
        assert_eq!((closed.verdict, closed.fix.as_deref()), (Verdict::Failed, Some(NAME_KEYS)));
    }

    #[test]
    fn a_record_that_cannot_be_opened_says_what_to_do_about_it() {
        let problem = Some("key log:run: it is sealed with key 1".to_owned());
        let closed = Age { problem, fix: Some("name the file".to_owned()), ..age(None) };
        let told = control(&closed, false);
        assert_eq!((told.verdict, told.exit), (Verdict::Failed, Exit::Usage));
        assert_eq!(told.fix.as_deref(), Some("name the file"));
    }
}
