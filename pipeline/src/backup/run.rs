//! One backup from its set-up to its end.
//!
//! Invariant: nothing is written before every table was looked at, the server's eviction policy and memory were found
//! fit, and what an unfinished backup left behind was removed.

use super::copy::{Copied, TableCopy, Unit, remove_generation};
use super::report::{BackupSummary, TableSummary};
use super::table::{Common, Table};
use super::{COMMAND, Ended, Options, source};
use crate::checkpoint::{Counts, Status, commit_interval};
use crate::cpu::CpuPool;
use crate::journal::{
    CommitHandle, Committer, Delta, Journal, NewRun, RouteRecord, RunRecord, RunStatus,
};
use crate::lane::now_ms;
use crate::outcome::{Exit, from_journal};
use crate::progress::{Counters, Phase};
use crate::rebuild::{COMMIT_COST_GUESS, CRASH_EVERY, Watcher, patiently};
use crate::summarize::{peak_rss_bytes, rfc3339};
use crate::summary::{RouteSummary, RunEnd, Summary, Verified};
use crate::wiring;
use futures::stream::{self, StreamExt};
use schemas::manifest::{Keys, Manifest};
use schemas::{Bounds, Digest, Partition, PartitionId, Plan, Position, Route};
use stages::connect::bigquery::BigQuery;
use stages::load::Sentinel;
use stages::load::redis::duplicate::Duplicate;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Room that is left to the server for everything but the duplicate, as a share of its limit.
const HEADROOM: f64 = 0.05;
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A backup that is set up: connected, journaled, decided, claimed.
pub(super) struct Run {
    journal: Journal,
    record: RunRecord,
    /// The last backup before this one, whatever became of it.
    previous: Option<RunRecord>,
    bigquery: BigQuery,
    duplicate: Arc<Duplicate>,
    cpu: Arc<CpuPool>,
    commits: CommitHandle,
    counters: Arc<Counters>,
    tables: Vec<Table>,
    snapshot_us: i64,
    plan: Plan,
    warnings: Vec<String>,
}

/// Everything a backup found out on its way.
#[derive(Default)]
pub(super) struct Findings {
    errors: Vec<Error>,
    /// Names of routes whose backup is complete.
    complete: Vec<String>,
    counts: BTreeMap<String, Counts>,
    blocks: u64,
    is_cancelled: bool,
}

impl Run {
    pub(super) async fn new(
        plan: &Plan,
        options: &Options,
    ) -> std::result::Result<Self, Vec<Error>> {
        let one = |error: Error| vec![error];
        let routes = chosen(plan, options)?;
        let journal =
            Journal::open(&options.state).await.map_err(|error| one(from_journal(error)))?;
        let (retry_for, cancel) = (options.retry_for, &options.cancel);
        let bigquery = patiently(retry_for, cancel, || wiring::connect_bigquery(plan));
        let bigquery = bigquery.await.map_err(one)?;
        let (duplicate, mut warnings) = wiring::make_duplicate(plan).map_err(one)?;
        let duplicate = Arc::new(duplicate);
        let state = patiently(retry_for, cancel, || duplicate.state()).await.map_err(one)?;
        warnings.extend(fit(plan, &duplicate, &state).map_err(one)?);
        if let Some(run_id) = &options.take_over {
            duplicate.release(run_id).await.map_err(one)?;
        }
        let previous =
            journal.latest_run(COMMAND).await.map_err(|error| one(from_journal(error)))?;
        let record = open_run(&journal, plan, &routes).await.map_err(one)?;
        let note = format!("pid={}", std::process::id());
        if let Sentinel::Foreign(note) = duplicate.claim(&record.id, &note).await.map_err(one)? {
            return Err(one(foreign(duplicate.address(), &note)));
        }
        clean(&journal, &record, &duplicate, &routes).await.map_err(one)?;
        let (commits, _task) = Committer::start(
            journal.clone(),
            record.id.clone(),
            commit_interval(COMMIT_COST_GUESS, CRASH_EVERY),
            Arc::new(|_| Ok(())),
        );
        let names: Vec<String> = routes.iter().map(|route| route.name.clone()).collect();
        let rto = options.deadline.unwrap_or(plan.bigquery_objective.rto);
        let counters = Arc::new(Counters::new(&names, record.lost_at_ms, rto.as_secs()));
        let mut run = Self {
            snapshot_us: source::now_us(&bigquery).await.map_err(one)?,
            journal,
            record,
            previous,
            bigquery,
            duplicate,
            cpu: Arc::new(CpuPool::new().map_err(one)?),
            commits,
            counters,
            tables: Vec::new(),
            plan: plan.clone(),
            warnings,
        };
        let inspected = run.inspect(&routes, options).await;
        let fits = match inspected {
            Ok(()) => run.fits(state.used_bytes, state.limit_bytes).map_err(one),
            Err(errors) => Err(errors),
        };
        if let Err(errors) = fits {
            run.give_up().await;
            return Err(errors);
        }
        Ok(run)
    }

