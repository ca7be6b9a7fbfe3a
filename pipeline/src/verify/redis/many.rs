//! Keys of many rows: their rows are grouped in order, as a rebuild groups them, and so are those that a repair writes.
//!
//! Invariant: memory is one batch, whatever a key holds. Rows are grouped as of now, because a row that has expired is
//! part of no key. A key that is repaired is seen whole, before or after, as in a rebuild.

use super::again::compare;
use super::ends::Ends;
use super::page::{Page, Tally};
use super::pass::{Looked, Pass};
use super::rows::partitions_of;
use crate::checkpoint::Counts;
use crate::cpu::CpuPool;
use crate::lane::now_ms;
use crate::route::RouteRun;
use bytes::Bytes;
use futures::TryStreamExt;
use schemas::{Partition, Position};
use stages::extract::{BatchStream, Columns};
use stages::load::Written;
use stages::transform::{Attempt, Stitcher, Style, Transform};
use stages::{Encoded, Error, Kind, RawBatch, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// Groups the batches of one partition into pages of whole keys.
pub(super) struct Groups {
    transform: Arc<dyn Transform>,
    stitcher: Stitcher,
}

impl Groups {
    /// Begins a partition of a route of many rows per key; `None` for other routes.
    pub(super) fn new(route: &RouteRun, partition: &Partition) -> Result<Option<Self>> {
        if !route.bound.is_many() {
            return Ok(None);
        }
        // Nothing is sent, so no temporary key needs a name of its own.
        Self::begin(route, (route.transform)(&partition.bounds, Style::Blank), "verify").map(Some)
    }

    /// Begins the same for some keys alone; `attempt` names the temporary keys of what is sent.
    pub(super) fn of_keys(
        route: &RouteRun,
        partition: &Partition,
        keys: &Arc<HashSet<Vec<u8>>>,
        style: Style,
        attempt: &str,
    ) -> Result<Self> {
        let transform = (route.transform)(&partition.bounds, style).of_keys(keys);
        Self::begin(route, transform.ok_or_else(|| ungrouped(route))?, attempt)
    }

    fn begin(route: &RouteRun, transform: Arc<dyn Transform>, attempt: &str) -> Result<Self> {
        let stitcher = transform
            .stitcher(&Attempt { name: attempt, number: 0 })
            .ok_or_else(|| ungrouped(route))?;
        Ok(Self { transform, stitcher })
    }

    /// Takes the next batch, in order; returns what writes the keys that are whole by now, and pieces of the next one.
    async fn take(&mut self, cpu: &CpuPool, raw: RawBatch) -> Result<Vec<Encoded>> {
        let transform = Arc::clone(&self.transform);
        match cpu.submit(move || transform.apply(raw, now_ms())).await? {
            Encoded { open: Some(open), .. } => self.stitcher.take(open),
            whole => Ok(vec![whole]),
        }
    }

    /// Takes the next batch, in order; returns the keys that are whole by now.
    pub(super) async fn pages(&mut self, cpu: &CpuPool, raw: RawBatch) -> Result<Vec<Page>> {
        let parts = self.take(cpu, raw).await?;
        Ok(parts.into_iter().map(Page::of_batch).collect())
    }
}

fn ungrouped(route: &RouteRun) -> Error {
    Error::new(Kind::Internal, format!("route {} cannot be grouped into keys", route.name()))
}

/// Writes keys again from the rows that were last looked at; returns how many keys that wrote, and how many the route
/// keeps as they are by now.
pub(super) async fn rewrite(
    ends: &Ends,
    cpu: &CpuPool,
    route: &RouteRun,
    keys: &[&[u8]],
) -> Result<Written> {
    if keys.is_empty() {
        return Ok(Written::default());
    }
    let mut begun = Vec::new();
    let written = rewrite_noting(ends, cpu, route, keys, &mut begun).await;
    if written.is_err() {
        // What is on its way behind an error is gone an hour later at the latest.
        ends.sink.remove(&begun).await?;
    }
    written
}

async fn rewrite_noting(
    ends: &Ends,
    cpu: &CpuPool,
    route: &RouteRun,
    keys: &[&[u8]],
    begun: &mut Vec<Bytes>,
) -> Result<Written> {
    let wanted = Arc::new(keys.iter().map(|key| key.to_vec()).collect());
    let mut done = Written::default();
    for partition in &partitions_of(route, keys).await? {
        let attempt = format!("repair{}", uuid::Uuid::new_v4().simple());
        let style = route.style(&partition.bounds, false);
        let mut groups = Groups::of_keys(route, partition, &wanted, style, &attempt)?;
        let session = route.source.open().await?;
        let mut stream = session.read(partition, &Position::Start, Columns::All);
        while let Some(batch) = stream.next().await {
            for encoded in groups.take(cpu, batch?).await? {
                begun.extend_from_slice(&encoded.temporary);
                let kept_rows = ends.sink.write(0, &encoded).await?.kept;
                let kept = if kept_rows == 0 { 0 } else { others(ends, route, &encoded).await? };
                done.kept += kept;
                done.written += encoded.entries.len() as u64 - kept;
            }
        }
    }
    Ok(done)
}

/// Counts the keys of a batch that hold something else than what it writes.
async fn others(ends: &Ends, route: &RouteRun, encoded: &Encoded) -> Result<u64> {
    let expected: Vec<(Bytes, u64, i64)> = encoded
        .keyed()
        .map(|(key, entry)| (Bytes::copy_from_slice(key), entry.value_hash, entry.expires_ms))
        .collect();
    Ok(ends.sink.compare(&route.bound, &expected).await?.len() as u64)
}

impl Pass {
    /// Looks at the keys of a partition, one batch after the other.
    pub(super) async fn look_at_groups(
        &self,
        route: &RouteRun,
        mut groups: Groups,
        stream: BatchStream,
        looked: &mut Looked,
    ) -> Result<()> {
        let mut batches = std::pin::pin!(self.batches(stream));
        while let Some(raw) = batches.try_next().await? {
            for page in groups.pages(&self.cpu, raw).await? {
                if self.explained.is_some() {
                    self.explain(&page.hashes())?;
                }
                let Tally { rows, bytes, rejects, .. } = page.tally;
                let counts = Counts { rows, bytes, rejects, ..Counts::default() };
                self.counters.add(route.index, &counts);
                self.offer(route, &page);
                looked.take(&compare(&self.ends, route, self.ask, &page).await?)?;
            }
        }
        Ok(())
    }
}
