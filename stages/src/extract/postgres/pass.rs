//! Several routes over one table, read in one pass: one `COPY` with the columns of all of them.
//!
//! Invariant: a row is in the stream when one of the readers wants it and has not had it yet; for every reader with a
//! `where` a column tells whether it does.

use super::snapshot::{PostgresServer, Transaction};
use super::{read, sql};
use crate::error::Result;
use crate::extract::{BatchStream, PassSession, PassSource, Reader, Snapshot};
use crate::transform::TakeApart;
use crate::transform::copy_binary::{Part, Split};
use async_trait::async_trait;
use schemas::{BoundRoute, Bounds, Position};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Routes that read the same heap tables in the same ranges.
pub struct PostgresPass {
    server: Arc<PostgresServer>,
    routes: Vec<Arc<BoundRoute>>,
}

impl PostgresPass {
    /// Makes the pass of routes whose shapes are cut by `ctid` and name the same relations.
    pub fn new(server: Arc<PostgresServer>, routes: Vec<Arc<BoundRoute>>) -> Self {
        Self { server, routes }
    }
}

#[async_trait]
impl PassSource for PostgresPass {
    async fn open(&self) -> Result<Box<dyn PassSession>> {
        // All of them read one table.
        let expected =
            self.routes.first().and_then(|bound| self.server.tables.expected(&bound.route));
        let held = expected.map(|expected| (Arc::clone(&self.server), expected));
        let transaction = self.server.begin().await?;
        let deadline = self.server.snapshot_max();
        Ok(Box::new(Session { transaction, held, routes: self.routes.clone(), deadline }))
    }
}

struct Session {
    transaction: Transaction,
    held: Option<read::Held>,
    routes: Vec<Arc<BoundRoute>>,
    deadline: Duration,
}

impl PassSession for Session {
    fn snapshot(&self) -> &Snapshot {
        &self.transaction.snapshot
    }

    fn read(
        self: Box<Self>,
        bounds: &Bounds,
        readers: &[Reader],
    ) -> (BatchStream, Box<dyn TakeApart>) {
        let routes: Vec<&BoundRoute> =
            readers.iter().map(|reader| &*self.routes[reader.route]).collect();
        let from: Vec<&Position> = readers.iter().map(|reader| &reader.from).collect();
        let (sql, fields, parts) = pass(&routes, bounds, &from);
        let names: Vec<String> =
            readers.iter().map(|reader| reader.partition.to_string()).collect();
        let batch_bytes = self.transaction.size().load(Ordering::Relaxed);
        let stream =
            read::stream((self.transaction, self.held), sql, self.deadline, names.join(", "));
        (stream, Box::new(Split::new(fields, parts, batch_bytes)))
    }
}

/// Returns the statement, how many fields its tuples have, and what is whose.
fn pass(routes: &[&BoundRoute], bounds: &Bounds, from: &[&Position]) -> (String, usize, Vec<Part>) {
    let mut selected = vec!["ctid".to_owned()];
    let mut place = |expression: String| {
        selected.iter().position(|other| *other == expression).unwrap_or_else(|| {
            selected.push(expression);
            selected.len() - 1
        })
    };
    let mut parts = Vec::with_capacity(routes.len());
    for (route, from) in routes.iter().zip(from) {
        let filter = route.route.filter.as_deref();
        let wanted = filter.map(|filter| place(format!("({filter}\n) is true")));
        let columns = sql::columns(route).into_iter().map(&mut place).collect();
        let after = match from {
            Position::Ctid { block, offset } => Some((*block, *offset)),
            _ => None,
        };
        parts.push(Part { wanted, columns, after });
    }
    let start = parts.iter().map(|part| part.after).min().flatten();
    let mut conditions = sql::ctid_range(bounds, start);
    // Where one of them wants every row, there is nothing to leave out.
    let filters: Option<Vec<String>> = routes
        .iter()
        .map(|route| Some(format!("({}\n)", route.route.filter.as_deref()?)))
        .collect();
    if let Some(mut filters) = filters {
        filters.sort();
        filters.dedup();
        conditions.push(format!("({})", filters.join(" or ")));
    }
    let relation = match bounds {
        Bounds::Ctid { relation, .. } => relation.as_str(),
        // Only ranges of a heap are read in one pass.
        _ => "",
    };
    let sql = format!(
        "copy (select {} from only {relation} where {}) to stdout (format binary)",
        selected.join(", "),
        conditions.join(" and ")
    );
    (sql, selected.len(), parts)
}
