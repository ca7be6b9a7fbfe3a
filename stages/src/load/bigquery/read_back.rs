//! Reads a table back through Storage Read: arrow messages, as the wire carries them.
//!
//! Invariant: each row of the table at the session's time comes once; a connection that broke goes on at its offset.

use crate::connect::bigquery::{BigQuery, awaited, storage};
use crate::error::{Error, Kind, Result};
use crate::policy::Retry;
use bytes::Bytes;
use futures::stream::{self, Stream};
use storage::arrow_serialization_options::CompressionCodec;
use storage::read_rows_response::Rows;
use storage::read_session::table_read_options::OutputFormatSerializationOptions;
use storage::read_session::{Schema, TableModifiers, TableReadOptions};
use storage::{ArrowSerializationOptions, DataFormat, ReadSession};
use tonic::Streaming;

/// Breaks in a row that one stream survives, and the pause after the first; it doubles.
const TRIES: u32 = 7;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// The table as it was then, milliseconds since 1970; now where absent.
    pub at_ms: Option<i64>,
    /// Condition on rows; empty reads all.
    pub restriction: String,
    /// At most so many streams.
    pub streams: usize,
}

/// A read session.
pub struct ReadBack {
    bigquery: BigQuery,
    /// The arrow schema message.
    pub schema: Bytes,
    /// Names of its streams; none where there are no rows.
    pub streams: Vec<String>,
}

impl ReadBack {
    /// Opens a session on a table.
    pub async fn open(
        bigquery: &BigQuery,
        dataset: &str,
        table: &str,
        options: &ReadOptions,
    ) -> Result<Self> {
        let what = format!("cannot read table {dataset}.{table} of bigquery back");
        let path = bigquery.table_path(dataset, table);
        let serialization = ArrowSerializationOptions {
            buffer_compression: CompressionCodec::Lz4Frame as i32,
            ..ArrowSerializationOptions::default()
        };
        let snapshot_time = options.at_ms.map(|ms| prost_types::Timestamp {
            seconds: ms.div_euclid(1000),
            nanos: i32::try_from(ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
        });
        let session = ReadSession {
            table: path.clone(),
            data_format: DataFormat::Arrow as i32,
            table_modifiers: snapshot_time.map(|time| TableModifiers { snapshot_time: Some(time) }),
            read_options: Some(TableReadOptions {
                row_restriction: options.restriction.clone(),
                output_format_serialization_options: Some(
                    OutputFormatSerializationOptions::ArrowSerializationOptions(serialization),
                ),
                ..TableReadOptions::default()
            }),
            ..ReadSession::default()
        };
        let message = storage::CreateReadSessionRequest {
            parent: format!("projects/{}", bigquery.project()),
            read_session: Some(session),
            max_stream_count: i32::try_from(options.streams).unwrap_or(i32::MAX),
            ..storage::CreateReadSessionRequest::default()
        };
        let request = bigquery.request(message, &[("read_session.table", &path)]).await?;
        let made = awaited(bigquery.read_client().create_read_session(request)).await;
        let made = made.map_err(|status| bigquery.failed(&status, &what))?.into_inner();
        let Some(Schema::ArrowSchema(schema)) = made.schema else {
            return Err(Error::new(Kind::Unavailable, what).with_source("no arrow schema came"));
        };
        let streams = made.streams.into_iter().map(|stream| stream.name).collect();
        Ok(Self { bigquery: bigquery.clone(), schema: schema.serialized_schema, streams })
    }

    /// Returns the record batch messages of one stream, in order.
    pub fn rows(&self, stream: &str) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        let reading = Reading {
            bigquery: self.bigquery.clone(),
            stream: stream.to_owned(),
            offset: 0,
            retry: Retry::times(TRIES),
            rows: None,
        };
        stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

struct Reading {
    bigquery: BigQuery,
    stream: String,
    offset: i64,
    retry: Retry,
    rows: Option<Streaming<storage::ReadRowsResponse>>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.attempt().await {
                Ok(None) => return Ok(None),
                Ok(Some(answer)) => {
                    self.retry.progressed();
                    self.offset += answer.row_count;
                    if let Some(Rows::ArrowRecordBatch(rows)) = answer.rows {
                        return Ok(Some(rows.serialized_record_batch));
                    }
                }
                Err(error) => {
                    self.rows = None;
                    self.retry.wait_after(error).await?;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<storage::ReadRowsResponse>> {
        let what = "cannot read rows of bigquery back";
        let failed = |status| self.bigquery.failed(&status, what);
        if self.rows.is_none() {
            let message =
                storage::ReadRowsRequest { read_stream: self.stream.clone(), offset: self.offset };
            let request = self.bigquery.request(message, &[("read_stream", &self.stream)]).await?;
            let answer =
                awaited(self.bigquery.read_client().read_rows(request)).await.map_err(failed)?;
            self.rows = Some(answer.into_inner());
        }
        match &mut self.rows {
            Some(rows) => awaited(rows.message()).await.map_err(failed),
            None => Ok(None),
        }
    }
}
