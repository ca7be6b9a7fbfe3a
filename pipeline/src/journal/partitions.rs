//! Partitions in the journal: cut, begun, committed, finished, failed, reset, voided.
//!
//! Invariant: a checkpoint changes only as [`crate::checkpoint::State`] allows, by a compare-and-set on status, epoch
//! and position, so an attempt that lost its partition changes nothing; an epoch never goes down, whatever happens
//! to the cut, because rows are voided and revived but never deleted.

use super::Journal;
use super::error::{JournalError, Result};
use super::record::{Begun, PartitionRecord};
use super::row::{self, signed, to_json};
use super::store;
use crate::checkpoint::{Counts, Event, IllegalTransition, State};
use schemas::{Partition, PartitionId, Position};
use sqlx::sqlite::SqliteRow;
use sqlx::{Error, Row, SqliteConnection};
use stages::failpoint::{Point, pass};

/// What one transaction records for one attempt at a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) partition: PartitionId,
    pub(super) epoch: u64,
    /// The rows acknowledged since the last one, if any.
    pub(super) span: Option<Span>,
    /// The time at work, once the attempt reached the end.
    pub(super) finished_busy_ms: Option<u64>,
}

/// Rows between two positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Position,
    pub(super) to: Position,
    pub(super) counts: Counts,
    pub(super) ledger_bytes: u64,
}

impl Commit {
    fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let epoch = self.epoch;
        let span = self.span.iter().map(move |span| Event::Commit {
            epoch,
            from: span.from.clone(),
            to: span.to.clone(),
            counts: span.counts,
        });
        span.chain(self.finished_busy_ms.map(|_| Event::Finish { epoch }))
    }
}

/// A checkpoint as it was read, with the texts a compare-and-set compares.
struct Stored {
    state: State,
    status: String,
    position: String,
    ledger_bytes: u64,
}

impl Journal {
    /// Adds the partitions of a cut, numbered from `first_ordinal`, all or none.
    ///
    /// A name that was voided starts over with its epoch and the length of its ledger kept; one that is in use is a
    /// [`JournalError::Mismatch`].
    pub async fn add_partitions(
        &self,
        run_id: &str,
        partitions: &[Partition],
        first_ordinal: i64,
    ) -> Result<()> {
        let operation = "add partition";
        let mut transaction = self.write(operation).await?;
        for (ordinal, partition) in (first_ordinal..).zip(partitions) {
            let added = insert(&mut transaction, run_id, partition, ordinal)
                .await
                .map_err(self.failed_to(operation))?;
            if !added {
                let name = partition.id.0.clone();
                return Err(JournalError::Mismatch { operation, name, reason: "is already there" });
            }
        }
        self.commit_write(transaction, operation).await?;
        pass(Point::PartitionsRecorded);
        Ok(())
    }

    /// Returns the partitions of a run in the order of work, without the voided ones.
    pub async fn partitions(&self, run_id: &str) -> Result<Vec<PartitionRecord>> {
        let found = sqlx::query(
            "SELECT * FROM partition WHERE run_id = ? AND status <> 'void' ORDER BY ordinal, id",
        )
        .bind(run_id)
        .fetch_all(self.pool())
        .await;
        self.all(found, row::partition)
    }

    /// Returns the partitions of a run whose cut no longer holds; their ledgers may name keys still in the target.
    pub async fn void_partitions_of(&self, run_id: &str) -> Result<Vec<PartitionRecord>> {
        let found = sqlx::query(
            "SELECT * FROM partition WHERE run_id = ? AND status = 'void' ORDER BY ordinal, id",
        )
        .bind(run_id)
        .fetch_all(self.pool())
        .await;
        self.all(found, row::partition)
    }

