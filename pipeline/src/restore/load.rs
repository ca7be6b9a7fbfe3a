//! Table partitions into write streams: one lane each, blocks in manifest order, offsets counted from the first row.
//!
//! Invariant: a stream's name is journaled before its first row, an offset only after BigQuery acknowledged it, and a
//! stream counts as complete only when BigQuery tells as many rows as the manifest.

use super::Shared;
use super::blocks::{Reader, whole_blocks};
use super::choose::Taken;
use super::commit::{CommitEnd, Commits};
use super::duplicate::damaged;
use super::rows::{self, Counted, RowSource};
use super::stage::StreamStage;
use super::table::Table;
use crate::checkpoint::Counts;
use crate::journal::StreamRecord;
use crate::lane::now_ms;
use crate::outcome::from_journal;
use crate::spool::Cut;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use schemas::Digest;
use schemas::manifest::Keys;
use stages::load::bigquery::{AppendFailure, Appender, Piece, WriteTable};
use stages::load::store::Values;
use stages::policy::Retry;
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often an acknowledged offset is journaled.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Streams one table partition may use up in one process.
const REPLACED_MAX: u32 = 5;
/// What a row weighs before any was read; it only orders lanes and commits.
const ROW_BYTES_GUESS: u64 = 500;

/// What a lane needs of its table.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) values: Arc<dyn Values>,
    pub(super) keys: Keys,
    pub(super) write: WriteTable,
    /// Whether each table partition has a staging table of its own.
    pub(super) by_arrival: bool,
    /// The schema of the table in arrow, and its message.
    pub(super) schema: SchemaRef,
    pub(super) schema_message: Bytes,
    /// Names the recorded table whose schema that is.
    pub(super) schema_hash: String,
    /// Number of the staging table.
    pub(super) staging: u32,
}

/// What a lane carries into one stream.
enum Work {
    Blocks(Taken),
    Rows(Box<RowSource>, Cut),
}

impl Work {
    fn bytes(&self) -> u64 {
        match self {
            Self::Blocks(taken) => taken.version.stored_bytes,
            Self::Rows(_, cut) => cut.rows.saturating_mul(ROW_BYTES_GUESS),
        }
    }
}

/// A stream that is filled; what was counted of its rows is journaled before it.
type Filled = (StreamRecord, u64, Option<Counted>);

/// How loading ended.
pub(super) enum Loaded {
    /// Everything is committed.
    Done,
    /// Only a new staging table is safe, and why.
    StartOver(String),
}

