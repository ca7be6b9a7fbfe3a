//! Jobs and small queries.
//!
//! Invariant: a job's id is its idempotency key: asking for the same id again attaches to the job that is there.

use super::BigQuery;
use super::failure::Refusal;
use super::rest::{Answer, Call};
use crate::error::{Error, Kind, Result};
use crate::policy;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const POLL_MIN: Duration = Duration::from_millis(100);
const POLL_MAX: Duration = Duration::from_secs(5);
/// How long one call may wait for a query, milliseconds: less than an answer may take.
fn query_wait_ms() -> u64 {
    u64::try_from((policy::answer_max() / 2).as_millis()).unwrap_or(u64::MAX)
}

/// Rows of a small query, cells as REST writes them: strings, `null`, or nested `{"f": [..]}` and `[{"v": ..}]`.
pub type QueryRows = Vec<Vec<Value>>;

/// A statement and its named parameters: name, BigQuery type, value as text.
#[derive(Debug, Clone, Copy)]
pub struct JobStatement<'a> {
    /// `GoogleSQL`.
    pub sql: &'a str,
    /// Scalar parameters.
    pub parameters: &'a [(&'a str, &'a str, &'a str)],
    /// Where it runs; by default the plan's location.
    pub location: Option<&'a str>,
}

impl<'a> JobStatement<'a> {
    /// A statement without parameters, at the plan's location.
    pub fn new(sql: &'a str) -> Self {
        Self { sql, parameters: &[], location: None }
    }
}

impl BigQuery {
    /// Runs a job to its end and returns its resource.
    ///
    /// `id` is the idempotency key: where a job of this id is there, it is waited for instead and `configuration` is
    /// not looked at. `configuration` is that of `jobs.insert`, for example `{"query": {…}}`.
    pub async fn run_job(
        &self,
        id: &str,
        configuration: &Value,
        location: Option<&str>,
    ) -> Result<Value> {
        let location = location.or(self.location());
        let what = format!("job {id} of bigquery failed");
        let mut reference = json!({"projectId": self.project(), "jobId": id});
        if let Some(location) = location {
            reference["location"] = location.into();
        }
        let body = json!({"jobReference": reference, "configuration": configuration});
        let call = Call {
            method: Method::POST,
            path: "jobs".to_owned(),
            query: &[],
            body: Some(&body),
            what: &what,
        };
        let mut job = match self.try_ask(call).await? {
            Answer::Body(job) => job,
            Answer::Refused { refusal, .. } if refusal.is_duplicate() => {
                self.job(id, location).await?.ok_or_else(|| refusal.into_error(&what))?
            }
            Answer::Refused { refusal, .. } => return Err(refusal.into_error(&what)),
        };
        // The service tells where it put a job whose location was left to it.
        let place =
            job.pointer("/jobReference/location").and_then(Value::as_str).map(str::to_owned);
        let location = location.map(str::to_owned).or(place);
        let mut pause = POLL_MIN;
        while job.pointer("/status/state").and_then(Value::as_str) != Some("DONE") {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
            job = self.job(id, location.as_deref()).await?.ok_or_else(|| {
                Error::new(Kind::Unavailable, format!("job {id} of bigquery is gone"))
                    .with_hint("run the same command again")
            })?;
        }
        match job.pointer("/status/errorResult") {
            Some(error) if !error.is_null() => Err(Refusal::of_job(error).into_error(&what)),
            _ => Ok(job),
        }
    }

    /// Returns the resource of a job, or `None` where there is none of this id in this location.
    pub async fn job(&self, id: &str, location: Option<&str>) -> Result<Option<Value>> {
        let query = [("location", location.unwrap_or_default())];
        self.find(Call {
            method: Method::GET,
            path: format!("jobs/{id}"),
            query: if location.is_some() { &query } else { &[] },
            body: None,
            what: &format!("cannot read job {id} of bigquery"),
        })
        .await
    }

