//! Restores of BigQuery tables in the journal: the table, its write streams, its jobs.
//!
//! Invariant: every method that writes is one transaction, durable when it returns, and changes a stage only as
//! `restore::stage` allows; a stream name and a job id are here before BigQuery sees them used.

use super::Journal;
use super::error::{JournalError, Result};
use super::row::{signed, word};
use crate::restore::stage::{IllegalStep, JobStage, StreamStage, TableStage};
use sqlx::sqlite::SqliteRow;
use sqlx::{Error, Row};
use stages::failpoint::{Point, pass};

/// The restore of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRecord {
    /// Its run.
    pub run_id: String,
    /// Its route.
    pub route: String,
    /// What is restored, from what, how: JSON.
    pub choice: String,
    /// How far it is.
    pub stage: TableStage,
    /// Name of the staging table.
    pub staging: String,
    /// Number of the staging table, from 1.
    pub attempt: u32,
    /// What was found on the way and is told at the end: JSON.
    pub findings: String,
}

/// The write stream of one table partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Its run.
    pub run_id: String,
    /// Its route.
    pub route: String,
    /// The table partition it holds.
    pub table_partition: String,
    /// Streams this table partition had, this one included.
    pub attempt: u32,
    /// Its resource name.
    pub stream: Option<String>,
    /// How far it is.
    pub status: StreamStage,
    /// Rows the server has acknowledged, counted from the first.
    pub acknowledged: u64,
    /// Digest of its rows as the table will hold them, 32 hex digits; known once it is finalized.
    pub digest: Option<String>,
}

/// A job of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Its run.
    pub run_id: String,
    /// Its route.
    pub route: String,
    /// What it is for: `publish`, `publish 20261101`, `fill`.
    pub purpose: String,
    /// Number of the job for this purpose, from 1.
    pub attempt: u32,
    /// Its id in BigQuery.
    pub job_id: String,
    /// How far it is.
    pub status: JobStage,
    /// What it answered, once it is done: JSON.
    pub answer: Option<String>,
}

fn restore(row: &SqliteRow) -> Result<RestoreRecord, Error> {
    Ok(RestoreRecord {
        run_id: row.try_get("run_id")?,
        route: row.try_get("route")?,
        choice: row.try_get("choice")?,
        stage: word(row, "stage", TableStage::parse)?,
        staging: row.try_get("staging")?,
        attempt: row.try_get("attempt")?,
        findings: row.try_get("findings")?,
    })
}

fn stream(row: &SqliteRow) -> Result<StreamRecord, Error> {
    Ok(StreamRecord {
        run_id: row.try_get("run_id")?,
        route: row.try_get("route")?,
        table_partition: row.try_get("table_partition")?,
        attempt: row.try_get("attempt")?,
        stream: row.try_get("stream")?,
        status: word(row, "status", StreamStage::parse)?,
        acknowledged: u64::try_from(row.try_get::<i64, _>("acknowledged")?).unwrap_or(0),
        digest: row.try_get("digest")?,
    })
}

fn job(row: &SqliteRow) -> Result<JobRecord, Error> {
    Ok(JobRecord {
        run_id: row.try_get("run_id")?,
        route: row.try_get("route")?,
        purpose: row.try_get("purpose")?,
        attempt: row.try_get("attempt")?,
        job_id: row.try_get("job_id")?,
        status: word(row, "status", JobStage::parse)?,
        answer: row.try_get("answer")?,
    })
}

impl Journal {
    /// Adds the restore of a table with its table partitions, or starts it over: all its streams are planned again.
    pub async fn put_restore(&self, record: &RestoreRecord, partitions: &[String]) -> Result<()> {
        let operation = "record what is restored";
        let failed = self.failed_to(operation);
        let mut transaction = self.write(operation).await?;
        sqlx::query(
            "INSERT INTO restore_table (run_id, route, choice, stage, staging, attempt, findings) \
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, route) DO UPDATE SET choice = excluded.choice, \
             stage = excluded.stage, staging = excluded.staging, attempt = excluded.attempt, \
             findings = excluded.findings",
        )
        .bind(&record.run_id)
        .bind(&record.route)
        .bind(&record.choice)
        .bind(record.stage.word())
        .bind(&record.staging)
        .bind(record.attempt)
        .bind(&record.findings)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        sqlx::query("DELETE FROM restore_stream WHERE run_id = ? AND route = ?")
            .bind(&record.run_id)
            .bind(&record.route)
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        for partition in partitions {
            sqlx::query(
                "INSERT INTO restore_stream (run_id, route, table_partition, attempt, stream, status, acknowledged, \
                 digest) VALUES (?, ?, ?, 0, NULL, 'planned', 0, NULL)",
            )
            .bind(&record.run_id)
            .bind(&record.route)
            .bind(partition)
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        }
        self.commit_write(transaction, operation).await?;
        pass(Point::ChoiceRecorded);
        Ok(())
    }

    /// Returns the restores of a run.
    pub async fn restores(&self, run_id: &str) -> Result<Vec<RestoreRecord>> {
        let found = sqlx::query("SELECT * FROM restore_table WHERE run_id = ? ORDER BY rowid")
            .bind(run_id)
            .fetch_all(self.pool())
            .await;
        self.all(found, restore)
    }

