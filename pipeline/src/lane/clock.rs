//! What a lane waits for at every moment, so that a report can name the limit and its share.
//!
//! Invariant: each moment of a lane counts once. A lane that may not send waits for a limit; one that has no place
//! left at the target, for the target; else one with work on the transform threads, for them; else for the source.

use super::WRITES;
use crate::progress::RouteCounters;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The clock of one lane while it carries a partition.
pub(super) struct Clock<'a> {
    counters: &'a RouteCounters,
    now: Mutex<Now>,
}

/// What a lane has on its way.
pub(super) struct Now {
    since: Instant,
    /// Batches on the transform threads.
    pub(super) transforms: usize,
    /// Batches at the target.
    pub(super) writes: usize,
    /// Whether a batch is ready and may not be sent: a system has no room or is pressed.
    pub(super) is_held: bool,
    /// Whether a batch is ready and waits for a place at the target.
    pub(super) is_queued: bool,
    /// Whether the source has ended.
    pub(super) is_read: bool,
}

impl<'a> Clock<'a> {
    /// Starts the clock of a lane.
    pub(super) fn start(counters: &'a RouteCounters) -> Self {
        let (since, is_held, is_queued, is_read) = (Instant::now(), false, false, false);
        let now = Now { since, transforms: 0, writes: 0, is_held, is_queued, is_read };
        Self { counters, now: Mutex::new(now) }
    }

    /// Counts the time since the last change, and changes what is on its way.
    pub(super) fn turn(&self, change: impl FnOnce(&mut Now)) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = Instant::now();
        let waited = moment.duration_since(now.since);
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let counter = if now.is_held {
            &self.counters.held_us
        } else if now.is_queued || now.writes >= WRITES {
            &self.counters.target_us
        } else if now.transforms > 0 {
            &self.counters.cpu_wait_us
        } else if now.is_read {
            &self.counters.target_us
        } else {
            &self.counters.source_wait_us
        };
        counter.fetch_add(us, Ordering::Relaxed);
        now.since = moment;
        change(&mut now);
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.turn(|_| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    type Change = fn(&mut Now);

    #[test]
    fn each_moment_counts_for_what_the_lane_waits_for() {
        let counters = RouteCounters::default();
        let read = || {
            let all = [
                &counters.source_wait_us,
                &counters.cpu_wait_us,
                &counters.target_us,
                &counters.held_us,
            ];
            all.map(|counter| counter.load(Ordering::Relaxed))
        };
        let changes: [(Change, usize); 8] = [
            (|now| now.transforms = 1, 0),
            (|now| now.writes = 1, 1),
            (|now| now.is_held = true, 1),
            (|now| (now.is_held, now.is_queued) = (false, true), 3),
            (|now| (now.is_queued, now.writes) = (false, WRITES), 2),
            (|now| (now.writes, now.transforms) = (1, 0), 2),
            (|now| now.is_read = true, 0),
            (|_| {}, 2),
        ];
        let clock = Clock::start(&counters);
        for (change, expected) in changes {
            let before = read();
            let until = Instant::now() + Duration::from_millis(2);
            while Instant::now() < until {}
            clock.turn(change);
            let grown: Vec<usize> =
                (0..4).filter(|which| read()[*which] > before[*which]).collect();
            assert_eq!(grown, [expected]);
        }
    }
}
