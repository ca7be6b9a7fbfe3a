//! The plan report as text.
//!
//! Invariant: it shows what the JSON holds, nothing else.

use super::{PlanReport, Predicted, RouteReport};
use schemas::{Route, duration};
use std::fmt::Write;

/// Writes bytes in MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Tells what happens to keys that exist.
pub(super) fn on_conflict(route: &Route) -> String {
    let mut told = route.on_conflict.word().to_owned();
    if let Some(column) = &route.version_by {
        told = format!("{told} by {column}");
    }
    if let Some(lag) = route.catch_up {
        told = format!("{told}, caught up to {} before the end", duration::format(lag));
    }
    told
}

impl PlanReport {
    /// Renders the report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text).unwrap_or_default();
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        let target = &self.target;
        writeln!(out, "rebuild redis  (nothing is written by this command)")?;
        for (system, address) in &self.sources {
            writeln!(out, "source   {system} {address}")?;
        }
        let limit = target.limit_bytes.map_or("no limit".into(), mib);
        writeln!(
            out,
            "target   {} {}, {} keys, {} used of {limit}, {}",
            target.version,
            target.address,
            target.entries,
            mib(target.used_bytes),
            target.eviction
        )?;
        writeln!(out, "\nroutes, in order:")?;
        for route in &self.routes {
            write_route(route, out)?;
        }
        let total = self.rows_estimate.map_or("unknown".into(), |rows| format!("~{rows}"));
        writeln!(out, "\nrows in all        {total}")?;
        writeln!(
            out,
            "memory bound       {} = {} base + 2 x {} lanes x {} batches x {} + {} for passes over keys",
            mib(self.memory_bound_bytes),
            mib(self.memory_base_bytes),
            self.lanes_max,
            self.lane_batches,
            mib(self.batch_bytes),
            mib(self.memory_keys_bytes)
        )?;
        writeln!(
            out,
            "work lost per crash at most {:.1} s of acknowledged rows and {} in flight",
            self.checkpoint_seconds,
            mib(self.in_flight_bytes)
        )?;
        self.memory.write_to(out)?;
        let ledger =
            self.ledger_bytes.map_or("unknown".into(), |bytes| format!("about {}", mib(bytes)));
        writeln!(out, "ledger under --state {ledger}")?;
        let rto = std::time::Duration::from_secs(self.rto_seconds);
        let predicted = self.predicted.as_ref().map_or_else(
            || "predicted time unknown: no run of these routes was measured here yet".to_owned(),
            Predicted::line,
        );
        writeln!(out, "objective          RTO {}; {predicted}", duration::format(rto))?;
        for told in self.needed.iter().flat_map(|needed| &needed.told) {
            writeln!(out, "needed             {told}")?;
        }
        for quota in &self.quotas {
            writeln!(out, "limit              {}", quota.line())?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }
}

fn write_route(route: &RouteReport, out: &mut String) -> std::fmt::Result {
    let rows = route.rows_estimate.map_or("unknown".into(), |rows| format!("~{rows}"));
    let bytes = route.bytes_estimate.map_or("unknown size".into(), mib);
    writeln!(out, "  {} (priority {})", route.name, route.priority)?;
    writeln!(out, "    {} -> {} {}", route.table, route.layout, route.key)?;
    writeln!(
        out,
        "    {rows} rows, {bytes}, {} {} cut by {}",
        route.partitions,
        if route.partitions == 1 { "partition" } else { "partitions" },
        route.cut
    )?;
    if !route.read_with.is_empty() {
        writeln!(out, "    read       in one pass with {}", route.read_with.join(", "))?;
    }
    writeln!(out, "    columns    {}", route.columns.join(", "))?;
    if let Some(billed) = route.bytes_billed {
        let read = route.bytes_read.map_or("unknown until the query ran".into(), mib);
        writeln!(out, "    bytes      {read} read, {} billed", mib(billed))?;
    }
    writeln!(out, "    unique     {}", route.uniqueness)?;
    writeln!(out, "    on_conflict {}, expiry {}", route.on_conflict, route.expiry)?;
    writeln!(out, "    resume     {}", route.resume)?;
    Ok(())
}
