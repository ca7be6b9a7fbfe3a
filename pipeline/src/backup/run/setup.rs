//! Sets a backup up: what is asked for, whether the servers are fit, and what an unfinished backup left behind.
//!
//! Invariant: the first block is written only after every control here was passed.

use super::super::archived;
use super::super::rows::{self, RowTable};
use super::super::table::{Common, Table};
use super::super::{Options, source};
use super::{Run, left_behind, table_of};
use crate::checkpoint::commit_interval;
use crate::cpu::CpuPool;
use crate::journal::{CommitHandle, Committer, Journal, RunRecord, RunStatus};
use crate::outcome::from_journal;
use crate::progress::Counters;
use crate::rebuild::{COMMIT_COST_GUESS, CRASH_EVERY, patiently};
use crate::wiring;
use schemas::{Bounds, Plan, Route};
use stages::failpoint::{Point, pass};
use stages::load::Sentinel;
use stages::load::store::Store;
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// Room that is left to the server for everything but the duplicate, as a share of its limit.
const HEADROOM: f64 = 0.05;

impl Run {
    /// Connects, journals, claims, cleans up, looks at every table and decides.
    pub(in crate::backup) async fn new(
        plan: &Plan,
        options: &Options,
    ) -> std::result::Result<Self, Vec<Error>> {
        let one = |error: Error| vec![error];
        let routes = chosen(plan, options)?;
        let journal =
            Journal::open(&options.state).await.map_err(|error| one(from_journal(error)))?;
        let (retry_for, cancel) = (options.retry_for, &options.cancel);
        let bigquery = patiently(retry_for, cancel, || wiring::connect_backup_source(plan));
        let bigquery = bigquery.await.map_err(one)?;
        let (duplicate, mut warnings) = wiring::make_store(plan, options.to).map_err(one)?;
        warnings.extend(archived::left_out(plan, options.to, &options.routes));
        let state = patiently(retry_for, cancel, || duplicate.state()).await.map_err(one)?;
        warnings.extend(fit(plan, &*duplicate, &state).map_err(one)?);
        let of_rows = routes.iter().any(rows::is_row_route);
        let of_rows = of_rows.then(|| rows::row_server(plan)).transpose().map_err(one)?;
        if let Some(server) = &of_rows {
            let found = patiently(retry_for, cancel, || server.state()).await.map_err(one)?;
            warnings.extend(rows::fit(plan, server.address(), &found, &routes).map_err(one)?);
        }
        if let Some(run_id) = &options.take_over {
            duplicate.release(run_id).await.map_err(one)?;
        }
        let previous = journal.latest_run(options.to.backup_command()).await;
        let previous = previous.map_err(|error| one(from_journal(error)))?;
        let opening = left_behind::open_run(&journal, plan, &routes, &*duplicate, options);
        let record = opening.await.map_err(one)?;
        let note = format!("pid={}", std::process::id());
        if let Sentinel::Foreign(note) = duplicate.claim(&record.id, &note).await.map_err(one)? {
            return Err(one(foreign(&duplicate.place(), &note)));
        }
        pass(Point::TargetClaimed);
        let claimed = duplicate.state().await.map_err(one)?;
        let cleaning = left_behind::clean(&journal, plan, &*duplicate, options);
        warnings.extend(cleaning.await.map_err(one)?);
        let before = previous.as_ref().filter(|before| before.id != record.id);
        let cleaning = left_behind::clean_completed(&journal, plan, &*duplicate, before);
        cleaning.await.map_err(one)?;
        for route in &routes {
            let voided = journal.void_partitions(&record.id, &route.name).await;
            voided.map_err(|error| one(from_journal(error)))?;
        }
        let names: Vec<String> = routes.iter().map(|route| route.name.clone()).collect();
        let rto = options.deadline.unwrap_or(plan.bigquery_objective.rto);
        let mut run = Self {
            snapshot_us: source::now_us(&bigquery).await.map_err(one)?,
            commits: commits(&journal, &record),
            counters: Arc::new(Counters::new(&names, record.lost_at_ms, rto.as_secs())),
            cpu: Arc::new(CpuPool::on_every_core().map_err(one)?),
            journal,
            record,
            previous,
            bigquery,
            duplicate,
            claimed,
            tables: Vec::new(),
            row_tables: Vec::new(),
            of_rows,
            plan: plan.clone(),
            warnings,
        };
        let inspected = run.inspect(&routes, options).await;
        let fits =
            inspected.and_then(|()| run.fits(state.used_bytes, state.limit_bytes).map_err(one));
        match fits {
            Ok(()) => Ok(run),
            Err(errors) => {
                run.give_up().await;
                Err(errors)
            }
        }
    }

