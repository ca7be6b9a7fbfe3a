//! Commits of finalized streams, in units; what became of a commit whose answer got lost is looked up.
//!
//! Invariant: `committing` is journaled before BigQuery is asked, and a stream counts as committed only when BigQuery
//! says so of it; one that is gone after its commit was asked for is never replaced in the same staging table.

use super::Shared;
use super::stage::StreamStage;
use crate::journal::StreamRecord;
use crate::outcome::from_journal;
use stages::load::bigquery::{CommitAnswer, StreamState, WriteTable};
use stages::policy::Retry;
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// Streams per commit.
const STREAMS_MAX: usize = 100;
/// Stored bytes per commit.
const BYTES_MAX: u64 = 1 << 30;

/// Finalized streams that wait for their commit.
pub(super) struct Commits {
    shared: Arc<Shared>,
    write: WriteTable,
    waiting: Vec<StreamRecord>,
    bytes: u64,
}

/// How a commit ended.
pub(super) enum CommitEnd {
    /// All rows are in the table.
    Done,
    /// Only a new staging table is safe, and why: a stream is not there, or has not the rows that it was closed with.
    Lost(String),
}

impl Commits {
    pub(super) fn new(shared: Arc<Shared>, write: WriteTable) -> Self {
        Self { shared, write, waiting: Vec::new(), bytes: 0 }
    }

    /// Adds a finalized stream with the stored bytes of its rows.
    pub(super) fn add(&mut self, stream: StreamRecord, bytes: u64) {
        self.waiting.push(stream);
        self.bytes += bytes;
    }

    /// Whether a unit is full.
    pub(super) fn is_due(&self) -> bool {
        self.waiting.len() >= STREAMS_MAX || self.bytes >= BYTES_MAX
    }

    /// Commits everything that waits.
    pub(super) async fn commit(&mut self) -> Result<CommitEnd> {
        let mut waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        while !waiting.is_empty() {
            // One call commits streams of one table.
            let table = table_of(&waiting[0]).to_owned();
            let same = waiting.iter().take_while(|stream| table_of(stream) == table).count();
            let rest = waiting.split_off(same.min(STREAMS_MAX));
            if let CommitEnd::Lost(reason) = self.unit(waiting).await? {
                return Ok(CommitEnd::Lost(reason));
            }
            waiting = rest;
        }
        Ok(CommitEnd::Done)
    }

    async fn unit(&self, mut unit: Vec<StreamRecord>) -> Result<CommitEnd> {
        // An earlier process may have asked already: look before asking again.
        let is_asked = unit.iter().any(|stream| stream.status == StreamStage::Committing);
        self.record(&mut unit, StreamStage::Committing).await?;
        let mut must_look = is_asked;
        let mut retry = Retry::within(self.shared.retry_for);
        loop {
            let failure = match self.step(&mut unit, must_look).await {
                Ok(Step::End(end)) => return Ok(end),
                Ok(Step::Again(reason)) => Error::new(
                    Kind::Unavailable,
                    format!("bigquery did not commit {} write streams: {reason}", unit.len()),
                )
                .with_hint("run the same command again; it goes on where it stopped"),
                Err(error) => error,
            };
            retry.wait_after(failure).await?;
            must_look = true;
        }
    }

    /// Looks where that is needed, then asks. What is committed leaves the unit.
    async fn step(&self, unit: &mut Vec<StreamRecord>, must_look: bool) -> Result<Step> {
        if must_look {
            if let Some(lost) = self.look(unit).await? {
                return Ok(Step::End(CommitEnd::Lost(lost)));
            }
            if unit.is_empty() {
                return Ok(Step::End(CommitEnd::Done));
            }
        }
        let names: Vec<String> = unit.iter().filter_map(|stream| stream.stream.clone()).collect();
        match self.write.commit(&names).await? {
            CommitAnswer::Committed => {
                self.record(unit, StreamStage::Committed).await?;
                unit.clear();
                Ok(Step::End(CommitEnd::Done))
            }
            CommitAnswer::Unclear(reason) => {
                let before = unit.len();
                if let Some(lost) = self.look(unit).await? {
                    return Ok(Step::End(CommitEnd::Lost(lost)));
                }
                match unit.len() {
                    0 => Ok(Step::End(CommitEnd::Done)),
                    left if left < before => Ok(Step::Again("some were committed before".into())),
                    _ => Ok(match self.close_again(unit).await? {
                        Some(lost) => Step::End(CommitEnd::Lost(lost)),
                        None => Step::Again(reason),
                    }),
                }
            }
        }
    }

    /// Finalizes once more what is not committed, for a service that has forgotten it; returns why one is of no use.
    async fn close_again(&self, unit: &[StreamRecord]) -> Result<Option<String>> {
        for stream in unit {
            let name = stream.stream.as_deref().unwrap_or_default();
            match self.write.finalize(name).await? {
                Some(rows) if rows == stream.acknowledged => {}
                Some(rows) => {
                    return Ok(Some(format!(
                        "write stream {name} has {rows} rows and had {} when it was closed",
                        stream.acknowledged
                    )));
                }
                None => return Ok(Some(gone(name))),
            }
        }
        Ok(None)
    }

    /// Takes the committed streams out of a unit; returns why one is of no use.
    async fn look(&self, unit: &mut Vec<StreamRecord>) -> Result<Option<String>> {
        let mut left = Vec::with_capacity(unit.len());
        let mut committed = Vec::new();
        for stream in unit.drain(..) {
            let name = stream.stream.clone().unwrap_or_default();
            match self.write.state(&name).await {
                Ok(StreamState::Committed) => committed.push(stream),
                Ok(StreamState::Pending) => left.push(stream),
                Ok(StreamState::Gone) => return Ok(Some(gone(&name))),
                Err(error) => {
                    // Nothing is forgotten: the caller asks again.
                    left.push(stream);
                    tracing::warn!(%error, "cannot look at a write stream");
                }
            }
        }
        self.record(&mut committed, StreamStage::Committed).await?;
        *unit = left;
        Ok(None)
    }

    async fn record(&self, streams: &mut [StreamRecord], status: StreamStage) -> Result<()> {
        for stream in streams.iter_mut() {
            stream.status = status;
        }
        self.shared.journal.put_streams(streams).await.map_err(from_journal)
    }
}

/// The table that a stream is of, as its name says.
fn table_of(stream: &StreamRecord) -> &str {
    stream.stream.as_deref().and_then(|name| name.split_once("/streams/")).unwrap_or_default().0
}

/// Says that whether the rows of a stream are in the table cannot be known.
fn gone(name: &str) -> String {
    format!("write stream {name} is gone after its commit was asked for")
}

enum Step {
    End(CommitEnd),
    Again(String),
}
