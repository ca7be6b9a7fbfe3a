//! From staging into the destination: one copy, one copy per table partition, or one statement that fills rows.
//!
//! Invariant: a job's id is journaled before BigQuery is asked; a job that failed had no effect, and the next one for
//! the same purpose has another id. So each purpose takes effect at most once.

use super::choose::UNPARTITIONED;
use super::stage::JobStage;
use super::table::{Part, Table, Way, to_json};
use super::{Shared, quoted, target};
use crate::journal::JobRecord;
use crate::outcome::from_journal;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use stages::connect::bigquery::JobStatement;
use stages::failpoint::{Point, pass};
use stages::policy::Retry;
use stages::{Error, Kind, Result};

/// Copy jobs of one table at once.
const JOBS_AT_ONCE: usize = 4;

/// Brings the rows of staging into the destination.
pub(super) async fn publish(shared: &Shared, table: &mut Table) -> Result<()> {
    match table.choice.way {
        Way::Whole => {
            let copy = copy(shared, table, None, table.choice.replaces);
            let done = run_job(shared, table, "publish", &copy).await?;
            let job = done.map_err(|error| occupied(&table.name(), error))?;
            note_end(table, &job);
            table.findings.written = table.rows();
        }
        Way::Partitions => publish_partitions(shared, table).await?,
        Way::Rows => fill_rows(shared, table).await?,
    }
    Ok(())
}

/// What became of the copy of one table partition.
struct Copied<'a> {
    part: &'a Part,
    /// The job, unless the table partition got rows since the loss.
    job: Option<Value>,
}

/// One copy per table partition; each is atomic, all together are not.
async fn publish_partitions(shared: &Shared, table: &mut Table) -> Result<()> {
    let (choice, this) = (table.choice.clone(), &*table);
    let filled = choice.parts.iter().filter(|part| part.rows > 0);
    // What had no table partition is appended to that of today, which must have been filled by then.
    let (last, first): (Vec<&Part>, Vec<&Part>) =
        filled.partition(|part| choice.by_arrival && part.table_partition == UNPARTITIONED);
    let mut copied = copy_parts(shared, this, first).await?;
    copied.extend(copy_parts(shared, this, last).await?);
    let rows = |is_written: bool| {
        let same = copied.iter().filter(|copied| copied.job.is_some() == is_written);
        same.map(|copied| copied.part.rows).sum()
    };
    (table.findings.written, table.findings.kept) = (rows(true), rows(false));
    for job in copied.iter().filter_map(|copied| copied.job.as_ref()) {
        note_end(table, job);
    }
    let kept = copied.iter().filter(|copied| copied.job.is_none());
    let names: Vec<String> = kept.map(|copied| copied.part.table_partition.clone()).collect();
    if !names.is_empty() {
        table.findings.warnings.push(format!(
            "table partitions {} got rows since the loss and were left as they are: name a row_key in the plan to fill them row by row, or --replace",
            super::duplicate::named(&names)
        ));
    }
    Ok(())
}

async fn copy_parts<'a>(
    shared: &Shared,
    table: &Table,
    parts: Vec<&'a Part>,
) -> Result<Vec<Copied<'a>>> {
    let replaces = table.choice.replaces;
    stream::iter(parts)
        .map(|part| async move {
            let id = part.table_partition.as_str();
            let copy = copy(shared, table, Some(id), replaces);
            match run_job(shared, table, &format!("publish {id}"), &copy).await? {
                Ok(job) => Ok(Copied { part, job: Some(job) }),
                // Rows were written there since the loss; without a key they cannot be told from restored ones.
                Err(error) if is_occupied(&error) && !replaces => Ok(Copied { part, job: None }),
                Err(error) => Err(error),
            }
        })
        .buffered(JOBS_AT_ONCE)
        .try_collect()
        .await
}

/// Inserts the rows whose key is absent, in one statement.
async fn fill_rows(shared: &Shared, table: &mut Table) -> Result<()> {
    let Some(key) = table.choice.row_key.clone() else {
        return Err(Error::new(Kind::Internal, "rows are to be filled without a row_key"));
    };
    let sql = merge(shared, table, &key);
    let query = json!({"query": {"query": sql, "useLegacySql": false, "priority": "INTERACTIVE"}});
    let job = run_job(shared, table, "fill", &query).await??;
    let number = |place: &str| {
        let value = job.pointer(place)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    };
    let inserted = number("/statistics/query/dmlStats/insertedRowCount")
        .or_else(|| number("/statistics/query/numDmlAffectedRows"))
        .ok_or_else(|| {
            Error::new(Kind::Difference, "bigquery does not tell how many rows it filled")
        })?;
    note_end(table, &job);
    table.findings.written = inserted;
    table.findings.kept = table.rows().saturating_sub(inserted);
    Ok(())
}

