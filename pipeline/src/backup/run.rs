//! One backup from its set-up to its end.
//!
//! Invariant: nothing is written before every table was looked at, the server's eviction policy and memory were found
//! fit, and what an unfinished backup left behind was removed.

mod end;
mod left_behind;
mod setup;

use super::Options;
use super::copy::{Copied, TableCopy, Unit};
use super::publish::remove_generation;
use super::reseal;
use super::rows::{self, RowTable};
use super::table::Table;
use super::waits::Waits;
use crate::checkpoint::Counts;
use crate::cpu::CpuPool;
use crate::evidence::Recording;
use crate::journal::{CommitHandle, Delta, Journal, RunRecord};
use crate::lane::now_ms;
use crate::ledger::io_error;
use crate::outcome::from_journal;
use crate::progress::{Counters, Phase};
use crate::rebuild::{Watcher, patiently};
use crate::spool;
use crate::tuning::Limit;
use futures::stream::{self, StreamExt, TryStreamExt};
use schemas::plan::Origin;
use schemas::{Bounds, Partition, PartitionId, Plan, Position, Route};
use stages::connect::bigquery::BigQuery;
use stages::extract::redis_rows::RedisRows;
use stages::load::TargetState;
use stages::load::store::Store;
use stages::policy::Retry;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Table partitions whose generations are asked for at once.
const GENERATIONS_AT_ONCE: usize = 8;

/// A backup that is set up: connected, journaled, decided, claimed.
pub(super) struct Run {
    journal: Journal,
    record: RunRecord,
    /// The last backup before this one, whatever became of it.
    previous: Option<RunRecord>,
    bigquery: BigQuery,
    duplicate: Arc<dyn Store>,
    /// Who the duplicate's server was when it was claimed.
    claimed: TargetState,
    cpu: Arc<CpuPool>,
    commits: CommitHandle,
    counters: Arc<Counters>,
    tables: Vec<Table>,
    /// Tables of row routes; their counters come behind those of the others.
    row_tables: Vec<RowTable>,
    /// Where the rows of row routes are.
    of_rows: Option<RedisRows>,
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
    /// What each route waited for most, the share of that, and the seconds it took.
    busy: BTreeMap<String, (Limit, f64, f64)>,
    blocks: u64,
    is_cancelled: bool,
}

impl Run {
    /// Copies what is to be copied; everything found is in the findings.
    pub(super) async fn work(&mut self, options: &Options, watcher: &dyn Watcher) -> Findings {
        let mut findings = Findings::default();
        watcher.begin(Arc::clone(&self.counters), Some(self.commits.clone()));
        let _recording = Recording::begin(&options.state, &self.record.id, &self.counters);
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
        self.count_rows(options, watcher, &mut findings).await;
        findings
    }

    /// Takes the census of every row route and records it.
    async fn count_rows(
        &mut self,
        options: &Options,
        watcher: &dyn Watcher,
        findings: &mut Findings,
    ) {
        let mut tables = std::mem::take(&mut self.row_tables);
        for (place, table) in tables.iter_mut().enumerate() {
            if table.is_open && !findings.is_cancelled {
                self.counters.enter(self.tables.len() + place, Phase::Loading);
                match self.census(table, options).await {
                    Ok(()) => findings.complete.push(table.route.name.clone()),
                    Err(error) => {
                        findings.is_cancelled |= error.kind() == Kind::Cancelled;
                        findings.errors.push(error);
                    }
                }
                self.counters.enter(self.tables.len() + place, Phase::Done);
            }
            for error in std::mem::take(&mut table.findings) {
                watcher.say(&format!("{error}"));
                findings.errors.push(error);
            }
        }
        self.row_tables = tables;
    }

    async fn census(&self, table: &mut RowTable, options: &Options) -> Result<()> {
        let Some(of_rows) = &self.of_rows else {
            return Err(Error::new(Kind::Internal, "there is no server of rows"));
        };
        let folder = spool::folder(&options.state, &self.record.id);
        let census = tokio::select! {
            census = rows::take(
                table,
                of_rows,
                &self.bigquery,
                (self.snapshot_us, &folder),
                (options.retry_for, &options.cancel),
            ) => census?,
            () = options.cancel.cancelled() => {
                return Err(Error::new(Kind::Cancelled, "the backup was asked to stop"));
            }
        };
        let at = (self.record.id.as_str(), self.snapshot_us, now_ms() * 1_000);
        table.complete(&*self.duplicate, census, at).await?;
        self.meet(options).await?;
        std::fs::remove_dir_all(&folder).map_err(|error| io_error("remove", &folder, error))
    }

