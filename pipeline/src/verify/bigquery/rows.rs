//! Row routes: every row of the table beside the one that an application keeps in Redis, both ways.
//!
//! Invariant: Redis is looked at after the pinned time, and a row is called different only where a second look, at both
//! sides and under a later time, finds it different in the very same way: an application may write meanwhile.

mod pages;

use super::super::{EXAMPLES_MAX, Tier, Verdict};
use super::Shared;
use super::apart::{Apart, Marked, Side, Spread};
use super::marks::{self, Share};
use super::read::{self, Look, STREAMS};
use super::report::{RowsReport, TableReport};
use super::shape::Columns;
use crate::backup::buffer::every_row;
use crate::backup::drift::loses;
use crate::backup::rows::{RowTable, row_server, take};
use crate::backup::source::now_us;
use crate::lane::now_ms;
use crate::progress::Phase;
use crate::readback::detection_power;
use crate::spool::{self, Search};
use crate::summarize::rfc3339;
use pages::Found;
use schemas::drift::OnDrift;
use schemas::plan::Layout;
use schemas::{BoundRoute, Plan, ReverseRoute, Route};
use serde_json::json;
use stages::Result;
use stages::extract::bigquery::table_schema;
use stages::extract::redis_rows::{Held, RedisRows};
use stages::extract::table_rows::Reading;
use std::collections::HashSet;
use std::sync::Arc;

/// Clocks of BigQuery, of Redis and of this machine are not the same.
const CLOCKS_MS: i64 = 5_000;
/// Rows that are looked at a second time; beyond that it is no application that writes meanwhile.
const AGAIN_MAX: usize = 1_000_000;

/// Verifies one row route.
pub(super) async fn verify(shared: &Shared, plan: &Plan, route: &Route) -> Result<TableReport> {
    let rows = row_server(plan)?;
    let look = || RowTable::inspect(&shared.bigquery, &shared.duplicate, route, true);
    let mut table = shared.patiently(look).await?;
    let mut report = TableReport::new(&route.name, table.full_name(), "rows");
    let backup = format!("rekindle backup bigquery --route {}", route.name);
    for problem in std::mem::take(&mut table.findings) {
        report.problem(Verdict::Fail, problem.to_string(), backup.clone());
    }
    let census = table.run.as_ref().and_then(|run| run.census.as_ref());
    match census {
        Some(census) => report.data_as_of = census.complete_us.map(|us| rfc3339(us / 1_000)),
        None => report.notes.push(format!("there is no census of it yet: {backup}")),
    }
    if table.source.is_none() {
        let what = format!("table {} is missing in bigquery", table.full_name());
        let restore = format!("rekindle restore bigquery --route {}", route.name);
        report.problem(Verdict::Fail, what, restore);
        report.judge();
        return Ok(report);
    }
    let comparison = Comparison { shared, route, table: &table, rows };
    comparison.count(&mut report).await?;
    let is_comparable = comparison.columns(&mut report);
    if shared.tier != Tier::Count && is_comparable {
        comparison.compare(&mut report).await?;
    }
    report.detects = match shared.tier {
        Tier::Sample(_) if report.rows_compared > 0 => detection_power(report.rows_compared),
        Tier::Full if is_comparable => "every difference".to_owned(),
        _ => "rows that are missing in redis, by number; no value was compared".to_owned(),
    };
    report.judge();
    Ok(report)
}

struct Comparison<'a> {
    shared: &'a Shared,
    route: &'a Route,
    table: &'a RowTable,
    rows: RedisRows,
}

/// How the rows of a route are read on both sides.
struct Way {
    reverse: Arc<ReverseRoute>,
    columns: Columns,
    look: Look<Vec<Marked>>,
    share: Share,
}

/// What one pass over both sides found.
#[derive(Default)]
struct Pass {
    found: Found,
    /// When Redis had been read, milliseconds since 1970.
    read_ms: i64,
}

