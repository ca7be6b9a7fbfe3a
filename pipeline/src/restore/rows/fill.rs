//! One partition of a spool into one write stream, from its first row to its last.
//!
//! Invariant: a stream that an earlier process began is given up before the first row; within an attempt a piece whose
//! answer got lost is sent again at its offset, as it was.

use super::super::load::{Ended, Lane};
use super::super::stage::StreamStage;
use super::read::Reader;
use super::{Counted, RowSource};
use crate::checkpoint::Counts;
use crate::journal::StreamRecord;
use crate::lane::now_ms;
use crate::spool::Cut;
use schemas::{Digest, PartitionId};
use stages::load::bigquery::{AppendFailure, Appender, Piece};
use stages::policy::Retry;
use stages::transform::redis_rows::{Reject, reject_keys};
use stages::{Error, Kind, Rejected, Result};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Streams one partition may use up in one process.
const REPLACED_MAX: u32 = 5;
/// Rejects that are written together.
const REJECTS_AT_ONCE: usize = 1_000;

/// Fills a stream; the record says `finalized`, and is to be journaled after what was counted.
pub(in super::super) async fn fill(
    lane: &Lane,
    source: &RowSource,
    cut: &Cut,
    mut stream: StreamRecord,
) -> Result<(StreamRecord, Counted)> {
    let mut replaced = 0;
    let name = stream.table_partition.clone();
    let mut attempt = Attempt { lane, source, cut, sent: 0, waiting: VecDeque::new() };
    loop {
        if stream.status == StreamStage::Open {
            stream.status = StreamStage::Planned;
            (stream.stream, stream.acknowledged, stream.digest) = (None, 0, None);
            lane.note(&stream).await?;
        }
        match attempt.run(&mut stream).await {
            Ok(counted) => {
                lane.shared.counters.partition_done(lane.index, now_ms());
                return Ok((stream, counted));
            }
            Err(Ended::Replace(reason)) if replaced < REPLACED_MAX => {
                tracing::warn!(partition = name, reason, "the write stream is replaced");
                replaced += 1;
                let rows = &lane.shared.counters.routes[lane.index].rows;
                rows.fetch_sub(std::mem::take(&mut attempt.sent), Ordering::Relaxed);
            }
            Err(Ended::Replace(reason)) => {
                let message =
                    format!("partition {name}: gave up after {replaced} write streams: {reason}");
                return Err(Error::new(Kind::Unavailable, message)
                    .with_hint("run the same command again; it goes on where it stopped"));
            }
            Err(Ended::Failed(error)) => return Err(error),
        }
    }
}

struct Attempt<'a> {
    lane: &'a Lane,
    source: &'a RowSource,
    cut: &'a Cut,
    /// Rows that were counted as progress.
    sent: u64,
    /// Pieces without an answer.
    waiting: VecDeque<Piece>,
}

