//! The journal: what a run did, durable in an `SQLite` file of the state folder.
//!
//! Invariant: `journal.sqlite` appears complete or not at all, is written by one process at a time, and is never
//! repaired, overwritten or guessed around when it is damaged or newer than this binary.
//!
//! Nothing in this process may open the file except through `SQLite`: closing any other descriptor of it would drop the
//! locks `SQLite` holds on it.

mod committer;
mod error;
mod lock;
mod partitions;
mod record;
mod restores;
mod row;
mod store;
#[cfg(test)]
mod tests;
mod upkeep;

pub use committer::{BeforeCommit, CommitHandle, Committer};
pub use error::{JournalError, Result};
pub use record::{
    Begun, Delta, NewRoute, NewRun, NewSnapshot, PartitionRecord, RouteRecord, RunRecord,
    RunStatus, ServerRecord, SnapshotRecord,
};
pub use restores::{JobRecord, RestoreRecord, StreamRecord};

pub(crate) use lock::StateLock;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row, Sqlite, SqliteConnection, Transaction};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The layout of the tables; a journal with a higher one was written by a later version.
const FORMAT: i64 = 1;
const BINARY_VERSION: &str = env!("CARGO_PKG_VERSION");
const FILE: &str = "journal.sqlite";
const LOCK_FILE: &str = "lock";
/// How long to wait for a reader that blocks recovery or a checkpoint of the write-ahead log.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// An open journal. Clones share it; the lock goes with the last one.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

// Fields drop in order: the pool stops handing out connections before the lock is released.
#[derive(Debug)]
struct Inner {
    pool: SqlitePool,
    path: PathBuf,
    lock: Option<StateLock>,
}

impl Journal {
    /// Opens the journal of `state_dir` for writing, creating folder and journal when there are none.
    ///
    /// Holds the lock of the folder until the last clone is dropped; while another process has it, this is
    /// [`JournalError::Locked`].
    pub async fn open(state_dir: &Path) -> Result<Self> {
        let state_dir = absolute(state_dir)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&state_dir)
            .map_err(|source| JournalError::io("create", &state_dir, source))?;
        let lock = StateLock::take(&state_dir.join(LOCK_FILE))?;
        let path = state_dir.join(FILE);
        if !exists(&path)? {
            create(&path).await?;
        }
        // Looked at through a read-only connection first, so that a file we refuse is left exactly as it was.
        inspect(&path).await?;
        let pool = connect(&path, writable(&path)).await?;
        let journal = Self { inner: Arc::new(Inner { pool, path, lock: Some(lock) }) };
        journal.sign().await?;
        Ok(journal)
    }

    /// Opens the journal of `state_dir` beside a run that may be writing it; `None` when there is none yet.
    pub async fn open_read_only(state_dir: &Path) -> Result<Option<Self>> {
        let path = absolute(state_dir)?.join(FILE);
        if !exists(&path)? {
            return Ok(None);
        }
        inspect(&path).await?;
        let pool = connect(&path, readable(&path)).await?;
        Ok(Some(Self { inner: Arc::new(Inner { pool, path, lock: None }) }))
    }

    /// Closes the connection and waits for it; the lock goes with the last clone.
    pub async fn close(self) {
        self.inner.pool.close().await;
    }

    /// Returns the path of the journal file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    fn pool(&self) -> &SqlitePool {
        &self.inner.pool
    }

    /// Begins a transaction that may write. Dropping it without a commit leaves no trace.
    async fn write(&self, operation: &'static str) -> Result<Transaction<'static, Sqlite>> {
        if self.inner.lock.is_none() {
            return Err(JournalError::ReadOnly { operation, path: self.inner.path.clone() });
        }
        // IMMEDIATE: a transaction that reads first would otherwise fail when it comes to write.
        self.pool().begin_with("BEGIN IMMEDIATE").await.map_err(self.failed_to(operation))
    }

    async fn commit_write(
        &self,
        transaction: Transaction<'static, Sqlite>,
        operation: &'static str,
    ) -> Result<()> {
        transaction.commit().await.map_err(self.failed_to(operation))
    }

    fn failed_to(&self, operation: &'static str) -> impl Fn(sqlx::Error) -> JournalError + '_ {
        move |source| JournalError::sql(operation, &self.inner.path, source)
    }

    /// Records which version writes now. It is also the first write, so a full disk is found before the run starts.
    async fn sign(&self) -> Result<()> {
        let operation = "record the version";
        let mut transaction = self.write(operation).await?;
        sqlx::query("UPDATE format SET written_by = ?")
            .bind(BINARY_VERSION)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed_to(operation))?;
        sqlx::raw_sql(include_str!("restore.sql"))
            .execute(&mut *transaction)
            .await
            .map_err(self.failed_to(operation))?;
        add_columns(&mut transaction).await.map_err(self.failed_to(operation))?;
        self.commit_write(transaction, operation).await
    }
}

