//! A real source behind a script.
//!
//! Invariant: partitions, snapshots and rows are those of the source behind it.

use super::script::{Fault, Script, scripted};
use async_trait::async_trait;
use schemas::{Partition, Position};
use stages::extract::{BatchStream, Columns, Estimate, ReadBefore, Session, Snapshot, Source};
use stages::{RawBatch, Result};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Plays a script over the batches of a source.
pub(crate) struct ScriptedSource {
    pub(crate) inner: Arc<dyn Source>,
    pub(crate) script: Arc<Script>,
}

struct ScriptedSession {
    inner: Box<dyn Session>,
    script: Arc<Script>,
}

#[async_trait]
impl Source for ScriptedSource {
    fn relations(&self) -> String {
        self.inner.relations()
    }
    fn no_catch_up(&self) -> Option<&'static str> {
        self.inner.no_catch_up()
    }
    async fn prepare(&self, run_id: &str) -> Result<()> {
        self.inner.prepare(run_id).await
    }
    async fn discard(&self) -> Result<()> {
        self.inner.discard().await
    }
    async fn estimate(&self) -> Result<Option<Estimate>> {
        self.inner.estimate().await
    }
    async fn rows_expected(&self) -> Result<Option<u64>> {
        self.inner.rows_expected().await
    }
    fn size_batches(&self, bytes: usize) {
        self.inner.size_batches(bytes);
    }
    fn batch_bytes(&self) -> usize {
        self.inner.batch_bytes()
    }
    fn held_bytes(&self) -> u64 {
        self.inner.held_bytes()
    }
    async fn partitions(&self, wanted: usize, first: usize) -> Result<Vec<Partition>> {
        self.inner.partitions(wanted, first).await
    }
    async fn contradictions(&self) -> Result<u64> {
        self.inner.contradictions().await
    }
    fn tells_unchanged(&self) -> bool {
        self.inner.tells_unchanged()
    }
    async fn unchanged(&self, parts: &[ReadBefore<'_>]) -> Result<Option<(Snapshot, Vec<bool>)>> {
        self.inner.unchanged(parts).await
    }
    fn catch_up(&self, since_xid: u64, first: usize) -> Vec<Partition> {
        self.inner.catch_up(since_xid, first)
    }
    fn rows_of(&self, keys: &[&[u8]]) -> Option<Partition> {
        self.inner.rows_of(keys)
    }
    fn rows_with(&self, columns: &[usize], texts: &[Vec<&[u8]>]) -> Option<Partition> {
        self.inner.rows_with(columns, texts)
    }
    async fn open(&self) -> Result<Box<dyn Session>> {
        let inner = self.inner.open().await?;
        Ok(Box::new(ScriptedSession { inner, script: Arc::clone(&self.script) }))
    }
}

impl Session for ScriptedSession {
    fn snapshot(&self) -> &Snapshot {
        self.inner.snapshot()
    }

    fn read(
        self: Box<Self>,
        partition: &Partition,
        from: &Position,
        columns: Columns,
    ) -> BatchStream {
        let stream = self.inner.read(partition, from, columns);
        // Hands on one at a time, so that what waits is still bounded by the stream behind it.
        let (sender, receiver) = mpsc::channel(1);
        let task = tokio::spawn(play(self.script, stream, sender));
        BatchStream::new(receiver, task)
    }
}

async fn play(script: Arc<Script>, mut stream: BatchStream, to: mpsc::Sender<Result<RawBatch>>) {
    while let Some(batch) = stream.next().await {
        let fault = script.next().await;
        if let Some(Fault::Reject(kind)) = fault {
            drop(to.send(Err(scripted(kind))).await);
            return;
        }
        if let Ok(batch) = &batch {
            script.passed(batch.rows as u64, batch.bytes_read);
        }
        if to.send(batch).await.is_err() {
            return;
        }
        if let Some(Fault::FailAfter(kind)) = fault {
            drop(to.send(Err(scripted(kind))).await);
            return;
        }
    }
}
