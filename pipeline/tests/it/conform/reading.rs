//! Reads partitions as a lane does: streamed, decoded, encoded, stitched.
//!
//! Invariant: what is counted here are the rows that a lane would be given, not what the source says of them.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use rekindle::lane::now_ms;
use rekindle::route::RouteRun;
use schemas::{Partition, Position};
use stages::extract::{BatchStream, Columns};
use stages::transform::keys::render_keys;
use stages::transform::{Attempt, Style};
use stages::{Encoded, RawBatch, Result};
use std::collections::BTreeMap;

/// What one read brought.
#[derive(Default)]
pub(crate) struct Read {
    /// The ids of its rows, in the order they came.
    pub(crate) ids: Vec<i64>,
    /// Rows in the batches up to each, and the position there; one per batch that was sent to the target.
    pub(crate) positions: Vec<(usize, Position)>,
    /// Key to the hash of its value.
    pub(crate) entries: BTreeMap<Vec<u8>, u64>,
    /// The wire bytes of every row, one batch after the other.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the largest batch, and of the largest row.
    pub(crate) largest: (usize, usize),
}

/// Takes every batch of a stream.
pub(crate) async fn drain(mut stream: BatchStream) -> Result<Vec<RawBatch>> {
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(batch?);
    }
    Ok(batches)
}

/// Streams a partition under a new session.
pub(crate) async fn batches(
    route: &RouteRun,
    partition: &Partition,
    from: &Position,
    columns: Columns,
) -> Result<Vec<RawBatch>> {
    drain(route.source.open().await?.read(partition, from, columns)).await
}

/// Reads a partition from a position on.
pub(crate) async fn read(route: &RouteRun, partition: &Partition, from: &Position) -> Read {
    let raw = batches(route, partition, from, Columns::All).await;
    taken(route, partition, raw.unwrap_or_else(|error| panic!("{}: {error}", partition.id)))
}

/// Decodes and encodes what was read of a partition.
pub(crate) fn taken(route: &RouteRun, partition: &Partition, batches: Vec<RawBatch>) -> Read {
    let wire = (route.decoder_of)(&partition.bounds);
    let transform = (route.transform)(&partition.bounds, Style::Exact);
    let mut stitcher = transform.stitcher(&Attempt { name: "conform", number: 0 });
    let mut read = Read::default();
    for raw in batches {
        let decoded = wire.decode(&raw, &route.bound.schema).unwrap();
        let ids = decoded.rows.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        read.ids.extend(ids.values().iter());
        let row = (0..raw.rows).map(|row| decoded.raw(row).len()).max().unwrap_or(0);
        read.largest = (read.largest.0.max(raw.bytes.len()), read.largest.1.max(row));
        read.bytes.extend_from_slice(&raw.bytes);
        let mut encoded = transform.apply(raw, now_ms()).unwrap();
        match (encoded.open.take(), &mut stitcher) {
            (Some(open), Some(stitcher)) => {
                for encoded in stitcher.take(open).unwrap() {
                    read.note(&encoded);
                }
            }
            _ => read.note(&encoded),
        }
    }
    read
}

impl Read {
    fn note(&mut self, encoded: &Encoded) {
        self.positions.push((self.ids.len(), encoded.position.clone()));
        for (key, entry) in encoded.keyed() {
            let before = self.entries.insert(key.to_vec(), entry.value_hash);
            assert_eq!(before, None, "{:?} came twice", String::from_utf8_lossy(key));
        }
    }

    /// The ids in order of their size.
    pub(crate) fn sorted(&self) -> Vec<i64> {
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids
    }
}

/// Reads a partition for its keys alone; each with how often it came.
pub(crate) async fn keys(route: &RouteRun, partition: &Partition) -> BTreeMap<Vec<u8>, usize> {
    let raw = batches(route, partition, &Position::Start, Columns::Key).await.unwrap();
    let mut keys = BTreeMap::new();
    for raw in raw {
        let rendered = render_keys(&raw, route.key_decoder, &route.key_only).unwrap();
        for key in rendered.iter() {
            *keys.entry(key.to_vec()).or_default() += 1;
        }
    }
    keys
}

/// The keys of a partition of single rows in the order in which it is read.
pub(crate) async fn keys_in_order(route: &RouteRun, partition: &Partition) -> Vec<Bytes> {
    let raw = batches(route, partition, &Position::Start, Columns::All).await.unwrap();
    let transform = (route.transform)(&partition.bounds, Style::Exact);
    let mut keys = Vec::new();
    for raw in raw {
        let encoded = transform.apply(raw, now_ms()).unwrap();
        keys.extend(encoded.keyed().map(|(key, _)| Bytes::copy_from_slice(key)));
    }
    keys
}
