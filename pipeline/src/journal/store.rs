//! Runs, routes, servers and snapshots in the journal.
//!
//! Invariant: every method that writes is one transaction, durable when it returns.

use super::Journal;
use super::error::{JournalError, Result};
use super::record::{
    NewRoute, NewRun, NewSnapshot, RouteRecord, RunRecord, RunStatus, ServerRecord, SnapshotRecord,
};
use super::row::{self, signed, to_json};
use schemas::{PartitionId, Position};
use sqlx::sqlite::{SqliteQueryResult, SqliteRow};
use sqlx::{Error, SqliteConnection};
use stages::failpoint::{Point, pass};
use uuid::{NoContext, Timestamp, Uuid};

impl Journal {
    /// Adds a run at its first attempt, with its routes, and returns it.
    ///
    /// One transaction: a run without its routes would look like one of another plan.
    pub async fn create_run(&self, run: NewRun, routes: Vec<NewRoute>) -> Result<RunRecord> {
        let operation = "record the run";
        let record = RunRecord {
            id: run_id(run.started_ms),
            command: run.command,
            status: RunStatus::Running,
            plan_fingerprint: run.plan_fingerprint,
            binary_version: run.binary_version,
            lost_at_ms: run.lost_at_ms,
            lost_at_given: run.lost_at_given,
            started_ms: run.started_ms,
            ended_ms: None,
            attempts: 1,
            target_was_empty: run.target_was_empty,
            summary: None,
        };
        let mut transaction = self.write(operation).await?;
        insert_run(&mut transaction, &record).await.map_err(self.failed_to(operation))?;
        for route in routes {
            let route = route.of_run(&record.id);
            insert_route(&mut transaction, &route).await.map_err(self.failed_to(operation))?;
        }
        self.commit_write(transaction, operation).await?;
        pass(Point::RunRecorded);
        Ok(record)
    }

    /// Returns the run of this id.
    pub async fn run(&self, run_id: &str) -> Result<Option<RunRecord>> {
        let found = sqlx::query("SELECT * FROM run WHERE id = ?")
            .bind(run_id)
            .fetch_optional(self.pool())
            .await;
        self.one(found, row::run)
    }

    /// Returns a route as the newest run of a command that ended as asked has carried it.
    pub async fn last_done_route(&self, command: &str, route: &str) -> Result<Option<RouteRecord>> {
        let found = sqlx::query(
            "SELECT route.* FROM route JOIN run ON run.id = route.run_id \
             WHERE run.command = ? AND run.status = 'done' AND route.name = ? ORDER BY run.rowid DESC LIMIT 1",
        )
        .bind(command)
        .bind(route)
        .fetch_optional(self.pool())
        .await;
        self.one(found, row::route)
    }

    /// Returns the newest run of a command.
    pub async fn latest_run(&self, command: &str) -> Result<Option<RunRecord>> {
        let found = sqlx::query("SELECT * FROM run WHERE command = ? ORDER BY rowid DESC LIMIT 1")
            .bind(command)
            .fetch_optional(self.pool())
            .await;
        self.one(found, row::run)
    }

    /// Returns the newest run of a command that can be resumed.
    pub async fn unfinished_run(&self, command: &str) -> Result<Option<RunRecord>> {
        let found = sqlx::query(
            "SELECT * FROM run WHERE command = ? AND status IN ('running', 'interrupted', 'failed', 'partial') \
             ORDER BY rowid DESC LIMIT 1",
        )
        .bind(command)
        .fetch_optional(self.pool())
        .await;
        self.one(found, row::run)
    }

    /// Returns the runs of a command, oldest first, that began a partition which is neither done nor voided.
    pub async fn runs_with_unfinished(&self, command: &str) -> Result<Vec<RunRecord>> {
        let found = sqlx::query(
            "SELECT * FROM run WHERE command = ? AND EXISTS (SELECT 1 FROM partition WHERE run_id = run.id \
             AND status NOT IN ('done', 'void') AND epoch > 0) ORDER BY rowid",
        )
        .bind(command)
        .fetch_all(self.pool())
        .await;
        self.all(found, row::run)
    }

