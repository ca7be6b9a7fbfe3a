//! Rows into keys that are made of many rows: sets, sorted sets, lists, and hashes with a field per row.
//!
//! Invariant: rows come in the order of `BoundRoute::order`, so the rows of a key follow each other. A key inside one
//! batch becomes one atomic write; what a batch alone cannot tell, whether its first and last key go on in the batches
//! beside it, is left to the [`Stitcher`], which sees them in order.

mod batch;
mod commands;
mod script;
mod segment;
mod slot;
mod stitch;
#[cfg(test)]
mod tests;

pub use batch::ManyRows;
pub use commands::TEMPORARY_PREFIX;
pub(super) use commands::TEMPORARY_TTL_MS;
pub use script::{FINISH_SCRIPT, KEEP_ELEMENTS_SCRIPT, KEEP_ELEMENTS_SHA1};
pub use segment::{OpenBatch, Segment};
pub(super) use slot::temporary_key;
pub use stitch::Stitcher;
