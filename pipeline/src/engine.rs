//! The engine: runs the partitions of a round through a bounded set of lanes.
//!
//! Invariant: one slow or poisoned partition never stops the others; what cannot be right for any partition
//! (a full target, a foreign sentinel, a failing journal) stops them all at their next batch.

use crate::guard;
use crate::journal::PartitionRecord;
use crate::lane::{Shared, now_ms, run_partition};
use crate::one_pass::{Ended, Member, group, run_pass};
use crate::outcome::from_journal;
use crate::prepare::void_written;
use crate::route::RouteRun;
use crate::share::Share;
use crate::tuning::tune;
use stages::extract::Gauge;
use stages::load::Pressure;
use stages::policy::{Retry, Verdict, outage_max};
use stages::{Error, Kind};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long lanes may finish their writes in flight after a signal; below the promised 10 s.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// What runs the rounds of a run.
pub struct Engine {
    /// Shared by all lanes.
    pub shared: Arc<Shared>,
    /// Routes in plan order.
    pub routes: Vec<Arc<RouteRun>>,
    /// How long a system may stay away before something other than a partition gives up.
    pub retry_for: Duration,
    /// Looks at the load of the source, where it can be told.
    pub gauge: Option<Arc<dyn Gauge>>,
    /// The same of a partition, where it was asked for.
    pub outage: Option<Duration>,
    /// Which part of every table is read; `None` for all of it.
    pub share: Option<Share>,
    /// When the RTO is over, milliseconds since 1970.
    pub rto_ends_ms: i64,
}

/// Partitions waiting for a lane, and what went wrong so far.
#[derive(Default)]
struct Round {
    queue: VecDeque<Vec<PartitionRecord>>,
    failures: Vec<Error>,
}

impl Engine {
    /// Runs the given partitions, in order, and returns what failed. Every lane has ended when it returns.
    pub async fn run_round(self: &Arc<Self>, partitions: Vec<PartitionRecord>) -> Vec<Error> {
        if partitions.is_empty() {
            return Vec::new();
        }
        let queue: VecDeque<_> = group(partitions, &self.routes).into();
        let lanes = self.shared.dials.range().most.min(queue.len());
        let round = Arc::new(Mutex::new(Round { queue, failures: Vec::new() }));
        let evictions = Arc::new(Evictions::since_now(&self.shared).await);
        self.shared.guard.begin_round();
        let watch = tokio::spawn(watch_target(Arc::clone(self), Arc::clone(&evictions)));
        let engine = Arc::clone(self);
        let tuner = tokio::spawn(async move { tune(&engine).await });
        // Cancelled when nothing waits for a lane any more.
        let emptied = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for lane in 0..lanes {
            let (engine, round, emptied) = (Arc::clone(self), Arc::clone(&round), emptied.clone());
            tasks.spawn(async move { engine.run_lane(lane, &round, &emptied).await });
        }
        let drained = async {
            while let Some(ended) = tasks.join_next().await {
                let Err(error) = ended else { continue };
                // Others may wait for its seat.
                self.shared.stop.cancel();
                let failed = Error::new(Kind::Internal, "a lane ended without a result");
                lock(&round).failures.push(failed.with_source(error));
            }
        };
        let stop = self.shared.stop.token();
        let give_up = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            () = drained => {}
            () = give_up => tracing::warn!("writes in flight did not end in time; they are repeated on resume"),
        }
        tasks.shutdown().await;
        tuner.abort();
        watch.abort();
        let mut failures = std::mem::take(&mut lock(&round).failures);
        failures.extend(watch.await.ok().flatten());
        self.shared.guard.end_round();
        // Asked once more: a short round may end between two looks.
        match evictions.found(&self.shared).await {
            Some(error) => self.take_back(error, failures).await,
            None => failures,
        }
    }

    /// The target evicted keys, and nobody knows which: nothing that was committed counts any more.
    async fn take_back(&self, evicted: Error, mut failures: Vec<Error>) -> Vec<Error> {
        // A mark that was evicted looks like a target that was replaced; starting over would evict again.
        failures.retain(|error| error.kind() != Kind::TargetChanged);
        failures.push(evicted);
        if let Err(error) = self.shared.commits.flush().await {
            failures.push(from_journal(error));
        } else if let Err(error) = void_written(self).await {
            failures.push(error);
        }
        failures
    }

    async fn run_lane(&self, lane: usize, round: &Mutex<Round>, emptied: &CancellationToken) {
        let mut lanes = self.shared.dials.lanes();
        let stop = self.shared.stop.token();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = emptied.cancelled() => return,
                allowed = lanes.wait_for(|lanes| lane < *lanes) => if allowed.is_err() { return },
            }
            let Some(group) = lock(round).queue.pop_front() else {
                emptied.cancel();
                return;
            };
            let connection = self.shared.dials.connection_of(lane);
            let _at_work = self.shared.dials.begin_partition();
            let at_work = self.shared.dials.lanes_at_work() as u64;
            self.shared.counters.lanes.store(at_work, Ordering::Relaxed);
            for error in self.persist(connection, group).await {
                if error.kind() == Kind::Cancelled {
                    // Whoever threw the switch has said why; this lane only followed, and stops.
                    continue;
                }
                let is_fatal = error.kind().verdict() != Verdict::GiveUp;
                lock(round).failures.push(error);
                if is_fatal {
                    self.shared.stop.cancel();
                }
            }
        }
    }

    /// Attempts partitions until each is done, fails for good, or its systems stay away too long. Returns what failed.
    async fn persist(&self, lane: usize, group: Vec<PartitionRecord>) -> Vec<Error> {
        let stop = self.shared.stop.token();
        let rto_left = u64::try_from(self.rto_ends_ms - now_ms()).unwrap_or(0);
        let mut retry = Retry::within(outage_max(self.outage, Duration::from_millis(rto_left)));
        let mut rows = 0;
        let mut failures = Vec::new();
        let mut open = vec![group];
        // More than one only after a read failed that nobody knows the culprit of.
        while let Some(group) = open.pop() {
            let attempted = self.attempt(lane, &group).await;
            let (mut again, mut at_once) = (Vec::new(), Vec::new());
            let mut transient = None;
            for (record, outcome) in group.into_iter().zip(attempted.outcomes) {
                let Err(error) = outcome else { continue };
                let verdict = error.kind().verdict();
                if verdict == Verdict::Retry {
                    transient = Some(error);
                    again.push(record);
                } else if verdict == Verdict::Reject {
                    tracing::warn!(partition = %record.partition.id, %error, "they become rejects");
                    at_once.push(record);
                } else if attempted.is_read_broken
                    && verdict != Verdict::StartOver
                    && error.kind() != Kind::Cancelled
                {
                    tracing::warn!(partition = %record.partition.id, %error, "reading it alone");
                    open.push(vec![record]);
                } else {
                    failures.push(error);
                }
            }
            if !at_once.is_empty() {
                open.push(at_once);
            }
            let Some(error) = transient else { continue };
            let carried = self.shared.counters.rows();
            if carried > rows {
                // The systems work; only an outage without any progress counts against the limit.
                retry.progressed();
                rows = carried;
            }
            let told = error.to_string();
            let pause = match retry.pause_after(error) {
                Ok(pause) => pause,
                Err(error) => {
                    failures.push(error);
                    return failures;
                }
            };
            tracing::warn!(partition = %again[0].partition.id, error = told, "trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {
                    failures.push(Error::new(Kind::Cancelled, "the run was asked to stop"));
                    return failures;
                }
            }
            open.push(again);
        }
        failures
    }

    /// Attempts a group once: several partitions in one pass over their table, one by itself.
    async fn attempt(&self, lane: usize, group: &[PartitionRecord]) -> Ended {
        let mut members = Vec::with_capacity(group.len());
        for record in group {
            let found = self.routes.iter().find(|route| route.name() == record.partition.route);
            let Some(route) = found else {
                let message = format!("partition {} belongs to no route", record.partition.id);
                return Ended::alone(Err(Error::new(Kind::Internal, message)));
            };
            members.push(Member { route, record });
        }
        match &members[..] {
            [Member { route, record }] => {
                Ended::alone(run_partition(&self.shared, route, record, lane).await)
            }
            members => run_pass(&self.shared, members, lane).await,
        }
    }
}

