//! Group commit: one task writes what all lanes acknowledged, in one transaction per interval.
//!
//! Invariant: a commit is durable or reported as not; after the journal fails nothing is accepted any more. What waits
//! for the next transaction is one merged span per attempt, so it is bounded by the lanes, not by the batches.

use super::Journal;
use super::error::{JournalError, Result};
use super::partitions::{Commit, Span, refusal};
use super::record::Delta;
use crate::checkpoint::{IllegalTransition, Status};
use schemas::PartitionId;
use stages::failpoint::{Point, pass};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Makes durable what a commit of these partitions depends on; runs on a blocking thread before each transaction.
pub type BeforeCommit = Arc<dyn Fn(&[PartitionId]) -> io::Result<()> + Send + Sync>;

/// Commit costs remembered for the median.
const COSTS_KEPT: usize = 33;
/// Lanes wait once a commit is late by this many intervals, so that a slow disk does not raise the work lost per crash.
const LATE_INTERVALS: u32 = 4;

type Waiter = oneshot::Sender<Result<()>>;

/// Starts the task that owns the commits of a run.
#[derive(Debug)]
pub struct Committer;

impl Committer {
    /// Starts the task. It ends, with what was pending committed, when the last handle is dropped; its result is the
    /// failure of the journal, if there was one.
    pub fn start(
        journal: Journal,
        run_id: impl Into<String>,
        interval: Duration,
        before: BeforeCommit,
    ) -> (CommitHandle, JoinHandle<Result<()>>) {
        let shared = Arc::new(Shared {
            journal,
            run_id: run_id.into(),
            queue: Mutex::new(Queue { interval, ..Queue::default() }),
            wake: Notify::new(),
        });
        // Made here, not in the task: an aborted task may never have run at all.
        let task = tokio::spawn(run(Closing(Arc::clone(&shared)), before));
        let handle = CommitHandle { _last: Arc::new(LastHandle(Arc::clone(&shared))), shared };
        (handle, task)
    }
}

/// Gives commits to the committer; every lane has a clone.
#[derive(Debug, Clone)]
pub struct CommitHandle {
    shared: Arc<Shared>,
    _last: Arc<LastHandle>,
}

impl CommitHandle {
    /// Hands over rows the target has acknowledged, for the next transaction.
    ///
    /// Returns without waiting for it, unless the one before is late. An error says that this attempt lost its
    /// partition, that its spans do not touch, or that the journal failed; then the attempt must stop.
    pub async fn commit(&self, delta: Delta) -> Result<()> {
        let late = {
            let mut queue = self.shared.queue();
            queue.accepts(&delta.partition, delta.epoch)?;
            if queue.pending.is_empty() {
                queue.due = Some(Instant::now() + queue.interval);
                self.shared.wake.notify_one();
            }
            queue.merge(delta)?;
            queue.is_late().then(|| queue.wait())
        };
        match late {
            Some(late) => late.await.unwrap_or(Err(JournalError::Ended)),
            None => Ok(()),
        }
    }

    /// Marks a partition done together with everything pending, and waits until that is durable.
    pub async fn finish(&self, partition: &PartitionId, epoch: u64, busy_ms: u64) -> Result<()> {
        let finished = {
            let mut queue = self.shared.queue();
            queue.accepts(partition, epoch)?;
            queue.finish(partition, epoch, busy_ms)
        };
        self.shared.wake.notify_one();
        finished.await.unwrap_or(Err(JournalError::Ended))?;
        pass(Point::PartitionFinished);
        Ok(())
    }

    /// Waits until everything handed over so far is durable or refused.
    pub async fn flush(&self) -> Result<()> {
        let flushed = {
            let mut queue = self.shared.queue();
            queue.is_open()?;
            queue.wait()
        };
        self.shared.wake.notify_one();
        flushed.await.unwrap_or(Err(JournalError::Ended))
    }

    /// Commits what an attempt achieved and records why it gave up.
    pub async fn fail(&self, partition: &PartitionId, epoch: u64, error: &str) -> Result<()> {
        self.flush().await?;
        self.shared.journal.fail(&self.shared.run_id, partition, epoch, error).await
    }

