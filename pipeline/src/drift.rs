//! Drift in a rebuild: what tables were when the journal recorded them, against what they are now.
//!
//! Invariant: it is decided before the first write; the recorded shape changes only where the run goes on under the new
//! one, and rows of two shapes are never mixed in one run unless every value is written alike.

use crate::journal::{Journal, RouteRecord, RunRecord};
use crate::outcome::from_journal;
use crate::rebuild::COMMAND;
use crate::route::{RouteRun, of_plan};
use crate::wiring::{Sources, connect_sources, table_shape};
use schemas::drift::{Drift, OnDrift, compare};
use schemas::{Plan, Route};
use stages::{Error, Kind};
use std::path::Path;
use std::sync::Arc;

type Outcome<T> = std::result::Result<T, Vec<Error>>;

/// Refuses what may not go on in an unfinished run; returns what changed all the same, and journals the shapes that it
/// goes on under.
pub async fn check_resumed(
    journal: &Journal,
    run: &RunRecord,
    recorded: Vec<RouteRecord>,
    routes: &[RouteRun],
) -> Outcome<Vec<Drift>> {
    let mut drifts = Vec::new();
    let mut lines = Vec::new();
    let mut moved = Vec::new();
    for mut record in recorded {
        let Some(route) = routes.iter().find(|route| route.name() == record.name) else { continue };
        let found = drift_of(route, &record);
        let now = route.bound.schema.identity_lines();
        if found.is_empty() && now != record.schema_lines {
            lines.extend(changed_lines(&record.name, &record.schema_lines, &now));
        }
        if !found.is_empty() {
            (record.schema_lines, record.shape) = (now, route.shape.clone());
            moved.push(record);
        }
        let refused = found.iter().filter(|drift| is_refused(route.bound.route.on_drift, drift));
        lines.extend(refused.map(ToString::to_string));
        drifts.extend(found);
    }
    if !lines.is_empty() {
        let since = format!("since run {} began", run.id);
        let is_harmless = drifts.iter().all(|drift| drift.harm.is_none()) && !drifts.is_empty();
        let hint = if is_harmless {
            "say on_drift = \"warn\" in these routes to go on all the same, undo the change, or start over with: rekindle rebuild redis --fresh"
        } else {
            "on_drift = \"warn\" does not cover it; undo the change to resume, or start over with: rekindle rebuild redis --fresh"
        };
        return Err(vec![changed(&since, &lines, hint)]);
    }
    for record in moved {
        journal.update_route(&record).await.map_err(|error| vec![from_journal(error)])?;
    }
    Ok(drifts)
}

/// Refuses to begin a run that would write other values than the last one that was done, where the plan does not say
/// `warn`; returns what else changed. A route whose own definition changed since is not compared.
pub async fn check_new(journal: &Journal, routes: &[RouteRun]) -> Outcome<Vec<Drift>> {
    let mut drifts = Vec::new();
    let mut lines = Vec::new();
    let mut since = String::new();
    for route in routes {
        let last = journal.last_done_route(COMMAND, route.name()).await;
        let Some(record) = last.map_err(|error| vec![from_journal(error)])? else { continue };
        if of_plan(&record.definition).0 != route.bound.route.definition() {
            continue;
        }
        let found = drift_of(route, &record);
        let is_refused =
            |drift: &&Drift| route.bound.route.on_drift == OnDrift::Fail && drift.harm.is_some();
        let refused: Vec<String> =
            found.iter().filter(is_refused).map(ToString::to_string).collect();
        if !refused.is_empty() {
            since = format!("since run {} was done", record.run_id);
        }
        lines.extend(refused);
        drifts.extend(found);
    }
    if lines.is_empty() {
        return Ok(drifts);
    }
    Err(vec![changed(
        &since,
        &lines,
        "see that the readers of these keys know, then: rekindle rebuild redis --fresh; with on_drift = \"warn\" a new run tells it and goes on",
    )])
}

/// Puts what changed in the tables in front of the errors of routes that can no longer be bound to them.
pub async fn explained(
    journal: &Journal,
    sources: &Sources,
    routes: &[Route],
    errors: Vec<Error>,
) -> Vec<Error> {
    let is_of_shape = |error: &Error| matches!(error.kind(), Kind::Schema | Kind::Config);
    if !errors.iter().all(is_of_shape) {
        return errors;
    }
    match what_changed(journal, sources, routes).await {
        Ok(Some(told)) => std::iter::once(told).chain(errors).collect(),
        Ok(None) => errors,
        Err(error) => {
            tracing::debug!(%error, "the changes of the tables cannot be told");
            errors
        }
    }
}