    /// Voids every partition of a route, so that it can be cut anew.
    pub async fn void_partitions(&self, run_id: &str, route: &str) -> Result<()> {
        let operation = "void the partitions of a route";
        let mut transaction = self.write(operation).await?;
        sqlx::query("UPDATE partition SET status = 'void' WHERE run_id = ? AND route = ?")
            .bind(run_id)
            .bind(route)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed_to(operation))?;
        self.commit_write(transaction, operation).await?;
        pass(Point::RouteRestarted);
        Ok(())
    }

    /// Starts every partition of a route but those kept over with the same cut: counters zero, no snapshots, no
    /// attempts; epoch and length of the ledger stay.
    pub async fn reset_partitions(
        &self,
        run_id: &str,
        route: &str,
        kept: &[PartitionId],
    ) -> Result<()> {
        let operation = "reset the partitions of a route";
        let mut transaction = self.write(operation).await?;
        store::reset(&mut transaction, run_id, route, kept)
            .await
            .map_err(self.failed_to(operation))?;
        self.commit_write(transaction, operation).await?;
        pass(Point::RouteVoided);
        Ok(())
    }

    /// Begins an attempt that reads in `snapshot`, where its source has such a thing. From now on every earlier
    /// attempt at the partition is fenced.
    ///
    /// Flush the committer first when an earlier attempt of this process may have commits under way.
    pub async fn begin(
        &self,
        run_id: &str,
        partition: &PartitionId,
        snapshot: impl Into<Option<i64>>,
    ) -> Result<Begun> {
        let operation = "begin partition";
        let mut transaction = self.write(operation).await?;
        let stored = self.stored(&mut transaction, run_id, partition, operation).await?;
        let illegal = |source| JournalError::Illegal { partition: partition.clone(), source };
        let epoch = stored
            .state
            .epoch
            .checked_add(1)
            .ok_or_else(|| illegal(IllegalTransition::Overflow))?;
        let state = stored.state.apply(&Event::Begin { epoch }).map_err(illegal)?;
        update_state(&mut transaction, run_id, partition, &stored, &state)
            .await
            .map_err(self.failed_to(operation))?;
        let snapshot = snapshot.into();
        sqlx::query(
            "UPDATE partition SET attempts = attempts + 1, first_snapshot = coalesce(first_snapshot, ?), \
             last_snapshot = ? WHERE run_id = ? AND id = ?",
        )
        .bind(snapshot)
        .bind(snapshot)
        .bind(run_id)
        .bind(&partition.0)
        .execute(&mut *transaction)
        .await
        .map_err(self.failed_to(operation))?;
        self.commit_write(transaction, operation).await?;
        pass(Point::PartitionBegun);
        let (rejects, ledger_bytes) = (state.counts.rejects, stored.ledger_bytes);
        Ok(Begun { epoch, position: state.position, ledger_bytes, rejects })
    }

    /// Records why an attempt gave up. What it committed stands; flush the committer first.
    pub async fn fail(
        &self,
        run_id: &str,
        partition: &PartitionId,
        epoch: u64,
        error: &str,
    ) -> Result<()> {
        let operation = "fail partition";
        let mut transaction = self.write(operation).await?;
        let stored = self.stored(&mut transaction, run_id, partition, operation).await?;
        let state = stored
            .state
            .apply(&Event::Fail { epoch })
            .map_err(|source| refusal(partition, epoch, source))?;
        update_state(&mut transaction, run_id, partition, &stored, &state)
            .await
            .map_err(self.failed_to(operation))?;
        sqlx::query("UPDATE partition SET error = ? WHERE run_id = ? AND id = ?")
            .bind(error)
            .bind(run_id)
            .bind(&partition.0)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed_to(operation))?;
        self.commit_write(transaction, operation).await
    }

    /// Records what several attempts committed in one transaction; the inner result is for each of them, in order.
    /// An attempt that is refused changes nothing and does not stop the others.
    pub(super) async fn commit_all(
        &self,
        run_id: &str,
        commits: &[Commit],
    ) -> Result<Vec<Result<()>>> {
        let operation = "commit partition";
        let mut transaction = self.write(operation).await?;
        let mut results = Vec::with_capacity(commits.len());
        for commit in commits {
            match self.commit_one(&mut transaction, run_id, commit).await {
                Ok(()) => results.push(Ok(())),
                Err(refused) if is_refusal(&refused) => results.push(Err(refused)),
                Err(failure) => return Err(failure),
            }
        }
        self.commit_write(transaction, operation).await?;
        Ok(results)
    }

    async fn commit_one(
        &self,
        connection: &mut SqliteConnection,
        run_id: &str,
        commit: &Commit,
    ) -> Result<()> {
        let operation = "commit partition";
        let partition = &commit.partition;
        let stored = self.stored(connection, run_id, partition, operation).await?;
        let events: Vec<_> = commit.events().collect();
        let state = stored
            .state
            .clone()
            .fold(&events)
            .map_err(|source| refusal(partition, commit.epoch, source))?;
        let is_owner = update_state(connection, run_id, partition, &stored, &state)
            .await
            .map_err(self.failed_to(operation))?;
        if !is_owner {
            return Err(JournalError::Fenced { partition: partition.clone(), epoch: commit.epoch });
        }
        update_extras(connection, run_id, commit).await.map_err(self.failed_to(operation))
    }

    async fn stored(
        &self,
        connection: &mut SqliteConnection,
        run_id: &str,
        partition: &PartitionId,
        operation: &'static str,
    ) -> Result<Stored> {
        let found = sqlx::query("SELECT * FROM partition WHERE run_id = ? AND id = ?")
            .bind(run_id)
            .bind(&partition.0)
            .fetch_optional(connection)
            .await;
        self.one(found, stored)?.ok_or_else(|| JournalError::Mismatch {
            operation,
            name: partition.0.clone(),
            reason: "is not there",
        })
    }
}

/// Tells what concerns one partition from what concerns the journal as a whole.
pub(super) fn is_refusal(error: &JournalError) -> bool {
    matches!(
        error,
        JournalError::Fenced { .. } | JournalError::Illegal { .. } | JournalError::Mismatch { .. }
    )
}

