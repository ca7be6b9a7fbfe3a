//! Snapshots: one transaction exports it, every reader imports it.
//!
//! Invariant: a reader's transaction sees exactly the `Snapshot` it reports. An exported snapshot that
//! died or grew too old is replaced, never reused.

use super::watch::Tables;
use crate::connect::postgres::{Postgres, SessionId, from_sqlx};
use crate::error::{Error, Kind, Result};
use crate::extract::{BATCH_BYTES, Snapshot};
use crate::policy;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const BEGIN: &str = "begin isolation level repeatable read, read only";

/// Reads the snapshot and, where the server tells, who it is. The time is that of `begin`, from before the snapshot was
/// taken: what was committed until then is in it. `pg_control_*` may be denied or absent:
/// the identity is then empty and nothing ever continues it.
const OBSERVE: &str = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint, \
     pg_snapshot_xmax(pg_current_snapshot())::text::bigint, \
     (extract(epoch from transaction_timestamp()) * 1000000)::bigint, \
     pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
     else pg_current_wal_lsn() end, '0/0')::bigint";

const IDENTITY: &str = "select format('%s/%s/%s', s.system_identifier, \
     c.timeline_id, (select oid from pg_database where datname = current_database())) \
     from pg_control_system() s, pg_control_checkpoint() c";

/// The server of a run: its pool and its current snapshot.
pub struct PostgresServer {
    postgres: Postgres,
    snapshot_max: Duration,
    exported: Mutex<Option<Exported>>,
    /// Bytes at which a batch is closed.
    batch_bytes: Arc<AtomicUsize>,
    /// What its routes read.
    pub(super) tables: Tables,
}

/// A snapshot held open by a transaction of its own.
struct Exported {
    name: String,
    snapshot: Snapshot,
    since: Instant,
    holder: PoolConnection<sqlx::Postgres>,
}

/// A reader's transaction. Dropped before it was committed, it takes its connection along: the pool must
/// never hand out one that is still inside a transaction.
pub(super) struct Transaction {
    pub(super) connection: PoolConnection<sqlx::Postgres>,
    pub(super) snapshot: Snapshot,
    session: Option<SessionId>,
    postgres: Postgres,
    batch_bytes: Arc<AtomicUsize>,
    is_committed: bool,
}

impl Transaction {
    /// What a wait for this transaction needs, apart from its connection.
    pub(super) fn watch(&self) -> (Postgres, Option<SessionId>) {
        (self.postgres.clone(), self.session.clone())
    }

    /// Bytes at which a batch is closed; they may change while it reads.
    pub(super) fn size(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.batch_bytes)
    }

    /// Ends the transaction; nothing was written, so a failure costs only the connection.
    pub(super) async fn commit(&mut self) -> std::result::Result<(), sqlx::Error> {
        let commit = sqlx::raw_sql("commit").execute(&mut *self.connection);
        let ended = tokio::time::timeout(policy::answer_max(), commit).await;
        ended.map_err(|_| sqlx::Error::PoolTimedOut)??;
        self.is_committed = true;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.is_committed {
            self.connection.close_on_drop();
        }
    }
}

impl PostgresServer {
    /// Wraps a connected pool.
    pub fn new(postgres: Postgres, snapshot_max: Duration) -> Self {
        let batch_bytes = Arc::new(AtomicUsize::new(BATCH_BYTES));
        let (exported, tables) = (Mutex::new(None), Tables::default());
        Self { postgres, snapshot_max, exported, batch_bytes, tables }
    }

    /// Closes batches at about so many bytes from the next one on.
    pub fn size_batches(&self, bytes: usize) {
        self.batch_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Returns `host:port/database`.
    pub fn address(&self) -> &str {
        &self.postgres.address
    }

    /// How long one snapshot may be held.
    pub fn snapshot_max(&self) -> Duration {
        self.snapshot_max
    }

    /// Lets go of the held snapshot; the next reader takes a new one.
    pub async fn release_snapshot(&self) {
        if let Some(mut exported) = self.exported.lock().await.take() {
            exported.holder.close_on_drop();
        }
    }

    /// Takes a pooled connection.
    pub async fn connection(&self) -> Result<PoolConnection<sqlx::Postgres>> {
        self.postgres.acquire().await
    }

    /// Waits for what any session of this server is asked for, as long as the server works on it.
    pub async fn watched<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.postgres.watched(None, work).await
    }

