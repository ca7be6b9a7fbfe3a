//! One partition on its way: read -> transform -> ledger -> write -> commit. Read this file first.
//!
//! Invariant: what is committed is a contiguous prefix of the partition, acknowledged by the target before
//! the journal hears of it. The first error stops the lane; everything after the last commit is redone.

mod clock;
mod pieces;

use crate::checkpoint::Counts;
use crate::cpu::CpuPool;
use crate::guard::{Guard, admitted};
use crate::journal::{Begun, CommitHandle, Delta, Journal, PartitionRecord};
use crate::ledger::{self, Ledger};
use crate::outcome::from_journal;
use crate::progress::Counters;
use crate::refused::{Refusals, single_out};
use crate::rejects::RejectWriter;
use crate::route::RouteRun;
use crate::snapshots::Snapshots;
use crate::stop::StopSwitch;
use crate::tuning::{Dials, Window};
use clock::Clock;
use futures::{StreamExt, TryStreamExt};
use pieces::{Ready, Transformed, ended, framed, placed, stitched};
use schemas::{Partition, PartitionId, Position};
use stages::extract::{BatchStream, Columns, READAHEAD};
use stages::load::{Sink, Written};
use stages::transform::{Attempt as Numbered, Transform, leave_out};
use stages::{Encoded, Error, Kind, RawBatch, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Transforms a lane may have queued or running.
pub const TRANSFORMS: usize = 2;
/// Batches a lane may have at the target, unanswered, where it turned out to help.
pub const WRITES: usize = 4;

/// Batches that may be alive in one lane: waiting, being filled, transformed, written.
pub const BATCHES_ALIVE: usize = READAHEAD + TRANSFORMS + WRITES + 1;

/// What all lanes of a run share.
pub struct Shared {
    /// The run's id.
    pub run_id: String,
    /// The journal.
    pub journal: Journal,
    /// Group commit.
    pub commits: CommitHandle,
    /// Where entries go.
    pub sink: Arc<dyn Sink>,
    /// Transform threads.
    pub cpu: CpuPool,
    /// Keys written.
    pub ledger: Arc<Ledger>,
    /// Rows that could not be carried.
    pub rejects: RejectWriter,
    /// Rows that the target refused in an earlier attempt.
    pub refusals: Refusals,
    /// Source states used.
    pub snapshots: Snapshots,
    /// Holds batches back where a system has no room or is pressed.
    pub guard: Arc<Guard>,
    /// How much may be on its way.
    pub dials: Dials,
    /// Live counters.
    pub counters: Arc<Counters>,
    /// Cancelled when lanes must stop at the next batch.
    pub stop: StopSwitch,
}

/// A batch that the target acknowledged.
struct Acknowledged {
    position: Position,
    counts: Counts,
    is_settled: bool,
    ledger_bytes: u64,
}

/// One attempt at a partition; owns its epoch.
struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    route: &'a Arc<RouteRun>,
    partition: &'a Partition,
    lane: usize,
    epoch: u64,
}

/// Carries one partition from its committed position to its end.
///
/// Returns once the journal holds it as done. After an error the partition can be attempted again at once;
/// `Fenced` means that another attempt owns it.
pub async fn run_partition(
    shared: &Arc<Shared>,
    route: &Arc<RouteRun>,
    record: &PartitionRecord,
    lane: usize,
) -> Result<()> {
    let started = Instant::now();
    let partition = &record.partition;
    let session = route.source.open().await?;
    let snapshot = shared.snapshots.record(session.snapshot()).await?;
    let begun = begin(shared, route, record, snapshot).await?;
    let stream = session.read(partition, &begun.position, Columns::All);
    carry_on(shared, route, partition, lane, (begun, started), stream).await
}

/// Begins an attempt under a snapshot that was recorded.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    route: &Arc<RouteRun>,
    record: &PartitionRecord,
    snapshot: i64,
) -> Result<Begun> {
    route.accept_snapshot(snapshot)?;
    shared.commits.flush().await.map_err(from_journal)?;
    let begun = shared.journal.begin(&shared.run_id, &record.partition.id, snapshot).await;
    begun.map_err(from_journal)
}

