//! Reads one session into raw batches.
//!
//! Invariant: within a session a stream is continued at the row where it broke, so nothing comes twice; a session that
//! has ended ends the read, and whoever asked begins the partition anew at the same snapshot.

use super::session::{self, Wanted, without_end};
use crate::batch::RawBatch;
use crate::connect::bigquery::storage::read_rows_response::Rows;
use crate::connect::bigquery::storage::{ReadRowsRequest, ReadRowsResponse};
use crate::connect::bigquery::{BigQuery, awaited, is_session_over};
use crate::error::{Error, Kind, Result};
use crate::extract::{BatchStream, READAHEAD};
use crate::policy::Retry;
use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tonic::Status;

/// Tries without a row before the engine's patience takes over.
const TRIES: u32 = 5;

type Sender = mpsc::Sender<Result<RawBatch>>;

/// Starts the producer task of one partition.
pub(super) fn stream(bigquery: BigQuery, wanted: Wanted, partition: String) -> BatchStream {
    let (sender, receiver) = mpsc::channel(READAHEAD);
    let task = tokio::spawn(async move {
        if let Err(error) = read(&bigquery, &wanted, &sender, &partition).await {
            // A receiver that is gone has stopped asking; nobody is left to tell.
            if sender.send(Err(error)).await.is_err() {
                tracing::trace!("the lane left before the read failed");
            }
        }
    });
    BatchStream::new(receiver, task)
}

async fn read(
    bigquery: &BigQuery,
    wanted: &Wanted,
    sender: &Sender,
    partition: &str,
) -> Result<()> {
    let mut retry = Retry::times(TRIES);
    let made = loop {
        match session::create(bigquery, wanted, partition).await {
            Ok(made) => break made,
            Err(error) => retry.wait_after(error).await?,
        }
    };
    let streams = made.streams.iter().map(|name| {
        let has_ended = AtomicBool::new(false);
        let reader = Reader { bigquery, name, schema: &made.schema, sender, partition, has_ended };
        reader.run()
    });
    try_join_all(streams).await.map(drop)
}

struct Reader<'a> {
    bigquery: &'a BigQuery,
    name: &'a str,
    schema: &'a Bytes,
    sender: &'a Sender,
    partition: &'a str,
    /// Whether the session is over, so that no try of this stream helps.
    has_ended: AtomicBool,
}

impl Reader<'_> {
    /// Reads the stream to its end.
    async fn run(self) -> Result<()> {
        let mut offset = 0;
        let mut retry = Retry::times(TRIES);
        loop {
            let before = offset;
            let Err(error) = self.read_from(&mut offset).await else { return Ok(()) };
            if offset > before {
                retry.progressed();
            }
            if self.has_ended.load(Ordering::Relaxed) {
                return Err(error);
            }
            retry.wait_after(error).await?;
        }
    }

    /// Reads until the stream ends or breaks; `offset` is the number of rows handed on.
    async fn read_from(&self, offset: &mut i64) -> Result<()> {
        let request = ReadRowsRequest { read_stream: self.name.to_owned(), offset: *offset };
        let request = self.bigquery.request(request, &[("read_stream", self.name)]).await?;
        let mut responses = awaited(self.bigquery.read_client().read_rows(request))
            .await
            .map_err(|status| self.failed(&status))?
            .into_inner();
        while let Some(response) =
            awaited(responses.message()).await.map_err(|status| self.failed(&status))?
        {
            let rows = response.row_count;
            let Some(batch) = self.batch(response)? else { continue };
            if self.sender.send(Ok(batch)).await.is_err() {
                return Err(Error::new(Kind::Cancelled, "the lane stopped reading"));
            }
            *offset += rows;
        }
        Ok(())
    }

    fn batch(&self, response: ReadRowsResponse) -> Result<Option<RawBatch>> {
        let rows = usize::try_from(response.row_count).unwrap_or(0);
        let message = match response.rows {
            Some(Rows::ArrowRecordBatch(batch)) => without_end(batch.serialized_record_batch),
            Some(Rows::AvroRows(_)) => {
                let message = format!("partition {}: bigquery sent avro", self.partition);
                return Err(Error::new(Kind::Internal, message));
            }
            None => return Ok(None),
        };
        if rows == 0 {
            return Ok(None);
        }
        let mut bytes = BytesMut::with_capacity(self.schema.len() + message.len());
        bytes.extend_from_slice(self.schema);
        bytes.extend_from_slice(&message);
        Ok(Some(RawBatch::new(bytes.freeze(), rows, false)))
    }

    fn failed(&self, status: &Status) -> Error {
        self.has_ended.store(is_session_over(status), Ordering::Relaxed);
        let what = format!("cannot read partition {}", self.partition);
        self.bigquery.failed_to_read(status, &what)
    }
}
