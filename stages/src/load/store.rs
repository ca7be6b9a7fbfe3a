//! Where a copy of BigQuery is kept: documents and blocks, by the keys of `schemas::manifest::Keys`.
//!
//! Invariant: whoever makes, reads or compares copies knows these traits and no place. A value counts as written only
//! when its place has acknowledged it, and a block is never seen in part.

use crate::error::Result;
use crate::load::{Sentinel, TargetState};
use crate::transform::form::{Form, Framed};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use schemas::manifest::Keys;
use std::sync::Arc;

/// Values of one [`Values::get_some`] at most; with blocks of up to 8 MiB that is 64 MiB on its way.
pub const VALUES_MAX: usize = 8;

/// A place that copies are read from.
#[async_trait]
pub trait Values: Send + Sync {
    /// What it is and where, for messages and without credentials: `redis at host:port/db`.
    fn place(&self) -> String;

    /// Where it is, without saying what: `host:port/db`, or the address of a folder or bucket.
    fn address(&self) -> String;

    /// How rows are written there.
    fn form(&self) -> &Form;

    /// Returns the value of a key: a document opened where it is sealed, a block as it is stored, for its form to read.
    async fn get(&self, key: &str) -> Result<Option<Bytes>>;

    /// Returns up to [`VALUES_MAX`] values, in the order of their keys.
    async fn get_some(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>>;

    /// Returns the lengths of blocks, 0 where there is none; the blocks themselves stay where they are.
    async fn lengths(&self, keys: &[String]) -> Result<Vec<u64>>;
}

/// A place that copies are written to.
#[async_trait]
pub trait Store: Values {
    /// Reads what it is and holds.
    async fn state(&self) -> Result<TargetState>;

    /// Leaves the mark of a run if there is none; returns whose mark is there afterwards.
    async fn claim(&self, run_id: &str, note: &str) -> Result<Sentinel>;

    /// Fails with `TargetChanged` where what answers now is not what was claimed, or lacks the mark of the run.
    async fn meet(&self, run_id: &str, before: &TargetState) -> Result<()>;

    /// Removes the mark if it is that run's.
    async fn release(&self, run_id: &str) -> Result<()>;

    /// Opens the way for the blocks of one table partition.
    async fn writer(&self) -> Result<Arc<dyn Writer>>;

    /// Makes a document the value of its key, sealed where there is a key to seal with.
    async fn set(&self, key: &str, value: &[u8]) -> Result<()>;

    /// Removes the blocks of one generation; returns how many there were.
    async fn remove_generation(
        &self,
        keys: &Keys,
        table_partition: &str,
        generation: u64,
    ) -> Result<u64>;

    /// Returns the highest generation of a table partition that any block has, published or not. Zero where blocks may
    /// be overwritten, so that what somebody left is in nobody's way.
    async fn highest_generation(&self, _keys: &Keys, _table_partition: &str) -> Result<u64> {
        Ok(0)
    }
}

/// Writes the blocks of one table partition.
pub trait Writer: Send + Sync {
    /// Begins to write a block; what is returned ends when it was acknowledged. Several may be on their way at once.
    fn write(&self, key: &str, block: Framed) -> BoxFuture<'static, Result<()>>;
}
