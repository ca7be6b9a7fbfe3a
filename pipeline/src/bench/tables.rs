//! `rekindle bench bigquery`: parts of tables, backed up into a throwaway server and restored from it into tables made
//! for that.
//!
//! Invariant: tables of production are only read; what is restored goes into tables of the bench, which are gone after
//! every run, whatever became of it.

use super::quotas::Link;
use super::scratch::ScratchTables;
use super::sizes::{Size, sizes};
use super::tables_report::{Settings, TablesReport};
use super::{Bench, Benched, Found, Sample, unwatched};
use crate::backup::source::{self, SourceTable};
use crate::backup::{self, backup_bigquery};
use crate::lane::now_ms;
use crate::outcome::Exit;
use crate::place::Place;
use crate::rebuild::{Ended, patiently};
use crate::restore::{self, Scratch, restore_bigquery};
use crate::summary::RunEnd;
use crate::wiring;
use schemas::plan::{Layout, Origin, System};
use schemas::{Plan, Route};
use stages::connect::bigquery::BigQuery;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;

/// The system whose backup and restore are measured.
const SYSTEM: super::System = super::System::Bigquery;
/// What samples are called.
pub(super) const BACKUP: &str = "backup";
pub(crate) const RESTORE: &str = "restore";
/// How much larger than asked for the smallest part of a table may be.
const PART_TIMES_MAX: u64 = 2;

/// A table to be measured, as BigQuery tells of it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) route: String,
    pub(super) table: String,
    pub(super) location: Option<String>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) table_partitions: u64,
    pub(super) bytes_of_partition: u64,
    /// Whether each table partition is published by a job of its own.
    pub(super) is_by_arrival: bool,
    pub(super) sizes: Vec<Size>,
}

/// One part of one table.
struct Part<'a> {
    table: &'a Known,
    size: Size,
    lanes: usize,
    /// What is different from a recovery; empty for none.
    variant: String,
}

/// What was found before the first run.
struct Prepared {
    scratch: ScratchTables,
    tables: Vec<Known>,
    /// Product and version of the server that is written to.
    version: String,
    warnings: Vec<String>,
}

pub(super) async fn run(bench: &Bench<'_>) -> Benched {
    let started_ms = now_ms();
    let prepared = match Box::pin(prepare(bench)).await {
        Ok(prepared) => prepared,
        Err(errors) => return Benched::failed(errors),
    };
    let Prepared { scratch, tables, version, mut warnings } = prepared;
    let parts = parts(bench, &tables);
    let mut samples = Vec::new();
    let mut failure = None;
    for (number, part) in parts.iter().enumerate() {
        match Box::pin(measured(bench, &scratch, number, part)).await {
            Ok(made) => {
                let lines = made.iter().map(Sample::line).collect::<Vec<_>>().join("; ");
                (bench.tell)(&format!("{:>2} of {}: {lines}", number + 1, parts.len()));
                samples.extend(made);
            }
            Err(ended) => {
                failure = Some(ended);
                break;
            }
        }
    }
    if let Err(error) = scratch.end().await {
        let ended = failure.get_or_insert_with(|| Benched::failed(Vec::new()));
        ended.exits.push(Exit::of_kind(error.kind()));
        ended.errors.push(error);
    }
    if let Some(ended) = failure {
        return ended.after(started_ms, SYSTEM, samples, 2 * parts.len());
    }
    let rto = bench.options.deadline.unwrap_or(bench.plan.bigquery_objective.rto);
    warnings.sort_unstable();
    let settings = Settings {
        rto_seconds: rto.as_secs(),
        lanes: bench.options.lanes.start,
        target: version,
        link: Link::of_machine(),
    };
    let found = TablesReport::of(started_ms, &tables, samples, settings, warnings);
    let Some(report) = found else {
        let error = Error::new(Kind::Config, "no measured run carried any row")
            .with_hint("look whether the tables have rows: rekindle plan");
        return Benched::failed(vec![error]).after(started_ms, SYSTEM, Vec::new(), 2 * parts.len());
    };
    Benched::found(Found::BigQuery(Box::new(report)))
}

