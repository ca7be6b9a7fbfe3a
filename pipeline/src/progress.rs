//! Live counters of a run, written by lanes and read by whoever shows progress.
//!
//! Invariant: counters only grow within one process and never decide anything; the journal is the truth.

use crate::checkpoint::Counts;
use crate::growth::Growth;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters of all routes of a run.
#[derive(Debug)]
pub struct Counters {
    /// When this process started on the run.
    pub started: Instant,
    /// When the data was lost (or the run first started), milliseconds since 1970: the RTO clock starts here.
    pub lost_at_ms: i64,
    /// The RTO in seconds.
    pub rto_seconds: u64,
    /// How what a row costs grows with the rows of the target.
    pub growth: Growth,
    /// Lanes that had a partition when the last one took its own; 0 before.
    pub lanes: AtomicU64,
    /// One per route, in plan order.
    pub routes: Vec<RouteCounters>,
}

/// Counters of one route.
#[derive(Debug, Default)]
pub struct RouteCounters {
    /// The route.
    pub name: String,
    /// Estimated rows of all its partitions.
    pub rows_estimate: AtomicU64,
    /// Partitions cut.
    pub partitions: AtomicU64,
    /// Partitions done, earlier attempts of the run included.
    pub partitions_done: AtomicU64,
    /// When its last partition was done, milliseconds since 1970; 0 before.
    pub completed_ms: AtomicI64,
    /// Rows committed or about to be, earlier attempts of the run included.
    pub rows: AtomicU64,
    /// Rows of earlier attempts of the run, which say nothing about today's speed.
    pub rows_before: AtomicU64,
    /// Source bytes read by this process.
    pub bytes: AtomicU64,
    /// Rows that could not be carried.
    pub rejects: AtomicU64,
    /// What the route is doing now: an index into [`PHASES`].
    pub phase: AtomicU64,
    /// Microseconds lanes waited for the source.
    pub source_wait_us: AtomicU64,
    /// Microseconds lanes waited for the transform threads.
    pub cpu_wait_us: AtomicU64,
    /// Microseconds lanes waited for the target.
    pub target_us: AtomicU64,
    /// Microseconds lanes were held back by a limit, or for want of room.
    pub held_us: AtomicU64,
}

/// What a route may be doing.
pub const PHASES: [&str; 9] = [
    "waiting",
    "checking keys",
    "loading",
    "catching up",
    "reading back",
    "done",
    "comparing",
    "looking again",
    "repairing",
];

/// A phase of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Waiting,
    /// Looking for colliding keys before the first write.
    CheckingKeys,
    /// Rows are on their way.
    Loading,
    /// Rows changed since an earlier snapshot are read again, keys of deleted rows removed.
    CatchingUp,
    /// The target is read back.
    ReadingBack,
    /// Complete and read back.
    Done,
    /// Rows are compared with what the target holds.
    Comparing,
    /// What differed is looked at once more.
    LookingAgain,
    /// What differs is written again.
    Repairing,
}

impl Counters {
    /// Makes counters for the named routes.
    pub fn new(names: &[String], lost_at_ms: i64, rto_seconds: u64) -> Self {
        let routes = names
            .iter()
            .map(|name| RouteCounters { name: name.clone(), ..RouteCounters::default() })
            .collect();
        Self {
            started: Instant::now(),
            lost_at_ms,
            rto_seconds,
            growth: Growth::NONE,
            lanes: AtomicU64::new(0),
            routes,
        }
    }

    /// The same where what a row costs grows.
    #[must_use]
    pub fn growing(self, growth: Growth) -> Self {
        Self { growth, ..self }
    }

    /// Adds what the target acknowledged of a batch.
    pub fn add(&self, route: usize, counts: &Counts) {
        let counters = &self.routes[route];
        counters.rows.fetch_add(counts.rows, Ordering::Relaxed);
        counters.bytes.fetch_add(counts.bytes, Ordering::Relaxed);
        counters.rejects.fetch_add(counts.rejects, Ordering::Relaxed);
    }

    /// Counts a finished partition. Returns true when it was the last one of the route's first pass.
    pub fn partition_done(&self, route: usize, now_ms: i64) -> bool {
        let counters = &self.routes[route];
        let done = counters.partitions_done.fetch_add(1, Ordering::Relaxed) + 1;
        // A catch-up adds partitions later; the first completion is the one that counts.
        done >= counters.partitions.load(Ordering::Relaxed)
            && counters
                .completed_ms
                .compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// What the lanes of all routes waited for, in microseconds: source, transform threads, target, limits.
    pub fn waits(&self) -> [u64; 4] {
        self.routes.iter().fold([0; 4], |sum, route| {
            let waits = route.waits();
            std::array::from_fn(|which| sum[which] + waits[which])
        })
    }

    /// Notes time a lane waited for the source.
    pub fn source_wait(&self, route: usize, waited: Duration) {
        self.routes[route].source_wait_us.fetch_add(as_us(waited), Ordering::Relaxed);
    }

    /// Notes time a batch spent at the target.
    pub fn target_time(&self, route: usize, spent: Duration) {
        self.routes[route].target_us.fetch_add(as_us(spent), Ordering::Relaxed);
    }

    /// Says what a route is doing.
    pub fn enter(&self, route: usize, phase: Phase) {
        self.routes[route].phase.store(phase as u64, Ordering::Relaxed);
    }

    /// Rows of all routes, earlier attempts included.
    pub fn rows(&self) -> u64 {
        self.routes.iter().map(|route| route.rows.load(Ordering::Relaxed)).sum()
    }

    /// Rows this process has carried.
    pub fn rows_now(&self) -> u64 {
        let before: u64 =
            self.routes.iter().map(|route| route.rows_before.load(Ordering::Relaxed)).sum();
        self.rows().saturating_sub(before)
    }
}

impl RouteCounters {
    /// What its lanes waited for, in microseconds: source, transform threads, target, limits.
    pub fn waits(&self) -> [u64; 4] {
        [&self.source_wait_us, &self.cpu_wait_us, &self.target_us, &self.held_us]
            .map(|waited| waited.load(Ordering::Relaxed))
    }
}

fn as_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
