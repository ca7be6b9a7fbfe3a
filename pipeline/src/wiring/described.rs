//! Routes bound to what they read.
//!
//! Invariant: every mistake of every route is reported at once; a route that is described can be run.

use super::Sources;
use super::archived::{self, ArchiveRead, ArchivedShape};
use schemas::drift::TableShape;
use schemas::plan::System;
use schemas::{BoundRoute, Route, TableSchema};
use stages::extract::postgres::{Cut, PostgresServer};
use stages::extract::{bigquery, postgres};
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// Types whose order is time or insertion order, so that "newest" means something.
const NEWEST_TYPES: [&str; 6] = ["timestamptz", "timestamp", "date", "int8", "int4", "int2"];
const NEWEST_TYPES_BIGQUERY: [&str; 4] = ["TIMESTAMP", "DATETIME", "DATE", "INT64"];

/// A route bound to its table, and the table as its system describes it.
pub struct On<S> {
    /// The route bound to its table.
    pub bound: Arc<BoundRoute>,
    /// Its table.
    pub shape: S,
}

/// One route with what is known of its table, for `plan` and for a run.
pub enum Described {
    /// Read from PostgreSQL.
    Postgres(On<postgres::Shape>),
    /// Read from BigQuery.
    BigQuery(On<bigquery::Shape>),
    /// A table of BigQuery, read from the archive.
    Archived(On<ArchivedShape>),
}

/// What `plan` shows of a table.
pub struct Facts {
    /// Table or query.
    pub table: String,
    /// How it is cut, in a word.
    pub cut: &'static str,
    /// Whether cutting counts the rows exactly.
    pub is_counted_by_cut: bool,
    /// Estimated rows, where known.
    pub rows: Option<u64>,
    /// Bytes stored, 0 where unknown.
    pub bytes: u64,
}

impl Described {
    /// Returns the bound route.
    pub fn bound(&self) -> &Arc<BoundRoute> {
        match self {
            Self::Postgres(on) => &on.bound,
            Self::BigQuery(on) => &on.bound,
            Self::Archived(on) => &on.bound,
        }
    }

    /// Whether an archive is read in place of the table.
    pub fn is_archived(&self) -> bool {
        matches!(self, Self::Archived(_))
    }

    /// What a summary says of a route that reads an archive; `None` for others.
    pub fn archive_read(&self, sources: &Sources) -> Option<ArchiveRead> {
        let Self::Archived(On { bound, shape }) = self else { return None };
        Some(shape.told(&bound.route.name, &sources.archive()?.values.place()))
    }

    /// What a person should know of it.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Archived(on) => &on.shape.notes,
            Self::Postgres(_) | Self::BigQuery(_) => &[],
        }
    }

    /// Returns the whole table, by which later changes of it are noticed.
    pub fn table_shape(&self) -> TableShape {
        match self {
            Self::Postgres(on) => on.shape.table_shape(),
            Self::BigQuery(on) => on.shape.table_shape(),
            Self::Archived(on) => on.shape.table.table_shape(),
        }
    }

    /// Returns what is known of the table.
    pub fn facts(&self) -> Facts {
        match self {
            Self::Postgres(On { bound, shape }) => {
                let cut = shape.cut(&bound.route);
                Facts {
                    table: shape.name.clone(),
                    cut: match cut {
                        Cut::Ctid => "ctid",
                        Cut::Key if bound.is_many() => "key",
                        Cut::Key => "split_by",
                        Cut::Whole => "whole",
                    },
                    is_counted_by_cut: cut == Cut::Key && !shape.is_heap(),
                    rows: shape.rows_estimate(),
                    bytes: shape.bytes(),
                }
            }
            Self::BigQuery(On { bound, shape }) => Facts {
                table: shape.name.clone(),
                cut: match (&bound.many, &shape.partitioning) {
                    (Some(_), _) => "whole, sorted here",
                    (None, Some(_)) => "table partitions",
                    (None, None) => "whole",
                },
                is_counted_by_cut: false,
                rows: shape.rows_estimate.filter(|_| bound.route.filter.is_none()),
                // What a query reads is not what is carried.
                bytes: if shape.rows_estimate.is_some() { shape.bytes } else { 0 },
            },
            Self::Archived(On { bound, shape }) => Facts {
                table: shape.table.name.clone(),
                cut: if bound.is_many() { "whole, sorted here" } else { "files of the archive" },
                is_counted_by_cut: false,
                rows: Some(shape.copy.rows()),
                bytes: shape.copy.bytes(),
            },
        }
    }
}

/// Describes and binds routes; every mistake of every route at once.
pub async fn describe_routes(
    sources: &Sources,
    routes: &[Route],
) -> std::result::Result<Vec<Described>, Vec<Error>> {
    let mut described = Vec::new();
    let mut mistakes = Vec::new();
    for route in routes {
        match describe(sources, route).await {
            Ok(found) => described.push(found),
            Err(found) => {
                if found.iter().any(|error| error.kind().is_transient()) {
                    return Err(found);
                }
                mistakes.extend(found);
            }
        }
    }
    super::passes::align(&mut described);
    if mistakes.is_empty() { Ok(described) } else { Err(mistakes) }
}