/// Loads every table partition that is not committed yet, and commits in units.
pub(super) async fn load(
    lane: &Lane,
    table: &mut Table,
) -> std::result::Result<Loaded, Vec<Error>> {
    let shared = &lane.shared;
    let streams = table.streams(shared).await.map_err(|error| vec![error])?;
    let mut commits = Commits::new(Arc::clone(shared), lane.write.clone());
    let mut waiting = Vec::new();
    for stream in streams {
        match (stream.status, work_of(table, &stream)) {
            (StreamStage::Committed, _) => {}
            (StreamStage::Finalized | StreamStage::Committing, Some(work)) => {
                commits.add(stream, work.bytes());
            }
            (StreamStage::Planned | StreamStage::Open, Some(work)) => waiting.push((stream, work)),
            (_, None) => {
                let name = &stream.table_partition;
                let message =
                    format!("table partition {name} of the journal is not in the duplicate");
                return Err(vec![damaged(message)]);
            }
        }
    }
    // The largest first, so that lanes end together.
    waiting.sort_by_key(|(_, work)| work.bytes());
    let mut failures = Vec::new();
    let mut lanes = JoinSet::new();
    loop {
        while lanes.len() < shared.lanes && failures.iter().all(is_of_one_partition) {
            let Some((stream, work)) = waiting.pop() else { break };
            let lane = lane.clone();
            lanes.spawn(async move { carry(&lane, work, stream).await });
        }
        shared.counters.lanes.store(lanes.len() as u64, Ordering::Relaxed);
        match lanes.join_next().await {
            None => break,
            Some(Ok(Ok((stream, bytes, counted)))) => {
                if let Some(counted) = counted {
                    note_rows(lane, table, &stream, counted).await.map_err(|error| vec![error])?;
                }
                commits.add(stream, bytes);
            }
            Some(Ok(Err(error))) => failures.push(error),
            Some(Err(error)) => {
                failures.push(Error::new(Kind::Internal, "a lane panicked").with_source(error));
            }
        }
        if commits.is_due() {
            match commits.commit().await.map_err(|error| vec![error])? {
                CommitEnd::Done => {}
                CommitEnd::Lost(reason) => return Ok(Loaded::StartOver(reason)),
            }
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    match commits.commit().await.map_err(|error| vec![error])? {
        CommitEnd::Done => Ok(Loaded::Done),
        CommitEnd::Lost(reason) => Ok(Loaded::StartOver(reason)),
    }
}

/// What a stream is to be filled with; `None` where that is not there any more.
fn work_of(table: &Table, stream: &StreamRecord) -> Option<Work> {
    let name = &stream.table_partition;
    if let Some(source) = &table.rows {
        return Some(Work::Rows(Box::new(source.clone()), table.cut_of(name)?.clone()));
    }
    let taken = table.taken.iter().find(|taken| taken.table_partition == *name)?;
    Some(Work::Blocks(taken.clone()))
}

async fn carry(lane: &Lane, work: Work, stream: StreamRecord) -> Result<Filled> {
    let bytes = work.bytes();
    match work {
        Work::Blocks(taken) => Ok((fill(lane, &taken, stream).await?, bytes, None)),
        Work::Rows(source, cut) => {
            let (stream, counted) = rows::fill(lane, &source, &cut, stream).await?;
            Ok((stream, counted.bytes, Some(counted)))
        }
    }
}

/// Rejects and what else was counted are journaled before the stream is complete, so that they cannot be forgotten.
async fn note_rows(
    lane: &Lane,
    table: &mut Table,
    stream: &StreamRecord,
    counted: Counted,
) -> Result<()> {
    table.findings.counted.insert(stream.table_partition.clone(), counted);
    table.note(&lane.shared).await?;
    lane.note(stream).await
}

/// Damage concerns one table partition; the others are still looked at, so that all damage is named at once.
fn is_of_one_partition(error: &Error) -> bool {
    error.kind() == Kind::Difference
}

/// Why an attempt at a stream ended.
pub(super) enum Ended {
    /// The stream is of no use any more.
    Replace(&'static str),
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Fills and finalizes the stream of one table partition.
async fn fill(lane: &Lane, taken: &Taken, mut stream: StreamRecord) -> Result<StreamRecord> {
    let (mut retry, mut replaced) = (Retry::within(lane.shared.retry_for), 0);
    let (shared, name) = (&lane.shared, &taken.table_partition);
    lane.count(stream.acknowledged, 0);
    loop {
        let before = stream.acknowledged;
        match attempt(lane, taken, &mut stream).await {
            Ok(()) => {
                shared.counters.partition_done(lane.index, now_ms());
                return Ok(stream);
            }
            Err(Ended::Replace(reason)) if replaced < REPLACED_MAX => {
                tracing::warn!(table_partition = name, reason, "the write stream is replaced");
                replaced += 1;
                shared.counters.routes[lane.index]
                    .rows
                    .fetch_sub(stream.acknowledged, Ordering::Relaxed);
                stream.status = StreamStage::Planned;
                (stream.stream, stream.acknowledged, stream.digest) = (None, 0, None);
                lane.note(&stream).await?;
            }
            Err(Ended::Replace(reason)) => {
                let message = format!(
                    "table partition {name}: gave up after {replaced} write streams: {reason}"
                );
                return Err(Error::new(Kind::Unavailable, message)
                    .with_hint("run the same command again; it goes on where it stopped"));
            }
            Err(Ended::Failed(error)) => {
                if stream.acknowledged > before {
                    retry.progressed();
                }
                retry.wait_after(error).await?;
            }
        }
    }
}

/// Carries on where the stream stands, to its end.
async fn attempt(
    lane: &Lane,
    taken: &Taken,
    stream: &mut StreamRecord,
) -> std::result::Result<(), Ended> {
    let name = if let Some(name) = &stream.stream {
        name.clone()
    } else {
        let name = lane.write_of(&taken.table_partition).create_stream().await?;
        stream.stream = Some(name.clone());
        stream.attempt += 1;
        stream.status = StreamStage::Open;
        lane.note(stream).await?;
        name
    };
    let rows = taken.version.rows;
    let digest = match send(lane, taken, stream, &name).await {
        Ok(digest) => digest,
        Err(Sent::Append(AppendFailure::Beyond)) => {
            return Err(Ended::Replace("rows it had acknowledged are not there"));
        }
        Err(Sent::Append(AppendFailure::Gone)) => return Err(Ended::Replace("it is gone")),
        // It was finalized by an attempt whose answer got lost; the digest has to be read once more.
        Err(Sent::Append(AppendFailure::Closed)) => match lane.write.finalize(&name).await? {
            Some(found) if found == rows => {
                stream.acknowledged = rows;
                return Err(Ended::Failed(Error::new(
                    Kind::Unavailable,
                    "the write stream was complete",
                )));
            }
            _ => return Err(Ended::Replace("it was closed before it was complete")),
        },
        Err(Sent::Append(AppendFailure::Failed(error)) | Sent::Failed(error)) => {
            return Err(Ended::Failed(error));
        }
    };
    match lane.write.finalize(&name).await? {
        Some(found) if found == rows => {}
        Some(_) => return Err(Ended::Replace("it holds another number of rows than were sent")),
        None => return Err(Ended::Replace("it is gone")),
    }
    stream.status = StreamStage::Finalized;
    stream.digest = Some(digest.hex());
    lane.note(stream).await?;
    Ok(())
}

enum Sent {
    Append(AppendFailure),
    Failed(Error),
}

impl From<Error> for Sent {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<AppendFailure> for Sent {
    fn from(failure: AppendFailure) -> Self {
        Self::Append(failure)
    }
}

/// Sends what is not acknowledged, and returns the digest of all rows in the table's schema.
async fn send(
    lane: &Lane,
    taken: &Taken,
    stream: &mut StreamRecord,
    name: &str,
) -> std::result::Result<Digest, Sent> {
    let version = &taken.version;
    // Rows of another schema have another digest in the table than in the manifest: all of them are read again.
    let is_same = version.schema_hash == lane.schema_hash && version.digest().is_some();
    if is_same && stream.acknowledged >= version.rows {
        return Ok(version.digest().unwrap_or_default());
    }
    let first = if is_same { whole_blocks(version, stream.acknowledged) } else { (0, 0) };
    let mut reader = Reader::start(lane, taken, first.0);
    let mut appender = None;
    let mut offset = first.1;
    let (mut own, mut fitted) = (Digest::default(), Digest::default());
    let mut noted = Instant::now();
    while let Some(decoded) = reader.next(lane).await? {
        own += decoded.digest;
        fitted += decoded.fitted;
        for message in decoded.messages {
            let rows = message.rows as u64;
            if offset + rows > stream.acknowledged {
                let piece = Piece { offset, rows, message: message.bytes };
                let open = || lane.write.append(name, lane.schema_message.clone());
                let appender: &mut Appender = appender.get_or_insert_with(open);
                let sent = Instant::now();
                let pushed = appender.push(piece).await;
                lane.shared.counters.target_time(lane.index, sent.elapsed());
                lane.acknowledge(stream, appender.acknowledged());
                pushed?;
            }
            offset += rows;
        }
        lane.count(0, decoded.bytes);
        if noted.elapsed() >= NOTE_EVERY {
            lane.note(stream).await?;
            noted = Instant::now();
        }
    }
    if let Some(appender) = appender {
        let acknowledged = appender.finish().await?;
        lane.acknowledge(stream, acknowledged);
    }
    if !is_same {
        check_digest(taken, own)?;
        return Ok(fitted);
    }
    if first.0 == 0 {
        check_digest(taken, own)?;
    }
    Ok(version.digest().unwrap_or(fitted))
}

/// Compares what was decoded with the manifest.
fn check_digest(taken: &Taken, found: Digest) -> Result<()> {
    match taken.version.digest() {
        Some(recorded) if recorded != found => Err(damaged(format!(
            "table partition {} generation {}: its blocks hold {} rows with another digest than the manifest says",
            taken.table_partition, taken.version.generation, found.count
        ))),
        _ => Ok(()),
    }
}

impl Lane {
    /// The staging table that takes the rows of a table partition.
    fn write_of(&self, partition: &str) -> WriteTable {
        if self.by_arrival {
            self.write.suffixed(&format!("_{partition}"))
        } else {
            self.write.clone()
        }
    }

    pub(super) async fn note(&self, stream: &StreamRecord) -> Result<()> {
        let one = std::slice::from_ref(stream);
        self.shared.journal.put_streams(one).await.map_err(from_journal)
    }

    fn acknowledge(&self, stream: &mut StreamRecord, acknowledged: Option<u64>) {
        let now = acknowledged.unwrap_or(0).max(stream.acknowledged);
        self.count(now - stream.acknowledged, 0);
        stream.acknowledged = now;
    }

    fn count(&self, rows: u64, bytes: u64) {
        self.shared.counters.add(self.index, &Counts { rows, bytes, ..Counts::default() });
    }
}
