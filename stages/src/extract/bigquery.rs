//! The BigQuery source: Storage Read in arrow, one session per partition, all at one pinned snapshot time.
//!
//! Invariant: every read of a table in a run sees it as of the same time, also after a resume; what a query returned is
//! read from the table that the run's own job wrote.

mod cut;
mod pieces;
mod server;
mod session;
mod shape;
mod staging;
mod stream;

pub use server::BigQueryServer;
pub use shape::{Partitioning, Shape, describe, refuse_fields, resource_shape, table_schema};

use crate::error::Result;
use crate::extract::{BatchStream, Columns, Estimate, Session, Snapshot, Source};
use crate::failpoint::{Point, pass};
use async_trait::async_trait;
use schemas::{BoundRoute, Partition, Position};
use std::sync::{Arc, OnceLock};

/// What a message of the service is taken to hold at most, for the memory bound. Blocks of a megabyte were seen.
pub const MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// One route's source.
pub struct BigQuerySource {
    server: Arc<BigQueryServer>,
    bound: Arc<BoundRoute>,
    shape: Shape,
    /// The table that a query's result was written to.
    staged: OnceLock<staging::Staged>,
}

impl BigQuerySource {
    /// Makes the source of a bound route.
    pub fn new(server: Arc<BigQueryServer>, bound: Arc<BoundRoute>, shape: Shape) -> Self {
        Self { server, bound, shape, staged: OnceLock::new() }
    }

    /// The table that is read: the route's own, or the one that holds its query's result.
    fn table(&self) -> Result<session::Table> {
        match &self.shape.origin {
            shape::Read::Table { dataset, table } => {
                let path = self.server.bigquery().table_path(dataset, table);
                Ok(session::Table { path, snapshot_us: Some(self.server.snapshot().taken_us) })
            }
            // Nobody changes it, and it is younger than the snapshot.
            shape::Read::Query { .. } => match self.staged.get() {
                Some(staged) => {
                    let path = self.server.bigquery().table_path(&staged.dataset, &staged.table);
                    Ok(session::Table { path, snapshot_us: None })
                }
                None => Err(staging::not_yet(&self.bound.route.name)),
            },
        }
    }
}

#[async_trait]
impl Source for BigQuerySource {
    fn relations(&self) -> String {
        match (&self.shape.origin, self.staged.get()) {
            (shape::Read::Query { .. }, Some(staged)) => staged.table.clone(),
            _ => self.shape.identity.clone(),
        }
    }

    /// Every attempt reads the same pinned snapshot, so nothing ever changes in between.
    fn no_catch_up(&self) -> Option<&'static str> {
        None
    }

    async fn prepare(&self, run_id: &str) -> Result<()> {
        if let shape::Read::Query { sql } = &self.shape.origin
            && self.staged.get().is_none()
        {
            let staged = staging::stage(&self.server, &self.bound.route.name, sql, run_id).await?;
            // A second caller would have found the same table.
            self.staged.get_or_init(|| staged);
        }
        Ok(())
    }

    async fn discard(&self) -> Result<()> {
        if let Some(staged) = self.staged.get() {
            self.server.bigquery().delete_table(&staged.dataset, &staged.table).await?;
            pass(Point::QueryDropped);
        }
        Ok(())
    }

    /// A session is made and not read: that costs nothing, and it knows what it would scan.
    async fn estimate(&self) -> Result<Option<Estimate>> {
        let shape::Read::Table { .. } = &self.shape.origin else {
            let (rows, bytes_read) = (None, None);
            return Ok(Some(Estimate { rows, bytes_read, bytes_billed: self.shape.bytes }));
        };
        let whole = cut::everything(self.shape.partitioning.as_ref());
        let wanted = session::Wanted {
            table: self.table()?,
            selected: session::selected(&self.bound, Columns::All),
            restriction: session::restriction(&self.bound.route, &whole),
            streams: 1,
        };
        let name = format!("of route {}", self.bound.route.name);
        let made = session::create(self.server.bigquery(), &wanted, &name).await?;
        let rows = made.rows.or(self.shape.rows_estimate);
        Ok(Some(Estimate { rows, bytes_read: Some(made.bytes), bytes_billed: made.bytes }))
    }

    fn batch_bytes(&self) -> usize {
        MESSAGE_BYTES
    }

    async fn partitions(&self, wanted: usize, first: usize) -> Result<Vec<Partition>> {
        let staged_rows = self.staged.get().map(|staged| (staged.rows, staged.bytes));
        cut::partitions(&self.server, &self.bound, &self.shape, staged_rows, (wanted, first)).await
    }

    fn catch_up(&self, _since_xid: u64, _first: usize) -> Vec<Partition> {
        Vec::new()
    }

    async fn open(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(BigQuerySession {
            server: Arc::clone(&self.server),
            bound: Arc::clone(&self.bound),
            table: self.table()?,
            snapshot: self.server.snapshot(),
        }))
    }
}

/// A read that has not begun; the service's session is made with the stream, because it holds the filter.
struct BigQuerySession {
    server: Arc<BigQueryServer>,
    bound: Arc<BoundRoute>,
    table: session::Table,
    snapshot: Snapshot,
}

impl Session for BigQuerySession {
    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn read(
        self: Box<Self>,
        partition: &Partition,
        _from: &Position,
        columns: Columns,
    ) -> BatchStream {
        let selected = session::selected(&self.bound, columns);
        let mut restriction = session::restriction(&self.bound.route, &partition.bounds);
        if columns == Columns::Key {
            restriction = session::has_element(&self.bound, restriction);
        }
        let wanted = session::Wanted {
            table: self.table,
            selected,
            restriction,
            streams: session::streams(partition.bytes_estimate),
        };
        stream::stream(self.server.bigquery().clone(), wanted, partition.id.to_string())
    }
}
