//! Cuts what a route reads into partitions.
//!
//! Invariant: the partitions of one cut cover every row exactly once under one snapshot: ranges touch,
//! the outer ends are open, equal `split_by` values are never separated, nulls have a partition of their own.

use super::order;
use super::shape::{Cut, Relation, Shape};
use super::snapshot::PostgresServer;
use super::sql::{from_origin, literal, quote};
use crate::connect::postgres::from_sqlx;
use crate::error::Result;
use schemas::{BoundRoute, Bounds, Partition, PartitionId};
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// A partition is cut no smaller than this, so that its own cost (a transaction, two commits) stays small.
const PARTITION_BYTES_MIN: i64 = 4 * 1024 * 1024;
/// And no larger, so that a retry of it is bounded.
const PARTITION_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// Rows looked at, about, to cut a table by the values of a column.
const SAMPLE_ROWS: u64 = 50_000;
/// Blocks read at each end of a range to guess its newest row.
const SAMPLE_BLOCKS: u32 = 2;
/// Assumed row size where a table was never analysed; orders and progress only.
const ROW_BYTES_GUESS: f64 = 150.0;

pub(super) async fn partitions(
    server: &PostgresServer,
    bound: &BoundRoute,
    shape: &Shape,
    wanted: usize,
    first: usize,
) -> Result<Vec<Partition>> {
    let mut transaction = server.begin().await?;
    let mut cut = match shape.cut(&bound.route) {
        Cut::Ctid => by_ctid(shape, wanted),
        Cut::Key => by_key(&mut transaction.connection, bound, shape, wanted).await?,
        Cut::Whole => vec![(Bounds::Whole, shape.rows_estimate().unwrap_or(0), shape.bytes())],
    };
    // An empty table still has a partition, so that the route is begun, counted and finished like any other.
    if cut.is_empty() {
        cut.push((Bounds::Whole, 0, 0));
    }
    let mut partitions = Vec::with_capacity(cut.len());
    for (index, (bounds, rows_estimate, bytes_estimate)) in cut.into_iter().enumerate() {
        let newest_us = newest(&mut transaction.connection, bound, shape, &bounds).await?;
        partitions.push(Partition {
            id: PartitionId(format!("{}/{}", bound.route.name, first + index)),
            route: bound.route.name.clone(),
            bounds,
            rows_estimate,
            bytes_estimate,
            newest_us,
        });
    }
    transaction
        .commit()
        .await
        .map_err(|error| from_sqlx(error, "cannot end the planning transaction"))?;
    Ok(partitions)
}

pub(super) fn catch_up(route: &str, shape: &Shape, since_xid: u64, first: usize) -> Vec<Partition> {
    shape
        .relations
        .iter()
        .enumerate()
        .map(|(index, relation)| Partition {
            id: PartitionId(format!("{route}/{}", first + index)),
            route: route.to_owned(),
            bounds: Bounds::ChangedSince { relation: relation.name.clone(), since_xid },
            rows_estimate: 0,
            bytes_estimate: 0,
            newest_us: None,
        })
        .collect()
}

type Sized = (Bounds, u64, u64);

fn by_ctid(shape: &Shape, wanted: usize) -> Vec<Sized> {
    let total: i64 = shape.relations.iter().map(|relation| relation.bytes).sum();
    let wanted = i64::try_from(wanted.max(1)).unwrap_or(1);
    let size = (total / wanted).clamp(PARTITION_BYTES_MIN, PARTITION_BYTES_MAX);
    let blocks = u32::try_from(size / shape.block_size).unwrap_or(u32::MAX).max(1);
    shape.relations.iter().flat_map(|relation| ranges(relation, shape.block_size, blocks)).collect()
}

fn ranges(relation: &Relation, block_size: i64, step: u32) -> Vec<Sized> {
    let end = u32::try_from(relation.bytes / block_size).unwrap_or(u32::MAX).max(1);
    let rows = if relation.reltuples >= 0.0 {
        relation.reltuples
    } else {
        relation.bytes as f64 / ROW_BYTES_GUESS
    };
    let mut cut = Vec::new();
    let mut from = 0;
    while from < end {
        // A last range below half a step joins its neighbour.
        let is_last = u64::from(end - from) < u64::from(step) + u64::from(step) / 2;
        let to = if is_last { end } else { from + step };
        let share = f64::from(to - from) / f64::from(end);
        let relation_name = relation.name.clone();
        let bounds = Bounds::Ctid {
            relation: relation_name,
            from_block: from,
            to_block: (!is_last).then_some(to),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "estimates, not negative"
        )]
        cut.push((bounds, (rows * share) as u64, (relation.bytes as f64 * share) as u64));
        from = to;
    }
    cut
}

