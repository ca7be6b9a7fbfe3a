//! What the process of a run may hold in memory.
//!
//! Invariant: bounded by lanes and batches, whatever the size of a table, but for the passes over keys.

use super::{LANE_BASE_BYTES, RUN_BASE_BYTES, RouteReport};
use crate::keys::Buckets;
use crate::lane::WRITES;
use crate::one_pass::{ROUTES_MAX, batches_alive};
use crate::summarize::rss_bytes;

/// What a run holds at most, in bytes, beside the batches that one lane holds.
pub(super) struct Held {
    /// Whatever is carried.
    pub(super) base: u64,
    /// Batches of all lanes.
    pub(super) batches: u64,
    /// A pass over all keys of the largest route.
    pub(super) keys: u64,
    /// Sent, and not answered yet.
    pub(super) in_flight: u64,
    /// Batches of one lane; a number.
    pub(super) lane_batches: u64,
}

impl Held {
    /// Of so many lanes, with the bytes of a batch, and those that sources hold by themselves.
    pub(super) fn of(
        lanes: u64,
        routes: &[RouteReport],
        (batch_bytes, held_bytes): (u64, u64),
    ) -> Self {
        // A pass over a table holds the batches of every route that it serves.
        let together = routes.iter().map(|route| route.read_with.len() + 1).max().unwrap_or(1);
        let together = together.min(ROUTES_MAX);
        let lane_batches = batches_alive(together) as u64;
        let largest = routes.iter().filter_map(|route| route.rows_estimate).max().unwrap_or(0);
        Self {
            base: rss_bytes() + RUN_BASE_BYTES + lanes * LANE_BASE_BYTES + held_bytes,
            batches: lanes * lane_batches * batch_bytes,
            keys: Buckets::memory_bytes(largest),
            in_flight: lanes * (WRITES as u64 + 1) * together as u64 * batch_bytes,
            lane_batches,
        }
    }
}
