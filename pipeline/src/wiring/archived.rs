//! Tables of BigQuery read from the archive: which routes can be, and what the archive has of their tables.
//!
//! Invariant: a route that the archive cannot stand in for is refused by name before anything is connected; none is left
//! out silently, and none is read from BigQuery instead.

use super::{Described, Sources, connect_sources, open_archive};
use crate::archived::{HINT, TableCopy};
use crate::backup::archived::is_kept;
use crate::place::Place;
use crate::restore::archived::{ArchivedTable, archived_table};
use crate::summarize::rfc3339;
use schemas::plan::{Origin, System};
use schemas::{Plan, Route};
use serde::{Deserialize, Serialize};
use stages::extract::bigquery;
use stages::load::store::Values;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How a rebuild names its backup.
const BACKUP: &str = "rekindle backup bigquery --to archive";

/// What brings back a route that only BigQuery can answer.
const RESTORE_FIRST: &str = "name the others with --route, and this one without --from archive once bigquery is back: rekindle restore bigquery --from archive";

/// A table as the archive has it.
#[derive(Debug, Clone)]
pub struct ArchivedShape {
    /// What BigQuery said of the table when it was archived last.
    pub table: bigquery::Shape,
    /// Its files.
    pub copy: Arc<TableCopy>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// What a route reads from an archive, for summaries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRead {
    /// The route.
    pub route: String,
    /// `dataset.table`.
    pub table: String,
    /// The archive.
    pub archive: String,
    /// Up to when everything that the table had is in it, RFC 3339.
    pub data_as_of: String,
}

impl ArchiveRead {
    /// In words.
    pub fn told(&self) -> String {
        let Self { route, table, archive, data_as_of } = self;
        format!("route {route} read {table} from {archive}, as of {data_as_of}")
    }
}

/// The archive of a plan, connected, and the routes that it is kept by.
pub(super) struct Tables {
    pub(super) values: Arc<dyn Values>,
    copies: Vec<Route>,
    /// What was found of each, by the route that keeps it: routes over one table read one backup, and ask for it once.
    found: Mutex<BTreeMap<String, ArchivedShape>>,
}

/// Connects to every system that one of the routes reads; with `from_archive` to the archive in place of BigQuery.
pub async fn connect_with(
    plan: &Plan,
    routes: &[Route],
    lanes: usize,
    from_archive: bool,
) -> Result<Sources> {
    if !from_archive {
        return connect_sources(plan, routes, lanes).await;
    }
    let others: Vec<Route> =
        routes.iter().filter(|route| !is_of_bigquery(route)).cloned().collect();
    let mut sources = connect_sources(plan, &others, lanes).await?;
    let copies = plan.routes.iter().filter(|route| is_kept(route, Place::Archive));
    let tables = Tables {
        values: Arc::new(open_archive(plan)?),
        copies: copies.cloned().collect(),
        found: Mutex::default(),
    };
    sources.read_archive(Arc::new(tables));
    Ok(sources)
}

fn is_of_bigquery(route: &Route) -> bool {
    route.origin.system() == System::BigQuery
}

/// Refuses what no archive can stand in for, every route at once.
pub fn refuse_unarchived(plan: &Plan, routes: &[Route]) -> std::result::Result<(), Vec<Error>> {
    open_archive(plan).map_err(|error| vec![error])?;
    if !routes.iter().any(is_of_bigquery) {
        let message = "--from archive: no route that is rebuilt reads bigquery";
        return Err(vec![
            Error::new(Kind::Config, message)
                .with_hint("leave --from archive out: rekindle rebuild redis"),
        ]);
    }
    let of_bigquery = routes.iter().filter(|route| is_of_bigquery(route));
    let refused: Vec<Error> = of_bigquery.filter_map(|route| refusal(plan, route)).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// Why the archive of a plan cannot stand in for what a route reads of BigQuery; `None` where it can.
fn refusal(plan: &Plan, route: &Route) -> Option<Error> {
    let name = &route.name;
    let refused =
        |message: String, hint: &str| Some(Error::new(Kind::Config, message).with_hint(hint));
    match (&route.origin, &route.filter) {
        (Origin::Query { .. }, _) => refused(
            format!("route {name} reads a query of bigquery, which an archive cannot answer"),
            RESTORE_FIRST,
        ),
        (Origin::Table { .. }, Some(_)) => refused(
            format!("route {name} has a where, which only bigquery can evaluate"),
            RESTORE_FIRST,
        ),
        (Origin::Table { schema, table, .. }, None) => match kept_by(&plan.routes, route) {
            Some(_) => None,
            None => refused(
                format!("route {name}: no route of the plan archives bigquery:{schema}.{table}"),
                &format!("add a [[route]] of type = \"blocks\" for that table, then: {BACKUP}"),
            ),
        },
    }
}

/// The route that keeps the table of another one in the archive.
fn kept_by<'a>(routes: &'a [Route], read: &Route) -> Option<&'a Route> {
    let is_table = matches!(read.origin, Origin::Table { .. });
    routes
        .iter()
        .find(|route| is_table && route.origin == read.origin && is_kept(route, Place::Archive))
}

/// Whether the archive of a plan can stand in for what a route reads of BigQuery.
pub(crate) fn is_archived(plan: &Plan, route: &Route) -> bool {
    plan.archive.is_some() && is_of_bigquery(route) && refusal(plan, route).is_none()
}

/// Describes the table of a route as the archive has it.
pub(super) async fn describe(tables: &Tables, route: &Route) -> Result<ArchivedShape> {
    let copy = kept_by(&tables.copies, route)
        .ok_or_else(|| Error::new(Kind::Internal, "no archive was asked for this table"))?;
    let mut known = tables.found.lock().await;
    if let Some(shape) = known.get(&copy.name) {
        return Ok(shape.clone());
    }
    let found = archived_table(&tables.values, copy).await.map_err(hinted)?;
    let Some(ArchivedTable { copy: files, record, notes }) = found else {
        let Origin::Table { schema, table, .. } = &route.origin else {
            return Err(Error::new(Kind::Internal, "a query has no archive"));
        };
        let message = format!(
            "{} does not hold bigquery:{schema}.{table}: no backup of it was ever complete",
            tables.values.place()
        );
        return Err(
            Error::new(Kind::Config, message).with_hint(format!("{BACKUP} --route {}", copy.name))
        );
    };
    let size = (files.rows(), files.bytes());
    let table = bigquery::Shape::recorded(&files.table, &record.resource, size);
    let shape = ArchivedShape { table, copy: Arc::new(files), notes };
    known.insert(copy.name.clone(), shape.clone());
    Ok(shape)
}

/// What routes read from the archive, and what a person should know of it.
pub fn archive_reads(
    sources: &Sources,
    described: &[Described],
) -> (Vec<ArchiveRead>, Vec<String>) {
    let reads = described.iter().filter_map(|described| described.archive_read(sources));
    let mut notes: Vec<String> = Vec::new();
    for note in described.iter().flat_map(Described::notes) {
        // Routes over one table say the same of it.
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    (reads.collect(), notes)
}

/// What is to be typed where a restore would be told otherwise.
fn hinted(error: Error) -> Error {
    match error.kind() {
        Kind::Difference => error.with_hint(HINT),
        _ => error,
    }
}

impl ArchivedShape {
    /// What a summary says of a route that reads it.
    pub(super) fn told(&self, route: &str, place: &str) -> ArchiveRead {
        ArchiveRead {
            route: route.to_owned(),
            table: self.copy.table.clone(),
            archive: place.to_owned(),
            data_as_of: rfc3339(self.copy.as_of_us / 1000),
        }
    }
}
