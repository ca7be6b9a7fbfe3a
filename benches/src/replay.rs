//! A source that sends rows of builds that it has in memory.
//!
//! Invariant: every row is in one partition and each partition's rows come in order, as from a table cut by ctid.

use crate::builds;
use async_trait::async_trait;
use schemas::{Bounds, Partition, PartitionId, Position};
use stages::extract::{BatchStream, Columns, READAHEAD, Session, Snapshot, Source};
use stages::{RawBatch, Result};
use std::sync::Arc;
use tokio::sync::mpsc;

const RELATION: &str = "\"public\".\"builds\"";

/// The source.
pub struct Replay {
    snapshot: Snapshot,
    /// The batches of each partition.
    partitions: Vec<Arc<[Batch]>>,
}

/// The bytes of a batch, and its rows.
type Batch = (bytes::Bytes, usize);

impl Replay {
    /// Makes so many partitions, each of so many batches of so many rows.
    pub fn new(partitions: usize, batches: usize, rows: usize) -> Self {
        let batch = |number: usize| (builds::wire((number * rows) as u64, rows), rows);
        let partition = |first: usize| (first * batches..(first + 1) * batches).map(batch);
        let snapshot =
            Snapshot { xmin: 1, xmax: 1, taken_us: 0, lsn: 0, identity: "replay".into() };
        let partitions = (0..partitions).map(|first| partition(first).collect()).collect();
        Self { snapshot, partitions }
    }

    /// Rows of all partitions.
    pub fn rows(&self) -> u64 {
        self.partitions.iter().flat_map(|batches| batches.iter()).map(|batch| batch.1 as u64).sum()
    }

    /// The first row of a partition.
    fn first_row(&self, partition: usize) -> u64 {
        let before = self.partitions[..partition].iter().flat_map(|batches| batches.iter());
        before.map(|batch| batch.1 as u64).sum()
    }
}

#[async_trait]
impl Source for Replay {
    fn relations(&self) -> String {
        RELATION.into()
    }

    fn no_catch_up(&self) -> Option<&'static str> {
        None
    }

    async fn partitions(&self, _wanted: usize, first: usize) -> Result<Vec<Partition>> {
        let partition = |number: usize| Partition {
            id: PartitionId(format!("builds/{}", first + number)),
            route: "builds".into(),
            bounds: Bounds::Ctid {
                relation: RELATION.into(),
                from_block: builds::block_of(self.first_row(number)),
                to_block: None,
            },
            rows_estimate: 0,
            bytes_estimate: 0,
            newest_us: None,
        };
        Ok((0..self.partitions.len()).map(partition).collect())
    }

    fn catch_up(&self, _since_xid: u64, _first: usize) -> Vec<Partition> {
        Vec::new()
    }

    async fn open(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(Replayed {
            snapshot: self.snapshot.clone(),
            partitions: self.partitions.clone(),
        }))
    }
}

struct Replayed {
    snapshot: Snapshot,
    partitions: Vec<Arc<[Batch]>>,
}

impl Session for Replayed {
    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn read(
        self: Box<Self>,
        partition: &Partition,
        _from: &Position,
        _columns: Columns,
    ) -> BatchStream {
        let number = partition.id.0.rsplit_once('/').and_then(|(_, number)| number.parse().ok());
        let number: usize = number.unwrap_or(0);
        let batches = Arc::clone(&self.partitions[number % self.partitions.len()]);
        let (sender, receiver) = mpsc::channel(READAHEAD);
        let task = tokio::spawn(async move {
            for (index, (bytes, rows)) in batches.iter().enumerate() {
                let batch = RawBatch::new(bytes.clone(), *rows, index + 1 == batches.len());
                if sender.send(Ok(batch)).await.is_err() {
                    return;
                }
            }
        });
        BatchStream::new(receiver, task)
    }
}
