//! Where a backup waits, so that its summary can say what was the limit.
//!
//! Invariant: counters only grow and decide nothing.

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

    /// Returns what was waited for most.
    pub fn bottleneck(&self) -> &'static str {
        let all = [(&self.source, "source"), (&self.cpu, "cpu"), (&self.target, "target")];
        let longest = all.into_iter().max_by_key(|(waited, _)| waited.load(Ordering::Relaxed));
        longest.map_or("source", |(_, name)| name)
    }
}
