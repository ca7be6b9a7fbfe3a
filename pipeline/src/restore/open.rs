//! Opens a run and its tables: new ones are chosen, checked and announced, earlier ones are taken up again.
//!
//! Invariant: everything that can be refused is refused here, before a single row was written anywhere.

use super::choose::{Taken, Wanted, choose, held};
use super::duplicate::{Duplicate, damaged, named};
use super::rows::open_rows;
use super::run::definition;
use super::stage::TableStage;
use super::table::{Choice, Findings, Part, Table, Way, recorded_stagings};
use super::way::Shape;
use super::{COMMAND, Options, Shared, own_name, scan, target};
use crate::journal::{Journal, NewRoute, NewRun, RestoreRecord, RunRecord, RunStatus};
use crate::lane::now_ms;
use crate::ledger::io_error;
use crate::outcome::from_journal;
use crate::spool;
use schemas::manifest::{Manifest, Run, TableRecord};
use schemas::plan::Layout;
use schemas::{Plan, Route};
use serde_json::Value;
use stages::connect::bigquery::BigQuery;
use stages::transform::arrow_rows::CUT_VERSION;
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Finds the unfinished run or makes a new one. Returns it and whether it is resumed.
pub(super) async fn open_run(
    journal: &Journal,
    bigquery: &BigQuery,
    staging_dataset: &str,
    plan: &Plan,
    options: &Options,
    routes: &[Route],
) -> Result<(RunRecord, bool)> {
    let definitions: Vec<(String, String)> = routes
        .iter()
        .map(|route| (route.name.clone(), definition(route, &options.asked)))
        .collect();
    match journal.unfinished_run(COMMAND).await.map_err(from_journal)? {
        Some(run) if options.fresh => {
            for restore in journal.restores(&run.id).await.map_err(from_journal)? {
                for staging in recorded_stagings(&restore) {
                    bigquery.delete_table(staging_dataset, &staging).await?;
                }
            }
            forget_spools(options, &run.id)?;
            let status = RunStatus::Abandoned;
            let ended = Some(now_ms());
            journal.set_run_status(&run.id, status, ended, None).await.map_err(from_journal)?;
        }
        Some(mut run) => {
            let recorded = journal.routes(&run.id).await.map_err(from_journal)?;
            let is_same = recorded.len() == definitions.len()
                && definitions.iter().all(|(name, definition)| {
                    recorded.iter().any(|r| r.name == *name && r.definition == *definition)
                });
            if !is_same {
                let message =
                    format!("run {} is unfinished and was asked for something else", run.id);
                return Err(Error::new(Kind::Config, message).with_hint(
                    "use the same plan and flags to resume it, or give it up: rekindle restore bigquery --fresh",
                ));
            }
            journal.note_attempt(&run.id).await.map_err(from_journal)?;
            run.attempts += 1;
            return Ok((run, true));
        }
        None => {}
    }
    let started_ms = now_ms();
    let new = NewRun {
        command: COMMAND.to_owned(),
        plan_fingerprint: plan.fingerprint(),
        binary_version: env!("CARGO_PKG_VERSION").to_owned(),
        lost_at_ms: options.lost_at_ms.unwrap_or(started_ms),
        lost_at_given: options.lost_at_ms.is_some(),
        started_ms,
        target_was_empty: false,
    };
    let route = |(name, definition): (String, String)| NewRoute {
        name,
        definition,
        schema_lines: Vec::new(),
        shape: None,
        relations: String::new(),
    };
    let records = definitions.into_iter().map(route).collect();
    let run = journal.create_run(new, records).await.map_err(from_journal)?;
    Ok((run, false))
}

/// Removes what a run that is given up had spooled.
pub(super) fn forget_spools(options: &Options, run_id: &str) -> Result<()> {
    let folder = spool::folder(&options.state, run_id);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", &folder, error))
        }
        _ => Ok(()),
    }
}

/// Opens the table of a route: as the journal has it, or chosen now.
pub(super) async fn open_table(
    shared: &Arc<Shared>,
    plan: &Plan,
    options: &Options,
    route: &Route,
    index: usize,
) -> Result<Table> {
    if route.layout != Layout::Blocks {
        return open_rows(shared, plan, options, route, index).await;
    }
    let Some((dataset, table)) = &options.place_of(route) else {
        return Err(Error::new(Kind::Config, format!("route {} names no table", route.name)));
    };
    let duplicate = Duplicate::asked(plan, options, route)?;
    let restores = shared.journal.restores(&shared.run_id).await.map_err(from_journal)?;
    let known = restores.into_iter().find(|restore| restore.route == route.name);
    let recorded = own_name(route);
    let (run, manifests) = if options.asked.from_scan {
        scan::rebuild(&duplicate, &recorded).await?
    } else {
        read(shared, &duplicate).await?
    };
    let duplicate = &duplicate;
    let opening = Opening { shared, options, route, recorded, dataset, table, duplicate };
    let opened = match known {
        Some(record) => opening.take_up(record, &manifests).await?,
        None => opening.begin(&run, &manifests).await?,
    };
    let counters = &shared.counters.routes[index];
    counters.rows_estimate.store(opened.rows(), Ordering::Relaxed);
    counters.partitions.store(opened.choice.parts.len() as u64, Ordering::Relaxed);
    Ok(Table { index, ..opened })
}