async fn describe(sources: &Sources, route: &Route) -> std::result::Result<Described, Vec<Error>> {
    let one = |error| vec![error];
    match route.origin.system() {
        System::AlloyDb => {
            let server = sources.postgres().map_err(one)?;
            describe_postgres(server, route).await.map(Described::Postgres)
        }
        System::BigQuery => {
            if let Some(tables) = sources.archive() {
                let described = async {
                    bigquery::refuse_fields(route)?;
                    archived::describe(tables, route).await
                };
                let shape = in_route(route, described.await)?;
                let bound = bind_bigquery(&shape.table, route)?;
                return Ok(Described::Archived(On { bound, shape }));
            }
            let server = sources.bigquery().map_err(one)?;
            describe_bigquery(server, route).await.map(Described::BigQuery)
        }
    }
}

/// Describes and binds a route that reads from PostgreSQL.
pub async fn describe_postgres(
    server: &PostgresServer,
    route: &Route,
) -> std::result::Result<On<postgres::Shape>, Vec<Error>> {
    let shape = in_route(route, Box::pin(server.watched(postgres::describe(server, route))).await)?;
    let newest = column_type(route, |name| {
        let column = shape.columns.iter().find(|column| column.name == name)?;
        let is_ordered = NEWEST_TYPES.contains(&column.pg_type.name.as_str());
        Some((column.type_name.clone(), is_ordered))
    });
    let bound = Arc::new(bind(route, shape.schema(route), newest)?);
    Ok(On { bound, shape })
}

/// Returns the table of a route as it is now, whether the route can read it or not.
pub async fn table_shape(sources: &Sources, route: &Route) -> Result<TableShape> {
    Ok(match route.origin.system() {
        System::AlloyDb => postgres::describe(sources.postgres()?, route).await?.table_shape(),
        System::BigQuery => match sources.archive() {
            Some(tables) => archived::describe(tables, route).await?.table.table_shape(),
            None => bigquery::describe(sources.bigquery()?, route).await?.table_shape(),
        },
    })
}

async fn describe_bigquery(
    server: &bigquery::BigQueryServer,
    route: &Route,
) -> std::result::Result<On<bigquery::Shape>, Vec<Error>> {
    let shape = in_route(route, bigquery::describe(server, route).await)?;
    let bound = bind_bigquery(&shape, route)?;
    Ok(On { bound, shape })
}

fn bind_bigquery(
    shape: &bigquery::Shape,
    route: &Route,
) -> std::result::Result<Arc<BoundRoute>, Vec<Error>> {
    let newest = column_type(route, |name| {
        let type_name = shape.type_of(name)?;
        let is_ordered = NEWEST_TYPES_BIGQUERY.contains(&type_name.as_str());
        Some((type_name, is_ordered))
    });
    Ok(Arc::new(bind(route, shape.schema(route), newest)?))
}

/// The column of `newest_by` with its type and whether that has an order in time.
fn column_type(
    route: &Route,
    find: impl FnOnce(&str) -> Option<(String, bool)>,
) -> Option<(String, bool)> {
    find(route.newest_by.as_deref()?)
}

/// Binds a route to its table and checks what only both together can tell.
fn bind(
    route: &Route,
    schema: std::result::Result<TableSchema, Vec<String>>,
    newest: Option<(String, bool)>,
) -> std::result::Result<BoundRoute, Vec<Error>> {
    let refused = |message: String| {
        Error::new(Kind::Schema, message).with_hint("mend the plan, then: rekindle plan")
    };
    let schema =
        schema.map_err(|mistakes| mistakes.into_iter().map(refused).collect::<Vec<_>>())?;
    let bound = BoundRoute::bind(route, schema).map_err(|mistakes| {
        mistakes.iter().map(|mistake| refused(mistake.to_string())).collect::<Vec<_>>()
    })?;
    let mut mistakes = Vec::new();
    let is_row_per_key = !bound.is_many() && !bound.is_stream();
    if is_row_per_key && !bound.key_is_proven_unique && route.on_collision.is_none() {
        mistakes.push(unproven(route));
    }
    if let (Some(name), Some((type_name, false))) = (&route.newest_by, newest) {
        mistakes.push(refused(format!(
            "route {}: newest_by column {name} has type {type_name}; it must be a timestamp, a date or an integer",
            route.name
        )));
    }
    if mistakes.is_empty() { Ok(bound) } else { Err(mistakes) }
}

fn unproven(route: &Route) -> Error {
    let (why, hint) = match route.origin.system() {
        System::AlloyDb => (
            "no primary key or unique index lies inside its columns",
            "say on_collision = \"error\" (checked before the first write) or \"last\" with order_by",
        ),
        System::BigQuery => (
            "bigquery enforces no key",
            "say on_collision = \"error\" (checked before the first write)",
        ),
    };
    let message = format!(
        "route {}: nothing proves that key {} is unique: {why}",
        route.name,
        route.key.text()
    );
    Error::new(Kind::Config, message).with_hint(hint)
}

fn in_route<T>(route: &Route, outcome: Result<T>) -> std::result::Result<T, Vec<Error>> {
    outcome.map_err(|error| {
        // A system that is away is nothing about the route.
        if error.kind().is_transient() {
            return vec![error];
        }
        let message = format!("route {}: {error}", route.name);
        let hint = error.hint().map(str::to_owned);
        let shaped = Error::new(error.kind(), message).with_source(error);
        vec![match hint {
            Some(hint) => shaped.with_hint(hint),
            None => shaped,
        }]
    })
}
