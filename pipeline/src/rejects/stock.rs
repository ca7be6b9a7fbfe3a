//! What a replay begins with: which run, which files, and whether their routes can take them.
//!
//! Invariant: everything that can be refused is refused here, before anything is written.

use super::file;
use super::folder::{self, RejectFile};
use crate::journal::Journal;
use crate::outcome::from_journal;
use schemas::plan::OnCollision;
use schemas::{Plan, Route};
use stages::{Error, Kind, Result};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Chooses the run, and names the others that have rejected rows.
pub(super) fn chosen_run(
    state: &Path,
    asked: Option<&str>,
) -> Result<Option<(String, Vec<String>)>> {
    let mut open = Vec::new();
    for run in folder::runs(state)? {
        // Only the one that is asked for has to be sound.
        let is_open =
            folder::files(state, &run).map_or(true, |files| files.iter().any(|file| !file.is_done));
        if is_open || asked == Some(run.as_str()) {
            open.push(run);
        }
    }
    let chosen = match asked {
        None => open.last().cloned(),
        Some(run) if open.iter().any(|known| known == run) => Some(run.to_owned()),
        Some(run) => {
            let message = format!("--run {run}: no rows of such a run were rejected");
            return Err(Error::new(Kind::Config, message).with_hint("rekindle rejects list"));
        }
    };
    let Some(run) = chosen else { return Ok(None) };
    open.retain(|other| *other != run);
    Ok(Some((run, open)))
}

/// The files of a run that are not done, by route.
pub(super) struct Stock {
    pub(super) files: BTreeMap<String, Vec<RejectFile>>,
    /// Fingerprints of the plans under which rows were rejected.
    pub(super) plans: HashSet<String>,
}

/// Reads every file once, so that a damaged one is met before anything is written.
pub(super) fn take_stock(state: &Path, run: &str) -> Result<Stock> {
    let mut stock = Stock { files: BTreeMap::new(), plans: HashSet::new() };
    for reject in folder::files(state, run)?.into_iter().filter(|file| !file.is_done) {
        let mut routes = HashSet::new();
        file::read(&reject.path, &mut |rows| {
            routes.extend(rows.routes.iter().flatten().map(str::to_owned));
            stock.plans.extend(rows.plans.iter().flatten().map(str::to_owned));
            Ok(())
        })?;
        if routes.len() > 1 {
            return Err(file::foreign(&reject.path, "its rows belong to several routes"));
        }
        if let Some(route) = routes.into_iter().next() {
            stock.files.entry(route).or_default().push(reject);
        }
    }
    Ok(stock)
}

/// Returns the routes of the plan that the rows belong to; every reason against it at once.
pub(super) async fn replayable(
    plan: &Plan,
    journal: &Journal,
    run: &str,
    stock: &Stock,
) -> std::result::Result<Vec<Route>, Vec<Error>> {
    let record = journal.run(run).await.map_err(|error| vec![from_journal(error)])?;
    let is_rebuild = record.is_none_or(|record| {
        [crate::rebuild::COMMAND, crate::rebuild::FILES_COMMAND].contains(&record.command.as_str())
    });
    if !is_rebuild && !stock.files.is_empty() {
        let message = format!("the rows of run {run} were rejected on their way to bigquery");
        return Err(vec![Error::new(Kind::Config, message).with_hint(
            "mend them in redis, then: rekindle restore bigquery --fill, which brings the rows that the table lacks",
        )]);
    }
    let mut routes = Vec::new();
    let mut refused = Vec::new();
    for name in stock.files.keys() {
        match plan.routes.iter().find(|route| route.name == *name) {
            None => {
                let message =
                    format!("rows of route {name} were rejected, and the plan has no such route");
                refused.push(Error::new(Kind::Config, message).with_hint(
                    "give the route its name back, or name the other routes with --route",
                ));
            }
            Some(route) => match why_not(route) {
                None => routes.push(route.clone()),
                Some(reason) => {
                    let message = format!("route {name} cannot be replayed: {reason}");
                    refused.push(Error::new(Kind::Config, message).with_hint(format!(
                        "name the other routes with --route; for this one: rekindle rebuild redis --fresh --route {name}"
                    )));
                }
            },
        }
    }
    if refused.is_empty() { Ok(routes) } else { Err(refused) }
}

fn why_not(route: &Route) -> Option<&'static str> {
    if !route.uses.rebuild {
        return Some("it does not rebuild redis");
    }
    if route.many.is_some() {
        return Some("a key of many rows is written whole");
    }
    matches!(route.on_collision, Some(OnCollision::Last { .. }))
        .then_some("which row of a key is the last shows only when all of them are read")
}
