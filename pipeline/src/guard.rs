//! Keeps a run from filling its target beyond what it holds, and from pressing systems that are in use.
//!
//! Invariant: no batch is sent that the target has no room for, as far as it told when it was last asked; whoever waits here
//! holds one batch, and everything behind it waits with it.

mod admit;
mod bucket;
pub mod fits;
mod footprint;
mod omitted;
mod room;
mod sampled;
mod told;
mod watch;

pub use admit::admitted;
pub use bucket::Bucket;
pub use omitted::{Omitted, omitted};
pub(crate) use sampled::{PARTITIONS_MAX, PATIENCE, first_batch};
pub use told::{GuardSummary, Pause, RouteNeed};
pub use watch::{Verdict, watch};

use room::Room;
use stages::{Encoded, Error, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch as signal};
use tokio_util::sync::CancellationToken;

/// What the mark of a run says that loaded a share and is not at work any more.
pub const PARTIAL_NOTE: &str = "partial, at rest";
/// Share of its limit up to which a target is filled: the rest is for what is on its way and for others.
pub const CEILING_PERCENT: u64 = 95;
/// What a row takes at most beside the bytes of its commands, where nothing was measured.
const ROW_BYTES_GUESS: u64 = 200;
/// What the growth of a value over the sampled ones may come to, in percent of the sampled.
const MARGIN_PERCENT: u64 = 125;

/// How hard a run may push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Load up to this share of the target's own limit, in percent, and leave the rest out.
    pub fit_percent: Option<u64>,
    /// How long to wait for room before the run gives up.
    pub wait_for_room: Duration,
    /// Rows per second of all lanes together.
    pub rows_per_second: Option<u64>,
    /// Bytes per second of all lanes together: read from the source or sent to the target, whichever is more.
    pub bytes_per_second: Option<u64>,
    /// 99th percentile of the target's answers above which nothing is sent.
    pub redis_latency: Option<Duration>,
    /// Bytes that a replica of the target may be behind.
    pub redis_lag_bytes: u64,
    /// Time of an empty query on the source above which nothing is read.
    pub source_latency: Option<Duration>,
    /// How far a replica of the source may be behind.
    pub source_lag: Option<Duration>,
    /// Queries of others at work on the source above which nothing is read.
    pub source_active: Option<u64>,
}

impl Limits {
    /// Whether the source has to be looked at.
    pub fn watches_source(&self) -> bool {
        self.source_latency.is_some() || self.source_lag.is_some() || self.source_active.is_some()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fit_percent: None,
            wait_for_room: Duration::from_mins(1),
            rows_per_second: None,
            bytes_per_second: None,
            redis_latency: None,
            redis_lag_bytes: 64 << 20,
            source_latency: None,
            source_lag: None,
            source_active: None,
        }
    }
}

/// Why batches wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The target has no room for the next batch.
    Memory,
    /// The target answers too slowly.
    RedisLatency,
    /// A replica of the target is too far behind.
    RedisLag,
    /// The source answers too slowly.
    SourceLatency,
    /// A replica of the source is too far behind.
    SourceLag,
    /// Too many queries of others are at work on the source.
    SourceActive,
    /// The limit of rows per second.
    RowRate,
    /// The limit of bytes per second.
    ByteRate,
}

impl Reason {
    /// Its name in summaries.
    pub fn word(self) -> &'static str {
        match self {
            Self::Memory => "redis_memory",
            Self::RedisLatency => "redis_latency",
            Self::RedisLag => "redis_replica_lag",
            Self::SourceLatency => "source_latency",
            Self::SourceLag => "source_replica_lag",
            Self::SourceActive => "source_active",
            Self::RowRate => "max_rows_per_second",
            Self::ByteRate => "max_bytes_per_second",
        }
    }
}

/// What one batch asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Rows read for it.
    pub rows: u64,
    /// Bytes read or sent for it, whichever is more.
    pub bytes: u64,
    /// Bytes that the target may have to find for it.
    pub room: u64,
}

