//! The PostgreSQL source: `COPY (SELECT …) TO STDOUT (FORMAT binary)` in many ranges under one snapshot.
//!
//! Invariant: every read of a run happens in a repeatable-read, read-only transaction whose snapshot is
//! known; no snapshot is held longer than `snapshot_max`.

mod by_key;
mod columns;
mod cut;
mod gauge;
mod list;
mod order;
mod pass;
mod read;
mod shape;
mod snapshot;
mod sql;
mod unchanged;
mod watch;

pub use gauge::PostgresGauge;
pub use list::{Listed, ListedKind, list};
pub use pass::PostgresPass;
pub use shape::{Cut, Relation, Shape, SourceColumn, describe};
pub use snapshot::PostgresServer;

use crate::connect::postgres::from_sqlx;
use crate::error::Result;
use crate::extract::{ReadBefore, Session, Snapshot, Source};
use async_trait::async_trait;
use schemas::drift::Drift;
use schemas::{BoundRoute, Partition};
use std::sync::Arc;

/// One route's source.
pub struct PostgresSource {
    server: Arc<PostgresServer>,
    bound: Arc<BoundRoute>,
    shape: Arc<Shape>,
    /// Whether a row that was written cannot be written again when it changed.
    is_once: bool,
}

impl PostgresSource {
    /// Makes the source of a bound route.
    pub fn new(server: Arc<PostgresServer>, bound: Arc<BoundRoute>, shape: Shape) -> Self {
        let shape = Arc::new(shape);
        server.tables.note(&bound, &shape);
        Self { server, bound, shape, is_once: false }
    }

    /// For a target that takes each row once, and nothing back: what may have changed is read anew as a whole.
    #[must_use]
    pub fn for_each_row_once(mut self) -> Self {
        self.is_once = true;
        self
    }

    /// How the rows are cut, for `plan`.
    pub fn cut(&self) -> Cut {
        self.shape().cut(&self.bound.route)
    }

    /// What is read, as it was last looked at.
    fn shape(&self) -> Arc<Shape> {
        self.server.tables.shape(&self.bound.route).unwrap_or_else(|| Arc::clone(&self.shape))
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn relations(&self) -> String {
        self.shape().identity()
    }

    fn drift(&self) -> Vec<Drift> {
        self.server.tables.noticed(&self.bound.route)
    }

    fn size_batches(&self, bytes: usize) {
        self.server.size_batches(bytes);
    }

    fn no_catch_up(&self) -> Option<&'static str> {
        if self.bound.is_many() {
            return Some("a key is made of many rows, and those that changed do not make it whole");
        }
        if self.bound.is_stream() {
            return Some("an entry of a stream cannot be replaced by a row that changed");
        }
        match self.cut() {
            Cut::Ctid if self.is_once => {
                Some("a file holds each key once, and a row that changed cannot replace its entry")
            }
            Cut::Ctid => None,
            Cut::Key => Some("a view, foreign table or query has no row versions"),
            Cut::Whole => Some("it is read in one ordered or uncut pass"),
        }
    }

    /// A condition of the route is one that the planner has to guess the rows of.
    async fn rows_expected(&self) -> Result<Option<u64>> {
        let (Some(filter), Some(_)) = (&self.bound.route.filter, self.shape().rows_estimate())
        else {
            return Ok(None);
        };
        let planned = gauge::planned_rows(&self.server, &self.bound.route, filter);
        Box::pin(self.server.watched(planned)).await.map(Some)
    }

    async fn partitions(&self, wanted: usize, first: usize) -> Result<Vec<Partition>> {
        let shape = self.shape();
        let cut = cut::partitions(&self.server, &self.bound, &shape, wanted, first);
        Box::pin(self.server.watched(cut)).await
    }

    async fn contradictions(&self) -> Result<u64> {
        let Some(sql) = order::contradictions(&self.bound) else { return Ok(0) };
        let mut transaction = self.server.begin().await?;
        let name = &self.bound.route.name;
        let failed = |error| from_sqlx(error, &format!("cannot check the members of route {name}"));
        let (postgres, session) = transaction.watch();
        let count = async {
            let count = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
            count.fetch_one(&mut *transaction.connection).await.map_err(failed)
        };
        let found: i64 = postgres.watched(session.as_ref(), count).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(u64::try_from(found).unwrap_or(0))
    }

    fn tells_unchanged(&self) -> bool {
        unchanged::is_told(&self.bound, &self.shape(), self.is_once)
    }

    async fn unchanged(&self, parts: &[ReadBefore<'_>]) -> Result<Option<(Snapshot, Vec<bool>)>> {
        if !self.tells_unchanged() {
            return Ok(None);
        }
        let unchanged = unchanged::unchanged(&self.server, &self.bound, parts);
        Box::pin(self.server.watched(unchanged)).await
    }

    fn catch_up(&self, since_xid: u64, first: usize) -> Vec<Partition> {
        cut::catch_up(&self.bound.route.name, &self.shape(), since_xid, first)
    }

    fn rows_of(&self, keys: &[&[u8]]) -> Option<Partition> {
        by_key::partition(&self.bound, keys)
    }

    fn rows_with(&self, columns: &[usize], texts: &[Vec<&[u8]>]) -> Option<Partition> {
        by_key::of_columns(&self.bound, columns, texts)
    }

    async fn open(&self) -> Result<Box<dyn Session>> {
        // Before the snapshot is taken: what changes from here on is noticed by the read.
        let expected = self.server.tables.expected(&self.bound.route);
        let transaction = self.server.begin().await?;
        Ok(Box::new(PostgresSession {
            transaction,
            expected: expected.map(|expected| (Arc::clone(&self.server), expected)),
            bound: Arc::clone(&self.bound),
            deadline: self.server.snapshot_max(),
        }))
    }
}

/// One transaction and the route it reads for.
struct PostgresSession {
    transaction: snapshot::Transaction,
    expected: Option<read::Held>,
    bound: Arc<BoundRoute>,
    deadline: std::time::Duration,
}

impl Session for PostgresSession {
    fn snapshot(&self) -> &Snapshot {
        &self.transaction.snapshot
    }

    fn read(
        self: Box<Self>,
        partition: &Partition,
        from: &schemas::Position,
        columns: crate::extract::Columns,
    ) -> crate::extract::BatchStream {
        let sql = sql::copy(&self.bound, partition, from, columns, None);
        let (held, id) = (self.expected, partition.id.to_string());
        read::stream((self.transaction, held), sql, self.deadline, id)
    }

    fn sample(
        self: Box<Self>,
        partition: &Partition,
        from: &schemas::Position,
        rows_max: usize,
    ) -> crate::extract::BatchStream {
        let all = crate::extract::Columns::All;
        let sql = sql::copy(&self.bound, partition, from, all, Some(rows_max));
        let (held, id) = (self.expected, partition.id.to_string());
        read::stream((self.transaction, held), sql, self.deadline, id)
    }
}
