//! Row routes: tables whose rows an application wrote into Redis one by one, enumerated into a spool.
//!
//! Invariant: an attempt at a partition is one write stream from its first row to its last; another process never
//! continues it, because Redis does not promise the same rows again.

mod fill;
mod open;
mod read;

pub(super) use fill::fill;
pub(super) use open::{GUARANTEES_GONE, open_rows, refuse};

use super::Shared;
use super::table::Table;
use crate::ledger::io_error;
use crate::rejects::RejectWriter;
use crate::spool::{self, Facts};
use schemas::plan::{Layout, RejectsMax};
use schemas::{Digest, ReverseRoute, Route};
use serde::{Deserialize, Serialize};
use stages::extract::redis_rows::{Held, RedisRows};
use stages::failpoint::{Point, pass};
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the rows of a route are.
#[derive(Clone)]
pub(super) struct RowSource {
    pub(super) rows: RedisRows,
    pub(super) held: Held,
    pub(super) reverse: Arc<ReverseRoute>,
    pub(super) route: Arc<Route>,
    pub(super) path: PathBuf,
    pub(super) rejects: Arc<RejectWriter>,
}

/// What is journaled of a spool with the choice of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spool {
    pub(super) facts: Facts,
    pub(super) cuts: Vec<spool::Cut>,
}

/// What became of the rows of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// Bytes of the replies.
    pub(super) bytes: u64,
    /// Keys that were gone when they were read.
    pub(super) vanished: u64,
    /// Rows that could not be decoded.
    pub(super) rejects: u64,
}

/// What became of the rows of a table, by partition.
pub(super) type CountedRows = BTreeMap<String, Counted>;

/// What rows of a layout are kept in; `None` for layouts that are not read row by row.
pub(crate) fn held_in(layout: Layout) -> Option<Held> {
    match layout {
        Layout::Hash => Some(Held::Hashes),
        Layout::Json => Some(Held::Texts),
        Layout::Stream => Some(Held::Streams),
        _ => None,
    }
}

/// Name of a partition, and its place among the cuts.
pub(super) fn partition_name(place: usize) -> String {
    format!("spool-{place:05}")
}

impl Table {
    /// The range of the spool that a partition is.
    pub(super) fn cut_of(&self, partition: &str) -> Option<&spool::Cut> {
        let place: usize = partition.strip_prefix("spool-")?.parse().ok()?;
        self.choice.spool.as_ref()?.cuts.get(place)
    }

    /// Notes rows and digest of everything that was loaded, and refuses more rejects than the plan allows.
    pub(super) async fn count_rows(&mut self, shared: &Shared) -> Result<()> {
        let (Some(source), Some(spool)) = (self.rows.clone(), self.choice.spool.clone()) else {
            return Ok(());
        };
        let loaded: Digest = self.expected(shared).await?;
        let counted = self.findings.counted.values();
        let (vanished, rejects, bytes) = counted.fold((0, 0, 0), |sum, part| {
            (sum.0 + part.vanished, sum.1 + part.rejects, sum.2 + part.bytes)
        });
        let vanished = match source.held {
            // Which entries a stream lost cannot be told, only how many.
            Held::Streams => spool.facts.entries.saturating_sub(loaded.count + rejects),
            Held::Hashes | Held::Texts => vanished,
        };
        self.findings.loaded = Some(super::table::LoadedRows {
            rows: loaded.count,
            digest: loaded.hex(),
            bytes,
            rejects,
            vanished,
        });
        check_budget(&source, loaded.count, rejects)
    }

    /// Removes the spool, which nothing needs any more.
    pub(super) fn remove_spool(&self) -> Result<()> {
        match &self.rows {
            Some(source) => remove(&source.path)?,
            None => return Ok(()),
        }
        pass(Point::SpoolRemoved);
        Ok(())
    }
}

fn check_budget(source: &RowSource, rows: u64, rejects: u64) -> Result<()> {
    let allowed = match source.route.rejects_max {
        RejectsMax::Rows(rows) => rows as f64,
        RejectsMax::Percent(share) => (rows + rejects) as f64 * share / 100.0,
    };
    if rejects as f64 <= allowed {
        return Ok(());
    }
    let message = format!(
        "route {}: {rejects} of {} rows of redis could not be decoded, more than rejects_max allows; nothing was published; they are in {}",
        source.route.name,
        rows + rejects,
        source.rejects.folder().display()
    );
    Err(Error::new(Kind::Rejected, message).with_hint(
        "mend the rows in redis or the route, or raise rejects_max, then: rekindle restore bigquery --fresh",
    ))
}

/// Removes a file; one that is not there is removed already.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", path, error))
        }
        _ => Ok(()),
    }
}
