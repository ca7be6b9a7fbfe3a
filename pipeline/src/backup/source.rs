//! What BigQuery has of a table: its resource, its table partitions, and the clock that everything is pinned to.
//!
//! Invariant: the pinned time is taken before the table partitions are listed, so a change in between makes its table
//! partition look newer than its copy, never older.

use super::cut::{Partitioning, UNPARTITIONED};
use super::decide::InSource;
use crate::share::Share;
use schemas::manifest::TableRecord;
use serde_json::Value;
use stages::connect::bigquery::{BigQuery, JobStatement};
use stages::{Error, Kind, Result};

/// A table as it is now.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// What is recorded of it.
    pub record: TableRecord,
    /// How it is cut.
    pub partitioning: Partitioning,
    /// Its table partitions; for a table without them one, [`UNPARTITIONED`].
    pub partitions: Vec<InSource>,
    /// Whether its resource tells of a streaming buffer.
    pub has_buffer: bool,
}

impl SourceTable {
    /// Leaves table partitions that together hold this part of the rows, spread evenly over their names.
    pub(crate) fn thin(&mut self, share: Share) {
        self.partitions.sort_by(|a, b| a.id.cmp(&b.id));
        let all = std::mem::take(&mut self.partitions);
        self.partitions = share.of_all(all, |partition| partition.rows);
    }
}

/// Returns the time of BigQuery's clock, microseconds since 1970.
pub async fn now_us(bigquery: &BigQuery) -> Result<i64> {
    let rows =
        bigquery.query_rows(&JobStatement::new("SELECT UNIX_MICROS(CURRENT_TIMESTAMP())")).await?;
    let cell = rows.first().and_then(|row| row.first()).and_then(integer);
    cell.ok_or_else(|| Error::new(Kind::Internal, "bigquery did not tell its time"))
}

/// Reads what there is of a table, or `None` where there is no such table.
pub async fn inspect(
    bigquery: &BigQuery,
    dataset: &str,
    table: &str,
) -> Result<Option<SourceTable>> {
    let Some(resource) = bigquery.table(dataset, table).await? else { return Ok(None) };
    let incomplete = || {
        Error::new(
            Kind::Internal,
            format!("bigquery tells too little about table {dataset}.{table}"),
        )
    };
    if let Some(kind) = resource["type"].as_str().filter(|kind| *kind != "TABLE") {
        let message = format!("{dataset}.{table} is a {kind}; blocks duplicate tables");
        return Err(
            Error::new(Kind::Config, message).with_hint("name a table, then: rekindle plan")
        );
    }
    let partitioning = Partitioning::of(&resource)?;
    let mut record = TableRecord::new(dataset, table, &resource).ok_or_else(incomplete)?;
    match bigquery.table_iam_policy(dataset, table).await {
        Ok(policy) => record.iam_policy = Some(without_etag(policy)),
        Err(error) => note_unreadable(&mut record, "iam_policy", error)?,
    }
    match bigquery.row_access_policies(dataset, table).await {
        Ok(policies) => {
            record.row_access_policies =
                Some(Value::Array(policies.into_iter().map(without_etag).collect()));
        }
        Err(error) => note_unreadable(&mut record, "row_access_policies", error)?,
    }
    let partitions = list(bigquery, dataset, table, &partitioning).await?;
    let has_buffer = resource.get("streamingBuffer").is_some_and(|buffer| !buffer.is_null());
    Ok(Some(SourceTable { record, partitioning, partitions, has_buffer }))
}

/// What an account may not see, and what a server does not know, is named instead of recorded.
fn note_unreadable(record: &mut TableRecord, what: &str, error: Error) -> Result<()> {
    if error.kind().is_transient() {
        return Err(error);
    }
    tracing::info!(%error, table = %record.table, what, "cannot be recorded");
    record.unreadable.push(what.to_owned());
    Ok(())
}

fn without_etag(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        for moving in ["etag", "creationTime", "lastModifiedTime"] {
            object.remove(moving);
        }
    }
    value
}

async fn list(
    bigquery: &BigQuery,
    dataset: &str,
    table: &str,
    partitioning: &Partitioning,
) -> Result<Vec<InSource>> {
    // Names of tables hold no quotes and no backslashes.
    let sql = format!(
        "SELECT partition_id, total_rows, total_logical_bytes, UNIX_MICROS(last_modified_time) \
         FROM `{}`.`{dataset}`.INFORMATION_SCHEMA.PARTITIONS WHERE table_name = '{table}'",
        bigquery.project()
    );
    let location = bigquery.location_of(dataset).await?;
    let statement = JobStatement { sql: &sql, parameters: &[], location: location.as_deref() };
    let rows = bigquery.query_rows(&statement).await?;
    rows.iter()
        .map(|row| {
            let cell = |at: usize| row.get(at).unwrap_or(&Value::Null);
            let id = cell(0).as_str().unwrap_or(UNPARTITIONED);
            let count = |at: usize| integer(cell(at)).and_then(|n| u64::try_from(n).ok());
            Ok(InSource {
                id: id.to_owned(),
                rows: count(1).unwrap_or(0),
                bytes: count(2).unwrap_or(0),
                last_modified_us: integer(cell(3)).ok_or_else(|| {
                    Error::new(
                        Kind::Internal,
                        format!("bigquery does not tell when {dataset}.{table}${id} was changed"),
                    )
                })?,
                expires_us: partitioning.expires_us(id),
            })
        })
        .collect()
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}
