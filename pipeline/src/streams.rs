//! Streams that an earlier run or cut left under the names of a route, beside which those of this one would be doubled.
//!
//! Invariant: they are removed before the first row of the route is written, and never silently; a key of another type
//! under such a name stops the run before anything is written.

use crate::catch_up::partitions_of;
use crate::checkpoint::Status;
use crate::engine::Engine;
use crate::lane::Shared;
use crate::ledger::FrameReader;
use crate::readback::ReadBack;
use crate::route::RouteRun;
use bytes::Bytes;
use stages::failpoint::{Point, pass};
use stages::load::Numbered;
use stages::{Error, Kind, Result};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Streams named in a warning.
const EXAMPLES_MAX: usize = 3;

/// What is to be removed for a route.
pub struct Stale {
    route: Arc<RouteRun>,
    streams: Vec<Bytes>,
}

/// Looks for what is left under the names of routes that have not finished a stream yet. Writes nothing.
pub async fn look(engine: &Engine) -> Result<Vec<Stale>> {
    let mut stale = Vec::new();
    for route in engine.routes.iter().filter(|route| route.bound.is_stream()) {
        // What was found empty holds nothing, and what a finished partition left is of this cut.
        let is_clean = route.target_was_empty.load(Ordering::Relaxed);
        if is_clean || has_finished(engine, route).await? {
            continue;
        }
        let Numbered { streams, others, examples } =
            engine.shared.sink.numbered(&route.bound).await?;
        if others > 0 {
            let (name, start) = (route.name(), route.bound.route.keys_begin_with());
            let message = format!(
                "route {name}: {others} keys are named like its streams, {start}<number>, and are none: {}",
                examples.join(", ")
            );
            return Err(Error::new(Kind::Config, message).with_hint(
                "give the route a key prefix of its own, or remove these keys; nothing was written",
            ));
        }
        if !streams.is_empty() {
            stale.push(Stale { route: Arc::clone(route), streams });
        }
    }
    Ok(stale)
}

async fn has_finished(engine: &Engine, route: &RouteRun) -> Result<bool> {
    let partitions = partitions_of(engine, route.name()).await?;
    Ok(partitions.iter().any(|partition| partition.status == Status::Done))
}

impl Stale {
    /// Removes them; returns what is to be told.
    pub async fn remove(&self, shared: &Shared) -> Result<String> {
        let removed = shared.sink.unlink(&self.streams).await?;
        pass(Point::StaleRemoved);
        let name = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        let examples: Vec<String> = self.streams.iter().take(EXAMPLES_MAX).map(name).collect();
        let more = if self.streams.len() > EXAMPLES_MAX { ", …" } else { "" };
        Ok(format!(
            "route {}: {removed} streams that were there before, cut otherwise perhaps, were removed: {}{more}",
            self.route.name(),
            examples.join(", ")
        ))
    }
}

/// Adds to the findings every stream under the names of a route that no partition of it made.
pub async fn find_strays(shared: &Shared, route: &RouteRun, found: &mut ReadBack) -> Result<()> {
    let mut made: HashSet<Bytes> = HashSet::new();
    for path in shared.ledger.files(route.name())? {
        let mut reader = FrameReader::open(&path)?;
        while let Some(frame) = reader.next_frame()? {
            made.extend(frame.iter().map(|(key, ..)| Bytes::copy_from_slice(key)));
        }
    }
    let Numbered { streams, .. } = shared.sink.numbered(&route.bound).await?;
    for key in streams.iter().filter(|key| !made.contains(*key)) {
        found.note_stray(key);
    }
    Ok(())
}