impl Attempt<'_> {
    async fn run(&mut self, stream: &mut StreamRecord) -> std::result::Result<Counted, Ended> {
        let lane = self.lane;
        let shared = &lane.shared;
        self.waiting.clear();
        let name = shared.patiently(|| lane.write.create_stream()).await?;
        stream.stream = Some(name.clone());
        stream.attempt += 1;
        stream.status = StreamStage::Open;
        self.lane.note(stream).await?;
        // Every attempt reads the partition from its first row.
        self.source.rejects.begin(&self.rejected_in(stream), 0)?;
        let mut reader = Reader::start(self.lane, self.source, self.cut);
        let mut appender = None;
        let (mut offset, mut digest, mut counted) = (0, Digest::default(), Counted::default());
        let mut rejects = Vec::new();
        while let Some(page) = reader.next(self.lane).await? {
            counted.bytes += page.bytes;
            counted.vanished += page.vanished;
            counted.rejects += page.rejects.len() as u64;
            digest += page.digest;
            rejects.extend(page.rejects);
            if rejects.len() >= REJECTS_AT_ONCE {
                self.keep(stream, &mut rejects)?;
            }
            for message in page.messages {
                let rows = message.rows as u64;
                let piece = Piece { offset, rows, message: message.bytes };
                self.push(&mut appender, &name, piece).await?;
                offset += rows;
                self.sent += rows;
                shared.counters.add(self.lane.index, &Counts { rows, ..Counts::default() });
            }
            let bytes = page.bytes;
            shared.counters.add(self.lane.index, &Counts { bytes, ..Counts::default() });
        }
        self.keep(stream, &mut rejects)?;
        self.settle(&mut appender, &name).await?;
        match shared.patiently(|| lane.write.finalize(&name)).await? {
            Some(found) if found == offset => {}
            Some(_) => {
                return Err(Ended::Replace("it holds another number of rows than were sent"));
            }
            None => return Err(Ended::Replace("it is gone")),
        }
        stream.status = StreamStage::Finalized;
        stream.acknowledged = offset;
        stream.digest = Some(digest.hex());
        Ok(counted)
    }

    /// Sends a piece; after a lost connection everything without an answer is sent again.
    async fn push(
        &mut self,
        appender: &mut Option<Appender>,
        name: &str,
        piece: Piece,
    ) -> std::result::Result<(), Ended> {
        self.waiting.push_back(piece.clone());
        let started = Instant::now();
        let open = || self.lane.write.append(name, self.lane.schema_message.clone());
        let current = appender.get_or_insert_with(open);
        let pushed = current.push(piece).await;
        let acknowledged = current.acknowledged();
        self.forget(acknowledged);
        let pushed = match pushed {
            Ok(()) => Ok(()),
            Err(failure) => {
                *appender = None;
                self.again(failure, name).await
            }
        };
        self.lane.shared.counters.target_time(self.lane.index, started.elapsed());
        pushed
    }

    /// Waits until everything is acknowledged.
    async fn settle(
        &mut self,
        appender: &mut Option<Appender>,
        name: &str,
    ) -> std::result::Result<(), Ended> {
        let started = Instant::now();
        let settled = match appender.take() {
            None => Ok(()),
            Some(appender) => match appender.finish().await {
                Ok(_) => Ok(()),
                Err(failure) => self.again(failure, name).await,
            },
        };
        self.lane.shared.counters.target_time(self.lane.index, started.elapsed());
        settled
    }

    /// Sends everything without an answer again, at the same offsets, until it is acknowledged.
    async fn again(
        &mut self,
        failure: AppendFailure,
        name: &str,
    ) -> std::result::Result<(), Ended> {
        let mut retry = Retry::within(self.lane.shared.retry_for);
        let mut failure = failure;
        loop {
            let error = match failure {
                AppendFailure::Beyond => {
                    return Err(Ended::Replace("rows it had acknowledged are not there"));
                }
                AppendFailure::Gone => return Err(Ended::Replace("it is gone")),
                AppendFailure::Closed => {
                    return Err(Ended::Replace("it was closed before it was complete"));
                }
                AppendFailure::Failed(error) => error,
            };
            retry.wait_after(error).await.map_err(Ended::Failed)?;
            let before = self.waiting.len();
            match self.resend(name).await {
                Ok(()) => return Ok(()),
                Err(found) => failure = found,
            }
            if self.waiting.len() < before {
                retry.progressed();
            }
        }
    }

    async fn resend(&mut self, name: &str) -> std::result::Result<(), AppendFailure> {
        let mut appender = self.lane.write.append(name, self.lane.schema_message.clone());
        let pieces: Vec<Piece> = self.waiting.iter().cloned().collect();
        for piece in pieces {
            let pushed = appender.push(piece).await;
            self.forget(appender.acknowledged());
            pushed?;
        }
        appender.finish().await?;
        self.waiting.clear();
        Ok(())
    }

    fn forget(&mut self, acknowledged: Option<u64>) {
        let end = acknowledged.unwrap_or(0);
        while self.waiting.front().is_some_and(|piece| piece.offset + piece.rows <= end) {
            self.waiting.pop_front();
        }
    }

    /// What the files of its rejects are named after.
    fn rejected_in(&self, stream: &StreamRecord) -> PartitionId {
        PartitionId(format!("{}/{}", self.source.route.name, stream.table_partition))
    }

    /// Writes rejects into a file of their own.
    fn keep(&self, stream: &StreamRecord, rejects: &mut Vec<Reject>) -> Result<()> {
        let rejects = std::mem::take(rejects);
        if rejects.is_empty() {
            return Ok(());
        }
        let rejected = Rejected {
            rows: reject_keys(&rejects)?,
            raw: rejects.iter().map(|reject| reject.raw.clone()).collect(),
            reasons: rejects.into_iter().map(|reject| reject.reason).collect(),
        };
        let (route, partition) = (&self.source.route.name, self.rejected_in(stream));
        let epoch = (u64::from(self.lane.staging) << 32) | u64::from(stream.attempt);
        self.source.rejects.write(route, &partition, epoch, &rejected)
    }
}