    /// Waits for what costs a server no work.
    pub(super) async fn at_once<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        policy::answered(|| format!("alloydb at {}", self.address()), work).await
    }

    /// Begins a transaction under the run's snapshot, or under its own where it cannot be imported.
    pub(super) async fn begin(&self) -> Result<Transaction> {
        let (name, snapshot) = self.current().await?;
        let mut connection = self.connection().await?;
        let sql = format!("{BEGIN}; set transaction snapshot '{name}'");
        let import = async {
            let begun = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await;
            begun.map_err(|error| {
                let what = format!("cannot import the snapshot on {}", self.postgres.address);
                from_sqlx(error, &what)
            })
        };
        match self.at_once(import).await {
            Ok(_) => return self.transaction(connection, snapshot).await,
            Err(error) if error.kind().is_transient() => {
                connection.close_on_drop();
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(%error, "the snapshot cannot be shared (a pooler or another node?); this partition takes its own");
            }
        }
        let begun = self.at_once(self.begin_own(&mut connection)).await;
        match begun {
            Ok(snapshot) => self.transaction(connection, snapshot).await,
            Err(error) => {
                connection.close_on_drop();
                Err(error)
            }
        }
    }

    async fn transaction(
        &self,
        connection: PoolConnection<sqlx::Postgres>,
        snapshot: Snapshot,
    ) -> Result<Transaction> {
        let postgres = self.postgres.clone();
        let batch_bytes = Arc::clone(&self.batch_bytes);
        let (session, is_committed) = (None, false);
        let mut transaction =
            Transaction { connection, snapshot, session, postgres, batch_bytes, is_committed };
        // Who does not tell is watched less closely.
        let session = async {
            let told = SessionId::told(&mut transaction.connection).await;
            told.map_err(|error| {
                from_sqlx(error, &format!("cannot ask {} who it is", self.postgres.address))
            })
        };
        transaction.session = self.at_once(session).await?;
        Ok(transaction)
    }

    async fn begin_own(&self, connection: &mut PgConnection) -> Result<Snapshot> {
        let failed = |error| from_sqlx(error, "cannot begin a transaction");
        // What the failed import left behind is undone; without a transaction this is only a notice.
        sqlx::raw_sql("rollback").execute(&mut *connection).await.map_err(failed)?;
        let identity = self.identity(connection).await;
        sqlx::raw_sql(BEGIN).execute(&mut *connection).await.map_err(failed)?;
        self.observe(connection, identity).await
    }

    async fn current(&self) -> Result<(String, Snapshot)> {
        if let Some(current) = self.held(&mut *self.exported.lock().await).await {
            return Ok(current);
        }
        // Before the lock: lanes that lost one server wait for it beside each other, not one after the other.
        let mut holder = self.connection().await?;
        let mut slot = self.exported.lock().await;
        if let Some(current) = self.held(&mut slot).await {
            return Ok(current);
        }
        let (name, snapshot) = match self.at_once(self.export(&mut holder)).await {
            Ok(exported) => exported,
            Err(error) => {
                holder.close_on_drop();
                return Err(error);
            }
        };
        let current = (name.clone(), snapshot.clone());
        *slot = Some(Exported { name, snapshot, since: Instant::now(), holder });
        Ok(current)
    }

    async fn export(&self, holder: &mut PgConnection) -> Result<(String, Snapshot)> {
        let identity = self.identity(holder).await;
        sqlx::raw_sql(BEGIN)
            .execute(&mut *holder)
            .await
            .map_err(|error| from_sqlx(error, "cannot begin a transaction"))?;
        let snapshot = self.observe(holder, identity).await?;
        let name: String = sqlx::query_scalar("select pg_export_snapshot()")
            .fetch_one(&mut *holder)
            .await
            .map_err(|error| from_sqlx(error, "cannot export a snapshot"))?;
        Ok((name, snapshot))
    }

    /// The snapshot that is held, where it may still be used; else nothing is held any more.
    async fn held(&self, slot: &mut Option<Exported>) -> Option<(String, Snapshot)> {
        let mut exported = slot.take()?;
        let is_fresh = exported.since.elapsed() < self.snapshot_max;
        let ping = sqlx::raw_sql("select 1").execute(&mut *exported.holder);
        // The holder may have died (restart, administrator), and its snapshot with it; idle for long, its connection may
        // be known to nobody on the way any more.
        let answered = tokio::time::timeout(policy::answer_max(), ping).await;
        if is_fresh && matches!(answered, Ok(Ok(_))) {
            let current = (exported.name.clone(), exported.snapshot.clone());
            *slot = Some(exported);
            return Some(current);
        }
        exported.holder.close_on_drop();
        tracing::info!(
            "the snapshot on alloydb is replaced; rows changed since are read again at the end"
        );
        None
    }

    async fn observe(&self, connection: &mut PgConnection, identity: String) -> Result<Snapshot> {
        let failed = |error| from_sqlx(error, "cannot read the snapshot of alloydb");
        let row = sqlx::query(OBSERVE).fetch_one(&mut *connection).await.map_err(failed)?;
        let unsigned = |index: usize| -> Result<u64> {
            let value: i64 = row.try_get(index).map_err(failed)?;
            u64::try_from(value)
                .map_err(|_| Error::new(Kind::Internal, "alloydb reported a negative snapshot"))
        };
        Ok(Snapshot {
            xmin: unsigned(0)?,
            xmax: unsigned(1)?,
            taken_us: row.try_get(2).map_err(failed)?,
            lsn: unsigned(3)?,
            identity,
        })
    }

    /// Asks for the system identifier, before the transaction: a denied function would end it, and a
    /// savepoint would keep its snapshot from being exported.
    async fn identity(&self, connection: &mut PgConnection) -> String {
        match sqlx::query_scalar::<_, String>(IDENTITY).fetch_one(connection).await {
            Ok(system) => format!("{system} {}", self.postgres.address),
            Err(error) => {
                tracing::debug!(%error, "alloydb does not tell its system identifier");
                String::new()
            }
        }
    }
}
