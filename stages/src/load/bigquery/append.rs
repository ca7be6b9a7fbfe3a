//! One `AppendRows` connection: several requests on their way, answers in order.
//!
//! Invariant: rows count as acknowledged only up to the last answer in order; dropping an appender midway loses
//! nothing, because the next one starts at what was acknowledged and finds the rest there already.

use super::answer::{AppendFailure, append_answer, failure};
use crate::connect::bigquery::{BigQuery, storage};
use crate::error::{Error, Kind};
use crate::failpoint::{Point, pass};
use crate::policy;
use bytes::Bytes;
use std::collections::VecDeque;
use storage::append_rows_request::{ArrowData, Rows};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

/// Bytes of rows per request; the service takes less than 10 MB.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Bytes on their way without an answer, per connection.
pub const IN_FLIGHT_BYTES_MAX: usize = 24 << 20;
/// Requests on their way without an answer, per connection.
const IN_FLIGHT_MAX: usize = 16;

/// Rows of one request.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Offset of the first row in the stream.
    pub offset: u64,
    /// Number of rows.
    pub rows: u64,
    /// An arrow IPC record batch message.
    pub message: Bytes,
}

/// A connection that appends to one stream.
pub struct Appender {
    stream: String,
    /// Sent with every request: a server that found the first one's rows there already may not have read its schema.
    schema: Bytes,
    is_first: bool,
    requests: mpsc::Sender<storage::AppendRowsRequest>,
    answers: mpsc::Receiver<Result<storage::AppendRowsResponse, Failure>>,
    talk: JoinHandle<()>,
    /// End offset and bytes of every request without an answer.
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
    acknowledged: Option<u64>,
}

/// What ended the connection.
enum Failure {
    Status(Status, Error),
    Other(Error),
}

impl Appender {
    pub(super) fn open(bigquery: &BigQuery, stream: &str, schema: Bytes) -> Self {
        let (requests, outgoing) = mpsc::channel(IN_FLIGHT_MAX);
        let (sender, answers) = mpsc::channel(IN_FLIGHT_MAX);
        let talk = tokio::spawn(talk(bigquery.clone(), stream.to_owned(), outgoing, sender));
        Self {
            stream: stream.to_owned(),
            schema,
            is_first: true,
            requests,
            answers,
            talk,
            in_flight: VecDeque::with_capacity(IN_FLIGHT_MAX),
            in_flight_bytes: 0,
            acknowledged: None,
        }
    }

    /// Returns the offset behind the last acknowledged row of this connection; `None` before the first answer.
    pub fn acknowledged(&self) -> Option<u64> {
        self.acknowledged
    }

    /// Sends rows; waits for answers where too much is on its way.
    pub async fn push(&mut self, piece: Piece) -> Result<(), AppendFailure> {
        let bytes = piece.message.len();
        let is_full = |appender: &Self| {
            appender.in_flight.len() >= IN_FLIGHT_MAX
                || (!appender.in_flight.is_empty()
                    && appender.in_flight_bytes + bytes > IN_FLIGHT_BYTES_MAX)
        };
        while is_full(self) {
            self.answer().await?;
        }
        // Answers that are there already cost no waiting, and keep the checkpoint close behind.
        while let Ok(answer) = self.answers.try_recv() {
            self.take(answer)?;
        }
        let end = piece.offset + piece.rows;
        let Ok(offset) = i64::try_from(piece.offset) else {
            return Err(AppendFailure::Failed(Error::new(
                Kind::Internal,
                "an offset beyond the range of BigQuery",
            )));
        };
        let writer_schema = Some(storage::ArrowSchema { serialized_schema: self.schema.clone() });
        // Only the first request of a connection has to name its stream.
        let write_stream = if self.is_first { self.stream.clone() } else { String::new() };
        self.is_first = false;
        #[allow(deprecated, reason = "the field is part of the message, and left at its default")]
        let rows =
            storage::ArrowRecordBatch { serialized_record_batch: piece.message, row_count: 0 };
        let request = storage::AppendRowsRequest {
            write_stream,
            offset: Some(offset),
            rows: Some(Rows::ArrowRows(ArrowData { writer_schema, rows: Some(rows) })),
            ..storage::AppendRowsRequest::default()
        };
        self.in_flight.push_back((end, bytes));
        self.in_flight_bytes += bytes;
        if self.requests.send(request).await.is_err() {
            // The connection ended; its last answer says why.
            loop {
                self.answer().await?;
            }
        }
        pass(Point::RowsSent);
        Ok(())
    }

    /// Waits until everything sent is acknowledged.
    pub async fn finish(mut self) -> Result<Option<u64>, AppendFailure> {
        while !self.in_flight.is_empty() {
            self.answer().await?;
        }
        Ok(self.acknowledged)
    }

    async fn answer(&mut self) -> Result<(), AppendFailure> {
        let limit = policy::work_max();
        let Ok(answer) = tokio::time::timeout(limit, self.answers.recv()).await else {
            return Err(AppendFailure::Failed(policy::silent("bigquery", limit)));
        };
        match answer {
            Some(answer) => self.take(answer),
            None => Err(AppendFailure::Failed(Error::new(
                Kind::Unavailable,
                "bigquery ended an append connection without an answer",
            ))),
        }
    }

    fn take(
        &mut self,
        answer: Result<storage::AppendRowsResponse, Failure>,
    ) -> Result<(), AppendFailure> {
        match answer {
            Ok(answer) => append_answer(answer)?,
            Err(Failure::Other(error)) => return Err(AppendFailure::Failed(error)),
            Err(Failure::Status(status, error)) => {
                // A status ends the call, so "already there" in it does not speak for what came after.
                return match failure(status.code(), status.message()) {
                    Ok(()) | Err(AppendFailure::Failed(_)) => Err(AppendFailure::Failed(error)),
                    Err(other) => Err(other),
                };
            }
        }
        if let Some((end, bytes)) = self.in_flight.pop_front() {
            self.in_flight_bytes -= bytes;
            self.acknowledged = Some(end);
            pass(Point::RowsAcknowledged);
        }
        Ok(())
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.talk.abort();
    }
}

/// Carries requests out and answers back until either side has enough.
async fn talk(
    bigquery: BigQuery,
    stream: String,
    mut outgoing: mpsc::Receiver<storage::AppendRowsRequest>,
    sender: mpsc::Sender<Result<storage::AppendRowsResponse, Failure>>,
) {
    let failed = |status: Status| {
        let error = bigquery.failed(&status, "lost the append connection to bigquery");
        Failure::Status(status, error)
    };
    let requests = futures::stream::poll_fn(move |context| outgoing.poll_recv(context));
    let request = match bigquery.request(requests, &[("write_stream", &stream)]).await {
        Ok(request) => request,
        Err(error) => {
            drop(sender.send(Err(Failure::Other(error))).await);
            return;
        }
    };
    let mut client = bigquery.write_client();
    let mut answers = match client.append_rows(request).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => {
            drop(sender.send(Err(failed(status))).await);
            return;
        }
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => return,
            Err(status) => Err(failed(status)),
        };
        let is_last = answer.is_err();
        if sender.send(answer).await.is_err() || is_last {
            return;
        }
    }
}
