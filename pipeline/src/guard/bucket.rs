//! A token bucket: so much per second on average, shared by all lanes.
//!
//! Invariant: over any span, no more goes through than the rate times the span, a tenth of a second's worth and one batch.

use std::time::{Duration, Instant};

/// How much may have been saved up: this part of a second's worth.
const SAVED: f64 = 0.1;

/// Hands out a rate; who takes more than there is waits for it, in the order of asking.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    /// What is there; below 0, what was promised and is still to come.
    level: f64,
    at: Instant,
}

impl Bucket {
    /// Makes a bucket that lets `per_second` through from `now` on.
    pub fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        Self { per_second, level: per_second * SAVED, at: now }
    }

    /// Takes an amount; returns how long to wait before it may be used.
    pub fn take(&mut self, amount: u64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.per_second * SAVED);
        self.at = self.at.max(now);
        // A batch may be larger than the bucket: it goes when nothing is owed, and what it takes is owed after it.
        let wait = (-self.level / self.per_second).max(0.0);
        self.level -= amount as f64;
        Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_takes_more_than_there_is_makes_the_next_one_wait() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1_000, start);
        assert_eq!(bucket.take(600, start), Duration::ZERO);
        // 100 were saved up: 500 are owed, half a second's worth.
        assert_eq!(bucket.take(1_000, start), Duration::from_millis(500));
        assert_eq!(bucket.take(1, start), Duration::from_millis(1_500));
        assert_eq!(bucket.take(1, start + Duration::from_mins(1)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_more_goes_through_than_the_rate(
            rate in 1_u64..1_000_000,
            takes in proptest::collection::vec((0_u64..100_000, 0_u64..2_000), 1..60),
        ) {
            let start = Instant::now();
            let (mut bucket, mut now, mut sum) = (Bucket::new(rate, start), start, 0.0);
            for (amount, pause_ms) in takes {
                now += Duration::from_millis(pause_ms);
                now += bucket.take(amount, now);
                // What went before this one was all paid for.
                let allowed = rate as f64 * ((now - start).as_secs_f64() + SAVED);
                prop_assert!(sum <= allowed * 1.000_001 + 1.0, "{sum} of {allowed}");
                sum += amount as f64;
            }
        }
    }
}