/// Adds the columns that a journal of an earlier version does not have; that version can still write it.
async fn add_columns(connection: &mut SqliteConnection) -> std::result::Result<(), sqlx::Error> {
    let found = "SELECT count(*) FROM pragma_table_info('partition') WHERE name = 'folded'";
    let found: i64 = sqlx::query_scalar(found).fetch_one(&mut *connection).await?;
    if found == 0 {
        let add = "ALTER TABLE partition ADD COLUMN folded INTEGER NOT NULL DEFAULT 0";
        sqlx::query(add).execute(&mut *connection).await?;
    }
    let found = "SELECT count(*) FROM pragma_table_info('route') WHERE name = 'shape'";
    let found: i64 = sqlx::query_scalar(found).fetch_one(&mut *connection).await?;
    if found == 0 {
        sqlx::query("ALTER TABLE route ADD COLUMN shape TEXT").execute(connection).await?;
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|source| JournalError::io("resolve", path, source))
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|source| JournalError::io("look at", path, source))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn writable(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// Read-only options. A folder on a read-only file system has no room for the shared memory of the write-ahead log,
/// so a journal that was closed there is opened as a file nobody can change.
fn readable(path: &Path) -> SqliteConnectOptions {
    let is_sealed = !beside(path, "-wal").exists()
        && path.parent().is_some_and(|folder| {
            nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_err()
        });
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(is_sealed)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

async fn connect(path: &Path, options: SqliteConnectOptions) -> Result<SqlitePool> {
    // One connection: SQLite has one writer, and waiting for it here is fairer than in its busy handler.
    SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(|source| JournalError::sql("open", path, source))
}

/// Builds an empty journal beside `path` and renames it into place.
async fn create(path: &Path) -> Result<()> {
    let log = beside(path, "-wal");
    if exists(&log)? {
        // SQLite would replay that log into the new file.
        return Err(JournalError::corrupt(
            path,
            format!("it is missing, but its log {} is there", log.display()),
        ));
    }
    let new = beside(path, ".new");
    for leftover in ["", "-wal", "-shm", "-journal"].map(|suffix| beside(&new, suffix)) {
        match fs::remove_file(&leftover) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(JournalError::io("remove", &leftover, source));
            }
            _ => {}
        }
    }
    // Created here because SQLite gives its log and shared memory the permissions of the file.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(|source| JournalError::io("create", &new, source))?;
    fill(&new).await.map_err(|source| JournalError::sql("create", &new, source))?;
    fs::rename(&new, path).map_err(|source| JournalError::io("create", path, source))?;
    let folder = path.parent().unwrap_or(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| JournalError::io("make durable", folder, source))
}

async fn fill(path: &Path) -> Result<(), sqlx::Error> {
    let mut connection = writable(path).connect().await?;
    sqlx::raw_sql(include_str!("schema.sql")).execute(&mut connection).await?;
    sqlx::query("INSERT INTO format (only, format, written_by) VALUES (1, ?, ?)")
        .bind(FORMAT)
        .bind(BINARY_VERSION)
        .execute(&mut connection)
        .await?;
    // The last connection to close moves the log into the file and removes it.
    connection.close().await
}

/// Refuses a file that is not an intact journal of a format this binary knows.
async fn inspect(path: &Path) -> Result<()> {
    let failed = |source| JournalError::sql("open", path, source);
    let mut connection = readable(path).connect().await.map_err(failed)?;
    let verdict = examine(&mut connection, path).await;
    let closed = connection.close().await.map_err(failed);
    verdict.and(closed)
}

async fn examine(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    let failed = |source| JournalError::sql("open", path, source);
    let has_format: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'format')",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed)?;
    if !has_format {
        return Err(JournalError::corrupt(path, "it is not a journal of rekindle"));
    }
    // The format comes before the check: a later one may use what this SQLite cannot check.
    let row = sqlx::query("SELECT format, written_by FROM format")
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?
        .ok_or_else(|| JournalError::corrupt(path, "it does not say its format"))?;
    let found: i64 = row.try_get("format").map_err(failed)?;
    let written_by: String = row.try_get("written_by").map_err(failed)?;
    if found > FORMAT {
        return Err(JournalError::Newer {
            path: path.to_owned(),
            found,
            known: FORMAT,
            written_by,
        });
    }
    if found < FORMAT {
        return Err(JournalError::corrupt(path, format!("there is no format {found}")));
    }
    let check: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if check == "ok" { Ok(()) } else { Err(JournalError::corrupt(path, check)) }
}
