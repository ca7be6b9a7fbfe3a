//! Load: systems that entries are written to.

pub mod archive;
pub mod bigquery;
mod pressure;
pub mod rdb;
pub mod redis;
pub mod store;

use crate::batch::Encoded;
use crate::error::Result;
use crate::extract::redis_entries::Stored;
use async_trait::async_trait;
use bytes::Bytes;
pub use pressure::{Footprint, Limit, Pressure, Sampled, SourcePressure};
use schemas::{BoundRoute, PartitionId};
use std::time::Duration;

/// What became of the entries of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Entries written.
    pub written: u64,
    /// Entries left alone because the key existed and the route keeps it.
    pub kept: u64,
    /// Of the rows written, those whose member was there already; none but in keys of many rows.
    pub folded: u64,
}

/// Whose mark the target carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sentinel {
    /// This run's.
    Ours,
    /// None: the target was never claimed, or was emptied or replaced.
    Missing,
    /// Another run's; the text it left.
    Foreign(String),
}

/// Who the target is, as far as it can tell. Serialised as JSON in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetState {
    /// Changes with every start of the server process.
    pub process_id: String,
    /// Changes when the data set's history forks (fail-over, or a restart without persistence).
    pub history_id: String,
    /// Product and version, for messages.
    pub version: String,
    /// Entries in the database, the run's own mark included.
    pub entries: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// The memory limit; `None` means unlimited.
    pub limit_bytes: Option<u64>,
    /// What happens at the limit, for example `noeviction`.
    pub eviction: String,
    /// Entries evicted since the server started.
    pub evicted: u64,
    /// Why the target cannot be used as it is, if so.
    pub refusal: Option<String>,
}

/// An entry of a route that compares versions, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The key.
    pub key: Bytes,
    /// Hash of the value.
    pub value_hash: u64,
    /// Expiry in milliseconds since 1970; 0 when it never expires.
    pub expires_ms: i64,
    /// Its version, as [`schemas::version::VersionKind::rank`] takes it.
    pub version: i64,
}

/// How an entry of a route that compares versions stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As it was written, or rightly expired.
    AsWritten,
    /// The key holds a newer version: an application wrote it.
    Newer,
    /// The key holds something whose version cannot be read.
    Unreadable,
    /// It is missing, older, or another value of the same version.
    Differs(Difference),
}

/// How one entry differs from what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// The key is not there.
    Missing,
    /// The value is another.
    Value,
    /// The expiry is another.
    Expiry,
}

/// Keys that are named as the streams of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbered {
    /// Those that are streams, in order.
    pub streams: Vec<Bytes>,
    /// How many are something else.
    pub others: u64,
    /// Some of these, with their types.
    pub examples: Vec<String>,
}

/// A system that entries are written to.
///
/// Promises: `write` returns once every entry of the batch is acknowledged by the target and every reply
/// was read and counted; it may be called concurrently for different lanes; calls of one lane are applied
/// in call order; repeating a batch leaves the same state; dropping the future midway may or may not have
/// written, and never corrupts the connection for others. An error says nothing about what was written.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Where it is, without credentials.
    fn address(&self) -> &str;
    /// Writes a batch through the lane's connection.
    async fn write(&self, lane: usize, batch: &Encoded) -> Result<Written>;
    /// Writes a batch of a partition; only files have to know of which.
    async fn write_of(
        &self,
        lane: usize,
        _partition: &PartitionId,
        batch: &Encoded,
    ) -> Result<Written> {
        self.write(lane, batch).await
    }
    /// Whether it is files that this run makes: they hold what was committed and nothing else, each key once.
    fn is_file(&self) -> bool {
        false
    }
    /// Begins an attempt at a partition of which so many entries are committed; what else files hold of it counts no more.
    async fn begin(&self, _partition: &PartitionId, _entries: u64) -> Result<()> {
        Ok(())
    }
    /// Whether files still hold what was committed: of each partition so many entries.
    async fn has_kept(&self, _run_id: &str, _committed: &[(PartitionId, u64)]) -> Result<bool> {
        Ok(true)
    }
    /// Reads who the target is and what it holds.
    async fn state(&self) -> Result<TargetState>;
    /// Reads how full and how busy it is.
    async fn pressure(&self) -> Result<Pressure>;
    /// Times one exchange of nothing, on a connection that carries no rows.
    async fn ping(&self) -> Result<Duration>;
    /// Finds out what keys take: writes them under names of its own, and removes them again. Fails with `Capacity` where
    /// there is no room even for them.
    async fn measure(&self, samples: &[Sampled]) -> Result<Vec<Footprint>>;
    /// Reads whose mark it carries.
    async fn sentinel(&self, run_id: &str) -> Result<Sentinel>;
    /// Looks anew, on a fresh connection, at who the target is, and goes on with fresh connections. Fails with
    /// `TargetChanged` where the mark of the run is missing, with `Fenced` where it is another run's.
    async fn meet(&self, run_id: &str) -> Result<TargetState>;
    /// Leaves this run's mark if there is none; returns whose mark is there afterwards.
    async fn claim(&self, run_id: &str, note: &str) -> Result<Sentinel>;
    /// Changes the text of this run's mark, where it is there.
    async fn annotate(&self, run_id: &str, note: &str) -> Result<()>;
    /// Removes the mark if it is this run's, or `run_id`'s when taking over.
    async fn release(&self, run_id: &str) -> Result<()>;
    /// Counts how many of the keys exist (a key given twice counts twice).
    async fn count_existing(&self, keys: &[Bytes]) -> Result<u64>;
    /// Compares stored entries with what was written: `(key, value hash, expiry in ms or 0)`.
    async fn compare(
        &self,
        route: &BoundRoute,
        expected: &[(Bytes, u64, i64)],
    ) -> Result<Vec<(usize, Difference)>>;
    /// Reads what is stored under keys of many rows, page by page: one answer per key, in order, each with the server's
    /// time in milliseconds since 1970.
    async fn stored(&self, route: &BoundRoute, keys: &[&[u8]]) -> Result<Vec<(Stored, i64)>>;
    /// Tells how stored entries of a route that compares versions stand, one answer per entry.
    async fn standing(&self, route: &BoundRoute, entries: &[Versioned]) -> Result<Vec<Standing>>;
    /// Removes each key that still holds what was written, or an older version, in one step per key that nobody else's
    /// write comes between; returns the places of those removed.
    async fn remove_unless_newer(
        &self,
        route: &BoundRoute,
        entries: &[Versioned],
    ) -> Result<Vec<usize>>;
    /// Looks through all keys for those that are named as the streams of a route.
    async fn numbered(&self, route: &BoundRoute) -> Result<Numbered>;
    /// Removes large keys; returns how many existed.
    async fn unlink(&self, keys: &[Bytes]) -> Result<u64>;
    /// Removes keys; returns how many existed.
    async fn remove(&self, keys: &[Bytes]) -> Result<u64>;
    /// What takes documents at the target, with its version, for people; `None` where nothing does.
    async fn json_module(&self) -> Result<Option<String>>;
    /// Which of its ways of writing was chosen, and why, for people; `None` where there was no choice.
    fn way_note(&self) -> Option<String>;
    /// Whether a reconnect or a look since `claim` met another server process or history that still carries the mark
    /// (a restart with persistence, a fail-over): acknowledged writes may be gone, so only a full read-back proves.
    fn has_changed(&self) -> bool;
}