    /// Runs a query whose result is small and returns its rows. Times come as microseconds since 1970.
    pub async fn query_rows(&self, statement: &JobStatement<'_>) -> Result<QueryRows> {
        let what = "a query of bigquery failed";
        let mut body = json!({
            "query": statement.sql,
            "useLegacySql": false,
            "timeoutMs": query_wait_ms(),
            "formatOptions": {"useInt64Timestamp": true},
        });
        if let Some(location) = statement.location.or(self.location()) {
            body["location"] = location.into();
        }
        if let Some(limit) = self.max_bytes_billed() {
            body["maximumBytesBilled"] = limit.to_string().into();
        }
        if !statement.parameters.is_empty() {
            body["parameterMode"] = "NAMED".into();
            body["queryParameters"] = parameters(statement.parameters);
        }
        let call = Call {
            method: Method::POST,
            path: "queries".to_owned(),
            query: &[],
            body: Some(&body),
            what,
        };
        let mut page = self.ask(call).await?;
        let job = page.pointer("/jobReference/jobId").and_then(Value::as_str).map(str::to_owned);
        let place = page.pointer("/jobReference/location").and_then(Value::as_str);
        let place = place.map(str::to_owned).or(statement.location.map(str::to_owned));
        let mut rows = Vec::new();
        loop {
            rows.extend(page_rows(&mut page));
            let token =
                page.get("pageToken").and_then(Value::as_str).filter(|token| !token.is_empty());
            let is_complete = page.get("jobComplete").and_then(Value::as_bool).unwrap_or(true);
            if is_complete && token.is_none() {
                return Ok(rows);
            }
            let Some(job) = &job else {
                return Err(Error::new(
                    Kind::Unavailable,
                    "a query of bigquery has no job to wait for",
                ));
            };
            let wait = query_wait_ms().to_string();
            let mut query =
                vec![("timeoutMs", wait.as_str()), ("formatOptions.useInt64Timestamp", "true")];
            query.extend(token.map(|token| ("pageToken", token)));
            query.extend(place.as_deref().map(|place| ("location", place)));
            let call = Call {
                method: Method::GET,
                path: format!("queries/{job}"),
                query: &query,
                body: None,
                what,
            };
            page = self.ask(call).await?;
        }
    }

    /// Returns how many bytes a statement would read, without running it.
    pub async fn dry_run(&self, statement: &JobStatement<'_>) -> Result<u64> {
        let job = self.dry_run_job(statement).await?;
        let bytes = job.pointer("/statistics/totalBytesProcessed").and_then(Value::as_str);
        Ok(bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(0))
    }

    /// Returns the resource of the job that a statement would be: its schema and bytes, without running it.
    pub async fn dry_run_job(&self, statement: &JobStatement<'_>) -> Result<Value> {
        let mut query = json!({"query": statement.sql, "useLegacySql": false});
        if !statement.parameters.is_empty() {
            query["parameterMode"] = "NAMED".into();
            query["queryParameters"] = parameters(statement.parameters);
        }
        let mut body = json!({"configuration": {"dryRun": true, "query": query}});
        if let Some(location) = statement.location.or(self.location()) {
            body["jobReference"] = json!({"projectId": self.project(), "location": location});
        }
        let call = Call {
            method: Method::POST,
            path: "jobs".to_owned(),
            query: &[],
            body: Some(&body),
            what: "a query of bigquery was refused",
        };
        self.ask(call).await
    }
}

fn parameters(parameters: &[(&str, &str, &str)]) -> Value {
    let parameter = |(name, kind, value): &(&str, &str, &str)| json!({"name": name, "parameterType": {"type": kind}, "parameterValue": {"value": value}});
    Value::Array(parameters.iter().map(parameter).collect())
}

fn page_rows(page: &mut Value) -> QueryRows {
    let Some(Value::Array(rows)) = page.get_mut("rows").map(Value::take) else { return Vec::new() };
    let cell = |mut cell: Value| cell.get_mut("v").map(Value::take).unwrap_or_default();
    rows.into_iter()
        .map(|mut row| match row.get_mut("f").map(Value::take) {
            Some(Value::Array(cells)) => cells.into_iter().map(cell).collect(),
            _ => Vec::new(),
        })
        .collect()
}
