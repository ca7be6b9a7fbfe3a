//! What the archive keeps, for the answer to a loss: it is neither in Redis nor in BigQuery, so no loss of those takes it.
//!
//! Invariant: only what a backup of the plan puts there is named; how old it is, the plan cannot tell.

use super::{Dataset, Fate, Losses, Step, name_of};
use crate::backup::archived::{is_kept, rows_are_not_archived, rows_left_out};
use crate::place::Place;
use crate::wiring::is_archived;
use schemas::Plan;
use schemas::plan::Route;

/// The copy of a table in the archive.
pub(super) struct Archived<'a> {
    pub(super) name: String,
    pub(super) route: &'a Route,
}

/// Returns the copy that the archive has of a table; `copies` are the backup routes of it.
pub(super) fn of<'a>(plan: &Plan, copies: &[&'a Route]) -> Option<Archived<'a>> {
    let section = plan.archive.as_ref()?;
    let route = copies.iter().find(|route| is_kept(route, Place::Archive))?;
    Some(Archived {
        name: format!("its archive in {} (route {})", section.url(), route.name),
        route,
    })
}

/// How old what it gives is.
pub(super) fn as_of_the_last_backup() -> String {
    format!("as of the last {}", Place::Archive.backup_command())
}

/// The keys of a route that were lost together with BigQuery, and that a rebuild makes of the archive without waiting for
/// it; `None` where that is not so.
pub(super) fn keys_from(plan: &Plan, route: &Route, lost: Losses) -> Option<Dataset> {
    let section = plan.archive.as_ref()?;
    if !(lost.cache && lost.bigquery && is_archived(plan, route)) {
        return None;
    }
    let table = name_of(&route.origin);
    let name = format!("keys of route {} ({})", route.name, route.key.text());
    let surviving = vec![format!("the archive of {table} in {}", section.url())];
    let mut dataset = Dataset::new(name, Fate::Recoverable, surviving);
    dataset.comes_back_by(Step::RebuildFromArchive, route);
    dataset.why = Some(format!("{}, without waiting for {table}", as_of_the_last_backup()));
    Some(dataset)
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
