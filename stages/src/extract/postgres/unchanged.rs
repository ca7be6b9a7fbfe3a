//! Whether parts of a table have the very rows that were read of them under an earlier snapshot.
//!
//! Invariant: a part is called unchanged only where every row version in it is older than that snapshot, and there are
//! as many as were read. A row version never changes, and one that was deleted never comes back, so the rows of now are
//! among those of then; where they are as many, they are the same ones.

use super::shape::{Cut, Shape};
use super::snapshot::PostgresServer;
use super::sql::{changed_since, ctid_range, from_origin, key_range, literal};
use crate::connect::postgres::from_sqlx;
use crate::error::Result;
use crate::extract::{ReadBefore, Snapshot};
use schemas::plan::Origin;
use schemas::{BoundRoute, Bounds};
use sqlx::{AssertSqlSafe, Row};

/// Parts that one read of the table counts.
const PARTS_MAX: usize = 100;

/// Whether the rows of a route tell: they are those of a table, all of them. A condition may ask for the time, or for
/// other tables.
///
/// Rows with keys of their own are caught up with instead, unless each may be written `once` only.
pub(super) fn is_told(bound: &BoundRoute, shape: &Shape, once: bool) -> bool {
    let route = &bound.route;
    let is_table = shape.is_heap() && matches!(route.origin, Origin::Table { .. });
    let is_in_blocks = once && shape.cut(route) == Cut::Ctid && !bound.is_stream();
    (bound.is_many() || is_in_blocks) && is_table && route.filter.is_none()
}

/// Tells of each part whether it is unchanged, and the snapshot that shows it; `None` where a policy decides which rows
/// are seen, because it may ask for anything too.
pub(super) async fn unchanged(
    server: &PostgresServer,
    bound: &BoundRoute,
    parts: &[ReadBefore<'_>],
) -> Result<Option<(Snapshot, Vec<bool>)>> {
    let route = &bound.route;
    let table = from_origin(route);
    let what = format!("cannot look at the rows of route {} again", route.name);
    let failed = |error| from_sqlx(error, &what);
    let mut transaction = server.begin().await?;
    let mut tables = vec![&table];
    tables.extend(parts.iter().filter_map(|part| relation_of(part)));
    tables.sort_unstable();
    tables.dedup();
    let guards: Vec<String> = tables
        .iter()
        .map(|table| format!("row_security_active({}::regclass)", literal(table)))
        .collect();
    let guarded = format!("select {}", guards.join(" or "));
    let is_guarded: bool = sqlx::query_scalar(AssertSqlSafe(guarded))
        .fetch_one(&mut *transaction.connection)
        .await
        .map_err(failed)?;
    let mut same = Vec::with_capacity(parts.len());
    // A range of blocks is scanned by itself; ranges of a key are counted together in one read of the table.
    let (at_once, is_in_blocks) = match parts.first().map(|part| relation_of(part).is_some()) {
        Some(true) => (1, true),
        _ => (PARTS_MAX, false),
    };
    for parts in parts.chunks(at_once).filter(|_| !is_guarded) {
        let sql = if is_in_blocks {
            parts.iter().map(counted_in_blocks).collect()
        } else {
            let counts: Vec<String> = parts.iter().map(|part| counted(bound, part)).collect();
            format!("select {} from {table}", counts.join(", "))
        };
        let row = sqlx::query(AssertSqlSafe(sql));
        let row = row.fetch_one(&mut *transaction.connection).await.map_err(failed)?;
        for (place, part) in parts.iter().enumerate() {
            let rows: i64 = row.try_get(2 * place).map_err(failed)?;
            let changed: i64 = row.try_get(2 * place + 1).map_err(failed)?;
            same.push(changed == 0 && u64::try_from(rows) == Ok(part.rows));
        }
    }
    let snapshot = transaction.snapshot.clone();
    transaction.commit().await.map_err(failed)?;
    Ok((!is_guarded).then_some((snapshot, same)))
}

/// The table whose blocks a part is.
fn relation_of<'a>(part: &ReadBefore<'a>) -> Option<&'a String> {
    match part.bounds {
        Bounds::Ctid { relation, .. } => Some(relation),
        _ => None,
    }
}

/// The same as [`counted`] of a range of blocks, which only these are read for.
fn counted_in_blocks(part: &ReadBefore<'_>) -> String {
    let relation = relation_of(part).map_or("", String::as_str);
    let range = ctid_range(part.bounds, None).join(" and ");
    let changed = changed_since(part.xmin);
    format!("select count(*), count(*) filter (where {changed}) from only {relation} where {range}")
}

/// Counts the rows of a part, and those of them that the earlier snapshot may not have seen.
fn counted(bound: &BoundRoute, part: &ReadBefore<'_>) -> String {
    let mut conditions = key_range(bound, part.bounds, &schemas::Position::Start);
    conditions.push("true".to_owned());
    let range = conditions.join(" and ");
    let changed = changed_since(part.xmin);
    format!("count(*) filter (where {range}), count(*) filter (where {range} and {changed})")
}