    async fn back_up(
        &self,
        index: usize,
        table: &mut Table,
        options: &Options,
        findings: &mut Findings,
    ) -> Result<()> {
        let started = Instant::now();
        self.counters.enter(index, Phase::Loading);
        table.remove_retired(&*self.duplicate).await?;
        let copy = self.table_copy(table).await?;
        let units = self.numbered(table).await?;
        self.add_partitions(&table.route.name, &units).await?;
        self.expect(index, &units);
        let lanes = options.lanes.min(units.len()) as u64;
        self.counters.lanes.store(lanes, std::sync::atomic::Ordering::Relaxed);
        let mut lanes = stream::iter(units)
            .map(|unit| self.lane(index, &copy, &table.route.name, unit, options))
            .buffer_unordered(options.lanes);
        let mut done = Vec::new();
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
                Some(Ok(copied)) => done.push(copied),
                Some(Err(error)) => failures.push(error),
            }
        }
        drop(lanes);
        let mut counts = Counts::default();
        for copied in &done {
            counts.rows += copied.digest.count;
            counts.bytes += copied.wire_bytes;
            counts.written += copied.digest.count;
            counts.digest += copied.digest;
            let newest = copied.manifest.newest();
            findings.blocks += newest.map_or(0, |version| version.blocks.len() as u64);
            table.take(copied);
        }
        findings.counts.insert(table.route.name.clone(), counts);
        let (limit, share) = copy.waits.bottleneck();
        let busy = (limit, share, started.elapsed().as_secs_f64());
        findings.busy.insert(table.route.name.clone(), busy);
        if failures.is_empty() {
            table.let_go(&copy).await?;
            if options.full {
                reseal::documents(&*self.duplicate, &table.keys, &table.standing).await?;
            }
            self.remove_attempts(table, options).await;
            self.meet(options).await?;
            table.complete(&copy, &self.record.id, now_ms() * 1_000).await?;
            self.meet(options).await?;
            findings.complete.push(table.route.name.clone());
            self.counters.enter(index, Phase::Done);
        }
        findings.is_cancelled |= failures.iter().any(|error| error.kind() == Kind::Cancelled);
        if failures.iter().any(|error| error.kind() == Kind::TargetChanged) {
            // Blocks that are not as they were written may be on another server: that is the cause, then.
            findings.errors.extend(self.meet(options).await.err());
        }
        findings.errors.extend(failures);
        Ok(())
    }

    /// What attempts left takes room and harms nothing, so the next start may remove it as well.
    async fn remove_attempts(&self, table: &Table, options: &Options) {
        let of = (self.record.id.as_str(), table.route.name.as_str());
        let remove =
            || left_behind::remove_attempts(&self.journal, &*self.duplicate, of, &table.keys);
        if let Err(error) = patiently(options.retry_for, &options.cancel, remove).await {
            tracing::warn!(%error, "what attempts that failed had written stays until the next backup");
        }
    }

    /// What is to be copied, each above every generation that is there already, whoever left it.
    async fn numbered(&self, table: &Table) -> Result<Vec<Unit>> {
        let mut units = table.units()?;
        // An archive is asked for each, and a bucket takes its time for an answer.
        let ids: Vec<String> = units.iter().map(|unit| unit.source.id.clone()).collect();
        let there: Vec<u64> = stream::iter(ids)
            .map(|id| async move { self.duplicate.highest_generation(&table.keys, &id).await })
            .buffered(GENERATIONS_AT_ONCE)
            .try_collect()
            .await?;
        for (unit, there) in units.iter_mut().zip(there) {
            unit.generation = unit.generation.max(there);
        }
        Ok(units)
    }

    /// Everything that was acknowledged has to be there still: asked before and after the record that says so.
    async fn meet(&self, options: &Options) -> Result<()> {
        let meet = || self.duplicate.meet(&self.record.id, &self.claimed);
        patiently(options.retry_for, &options.cancel, meet).await
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
            schema_hash: table.record(&*self.duplicate).await?,
            snapshot_us: self.snapshot_us,
            keep_versions: table.route.backup.keep_versions as usize,
            wire_bytes_per_block: TableCopy::wire_bytes_guess(),
            waits: Waits::default(),
            may_shrink: table.accept_loss,
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
        let mut retry = Retry::within(options.retry_for);
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
                remove_generation(&*copy.duplicate, &copy.keys, name, unit.generation).await;
            if let Err(error) = removed {
                tracing::debug!(%error, "the next start removes what this attempt left");
            }
            retry.wait_after(error).await?;
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
}

fn id_of(route: &str, table_partition: &str) -> PartitionId {
    PartitionId(format!("{route}/{table_partition}"))
}

/// `dataset.table` of a route.
pub(super) fn table_of(route: &Route) -> String {
    match &route.origin {
        Origin::Table { schema, table, .. } => format!("{schema}.{table}"),
        Origin::Query { .. } => String::new(),
    }
}
