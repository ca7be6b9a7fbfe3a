//! Whole rows of a BigQuery table at a pinned time, as arrow messages nobody has looked into yet.
//!
//! Invariant: every row that the filter lets through is delivered once: a stream that breaks is read on from the row
//! after the last one delivered, at the same snapshot. Dropping what is returned ends the calls.

use crate::connect::bigquery::storage::read_rows_response::Rows;
use crate::connect::bigquery::storage::read_session::table_read_options::{
    OutputFormatSerializationOptions, ResponseCompressionCodec,
};
use crate::connect::bigquery::storage::read_session::{Schema, TableModifiers, TableReadOptions};
use crate::connect::bigquery::storage::{
    ArrowSerializationOptions, CreateReadSessionRequest, DataFormat, ReadRowsRequest,
    ReadRowsResponse, ReadSession, arrow_serialization_options::CompressionCodec,
};
use crate::connect::bigquery::{BigQuery, awaited, is_session_over};
use crate::error::{Error, Kind, Result};
use crate::policy::Retry;
use bytes::Bytes;
use futures::stream::{BoxStream, SelectAll, StreamExt, select_all, try_unfold};
use tonic::Streaming;

/// Tries of a stream without a row in between before its session is given up.
const TRIES_MAX: u32 = 6;
const US_PER_SECOND: i64 = 1_000_000;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The dataset.
    pub dataset: String,
    /// The table.
    pub table: String,
    /// A condition, or every row.
    pub filter: Option<String>,
    /// The state of the table, microseconds since 1970.
    pub snapshot_us: i64,
    /// Streams that are asked for; the service may give fewer.
    pub streams: u16,
}

/// Rows as the wire carried them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRows {
    /// One serialised arrow record batch, compressed with LZ4 where the service does so.
    pub message: Bytes,
    /// Rows in it.
    pub rows: u64,
}

/// A session: the schema of its rows and the rows, streams mixed as they come.
pub struct TableRows {
    /// The serialised arrow schema.
    pub schema: Bytes,
    /// Rows the service expects to deliver.
    pub rows_estimate: u64,
    /// The rows; ends after the first error.
    pub rows: SelectAll<BoxStream<'static, Result<RawRows>>>,
}

/// Opens a session.
pub async fn open(bigquery: &BigQuery, reading: &Reading) -> Result<TableRows> {
    let table = bigquery.table_path(&reading.dataset, &reading.table);
    let what = format!("cannot read table {}.{} of bigquery", reading.dataset, reading.table);
    let request = CreateReadSessionRequest {
        parent: format!("projects/{}", bigquery.project()),
        read_session: Some(ReadSession {
            table: table.clone(),
            data_format: DataFormat::Arrow.into(),
            table_modifiers: Some(TableModifiers {
                snapshot_time: Some(time(reading.snapshot_us)),
            }),
            read_options: Some(options(reading.filter.clone())),
            ..ReadSession::default()
        }),
        max_stream_count: reading.streams.into(),
        ..CreateReadSessionRequest::default()
    };
    let request = bigquery.request(request, &[("read_session.table", &table)]).await?;
    let session = awaited(bigquery.read_client().create_read_session(request)).await;
    let session = session.map_err(|status| bigquery.failed(&status, &what))?.into_inner();
    let schema = match session.schema {
        Some(Schema::ArrowSchema(schema)) => schema.serialized_schema,
        _ => {
            return Err(Error::new(Kind::Internal, what)
                .with_source("the read session has no arrow schema"));
        }
    };
    let streams = session.streams.into_iter().map(|stream| {
        rows(State {
            bigquery: bigquery.clone(),
            name: stream.name,
            what: what.clone(),
            delivered: 0,
            open: None,
            retry: Retry::times(TRIES_MAX),
            has_ended: false,
        })
    });
    Ok(TableRows {
        schema,
        rows_estimate: u64::try_from(session.estimated_row_count).unwrap_or(0),
        rows: select_all(streams),
    })
}

fn options(filter: Option<String>) -> TableReadOptions {
    let arrow = ArrowSerializationOptions {
        buffer_compression: CompressionCodec::Lz4Frame.into(),
        ..ArrowSerializationOptions::default()
    };
    TableReadOptions {
        row_restriction: filter.unwrap_or_default(),
        output_format_serialization_options: Some(
            OutputFormatSerializationOptions::ArrowSerializationOptions(arrow),
        ),
        // The buffers are compressed already; once more would cost both sides and gain nothing.
        response_compression_codec: Some(ResponseCompressionCodec::Unspecified.into()),
        ..TableReadOptions::default()
    }
}

fn time(us: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(us.rem_euclid(US_PER_SECOND) * 1_000).unwrap_or(0);
    prost_types::Timestamp { seconds: us.div_euclid(US_PER_SECOND), nanos }
}

struct State {
    bigquery: BigQuery,
    name: String,
    what: String,
    delivered: i64,
    open: Option<Streaming<ReadRowsResponse>>,
    retry: Retry,
    /// Whether the session is over, so that no try of this stream helps.
    has_ended: bool,
}

fn rows(state: State) -> BoxStream<'static, Result<RawRows>> {
    try_unfold(state, |mut state| async move {
        let next = state.next().await?;
        Ok(next.map(|rows| (rows, state)))
    })
    .boxed()
}

impl State {
    async fn next(&mut self) -> Result<Option<RawRows>> {
        loop {
            match self.attempt().await {
                Ok(None) => return Ok(None),
                Ok(Some(found)) => {
                    self.retry.progressed();
                    if found.rows > 0 {
                        return Ok(Some(found));
                    }
                }
                Err(error) => {
                    self.open = None;
                    if self.has_ended {
                        return Err(error);
                    }
                    self.retry.wait_after(error).await?;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<RawRows>> {
        let open = if let Some(open) = self.open.take() {
            open
        } else {
            let request =
                ReadRowsRequest { read_stream: self.name.clone(), offset: self.delivered };
            let routing = [("read_stream", self.name.as_str())];
            let request = self.bigquery.request(request, &routing).await?;
            let answer = awaited(self.bigquery.read_client().read_rows(request)).await;
            answer.map_err(|status| self.failed(&status))?.into_inner()
        };
        let message = awaited(self.open.insert(open).message()).await;
        let message = message.map_err(|status| self.failed(&status))?;
        let Some(message) = message else { return Ok(None) };
        let rows = message.row_count.max(0);
        self.delivered += rows;
        let message = match message.rows {
            Some(Rows::ArrowRecordBatch(batch)) => batch.serialized_record_batch,
            None if rows == 0 => Bytes::new(),
            _ => {
                return Err(Error::new(Kind::Internal, self.what.clone())
                    .with_source("the service sent rows that are not arrow"));
            }
        };
        Ok(Some(RawRows { message, rows: rows.unsigned_abs() }))
    }

    fn failed(&mut self, status: &tonic::Status) -> Error {
        self.has_ended = is_session_over(status);
        self.bigquery.failed_to_read(status, &self.what)
    }
}