    /// Nothing was written: the server is free again, and the run can be taken up later.
    async fn give_up(&self) {
        let status = RunStatus::Failed;
        let noted = self.journal.set_run_status(&self.record.id, status, None, None).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "the journal could not be told");
        }
        if let Err(error) = self.duplicate.release(&self.record.id).await {
            tracing::warn!(%error, "the mark of this backup stays in redis");
        }
    }

    async fn inspect(
        &mut self,
        routes: &[Route],
        options: &Options,
    ) -> std::result::Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        for route in routes {
            let common = Common {
                bigquery: &self.bigquery,
                duplicate: &self.duplicate,
                snapshot_us: self.snapshot_us,
                full: options.full,
            };
            let known = self.known(&route.name).await.map_err(|error| vec![error])?;
            let known_is_empty = known.is_empty();
            let accept = options.accept_loss.contains(&table_of(route));
            match Table::inspect(&common, route, accept, known).await {
                Ok(mut table) => {
                    let was_complete =
                        self.previous.as_ref().is_some_and(|run| run.status == RunStatus::Done);
                    let is_recorded = table.standing.run.is_some() || !table.findings.is_empty();
                    if was_complete && !is_recorded && !known_is_empty {
                        let message = format!(
                            "the duplicate of {}: the record of the last complete backup is missing",
                            table.full_name()
                        );
                        let hint = "this backup writes a new one; see that nothing else removes these keys";
                        table.findings.push(Error::new(Kind::Difference, message).with_hint(hint));
                    }
                    self.tables.push(table);
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Table partitions of a route that the last backups had to do with.
    async fn known(&self, route: &str) -> Result<Vec<String>> {
        let mut runs = vec![self.record.id.clone()];
        runs.extend(self.previous.iter().map(|run| run.id.clone()));
        runs.dedup();
        let mut known = Vec::new();
        for run in runs {
            for records in [
                self.journal.partitions(&run).await.map_err(from_journal)?,
                self.journal.void_partitions_of(&run).await.map_err(from_journal)?,
            ] {
                let own = records.into_iter().filter(|record| record.partition.route == route);
                known.extend(own.filter_map(|record| match record.partition.bounds {
                    Bounds::TablePartition { table_partition, .. } => Some(table_partition),
                    _ => None,
                }));
            }
        }
        Ok(known)
    }

    /// The new generations come beside the old ones: both must have room.
    fn fits(&self, used_bytes: u64, limit_bytes: Option<u64>) -> Result<()> {
        let Some(limit) = limit_bytes else { return Ok(()) };
        let needed: u64 = self.tables.iter().map(Table::stored_estimate).sum();
        let room = limit as f64 * (1.0 - HEADROOM) - used_bytes as f64;
        if (needed as f64) <= room.max(0.0) || needed == 0 {
            return Ok(());
        }
        let message = format!(
            "redis at {} has {used_bytes} of {limit} bytes in use; the new copies beside the old ones need about {needed} more",
            self.duplicate.address()
        );
        Err(Error::new(Kind::Capacity, message).with_hint(
            "give the instance more memory (maxmemory) or lower keep_versions, then: rekindle backup bigquery",
        ))
    }

    /// Copies what is to be copied; everything found is in the findings.
    pub(super) async fn work(&mut self, options: &Options, watcher: &dyn Watcher) -> Findings {
        let mut findings = Findings::default();
        watcher.begin(Arc::clone(&self.counters), Some(self.commits.clone()));
        let mut tables = std::mem::take(&mut self.tables);
        for (index, table) in tables.iter_mut().enumerate() {
            for error in std::mem::take(&mut table.findings) {
                watcher.say(&format!("{error}"));
                findings.errors.push(error);
            }
            if table.is_open && !findings.is_cancelled {
                let worked = self.back_up(index, table, options, &mut findings).await;
                if let Err(error) = worked {
                    findings.is_cancelled |= error.kind() == Kind::Cancelled;
                    findings.errors.push(error);
                }
            }
        }
        self.tables = tables;
        findings
    }

    async fn back_up(
        &self,
        index: usize,
        table: &mut Table,
        options: &Options,
        findings: &mut Findings,
    ) -> Result<()> {
        self.counters.enter(index, Phase::Loading);
        table.remove_retired(&self.duplicate).await?;
        let copy = self.table_copy(table).await?;
        let units = table.units()?;
        self.add_partitions(&table.route.name, &units).await?;
        self.expect(index, &units);
        let mut lanes = stream::iter(units)
            .map(|unit| self.lane(index, &copy, &table.route.name, unit, options))
            .buffer_unordered(options.lanes);
        let mut copies = Vec::new();
        let mut failures = Vec::new();
        loop {
            let next = tokio::select! {
                next = lanes.next() => next,
                () = options.cancel.cancelled() => {
                    failures.push(Error::new(Kind::Cancelled, "the backup was asked to stop"));
                    break;
                }
            };
            match next {
                None => break,
                Some(Ok(copied)) => copies.push(copied),
                Some(Err(error)) => failures.push(error),
            }
        }
        drop(lanes);
        let mut counts = Counts::default();
        for copied in &copies {
            counts.rows += copied.digest.count;
            counts.bytes += copied.wire_bytes;
            counts.written += copied.digest.count;
            counts.digest += copied.digest;
            let newest = copied.manifest.newest();
            findings.blocks += newest.map_or(0, |version| version.blocks.len() as u64);
            table.take(copied);
        }
        findings.counts.insert(table.route.name.clone(), counts);
        if failures.is_empty() {
            table.let_go(&copy).await?;
            table.complete(&copy, &self.record.id, now_ms() * 1_000).await?;
            findings.complete.push(table.route.name.clone());
            self.counters.enter(index, Phase::Done);
        }
        findings.is_cancelled |= failures.iter().any(|error| error.kind() == Kind::Cancelled);
        findings.errors.extend(failures);
        Ok(())
    }

    async fn table_copy(&self, table: &Table) -> Result<TableCopy> {
        let source = table.source.as_ref().map(|source| &source.record);
        let before = table.standing.run.as_ref();
        Ok(TableCopy {
            bigquery: self.bigquery.clone(),
            duplicate: Arc::clone(&self.duplicate),
            cpu: Arc::clone(&self.cpu),
            keys: table.keys.clone(),
            dataset: table.dataset.clone(),
            table: table.name.clone(),
            table_id: source
                .map(|record| record.table_id.clone())
                .or_else(|| before.map(|run| run.table_id.clone()))
                .unwrap_or_default(),
            table_created_ms: source
                .map(|record| record.table_created_ms)
                .or_else(|| before.map(|run| run.table_created_ms))
                .unwrap_or_default(),
            schema_hash: table.record(&self.duplicate).await?,
            snapshot_us: self.snapshot_us,
            keep_versions: table.route.backup.keep_versions as usize,
            wire_bytes_per_block: TableCopy::wire_bytes_guess(),
        })
    }

    async fn add_partitions(&self, route: &str, units: &[Unit]) -> Result<()> {
        let partitions: Vec<Partition> = units
            .iter()
            .map(|unit| Partition {
                id: id_of(route, &unit.source.id),
                route: route.to_owned(),
                bounds: Bounds::TablePartition {
                    table_partition: unit.source.id.clone(),
                    generation_base: unit.generation,
                },
                rows_estimate: unit.source.rows,
                bytes_estimate: unit.source.bytes,
                newest_us: None,
            })
            .collect();
        self.journal.add_partitions(&self.record.id, &partitions, 0).await.map_err(from_journal)
    }

    fn expect(&self, index: usize, units: &[Unit]) {
        use std::sync::atomic::Ordering::Relaxed;
        let counters = &self.counters.routes[index];
        counters.rows_estimate.store(units.iter().map(|unit| unit.source.rows).sum(), Relaxed);
        counters.partitions.store(units.len() as u64, Relaxed);
    }

    /// Carries one table partition, again where that may help.
    async fn lane(
        &self,
        index: usize,
        copy: &TableCopy,
        route: &str,
        unit: Unit,
        options: &Options,
    ) -> Result<Copied> {
        let started = Instant::now();
        let id = id_of(route, &unit.source.id);
        loop {
            let begun = self.journal.begin(&self.record.id, &id, None).await;
            let begun = begun.map_err(from_journal)?;
            let unit = Unit { generation: unit.generation + begun.epoch, ..unit.clone() };
            let progress = |rows: u64, bytes: u64| {
                self.counters.add(index, &Counts { rows, bytes, ..Counts::default() });
            };
            let error = match copy.copy(&unit, progress).await {
                Ok(copied) => {
                    self.commit(&id, begun.epoch, begun.position, &copied, started).await?;
                    self.counters.partition_done(index, now_ms());
                    return Ok(copied);
                }
                Err(error) => error,
            };
            self.commits.fail(&id, begun.epoch, &error.to_string()).await.map_err(from_journal)?;
            let name = &unit.source.id;
            let removed =
                remove_generation(&copy.duplicate, &copy.keys, name, unit.generation).await;
            if let Err(error) = removed {
                tracing::debug!(%error, "the next start removes what this attempt left");
            }
            if !error.kind().is_transient() || started.elapsed() >= options.retry_for {
                return Err(error);
            }
            tracing::warn!(%error, table_partition = %unit.source.id, "trying again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn commit(
        &self,
        id: &PartitionId,
        epoch: u64,
        from: Position,
        copied: &Copied,
        started: Instant,
    ) -> Result<()> {
        let counts = Counts {
            rows: copied.digest.count,
            bytes: copied.wire_bytes,
            written: copied.digest.count,
            digest: copied.digest,
            ..Counts::default()
        };
        let delta = Delta {
            partition: id.clone(),
            epoch,
            from,
            to: Position::Unordered,
            counts,
            ledger_bytes: 0,
        };
        self.commits.commit(delta).await.map_err(from_journal)?;
        let busy_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.commits.finish(id, epoch, busy_ms).await.map_err(from_journal)
    }

    /// Ends the run in journal and target, and makes the summary.
    pub(super) async fn end(
        self,
        mut findings: Findings,
        options: &Options,
        clock: Instant,
    ) -> Ended {
        if let Err(error) = self.commits.flush().await {
            findings.errors.push(from_journal(error));
        }
        if let Err(error) = self.duplicate.release(&self.record.id).await {
            findings.errors.push(error);
        }
        let mut exits: Vec<Exit> =
            findings.errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
        if options.cancel.is_cancelled() {
            exits.push(Exit::Interrupted);
        }
        let is_complete = findings.complete.len() == self.tables.len();
        let status = match (is_complete, exits.is_empty()) {
            (true, true) => RunEnd::Done,
            _ if exits.contains(&Exit::Interrupted) => RunEnd::Interrupted,
            _ => RunEnd::Failed,
        };
        let summary = self.summary(&findings, options, status, clock);
        if status == RunEnd::Done
            && !(summary.run.within_rto && summary.run.within_rpo != Some(false))
        {
            exits.push(Exit::Objective);
        }
        let text = serde_json::to_string(&summary).unwrap_or_default();
        // A held table partition does not make a run unfinished: another start would find the same.
        let stored = match status {
            RunEnd::Interrupted => RunStatus::Interrupted,
            _ if is_complete => RunStatus::Done,
            _ => RunStatus::Failed,
        };
        let ended = Some(now_ms());
        let noted = self.journal.set_run_status(&self.record.id, stored, ended, Some(&text)).await;
        if let Err(error) = noted {
            let error = from_journal(error);
            exits.push(Exit::of_kind(error.kind()));
            findings.errors.push(error);
        }
        Ended { summary: Some(summary), exits, errors: findings.errors }
    }

    fn summary(
        &self,
        findings: &Findings,
        options: &Options,
        status: RunEnd,
        clock: Instant,
    ) -> BackupSummary {
        let ended_ms = now_ms();
        let seconds = clock.elapsed().as_secs_f64();
        let since_start = (ended_ms - self.record.started_ms).max(0) as f64 / 1000.0;
        let rto = options.deadline.unwrap_or(self.plan.bigquery_objective.rto);
        let total = findings
            .counts
            .values()
            .fold(Counts::default(), |sum, counts| sum.checked_add(*counts).unwrap_or(sum));
        let runs = self.tables.iter().map(|table| table.standing.run.as_ref());
        let as_of_us: Option<i64> =
            runs.map(|run| run.map(schemas::manifest::Run::data_as_of_us)).min().flatten();
        let age = as_of_us.map(|us| (ended_ms as f64 - us as f64 / 1000.0).max(0.0) / 1000.0);
        let rpo = self.plan.bigquery_objective.rpo.as_secs_f64();
        let run = Summary {
            command: COMMAND.to_owned(),
            run_id: self.record.id.clone(),
            status,
            lost_at: rfc3339(self.record.started_ms),
            clock_from: "start".to_owned(),
            started_at: rfc3339(self.record.started_ms),
            ended_at: rfc3339(ended_ms),
            seconds,
            seconds_since_loss: since_start,
            rto_seconds: rto.as_secs(),
            within_rto: since_start <= rto.as_secs_f64(),
            data_as_of: as_of_us.map(|us| rfc3339(us / 1_000)),
            rpo_seconds: age,
            within_rpo: age.map(|age| age <= rpo),
            rows: total.rows,
            bytes: total.bytes,
            written: total.written,
            kept: 0,
            expired: 0,
            rejects: 0,
            dropped_keys: 0,
            rows_per_second: if seconds > 0.0 { total.rows as f64 / seconds } else { 0.0 },
            peak_rss_bytes: peak_rss_bytes(),
            resumed: self.record.attempts.saturating_sub(1),
            verified: Verified {
                tier: "full".to_owned(),
                keys_counted: findings.blocks,
                keys_compared: findings.blocks,
                differences: 0,
                detects: "every new block was read back before it was published".to_owned(),
            },
            priorities: Vec::new(),
            routes: self
                .tables
                .iter()
                .map(|table| route_summary(table, findings, seconds))
                .collect(),
            way: None,
            warnings: self.warnings.clone(),
        };
        let is_complete = |table: &Table| findings.complete.contains(&table.route.name);
        let tables = self.tables.iter().map(|table| TableSummary::of(table, is_complete(table)));
        BackupSummary {
            run,
            duplicate: self.duplicate.address().to_owned(),
            tables: tables.collect(),
        }
    }
}

fn route_summary(table: &Table, findings: &Findings, seconds: f64) -> RouteSummary {
    let counts = findings.counts.get(&table.route.name).copied().unwrap_or_default();
    let newest = table.standing.manifests.values().filter_map(Manifest::newest);
    let digests: Option<Vec<Digest>> = newest.map(schemas::manifest::Version::digest).collect();
    let digest = digests.map(|all| {
        all.into_iter().fold(Digest::default(), |mut sum, digest| {
            sum += digest;
            sum
        })
    });
    RouteSummary {
        name: table.route.name.clone(),
        rows: counts.rows,
        bytes: counts.bytes,
        partitions: table.fates.len() as u64,
        written: counts.written,
        kept: 0,
        expired: 0,
        rejects: 0,
        dropped_keys: 0,
        seconds,
        bottleneck: "source".to_owned(),
        digest: digest.map(|digest| digest.hex()),
    }
}

fn id_of(route: &str, table_partition: &str) -> PartitionId {
    PartitionId(format!("{route}/{table_partition}"))
}

pub(super) fn table_of(route: &Route) -> String {
    match &route.origin {
        schemas::plan::Origin::Table { schema, table, .. } => format!("{schema}.{table}"),
        schemas::plan::Origin::Query { .. } => String::new(),
    }
}

/// Returns the backup routes that were asked for; a table whose loss is accepted must be one of theirs.
fn chosen(plan: &Plan, options: &Options) -> std::result::Result<Vec<Route>, Vec<Error>> {
    let mut routes = crate::rebuild::selected_routes(plan, &options.routes)?;
    routes.retain(|route| route.uses.backup);
    let usage =
        |message: String, hint: &str| vec![Error::new(Kind::Config, message).with_hint(hint)];
    if routes.is_empty() {
        let hint = "add a [[route]] with type = \"blocks\" and a \"bigquery:\" table";
        return Err(usage("the plan has no backup route".to_owned(), hint));
    }
    for accepted in &options.accept_loss {
        if routes.iter().all(|route| table_of(route) != *accepted) {
            let message = format!("--accept-loss {accepted}: no backup route has this table");
            return Err(usage(message, "name it as dataset.table"));
        }
    }
    Ok(routes)
}

/// Refuses a server that could drop the duplicate; returns what a person should know of one that is taken all the same.
fn fit(
    plan: &Plan,
    duplicate: &Duplicate,
    state: &stages::load::TargetState,
) -> Result<Option<String>> {
    let address = duplicate.address();
    if let Some(refusal) = &state.refusal {
        let message = format!("redis at {address} cannot be used: {refusal}");
        return Err(Error::new(Kind::Config, message).with_hint("rekindle check"));
    }
    // The policies for volatile keys never touch a duplicate: its keys do not expire.
    if !state.eviction.starts_with("allkeys") {
        return Ok(None);
    }
    let problem =
        format!("redis at {address} may evict the duplicate (maxmemory-policy {})", state.eviction);
    if plan.duplicate.as_ref().is_some_and(|section| section.allow_eviction) {
        return Ok(Some(problem));
    }
    Err(Error::new(Kind::Capacity, problem).with_hint(
        "set maxmemory-policy noeviction, name another instance in [redis.duplicate], or say allow_eviction = true there",
    ))
}

fn foreign(address: &str, note: &str) -> Error {
    let run = note.split_whitespace().next().unwrap_or("unknown");
    let message = format!("redis at {address} is being written by another backup: {note}");
    Error::new(Kind::Fenced, message).with_hint(format!(
        "wait for it, resume it from its own --state, or if it is dead: rekindle backup bigquery --take-over {run}"
    ))
}

/// Takes up the unfinished backup of the same routes, or begins a new one.
async fn open_run(journal: &Journal, plan: &Plan, routes: &[Route]) -> Result<RunRecord> {
    if let Some(mut run) = journal.unfinished_run(COMMAND).await.map_err(from_journal)? {
        let records = journal.routes(&run.id).await.map_err(from_journal)?;
        let is_same = |route: &Route| records.iter().any(|record| record.name == route.name);
        if routes.iter().all(is_same) {
            journal.note_attempt(&run.id).await.map_err(from_journal)?;
            run.attempts += 1;
            let status = RunStatus::Running;
            journal.set_run_status(&run.id, status, None, None).await.map_err(from_journal)?;
            return Ok(run);
        }
    }
    let started_ms = now_ms();
    let run = NewRun {
        command: COMMAND.to_owned(),
        plan_fingerprint: plan.fingerprint(),
        binary_version: env!("CARGO_PKG_VERSION").to_owned(),
        lost_at_ms: started_ms,
        lost_at_given: false,
        started_ms,
        target_was_empty: false,
    };
    let run = journal.create_run(run).await.map_err(from_journal)?;
    let records: Vec<RouteRecord> = routes
        .iter()
        .map(|route| RouteRecord {
            run_id: run.id.clone(),
            name: route.name.clone(),
            definition: route.definition(),
            schema_lines: Vec::new(),
            relations: "null".to_owned(),
            reconcile: false,
            caught_up: None,
            dropped_keys: 0,
            completed_ms: None,
        })
        .collect();
    journal.put_routes(&records).await.map_err(from_journal)?;
    Ok(run)
}

/// Removes the blocks of generations that were begun and never published, then lets the run be cut anew.
async fn clean(
    journal: &Journal,
    run: &RunRecord,
    duplicate: &Duplicate,
    routes: &[Route],
) -> Result<()> {
    let records = journal.partitions(&run.id).await.map_err(from_journal)?;
    for record in records.iter().filter(|record| record.status != Status::Done && record.epoch > 0)
    {
        let Bounds::TablePartition { table_partition, generation_base } = &record.partition.bounds
        else {
            continue;
        };
        let Some(route) = routes.iter().find(|route| route.name == record.partition.route) else {
            continue;
        };
        let keys = Keys::new(route.key.text());
        let text = duplicate.get(&keys.manifest(table_partition)).await?;
        let manifest = text.as_deref().and_then(|text| Manifest::parse(text, table_partition).ok());
        let is_published = |generation: u64| {
            let mut versions = manifest.iter().flat_map(|manifest| &manifest.versions);
            versions.any(|version| version.generation == generation)
        };
        for generation in (1..=record.epoch).map(|epoch| generation_base + epoch) {
            if is_published(generation) {
                continue;
            }
            let removed = remove_generation(duplicate, &keys, table_partition, generation).await?;
            if removed > 0 {
                tracing::info!(removed, generation, %table_partition, "removed what an unfinished backup left");
            }
        }
    }
    for route in routes {
        journal.void_partitions(&run.id, &route.name).await.map_err(from_journal)?;
    }
    Ok(())
}