/// Cuts by exact quantiles of `split_by`; equal values fall on one side of a cut by construction.
async fn by_key(
    connection: &mut PgConnection,
    bound: &BoundRoute,
    shape: &Shape,
    wanted: usize,
) -> Result<Vec<Sized>> {
    let route = &bound.route;
    let column = quote(bound.cut_by().unwrap_or_default());
    let exact = order::cut(bound);
    let filter =
        route.filter.as_ref().map(|filter| format!(" where ({filter}\n)")).unwrap_or_default();
    let wanted = order::partitions(connection, bound, shape, wanted).await?;
    let sampled = Sampled::of(shape);
    let shares: Vec<String> =
        (1..wanted.max(1)).map(|n| format!("{:.6}", n as f64 / wanted as f64)).collect();
    let cuts = if shares.is_empty() {
        "null::text[]".to_owned()
    } else {
        format!(
            "(percentile_disc(array[{}]) within group (order by {exact}))::text[]",
            shares.join(", ")
        )
    };
    let sql = format!(
        "select {cuts}, count({column}), count(*) from {}{}{filter}",
        from_origin(route),
        sampled.clause()
    );
    let failed = |error| from_sqlx(error, &format!("cannot cut route {} by split_by", route.name));
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(failed)?;
    let cuts: Option<Vec<Option<String>>> = row.try_get(0).map_err(failed)?;
    let keyed: i64 = row.try_get(1).map_err(failed)?;
    let all: i64 = row.try_get(2).map_err(failed)?;
    let mut values: Vec<String> = cuts.unwrap_or_default().into_iter().flatten().collect();
    values.dedup();
    let ranges = values.len() as u64 + 1;
    let (keyed, nulls) = (sampled.scaled(keyed), sampled.scaled(all - keyed));
    let rows = keyed / ranges;
    let bytes = if shape.is_heap() { shape.bytes() / ranges } else { rows * 150 };
    let mut cut = Vec::new();
    let mut from = None;
    for to in values.into_iter().map(Some).chain([None]) {
        cut.push((Bounds::Key { from: from.clone(), to: to.clone() }, rows, bytes));
        from = to;
    }
    // The null partition is always there: a null may appear before a later snapshot.
    cut.push((Bounds::KeyNull, nulls, 0));
    Ok(cut)
}

/// The share of a table that is looked at to cut it: ranges need not be equal, and their ends are open.
#[derive(Debug, Clone, Copy)]
struct Sampled {
    /// Percent of the blocks; `None` where everything is read.
    percent: Option<f64>,
}

impl Sampled {
    /// Only what is stored in a heap can be sampled.
    fn of(shape: &Shape) -> Self {
        let rows = shape.rows_estimate().filter(|rows| *rows > 2 * SAMPLE_ROWS);
        Self { percent: rows.map(|rows| 100.0 * SAMPLE_ROWS as f64 / rows as f64) }
    }

    fn clause(self) -> String {
        self.percent
            .map(|percent| format!(" tablesample system ({percent:.6})"))
            .unwrap_or_default()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, not negative"
    )]
    fn scaled(self, rows: i64) -> u64 {
        (rows.max(0) as f64 * 100.0 / self.percent.unwrap_or(100.0)) as u64
    }
}

/// Guesses the newest `newest_by` value of a range from a few blocks at its ends. Orders partitions only.
async fn newest(
    connection: &mut PgConnection,
    bound: &BoundRoute,
    shape: &Shape,
    bounds: &Bounds,
) -> Result<Option<i64>> {
    let Some(name) = &bound.route.newest_by else { return Ok(None) };
    let Some(column) = shape.columns.iter().find(|column| &column.name == name) else {
        return Ok(None);
    };
    let quoted = quote(name);
    let value = match column.pg_type.name.as_str() {
        "timestamptz" | "timestamp" | "date" => {
            format!("(extract(epoch from max({quoted})) * 1000000)::bigint")
        }
        _ => format!("max({quoted})::bigint"),
    };
    let sample = match bounds {
        Bounds::Ctid { relation, from_block, to_block } => {
            let end = to_block.unwrap_or_else(|| relation_end(shape, relation));
            let tail = end.saturating_sub(SAMPLE_BLOCKS).max(*from_block);
            let head = from_block.saturating_add(SAMPLE_BLOCKS);
            format!(
                "select {quoted} from only {relation} where ctid >= '({from_block},0)' and ctid < '({head},0)' \
                 union all select {quoted} from only {relation} where ctid >= '({tail},0)' and ctid < '({end},0)'"
            )
        }
        Bounds::Key { to: Some(to), .. } if bound.route.split_by.as_ref() == Some(name) => {
            format!("select {}::{} as {quoted}", literal(to), column.type_name)
        }
        Bounds::Key { to: None, .. } if bound.route.split_by.as_ref() == Some(name) => {
            return Ok(Some(i64::MAX));
        }
        _ => return Ok(None),
    };
    sqlx::query_scalar(AssertSqlSafe(format!("select {value} from ({sample}) s")))
        .fetch_one(connection)
        .await
        .map_err(|error| {
            from_sqlx(error, &format!("cannot sample newest_by of route {}", bound.route.name))
        })
}

fn relation_end(shape: &Shape, name: &str) -> u32 {
    let bytes = shape.relations.iter().find(|r| r.name == name).map_or(0, |r| r.bytes);
    u32::try_from(bytes / shape.block_size).unwrap_or(u32::MAX)
}