/// The same for commands that read the keys of earlier rebuilds: with their journal, where there is one.
pub async fn explained_by(
    state: &Path,
    plan: &Plan,
    routes: &[Route],
    errors: Vec<Error>,
) -> Vec<Error> {
    let Ok(Some(journal)) = Journal::open_read_only(state).await else { return errors };
    match connect_sources(plan, routes, 1).await {
        Ok(sources) => explained(&journal, &sources, routes, errors).await,
        Err(_) => errors,
    }
}

/// What changed in the tables since the last rebuild that was done, for a command that compares its keys; a journal that
/// is not there or cannot be read knows nothing.
pub async fn since_the_last(state: &Path, routes: &[Arc<RouteRun>]) -> Vec<Drift> {
    let Ok(Some(journal)) = Journal::open_read_only(state).await else { return Vec::new() };
    let mut drifts = Vec::new();
    for route in routes {
        let Ok(Some(record)) = journal.last_done_route(COMMAND, route.name()).await else {
            continue;
        };
        if of_plan(&record.definition).0 == route.bound.route.definition() {
            drifts.extend(drift_of(route, &record));
        }
    }
    drifts
}

/// Refuses to write rows beside those of a run whose tables held something else, where the plan does not say `warn`;
/// returns what changed all the same.
pub async fn check_beside(
    journal: &Journal,
    run: &str,
    routes: &[Arc<RouteRun>],
) -> Outcome<Vec<Drift>> {
    let recorded = journal.routes(run).await.map_err(|error| vec![from_journal(error)])?;
    let mut drifts = Vec::new();
    let mut lines = Vec::new();
    for route in routes {
        let record = recorded.iter().find(|record| record.name == route.name());
        let defined = route.bound.route.definition();
        let is_same = |record: &&RouteRecord| of_plan(&record.definition).0 == defined;
        let Some(record) = record.filter(is_same) else { continue };
        let found = drift_of(route, record);
        let is_refused =
            |drift: &&Drift| route.bound.route.on_drift == OnDrift::Fail && drift.harm.is_some();
        lines.extend(found.iter().filter(is_refused).map(ToString::to_string));
        drifts.extend(found);
    }
    if lines.is_empty() {
        return Ok(drifts);
    }
    Err(vec![changed(
        &format!("since run {run} began"),
        &lines,
        "its rows beside others would mix what two tables say: rekindle rebuild redis --fresh; on_drift = \"warn\" replays all the same",
    )])
}

async fn what_changed(
    journal: &Journal,
    sources: &Sources,
    routes: &[Route],
) -> stages::Result<Option<Error>> {
    let unfinished = journal.unfinished_run(COMMAND).await.map_err(from_journal)?;
    let recorded = match &unfinished {
        Some(run) => journal.routes(&run.id).await.map_err(from_journal)?,
        None => Vec::new(),
    };
    let mut lines = Vec::new();
    let mut since = String::new();
    for route in routes {
        let of_run = recorded.iter().find(|record| record.name == route.name).cloned();
        let record = match of_run {
            Some(record) => Some(record),
            None => journal.last_done_route(COMMAND, &route.name).await.map_err(from_journal)?,
        };
        let is_same = |record: &RouteRecord| of_plan(&record.definition).0 == route.definition();
        let Some(record) = record.filter(is_same) else {
            continue;
        };
        let Some(before) = &record.shape else { continue };
        let now = table_shape(sources, route).await?;
        let found = compare(route, before, &now);
        if !found.is_empty() {
            since = match &unfinished {
                Some(run) if run.id == record.run_id => format!("since run {} began", run.id),
                _ => format!("since run {} was done", record.run_id),
            };
        }
        lines.extend(found.iter().map(ToString::to_string));
    }
    let hint =
        "undo the change, or mend the routes and start over with: rekindle rebuild redis --fresh";
    Ok((!lines.is_empty()).then(|| changed(&since, &lines, hint)))
}

fn drift_of(route: &RouteRun, record: &RouteRecord) -> Vec<Drift> {
    match (&record.shape, &route.shape) {
        (Some(before), Some(now)) => compare(&route.bound.route, before, now),
        // Recorded by an older version: its lines are compared instead.
        _ => Vec::new(),
    }
}

fn is_refused(on_drift: OnDrift, drift: &Drift) -> bool {
    on_drift == OnDrift::Fail || drift.harm.is_some()
}

fn changed(since: &str, lines: &[String], hint: &str) -> Error {
    let message = format!("the schema of the source changed {since}:\n  {}", lines.join("\n  "));
    Error::new(Kind::Schema, message).with_hint(hint)
}

/// The lines that are in one text only.
pub fn changed_lines(route: &str, old: &[String], new: &[String]) -> Vec<String> {
    let gone =
        old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {route}: {line}"));
    let added =
        new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {route}: {line}"));
    gone.chain(added).collect()
}
