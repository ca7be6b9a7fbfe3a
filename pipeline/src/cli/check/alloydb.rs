//! The controls of the source: server, snapshot, identity, and every route's table.
//!
//! Invariant: every statement is a read; a row is never fetched from a table of a route.

use super::controls::Control;
use crate::cli::figures::{bytes, count};
use crate::outcome::Exit;
use crate::wiring::{On, connect_postgres, describe_postgres};
use schemas::plan::{OnCollision, Origin, System};
use schemas::{Plan, Route};
use sqlx::{AssertSqlSafe, PgConnection};
use stages::connect::postgres::from_sqlx;
use stages::extract::postgres::{Cut, PostgresServer, Shape};
use stages::{Error, Result};

/// Oldest server whose `pg_current_snapshot` this program reads.
const VERSION_MIN: i32 = 130_000;
const BEGIN: &str = "begin isolation level repeatable read, read only";

/// Looks at the source and at every route asked for (all when `names` is empty).
pub(super) async fn controls(plan: &Plan, names: &[String]) -> Vec<Control> {
    if plan.alloydb.is_none() {
        return Vec::new();
    }
    let server = match connect_postgres(plan, 1).await {
        Ok(server) => server,
        Err(error) => {
            return vec![
                Control::of_error("alloydb", &error),
                Control::unknown("routes", "not looked at, because alloydb could not be"),
            ];
        }
    };
    let mut controls = vec![match version(&server).await {
        Ok(control) => control,
        Err(error) => Control::of_error("alloydb", &error),
    }];
    // Every further question to a server that is gone would wait as long as the first.
    if !is_away(&controls) {
        controls.push(snapshot(&server).await);
    }
    if !is_away(&controls) {
        controls.push(identity(&server).await);
    }
    for route in &plan.routes {
        let is_asked = names.is_empty() || names.contains(&route.name);
        if is_asked && route.origin.system() == System::AlloyDb && !is_away(&controls) {
            controls.extend(of_route(&server, route).await);
        }
    }
    if is_away(&controls) {
        let detail = format!(
            "alloydb went away from {} in the middle; what is not listed was not looked at",
            server.address()
        );
        controls.push(Control::unknown("alloydb", detail));
    }
    controls
}

fn is_away(controls: &[Control]) -> bool {
    controls.iter().any(|control| control.exit == Exit::Unreachable)
}

async fn version(server: &PostgresServer) -> Result<Control> {
    let mut connection = server.connection().await?;
    let (number, text): (i32, String) = sqlx::query_as(
        "select current_setting('server_version_num')::int, current_setting('server_version')",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(|error| from_sqlx(error, "cannot read the version of alloydb"))?;
    let detail = format!("PostgreSQL {text} at {}", server.address());
    Ok(if number < VERSION_MIN {
        Control::failed("alloydb", format!("{detail} is older than 13"))
            .with_fix(Some("restore into a newer server"))
    } else {
        Control::ok("alloydb", detail)
    })
}

/// Exports a snapshot and imports it on a second connection, as a run does.
async fn snapshot(server: &PostgresServer) -> Control {
    const NAME: &str = "alloydb snapshot";
    let tried = async {
        let mut holder = server.connection().await?;
        let name = export(&mut holder).await?;
        let mut reader = server.connection().await?;
        let shared = import(&mut reader, &name).await;
        for connection in [&mut holder, &mut reader] {
            execute(connection, "rollback".into(), "cannot end a transaction").await?;
        }
        Ok::<_, Error>(shared)
    };
    match tried.await {
        Ok(Ok(())) => Control::ok(NAME, "can be exported and shared by all lanes"),
        Ok(Err(error)) => Control::unknown(
            NAME,
            format!("can be exported, not imported by another connection: {}", source_of(&error)),
        )
        .with_fix(Some(
            "connect without a pooler to one node; else every partition reads its own snapshot and a catch-up follows",
        )),
        Err(error) => Control::of_error(NAME, &error),
    }
}

async fn export(connection: &mut PgConnection) -> Result<String> {
    execute(connection, BEGIN.into(), "cannot begin a transaction").await?;
    sqlx::query_scalar("select pg_export_snapshot()")
        .fetch_one(connection)
        .await
        .map_err(|error| from_sqlx(error, "cannot export a snapshot"))
}

async fn import(connection: &mut PgConnection, name: &str) -> Result<()> {
    let statement = format!("{BEGIN}; set transaction snapshot '{name}'");
    execute(connection, statement, "cannot import a snapshot").await
}

async fn execute(connection: &mut PgConnection, sql: String, what: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| from_sqlx(error, what))
}

async fn identity(server: &PostgresServer) -> Control {
    const NAME: &str = "alloydb identity";
    let told = async {
        let mut connection = server.connection().await?;
        sqlx::query_scalar::<_, String>(
            "select format('system %s, timeline %s', s.system_identifier, c.timeline_id) \
             from pg_control_system() s, pg_control_checkpoint() c",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| from_sqlx(error, "the server does not tell its identity"))
    };
    match told.await {
        Ok(identity) => Control::ok(NAME, identity),
        Err(error) if error.kind().is_transient() => Control::of_error(NAME, &error),
        Err(error) => Control::unknown(
            NAME,
            format!("{}; a resumed run cannot tell that it is the same server and starts over", source_of(&error)),
        )
        .with_fix(Some(
            "grant execute on function pg_control_system(), pg_control_checkpoint() to the user of [alloydb]",
        )),
    }
}

