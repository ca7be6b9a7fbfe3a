//! `rekindle verify bigquery`: the tables of BigQuery beside their duplicate in Redis, both ways.
//!
//! Invariant: it only reads, unless a repair was asked for; a repair is a backup that knows what is damaged, so it
//! changes the duplicate alone, publishes what it has read back, and never lets a source that lost rows overwrite a
//! copy.

mod apart;
mod compare;
mod findings;
mod look;
mod marks;
mod progress;
mod read;
mod repair;
mod report;
mod rows;
mod shape;
mod table;
mod unit;

use super::redis::Repair;
use super::{Ended, Options, Tier, Told, Verdict};
use crate::backup::rows::is_row_route;
use crate::backup::source::now_us;
use crate::cpu::CpuPool;
use crate::lane::now_ms;
use crate::progress::{Counters, Phase};
use crate::rebuild::{Watcher, patiently};
use crate::summarize::{peak_rss_bytes, rfc3339};
use crate::wiring::{self, CONNECT_TIMEOUT};
use findings::{Findings, Scratch};
use progress::Progress;
use report::{Report, TableReport};
use schemas::{Plan, Route};
use stages::connect::bigquery::BigQuery;
use stages::connect::redis::Endpoint;
use stages::extract::redis_values::RedisValues;
use stages::load::redis::duplicate::Duplicate;
use stages::{Error, Kind, Result};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Connections for SCAN.
const SCANS: usize = 1;

/// What only a verification of BigQuery knows.
#[derive(Debug, Clone)]
pub struct BigQueryOptions {
    /// What every verification knows.
    pub verify: Options,
    /// What is done about damage of the duplicate.
    pub repair: Repair,
}

/// What all lanes share.
struct Shared {
    bigquery: BigQuery,
    duplicate: Duplicate,
    values: RedisValues,
    cpu: CpuPool,
    /// The pinned time, microseconds since 1970.
    snapshot_us: i64,
    lanes: usize,
    tier: Tier,
    seed: u64,
    findings: Findings,
    scratch: Scratch,
    progress: Progress,
    /// Held while the rows of a table partition are compared one by one.
    one_at_a_time: tokio::sync::Mutex<()>,
    retry_for: Duration,
    cancel: CancellationToken,
}

impl Shared {
    /// Runs something until it works, fails for good, or a system stayed away too long.
    async fn patiently<T, F: Future<Output = Result<T>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        patiently(self.retry_for, &self.cancel, attempt).await
    }
}

/// Verifies BigQuery against its duplicate.
pub async fn verify_bigquery(
    plan: &Plan,
    options: BigQueryOptions,
    watcher: Arc<dyn Watcher>,
) -> Ended {
    let clock = Instant::now();
    let mut ended = Ended::default();
    match Box::pin(work(plan, &options, &watcher, clock, &mut ended.errors)).await {
        Ok(Some(report)) => match serde_json::to_value(&report) {
            Ok(json) => {
                ended.told = Some(Told { verdict: report.verdict, json, text: report.render() });
            }
            Err(error) => ended.errors.push(findings::unprintable(error)),
        },
        Ok(None) => {}
        Err(errors) => ended.errors.extend(errors),
    }
    watcher.end();
    ended
}

/// Looks, repairs where that was asked for, and looks again; `None` where a repair met errors instead.
async fn work(
    plan: &Plan,
    options: &BigQueryOptions,
    watcher: &Arc<dyn Watcher>,
    clock: Instant,
    errors: &mut Vec<Error>,
) -> std::result::Result<Option<Report>, Vec<Error>> {
    let routes = chosen(plan, &options.verify.routes)?;
    let shown = match options.repair {
        Repair::Yes => {
            Some(repair::Shown::read(&options.verify.state).map_err(|error| vec![error])?)
        }
        Repair::No | Repair::DryRun => None,
    };
    let mut report = look(plan, options, &routes, (clock, watcher), errors).await?;
    let found = repair::Shown::of(&report.tables);
    match (options.repair, shown) {
        (Repair::DryRun, _) => {
            found.write(&options.verify.state).map_err(|error| vec![error])?;
            report.repair = Some(repair::told(&report.tables, &found, true));
        }
        (Repair::Yes, Some(shown)) => {
            let wanted = found.shown_in(&shown);
            let told = repair::told(&report.tables, &wanted, false);
            if !wanted.is_empty() {
                errors.extend(repair::run(plan, options, &wanted, watcher).await);
                report = look(plan, options, &routes, (clock, watcher), errors).await?;
            }
            report.repair = Some(told);
        }
        _ => {}
    }
    Ok(Some(report))
}