/// Lets batches through, or holds them back.
pub struct Guard {
    /// How hard the run may push.
    pub limits: Limits,
    inner: Mutex<Inner>,
    /// Raised with every change that may let somebody through.
    changed: signal::Sender<u64>,
    /// Asks the watcher to look at once.
    look: Notify,
    rows: Option<Mutex<Bucket>>,
    bytes: Option<Mutex<Bucket>>,
    /// Measured bytes that a row of each route adds; 0 where nothing was measured.
    row_bytes: Vec<AtomicU64>,
}

#[derive(Default)]
struct Inner {
    room: Room,
    /// What was not looked at in this round yet.
    awaited: BTreeSet<Reason>,
    /// What holds everybody back, since when.
    holds: BTreeMap<Reason, Instant>,
    /// Holds and waits so far.
    pauses: BTreeMap<Reason, Pause>,
    /// The smallest batch that waits for room.
    wanted: Option<u64>,
    /// Whether the share that was asked for is filled.
    is_full: bool,
    /// Whether the share still counts: what comes after the load may use what is left.
    is_share_over: bool,
    /// Why nothing is known of the target's room any more.
    blind: Option<String>,
    /// CPU time of the target when it was last looked at, and when that was.
    cpu_seen: Option<(Instant, Duration)>,
    /// Seconds between looks, and CPU seconds of the target in them.
    cpu_spent: [f64; 2],
    /// What the projection came to.
    projection: Option<GuardSummary>,
}

/// Room that was given to a batch; what is dropped is no longer on its way.
pub struct Grant {
    guard: Arc<Guard>,
    room: u64,
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut inner = self.guard.lock();
        inner.room.settle(self.room);
        if inner.wanted.is_some() {
            self.guard.look.notify_one();
        }
    }
}

impl Guard {
    /// Makes the guard of a run of so many routes.
    pub fn new(limits: Limits, routes: usize) -> Arc<Self> {
        let now = Instant::now();
        let bucket = |rate: Option<u64>| rate.map(|rate| Mutex::new(Bucket::new(rate, now)));
        Arc::new(Self {
            inner: Mutex::default(),
            changed: signal::Sender::new(0),
            look: Notify::new(),
            rows: bucket(limits.rows_per_second),
            bytes: bucket(limits.bytes_per_second),
            row_bytes: (0..routes).map(|_| AtomicU64::new(0)).collect(),
            limits,
        })
    }

    /// What a batch of a route asks for.
    pub fn asked(&self, route: usize, encoded: &Encoded) -> Asked {
        let sent = encoded.payload.len() as u64;
        let per_row = self.row_bytes.get(route).map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        let stored = match per_row {
            0 => sent + encoded.carried * ROW_BYTES_GUESS,
            per_row => encoded.carried * per_row * MARGIN_PERCENT / 100,
        };
        // On its way it is in the server's buffer too.
        let room = if sent == 0 { 0 } else { sent + stored };
        Asked { rows: encoded.rows_read, bytes: encoded.bytes_read.max(sent), room }
    }

