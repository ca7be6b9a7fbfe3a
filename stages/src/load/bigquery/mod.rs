//! BigQuery as a target: PENDING write streams with offsets, their commits, and reading back what is there.
//!
//! Invariant: every row has one offset in one stream, and a stream is committed at most once; so whatever is asked
//! again after a lost answer is found to be there already, never done twice.

mod answer;
mod append;
mod read_back;

pub use answer::{AppendFailure, CommitAnswer};
pub use append::{Appender, IN_FLIGHT_BYTES_MAX, Piece, REQUEST_BYTES_MAX};
pub use read_back::{ReadBack, ReadOptions};

use crate::connect::bigquery::{BigQuery, awaited, storage};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{Point, pass};
use answer::commit_answer;
use storage::write_stream::Type;

/// The write streams of one table.
#[derive(Clone)]
pub struct WriteTable {
    bigquery: BigQuery,
    path: String,
}

/// What a write stream is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// It is there, not committed.
    Pending,
    /// Its rows are in the table.
    Committed,
    /// It is not there (any more).
    Gone,
}

impl WriteTable {
    /// Names a table; nothing is asked yet.
    pub fn new(bigquery: &BigQuery, dataset: &str, table: &str) -> Self {
        Self { bigquery: bigquery.clone(), path: bigquery.table_path(dataset, table) }
    }

    /// Names the table whose name is this one's and `suffix`.
    #[must_use]
    pub fn suffixed(&self, suffix: &str) -> Self {
        Self { bigquery: self.bigquery.clone(), path: format!("{}{suffix}", self.path) }
    }

    /// Makes a PENDING stream and returns its name. One whose name got lost is never committed and vanishes.
    pub async fn create_stream(&self) -> Result<String> {
        let what = "cannot make a write stream of bigquery";
        let message = storage::CreateWriteStreamRequest {
            parent: self.path.clone(),
            write_stream: Some(storage::WriteStream {
                r#type: Type::Pending as i32,
                ..storage::WriteStream::default()
            }),
        };
        let request = self.bigquery.request(message, &[("parent", &self.path)]).await?;
        let made = awaited(self.bigquery.write_client().create_write_stream(request)).await;
        let made = made.map_err(|status| self.bigquery.failed(&status, what))?;
        pass(Point::StreamMade);
        Ok(made.into_inner().name)
    }

    /// Opens a connection that appends to a stream; `schema` is the arrow schema message of all rows.
    pub fn append(&self, stream: &str, schema: bytes::Bytes) -> Appender {
        Appender::open(&self.bigquery, stream, schema)
    }

    /// Ends a stream and returns how many rows it holds; `None` where there is no such stream. Safe to repeat.
    pub async fn finalize(&self, stream: &str) -> Result<Option<u64>> {
        let message = storage::FinalizeWriteStreamRequest { name: stream.to_owned() };
        let request = self.bigquery.request(message, &[("name", stream)]).await?;
        match awaited(self.bigquery.write_client().finalize_write_stream(request)).await {
            Ok(answer) => {
                pass(Point::StreamFinalized);
                let rows = answer.into_inner().row_count;
                let rows = u64::try_from(rows).map_err(|_| {
                    Error::new(Kind::Internal, "a write stream has a negative number of rows")
                })?;
                Ok(Some(rows))
            }
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => {
                Err(self.bigquery.failed(&status, "cannot finalize a write stream of bigquery"))
            }
        }
    }

    /// Commits finalized streams of one table, all or none; their names say of which.
    pub async fn commit(&self, streams: &[String]) -> Result<CommitAnswer> {
        let what = "cannot commit write streams of bigquery";
        let named = streams.first().and_then(|name| name.split_once("/streams/"));
        let parent = named.map_or(self.path.as_str(), |(table, _)| table);
        let message = storage::BatchCommitWriteStreamsRequest {
            parent: parent.to_owned(),
            write_streams: streams.to_vec(),
        };
        let request = self.bigquery.request(message, &[("parent", parent)]).await?;
        match awaited(self.bigquery.write_client().batch_commit_write_streams(request)).await {
            Ok(answer) => {
                pass(Point::StreamsCommitted);
                Ok(commit_answer(&answer.into_inner()))
            }
            // Some services answer a repeated commit with the call's status instead of stream errors.
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                Ok(CommitAnswer::Unclear(status.message().to_owned()))
            }
            Err(status) => Err(self.bigquery.failed(&status, what)),
        }
    }

    /// Finds out what became of a stream.
    pub async fn state(&self, stream: &str) -> Result<StreamState> {
        let message = storage::GetWriteStreamRequest {
            name: stream.to_owned(),
            ..storage::GetWriteStreamRequest::default()
        };
        let request = self.bigquery.request(message, &[("name", stream)]).await?;
        match awaited(self.bigquery.write_client().get_write_stream(request)).await {
            Ok(found) if found.get_ref().commit_time.is_some() => Ok(StreamState::Committed),
            Ok(_) => Ok(StreamState::Pending),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(StreamState::Gone),
            Err(status) => {
                Err(self.bigquery.failed(&status, "cannot look at a write stream of bigquery"))
            }
        }
    }
}
