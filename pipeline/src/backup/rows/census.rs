//! The census of a row route: rows of the table at the pinned time, keys in Redis by a gentle SCAN.
//!
//! Invariant: Redis is looked at after the pinned time, each key is counted once, and rows that were to expire before
//! the look was over are not expected; so rows that are counted as lacking are.

use super::super::buffer::every_row;
use super::{RowTable, expiry};
use crate::lane::now_ms;
use crate::spool::Search;
use schemas::manifest::Census;
use serde_json::Value;
use stages::connect::bigquery::{BigQuery, JobStatement};
use stages::extract::redis_rows::{Held, RedisRows};
use stages::{Error, Kind, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Clocks of BigQuery, of Redis and of this machine are not the same.
const CLOCKS_US: i64 = 5_000_000;

/// Counts both sides. `folder` takes the sorted keys meanwhile.
pub(crate) async fn take(
    table: &RowTable,
    rows: &RedisRows,
    bigquery: &BigQuery,
    (snapshot_us, folder): (i64, &Path),
    (retry_for, cancel): (Duration, &CancellationToken),
) -> Result<Census> {
    let search = Search { rows, held: table.held, template: &table.route.key, retry_for, cancel };
    let path = folder.join(format!("{}.census", table.route.name));
    let looked = search.collect(&path).await?;
    fs::remove_file(&path).map_err(|error| crate::ledger::io_error("remove", &path, error))?;
    let alive_us = now_ms() * 1_000 + CLOCKS_US;
    let all = count(bigquery, table, snapshot_us, alive_us).await?;
    let distinct_keys = match table.held {
        Held::Streams => None,
        Held::Hashes | Held::Texts => Some(distinct(bigquery, table, snapshot_us, alive_us).await?),
    };
    let is_stream = table.held == Held::Streams;
    Ok(Census {
        rows: all,
        distinct_keys,
        keys: looked.facts.records,
        entries: is_stream.then_some(looked.facts.entries),
        key_bytes: looked.facts.key_bytes,
        unfit_keys: looked.unfit,
        complete_us: None,
    })
}

/// `FROM … WHERE …` of the rows that redis should hold.
fn from(bigquery: &BigQuery, table: &RowTable, snapshot_us: i64, alive_us: i64) -> String {
    let mut sql = format!(
        "FROM `{}`.`{}`.`{}` FOR SYSTEM_TIME AS OF TIMESTAMP_MICROS({snapshot_us})",
        bigquery.project(),
        table.dataset,
        table.name
    );
    let partitioning = table.source.as_ref().map(|source| &source.partitioning);
    let mut conditions: Vec<String> = partitioning.and_then(every_row).into_iter().collect();
    if let Some((column, added_us)) = expiry(&table.route) {
        let fields = table.source.iter().flat_map(|source| {
            source
                .record
                .resource
                .pointer("/schema/fields")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        });
        let mut fields = fields.filter(|field| field["name"].as_str() == Some(column));
        let is_timestamp =
            fields.next().and_then(|field| field["type"].as_str()) == Some("TIMESTAMP");
        let time =
            if is_timestamp { format!("`{column}`") } else { format!("TIMESTAMP(`{column}`)") };
        let bound = alive_us.saturating_sub(added_us);
        conditions.push(format!("(`{column}` IS NULL OR {time} > TIMESTAMP_MICROS({bound}))"));
    }
    if !conditions.is_empty() {
        sql = format!("{sql} WHERE {}", conditions.join(" AND "));
    }
    sql
}

async fn count(
    bigquery: &BigQuery,
    table: &RowTable,
    snapshot_us: i64,
    alive_us: i64,
) -> Result<u64> {
    let sql = format!("SELECT COUNT(*) AS n {}", from(bigquery, table, snapshot_us, alive_us));
    ask(bigquery, table, &sql).await
}

/// Counts the keys that the rows make.
async fn distinct(
    bigquery: &BigQuery,
    table: &RowTable,
    snapshot_us: i64,
    alive_us: i64,
) -> Result<u64> {
    let columns = table.route.key.lossless_columns();
    let columns: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
    let columns = columns.join(", ");
    let from = from(bigquery, table, snapshot_us, alive_us);
    let sql =
        format!("SELECT COUNT(*) AS n FROM (SELECT {columns} {from} GROUP BY {columns}) AS k");
    ask(bigquery, table, &sql).await
}

async fn ask(bigquery: &BigQuery, table: &RowTable, sql: &str) -> Result<u64> {
    let location = bigquery.location_of(&table.dataset).await?;
    let statement = JobStatement { sql, parameters: &[], location: location.as_deref() };
    let rows = bigquery.query_rows(&statement).await?;
    let cell = rows.first().and_then(|row| row.first());
    cell.and_then(|cell| cell.as_u64().or_else(|| cell.as_str()?.parse().ok())).ok_or_else(|| {
        let message = format!("bigquery did not count the rows of {}", table.full_name());
        Error::new(Kind::Internal, message)
    })
}