/// Looks at everything, and refuses what cannot be measured, before anything is made.
async fn prepare(bench: &Bench<'_>) -> std::result::Result<Prepared, Vec<Error>> {
    let one = |error: Error| vec![error];
    let (routes, mut warnings) = chosen(bench.plan, &bench.options.routes).map_err(one)?;
    let staging = bench.plan.bigquery.as_ref().and_then(|section| section.staging_dataset.as_ref());
    let staging = staging.ok_or_else(|| {
        let message =
            "the plan has no staging_dataset in [bigquery], where a bench makes its tables";
        one(Error::new(Kind::Config, message)
            .with_hint("add one in the location of the tables, then: rekindle bench bigquery"))
    })?;
    let version = version(bench).await.map_err(one)?;
    let (retry_for, cancel) = (bench.options.retry_for, &bench.options.cancel);
    let connect = || wiring::connect_backup_source(bench.plan);
    let bigquery = patiently(retry_for, cancel, connect).await.map_err(one)?;
    let (mut tables, mut errors) = (Vec::new(), Vec::new());
    for (route, dataset, table) in routes {
        let look = || source::inspect(&bigquery, dataset, table);
        let found = patiently(retry_for, cancel, look).await.map_err(one)?;
        match known(route, &format!("{dataset}.{table}"), found, &bench.asked.rows) {
            Ok(Some(known)) => tables.push(known),
            Ok(None) => {
                let name = &route.name;
                warnings
                    .push(format!("route {name}: its table has no rows, so it is not measured"));
            }
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if tables.is_empty() {
        let message = "the tables of these routes have no rows: there is nothing to measure";
        return Err(one(Error::new(Kind::Config, message).with_hint("rekindle plan")));
    }
    let scratch = begin(bench, &bigquery, staging).await.map_err(one)?;
    Ok(Prepared { scratch, tables, version, warnings })
}

async fn begin(bench: &Bench<'_>, bigquery: &BigQuery, staging: &str) -> Result<ScratchTables> {
    let options = bench.options;
    ScratchTables::begin(bigquery, staging, &options.state, options.retry_for).await
}

/// What the throwaway server is; it is not needed before the first run.
async fn version(bench: &Bench<'_>) -> Result<String> {
    let server = bench.server().await?;
    let (duplicate, _) = wiring::make_duplicate(&into(bench.plan, &server))?;
    let options = bench.options;
    let state = patiently(options.retry_for, &options.cancel, || duplicate.state()).await;
    server.end().await;
    Ok(state?.version)
}

/// The plan with its duplicate in a throwaway server.
fn into(plan: &Plan, server: &super::throwaway::Throwaway) -> Plan {
    Plan { redis: Some(server.url().clone()), duplicate: None, ..plan.clone() }
}

type Chosen<'a> = Vec<(&'a Route, &'a str, &'a str)>;

/// The routes of blocks that were asked for, each with dataset and table, and what is said of the others.
fn chosen<'a>(plan: &'a Plan, names: &[String]) -> Result<(Chosen<'a>, Vec<String>)> {
    let (mut routes, mut warnings) = (Vec::new(), Vec::new());
    for route in plan.routes.iter().filter(|route| route.uses.backup) {
        let name = &route.name;
        if !names.is_empty() && !names.contains(name) {
            continue;
        }
        match &route.origin {
            Origin::Table { system: System::BigQuery, schema, table }
                if route.layout == Layout::Blocks =>
            {
                routes.push((route, schema.as_str(), table.as_str()));
            }
            _ => warnings.push(format!(
                "route {name}: rows that an application keeps are not measured, only routes of type blocks"
            )),
        }
    }
    if routes.is_empty() {
        let message = "no backup route of type blocks was named: there is nothing to measure";
        let error = Error::new(Kind::Config, message).with_hint(
            "add a [[route]] with type = \"blocks\" and a \"bigquery:\" table, or name one with --route",
        );
        return Err(error);
    }
    Ok((routes, warnings))
}

/// What is known of a table; `None` where it has no rows. Refuses one that cannot be read in parts, or whose rows have readers
/// of their own.
fn known(
    route: &Route,
    table: &str,
    found: Option<SourceTable>,
    asked: &[u64],
) -> Result<Option<Known>> {
    let name = &route.name;
    let refuse = |what: String, hint: &str| Err(Error::new(Kind::Config, what).with_hint(hint));
    let Some(found) = found else {
        let message = format!("route {name}: bigquery has no table {table}");
        return refuse(message, "mend the plan, then: rekindle plan");
    };
    let policies = found.record.row_access_policies.as_ref().and_then(|list| list.as_array());
    if policies.is_some_and(|policies| !policies.is_empty()) {
        let message = format!(
            "route {name}: table {table} has row access policies, which a table of the bench would not have"
        );
        return refuse(message, "measure other routes: rekindle bench bigquery --route NAME");
    }
    let rows: u64 = found.partitions.iter().map(|partition| partition.rows).sum();
    if rows == 0 {
        return Ok(None);
    }
    let sizes = sizes(&[(name, Some(rows))], asked).map_err(|mut errors| errors.swap_remove(0))?;
    let smallest = sizes.first().map_or(rows, |size| part_rows(&found, *size));
    let most = asked.iter().copied().max().unwrap_or(rows);
    if smallest > most.saturating_mul(PART_TIMES_MAX) {
        let message = format!(
            "route {name}: table {table} cannot be read in a part of {most} rows: its smallest part has {smallest}"
        );
        let hint = format!("rekindle bench bigquery --rows {smallest}, or name other routes");
        return refuse(message, &hint);
    }
    Ok(Some(Known {
        route: name.clone(),
        table: table.to_owned(),
        location: found.record.location.clone(),
        rows,
        bytes: found.partitions.iter().map(|partition| partition.bytes).sum(),
        table_partitions: found.partitions.len() as u64,
        bytes_of_partition: found.partitions.iter().map(|found| found.bytes).max().unwrap_or(0),
        is_by_arrival: found.partitioning.is_by_ingestion(),
        sizes,
    }))
}