    /// Returns the newest restore of a route, whatever became of its run.
    pub async fn latest_restore(&self, route: &str) -> Result<Option<RestoreRecord>> {
        let found =
            sqlx::query("SELECT * FROM restore_table WHERE route = ? ORDER BY rowid DESC LIMIT 1")
                .bind(route)
                .fetch_optional(self.pool())
                .await;
        self.one(found, restore)
    }

    /// Moves the restore of a table on, and keeps its findings.
    pub async fn step_restore(&self, record: &mut RestoreRecord, to: TableStage) -> Result<()> {
        let operation = "record how far the restore is";
        let stage = record.stage.step(to).map_err(|error| illegal(operation, &error))?;
        let mut transaction = self.write(operation).await?;
        let updated = sqlx::query(
            "UPDATE restore_table SET stage = ?, findings = ? WHERE run_id = ? AND route = ? AND stage = ?",
        )
        .bind(stage.word())
        .bind(&record.findings)
        .bind(&record.run_id)
        .bind(&record.route)
        .bind(record.stage.word())
        .execute(&mut *transaction)
        .await;
        self.exactly_one(updated, operation, &record.route)?;
        self.commit_write(transaction, operation).await?;
        pass(Point::StageRecorded);
        record.stage = stage;
        Ok(())
    }

    /// Returns the streams of a table, in the order of their table partitions' first mention.
    pub async fn streams(&self, run_id: &str, route: &str) -> Result<Vec<StreamRecord>> {
        let found = sqlx::query(
            "SELECT * FROM restore_stream WHERE run_id = ? AND route = ? ORDER BY rowid",
        )
        .bind(run_id)
        .bind(route)
        .fetch_all(self.pool())
        .await;
        self.all(found, stream)
    }

    /// Records streams as they are now, all or none. Each must be one step from what is recorded.
    pub async fn put_streams(&self, records: &[StreamRecord]) -> Result<()> {
        let operation = "record how far write streams are";
        let failed = self.failed_to(operation);
        let mut transaction = self.write(operation).await?;
        for record in records {
            let found = sqlx::query(
                "SELECT * FROM restore_stream WHERE run_id = ? AND route = ? AND table_partition = ?",
            )
            .bind(&record.run_id)
            .bind(&record.route)
            .bind(&record.table_partition)
            .fetch_optional(&mut *transaction)
            .await;
            let before = self.one(found, stream)?.ok_or_else(|| JournalError::Mismatch {
                operation,
                name: record.table_partition.clone(),
                reason: "is not there",
            })?;
            before.status.step(record.status).map_err(|error| illegal(operation, &error))?;
            sqlx::query(
                "UPDATE restore_stream SET attempt = ?, stream = ?, status = ?, acknowledged = ?, digest = ? \
                 WHERE run_id = ? AND route = ? AND table_partition = ?",
            )
            .bind(record.attempt)
            .bind(record.stream.as_deref())
            .bind(record.status.word())
            .bind(signed(record.acknowledged).map_err(&failed)?)
            .bind(record.digest.as_deref())
            .bind(&record.run_id)
            .bind(&record.route)
            .bind(&record.table_partition)
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        }
        self.commit_write(transaction, operation).await?;
        pass(Point::StreamsRecorded);
        Ok(())
    }

    /// Returns the jobs of a table, in the order they were first asked for.
    pub async fn jobs(&self, run_id: &str, route: &str) -> Result<Vec<JobRecord>> {
        let found =
            sqlx::query("SELECT * FROM restore_job WHERE run_id = ? AND route = ? ORDER BY rowid")
                .bind(run_id)
                .bind(route)
                .fetch_all(self.pool())
                .await;
        self.all(found, job)
    }

    /// Returns the job for a purpose.
    pub async fn job(&self, run_id: &str, route: &str, purpose: &str) -> Result<Option<JobRecord>> {
        let found =
            sqlx::query("SELECT * FROM restore_job WHERE run_id = ? AND route = ? AND purpose = ?")
                .bind(run_id)
                .bind(route)
                .bind(purpose)
                .fetch_optional(self.pool())
                .await;
        self.one(found, job)
    }

    /// Records a job as it is now.
    pub async fn put_job(&self, record: &JobRecord) -> Result<()> {
        let operation = "record a job";
        let mut transaction = self.write(operation).await?;
        sqlx::query(
            "INSERT INTO restore_job (run_id, route, purpose, attempt, job_id, status, answer) \
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, route, purpose) DO UPDATE SET \
             attempt = excluded.attempt, job_id = excluded.job_id, status = excluded.status, \
             answer = excluded.answer",
        )
        .bind(&record.run_id)
        .bind(&record.route)
        .bind(&record.purpose)
        .bind(record.attempt)
        .bind(&record.job_id)
        .bind(record.status.word())
        .bind(record.answer.as_deref())
        .execute(&mut *transaction)
        .await
        .map_err(self.failed_to(operation))?;
        self.commit_write(transaction, operation).await?;
        pass(Point::JobRecorded);
        Ok(())
    }
}

fn illegal(operation: &'static str, error: &IllegalStep) -> JournalError {
    JournalError::Mismatch { operation, name: error.to_string(), reason: "is not a step" }
}
