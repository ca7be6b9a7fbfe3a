//! Reads one COPY stream into raw batches.
//!
//! Invariant: a batch holds whole rows only. PostgreSQL sends one `CopyData` message per row (protocol
//! documentation, "COPY Operations"), so messages are appended whole and never parsed here.

use super::snapshot::{PostgresServer, Transaction};
use super::watch::Expected;
use crate::batch::RawBatch;
use crate::connect::postgres::from_sqlx;
use crate::error::{Error, Kind, Result};
use crate::extract::{BatchStream, READAHEAD};
use bytes::BytesMut;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The server of a read, and what it expects of the table.
pub(super) type Held = (Arc<PostgresServer>, Expected);

/// Starts the producer task of one partition.
pub(super) fn stream(
    (transaction, held): (Transaction, Option<Held>),
    sql: String,
    deadline: Duration,
    partition: String,
) -> BatchStream {
    let (sender, receiver) = mpsc::channel(READAHEAD);
    let task = tokio::spawn(async move {
        let mut transaction = transaction;
        let outcome = async {
            if let Some((server, expected)) = &held {
                server.hold(&mut transaction, expected).await?;
            }
            copy(&mut transaction, &sql, deadline, &sender, &partition).await
        };
        let outcome = outcome.await;
        if let Err(error) = outcome {
            // A receiver that is gone has stopped asking; nobody is left to tell.
            if sender.send(Err(error)).await.is_err() {
                tracing::trace!("the lane left before the read failed");
            }
        }
    });
    BatchStream::new(receiver, task)
}

async fn copy(
    transaction: &mut Transaction,
    sql: &str,
    deadline: Duration,
    sender: &mpsc::Sender<Result<RawBatch>>,
    partition: &str,
) -> Result<()> {
    let failed = |error| from_sqlx(error, &format!("cannot read partition {partition} of alloydb"));
    let end_at = Instant::now() + deadline;
    let (postgres, session) = transaction.watch();
    let session = session.as_ref();
    let batch_bytes = transaction.size();
    {
        let begin = async { transaction.connection.copy_out_raw(sql).await.map_err(failed) };
        let mut messages = postgres.watched(session, begin).await?;
        let mut size = batch_bytes.load(Ordering::Relaxed);
        let mut filling = BytesMut::with_capacity(size + 4096);
        let mut rows = 0;
        loop {
            // Most messages are there already; a timer for each would cost more than they do.
            let next = match messages.next().now_or_never() {
                Some(next) => next,
                None => postgres.watched(session, async { Ok(messages.next().await) }).await?,
            };
            let Some(message) = next else { break };
            let message = message.map_err(failed)?;
            filling.extend_from_slice(&message);
            rows += usize::from(!is_trailer(&message));
            if filling.len() < size {
                continue;
            }
            if Instant::now() > end_at {
                return Err(Error::new(
                    Kind::SnapshotLost,
                    format!("partition {partition} outlasted snapshot_max"),
                ));
            }
            size = batch_bytes.load(Ordering::Relaxed);
            let bytes = std::mem::replace(&mut filling, BytesMut::with_capacity(size + 4096));
            let batch = RawBatch::new(bytes.freeze(), rows, false);
            rows = 0;
            if sender.send(Ok(batch)).await.is_err() {
                return Err(Error::new(Kind::Cancelled, "the lane stopped reading"));
            }
        }
        let batch = RawBatch::new(filling.freeze(), rows, true);
        if sender.send(Ok(batch)).await.is_err() {
            return Err(Error::new(Kind::Cancelled, "the lane stopped reading"));
        }
    }
    transaction.commit().await.map_err(failed)
}

/// Bytes of the COPY BINARY header: signature (11), flags (4), extension length (4).
const HEADER_BYTES: usize = 19;

/// Whether a message ends the stream instead of carrying a row: the trailer (-1 as a field count), alone or,
/// where there are no rows, right behind the header (PostgreSQL manual, COPY, "Binary Format").
fn is_trailer(message: &[u8]) -> bool {
    message == [0xff, 0xff]
        || (message.len() == HEADER_BYTES + 2
            && message.starts_with(b"PGCOPY")
            && message.ends_with(&[0xff, 0xff]))
}
