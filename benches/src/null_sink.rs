//! A target that takes everything at once and keeps nothing.
//!
//! Invariant: it counts every batch as written, so a lane before it does all that it does before a real one.

use async_trait::async_trait;
use bytes::Bytes;
use schemas::BoundRoute;
use stages::extract::redis_entries::Stored;
use stages::load::{
    Difference, Footprint, Numbered, Pressure, Sampled, Sentinel, Sink, Standing, TargetState,
    Versioned, Written,
};
use stages::{Encoded, Result};
use std::time::Duration;

/// The target.
#[derive(Debug, Default)]
pub struct NullSink;

#[async_trait]
impl Sink for NullSink {
    fn address(&self) -> &'static str {
        "nowhere"
    }

    async fn write(&self, _lane: usize, batch: &Encoded) -> Result<Written> {
        Ok(Written { written: batch.carried, kept: 0, folded: 0 })
    }

    async fn state(&self) -> Result<TargetState> {
        Ok(TargetState {
            process_id: "nobody".into(),
            history_id: "none".into(),
            version: "null".into(),
            entries: 0,
            used_bytes: 0,
            limit_bytes: None,
            eviction: "noeviction".into(),
            evicted: 0,
            refusal: None,
        })
    }

    async fn pressure(&self) -> Result<Pressure> {
        Ok(Pressure::default())
    }

    async fn ping(&self) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    async fn measure(&self, samples: &[Sampled]) -> Result<Vec<Footprint>> {
        Ok(vec![Footprint { bytes: None, replaced_bytes: None }; samples.len()])
    }

    async fn sentinel(&self, _run_id: &str) -> Result<Sentinel> {
        Ok(Sentinel::Missing)
    }

    async fn meet(&self, _run_id: &str) -> Result<TargetState> {
        self.state().await
    }

    async fn claim(&self, _run_id: &str, _note: &str) -> Result<Sentinel> {
        Ok(Sentinel::Ours)
    }

    async fn annotate(&self, _run_id: &str, _note: &str) -> Result<()> {
        Ok(())
    }

    async fn release(&self, _run_id: &str) -> Result<()> {
        Ok(())
    }

    async fn count_existing(&self, _keys: &[Bytes]) -> Result<u64> {
        Ok(0)
    }

    async fn compare(
        &self,
        _route: &BoundRoute,
        expected: &[(Bytes, u64, i64)],
    ) -> Result<Vec<(usize, Difference)>> {
        Ok((0..expected.len()).map(|index| (index, Difference::Missing)).collect())
    }

    async fn stored(&self, _route: &BoundRoute, _keys: &[&[u8]]) -> Result<Vec<(Stored, i64)>> {
        Ok(Vec::new())
    }

    async fn standing(&self, _route: &BoundRoute, entries: &[Versioned]) -> Result<Vec<Standing>> {
        Ok(vec![Standing::Differs(Difference::Missing); entries.len()])
    }

    async fn remove_unless_newer(
        &self,
        _route: &BoundRoute,
        _entries: &[Versioned],
    ) -> Result<Vec<usize>> {
        Ok(Vec::new())
    }

    async fn numbered(&self, _route: &BoundRoute) -> Result<Numbered> {
        Ok(Numbered::default())
    }

    async fn unlink(&self, _keys: &[Bytes]) -> Result<u64> {
        Ok(0)
    }

    async fn remove(&self, _keys: &[Bytes]) -> Result<u64> {
        Ok(0)
    }

    async fn json_module(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn way_note(&self) -> Option<String> {
        None
    }

    fn has_changed(&self) -> bool {
        false
    }
}