/// Carries what an attempt reads that began at this time, and journals how it ended.
pub(crate) async fn carry_on(
    shared: &Arc<Shared>,
    route: &Arc<RouteRun>,
    partition: &Partition,
    lane: usize,
    (begun, started): (Begun, Instant),
    stream: BatchStream,
) -> Result<()> {
    let attempt = Attempt { shared, route, partition, lane, epoch: begun.epoch };
    let is_stream = route.bound.is_stream();
    if is_stream {
        // Each attempt replaces its stream, which may have another order of rows then.
        shared.ledger.forget(&partition.id)?;
    }
    if begun.epoch > 1 {
        shared.rejects.begin(&partition.id, begun.rejects)?;
    }
    let length = crate::rdb::begin(shared, &partition.id, &begun, is_stream).await?;
    let refused = shared.refusals.of(&partition.id);
    // From its start a partition meets every refusal again.
    let is_anew = begun.position == Position::Start;
    shared.ledger.note_refused(&partition.id, refused.keys().map(Vec::as_slice), is_anew)?;
    // Only the very first attempt on an empty target may rely on finding nothing under its keys.
    let style = route.style(&partition.bounds, begun.epoch == 1);
    let transform = (route.transform)(&partition.bounds, style);
    let outcome = attempt.carry(stream, transform, begun.position, length).await;
    shared.ledger.end(&partition.id);
    let busy_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok(()) => {
            shared
                .commits
                .finish(&partition.id, begun.epoch, busy_ms)
                .await
                .map_err(from_journal)?;
            shared.refusals.forget(&partition.id);
            if shared.counters.partition_done(route.index, now_ms()) {
                note_completed(shared, route).await?;
            }
            Ok(())
        }
        Err(error) if error.kind() == Kind::Cancelled => {
            shared.commits.flush().await.map_err(from_journal)?;
            Err(error)
        }
        Err(error) => {
            let failed = shared.commits.fail(&partition.id, begun.epoch, &error.to_string()).await;
            // What the lane met is the cause; that it could not be noted is only worth a line.
            if let Err(noted) = failed {
                tracing::debug!(error = %noted, "the failed attempt could not be journaled");
            }
            Err(error)
        }
    }
}

