//! Reading tables back: rows and digest through Storage Read, decoded and hashed on rayon.
//!
//! Invariant: what is proven was read from the table itself, never taken from an answer of the job that wrote it.

use super::Shared;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use schemas::Digest;
use schemas::digest::BatchHasher;
use stages::load::bigquery::{ReadBack, ReadOptions};
use stages::policy::Retry;
use stages::transform::arrow_rows::read_rows;
use stages::{Error, Kind, Result};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Messages of one stream that are decoded at once.
const DECODED_AT_ONCE: usize = 3;

/// What is made of the rows of one message.
type Look<T> = Arc<dyn Fn(&RecordBatch) -> Result<T> + Send + Sync>;

/// Reads a table and returns what `look` makes of its batches, in no order. A broken session is opened again.
async fn read<T: Send + 'static>(
    shared: &Arc<Shared>,
    dataset: &str,
    table: &str,
    options: &ReadOptions,
    look: &Look<T>,
) -> Result<Vec<T>> {
    let mut retry = Retry::within(shared.retry_for);
    loop {
        match read_once(shared, dataset, table, options, look).await {
            Err(error) => retry.wait_after(shaped(error)).await?,
            done => return done,
        }
    }
}

/// A session that expired is no config error, whatever code says so.
fn shaped(error: Error) -> Error {
    let is_expired = std::error::Error::source(&error)
        .is_some_and(|cause| cause.to_string().contains("expired"));
    if error.kind().is_transient() || !is_expired {
        return error;
    }
    Error::new(Kind::Unavailable, error.to_string()).with_source(error)
}

fn seen<T>(
    schema: &Bytes,
    message: &Bytes,
    look: &(dyn Fn(&RecordBatch) -> Result<T> + Send + Sync),
) -> Result<Vec<T>> {
    read_rows(schema, message)?.iter().map(look).collect()
}

async fn read_once<T: Send + 'static>(
    shared: &Arc<Shared>,
    dataset: &str,
    table: &str,
    options: &ReadOptions,
    look: &Look<T>,
) -> Result<Vec<T>> {
    let session = ReadBack::open(&shared.bigquery, dataset, table, options).await?;
    let mut streams = JoinSet::new();
    let mut found = Vec::new();
    for name in &session.streams {
        let rows = session.rows(name);
        let (shared, look, schema) = (Arc::clone(shared), Arc::clone(look), session.schema.clone());
        streams.spawn(async move {
            let decoded = rows
                .map(|message| {
                    let (look, schema) = (Arc::clone(&look), schema.clone());
                    // Submitted when it is taken from the stream, awaited in order.
                    let work = message
                        .map(|message| shared.cpu.submit(move || seen(&schema, &message, &*look)));
                    async move { work?.await }
                })
                .buffered(DECODED_AT_ONCE);
            let mut decoded = std::pin::pin!(decoded);
            let mut found = Vec::new();
            while let Some(batch) = decoded.next().await {
                found.extend(batch?);
            }
            Ok::<_, Error>(found)
        });
    }
    while let Some(stream) = streams.join_next().await {
        let stream = stream.map_err(|error| {
            Error::new(Kind::Internal, "reading a table back panicked").with_source(error)
        })?;
        found.extend(stream?);
    }
    Ok(found)
}

fn unknown(error: schemas::digest::UnknownType) -> Error {
    Error::new(Kind::Schema, "cannot hash rows of bigquery").with_source(error)
}

/// Returns rows and digest of a table.
pub(super) async fn digest(
    shared: &Arc<Shared>,
    dataset: &str,
    table: &str,
    at_ms: Option<i64>,
) -> Result<Digest> {
    let look: Look<Digest> = Arc::new(|batch| {
        let mut digest = Digest::default();
        BatchHasher::new(batch).map_err(unknown)?.add_to(&mut digest);
        Ok(digest)
    });
    let options = ReadOptions { at_ms, streams: shared.lanes, ..ReadOptions::default() };
    let parts = read(shared, dataset, table, &options, &look).await?;
    Ok(parts.into_iter().fold(Digest::default(), |mut total, part| {
        total += part;
        total
    }))
}

/// The keys of a table as hashes, sorted; eight bytes a row.
pub(super) struct KeySet(Vec<u64>);

impl KeySet {
    fn contains(&self, key: u64) -> bool {
        self.0.binary_search(&key).is_ok()
    }
}

/// Hashes the key of every row; half of 128 bits is enough to tell keys apart.
fn key_hashes(batch: &RecordBatch, column: &str) -> Result<Vec<u64>> {
    let place = batch
        .schema_ref()
        .fields()
        .iter()
        .position(|field| field.name().eq_ignore_ascii_case(column))
        .ok_or_else(|| {
            Error::new(Kind::Config, format!("the table has no column {column} (row_key)"))
        })?;
    let keys = batch.project(&[place]).map_err(|error| {
        Error::new(Kind::Internal, "cannot take the key column of a batch").with_source(error)
    })?;
    let mut hasher = BatchHasher::new(&keys).map_err(unknown)?;
    #[expect(clippy::cast_possible_truncation, reason = "half of the hash is meant")]
    let half = |hash: u128| hash as u64;
    Ok((0..keys.num_rows()).map(|row| half(hasher.hash(row))).collect())
}

/// Reads the keys of a table.
pub(super) async fn keys(
    shared: &Arc<Shared>,
    dataset: &str,
    table: &str,
    column: &str,
) -> Result<KeySet> {
    let name = column.to_owned();
    let look: Look<Vec<u64>> = Arc::new(move |batch| key_hashes(batch, &name));
    let options = ReadOptions { streams: shared.lanes, ..ReadOptions::default() };
    let mut keys = read(shared, dataset, table, &options, &look).await?.concat();
    keys.sort_unstable();
    Ok(KeySet(keys))
}

/// Returns rows and digest of those rows of a table whose key is in a set.
pub(super) async fn digest_of_keys(
    shared: &Arc<Shared>,
    dataset: &str,
    table: &str,
    column: &str,
    keys: KeySet,
) -> Result<Digest> {
    let name = column.to_owned();
    let look: Look<Digest> = Arc::new(move |batch| {
        let mut digest = Digest::default();
        let mut hasher = BatchHasher::new(batch).map_err(unknown)?;
        for (row, key) in key_hashes(batch, &name)?.into_iter().enumerate() {
            if keys.contains(key) {
                digest.add_row(hasher.hash(row));
            }
        }
        Ok(digest)
    });
    let options = ReadOptions { streams: shared.lanes, ..ReadOptions::default() };
    let parts = read(shared, dataset, table, &options, &look).await?;
    Ok(parts.into_iter().fold(Digest::default(), |mut total, part| {
        total += part;
        total
    }))
}