    /// Records how a run stands now.
    pub async fn set_run_status(
        &self,
        run_id: &str,
        status: RunStatus,
        ended_ms: Option<i64>,
        summary: Option<&str>,
    ) -> Result<()> {
        let operation = "record the status of the run";
        let mut transaction = self.write(operation).await?;
        let updated =
            sqlx::query("UPDATE run SET status = ?, ended_ms = ?, summary = ? WHERE id = ?")
                .bind(status.as_str())
                .bind(ended_ms)
                .bind(summary)
                .bind(run_id)
                .execute(&mut *transaction)
                .await;
        self.exactly_one(updated, operation, run_id)?;
        self.commit_write(transaction, operation).await?;
        pass(Point::StatusRecorded);
        Ok(())
    }

    /// Records that a run is resumed: one more attempt, running, without an end.
    pub async fn note_attempt(&self, run_id: &str) -> Result<()> {
        let operation = "record an attempt of the run";
        let mut transaction = self.write(operation).await?;
        let updated =
            sqlx::query("UPDATE run SET attempts = attempts + 1, status = 'running', ended_ms = NULL WHERE id = ?")
                .bind(run_id)
                .execute(&mut *transaction)
                .await;
        self.exactly_one(updated, operation, run_id)?;
        self.commit_write(transaction, operation).await?;
        pass(Point::AttemptRecorded);
        Ok(())
    }

    /// Replaces the record of one route.
    pub async fn update_route(&self, route: &RouteRecord) -> Result<()> {
        let operation = "record the route";
        let mut transaction = self.write(operation).await?;
        let updated = replace_route(&mut transaction, route).await;
        self.exactly_one(updated, operation, &route.name)?;
        self.commit_write(transaction, operation).await?;
        pass(Point::RouteRecorded);
        Ok(())
    }

    /// Returns the routes of a run in the order they were added.
    pub async fn routes(&self, run_id: &str) -> Result<Vec<RouteRecord>> {
        let found = sqlx::query("SELECT * FROM route WHERE run_id = ? ORDER BY rowid")
            .bind(run_id)
            .fetch_all(self.pool())
            .await;
        self.all(found, row::route)
    }

    /// Adds a server, or replaces the one in the same role of the same run.
    pub async fn put_server(&self, server: &ServerRecord) -> Result<()> {
        let operation = "record the server";
        let mut transaction = self.write(operation).await?;
        sqlx::query(
            "INSERT INTO server (run_id, role, identity) VALUES (?, ?, ?) \
             ON CONFLICT (run_id, role) DO UPDATE SET identity = excluded.identity",
        )
        .bind(&server.run_id)
        .bind(&server.role)
        .bind(&server.identity)
        .execute(&mut *transaction)
        .await
        .map_err(self.failed_to(operation))?;
        self.commit_write(transaction, operation).await?;
        pass(Point::ServerRecorded);
        Ok(())
    }

    /// Returns the servers of a run by role.
    pub async fn servers(&self, run_id: &str) -> Result<Vec<ServerRecord>> {
        let found = sqlx::query("SELECT * FROM server WHERE run_id = ? ORDER BY role")
            .bind(run_id)
            .fetch_all(self.pool())
            .await;
        self.all(found, row::server)
    }

    /// Adds a snapshot and returns its id, higher than every id before it.
    pub async fn add_snapshot(&self, snapshot: &NewSnapshot) -> Result<i64> {
        let operation = "record the snapshot";
        let mut transaction = self.write(operation).await?;
        let id =
            insert_snapshot(&mut transaction, snapshot).await.map_err(self.failed_to(operation))?;
        self.commit_write(transaction, operation).await?;
        pass(Point::SnapshotRecorded);
        Ok(id)
    }

    /// Returns the snapshots of a run, oldest first.
    pub async fn snapshots(&self, run_id: &str) -> Result<Vec<SnapshotRecord>> {
        let found = sqlx::query("SELECT * FROM snapshot WHERE run_id = ? ORDER BY id")
            .bind(run_id)
            .fetch_all(self.pool())
            .await;
        self.all(found, row::snapshot)
    }

    pub(super) fn one<T>(
        &self,
        found: Result<Option<SqliteRow>, Error>,
        read: fn(&SqliteRow) -> Result<T, Error>,
    ) -> Result<Option<T>> {
        found.and_then(|row| row.as_ref().map(read).transpose()).map_err(self.failed_to("read"))
    }

    pub(super) fn all<T>(
        &self,
        found: Result<Vec<SqliteRow>, Error>,
        read: fn(&SqliteRow) -> Result<T, Error>,
    ) -> Result<Vec<T>> {
        found.and_then(|rows| rows.iter().map(read).collect()).map_err(self.failed_to("read"))
    }