/// Reads the record of the last backup and every manifest it names.
async fn read(shared: &Shared, duplicate: &Duplicate) -> Result<(Run, Vec<Manifest>)> {
    let run = shared.patiently(|| duplicate.run()).await?;
    let manifests = duplicate.manifests(&run).await?;
    Ok((run, manifests))
}

/// What opening a table needs.
pub(super) struct Opening<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) options: &'a Options,
    pub(super) route: &'a Route,
    /// `dataset.table` that the duplicate is of.
    pub(super) recorded: String,
    /// Where it is restored.
    pub(super) dataset: &'a str,
    pub(super) table: &'a str,
    pub(super) duplicate: &'a Duplicate,
}

/// The error of a record of ours that is no JSON any more.
pub(super) fn unreadable(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, "a restore in the journal cannot be read")
        .with_hint("start over: rekindle restore bigquery --fresh")
        .with_source(error)
}

impl Opening<'_> {
    /// `dataset.table`, for messages.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.dataset, self.table)
    }

    /// Takes up what an earlier attempt chose; its versions must still be there.
    async fn take_up(&self, record: RestoreRecord, manifests: &[Manifest]) -> Result<Table> {
        let choice: Choice = serde_json::from_str(&record.choice).map_err(unreadable)?;
        let findings: Findings = serde_json::from_str(&record.findings).map_err(unreadable)?;
        let mut taken = Vec::with_capacity(choice.parts.len());
        let mut gone = Vec::new();
        for part in &choice.parts {
            let manifest = manifests.iter().find(|m| m.table_partition == part.table_partition);
            let version = manifest
                .and_then(|m| m.versions.iter().find(|v| v.generation == part.generation))
                .filter(|version| version.digest == part.digest && version.rows == part.rows);
            match version {
                Some(version) => taken.push(Taken {
                    table_partition: part.table_partition.clone(),
                    version: version.clone(),
                }),
                None => gone.push(part.table_partition.clone()),
            }
        }
        if !gone.is_empty() && record.stage < TableStage::Loaded {
            let message = format!(
                "a backup has replaced what this run was restoring of table partitions {}",
                named(&gone)
            );
            return Err(Error::new(Kind::Config, message).with_hint(
                "start over with what is there now: rekindle restore bigquery --fresh",
            ));
        }
        let is_other_cut = choice.cut != CUT_VERSION;
        let recorded = self.duplicate.table(&choice.schema_hash).await?;
        let mut table = self.table(recorded, taken, choice, findings, record);
        if is_other_cut && table.record.stage < TableStage::Loaded {
            // Another binary cut blocks otherwise: its streams cannot be continued.
            table.choice.cut = CUT_VERSION;
            table.begin(self.shared).await?;
        }
        Ok(table)
    }

    pub(super) fn check_table(&self, run: &Run) -> Result<()> {
        let name = &self.recorded;
        if run.table == *name {
            return Ok(());
        }
        Err(Error::new(
            Kind::Config,
            format!(
                "the duplicate under {} is of table {}, not of {name}",
                self.duplicate.keys.prefix(),
                run.table
            ),
        )
        .with_hint("mend key or table of the route"))
    }

    fn check_range(&self, is_partitioned: bool, taken: &[Taken]) -> Result<()> {
        let name = self.name();
        if self.options.asked.partitions.is_none() {
            return Ok(());
        }
        if !is_partitioned {
            return Err(Error::new(Kind::Config, format!("table {name} has no table partitions"))
                .with_hint("leave --partitions away"));
        }
        if taken.is_empty() {
            return Err(Error::new(
                Kind::Config,
                format!("the duplicate of {name} has none of these table partitions"),
            )
            .with_hint("rekindle status"));
        }
        Ok(())
    }

    /// Chooses, checks, and journals the choice.
    async fn begin(&self, run: &Run, manifests: &[Manifest]) -> Result<Table> {
        let asked = &self.options.asked;
        let name = self.name();
        self.check_table(run)?;
        let wanted = Wanted {
            as_of_us: asked.as_of_us,
            range: asked.partitions.as_ref(),
            accept_recreated: asked.accept_recreated.contains(&name),
            keep_versions: self.route.backup.keep_versions,
            now_us: now_ms() * 1000,
        };
        let mut chosen = choose(run, manifests, &wanted)?;
        let newest = chosen.taken.iter().max_by_key(|taken| taken.version.snapshot_us);
        let schema_hash = match (asked.as_of_us, newest) {
            (Some(_), Some(taken)) => taken.version.schema_hash.clone(),
            _ => run.schema_hash.clone(),
        };
        let recorded = self.duplicate.table(&schema_hash).await?;
        target::refuse_kind(&recorded)?;
        self.check_range(target::is_partitioned(&recorded.resource), &chosen.taken)?;
        let location = self.location(recorded.location.as_deref()).await?;
        let existing = self.existing().await?;
        let shape = Shape::of(&recorded);
        let (way, replaces) = self.way(existing.as_ref(), &location, shape, &mut chosen).await?;
        let policies = self.guard(&recorded, existing.as_ref(), way).await?;
        self.check_blocks(&chosen.taken).await?;
        let part = |taken: &Taken| Part {
            table_partition: taken.table_partition.clone(),
            generation: taken.version.generation,
            rows: taken.version.rows,
            digest: taken.version.digest.clone(),
        };
        let makes_destination = self.makes_destination(existing.as_ref()).await?;
        let mut findings = Findings { makes_destination, ..Findings::default() };
        findings.warnings = self.warnings(existing.as_ref(), &chosen, &recorded, way).await;
        findings.warnings.extend(policies);
        self.check_columns(existing.as_ref(), &recorded, (way, replaces))?;
        findings.warnings.extend(self.older(&chosen.taken, &schema_hash, &recorded).await?);
        findings.warnings.extend(held(run, &chosen.taken));
        let choice = Choice {
            way,
            replaces,
            schema_hash,
            location,
            parts: chosen.taken.iter().map(part).collect(),
            expired: chosen.expired,
            as_of_us: Some(asked.as_of_us.unwrap_or_else(|| run.data_as_of_us())),
            by_arrival: target::is_by_arrival(&recorded.resource),
            row_key: self.route.backup.row_key.clone().filter(|_| way == Way::Rows),
            cut: CUT_VERSION,
            spool: None,
            recorded: None,
        };
        let mut table = self.table(recorded, chosen.taken, choice, findings, self.record());
        table.begin(self.shared).await?;
        Ok(table)
    }

    /// The record of a table that nothing was done for yet.
    pub(super) fn record(&self) -> RestoreRecord {
        RestoreRecord {
            run_id: self.shared.run_id.clone(),
            route: self.route.name.clone(),
            choice: String::new(),
            stage: TableStage::Planned,
            staging: String::new(),
            attempt: 0,
            findings: String::new(),
        }
    }

    pub(super) fn table(
        &self,
        recorded: TableRecord,
        taken: Vec<Taken>,
        choice: Choice,
        findings: Findings,
        record: RestoreRecord,
    ) -> Table {
        Table {
            index: 0,
            route: self.route.name.clone(),
            dataset: self.dataset.to_owned(),
            table: self.table.to_owned(),
            duplicate: self.duplicate.clone(),
            recorded,
            taken,
            rows: None,
            choice,
            findings,
            record,
        }
    }

    /// Whether the destination is this run's to make, or was made empty by one before it.
    pub(super) async fn makes_destination(&self, existing: Option<&Value>) -> Result<bool> {
        match existing {
            None => Ok(true),
            Some(resource) => Ok(target::rows(resource) == 0 && self.is_made_before().await?),
        }
    }

    /// Whether a run that was given up has made the destination and never published into it: then it lacks what is
    /// put back after the proof.
    async fn is_made_before(&self) -> Result<bool> {
        let journal = &self.shared.journal;
        let last = journal.latest_restore(&self.route.name).await.map_err(from_journal)?;
        let is_made = |record: RestoreRecord| {
            let findings: Option<Findings> = serde_json::from_str(&record.findings).ok();
            record.stage < TableStage::Published
                && findings.is_some_and(|findings| findings.makes_destination)
        };
        Ok(last.is_some_and(is_made))
    }

    pub(super) async fn existing(&self) -> Result<Option<Value>> {
        let bigquery = &self.shared.bigquery;
        self.shared.patiently(|| bigquery.table(self.dataset, self.table)).await
    }

    pub(super) async fn location(&self, recorded: Option<&str>) -> Result<String> {
        let bigquery = &self.shared.bigquery;
        let facts = self.shared.patiently(|| bigquery.dataset(self.dataset)).await?;
        facts
            .map(|facts| facts.location)
            .or_else(|| recorded.map(str::to_owned))
            .or_else(|| bigquery.location().map(str::to_owned))
            .ok_or_else(|| super::lacks("location in [bigquery], and none was recorded"))
    }

    async fn check_blocks(&self, taken: &[Taken]) -> Result<()> {
        let mut missing = Vec::new();
        for taken in taken {
            let look = || self.duplicate.missing_blocks(&taken.table_partition, &taken.version);
            missing.extend(self.shared.patiently(look).await?);
        }
        if missing.is_empty() { Ok(()) } else { Err(damaged(named(&missing))) }
    }
}
