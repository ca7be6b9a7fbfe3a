//! The tables of a run, looked at again before every read, once a lock keeps them as they are.
//!
//! Invariant: a read that begins has the columns that its route is bound to, in the file that its range was cut in.
//! A snapshot alone promises neither: a table that was rewritten or truncated looks empty to an earlier snapshot, or has
//! its rows elsewhere, and a column keeps its name while it becomes another one (PostgreSQL manual, 13.5 "Caveats").

use super::shape::{Shape, describe_on};
use super::snapshot::{PostgresServer, Transaction};
use super::sql::quote;
use crate::connect::postgres::from_sqlx;
use crate::error::{Error, Kind, Result};
use schemas::BoundRoute;
use schemas::drift::{Drift, OnDrift, compare};
use schemas::plan::{Origin, Route};
use sqlx::{AssertSqlSafe, PgConnection};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The tables that the routes of a run read, by qualified name.
#[derive(Default)]
pub(super) struct Tables {
    known: Mutex<HashMap<String, Table>>,
}

struct Table {
    shape: Arc<Shape>,
    routes: Vec<Arc<BoundRoute>>,
    /// Changes that the run went on with.
    noticed: Vec<Drift>,
}

/// What one read expects of the table it reads.
#[derive(Clone)]
pub(super) struct Expected {
    name: String,
    shape: Arc<Shape>,
}

impl Tables {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Table>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a route reads a table of this shape. A query has no table to look at.
    pub(super) fn note(&self, bound: &Arc<BoundRoute>, shape: &Arc<Shape>) {
        let Some(name) = name_of(&bound.route) else { return };
        let mut known = self.lock();
        let (shape, routes) = (Arc::clone(shape), Vec::new());
        let table = known.entry(name).or_insert(Table { shape, routes, noticed: Vec::new() });
        table.routes.retain(|other| other.route.name != bound.route.name);
        table.routes.push(Arc::clone(bound));
    }

    /// Returns what a read of this route expects; `None` for a query.
    pub(super) fn expected(&self, route: &Route) -> Option<Expected> {
        let name = name_of(route)?;
        let shape = Arc::clone(&self.lock().get(&name)?.shape);
        Some(Expected { name, shape })
    }

    /// Returns the table of a route as it was last looked at; `None` for a query.
    pub(super) fn shape(&self, route: &Route) -> Option<Arc<Shape>> {
        self.expected(route).map(|expected| expected.shape)
    }

    /// Returns what changed without changing what the route writes.
    pub(super) fn noticed(&self, route: &Route) -> Vec<Drift> {
        let known = self.lock();
        let noticed = name_of(route).and_then(|name| known.get(&name)).map(|table| &table.noticed);
        noticed.into_iter().flatten().filter(|drift| drift.route == route.name).cloned().collect()
    }

    /// Takes a table as it is now, where every route that reads it can go on.
    fn take(&self, expected: &Expected, now: Shape) -> Result<()> {
        let mut known = self.lock();
        let Some(table) = known.get_mut(&expected.name) else { return Ok(()) };
        let before = expected.shape.table_shape();
        let mut noticed = Vec::new();
        let (mut lines, mut is_harmless) = (Vec::new(), true);
        for bound in &table.routes {
            for drift in compare(&bound.route, &before, &now.table_shape()) {
                let is_other = is_sent_otherwise(bound, &expected.shape, &now);
                if bound.route.on_drift == OnDrift::Fail || drift.harm.is_some() || is_other {
                    is_harmless &= drift.harm.is_none();
                    lines.push(drift.to_string());
                }
                noticed.push(drift);
            }
        }
        if !lines.is_empty() {
            return Err(changed(&lines, is_harmless));
        }
        for drift in noticed.iter().filter(|drift| !table.noticed.contains(drift)) {
            tracing::warn!("{drift}");
        }
        noticed.retain(|drift| !table.noticed.contains(drift));
        table.noticed.extend(noticed);
        table.shape = Arc::new(now);
        Ok(())
    }
}

/// Whether a column that a route reads arrives in another form, which this run does not expect.
fn is_sent_otherwise(bound: &BoundRoute, before: &Shape, now: &Shape) -> bool {
    let type_in = |shape: &Shape, name: &str| {
        shape.columns.iter().find(|column| column.name == name).map(|column| column.pg_type.clone())
    };
    let mut columns = bound.schema.columns.iter();
    columns.any(|column| type_in(before, &column.name) != type_in(now, &column.name))
}

