//! Where a backup waits, so that its summary can say what was the limit.
//!
//! Invariant: counters only grow and decide nothing.

use crate::tuning::{Limit, bottleneck};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Microseconds that the table partitions of a table waited, by what they waited for.
#[derive(Debug, Default)]
pub struct Waits {
    /// For rows of the source.
    pub source: AtomicU64,
    /// For the transform threads.
    pub cpu: AtomicU64,
    /// For the target to acknowledge or to answer.
    pub target: AtomicU64,
}

impl Waits {
    /// Waits for something and counts how long that took.
    pub async fn count<T>(counter: &AtomicU64, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = work.await;
        let us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counter.fetch_add(us, Ordering::Relaxed);
        done
    }

    /// Returns what was waited for most, and its share.
    pub fn bottleneck(&self) -> (Limit, f64) {
        let [source, cpu, target] =
            [&self.source, &self.cpu, &self.target].map(|waited| waited.load(Ordering::Relaxed));
        // A backup has no limits of its own, and nobody tells how busy its target is.
        bottleneck([source, cpu, target, 0], None)
    }
}
