//! Transform: pure functions from source wire bytes to rows and from rows to target wire bytes.

pub mod arrow_ipc;
pub mod arrow_message;
pub mod arrow_rows;
pub mod copy_binary;
mod decoder;
pub mod form;
pub mod keys;
pub mod many_rows;
pub mod parquet_file;
pub mod redis_command;
pub mod redis_rows;
mod refused;
mod single_rows;
mod stitcher;
pub mod stream_rows;

pub use decoder::Decoder;
pub use redis_command::Style;
pub use refused::leave_out;
pub use stitcher::{Attempt, Open, Stitcher};

use crate::batch::{Encoded, RawBatch};
use crate::error::Result;
use std::collections::HashSet;
use std::sync::Arc;

/// Turns one raw batch into one encoded batch.
///
/// Promises: pure and synchronous (it runs on a rayon thread), no I/O; the same raw batch and the same
/// `now_ms` give the same result; a row that cannot be carried becomes a reject, never an error; an error
/// means that the wire bytes themselves are broken.
pub trait Transform: Send + Sync {
    /// Decodes, maps and encodes the batch. `now_ms` (milliseconds since 1970) decides what is expired.
    fn apply(&self, raw: RawBatch, now_ms: i64) -> Result<Encoded>;
    /// Makes what joins the batches of one attempt at a partition, in order, where they are open at their ends.
    ///
    /// `None` where every batch stands for itself.
    fn stitcher(&self, _attempt: &Attempt<'_>) -> Option<Stitcher> {
        None
    }
    /// Makes the same transform of some keys alone, where many rows make one: the rows of others become nothing, and are
    /// not counted as carried.
    fn of_keys(&self, _keys: &Arc<HashSet<Vec<u8>>>) -> Option<Arc<dyn Transform>> {
        None
    }
}

/// A batch of one route, taken out of a stream that several routes read.
#[derive(Debug)]
pub struct Taken {
    /// Which of the routes.
    pub part: usize,
    /// Its rows, as a read of its own would have sent them.
    pub batch: RawBatch,
}

/// Takes one stream apart into the streams that each of several routes would have read alone.
///
/// Promises: pure and synchronous (it runs on a rayon thread); the bytes of all that was taken count for as many as were
/// sent; the last raw batch gives every route its last batch.
pub trait TakeApart: Send {
    /// Takes one raw batch apart and returns the batches that are full.
    fn apply(&mut self, raw: &RawBatch) -> Result<Vec<Taken>>;
}