    /// Changes the time between transactions, from the next one on.
    pub fn set_interval(&self, interval: Duration) {
        self.shared.queue().interval = interval;
    }

    /// Returns the median cost of the last transactions, what runs before them included; `None` before the first.
    pub fn commit_cost(&self) -> Option<Duration> {
        let mut costs: Vec<_> = self.shared.queue().costs.iter().copied().collect();
        costs.sort_unstable();
        costs.get(costs.len() / 2).copied()
    }

    /// Returns how many transactions were committed.
    pub fn commits(&self) -> u64 {
        self.shared.queue().commits
    }
}

struct Shared {
    journal: Journal,
    run_id: String,
    queue: Mutex<Queue>,
    wake: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing under the lock panics halfway through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the task that no commit can come any more.
#[derive(Debug)]
struct LastHandle(Arc<Shared>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.0.queue().is_closed = true;
        self.0.wake.notify_one();
    }
}

/// What waits for the next transaction, and what came of the ones before.
#[derive(Default)]
struct Queue {
    interval: Duration,
    pending: HashMap<(PartitionId, u64), Pending>,
    due: Option<Instant>,
    waiters: Vec<Waiter>,
    /// Attempts that must stop, the newest of each partition.
    refused: HashMap<PartitionId, (u64, JournalError)>,
    failure: Option<JournalError>,
    is_closed: bool,
    costs: VecDeque<Duration>,
    commits: u64,
}

#[derive(Default)]
struct Pending {
    span: Option<Span>,
    finished_busy_ms: Option<u64>,
    waiters: Vec<Waiter>,
}

impl Pending {
    fn extend(&mut self, next: Span) -> Result<(), IllegalTransition> {
        if self.finished_busy_ms.is_some() {
            return Err(IllegalTransition::Status { status: Status::Done, event: "commit" });
        }
        match &mut self.span {
            None => self.span = Some(next),
            Some(span) if span.to != next.from => {
                return Err(IllegalTransition::Gap { expected: span.to.clone(), found: next.from });
            }
            Some(span) => {
                span.counts =
                    span.counts.checked_add(next.counts).ok_or(IllegalTransition::Overflow)?;
                span.to = next.to;
                span.ledger_bytes = next.ledger_bytes;
            }
        }
        Ok(())
    }
}

/// Everything one transaction takes from the queue.
struct Taken {
    commits: Vec<Commit>,
    finishers: Vec<Vec<Waiter>>,
    waiters: Vec<Waiter>,
}

impl Queue {
    fn is_open(&self) -> Result<()> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn accepts(&self, partition: &PartitionId, epoch: u64) -> Result<()> {
        self.is_open()?;
        match self.refused.get(partition) {
            Some((refused, error)) if *refused == epoch => Err(error.clone()),
            Some((refused, _)) if *refused > epoch => {
                Err(JournalError::Fenced { partition: partition.clone(), epoch })
            }
            _ => Ok(()),
        }
    }

    fn merge(&mut self, delta: Delta) -> Result<()> {
        let Delta { partition, epoch, from, to, counts, ledger_bytes } = delta;
        let pending = self.pending.entry((partition.clone(), epoch)).or_default();
        match pending.extend(Span { from, to, counts, ledger_bytes }) {
            Ok(()) => Ok(()),
            Err(source) => {
                // What touched so far was acknowledged and still counts.
                let error = refusal(&partition, epoch, source);
                self.refused.insert(partition, (epoch, error.clone()));
                Err(error)
            }
        }
    }

    fn finish(
        &mut self,
        partition: &PartitionId,
        epoch: u64,
        busy_ms: u64,
    ) -> oneshot::Receiver<Result<()>> {
        let (waiter, finished) = oneshot::channel();
        let pending = self.pending.entry((partition.clone(), epoch)).or_default();
        pending.finished_busy_ms = Some(busy_ms);
        pending.waiters.push(waiter);
        self.hurry();
        finished
    }