fn changed(lines: &[String], is_harmless: bool) -> Error {
    let message =
        format!("the schema of the source changed during the run:\n  {}", lines.join("\n  "));
    let hint = if is_harmless {
        "with on_drift = \"warn\" in these routes the same command goes on from here; or undo the change, or start over with: rekindle rebuild redis --fresh"
    } else {
        "undo the change, and the same command goes on from here; or start over with: rekindle rebuild redis --fresh"
    };
    Error::new(Kind::Schema, message).with_hint(hint)
}

impl PostgresServer {
    /// Locks what a read is about to read against every change of its shape until its transaction ends, and looks
    /// whether it still is what was expected.
    ///
    /// Fails with `Schema` where a route cannot go on, and with `RouteRestart` where its rows are in another file now.
    pub(super) async fn hold(
        &self,
        transaction: &mut Transaction,
        expected: &Expected,
    ) -> Result<()> {
        let name = &expected.name;
        let failed = |error| from_sqlx(error, &format!("cannot look at {name} again"));
        // Any read takes the lock, and it is kept to the end of the transaction.
        let lock = format!("select from {name} limit 0");
        let (postgres, session) = transaction.watch();
        let locking = async {
            let lock = sqlx::raw_sql(AssertSqlSafe(lock));
            lock.execute(&mut *transaction.connection).await.map_err(failed)
        };
        postgres.watched(session.as_ref(), locking).await?;
        let route = self.tables.lock().get(name).and_then(|table| table.routes.first().cloned());
        let Some(bound) = route else { return Ok(()) };
        // Beside the transaction, which would be shown the catalogue as it was.
        let mut beside = self.connection().await?;
        let seen = self.at_once(fingerprint(&mut beside, &bound.route)).await?;
        if seen == expected.shape.fingerprint {
            return Ok(());
        }
        let now = self.watched(describe_on(&mut beside, &bound.route)).await?;
        let is_moved = expected.shape.relations.iter().any(|before| {
            let is_it =
                |now: &super::Relation| (now.oid, now.filenode) == (before.oid, before.filenode);
            !now.relations.iter().any(is_it)
        });
        self.tables.take(expected, now)?;
        if is_moved {
            // An earlier snapshot sees nothing of what was written anew.
            self.release_snapshot().await;
            let message = format!("{name} was rewritten or made anew while it was read");
            return Err(Error::new(Kind::RouteRestart, message)
                .with_hint("run the same command again: it reads the table from its start"));
        }
        Ok(())
    }
}

fn name_of(route: &Route) -> Option<String> {
    match &route.origin {
        Origin::Table { schema, table, .. } => Some(format!("{}.{}", quote(schema), quote(table))),
        Origin::Query { .. } => None,
    }
}

/// Everything that a read depends on, in one text: columns, unique indexes, and the files of all relations.
///
/// One round trip, because it is asked before every partition. `None` where there is no such table, or for a query.
pub(super) async fn fingerprint(
    connection: &mut PgConnection,
    route: &Route,
) -> Result<Option<String>> {
    let Origin::Table { schema, table, .. } = &route.origin else { return Ok(None) };
    sqlx::query_scalar(
        "with recursive root as (select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = $1 and c.relname = $2), tree as (select oid from root union all \
         select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid) \
         select concat_ws('|', r.oid, \
         (select string_agg(concat_ws(',', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull), ';' \
         order by a.attnum) from pg_attribute a where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped), \
         (select string_agg(concat_ws(',', i.indexrelid, i.indisunique, i.indisvalid, i.indimmediate), ';' \
         order by i.indexrelid) from pg_index i where i.indrelid = r.oid and i.indisunique), \
         (select md5(string_agg(concat_ws(',', t.oid, coalesce(pg_relation_filenode(t.oid), 0)), ';' \
         order by t.oid)) from tree t)) from root r",
    )
    .bind(schema)
    .bind(table)
    .fetch_optional(connection)
    .await
    .map_err(|error| from_sqlx(error, &format!("cannot look at {schema}.{table}")))
}