impl Comparison<'_> {
    /// Counts rows and keys of both sides.
    async fn count(&self, report: &mut TableReport) -> Result<()> {
        let shared = self.shared;
        let patience = (shared.retry_for, &shared.cancel);
        let at = (shared.snapshot_us, shared.scratch.path());
        let census = take(self.table, &self.rows, &shared.bigquery, at, patience).await?;
        let (rows, held) = (census.rows, census.held());
        report.rows = Some(RowsReport {
            rows_in_bigquery: rows,
            rows_in_redis: held,
            distinct_keys: census.distinct_keys,
            unfit_keys: census.unfit_keys,
            ..RowsReport::default()
        });
        let name = &self.route.name;
        if census.lacking() > 0 {
            let what = format!("redis lacks at least {} rows of route {name}", census.lacking());
            report.problem(Verdict::Fail, what, self.hint_missing());
        }
        if let Some(distinct) = census.distinct_keys.filter(|distinct| *distinct != rows) {
            let what = format!(
                "route {name} is derived: {rows} rows have {distinct} keys, so it cannot be restored from redis"
            );
            let hint = "add a column to key that tells the rows apart, or back the table up with type = \"blocks\"";
            report.problem(Verdict::Fail, what, hint);
        }
        if held > rows && shared.tier == Tier::Count {
            let what = format!(
                "redis has {} rows more than bigquery had at the pinned time; --tier full tells whether they came later",
                held - rows
            );
            report.problem(Verdict::Inconclusive, what, "rekindle verify bigquery --tier full");
        }
        Ok(())
    }

    /// Says what became of the columns since they were recorded, and whether rows can be compared all the same.
    fn columns(&self, report: &mut TableReport) -> bool {
        let (lost, added): (Vec<_>, Vec<_>) =
            self.table.drift.iter().partition(|drift| loses(drift));
        report.notes.extend(added.iter().map(ToString::to_string));
        if lost.is_empty() {
            return true;
        }
        let (table, route) = (self.table.full_name(), &self.route.name);
        let lines: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let accept = match self.route.on_drift {
            OnDrift::Fail => format!(" --accept-loss {table}"),
            OnDrift::Warn => String::new(),
        };
        report.problem(
            Verdict::Inconclusive,
            format!("the columns changed since the last backup: {}", lines.join("; ")),
            format!("if that was meant, and redis has the rows in these columns: rekindle backup bigquery --route {route}{accept}, then verify again; if not: rekindle restore bigquery --route {route} --replace"),
        );
        false
    }

    fn hint_missing(&self) -> String {
        let name = &self.route.name;
        if self.route.uses.rebuild {
            format!("rekindle rebuild redis --route {name}")
        } else {
            "see why the application does not write them".to_owned()
        }
    }

    /// Compares row by row; what differs is looked at again.
    async fn compare(&self, report: &mut TableReport) -> Result<()> {
        let way = match self.way(report.rows.as_ref()) {
            Ok(way) => way,
            Err(reasons) => {
                let what = format!("rows cannot be compared: {}", reasons.join("; "));
                let hint = "mend the route, or back the table up with type = \"blocks\"";
                report.problem(Verdict::Inconclusive, what, hint);
                return Ok(());
            }
        };
        let _turn = self.shared.one_at_a_time.lock().await;
        let estimate = report.rows.as_ref().map_or(0, |rows| rows.rows_in_redis) / way.share.of;
        let progress = &self.shared.progress;
        let rows = report.rows.as_ref().map_or(0, |rows| rows.rows_in_bigquery);
        progress.expect(1, rows);
        let (spread, pass) = self.pass(&way, self.shared.snapshot_us, estimate).await?;
        progress.part_done();
        report.rows_compared = pass.found.rows;
        let alive_ms = pass.read_ms + CLOCKS_MS;
        let mut left = HashSet::new();
        let mut is_full = false;
        // A first look that finds nothing needs no names, and no second one.
        spread.left_over(&mut |side, row| {
            if row.expires_ms > alive_ms {
                is_full |= left.len() >= AGAIN_MAX;
                if !is_full {
                    left.insert((side, row.bucket, row.row));
                }
            }
            Ok(())
        })?;
        if left.is_empty() && pass.found.rejects == 0 {
            return Ok(());
        }
        progress.enter(Phase::LookingAgain);
        let at_us = now_us(&self.shared.bigquery).await?;
        let (spread, pass) = self.pass(&way, at_us, estimate).await?;
        let alive_ms = pass.read_ms + CLOCKS_MS;
        let first = left.len() as u64;
        let mut stayed = 0;
        let apart = spread.compare(
            &mut |side, row| {
                let stays = row.expires_ms > alive_ms
                    && (is_full || left.contains(&(side, row.bucket, row.row)));
                stayed += u64::from(stays);
                stays
            },
            &mut |sort, name| {
                let name = String::from_utf8_lossy(name);
                self.shared.findings.note(&json!({
                    "table": self.table.full_name(), "route": self.route.name, "what": sort.word(),
                    "key": (!name.is_empty()).then_some(name),
                }))
            },
        )?;
        self.tell(report, &pass, apart, first.saturating_sub(stayed))
    }

    /// Says what stayed different, and what of Redis cannot be read back.
    fn tell(
        &self,
        report: &mut TableReport,
        pass: &Pass,
        apart: Apart,
        settled: u64,
    ) -> Result<()> {
        let name = &self.route.name;
        if apart.missing_in_redis.rows > 0 || apart.different.rows > 0 {
            let what = format!("route {name}: {}", apart.text());
            report.problem(Verdict::Fail, what, self.hint_missing());
        } else if apart.missing_in_bigquery.rows > 0 {
            let what = format!("route {name}: {}", apart.text());
            report.problem(
                Verdict::Fail,
                what,
                format!("if bigquery lost them: rekindle restore bigquery --route {name} --fill; if they are stale, the application removes them"),
            );
        }
        if pass.found.rejects > 0 {
            let what = format!("{} rows of redis cannot be read back", pass.found.rejects);
            report.problem(
                Verdict::Fail,
                what,
                "mend the rows in redis, or the route; then: rekindle verify bigquery",
            );
        }
        for (key, reason) in &pass.found.reject_examples {
            self.shared.findings.note(&json!({
                "table": self.table.full_name(), "route": name, "what": "unreadable", "key": key,
                "problem": reason,
            }))?;
        }
        if let Some(rows) = &mut report.rows {
            rows.rejects = pass.found.rejects;
            let examples = pass.found.reject_examples.iter().take(EXAMPLES_MAX);
            rows.reject_examples =
                examples.map(|(key, reason)| format!("{key}: {reason}")).collect();
            rows.settled = settled;
            rows.rows = (!apart.is_empty()).then_some(apart);
        }
        Ok(())
    }

    /// Binds the route backwards and forwards; every reason against it at once.
    fn way(&self, counted: Option<&RowsReport>) -> std::result::Result<Way, Vec<String>> {
        let resource = self.table.source.as_ref().map(|source| &source.record.resource);
        let resource = resource.ok_or_else(|| vec!["the table is missing".to_owned()])?;
        let (schema, required) = table_schema(&self.table.full_name(), resource)?;
        let said = |errors: Vec<schemas::BindError>| {
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let columns = Columns::Only(schema.columns.iter().map(|c| c.name.clone()).collect());
        let reverse = ReverseRoute::bind_required(self.route, schema.clone(), &required);
        let reverse = Arc::new(reverse.map_err(said)?);
        let rows = counted.map_or(0, |rows| rows.rows_in_bigquery.max(rows.rows_in_redis));
        let share = match self.shared.tier {
            // Entries of a stream have no key that a sample could be taken by on both sides.
            Tier::Sample(wanted) if self.table.held != Held::Streams => {
                Share::about(u64::from(wanted), rows, self.shared.seed)
            }
            _ => Share::ALL,
        };
        let look = if self.route.layout == Layout::Stream {
            marks::by_column(self.route.backup.row_key.clone())
        } else {
            let bound = BoundRoute::bind(self.route, schema).map_err(said)?;
            marks::by_template(Arc::new(bound), share)
        };
        Ok(Way { reverse, columns, look, share })
    }

    /// Reads both sides once: Redis first, so that what BigQuery had before is expected there.
    async fn pass(&self, way: &Way, at_us: i64, estimate: u64) -> Result<(Spread, Pass)> {
        let shared = self.shared;
        let read = || async {
            let mut spread = Spread::new(shared.scratch.path(), "rows", estimate)?;
            let path = shared.scratch.path().join("rows.keys");
            let search = Search {
                rows: &self.rows,
                held: self.table.held,
                template: &self.route.key,
                retry_for: shared.retry_for,
                cancel: &shared.cancel,
            };
            let looked = search.collect(&path).await?;
            let cuts = spool::cut(&path, &looked.facts)?;
            let found = pages::read(self, way, &path, cuts, &mut spread).await?;
            let read_ms = now_ms();
            let reading = self.reading(at_us);
            let mut of_bigquery = |rows: Vec<Marked>| spread.push(Side::BigQuery, &rows);
            read::rows(shared, &reading, &way.columns, &way.look, &mut of_bigquery).await?;
            Ok((spread, Pass { found, read_ms }))
        };
        shared.patiently(read).await
    }

    /// All rows as of a time.
    fn reading(&self, at_us: i64) -> Reading {
        // A table may ask for a condition on its partition column.
        let source = self.table.source.as_ref();
        let filter = source.and_then(|source| every_row(&source.partitioning));
        Reading {
            dataset: self.table.dataset.clone(),
            table: self.table.name.clone(),
            filter,
            snapshot_us: at_us,
            streams: STREAMS,
        }
    }
}
