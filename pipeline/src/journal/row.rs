//! Rows of the journal read into records, and the few values `SQLite` has no type for.
//!
//! Invariant: a value that does not parse is an error that names its column, never a default.

use super::record::{
    PartitionRecord, RouteRecord, RunRecord, RunStatus, ServerRecord, SnapshotRecord,
};
use crate::checkpoint::{Counts, State, Status};
use schemas::drift::TableShape;
use schemas::{Digest, Partition, PartitionId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column, Error, Row};

/// Returns `value` as `SQLite` stores it; `SQLite` has no unsigned integers.
pub(super) fn signed(value: u64) -> Result<i64, Error> {
    i64::try_from(value).map_err(|error| Error::Encode(error.into()))
}

/// Returns `value` as the JSON text of a column.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Encode(error.into()))
}

fn undecodable(column: &str, source: impl Into<sqlx::error::BoxDynError>) -> Error {
    Error::ColumnDecode { index: column.to_owned(), source: source.into() }
}

fn unsigned<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    let value: i64 = row.try_get(column)?;
    T::try_from(value).map_err(|_| undecodable(column, format!("{value} is out of range")))
}

fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    let text: &str = row.try_get(column)?;
    // The cause is left out: it may quote a position, which holds a value of a row.
    serde_json::from_str(text).map_err(|_| undecodable(column, "it is not the JSON expected"))
}

pub(super) fn word<T>(
    row: &SqliteRow,
    column: &str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, Error> {
    let text: &str = row.try_get(column)?;
    parse(text).ok_or_else(|| undecodable(column, format!("{text:?} is not a known word")))
}

fn digest(row: &SqliteRow) -> Result<Digest, Error> {
    let sum: &[u8] = row.try_get("digest_sum")?;
    let sum: [u8; 16] = sum
        .try_into()
        .map_err(|_| undecodable("digest_sum", format!("it has {} bytes, not 16", sum.len())))?;
    Ok(Digest { sum: u128::from_be_bytes(sum), count: unsigned(row, "digest_count")? })
}

/// Reads a row of `run`.
pub(super) fn run(row: &SqliteRow) -> Result<RunRecord, Error> {
    Ok(RunRecord {
        id: row.try_get("id")?,
        command: row.try_get("command")?,
        status: word(row, "status", RunStatus::parse)?,
        plan_fingerprint: row.try_get("plan_fingerprint")?,
        binary_version: row.try_get("binary_version")?,
        lost_at_ms: row.try_get("lost_at_ms")?,
        lost_at_given: row.try_get("lost_at_given")?,
        started_ms: row.try_get("started_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        attempts: unsigned(row, "attempts")?,
        target_was_empty: row.try_get("target_was_empty")?,
        summary: row.try_get("summary")?,
    })
}

/// Reads a row of `route`.
pub(super) fn route(row: &SqliteRow) -> Result<RouteRecord, Error> {
    Ok(RouteRecord {
        run_id: row.try_get("run_id")?,
        name: row.try_get("name")?,
        definition: row.try_get("definition")?,
        schema_lines: json(row, "schema_lines")?,
        shape: shape(row)?,
        relations: row.try_get("relations")?,
        reconcile: row.try_get("reconcile")?,
        caught_up: row.try_get("caught_up")?,
        dropped_keys: unsigned(row, "dropped_keys")?,
        completed_ms: row.try_get("completed_ms")?,
    })
}

/// A journal of an older version that nobody has written since has no such column.
fn shape(row: &SqliteRow) -> Result<Option<TableShape>, Error> {
    let has_column = row.columns().iter().any(|column| column.name() == "shape");
    let is_there = has_column && row.try_get::<Option<&str>, _>("shape")?.is_some();
    is_there.then(|| json(row, "shape")).transpose()
}

/// Reads a row of `server`.
pub(super) fn server(row: &SqliteRow) -> Result<ServerRecord, Error> {
    Ok(ServerRecord {
        run_id: row.try_get("run_id")?,
        role: row.try_get("role")?,
        identity: row.try_get("identity")?,
    })
}

/// Reads a row of `snapshot`.
pub(super) fn snapshot(row: &SqliteRow) -> Result<SnapshotRecord, Error> {
    Ok(SnapshotRecord {
        id: row.try_get("id")?,
        run_id: row.try_get("run_id")?,
        xmin: unsigned(row, "xmin")?,
        xmax: unsigned(row, "xmax")?,
        taken_us: row.try_get("taken_us")?,
        lsn: row.try_get("lsn")?,
        identity: row.try_get("identity")?,
    })
}

/// Reads the checkpoint in a row of `partition`.
pub(super) fn state(row: &SqliteRow) -> Result<State, Error> {
    Ok(State {
        status: word(row, "status", Status::parse)?,
        epoch: unsigned(row, "epoch")?,
        position: json(row, "position")?,
        counts: Counts {
            rows: unsigned(row, "rows")?,
            bytes: unsigned(row, "bytes")?,
            written: unsigned(row, "written")?,
            kept: unsigned(row, "kept")?,
            folded: folded(row)?,
            expired: unsigned(row, "expired")?,
            rejects: unsigned(row, "rejects")?,
            digest: digest(row)?,
        },
    })
}

/// A journal of an older version that nobody has written since has no such column, because nothing was counted.
fn folded(row: &SqliteRow) -> Result<u64, Error> {
    let has_column = row.columns().iter().any(|column| column.name() == "folded");
    if has_column { unsigned(row, "folded") } else { Ok(0) }
}

/// Reads `ledger_bytes` of a row of `partition`.
pub(super) fn ledger_bytes(row: &SqliteRow) -> Result<u64, Error> {
    unsigned(row, "ledger_bytes")
}

/// Reads a row of `partition`.
pub(super) fn partition(row: &SqliteRow) -> Result<PartitionRecord, Error> {
    let State { status, epoch, position, counts } = state(row)?;
    Ok(PartitionRecord {
        partition: Partition {
            id: PartitionId(row.try_get("id")?),
            route: row.try_get("route")?,
            bounds: json(row, "bounds")?,
            rows_estimate: unsigned(row, "rows_estimate")?,
            bytes_estimate: unsigned(row, "bytes_estimate")?,
            newest_us: row.try_get("newest_us")?,
        },
        ordinal: row.try_get("ordinal")?,
        status,
        epoch,
        position,
        counts,
        first_snapshot: row.try_get("first_snapshot")?,
        last_snapshot: row.try_get("last_snapshot")?,
        attempts: unsigned(row, "attempts")?,
        error: row.try_get("error")?,
        busy_ms: unsigned(row, "busy_ms")?,
        ledger_bytes: ledger_bytes(row)?,
    })
}