fn merge(shared: &Shared, table: &Table, key: &str) -> String {
    let project = shared.bigquery.project();
    let names = target::columns(&table.recorded.resource);
    let listed = |prefix: &str| {
        names.iter().map(|name| format!("{prefix}`{name}`")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "MERGE {} AS kept USING {} AS lost ON kept.`{key}` = lost.`{key}` WHEN NOT MATCHED THEN INSERT ({}) VALUES ({})",
        quoted(project, &table.dataset, &table.table),
        quoted(project, &shared.staging_dataset, &table.record.staging),
        listed(""),
        listed("lost.")
    )
}

/// Refuses a key that cannot tell rows apart: rows without one would be filled again and again.
pub(super) async fn check_row_key(shared: &Shared, table: &Table) -> Result<()> {
    let Some(key) = &table.choice.row_key else { return Ok(()) };
    if !target::columns(&table.recorded.resource).iter().any(|name| name.eq_ignore_ascii_case(key))
    {
        return Err(Error::new(
            Kind::Config,
            format!("table {} has no column {key} (row_key)", table.name()),
        )
        .with_hint("mend row_key in the plan, then run the same command again"));
    }
    let staging = quoted(shared.bigquery.project(), &shared.staging_dataset, &table.record.staging);
    let sql = format!("SELECT COUNT(*) AS n FROM {staging} WHERE `{key}` IS NULL");
    let statement =
        JobStatement { location: Some(&table.choice.location), ..JobStatement::new(&sql) };
    let rows = shared.patiently(|| shared.bigquery.query_rows(&statement)).await?;
    let nulls = rows.first().and_then(|row| row.first()).and_then(Value::as_str);
    match nulls.and_then(|text| text.parse::<u64>().ok()) {
        Some(0) => Ok(()),
        Some(nulls) => Err(Error::new(
            Kind::Config,
            format!("{nulls} rows of {} have no {key} (row_key), so --fill cannot tell whether they are there", table.name()),
        )
        .with_hint("restore with --replace, or name another row_key in the plan")),
        None => Err(Error::new(Kind::Unavailable, "bigquery did not count rows without a key")),
    }
}

fn copy(shared: &Shared, table: &Table, partition: Option<&str>, replaces: bool) -> Value {
    let project = shared.bigquery.project();
    let (choice, staging) = (&table.choice, &table.record.staging);
    let decorated = |name: &str, id: &str| format!("{name}${id}");
    let appends = choice.by_arrival && partition == Some(UNPARTITIONED);
    let (from, to) = match partition {
        None => (staging.clone(), table.table.clone()),
        Some(id) if appends => (choice.staging_of(staging, id), table.table.clone()),
        Some(id) if choice.by_arrival => {
            (choice.staging_of(staging, id), decorated(&table.table, id))
        }
        Some(id) => (decorated(staging, id), decorated(&table.table, id)),
    };
    let reference = |dataset: &str, name: &str| json!({"projectId": project, "datasetId": dataset, "tableId": name});
    let disposition = match (appends, replaces) {
        (true, _) => "WRITE_APPEND",
        (false, true) => "WRITE_TRUNCATE",
        (false, false) => "WRITE_EMPTY",
    };
    let mut copy = json!({
        "sourceTable": reference(&shared.staging_dataset, &from),
        "destinationTable": reference(&table.dataset, &to),
        "createDisposition": "CREATE_NEVER",
        "writeDisposition": disposition,
    });
    if let Some(key) = &table.recorded.kms_key_name {
        copy["destinationEncryptionConfiguration"] = json!({"kmsKeyName": key});
    }
    json!({"copy": copy, "labels": {"rekindle_run": shared.run_id}})
}

fn is_occupied(error: &Error) -> bool {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    cause.contains("duplicate")
}

fn occupied(name: &str, error: Error) -> Error {
    if !is_occupied(&error) {
        return error;
    }
    Error::new(Kind::Config, format!("table {name} got rows while it was being restored; nothing was published"))
        .with_hint("keep them with: rekindle restore bigquery --fill --fresh (or give them up with --replace --fresh)")
        .with_source(error)
}

fn note_end(table: &mut Table, job: &Value) {
    let ended = job.pointer("/statistics/endTime").and_then(Value::as_str);
    let ended = ended.and_then(|ms| ms.parse::<i64>().ok()).unwrap_or(0);
    table.findings.published_ms = table.findings.published_ms.max(ended);
}

/// Runs the job for a purpose to its end, or finds that it ran before. The inner error is the job's own, and final.
async fn run_job(
    shared: &Shared,
    table: &Table,
    purpose: &str,
    configuration: &Value,
) -> Result<std::result::Result<Value, Error>> {
    let location = table.choice.location.as_str();
    let journal = &shared.journal;
    let known = journal.job(&shared.run_id, &table.route, purpose).await.map_err(from_journal)?;
    if let Some(JobRecord { status: JobStage::Done, answer: Some(answer), .. }) = &known {
        return serde_json::from_str(answer).map(Ok).map_err(|error| {
            Error::new(Kind::Internal, "a job in the journal is no JSON").with_source(error)
        });
    }
    let next = |attempt: u32| JobRecord {
        run_id: shared.run_id.clone(),
        route: table.route.clone(),
        purpose: purpose.to_owned(),
        attempt,
        job_id: job_id(&shared.run_id, &table.route, purpose, attempt),
        status: JobStage::Asked,
        answer: None,
    };
    let mut record = match known {
        Some(record) if record.status == JobStage::Asked => record,
        Some(record) => next(record.attempt + 1),
        None => next(1),
    };
    let mut retry = Retry::within(shared.retry_for);
    loop {
        journal.put_job(&record).await.map_err(from_journal)?;
        let error =
            match shared.bigquery.run_job(&record.job_id, configuration, Some(location)).await {
                Ok(job) => {
                    pass(Point::JobDone);
                    record.status = JobStage::Done;
                    record.answer = Some(to_json(&job)?);
                    journal.put_job(&record).await.map_err(from_journal)?;
                    return Ok(Ok(job));
                }
                Err(error) => error,
            };
        // Whether it ran and failed, or is still to be asked for, decides about its id.
        let has_failed = match shared.bigquery.job(&record.job_id, Some(location)).await {
            Ok(Some(job)) => {
                let is_done = job.pointer("/status/state").and_then(Value::as_str) == Some("DONE");
                is_done && job.pointer("/status/errorResult").is_some_and(|error| !error.is_null())
            }
            Ok(None) | Err(_) => false,
        };
        if has_failed {
            record.status = JobStage::Failed;
            journal.put_job(&record).await.map_err(from_journal)?;
        }
        if !error.kind().is_transient() {
            return Ok(Err(error));
        }
        if has_failed {
            record = next(record.attempt + 1);
        }
        retry.wait_after(error).await?;
    }
}

/// A job id of letters, digits, `_` and `-`; route and purpose by their hash, because they may hold anything.
fn job_id(run_id: &str, route: &str, purpose: &str, attempt: u32) -> String {
    let what = xxhash_rust::xxh3::xxh3_64(format!("{route}\n{purpose}").as_bytes());
    format!("rekindle_{run_id}_{what:016x}_{attempt}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_differ_by_all_that_tells_jobs_apart() {
        let id = job_id("0198-ab", "logs", "publish 20261101", 1);
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
        for other in [
            job_id("0198-ab", "logs", "publish 20261101", 2),
            job_id("0198-ab", "logs", "publish 20261102", 1),
            job_id("0198-ab", "log", "publish 20261101", 1),
            job_id("0198-ac", "logs", "publish 20261101", 1),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn a_destination_with_rows_is_told_from_other_failures() {
        let duplicate = Error::new(Kind::Config, "job failed")
            .with_source("bigquery answered duplicate: Already Exists: Table p:d.t");
        assert!(is_occupied(&duplicate));
        let told = occupied("d.t", duplicate);
        assert!(told.hint().unwrap().contains("--fill"));
        assert!(!is_occupied(&Error::new(Kind::Config, "job failed").with_source("invalid")));
    }
}