/// Rows of the part that a backup would take. A table without table partitions is read whole.
fn part_rows(found: &SourceTable, size: Size) -> u64 {
    let mut part = found.clone();
    if let Some(share) = size.share {
        part.thin(share);
    }
    part.partitions.iter().map(|partition| partition.rows).sum()
}

/// Sizes in turn, so that a machine that slows down meanwhile slows all of them; then lanes, at the largest size.
fn parts<'a>(bench: &Bench<'_>, tables: &'a [Known]) -> Vec<Part<'a>> {
    let lanes = bench.options.lanes.start;
    let mut parts = Vec::new();
    for _ in 0..bench.asked.repeats {
        for table in tables {
            let part = |size: &Size| Part { table, size: *size, lanes, variant: String::new() };
            parts.extend(table.sizes.iter().map(part));
        }
    }
    for lanes in bench.asked.lanes.iter().copied() {
        let largest = tables.iter().filter_map(|table| Some((table, *table.sizes.last()?)));
        let part = |(table, size)| Part { table, size, lanes, variant: format!(", {lanes} lanes") };
        parts.extend(largest.map(part));
    }
    parts
}

/// Backs a part up into a new server and restores it; nothing of it is left but the two samples.
async fn measured(
    bench: &Bench<'_>,
    scratch: &ScratchTables,
    number: usize,
    part: &Part<'_>,
) -> std::result::Result<[Sample; 2], Benched> {
    let failed = |error| Benched::failed(vec![error]);
    let server = bench.server().await.map_err(failed)?;
    let plan = into(bench.plan, &server);
    let made = Box::pin(both(bench, &plan, scratch.place(number), number, part)).await;
    server.end().await;
    let cleared = scratch.clear().await;
    let made = made?;
    cleared.map_err(failed)?;
    Ok(made)
}

async fn both(
    bench: &Bench<'_>,
    plan: &Plan,
    place: Scratch,
    number: usize,
    part: &Part<'_>,
) -> std::result::Result<[Sample; 2], Benched> {
    let options = bench.options;
    let routes = vec![part.table.route.clone()];
    let backup = backup::Options {
        state: bench.folder.join(format!("{number}-backup")),
        lanes: part.lanes,
        routes: routes.clone(),
        deadline: options.deadline,
        full: false,
        accept_loss: Vec::new(),
        retry_for: options.retry_for,
        fresh: false,
        take_over: None,
        damaged: BTreeMap::new(),
        to: Place::Redis,
        share: part.size.share,
        cancel: options.cancel.clone(),
    };
    let ended = Box::pin(backup_bigquery(plan, backup, unwatched())).await;
    let backup::Ended { summary, exits, errors } = ended;
    let Some(backed_up) = summary.filter(|of| of.run.status == RunEnd::Done && errors.is_empty())
    else {
        return Err(Benched { report: None, attempt: None, exits, errors });
    };
    let restore = restore::Options {
        state: bench.folder.join(format!("{number}-restore")),
        lanes: part.lanes,
        routes: routes.clone(),
        deadline: options.deadline,
        lost_at_ms: None,
        fresh: false,
        verify: true,
        retry_for: options.retry_for,
        asked: restore::Asked::default(),
        scratch: Some(place),
        cancel: options.cancel.clone(),
    };
    let ended = Box::pin(restore_bigquery(plan, restore, unwatched())).await;
    let Ended { summary, exits, errors } = ended;
    let Some(restored) = summary.filter(|of| of.status == RunEnd::Done && errors.is_empty()) else {
        return Err(Benched { report: None, attempt: None, exits, errors });
    };
    // Both carry the same rows, so both are measured by what these take in BigQuery.
    let bytes: u64 = backed_up.tables.iter().map(|table| table.source_bytes).sum();
    let kind = |of: &str| format!("{of}{}", part.variant);
    let sample = |of, summary| Sample::of_run(kind(of), &routes, part.lanes, summary);
    Ok([
        Sample { bytes, ..sample(BACKUP, &backed_up.run) },
        Sample { bytes, ..sample(RESTORE, &restored) },
    ])
}
