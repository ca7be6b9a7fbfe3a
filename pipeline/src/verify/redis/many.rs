//! Keys of many rows: their rows are grouped in order, as a rebuild groups them.
//!
//! Invariant: memory is one batch, whatever a key holds. Rows are grouped as of now, because a row that has expired is
//! part of no key.

use super::again::compare;
use super::page::{Page, Tally};
use super::pass::{Looked, Pass};
use crate::checkpoint::Counts;
use crate::cpu::CpuPool;
use crate::lane::now_ms;
use crate::route::RouteRun;
use futures::TryStreamExt;
use schemas::Partition;
use stages::extract::BatchStream;
use stages::transform::{Attempt, Stitcher, Style, Transform};
use stages::{Encoded, Error, Kind, RawBatch, Result};
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
        let transform = (route.transform)(&partition.bounds, Style::Blank);
        // Nothing is sent, so no temporary key needs a name of its own.
        let attempt = Attempt { name: "verify", number: 0 };
        let stitcher = transform.stitcher(&attempt).ok_or_else(|| {
            let message = format!("route {} cannot be grouped into keys", route.name());
            Error::new(Kind::Internal, message)
        })?;
        Ok(Some(Self { transform, stitcher }))
    }

    /// Takes the next batch, in order; returns the keys that are whole by now.
    pub(super) async fn pages(&mut self, cpu: &CpuPool, raw: RawBatch) -> Result<Vec<Page>> {
        let transform = Arc::clone(&self.transform);
        let parts = match cpu.submit(move || transform.apply(raw, now_ms())).await? {
            Encoded { open: Some(open), .. } => self.stitcher.take(open)?,
            whole => vec![whole],
        };
        Ok(parts.into_iter().map(Page::of_batch).collect())
    }
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
