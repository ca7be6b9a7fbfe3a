//! The first look: every row of every route beside its key, in lanes.
//!
//! Invariant: a partition counts once, whatever became of earlier attempts at it; memory is a few pages per lane, and
//! what differs goes to disk.

use super::candidate::Pile;
use super::ends::Ends;
use super::judge::Expected;
use super::last::LastRows;
use super::many::Groups;
use super::page::{Compared, Page, Tally, asked_of};
use super::sample::Sample;
use crate::checkpoint::Counts;
use crate::cpu::CpuPool;
use crate::keys::Buckets;
use crate::lane::now_ms;
use crate::progress::Counters;
use crate::route::RouteRun;
use futures::TryStreamExt;
use schemas::plan::OnCollision;
use schemas::{Bounds, Partition, Position};
use stages::extract::redis_entries::Ask;
use stages::extract::redis_rows::{Commands, RowReader};
use stages::extract::{BatchStream, Columns, Snapshot};
use stages::policy::Retry;
use stages::transform::Style;
use stages::{Error, Kind, RawBatch, Result};
use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Batches of one lane that may be on the transform threads.
const TRANSFORMS: usize = 2;
/// Keys of a pile that are looked through at once.
const PILED_KEYS: usize = 1_000;
/// The time at which rows are encoded, in ms since 1970: then nothing has expired, so expired rows are among the keys.
const THEN_MS: i64 = 0;

/// What all lanes share.
pub(super) struct Pass {
    pub(super) ends: Arc<Ends>,
    pub(super) cpu: Arc<CpuPool>,
    pub(super) counters: Arc<Counters>,
    /// Where piles and buckets lie.
    pub(super) folder: PathBuf,
    pub(super) lanes: usize,
    pub(super) retry_for: Duration,
    pub(super) ask: Ask,
    /// One per route, or none where no sample is taken.
    pub(super) samples: Vec<Sample>,
    /// Hashes of the keys of all rows, where unexplained keys are looked for.
    pub(super) explained: Option<Mutex<Buckets>>,
    /// One per route.
    pub(super) seen: Vec<Mutex<Seen>>,
    /// Cancelled when lanes must stop at their next batch.
    pub(super) stop: CancellationToken,
    /// Number of piles begun, for their names.
    pub(super) piles: AtomicU64,
}

/// What was seen of one route.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) tally: Tally,
    pub(super) partitions: u64,
    pub(super) piles: Vec<Pile>,
    /// Each state of the source that was read, once.
    pub(super) snapshots: Vec<Snapshot>,
    /// Rows of a route whose last row wins, until all of them are known.
    pub(super) rows: Option<LastRows>,
}

impl Seen {
    /// Returns which of these keys are in the piles.
    pub(super) fn met(&mut self, keys: &[(Vec<u8>, Expected)]) -> Result<HashSet<Vec<u8>>> {
        let wanted: HashSet<&[u8]> = keys.iter().map(|(key, _)| &key[..]).collect();
        let mut met = HashSet::new();
        for pile in &mut self.piles {
            let mut reader = pile.read()?;
            while let Some(candidates) = reader.some(PILED_KEYS)? {
                let keys = candidates.into_iter().map(|candidate| candidate.key);
                met.extend(keys.filter(|key| wanted.contains(&key[..])));
            }
        }
        Ok(met)
    }
}

/// A page on its way to Redis.
struct Ready {
    page: Page,
    questions: Commands,
    /// Empty unless asked for.
    hashes: Vec<u128>,
}

/// What one attempt at a partition saw.
pub(super) struct Looked {
    tally: Tally,
    pile: Pile,
    snapshot: Snapshot,
}

impl Pass {
    /// Looks at all partitions; returns what failed.
    pub(super) async fn run(self: &Arc<Self>, partitions: Vec<(usize, Partition)>) -> Vec<Error> {
        let mut failures = self.round(partitions).await;
        if failures.is_empty() {
            failures = self.round(self.changed_meanwhile()).await;
        }
        for route in &self.ends.routes {
            if failures.is_empty()
                && let Err(error) = self.compare_last(route).await
            {
                failures.push(error);
            }
        }
        failures
    }