/// Looks at every route once, under one pinned time.
async fn look(
    plan: &Plan,
    options: &BigQueryOptions,
    routes: &[Route],
    (clock, watcher): (Instant, &Arc<dyn Watcher>),
    errors: &mut Vec<Error>,
) -> std::result::Result<Report, Vec<Error>> {
    let names: Vec<String> = routes.iter().map(|route| route.name.clone()).collect();
    let rto = plan.bigquery_objective.rto.as_secs();
    let counters = Arc::new(Counters::new(&names, now_ms(), rto));
    watcher.begin(Arc::clone(&counters), None);
    let connected = connect(plan, &options.verify, counters).await;
    let (shared, warnings) = connected.map_err(|error| vec![error])?;
    let mut tables: Vec<TableReport> = Vec::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        shared.progress.turn_to(index);
        let work = async {
            if is_row_route(route) {
                rows::verify(&shared, plan, route).await
            } else {
                table::verify(&shared, route).await
            }
        };
        let done = tokio::select! {
            done = work => done,
            () = shared.cancel.cancelled() => {
                Err(Error::new(Kind::Cancelled, "the verification was asked to stop"))
            }
        };
        match done {
            Ok(table) => tables.push(table),
            Err(error) if error.kind() == Kind::Cancelled => {
                errors.push(error);
                break;
            }
            Err(error) => errors.push(error),
        }
        shared.progress.enter(Phase::Done);
    }
    shared.findings.finish().map_err(|error| vec![error])?;
    let unmet = routes.len() - tables.len();
    let verdicts = tables.iter().map(|table| table.verdict);
    let verdict = Verdict::of_all(verdicts.chain((unmet > 0).then_some(Verdict::Inconclusive)));
    Ok(Report {
        command: "verify bigquery",
        verdict,
        tier: shared.tier.word(),
        duplicate: shared.duplicate.address().to_owned(),
        as_of: rfc3339(shared.snapshot_us / 1_000),
        seconds: clock.elapsed().as_secs_f64(),
        peak_rss_bytes: peak_rss_bytes(),
        seed: shared.seed,
        tables,
        findings: shared.findings.path().display().to_string(),
        repair: None,
        warnings,
    })
}

async fn connect(
    plan: &Plan,
    options: &Options,
    counters: Arc<Counters>,
) -> Result<(Shared, Vec<String>)> {
    let (retry_for, cancel) = (options.retry_for, options.cancel.clone());
    let bigquery = patiently(retry_for, &cancel, || wiring::connect_backup_source(plan)).await?;
    let (duplicate, warnings) = wiring::make_duplicate(plan)?;
    patiently(retry_for, &cancel, || duplicate.state()).await?;
    let own = plan.duplicate.as_ref().map(|section| &section.url);
    let url = own.or(plan.redis.as_ref()).map_or("", |url| url.0.as_str());
    let values = RedisValues::new(&Endpoint::parse(url, CONNECT_TIMEOUT)?, SCANS)?;
    let snapshot_us = patiently(retry_for, &cancel, || now_us(&bigquery)).await?;
    let shared = Shared {
        bigquery,
        duplicate,
        values,
        cpu: CpuPool::new()?,
        snapshot_us,
        lanes: options.lanes,
        tier: options.tier,
        seed: options.seed,
        findings: Findings::create(&options.state)?,
        scratch: Scratch::create(&options.state)?,
        progress: Progress::new(counters),
        one_at_a_time: tokio::sync::Mutex::new(()),
        retry_for,
        cancel,
    };
    Ok((shared, warnings))
}

/// Returns the backup routes that were asked for.
fn chosen(plan: &Plan, names: &[String]) -> std::result::Result<Vec<Route>, Vec<Error>> {
    let refused = |message: String, hint: &str| Error::new(Kind::Config, message).with_hint(hint);
    let is_backup =
        |name: &String| plan.routes.iter().any(|route| route.name == *name && route.uses.backup);
    let unknown: Vec<Error> = names
        .iter()
        .filter(|name| !is_backup(name))
        .map(|name| {
            let message = format!("--route {name}: the plan has no backup route of this name");
            refused(message, "rekindle plan")
        })
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let is_wanted =
        |route: &&Route| route.uses.backup && (names.is_empty() || names.contains(&route.name));
    let routes: Vec<Route> = plan.routes.iter().filter(is_wanted).cloned().collect();
    if routes.is_empty() {
        let hint = "add a [[route]] with type = \"blocks\" and a \"bigquery:\" table";
        return Err(vec![refused("the plan has no backup route".to_owned(), hint)]);
    }
    Ok(routes)
}