    /// Makes the next transaction due now, and no later than it already was: lateness counts from there.
    fn hurry(&mut self) {
        let now = Instant::now();
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    fn wait(&mut self) -> oneshot::Receiver<Result<()>> {
        let (waiter, flushed) = oneshot::channel();
        self.waiters.push(waiter);
        self.hurry();
        flushed
    }

    fn is_late(&self) -> bool {
        self.due.is_some_and(|due| due.elapsed() > self.interval * LATE_INTERVALS)
    }

    fn take(&mut self) -> Taken {
        self.due = None;
        let mut commits = Vec::with_capacity(self.pending.len());
        let mut finishers = Vec::with_capacity(self.pending.len());
        for ((partition, epoch), pending) in self.pending.drain() {
            let Pending { span, finished_busy_ms, waiters } = pending;
            commits.push(Commit { partition, epoch, span, finished_busy_ms });
            finishers.push(waiters);
        }
        Taken { commits, finishers, waiters: std::mem::take(&mut self.waiters) }
    }

    /// Remembers the first failure and answers everybody who waits.
    fn fail(&mut self, failure: JournalError) {
        let failure = self.failure.get_or_insert(failure).clone();
        let Taken { finishers, waiters, .. } = self.take();
        answer(finishers.into_iter().flatten().chain(waiters), &Err(failure));
    }
}

fn answer(waiters: impl IntoIterator<Item = Waiter>, result: &Result<()>) {
    for waiter in waiters {
        // A lane that was cancelled no longer listens.
        waiter.send(result.clone()).ok();
    }
}

/// Closes the queue when the task ends for whatever reason, a panic included, so that nobody waits for it.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.queue().fail(JournalError::Ended);
    }
}

async fn run(closing: Closing, before: BeforeCommit) -> Result<()> {
    let shared = &*closing.0;
    loop {
        let (due, is_closed) = {
            let queue = shared.queue();
            (queue.due, queue.is_closed)
        };
        match due {
            None if is_closed => return Ok(()),
            None => shared.wake.notified().await,
            Some(due) if is_closed || due <= Instant::now() => flush(shared, &before).await?,
            Some(due) => {
                // Woken early by a finish or a flush, which are due at once.
                tokio::time::timeout_at(due.into(), shared.wake.notified()).await.ok();
            }
        }
    }
}

async fn flush(shared: &Shared, before: &BeforeCommit) -> Result<()> {
    let Taken { commits, finishers, waiters } = shared.queue().take();
    let started = Instant::now();
    let results =
        if commits.is_empty() { Ok(Vec::new()) } else { write(shared, before, &commits).await };
    let mut queue = shared.queue();
    let results = match results {
        Ok(results) => results,
        Err(failure) => {
            queue.fail(failure.clone());
            answer(finishers.into_iter().flatten().chain(waiters), &Err(failure.clone()));
            return Err(failure);
        }
    };
    if !results.is_empty() {
        queue.commits += 1;
        queue.costs.push_back(started.elapsed());
        let surplus = queue.costs.len().saturating_sub(COSTS_KEPT);
        queue.costs.drain(..surplus);
    }
    for ((commit, finishers), result) in commits.into_iter().zip(finishers).zip(results) {
        if let Err(error) = &result {
            queue.refused.insert(commit.partition, (commit.epoch, error.clone()));
        }
        answer(finishers, &result);
    }
    answer(waiters, &Ok(()));
    Ok(())
}

async fn write(
    shared: &Shared,
    before: &BeforeCommit,
    commits: &[Commit],
) -> Result<Vec<Result<()>>> {
    let partitions: Vec<_> = commits.iter().map(|commit| commit.partition.clone()).collect();
    let before = Arc::clone(before);
    tokio::task::spawn_blocking(move || before(&partitions))
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(|source| JournalError::BeforeCommit { source: Arc::new(source) })?;
    pass(Point::LedgerSynced);
    let committed = shared.journal.commit_all(&shared.run_id, commits).await?;
    pass(Point::JournalCommitted);
    Ok(committed)
}