/// What the target had evicted when a round began.
struct Evictions {
    before: Option<Pressure>,
}

impl Evictions {
    async fn since_now(shared: &Shared) -> Self {
        Self { before: shared.sink.pressure().await.ok() }
    }

    /// Keys that it has evicted since, by this look. A new process counts from its own start.
    fn by(&self, found: &Pressure) -> u64 {
        let Some(before) = &self.before else { return 0 };
        let is_same = before.process_id == found.process_id;
        found.evicted.saturating_sub(if is_same { before.evicted } else { 0 })
    }

    /// Returns the failure of a target that has evicted since.
    async fn found(&self, shared: &Shared) -> Option<Error> {
        let found = shared.sink.pressure().await.ok()?;
        let count = self.by(&found);
        if count == 0 {
            return None;
        }
        let policy = found.eviction;
        let message =
            format!("the target evicted {count} keys (policy {policy}) while it was filled");
        Some(Error::new(Kind::Capacity, message).with_hint(
            "raise maxmemory or leave routes out with --route, then run the same command again",
        ))
    }
}

/// Stops the round when there is no room left, or when the target begins to evict after all: what it evicts may be what
/// was just written. Returns why there is no room.
async fn watch_target(engine: Arc<Engine>, evictions: Arc<Evictions>) -> Option<Error> {
    let shared = &engine.shared;
    let is_evicting = |found: &Pressure| evictions.by(found) > 0;
    let gauge = engine.gauge.as_deref();
    let failed = match guard::watch(&shared.guard, &*shared.sink, gauge, &is_evicting).await {
        // The round asks once more when it ends, and says how many.
        guard::Verdict::Full | guard::Verdict::Evicting => None,
        guard::Verdict::Failed(error) => Some(error),
    };
    shared.stop.cancel();
    failed
}

fn lock(round: &Mutex<Round>) -> std::sync::MutexGuard<'_, Round> {
    round.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Orders partitions: priority, then newest first, then largest first.
pub fn order(partitions: &mut [PartitionRecord], routes: &[Arc<RouteRun>]) {
    let priority = |record: &PartitionRecord| {
        routes
            .iter()
            .find(|route| route.name() == record.partition.route)
            .map_or(u32::MAX, |route| route.bound.route.priority)
    };
    partitions.sort_by_key(|record| {
        (
            priority(record),
            std::cmp::Reverse(record.partition.newest_us),
            std::cmp::Reverse(record.partition.bytes_estimate),
            record.ordinal,
        )
    });
}
