//! Tables that a bench makes in the staging dataset, and their removal.
//!
//! Invariant: every one begins with a prefix that no other bench has, and nothing else is ever deleted; the prefix is
//! on disk before the first table, so that the next bench removes what a killed one left.

use super::COMMAND;
use crate::ledger::io_error;
use crate::rebuild::patiently;
use crate::restore::Scratch;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stages::connect::bigquery::BigQuery;
use stages::{Error, Kind, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the names of all begin with.
const PREFIX: &str = "rekindle_bench_";

/// The note that a killed bench leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    project: String,
    dataset: String,
    prefix: String,
}

/// The tables of one bench.
pub(super) struct ScratchTables {
    bigquery: BigQuery,
    note: Note,
    path: PathBuf,
    retry_for: Duration,
}

impl ScratchTables {
    /// Removes what a killed bench left, and names the tables of this one. None is made yet.
    pub(super) async fn begin(
        bigquery: &BigQuery,
        dataset: &str,
        state: &Path,
        retry_for: Duration,
    ) -> Result<Self> {
        let path = state.join("bench.tables");
        let of =
            |note: Note| Self { bigquery: bigquery.clone(), note, path: path.clone(), retry_for };
        if let Some(left) = read(&path)? {
            if left.project != bigquery.project() {
                let message = format!(
                    "a bench that was killed has left tables {}* in dataset {} of project {}",
                    left.prefix, left.dataset, left.project
                );
                return Err(Error::new(Kind::Config, message).with_hint(format!(
                    "see that they are gone, which they are a day after it, then remove {}",
                    path.display()
                )));
            }
            of(left).end().await?;
        }
        let prefix = format!("{PREFIX}{}_", Uuid::new_v4().simple());
        let note =
            Note { project: bigquery.project().to_owned(), dataset: dataset.to_owned(), prefix };
        let text = serde_json::to_string(&note).map_err(|error| {
            Error::new(Kind::Internal, "the note of a bench is no JSON").with_source(error)
        })?;
        fs::write(&path, text).map_err(|error| io_error("write", &path, error))?;
        Ok(of(note))
    }

    /// Where the tables of one run go.
    pub(super) fn place(&self, number: usize) -> Scratch {
        let Note { dataset, prefix, .. } = &self.note;
        Scratch { dataset: dataset.clone(), prefix: format!("{prefix}{number}_") }
    }

    /// Removes them, and looks that they are gone.
    pub(super) async fn clear(&self) -> Result<()> {
        // They have to go after a signal too.
        let never = CancellationToken::new();
        patiently(self.retry_for, &never, || self.remove()).await?;
        let left = patiently(self.retry_for, &never, || self.names()).await?;
        if left.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} tables {}* of the bench are still in dataset {}",
            left.len(),
            self.note.prefix,
            self.note.dataset
        );
        Err(Error::new(Kind::Difference, message)
            .with_hint(format!("run it again, which removes them: rekindle {COMMAND} bigquery")))
    }

    /// The same, after which nothing is to be removed any more.
    pub(super) async fn end(self) -> Result<()> {
        self.clear().await?;
        fs::remove_file(&self.path).map_err(|error| io_error("remove", &self.path, error))
    }

    async fn remove(&self) -> Result<()> {
        for name in self.names().await? {
            self.bigquery.delete_table(&self.note.dataset, &name).await?;
        }
        Ok(())
    }

    async fn names(&self) -> Result<Vec<String>> {
        let dataset = &self.note.dataset;
        if self.bigquery.dataset(dataset).await?.is_none() {
            return Ok(Vec::new());
        }
        let tables = self.bigquery.tables(dataset).await?;
        Ok(tables.iter().filter_map(|table| own(table, &self.note.prefix)).collect())
    }
}

/// The name of a table of the list, where it is one of ours.
fn own(table: &Value, prefix: &str) -> Option<String> {
    let name = table.pointer("/tableReference/tableId")?.as_str()?;
    // A prefix that was cut short would name more than is ours.
    let is_whole = prefix.starts_with(PREFIX) && prefix.len() > PREFIX.len() + 32;
    (is_whole && name.starts_with(prefix)).then(|| name.to_owned())
}

fn read(path: &Path) -> Result<Option<Note>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path, error)),
    };
    // It is written before any table is made: a torn one names none.
    Ok(serde_json::from_str(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_tables_of_this_bench_are_its_own() {
        let table = |name: &str| json!({"tableReference": {"tableId": name}});
        let prefix = format!("{PREFIX}{}_", Uuid::new_v4().simple());
        let name = format!("{prefix}0_logs");
        assert_eq!(own(&table(&name), &prefix), Some(name.clone()));
        let other = format!("{PREFIX}{}_0_logs", Uuid::new_v4().simple());
        for foreign in ["logs", PREFIX, other.as_str(), ""] {
            assert_eq!(own(&table(foreign), &prefix), None, "{foreign}");
        }
        // A note that was cut short names nothing.
        for short in ["", PREFIX, "rekindle_bench_ab_"] {
            assert_eq!(own(&table(&name), short), None, "{short}");
        }
    }

    #[test]
    fn a_note_that_is_torn_or_absent_names_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench.tables");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, "{\"project\": \"p\", \"da").unwrap();
        assert_eq!(read(&path).unwrap(), None);
        let note = Note { project: "p".into(), dataset: "d".into(), prefix: "x".into() };
        fs::write(&path, serde_json::to_string(&note).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(note));
    }
}