/// Names what a broken rule means to the attempt at `epoch`: it lost the partition, or its own events are wrong.
pub(super) fn refusal(
    partition: &PartitionId,
    epoch: u64,
    source: IllegalTransition,
) -> JournalError {
    let partition = partition.clone();
    match source {
        IllegalTransition::Epoch { .. } | IllegalTransition::Status { .. } => {
            JournalError::Fenced { partition, epoch }
        }
        source @ (IllegalTransition::Gap { .. } | IllegalTransition::Overflow) => {
            JournalError::Illegal { partition, source }
        }
    }
}

fn stored(row: &SqliteRow) -> Result<Stored, Error> {
    Ok(Stored {
        state: row::state(row)?,
        status: row.try_get("status")?,
        position: row.try_get("position")?,
        ledger_bytes: row::ledger_bytes(row)?,
    })
}

async fn insert(
    connection: &mut SqliteConnection,
    run_id: &str,
    partition: &Partition,
    ordinal: i64,
) -> Result<bool, Error> {
    // busy_ms, error, attempts and the snapshots belong to the old cut; epoch and ledger_bytes outlive it.
    let inserted = sqlx::query(
        "INSERT INTO partition (run_id, id, route, ordinal, bounds, rows_estimate, bytes_estimate, newest_us, status, \
         epoch, position, rows, bytes, written, kept, expired, rejects, digest_sum, digest_count, attempts, busy_ms, \
         ledger_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'pending', 0, ?9, 0, 0, 0, 0, 0, 0, zeroblob(16), 0, 0, \
         0, 0) ON CONFLICT (run_id, id) DO UPDATE SET route = ?3, ordinal = ?4, bounds = ?5, rows_estimate = ?6, \
         bytes_estimate = ?7, newest_us = ?8, status = 'pending', position = ?9, rows = 0, bytes = 0, written = 0, \
         kept = 0, folded = 0, expired = 0, rejects = 0, digest_sum = zeroblob(16), digest_count = 0, first_snapshot = NULL, \
         last_snapshot = NULL, attempts = 0, error = NULL, busy_ms = 0 WHERE status = 'void'",
    )
    .bind(run_id)
    .bind(&partition.id.0)
    .bind(&partition.route)
    .bind(ordinal)
    .bind(to_json(&partition.bounds)?)
    .bind(signed(partition.rows_estimate)?)
    .bind(signed(partition.bytes_estimate)?)
    .bind(partition.newest_us)
    .bind(to_json(&Position::Start)?)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Moves a checkpoint from `stored` to `state` and returns whether it still was as stored.
async fn update_state(
    connection: &mut SqliteConnection,
    run_id: &str,
    partition: &PartitionId,
    stored: &Stored,
    state: &State,
) -> Result<bool, Error> {
    let counts = &state.counts;
    let updated = sqlx::query(
        "UPDATE partition SET status = ?, epoch = ?, position = ?, rows = ?, bytes = ?, written = ?, kept = ?, folded = ?, \
         expired = ?, rejects = ?, digest_sum = ?, digest_count = ? \
         WHERE run_id = ? AND id = ? AND status = ? AND epoch = ? AND position = ?",
    )
    .bind(state.status.as_str())
    .bind(signed(state.epoch)?)
    .bind(to_json(&state.position)?)
    .bind(signed(counts.rows)?)
    .bind(signed(counts.bytes)?)
    .bind(signed(counts.written)?)
    .bind(signed(counts.kept)?)
    .bind(signed(counts.folded)?)
    .bind(signed(counts.expired)?)
    .bind(signed(counts.rejects)?)
    .bind(counts.digest.sum.to_be_bytes().to_vec())
    .bind(signed(counts.digest.count)?)
    .bind(run_id)
    .bind(&partition.0)
    .bind(&stored.status)
    .bind(signed(stored.state.epoch)?)
    .bind(&stored.position)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Records what a commit says beside the checkpoint itself; a finished partition has no error left.
async fn update_extras(
    connection: &mut SqliteConnection,
    run_id: &str,
    commit: &Commit,
) -> Result<(), Error> {
    let ledger_bytes = commit.span.as_ref().map(|span| signed(span.ledger_bytes)).transpose()?;
    let busy_ms = commit.finished_busy_ms.map(signed).transpose()?;
    sqlx::query(
        "UPDATE partition SET ledger_bytes = coalesce(?1, ledger_bytes), busy_ms = busy_ms + coalesce(?2, 0), \
         error = CASE WHEN ?2 IS NULL THEN error END WHERE run_id = ?3 AND id = ?4",
    )
    .bind(ledger_bytes)
    .bind(busy_ms)
    .bind(run_id)
    .bind(&commit.partition.0)
    .execute(connection)
    .await
    .map(drop)
}