    async fn round(self: &Arc<Self>, partitions: Vec<(usize, Partition)>) -> Vec<Error> {
        let lanes = self.lanes.min(partitions.len());
        let queue = Arc::new(Mutex::new(VecDeque::from(partitions)));
        let mut tasks = JoinSet::new();
        for _ in 0..lanes {
            let (pass, queue) = (Arc::clone(self), Arc::clone(&queue));
            tasks.spawn(async move { pass.lane(&queue).await });
        }
        let mut failures = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                // Whoever stopped the others has said why.
                Ok(Err(error)) if error.kind() == Kind::Cancelled && !failures.is_empty() => {}
                Ok(Err(error)) => failures.push(error),
                Err(error) => {
                    let message = "a lane panicked";
                    failures.push(Error::new(Kind::Internal, message).with_source(error));
                }
            }
        }
        failures
    }

    async fn lane(&self, queue: &Mutex<VecDeque<(usize, Partition)>>) -> Result<()> {
        let mut reader = self.ends.reader();
        loop {
            let Some((index, partition)) = lock(queue).pop_front() else { return Ok(()) };
            let route = &self.ends.routes[index];
            let looked = match self.persist(route, &partition, &mut reader).await {
                Ok(looked) => looked,
                Err(error) => {
                    self.stop.cancel();
                    return Err(error);
                }
            };
            let mut seen = lock(&self.seen[index]);
            // What is read again after a change was counted before.
            if matches!(partition.bounds, Bounds::ChangedSince { .. }) {
                seen.tally.keys += looked.tally.keys;
                seen.tally.compared += looked.tally.compared;
            } else {
                seen.tally.add(&looked.tally);
                seen.partitions += 1;
            }
            if looked.pile.len() > 0 {
                seen.piles.push(looked.pile);
            }
            if !seen.snapshots.contains(&looked.snapshot) {
                seen.snapshots.push(looked.snapshot);
            }
            self.counters.partition_done(index, now_ms());
        }
    }

    /// Attempts a partition until it is done, fails for good, or its systems stay away too long.
    async fn persist(
        &self,
        route: &Arc<RouteRun>,
        partition: &Partition,
        reader: &mut RowReader,
    ) -> Result<Looked> {
        let mut retry = Retry::within(self.retry_for);
        let mut rows = 0;
        loop {
            let error = match self.look(route, partition, reader).await {
                Ok(looked) => return Ok(looked),
                Err(error) => error,
            };
            let carried = self.counters.rows();
            if carried > rows {
                retry.progressed();
                rows = carried;
            }
            tokio::select! {
                waited = retry.wait_after(error) => waited?,
                () = self.stop.cancelled() => {
                    return Err(Error::new(Kind::Cancelled, "the command was asked to stop"));
                }
            }
        }
    }

    async fn look(
        &self,
        route: &Arc<RouteRun>,
        partition: &Partition,
        reader: &mut RowReader,
    ) -> Result<Looked> {
        let session = route.source.open().await?;
        let mut looked = Looked {
            tally: Tally::default(),
            pile: self.new_pile(route)?,
            snapshot: session.snapshot().clone(),
        };
        let stream = session.read(partition, &Position::Start, Columns::All);
        match Groups::new(route, partition)? {
            Some(groups) => self.look_at_groups(route, groups, stream, &mut looked).await?,
            None => self.look_at_rows(route, partition, stream, reader, &mut looked).await?,
        }
        if self.stop.is_cancelled() {
            return Err(Error::new(Kind::Cancelled, "the command was asked to stop"));
        }
        Ok(looked)
    }

    /// Looks at the keys of a partition, one of each row; Redis answers a page while the one before is compared.
    async fn look_at_rows(
        &self,
        route: &RouteRun,
        partition: &Partition,
        stream: BatchStream,
        reader: &mut RowReader,
        looked: &mut Looked,
    ) -> Result<()> {
        let transform = (route.transform)(&partition.bounds, Style::Blank);
        let (ask, hashes_keys) = (asked_of(&route.bound, self.ask), self.explained.is_some());
        let pages = self.batches(stream).map_ok(|raw| {
            let (transform, bound) = (Arc::clone(&transform), Arc::clone(&route.bound));
            self.cpu.submit(move || {
                let page = Page::of_batch(transform.apply(raw, THEN_MS)?);
                let questions = page.questions(&bound, ask)?;
                let hashes = if hashes_keys { page.hashes() } else { Vec::new() };
                Ok(Ready { page, questions, hashes })
            })
        });
        let mut pages = std::pin::pin!(pages.try_buffered(TRANSFORMS));
        let mut comparing = None;
        while let Some(Ready { page, questions, hashes }) = pages.try_next().await? {
            self.explain(&hashes)?;
            let Tally { rows, bytes, rejects, .. } = page.tally;
            let counts = Counts { rows, bytes, rejects, ..Counts::default() };
            self.counters.add(route.index, &counts);
            if self.keep_for_last(route, &page)? {
                looked.tally.add(&page.tally);
                continue;
            }
            self.offer(route, &page);
            let answers = reader.ask(&questions).await?;
            let bound = Arc::clone(&route.bound);
            let comparison = self.cpu.submit(move || page.compare(&bound, ask, &answers));
            // The page before was compared while Redis answered this one.
            if let Some(earlier) = comparing.replace(comparison) {
                looked.take(&earlier.await?)?;
            }
        }
        if let Some(last) = comparing {
            looked.take(&last.await?)?;
        }
        Ok(())
    }

    /// Turns the source's channel into a stream that ends early when the lanes are to stop.
    pub(super) fn batches(
        &self,
        stream: BatchStream,
    ) -> impl futures::Stream<Item = Result<RawBatch>> + '_ {
        futures::stream::unfold(stream, move |mut stream| async move {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                next = stream.next() => next,
            };
            next.map(|batch| (batch, stream))
        })
    }

    pub(super) fn new_pile(&self, route: &RouteRun) -> Result<Pile> {
        let number = self.piles.fetch_add(1, Ordering::Relaxed);
        Pile::new(&self.folder, &format!("{}.pile{number}", route.name()))
    }

    pub(super) fn explain(&self, hashes: &[u128]) -> Result<()> {
        let Some(explained) = &self.explained else { return Ok(()) };
        let mut explained = lock(explained);
        hashes.iter().try_for_each(|hash| explained.push(*hash, &[]))
    }

    pub(super) fn offer(&self, route: &RouteRun, page: &Page) {
        let Some(sample) = self.samples.get(route.index) else { return };
        let now_ms = now_ms();
        for (key, expected) in page.iter() {
            if expected.expires_ms == 0 || expected.expires_ms > now_ms {
                sample.offer(key, expected);
            }
        }
    }

    /// Keeps the rows of a route whose last row wins; returns whether it did.
    fn keep_for_last(&self, route: &RouteRun, page: &Page) -> Result<bool> {
        if !is_last(route) {
            return Ok(false);
        }
        let mut seen = lock(&self.seen[route.index]);
        let rows = match &mut seen.rows {
            Some(rows) => rows,
            none => {
                let estimate =
                    self.counters.routes[route.index].rows_estimate.load(Ordering::Relaxed);
                none.insert(LastRows::create(&self.folder, route.name(), estimate)?)
            }
        };
        page.iter().try_for_each(|(key, expected)| rows.push(key, expected))?;
        Ok(true)
    }

    /// Partitions of rows that the first snapshot may not have seen, where several were used.
    fn changed_meanwhile(&self) -> Vec<(usize, Partition)> {
        let mut partitions = Vec::new();
        for route in &self.ends.routes {
            let seen = lock(&self.seen[route.index]);
            let oldest = seen.snapshots.iter().map(|snapshot| snapshot.xmin).min();
            if let Some(oldest) = oldest.filter(|_| seen.snapshots.len() > 1)
                && route.source.no_catch_up().is_none()
            {
                let changed = route.source.catch_up(oldest, 1_000_000);
                partitions.extend(changed.into_iter().map(|partition| (route.index, partition)));
            }
        }
        partitions
    }

    /// Compares the rows that were kept, of each key the last one.
    async fn compare_last(&self, route: &RouteRun) -> Result<()> {
        let Some(rows) = lock(&self.seen[route.index]).rows.take() else { return Ok(()) };
        let mut reader = self.ends.reader();
        for bucket in rows.finish()? {
            for page in bucket.pages(now_ms())? {
                self.offer(route, &page);
                let questions = page.questions(&route.bound, self.ask)?;
                let answers = reader.ask(&questions).await?;
                let compared = page.compare(&route.bound, self.ask, &answers)?;
                let mut pile = self.new_pile(route)?;
                for (key, look) in compared.differing {
                    pile.push(&key, look)?;
                }
                let mut seen = lock(&self.seen[route.index]);
                seen.tally.add(&compared.tally);
                if pile.len() > 0 {
                    seen.piles.push(pile);
                }
            }
        }
        Ok(())
    }
}

impl Looked {
    pub(super) fn take(&mut self, compared: &Compared) -> Result<()> {
        self.tally.add(&compared.tally);
        compared.differing.iter().try_for_each(|(key, look)| self.pile.push(key, *look))
    }
}

/// Whether several rows may have one key, of which the last one counts.
pub(super) fn is_last(route: &RouteRun) -> bool {
    matches!(route.bound.route.on_collision, Some(OnCollision::Last { .. }))
        && !route.bound.key_is_proven_unique
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