    /// Nothing was written: the server is free again, and the run can be taken up later.
    async fn give_up(&self) {
        let status = RunStatus::Failed;
        let noted = self.journal.set_run_status(&self.record.id, status, None, None).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "the journal could not be told");
        }
        if let Err(error) = self.duplicate.release(&self.record.id).await {
            tracing::warn!(%error, "the mark of this backup stays");
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
                duplicate: &*self.duplicate,
                snapshot_us: self.snapshot_us,
                full: options.full,
                share: options.share,
            };
            let known = self.known(&route.name).await.map_err(|error| vec![error])?;
            let accept = options.accept_loss.contains(&table_of(route));
            if rows::is_row_route(route) {
                match self.inspect_rows(route, accept).await {
                    Ok(table) => self.row_tables.push(table),
                    Err(error) => errors.push(error),
                }
                continue;
            }
            let damaged = options.damaged.get(&route.name).cloned().unwrap_or_default();
            match Table::inspect(&common, route, accept, known, &damaged).await {
                Ok(mut table) => {
                    let told = archived::check_key(&*self.duplicate, &table, options).await;
                    match told {
                        Ok(told) => self.warnings.extend(told),
                        Err(error) => errors.push(error),
                    }
                    let is_recorded = table.standing.run.is_some() || !table.findings.is_empty();
                    if !is_recorded && self.was_complete(&route.name).await.map_err(|e| vec![e])? {
                        table.findings.push(record_is_missing(&table.full_name()));
                    }
                    self.tables.push(table);
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    async fn inspect_rows(&self, route: &Route, accept_loss: bool) -> Result<RowTable> {
        let mut table =
            RowTable::inspect(&self.bigquery, &*self.duplicate, route, accept_loss).await?;
        let is_recorded = table.run.is_some() || !table.findings.is_empty();
        if !is_recorded && self.was_complete(&route.name).await? {
            table.findings.push(record_is_missing(&table.full_name()));
        }
        for drift in table.drift.iter().filter(|_| table.is_open) {
            tracing::warn!("{drift}");
        }
        Ok(table)
    }

    /// Whether the backup before this one completed a route, so that there must be a record of it.
    async fn was_complete(&self, route: &str) -> Result<bool> {
        let Some(previous) = self.previous.as_ref().filter(|run| run.status == RunStatus::Done)
        else {
            return Ok(false);
        };
        let routes = self.journal.routes(&previous.id).await.map_err(from_journal)?;
        Ok(routes.iter().any(|record| record.name == route))
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
            "{} has {used_bytes} of {limit} bytes in use; the new copies beside the old ones need about {needed} more",
            self.duplicate.place()
        );
        Err(Error::new(Kind::Capacity, message).with_hint(
            "give the instance more memory (maxmemory) or lower keep_versions, then: rekindle backup bigquery",
        ))
    }
}

fn record_is_missing(table: &str) -> Error {
    let message =
        format!("the duplicate of {table}: the record of the last complete backup is missing");
    Error::new(Kind::Difference, message)
        .with_hint("this backup writes a new one; see that nothing else removes these keys")
}

fn commits(journal: &Journal, record: &RunRecord) -> CommitHandle {
    let interval = commit_interval(COMMIT_COST_GUESS, CRASH_EVERY);
    Committer::start(journal.clone(), record.id.clone(), interval, Arc::new(|_| Ok(()))).0
}

/// Returns the backup routes that were asked for; a table whose loss is accepted must be one of theirs.
fn chosen(plan: &Plan, options: &Options) -> std::result::Result<Vec<Route>, Vec<Error>> {
    let usage =
        |message: String, hint: &str| vec![Error::new(Kind::Config, message).with_hint(hint)];
    for name in &options.routes {
        archived::refuse_rows(plan, options.to, name).map_err(|error| vec![error])?;
        let is_backup = |route: &Route| route.name == *name && route.uses.backup;
        if !plan.routes.iter().any(is_backup) {
            let message = format!("--route {name}: the plan has no backup route of this name");
            return Err(usage(message, "rekindle plan"));
        }
    }
    let is_chosen = |route: &&Route| {
        archived::is_kept(route, options.to)
            && (options.routes.is_empty() || options.routes.contains(&route.name))
    };
    let mut routes: Vec<Route> = plan.routes.iter().filter(is_chosen).cloned().collect();
    // Counters are kept in this order, tables of blocks first.
    routes.sort_by_key(rows::is_row_route);
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
    duplicate: &dyn Store,
    state: &stages::load::TargetState,
) -> Result<Option<String>> {
    let place = duplicate.place();
    if let Some(refusal) = &state.refusal {
        let message = format!("{place} cannot be used: {refusal}");
        return Err(Error::new(Kind::Config, message).with_hint("rekindle check"));
    }
    // The policies for volatile keys never touch a duplicate: its keys do not expire.
    if !state.eviction.starts_with("allkeys") {
        return Ok(None);
    }
    let problem = format!("{place} may evict the duplicate (maxmemory-policy {})", state.eviction);
    if plan.duplicate.as_ref().is_some_and(|section| section.allow_eviction) {
        return Ok(Some(problem));
    }
    Err(Error::new(Kind::Capacity, problem).with_hint(
        "set maxmemory-policy noeviction, name another instance in [redis.duplicate], or say allow_eviction = true there",
    ))
}

fn foreign(place: &str, note: &str) -> Error {
    let run = note.split_whitespace().next().unwrap_or("unknown");
    let message = format!("{place} is being written by another backup: {note}");
    Error::new(Kind::Fenced, message).with_hint(format!(
        "wait for it, resume it from its own --state, or if it is dead: rekindle backup bigquery --take-over {run}"
    ))
}