    /// Waits until a batch may be sent. `None` when it must not be any more: the lane then stops as it does when asked to.
    ///
    /// Fails where the target no longer tells how full it is.
    pub async fn admit(
        self: &Arc<Self>,
        asked: Asked,
        stop: &CancellationToken,
    ) -> Result<Option<Grant>> {
        for (bucket, amount, reason) in [
            (&self.rows, asked.rows, Reason::RowRate),
            (&self.bytes, asked.bytes, Reason::ByteRate),
        ] {
            let Some(bucket) = bucket else { continue };
            let wait = lock(bucket).take(amount, Instant::now());
            if wait.is_zero() {
                continue;
            }
            self.lock().pauses.entry(reason).or_default().add(wait);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return Ok(None),
            }
        }
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(outcome) = self.try_admit(asked) {
                return outcome;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    /// Lets a batch through now, refuses it for good, or says nothing yet.
    fn try_admit(self: &Arc<Self>, asked: Asked) -> Option<Result<Option<Grant>>> {
        let mut inner = self.lock();
        if inner.is_full {
            return Some(Ok(None));
        }
        let is_held = inner.holds.keys().any(|reason| *reason != Reason::Memory);
        if is_held || !inner.awaited.is_empty() {
            return None;
        }
        if inner.room.take(asked.room) {
            return Some(Ok(Some(Grant { guard: Arc::clone(self), room: asked.room })));
        }
        if let Some(blind) = &inner.blind {
            let message = format!("cannot tell how full redis is: {blind}");
            return Some(Err(Error::new(Kind::Unavailable, message).with_hint("rekindle check")));
        }
        inner.wanted = Some(inner.wanted.map_or(asked.room, |wanted| wanted.min(asked.room)));
        self.look.notify_one();
        None
    }

    /// Whether the share that was asked for is filled.
    pub fn is_full(&self) -> bool {
        self.lock().is_full
    }

    /// What comes after the load may use the room up to the ceiling.
    pub fn end_share(&self) {
        self.lock().is_share_over = true;
    }

    /// Begins a round: nothing is given out before the target was looked at.
    pub fn begin_round(&self) {
        let mut inner = self.lock();
        inner.room.forget();
        (inner.wanted, inner.blind, inner.cpu_seen) = (None, None, None);
        if self.limits.redis_latency.is_some() {
            inner.awaited.insert(Reason::RedisLatency);
        }
        if self.limits.watches_source() {
            inner.awaited.insert(Reason::SourceLatency);
        }
    }

    /// Something was looked at for the first time, or never will be.
    fn looked_at(&self, what: Reason) {
        if self.lock().awaited.remove(&what) {
            self.announce();
        }
    }

    /// Share of one core that the target used while rows were on their way; absent where it did not tell.
    pub fn target_busy(&self) -> Option<f64> {
        let [seconds, busy] = self.lock().cpu_spent;
        (seconds > 0.0).then(|| busy / seconds)
    }

    /// Ends a round: nobody waits any more.
    pub fn end_round(&self) {
        let mut inner = self.lock();
        for (reason, since) in std::mem::take(&mut inner.holds) {
            inner.pauses.entry(reason).or_default().seconds += since.elapsed().as_secs_f64();
        }
    }

    /// Notes what a row of a route adds, in bytes.
    fn learn(&self, route: usize, bytes: u64) {
        if let Some(known) = self.row_bytes.get(route) {
            known.store(bytes.max(1), Ordering::Relaxed);
        }
    }

    /// Begins or ends a hold; says so once.
    fn hold(&self, reason: Reason, why: Option<String>) {
        let mut inner = self.lock();
        match (why, inner.holds.contains_key(&reason)) {
            (Some(why), false) => {
                inner.holds.insert(reason, Instant::now());
                inner.pauses.entry(reason).or_default().count += 1;
                tracing::warn!(reason = reason.word(), "paused: {why}");
            }
            (None, true) => {
                let since = inner.holds.remove(&reason).map_or(Duration::ZERO, |at| at.elapsed());
                inner.pauses.entry(reason).or_default().seconds += since.as_secs_f64();
                let seconds = since.as_secs_f64();
                tracing::warn!(reason = reason.word(), seconds, "goes on");
            }
            _ => return,
        }
        drop(inner);
        self.announce();
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What was counted so far, for the summary.
    pub fn told(&self) -> GuardSummary {
        let inner = self.lock();
        let mut told = inner.projection.clone().unwrap_or_default();
        let mut pauses = inner.pauses.clone();
        for (reason, since) in &inner.holds {
            pauses.entry(*reason).or_default().seconds += since.elapsed().as_secs_f64();
        }
        told.pauses = pauses.into_iter().map(|(r, pause)| (r.word().to_owned(), pause)).collect();
        told
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
