//! How far a verification is, as its counters tell it to whoever watches.
//!
//! Invariant: routes are looked at one after another, so whatever is counted belongs to the one at hand. A read that is
//! begun anew counts again: the counters decide nothing.

use crate::checkpoint::Counts;
use crate::lane::now_ms;
use crate::progress::{Counters, Phase};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The counters, and the route at hand.
pub(super) struct Progress {
    counters: Arc<Counters>,
    route: AtomicUsize,
}

impl Progress {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { counters, route: AtomicUsize::new(0) }
    }

    fn route(&self) -> usize {
        self.route.load(Ordering::Relaxed)
    }

    /// Turns to a route, by its place among those that are verified.
    pub(super) fn turn_to(&self, route: usize) {
        self.route.store(route, Ordering::Relaxed);
        self.counters.enter(route, Phase::Comparing);
    }

    /// Says what the route at hand is doing.
    pub(super) fn enter(&self, phase: Phase) {
        self.counters.enter(self.route(), phase);
    }

    /// Tells what lies ahead: parts, and the rows in them.
    pub(super) fn expect(&self, parts: u64, rows: u64) {
        let counters = &self.counters.routes[self.route()];
        counters.partitions.fetch_add(parts, Ordering::Relaxed);
        counters.rows_estimate.fetch_add(rows, Ordering::Relaxed);
    }

    /// Counts rows that were looked at, or only counted.
    pub(super) fn rows(&self, rows: u64, bytes: u64) {
        self.counters.add(self.route(), &Counts { rows, bytes, ..Counts::default() });
    }

    /// Counts a part as done.
    pub(super) fn part_done(&self) {
        self.counters.partition_done(self.route(), now_ms());
    }
}
