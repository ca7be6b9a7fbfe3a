//! What a run may vary while it works, and how it finds out what suits the systems it meets.
//!
//! Invariant: nothing here changes what is written or in which order a lane writes it; only how much is on its way at once.
//! Lanes times the size of a batch never exceed what the memory bound counts.

mod bottleneck;
mod controller;
mod tuner;
mod window;

pub use bottleneck::{Limit, bottleneck};
pub use controller::{Controller, Observed};
use tuner::latency_max;
pub use tuner::{Tuned, tune};
pub use window::{Place, Window};

use stages::extract::BATCH_BYTES;
use stages::load::redis::{CONNECTIONS, CONNECTIONS_MAX};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Batches per lane that are at the target, unanswered, before anything was measured.
pub const WRITES_AT_FIRST: usize = 2;
/// A batch is made no larger than this: a server works on one write at a time, and others wait for it.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How many partitions may be on their way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// At first.
    pub start: usize,
    /// At any time.
    pub most: usize,
}

impl Lanes {
    /// Always so many.
    pub fn fixed(lanes: usize) -> Self {
        Self { start: lanes, most: lanes }
    }

    /// Twice as many as the machine has cores at first, from 4 to 16, and up to twice as many as those where that is faster.
    pub fn of_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let start = (2 * cores).clamp(4, 16);
        Self { start, most: 2 * start }
    }

    /// No more than so many.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        Self { start: self.start.min(most), most: self.most.min(most) }
    }
}

/// One setting of everything that may vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Partitions on their way at once.
    pub lanes: usize,
    /// Batches of one lane at the target at once.
    pub depth: usize,
    /// Connections to the target that lanes share.
    pub connections: usize,
    /// Bytes of a batch, as they come from a source that lets them be chosen.
    pub batch_bytes: usize,
}

impl Settings {
    /// Where a run begins.
    pub fn at_first(lanes: Lanes) -> Self {
        Self {
            lanes: lanes.start,
            depth: WRITES_AT_FIRST,
            connections: CONNECTIONS,
            batch_bytes: BATCH_BYTES,
        }
    }
}

/// The settings in force.
#[derive(Debug)]
pub struct Dials {
    most: Lanes,
    lanes: watch::Sender<usize>,
    connections: AtomicUsize,
    batch_bytes: AtomicUsize,
    depth: AtomicUsize,
    at_work: Arc<AtomicUsize>,
    controller: Mutex<Controller>,
}

/// A lane that has a partition; over when it is dropped.
#[derive(Debug)]
pub struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dials {
    /// The settings that a run begins with. The load is halved where the target takes half of `pause_above`, or 25 ms, longer
    /// to answer others than it needs.
    pub fn new(lanes: Lanes, pause_above: Option<Duration>) -> Self {
        let first = Settings::at_first(lanes);
        Self {
            most: lanes,
            lanes: watch::Sender::new(first.lanes),
            connections: AtomicUsize::new(first.connections),
            batch_bytes: AtomicUsize::new(first.batch_bytes),
            depth: AtomicUsize::new(first.depth),
            at_work: Arc::default(),
            controller: Mutex::new(Controller::new(lanes, latency_max(pause_above))),
        }
    }

    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of the search so far.
    pub fn tuned(&self) -> Tuned {
        Tuned::of(self.settings(), self.controller().counts)
    }

    /// How many lanes there may be.
    pub fn range(&self) -> Lanes {
        self.most
    }

    /// What is in force now.
    pub fn settings(&self) -> Settings {
        Settings {
            lanes: *self.lanes.borrow(),
            depth: self.depth(),
            connections: self.connections.load(Ordering::Relaxed),
            batch_bytes: self.batch_bytes.load(Ordering::Relaxed),
        }
    }

    /// Puts settings in force: lanes end with their partition, the rest counts from the next batch or partition on.
    pub fn set(&self, settings: Settings) {
        self.connections.store(settings.connections, Ordering::Relaxed);
        self.batch_bytes.store(settings.batch_bytes, Ordering::Relaxed);
        self.depth.store(settings.depth, Ordering::Relaxed);
        self.lanes
            .send_if_modified(|lanes| std::mem::replace(lanes, settings.lanes) != settings.lanes);
    }

    /// Batches that one lane may have at the target.
    pub fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// Tells how many lanes may be at work.
    pub fn lanes(&self) -> watch::Receiver<usize> {
        self.lanes.subscribe()
    }

    /// Counts a lane that begins a partition.
    pub fn begin_partition(&self) -> AtWork {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork(Arc::clone(&self.at_work))
    }

    /// Lanes that have a partition.
    pub fn lanes_at_work(&self) -> usize {
        self.at_work.load(Ordering::Relaxed)
    }

    /// The connection that a lane uses for its next partition: batches of one partition must not overtake each other.
    pub fn connection_of(&self, lane: usize) -> usize {
        lane % self.connections.load(Ordering::Relaxed).clamp(1, CONNECTIONS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_stay_between_what_was_asked_for_and_what_connections_allow() {
        assert_eq!(Lanes::fixed(3), Lanes { start: 3, most: 3 });
        let lanes = Lanes::of_machine();
        assert!((4..=16).contains(&lanes.start) && lanes.most == 2 * lanes.start, "{lanes:?}");
        assert_eq!(lanes.at_most(2), Lanes { start: 2, most: 2 });
        assert_eq!(lanes.at_most(lanes.start + 1).most, lanes.start + 1);
    }

    #[test]
    fn settings_are_in_force_once_they_are_set() {
        let dials = Dials::new(Lanes { start: 4, most: 8 }, None);
        assert_eq!(dials.settings(), Settings::at_first(Lanes { start: 4, most: 8 }));
        let changed = Settings { lanes: 6, depth: 3, connections: 3, batch_bytes: 1 << 17 };
        let lanes = dials.lanes();
        dials.set(changed);
        assert_eq!((dials.settings(), lanes.has_changed().unwrap()), (changed, true));
        assert_eq!([0, 1, 2, 3].map(|lane| dials.connection_of(lane)), [0, 1, 2, 0]);
    }
}
