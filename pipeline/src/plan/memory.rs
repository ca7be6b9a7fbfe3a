//! What a run would add to the target's memory, for `plan`.
//!
//! Invariant: nothing is written, so what a key takes is derived and not measured; what would be billed is not read.

use super::mib;
use crate::guard::RouteNeed;
use crate::guard::fits::{How, Projection, Remaining, project};
use crate::route::RouteRun;
use schemas::{Partition, Position};
use serde::Serialize;
use stages::Result;
use stages::load::{Limit, Sink};
use std::fmt::Write;

/// The projection of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryReport {
    /// Bytes of what is known together, tables of keys included; what keys already there give back is not counted.
    pub bytes: u64,
    /// Bytes that count against the limit now.
    pub used_bytes: u64,
    /// `maxmemory`, or the memory of the machine where there is none; absent where neither is told.
    pub limit_bytes: Option<u64>,
    /// Whether that is too much; absent where something is unknown.
    pub is_over: Option<bool>,
    /// By route.
    pub routes: Vec<RouteNeed>,
    /// The same in words, with what is unknown.
    #[serde(skip)]
    lines: Vec<String>,
}

/// Projects the routes, each with its partitions; `None` in the place of those whose rows cost something to read.
pub(super) async fn memory(
    sink: &dyn Sink,
    routes: &[(&RouteRun, Option<Vec<Partition>>)],
) -> Result<MemoryReport> {
    let at_start = |partition: &Partition| (partition.clone(), Position::Start);
    let mut remaining = Vec::new();
    for (route, partitions) in routes {
        let Some(partitions) = partitions else { continue };
        let partitions = partitions.iter().map(at_start).collect();
        remaining.push(Remaining { route, partitions, committed: [0, 0] });
    }
    let (projection, _) = project(sink, &remaining, How::Derived).await?;
    let unread = routes.iter().filter(|(_, partitions)| partitions.is_none()).map(|(route, _)| {
        format!(
            "route {}: what it needs is UNKNOWN until a run looks at its rows, which are billed",
            route.name()
        )
    });
    let unread: Vec<String> = unread.collect();
    let unknowns = projection.unknowns().into_iter().chain(unread);
    let unknowns: Vec<String> = unknowns.collect();
    let is_over =
        if projection.is_over() { Some(true) } else { unknowns.is_empty().then_some(false) };
    let lines = projection.needs.iter().map(|need| format!("  {}", need.told()));
    let Projection { target, needs, bytes } = &projection;
    Ok(MemoryReport {
        bytes: *bytes,
        used_bytes: target.used_bytes,
        limit_bytes: target.limit.map(Limit::bytes),
        is_over,
        lines: lines.chain(unknowns.into_iter().map(|unknown| format!("  {unknown}"))).collect(),
        routes: needs.clone(),
    })
}

impl MemoryReport {
    pub(super) fn write_to(&self, out: &mut String) -> std::fmt::Result {
        let limit = self.limit_bytes.map_or("an unknown limit".to_owned(), mib);
        let fits = match self.is_over {
            Some(true) => {
                "does NOT fit: a run ends with 5 before it writes, or loads a part with --fit 80%"
            }
            Some(false) => "fits",
            None => "whether it fits is UNKNOWN",
        };
        writeln!(
            out,
            "memory in Redis    about {} more, {} of {limit} in use: {fits}",
            mib(self.bytes),
            mib(self.used_bytes)
        )?;
        self.lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}
