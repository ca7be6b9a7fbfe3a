//! What can go wrong with the journal, and how an `SQLite` failure is told apart from damage.
//!
//! Invariant: every error can be cloned, so that one failure reaches every lane as it is.

use crate::checkpoint::IllegalTransition;
use schemas::PartitionId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// The result of a journal operation.
pub type Result<T, E = JournalError> = std::result::Result<T, E>;

/// Why the journal could not do what it was asked to.
#[derive(Debug, Clone, Error)]
pub enum JournalError {
    /// Another process holds the state folder.
    #[error("state folder {} is in use by {}", path.display(), holder(*pid))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder, when it had already written its id.
        pid: Option<u32>,
    },
    /// A later version wrote the journal.
    #[error(
        "journal {} has format {found} (written by rekindle {written_by}), this version knows {known}",
        path.display()
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// The format it has.
        found: i64,
        /// The highest format this version reads.
        known: i64,
        /// The version that wrote it.
        written_by: String,
    },
    /// The journal is damaged or is not one. It is never repaired or overwritten.
    #[error("journal {} is damaged: {reason}", path.display())]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another attempt owns the partition; the caller must stop.
    #[error("partition {partition} is no longer owned by its epoch {epoch}")]
    Fenced {
        /// The partition.
        partition: PartitionId,
        /// The epoch that lost it.
        epoch: u64,
    },
    /// The state of the partition does not allow the event.
    #[error("cannot record what happened to partition {partition}")]
    Illegal {
        /// The partition.
        partition: PartitionId,
        /// The rule that was broken.
        source: IllegalTransition,
    },
    /// The record to change is not in the journal, or the one to add already is.
    #[error("cannot {operation} {name} in the journal: it {reason}")]
    Mismatch {
        /// What was asked for.
        operation: &'static str,
        /// The record.
        name: String,
        /// What stands in the way.
        reason: &'static str,
    },
    /// The file system refused: full, read-only, missing permission, broken.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it was refused.
        source: Arc<io::Error>,
    },
    /// What must be durable before a commit could not be made so.
    #[error("cannot make durable what the next commit depends on")]
    BeforeCommit {
        /// Why.
        source: Arc<io::Error>,
    },
    /// `SQLite` refused for another reason.
    #[error("cannot {operation} in journal {}", path.display())]
    Sql {
        /// What was being done.
        operation: &'static str,
        /// The journal.
        path: PathBuf,
        /// Why it was refused.
        source: Arc<sqlx::Error>,
    },
    /// The journal was opened for reading only.
    #[error("cannot {operation} in journal {}: it is open for reading only", path.display())]
    ReadOnly {
        /// What was asked for.
        operation: &'static str,
        /// The journal.
        path: PathBuf,
    },
    /// The committer has ended, so nothing more can be committed.
    #[error("the journal takes no more commits: its committer has ended")]
    Ended,
}

impl JournalError {
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn sql(operation: &'static str, path: &Path, source: sqlx::Error) -> Self {
        let storage = |kind, source| Self::io(operation, path, io::Error::new(kind, source));
        match source {
            // Our own rows are decoded by our own types: what does not parse was not written by us.
            sqlx::Error::ColumnDecode { index, source } => {
                Self::corrupt(path, format!("column {index} cannot be read: {source}"))
            }
            sqlx::Error::Decode(source) => Self::corrupt(path, source.to_string()),
            sqlx::Error::ColumnNotFound(column) => {
                Self::corrupt(path, format!("column {column} is missing"))
            }
            sqlx::Error::Io(source) => Self::io(operation, path, source),
            source => match primary_code(&source) {
                Some(SQLITE_CORRUPT | SQLITE_NOTADB) => Self::corrupt(path, source.to_string()),
                Some(SQLITE_FULL) => storage(io::ErrorKind::StorageFull, source),
                Some(SQLITE_READONLY) => storage(io::ErrorKind::ReadOnlyFilesystem, source),
                Some(SQLITE_PERM | SQLITE_IOERR | SQLITE_CANTOPEN) => {
                    storage(io::ErrorKind::Other, source)
                }
                _ => Self::Sql { operation, path: path.to_owned(), source: Arc::new(source) },
            },
        }
    }
}

// The primary result codes of <https://sqlite.org/rescode.html>, which are stable by promise.
const SQLITE_PERM: i32 = 3;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_NOTADB: i32 = 26;

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
