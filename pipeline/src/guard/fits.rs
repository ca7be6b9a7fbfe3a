//! Whether what a run would write fits into its target: projected before the first write.
//!
//! Invariant: what is unknown is said and never taken as fitting; nothing of a run was written when it is refused.

use super::footprint::derived;
use super::room::{slots, table_growth};
use super::sampled::{RouteSample, sample};
use super::told::RouteNeed;
use super::{CEILING_PERCENT, Guard};
use crate::catch_up::partitions_of;
use crate::checkpoint::Status;
use crate::cli::figures::bytes;
use crate::engine::Engine;
use crate::route::RouteRun;
use schemas::{Partition, Position};
use stages::load::{Footprint, Limit, Pressure, Sink};
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// An entry of the table of expiries, and its slot.
const EXPIRY_BYTES: u64 = 40;

/// What a run would come to in its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// The target as it is.
    pub target: Pressure,
    /// What each route adds.
    pub needs: Vec<RouteNeed>,
    /// What the known ones add together, the growth of the table of keys included.
    pub bytes: u64,
}

/// A route with what is left to be read of it.
pub struct Remaining<'a> {
    /// The route.
    pub route: &'a RouteRun,
    /// Its partitions that are not done, and how far each is.
    pub partitions: Vec<(Partition, Position)>,
    /// Rows that were committed: of those partitions, and of all.
    pub committed: [u64; 2],
}

/// Whether sampled keys are written to find out what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Written under names of their own, measured, removed.
    Measured,
    /// Derived from the encodings of Redis; nothing is written.
    Derived,
}

