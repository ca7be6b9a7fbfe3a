//! Query routes: a job writes the result to a table of the run, which is then read like any other.
//!
//! Invariant: job and table are named after run and route, so a resume finds the very rows it began with; a query is
//! run a second time only when its table is gone.

use super::BigQueryServer;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{Point, pass};
use serde_json::{Value, json};

/// How long a result is kept.
const EXPIRY_MS: i64 = 7 * 24 * 3_600_000;
/// Times a run may write a query's result.
const RESULTS_MAX: usize = 20;

/// A result that was written.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    pub(super) dataset: String,
    pub(super) table: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// The error of reading a result before it is there.
pub(super) fn not_yet(route: &str) -> Error {
    Error::new(Kind::Internal, format!("the query of route {route} was not run yet"))
}

/// Finds the result of a route's query, or runs the query.
pub(super) async fn stage(
    server: &BigQueryServer,
    route: &str,
    sql: &str,
    run_id: &str,
) -> Result<Staged> {
    let bigquery = server.bigquery();
    let dataset = server.staging_dataset().unwrap_or_default();
    let Some(facts) = bigquery.dataset(dataset).await? else {
        let message = format!("staging_dataset {dataset} of [bigquery] does not exist");
        return Err(Error::new(Kind::Config, message)
            .with_hint(format!("bq mk --location <location> {}:{dataset}", bigquery.project())));
    };
    let location = bigquery.location().unwrap_or(&facts.location).to_owned();
    for number in 0..RESULTS_MAX {
        let table = name(run_id, route, number);
        let known = bigquery.job(&table, Some(&location)).await?;
        let is_done =
            known.as_ref().is_some_and(|job| job.pointer("/status/state") == Some(&json!("DONE")));
        if is_done && !is_good(known.as_ref()) {
            continue;
        }
        if is_done && bigquery.table(dataset, &table).await?.is_none() {
            tracing::warn!(
                route,
                table,
                "the result of the query has expired; the query is run again"
            );
            continue;
        }
        let configuration =
            configuration(bigquery.project(), dataset, &table, sql, bigquery.max_bytes_billed());
        bigquery.run_job(&table, &configuration, Some(&location)).await?;
        pass(Point::QueryStaged);
        return keep(server, dataset, table).await;
    }
    let message = format!("the query of route {route} failed {RESULTS_MAX} times in this run");
    Err(Error::new(Kind::Config, message).with_hint("mend the query, then: rekindle plan"))
}

fn is_good(job: Option<&Value>) -> bool {
    job.and_then(|job| job.pointer("/status/errorResult")).is_none_or(Value::is_null)
}

/// Gives the result its expiry, in case the run never ends, and counts it.
async fn keep(server: &BigQueryServer, dataset: &str, table: String) -> Result<Staged> {
    let bigquery = server.bigquery();
    let Some(found) = bigquery.table(dataset, &table).await? else {
        return Err(Error::new(
            Kind::Unavailable,
            format!("the result {dataset}.{table} is not there"),
        )
        .with_hint("run the same command again"));
    };
    let number = |name: &str| found[name].as_str().and_then(|text| text.parse::<i64>().ok());
    if number("expirationTime").is_none() {
        let expires_ms = number("creationTime").unwrap_or(0) + EXPIRY_MS;
        let change = json!({"expirationTime": expires_ms.to_string()});
        bigquery.patch_table(dataset, &table, &change).await?;
    }
    let size = |name: &str| number(name).and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
    Ok(Staged {
        dataset: dataset.to_owned(),
        rows: size("numRows"),
        bytes: size("numBytes"),
        table,
    })
}

fn configuration(
    project: &str,
    dataset: &str,
    table: &str,
    sql: &str,
    max_bytes_billed: Option<u64>,
) -> Value {
    let mut query = json!({
        "query": sql,
        "useLegacySql": false,
        "destinationTable": {"projectId": project, "datasetId": dataset, "tableId": table},
        "createDisposition": "CREATE_IF_NEEDED",
        // A table that another attempt of the same job wrote is not written over.
        "writeDisposition": "WRITE_EMPTY",
    });
    if let Some(limit) = max_bytes_billed {
        query["maximumBytesBilled"] = limit.to_string().into();
    }
    json!({ "query": query })
}

/// Letters, digits and underscores only, and different for different routes.
fn name(run_id: &str, route: &str, number: usize) -> String {
    let plain: String =
        route.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(60).collect();
    let run: String = run_id.chars().filter(char::is_ascii_alphanumeric).collect();
    let hash = schemas::key::key_hash(route.as_bytes()) >> 96;
    format!("rekindle_{run}_{plain}_{hash:08x}_{number}")
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_are_the_same_each_time_and_differ_by_route() {
        assert_eq!(name("a-b", "r.1", 0), name("a-b", "r.1", 0));
        assert_ne!(name("a-b", "r.1", 0), name("a-b", "r-1", 0));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name("0199-aa", "r.1-x", 3).chars().all(is_plain));
    }
}