    pub(super) fn exactly_one(
        &self,
        updated: Result<SqliteQueryResult, Error>,
        operation: &'static str,
        name: &str,
    ) -> Result<()> {
        match updated.map_err(self.failed_to(operation))?.rows_affected() {
            0 => Err(JournalError::Mismatch {
                operation,
                name: name.to_owned(),
                reason: "is not there",
            }),
            _ => Ok(()),
        }
    }
}

/// Makes a version 7 UUID of the time the run started, so that ids sort as runs do.
fn run_id(started_ms: i64) -> String {
    let started_ms = u64::try_from(started_ms).unwrap_or_default();
    let nanos = u32::try_from(started_ms % 1000).unwrap_or_default() * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(NoContext, started_ms / 1000, nanos)).to_string()
}

async fn insert_run(connection: &mut SqliteConnection, run: &RunRecord) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO run (id, command, status, plan_fingerprint, binary_version, lost_at_ms, lost_at_given, \
         started_ms, ended_ms, attempts, target_was_empty, summary) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&run.id)
    .bind(&run.command)
    .bind(run.status.as_str())
    .bind(&run.plan_fingerprint)
    .bind(&run.binary_version)
    .bind(run.lost_at_ms)
    .bind(run.lost_at_given)
    .bind(run.started_ms)
    .bind(run.ended_ms)
    .bind(run.attempts)
    .bind(run.target_was_empty)
    .bind(run.summary.as_deref())
    .execute(connection)
    .await
    .map(drop)
}

async fn insert_route(connection: &mut SqliteConnection, route: &RouteRecord) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO route (run_id, name, definition, schema_lines, relations, reconcile, caught_up, dropped_keys, \
         completed_ms, shape) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&route.run_id)
    .bind(&route.name)
    .bind(&route.definition)
    .bind(to_json(&route.schema_lines)?)
    .bind(&route.relations)
    .bind(route.reconcile)
    .bind(route.caught_up)
    .bind(signed(route.dropped_keys)?)
    .bind(route.completed_ms)
    .bind(route.shape.as_ref().map(to_json).transpose()?)
    .execute(connection)
    .await
    .map(drop)
}

async fn replace_route(
    connection: &mut SqliteConnection,
    route: &RouteRecord,
) -> Result<SqliteQueryResult, Error> {
    sqlx::query(
        "UPDATE route SET definition = ?, schema_lines = ?, relations = ?, reconcile = ?, caught_up = ?, \
         dropped_keys = ?, completed_ms = ?, shape = ? WHERE run_id = ? AND name = ?",
    )
    .bind(&route.definition)
    .bind(to_json(&route.schema_lines)?)
    .bind(&route.relations)
    .bind(route.reconcile)
    .bind(route.caught_up)
    .bind(signed(route.dropped_keys)?)
    .bind(route.completed_ms)
    .bind(route.shape.as_ref().map(to_json).transpose()?)
    .bind(&route.run_id)
    .bind(&route.name)
    .execute(connection)
    .await
}

async fn insert_snapshot(
    connection: &mut SqliteConnection,
    snapshot: &NewSnapshot,
) -> Result<i64, Error> {
    sqlx::query("INSERT INTO snapshot (run_id, xmin, xmax, taken_us, lsn, identity) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(&snapshot.run_id)
        .bind(signed(snapshot.xmin)?)
        .bind(signed(snapshot.xmax)?)
        .bind(snapshot.taken_us)
        .bind(&snapshot.lsn)
        .bind(&snapshot.identity)
        .execute(connection)
        .await
        .map(|inserted| inserted.last_insert_rowid())
}

/// Starts all partitions of a route but those kept over with the same cut.
pub(super) async fn reset(
    connection: &mut SqliteConnection,
    run_id: &str,
    route: &str,
    kept: &[PartitionId],
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE partition SET status = 'pending', position = ?, rows = 0, bytes = 0, written = 0, kept = 0, folded = 0, \
         expired = 0, rejects = 0, digest_sum = zeroblob(16), digest_count = 0, first_snapshot = NULL, \
         last_snapshot = NULL, attempts = 0, error = NULL, busy_ms = 0 \
         WHERE run_id = ? AND route = ? AND status <> 'void' AND id NOT IN (SELECT value FROM json_each(?))",
    )
    .bind(to_json(&Position::Start)?)
    .bind(run_id)
    .bind(route)
    .bind(to_json(&kept.iter().map(|id| &id.0).collect::<Vec<_>>())?)
    .execute(connection)
    .await
    .map(drop)
}
