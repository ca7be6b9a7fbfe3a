//! A real sink behind a script.
//!
//! Invariant: what is written is written by the sink behind it; a fault that comes after a write leaves it there.

use super::script::{Fault, Script, scripted};
use async_trait::async_trait;
use bytes::Bytes;
use schemas::BoundRoute;
use stages::extract::redis_entries::Stored;
use stages::load::{
    Difference, Footprint, Numbered, Pressure, Sampled, Sentinel, Sink, Standing, TargetState,
    Versioned, Written,
};
use stages::{Encoded, Result};
use std::sync::Arc;
use std::time::Duration;

/// Plays a script over the writes to a sink.
pub(crate) struct ScriptedSink {
    pub(crate) inner: Arc<dyn Sink>,
    pub(crate) script: Arc<Script>,
}

#[async_trait]
impl Sink for ScriptedSink {
    fn address(&self) -> &str {
        self.inner.address()
    }
    async fn write(&self, lane: usize, batch: &Encoded) -> Result<Written> {
        match self.script.next().await {
            Some(Fault::Reject(kind)) => return Err(scripted(kind)),
            Some(Fault::FailAfter(kind)) => {
                self.inner.write(lane, batch).await?;
                return Err(scripted(kind));
            }
            _ => {}
        }
        let written = self.inner.write(lane, batch).await?;
        self.script.passed(batch.rows_read, batch.bytes_read);
        Ok(written)
    }
    async fn state(&self) -> Result<TargetState> {
        self.inner.state().await
    }
    async fn pressure(&self) -> Result<Pressure> {
        self.inner.pressure().await
    }
    async fn ping(&self) -> Result<Duration> {
        self.inner.ping().await
    }
    async fn measure(&self, samples: &[Sampled]) -> Result<Vec<Footprint>> {
        self.inner.measure(samples).await
    }
    async fn sentinel(&self, run_id: &str) -> Result<Sentinel> {
        self.inner.sentinel(run_id).await
    }
    async fn meet(&self, run_id: &str) -> Result<TargetState> {
        self.inner.meet(run_id).await
    }
    async fn claim(&self, run_id: &str, note: &str) -> Result<Sentinel> {
        self.inner.claim(run_id, note).await
    }
    async fn annotate(&self, run_id: &str, note: &str) -> Result<()> {
        self.inner.annotate(run_id, note).await
    }
    async fn release(&self, run_id: &str) -> Result<()> {
        self.inner.release(run_id).await
    }
    async fn count_existing(&self, keys: &[Bytes]) -> Result<u64> {
        self.inner.count_existing(keys).await
    }
    async fn compare(
        &self,
        route: &BoundRoute,
        expected: &[(Bytes, u64, i64)],
    ) -> Result<Vec<(usize, Difference)>> {
        self.inner.compare(route, expected).await
    }
    async fn stored(&self, route: &BoundRoute, keys: &[&[u8]]) -> Result<Vec<(Stored, i64)>> {
        self.inner.stored(route, keys).await
    }
    async fn standing(&self, route: &BoundRoute, entries: &[Versioned]) -> Result<Vec<Standing>> {
        self.inner.standing(route, entries).await
    }
    async fn remove_unless_newer(
        &self,
        route: &BoundRoute,
        entries: &[Versioned],
    ) -> Result<Vec<usize>> {
        self.inner.remove_unless_newer(route, entries).await
    }
    async fn numbered(&self, route: &BoundRoute) -> Result<Numbered> {
        self.inner.numbered(route).await
    }
    async fn unlink(&self, keys: &[Bytes]) -> Result<u64> {
        self.inner.unlink(keys).await
    }
    async fn remove(&self, keys: &[Bytes]) -> Result<u64> {
        self.inner.remove(keys).await
    }
    async fn json_module(&self) -> Result<Option<String>> {
        self.inner.json_module().await
    }
    fn way_note(&self) -> Option<String> {
        self.inner.way_note()
    }
    fn has_changed(&self) -> bool {
        self.inner.has_changed()
    }
}