impl Attempt<'_> {
    async fn carry(
        &self,
        stream: BatchStream,
        transform: Arc<dyn Transform>,
        position: Position,
        ledger_bytes: u64,
    ) -> Result<()> {
        let mut length = ledger_bytes;
        let name = format!("{}:{}:{}", self.shared.run_id, self.partition.id, self.epoch);
        let number = self.route.number_of(&self.partition.id);
        let mut stitcher = transform.stitcher(&Numbered { name: &name, number });
        let refused = self.shared.refusals.of(&self.partition.id);
        let decoder = (self.route.decoder_of)(&self.partition.bounds);
        let clock = Clock::start(&self.shared.counters.routes[self.route.index]);
        let window = Window::new(self.shared.dials.depth());
        let transformed = self.batches(stream, &clock).map_ok(|raw| {
            clock.turn(|now| now.transforms += 1);
            let (transform, refused) = (Arc::clone(&transform), Arc::clone(&refused));
            let bound = Arc::clone(&self.route.bound);
            self.shared.cpu.submit(move || {
                let (whole, now) = (raw.share(), now_ms());
                let encoded = leave_out(&*transform, decoder, &bound.schema, raw, now, &refused)?;
                let is_whole = encoded.open.is_none();
                let frame = is_whole.then(|| ledger::encode_frame(&encoded)).transpose()?;
                Ok(Transformed { encoded, frame, raw: is_whole.then_some(whole) })
            })
        });
        let stop = self.shared.stop.token();
        let pieces = transformed
            .try_buffered(TRANSFORMS)
            .inspect(|_| clock.turn(|now| now.transforms = now.transforms.saturating_sub(1)))
            .map(Some)
            .chain(futures::stream::iter([None]))
            .map(|transformed| match transformed {
                Some(transformed) => stitched(&mut stitcher, transformed),
                // Asked to stop, the batches end before the partition does.
                None if stop.is_cancelled() => Vec::new(),
                None => ended(&mut stitcher),
            })
            .flat_map(futures::stream::iter);
        let shared = Arc::clone(self.shared);
        let ready = pieces.and_then(move |transformed| framed(Arc::clone(&shared), transformed));
        let ask = |ready: &Ready| {
            clock.turn(|now| now.is_held = true);
            self.shared.guard.asked(self.route.index, &ready.encoded)
        };
        let admitted = admitted(&self.shared.guard, &stop, ask, ready);
        let clock = &clock;
        let placed = placed(&self.shared.dials, clock, &window, admitted);
        let written = placed.map_ok(|(ready, held)| {
            length += ready.frame.len() as u64;
            let written = self.write(ready, length);
            async move {
                let written = written.await;
                drop(held);
                clock.turn(|now| now.writes = now.writes.saturating_sub(1));
                written
            }
        });
        let unsettled = self.commit_each(written.try_buffered(WRITES), position).await?;
        if self.shared.stop.is_cancelled() || self.shared.guard.is_full() {
            return Err(Error::new(Kind::Cancelled, "the run was asked to stop"));
        }
        if unsettled != Counts::default() {
            let message = format!("partition {} ended with rows unsettled", self.partition.id);
            return Err(Error::new(Kind::Internal, message));
        }
        Ok(())
    }

    /// Commits what was acknowledged, in order; returns what counts for no position yet.
    async fn commit_each(
        &self,
        written: impl futures::Stream<Item = Result<Acknowledged>>,
        position: Position,
    ) -> Result<Counts> {
        let (mut from, mut unsettled) = (position, Counts::default());
        let mut written = std::pin::pin!(written);
        while let Some(acknowledged) = written.try_next().await? {
            let Acknowledged { position, counts, is_settled, ledger_bytes } = acknowledged;
            // A batch inside one group of equal `split_by` values completes none: the position stays.
            let position = if position == Position::Start { from.clone() } else { position };
            self.shared.counters.add(self.route.index, &counts);
            let counts = unsettled.checked_add(counts).ok_or_else(|| {
                Error::new(Kind::Internal, "a counter of a partition would overflow")
            })?;
            // Rows after the position are read again by another attempt, and counted then.
            unsettled = if is_settled { Counts::default() } else { counts };
            if !is_settled {
                continue;
            }
            let delta = Delta {
                partition: self.partition.id.clone(),
                epoch: self.epoch,
                from: std::mem::replace(&mut from, position.clone()),
                to: position,
                counts,
                ledger_bytes,
            };
            self.shared.commits.commit(delta).await.map_err(from_journal)?;
        }
        Ok(unsettled)
    }

    /// Turns the source's channel into a stream.
    fn batches<'b>(
        &'b self,
        stream: BatchStream,
        clock: &'b Clock<'_>,
    ) -> impl futures::Stream<Item = Result<RawBatch>> + 'b {
        let stop = self.shared.stop.token();
        futures::stream::unfold((stream, stop), move |(mut stream, stop)| async move {
            // Asked to stop, the lane takes no more batches; those on their way are still written and committed.
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                next = stream.next() => next,
            };
            if next.is_none() {
                clock.turn(|now| now.is_read = true);
            }
            next.map(|batch| (batch, (stream, stop)))
        })
    }

    async fn write(&self, ready: Ready, ledger_bytes: u64) -> Result<Acknowledged> {
        let Ready { encoded, frame, raw } = ready;
        if !encoded.temporary.is_empty() {
            self.shared.ledger.note_temporary(&encoded.temporary)?;
        }
        let id: &PartitionId = &self.partition.id;
        // Before the first byte leaves: a key that may be in the target is in the ledger.
        if !frame.is_empty() {
            self.shared.ledger.append(id, &frame)?;
        }
        let mut rejects = 0;
        if let Some(rejected) = &encoded.rejected {
            rejects = rejected.reasons.len() as u64;
            self.shared.rejects.write(&self.route.bound.route.name, id, self.epoch, rejected)?;
        }
        let outcome = match self.shared.sink.write_of(self.lane, id, &encoded).await {
            Err(error) if error.kind() == Kind::Refused => {
                let Some(raw) = raw else {
                    // A key of many rows: none of them is at fault alone.
                    return Err(Error::new(Kind::Data, error.to_string()).with_source(error));
                };
                let (shared, route, partition) = (self.shared, self.route, self.partition);
                return Err(single_out(shared, route, partition, self.lane, raw).await);
            }
            outcome => outcome?,
        };
        let Written { written, kept, folded } = outcome;
        let counts = Counts {
            rows: encoded.rows_read,
            bytes: encoded.bytes_read,
            // Of a row that is left out nothing is written, as of a field that is.
            written: written + encoded.left_out,
            kept,
            folded,
            expired: encoded.expired,
            rejects,
            digest: encoded.digest,
        };
        let accounted = counts.written + kept + counts.expired + rejects;
        if counts.rows != accounted || folded > written {
            return Err(Error::new(
                Kind::Internal,
                format!("a batch of partition {id} does not add up: {} rows read", counts.rows),
            ));
        }
        let Encoded { position, is_settled, .. } = encoded;
        Ok(Acknowledged { position, counts, is_settled, ledger_bytes })
    }
}

/// Journals when a route was first complete, at once: a crash later in the run must not forget it.
async fn note_completed(shared: &Shared, route: &RouteRun) -> Result<()> {
    let records = shared.journal.routes(&shared.run_id).await.map_err(from_journal)?;
    let found = records.into_iter().find(|record| record.name == route.name());
    let Some(mut record) = found.filter(|record| record.completed_ms.is_none()) else {
        return Ok(());
    };
    record.completed_ms = Some(now_ms());
    shared.journal.update_route(&record).await.map_err(from_journal)
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