async fn of_route(server: &PostgresServer, route: &Route) -> Vec<Control> {
    let name = format!("route {}", route.name);
    match describe_postgres(server, route).await {
        Err(errors) => errors
            .iter()
            .map(|error| Control::of_error(&name, &without_route(error, route)))
            .collect(),
        Ok(described) => {
            let readable = match readable(server, &described).await {
                Ok(()) => table(&name, &described),
                Err(error) => Control::of_error(&name, &error),
            };
            vec![readable, key(&name, &described), rows(&name, &described)]
        }
    }
}

/// The line begins with the route already.
fn without_route(error: &Error, route: &Route) -> Error {
    let text = error.to_string();
    let prefix = format!("route {}: ", route.name);
    let shaped = Error::new(error.kind(), text.strip_prefix(&prefix).unwrap_or(&text));
    let shaped = match error.hint() {
        Some(hint) => shaped.with_hint(hint),
        None => shaped,
    };
    match root(error) {
        Some(cause) => shaped.with_source(cause),
        None => shaped,
    }
}

/// The text of the innermost cause.
fn root(error: &Error) -> Option<String> {
    let mut next = std::error::Error::source(error)?;
    while let Some(cause) = next.source() {
        next = cause;
    }
    Some(next.to_string())
}

fn source_of(error: &Error) -> String {
    root(error).unwrap_or_else(|| error.to_string())
}

/// Asks for no row, so that permissions, columns and the plan's own SQL are checked and nothing is read.
async fn readable(server: &PostgresServer, described: &On<Shape>) -> Result<()> {
    let route = &described.bound.route;
    let columns: Vec<String> =
        described.bound.schema.columns.iter().map(|column| quoted(&column.name)).collect();
    let origin = match &route.origin {
        Origin::Table { schema, table, .. } => format!("{}.{}", quoted(schema), quoted(table)),
        Origin::Query { sql, .. } => format!("({sql}\n) as q"),
    };
    let filter =
        route.filter.as_ref().map(|filter| format!(" where ({filter}\n)")).unwrap_or_default();
    let sql = format!("select {} from {origin}{filter} limit 0", columns.join(", "));
    let mut connection = server.connection().await?;
    execute(&mut connection, sql, &format!("cannot read {}", described.shape.name)).await
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

fn table(name: &str, described: &On<Shape>) -> Control {
    let On { bound, shape } = described;
    let cut = match shape.cut(&bound.route) {
        Cut::Ctid => "read in ranges of blocks".to_owned(),
        Cut::Key => {
            format!("read in ranges of {}", bound.route.split_by.as_deref().unwrap_or("split_by"))
        }
        Cut::Whole => "read as one partition".to_owned(),
    };
    Control::ok(
        name,
        format!(
            "{} is readable, {} columns carried, {cut}",
            shape.name,
            bound.schema.columns.len()
        ),
    )
}

fn key(name: &str, described: &On<Shape>) -> Control {
    let bound = &described.bound;
    let template = bound.route.key.text();
    let detail = match &bound.route.on_collision {
        _ if bound.is_stream() => {
            format!("{template} is the prefix of streams, one of each partition")
        }
        _ if bound.is_many() => format!("{template} is made of many rows"),
        _ if bound.key_is_proven_unique => format!("{template} is unique by an index"),
        Some(OnCollision::Last { order_by }) => {
            format!("{template} is not proven unique; the last row by {order_by} wins")
        }
        Some(OnCollision::Error) => {
            format!("{template} is not proven unique; checked before the first write")
        }
        None => {
            return Control::failed(
                format!("{name}: key"),
                format!("{template} is not proven unique"),
            )
            .with_fix(Some("say on_collision = \"error\" or \"last\""));
        }
    };
    Control::ok(format!("{name}: key"), detail)
}

fn rows(name: &str, described: &On<Shape>) -> Control {
    let On { bound, shape } = described;
    let control = format!("{name}: rows");
    if let Some(rows) = shape.rows_estimate() {
        return Control::ok(
            control,
            format!("about {}, {} on disk", count(rows), bytes(shape.bytes())),
        );
    }
    let Origin::Table { schema, table, .. } = &bound.route.origin else {
        return Control::unknown(
            control,
            "a query has no estimate; neither has the time a run takes",
        );
    };
    if shape.relations.iter().any(|relation| relation.is_heap && relation.reltuples < 0.0) {
        return Control::unknown(control, format!("{} was never analysed", shape.name))
            .with_fix(Some(&format!("analyze {}.{}", quoted(schema), quoted(table))));
    }
    Control::unknown(
        control,
        "what is not a plain table has no estimate; neither has the time a run takes",
    )
}