/// Projects what a run would add.
pub async fn project(
    sink: &dyn Sink,
    routes: &[Remaining<'_>],
    how: How,
) -> Result<(Projection, Vec<u64>)> {
    let target = sink.pressure().await?;
    let (mut needs, mut added, mut keys) = (Vec::new(), Vec::new(), 0);
    for remaining in routes {
        let is_full = target.limit.is_some_and(|limit| target.used_bytes >= ceiling(limit));
        let (need, new_keys) = if is_full && how == How::Measured {
            (unknown(remaining.route, None, "the target is full already"), 0)
        } else {
            need(sink, remaining, how).await?
        };
        added.push(need.bytes_per_row.unwrap_or(0));
        keys += new_keys;
        needs.push(need);
    }
    let known: u64 = needs.iter().filter_map(|need| need.bytes).sum();
    let growth = match table_growth(target.entries, keys) {
        0 => 0,
        _ => (slots(target.entries.saturating_add(keys)) - slots(target.entries)) * 8,
    };
    // A limit counts what was allocated; a machine, what is resident.
    let factor = match target.limit {
        Some(Limit::Machine(_)) => target.fragmentation,
        _ => 1.0,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
    let bytes = (known.saturating_add(growth) as f64 * factor) as u64;
    Ok((Projection { target, needs, bytes }, added))
}

/// What one route adds, and how many keys.
async fn need(sink: &dyn Sink, remaining: &Remaining<'_>, how: How) -> Result<(RouteNeed, u64)> {
    let route = remaining.route;
    let rows = rows(remaining).await?;
    if remaining.partitions.is_empty() || rows == Some(0) {
        let none = RouteNeed { rows: Some(0), bytes: Some(0), ..unknown(route, None, "") };
        return Ok((RouteNeed { unknown: None, ..none }, 0));
    }
    let sampled = match sample(route, &remaining.partitions).await {
        Ok(sampled) => sampled,
        Err(error) if error.kind().is_transient() => return Err(error),
        Err(error) => {
            return Ok((unknown(route, rows, &format!("no row could be sampled: {error}")), 0));
        }
    };
    if sampled.keys.is_empty() {
        return Ok((unknown(route, rows, "no row could be sampled in time"), 0));
    }
    let told = match how {
        How::Measured => sink.measure(&sampled.keys).await?,
        How::Derived => vec![Footprint { bytes: None, replaced_bytes: None }; sampled.keys.len()],
    };
    let Some((per_row, is_measured)) = per_row(route, &sampled, &told) else {
        return Ok((unknown(route, rows, "the target does not tell what keys take"), 0));
    };
    let need = RouteNeed {
        route: route.name().to_owned(),
        rows,
        bytes_per_row: Some(per_row),
        bytes: rows.map(|rows| rows.saturating_mul(per_row)),
        how: if is_measured { "measured" } else { "derived" }.to_owned(),
        sampled: sampled.rows,
        unknown: rows.is_none().then(|| NO_ROWS.to_owned()),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
    let keys = (rows.unwrap_or(0) as f64 * sampled.keys_per_row) as u64;
    Ok((need, keys))
}

const NO_ROWS: &str = "its number of rows is unknown (never analysed, a view or a query)";

/// Rows still to be written, by the statistics of the source.
pub(crate) async fn rows(remaining: &Remaining<'_>) -> Result<Option<u64>> {
    let route = remaining.route;
    if let Some(all) = route.source.rows_expected().await? {
        return Ok(Some(all.saturating_sub(remaining.committed[1])));
    }
    if !route.has_row_estimate {
        return Ok(None);
    }
    let rows: u64 = remaining.partitions.iter().map(|(p, _)| p.rows_estimate).sum();
    Ok(Some(rows.saturating_sub(remaining.committed[0])))
}

fn unknown(route: &RouteRun, rows: Option<u64>, why: &str) -> RouteNeed {
    RouteNeed {
        route: route.name().to_owned(),
        rows,
        bytes_per_row: None,
        bytes: None,
        how: "unknown".to_owned(),
        sampled: 0,
        unknown: Some(why.to_owned()),
    }
}

/// Bytes that a row adds beyond what it replaces, rounded up, and whether the target told all of it.
fn per_row(route: &RouteRun, sampled: &RouteSample, told: &[Footprint]) -> Option<(u64, bool)> {
    let (mut sum, mut replaced, mut is_measured) = (0, 0, true);
    for (key, footprint) in sampled.keys.iter().zip(told) {
        is_measured &= footprint.bytes.is_some();
        sum += footprint.bytes.or_else(|| derived(key))?;
        replaced += footprint.replaced_bytes.unwrap_or(0);
        if route.bound.expiry.is_some() && footprint.replaced_bytes.unwrap_or(0) == 0 {
            sum += EXPIRY_BYTES;
        }
    }
    let added = sum.saturating_sub(replaced) as f64;
    // Rows that are left out, rejected or have expired add nothing; of many rows per key, a row is an element.
    let share = if route.bound.is_many() { 1.0 } else { sampled.keys_per_row.min(1.0) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
    let per_row = (added * share / sampled.rows.max(1) as f64).ceil() as u64;
    Some((per_row, is_measured))
}

/// Bytes up to which a target may be filled.
pub(super) fn ceiling(limit: Limit) -> u64 {
    limit.bytes() / 100 * CEILING_PERCENT
}

impl Projection {
    /// Whether it is known to need more than there is.
    pub fn is_over(&self) -> bool {
        self.target.limit.is_some_and(|limit| {
            let wanted = self.target.used_bytes.saturating_add(self.bytes);
            wanted > ceiling(limit)
                && (self.bytes > 0 || self.needs.iter().any(|n| n.rows != Some(0)))
        })
    }

    /// Says what is wanted and what there is.
    pub fn told(&self) -> String {
        let used = bytes(self.target.used_bytes);
        let needs = format!("about {} more", bytes(self.bytes));
        match self.target.limit {
            None => format!("{used} used, no limit is told; the run adds {needs}"),
            Some(limit) => {
                let what = match limit {
                    Limit::Own(_) => format!("maxmemory, policy {}", self.target.eviction),
                    Limit::Machine(_) => "the machine's memory, no maxmemory".to_owned(),
                };
                format!(
                    "{used} of {} used ({what}), {CEILING_PERCENT} % of it at most is filled; the run needs {needs}",
                    bytes(limit.bytes())
                )
            }
        }
    }

    /// What is not known of it.
    pub fn unknowns(&self) -> Vec<String> {
        let routes = self.needs.iter().filter_map(|need| {
            let why = need.unknown.as_ref()?;
            Some(format!(
                "route {}: what it needs in the target is UNKNOWN and not counted, because {why}",
                need.route
            ))
        });
        let limit = self.target.limit.is_none().then(|| {
            "the memory of the target is UNKNOWN: it has no maxmemory and does not tell its machine's memory".to_owned()
        });
        routes.chain(limit).collect()
    }

    fn refusal(&self, address: &str) -> Error {
        let breakdown: Vec<String> = self.needs.iter().map(RouteNeed::told).collect();
        let message = format!(
            "redis at {address} has no room for this run: {}\n  {}",
            self.told(),
            breakdown.join("\n  ")
        );
        Error::new(Kind::Capacity, message).with_hint(HINT)
    }
}

/// The ways out of a target that is too small.
pub(super) const HINT: &str = "raise maxmemory, leave routes out with --route, or load what fits, by priority and newest \
    first: rekindle rebuild redis --fit 80%";

impl RouteNeed {
    /// One line of the breakdown.
    pub fn told(&self) -> String {
        let rows = self.rows.map_or("unknown rows".to_owned(), |rows| format!("~{rows} rows"));
        match (self.bytes_per_row, self.bytes) {
            (_, Some(0)) => format!("{}: nothing more", self.route),
            (Some(per_row), Some(sum)) => {
                format!("{}: {rows} x {per_row} B = {} ({})", self.route, bytes(sum), self.how)
            }
            (Some(per_row), None) => format!("{}: {rows} x {per_row} B ({})", self.route, self.how),
            _ => format!("{}: {rows}, size unknown", self.route),
        }
    }
}

/// Projects the run and refuses it where it does not fit; returns what is unknown. Nothing of the run was written yet.
pub async fn check(engine: &Engine) -> Result<Vec<String>> {
    let shared = &engine.shared;
    let routes = remaining(engine).await?;
    let (projection, added) = project(&*shared.sink, &routes, How::Measured).await?;
    let guard: &Arc<Guard> = &shared.guard;
    for (remaining, bytes) in routes.iter().zip(added) {
        if bytes > 0 {
            guard.learn(remaining.route.index, bytes);
        }
    }
    tracing::info!(projection = projection.told(), "memory of the target");
    guard.lock().projection =
        Some(super::GuardSummary { needs: projection.needs.clone(), ..Default::default() });
    if guard.limits.fit_percent.is_some() {
        if !matches!(projection.target.limit, Some(Limit::Own(_))) {
            let message = format!(
                "--fit is a share of maxmemory, and redis at {} has none",
                shared.sink.address()
            );
            return Err(Error::new(Kind::Config, message).with_hint(
                "set maxmemory on the server, for example: redis-cli CONFIG SET maxmemory 4gb",
            ));
        }
    } else if projection.is_over() {
        return Err(projection.refusal(shared.sink.address()));
    }
    Ok(projection.unknowns())
}

/// What is left to be read of every route.
pub(crate) async fn remaining(engine: &Engine) -> Result<Vec<Remaining<'_>>> {
    let mut routes = Vec::new();
    for route in &engine.routes {
        let records = partitions_of(engine, route.name()).await?;
        let mut committed = [0, 0];
        let mut partitions = Vec::new();
        for record in records {
            committed[1] += record.counts.rows;
            if record.status != Status::Done {
                committed[0] += record.counts.rows;
                partitions.push((record.partition, record.position));
            }
        }
        routes.push(Remaining { route, partitions, committed });
    }
    Ok(routes)
}
