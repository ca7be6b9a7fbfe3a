//! What the archive keeps, for the answer to a loss: it is neither in Redis nor in BigQuery, so no loss of those takes it.
//!
//! Invariant: only what a backup of the plan puts there is named; how old it is, the plan cannot tell.

use super::{Dataset, Fate, Losses, name_of};
use crate::backup::archived::{is_kept, rows_are_not_archived, rows_left_out};
use crate::place::Place;
use crate::wiring::is_archived;
use schemas::Plan;
use schemas::plan::Route;

/// How a rebuild is told to read the archive.
pub(super) const FROM: &str = " --from archive";

/// The copy of a table in the archive.
pub(super) struct Archived {
    pub(super) name: String,
    pub(super) command: String,
    pub(super) why: String,
}

/// Returns the copy that the archive has of a table; `copies` are the backup routes of it.
pub(super) fn of(plan: &Plan, copies: &[&Route]) -> Option<Archived> {
    let section = plan.archive.as_ref()?;
    let route = copies.iter().find(|route| is_kept(route, Place::Archive))?;
    let (url, restore) = (section.url(), Place::Archive.named("rekindle restore bigquery"));
    Some(Archived {
        name: format!("its archive in {url} (route {})", route.name),
        command: format!("{restore} --route {}", route.name),
        why: format!("as of the last {}", Place::Archive.backup_command()),
    })
}

/// The keys of a route that were lost together with BigQuery, and that a rebuild makes of the archive without waiting for
/// it; `None` where that is not so.
pub(super) fn keys_from(plan: &Plan, route: &Route, lost: Losses) -> Option<Dataset> {
    let section = plan.archive.as_ref()?;
    if !(lost.cache && lost.bigquery && is_archived(plan, route)) {
        return None;
    }
    let table = name_of(&route.origin);
    Some(Dataset {
        name: format!("keys of route {} ({})", route.name, route.key.text()),
        fate: Fate::Recoverable,
        surviving: vec![format!("the archive of {table} in {}", section.url())],
        command: Some(format!("rekindle rebuild redis{FROM} --route {}", route.name)),
        why: Some(format!(
            "as of the last {}, without waiting for {table}",
            Place::Archive.backup_command()
        )),
    })
}

/// What is said of the cycle of BigQuery and Redis where a third copy breaks it.
pub(super) fn cycle(plan: &Plan) -> Option<String> {
    let section = plan.archive.as_ref()?;
    Some(format!(
        "bigquery is restored from redis, and keys of redis are rebuilt from bigquery: each is the other's backup; the archive in {} breaks that cycle for the tables that it holds, and `rekindle status` tells how old it is",
        section.url()
    ))
}

/// Names the routes that no archive holds.
pub(super) fn left_out(plan: &Plan) -> Option<String> {
    let names = rows_left_out(plan);
    (plan.archive.is_some() && !names.is_empty()).then(|| rows_are_not_archived(&names))
}
