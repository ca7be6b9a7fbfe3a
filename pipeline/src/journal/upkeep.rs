//! Looking at the whole journal, and forgetting a run.
//!
//! Invariant: an export is of one instant, also beside a run that writes; a run is forgotten whole or not at all.

use super::Journal;
use super::error::Result;
use super::record::RunRecord;
use super::row;
use futures::TryStreamExt;
use serde_json::{Map, Value};
use sqlx::sqlite::SqliteRow;
use sqlx::{Column, Row, TypeInfo, ValueRef};

/// The tables of a journal, in the order in which they are exported; one that an earlier version did not make is
/// passed over.
const TABLES: [&str; 9] = [
    "format",
    "run",
    "snapshot",
    "route",
    "server",
    "partition",
    "restore_table",
    "restore_stream",
    "restore_job",
];
/// The tables that hold something of a run, in an order that breaks no reference.
const OF_A_RUN: [(&str, &str); 8] = [
    ("restore_job", "run_id"),
    ("restore_stream", "run_id"),
    ("restore_table", "run_id"),
    ("partition", "run_id"),
    ("route", "run_id"),
    ("server", "run_id"),
    ("snapshot", "run_id"),
    ("run", "id"),
];

impl Journal {
    /// Returns all runs, oldest first.
    pub async fn runs(&self) -> Result<Vec<RunRecord>> {
        let found = sqlx::query("SELECT * FROM run ORDER BY rowid").fetch_all(self.pool()).await;
        self.all(found, row::run)
    }

    /// Hands over every row of every table as a JSON object, its table under `table`; columns that hold JSON become
    /// part of it.
    pub async fn export(
        &self,
        take: &mut (dyn FnMut(Value) -> std::io::Result<()> + Send),
    ) -> Result<()> {
        let failed = self.failed_to("read");
        // One transaction sees one instant.
        let mut transaction = self.pool().begin().await.map_err(&failed)?;
        for table in TABLES {
            let is_there: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?)",
            )
            .bind(table)
            .fetch_one(&mut *transaction)
            .await
            .map_err(&failed)?;
            if !is_there {
                continue;
            }
            let sql = format!("SELECT * FROM {table} ORDER BY rowid");
            let mut rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch(&mut *transaction);
            while let Some(row) = rows.try_next().await.map_err(&failed)? {
                let mut object = Map::new();
                object.insert("table".to_owned(), Value::from(table));
                for column in row.columns() {
                    let value = value(&row, column.ordinal()).map_err(&failed)?;
                    object.insert(column.name().to_owned(), value);
                }
                take(Value::Object(object)).map_err(|error| failed(sqlx::Error::Io(error)))?;
            }
        }
        Ok(())
    }

    /// Forgets a run and everything of it; returns whether it was known.
    pub async fn forget(&self, run_id: &str) -> Result<bool> {
        let operation = "forget the run";
        let mut transaction = self.write(operation).await?;
        let mut removed = 0;
        for (table, column) in OF_A_RUN {
            let sql = format!("DELETE FROM {table} WHERE {column} = ?");
            let deleted = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(run_id)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed_to(operation))?;
            removed = deleted.rows_affected();
        }
        self.commit_write(transaction, operation).await?;
        Ok(removed > 0)
    }
}

/// A value as JSON: blobs as hex digits, and texts that are a JSON object or array as what they say.
fn value(row: &SqliteRow, ordinal: usize) -> std::result::Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(ordinal)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    Ok(match raw.type_info().name() {
        "INTEGER" => Value::from(row.try_get::<i64, _>(ordinal)?),
        "BLOB" => {
            let bytes: Vec<u8> = row.try_get(ordinal)?;
            let hex = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            Value::from(
                hex.filter_map(|digit| char::from_digit(digit.into(), 16)).collect::<String>(),
            )
        }
        _ => {
            let text: String = row.try_get(ordinal)?;
            let is_json = text.starts_with(['{', '[']);
            let parsed = is_json.then(|| serde_json::from_str(&text).ok()).flatten();
            parsed.unwrap_or(Value::from(text))
        }
    })
}
