//! Opens the table of a row route: recorded, checked to be reversible, spooled, announced.
//!
//! Invariant: what cannot be restored is refused by name before anything is written; a spool that is not the one
//! journaled is never read, its table starts over with a new one.

use super::super::duplicate::{Duplicate, damaged};
use super::super::open::{Opening, unreadable};
use super::super::stage::TableStage;
use super::super::table::{Choice, Findings, Part, Table, Way};
use super::super::way::Shape;
use super::super::{Asked, Options, Shared, target};
use super::{RowSource, Spool, held_in, partition_name};
use crate::backup::rows::{keys_of, row_server};
use crate::journal::RestoreRecord;
use crate::outcome::from_journal;
use crate::place::Place;
use crate::rejects::RejectWriter;
use crate::spool::{self, Search};
use schemas::manifest::{Census, TableRecord};
use schemas::plan::Origin;
use schemas::{Plan, ReverseRoute, Route};
use stages::extract::bigquery::table_schema;
use stages::failpoint::{Point, pass};
use stages::transform::arrow_rows::CUT_VERSION;
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Said where there was no record to go by.
pub(in super::super) const GUARANTEES_GONE: &str = "the recorded table is lost: rows are read as the table that stands has its columns; policies and what else was recorded are not put back, and whether redis lacks rows, or keys were not unique, cannot be known";

/// What of the flags a row route cannot be asked.
pub(in super::super) fn refuse(route: &Route, asked: &Asked) -> Vec<Error> {
    let refused = |flag: &str, why: &str| {
        let message = format!("route {} cannot be restored with {flag}: {why}", route.name);
        Error::new(Kind::Config, message)
            .with_hint("leave the flag away, or name other routes with --route")
    };
    let mut mistakes = Vec::new();
    if asked.as_of_us.is_some() {
        mistakes.push(refused("--as-of", "its rows are there as they are now, in one version"));
    }
    if asked.partitions.is_some() {
        mistakes.push(refused("--partitions", "its rows are not kept by table partition"));
    }
    mistakes
}

/// Opens the table of a row route: as the journal has it, or chosen now.
pub(in super::super) async fn open_rows(
    shared: &Arc<Shared>,
    plan: &Plan,
    options: &Options,
    route: &Route,
    index: usize,
) -> Result<Table> {
    let Origin::Table { schema: dataset, table, .. } = &route.origin else {
        return Err(Error::new(Kind::Config, format!("route {} names no table", route.name)));
    };
    let duplicate = Duplicate::new(plan, Place::Redis, keys_of(route).prefix(), 2)?;
    let recorded = format!("{dataset}.{table}");
    let dataset = options.asked.destination(dataset);
    let duplicate = &duplicate;
    let opening = Opening { shared, options, route, recorded, dataset, table, duplicate };
    let restores = shared.journal.restores(&shared.run_id).await.map_err(from_journal)?;
    let known = restores.into_iter().find(|restore| restore.route == route.name);
    let opened = match known {
        Some(record) => opening.take_up_rows(plan, record).await?,
        None => opening.begin_rows(plan).await?,
    };
    let counters = &shared.counters.routes[index];
    counters.rows_estimate.store(opened.rows(), Ordering::Relaxed);
    counters.partitions.store(opened.choice.parts.len() as u64, Ordering::Relaxed);
    Ok(Table { index, ..opened })
}

/// What is known of the table before its rows are looked for.
struct Recorded {
    table: TableRecord,
    hash: String,
    /// Of the last backup; absent where its record is lost.
    census: Option<Census>,
}

impl Opening<'_> {
    async fn begin_rows(&self, plan: &Plan) -> Result<Table> {
        let existing = self.existing().await?;
        let recorded = if self.options.asked.from_scan {
            self.recorded_by_what_stands(existing.as_ref())?
        } else {
            self.recorded_by_backup().await?
        };
        target::refuse_kind(&recorded.table)?;
        self.refuse_by_arrival(&recorded.table)?;
        self.refuse_shared_keys(recorded.census.as_ref())?;
        let source = self.source(plan, &recorded.table)?;
        let location = self.location(recorded.table.location.as_deref()).await?;
        self.refuse_fill_without_key(existing.as_ref())?;
        let mut nothing = super::super::choose::Chosen::default();
        let (way, replaces) =
            self.way(existing.as_ref(), &location, Shape::default(), &mut nothing).await?;
        self.check_columns(existing.as_ref(), &recorded.table, (way, replaces))?;
        let policies = self.guard(&recorded.table, existing.as_ref(), way).await?;
        let mut warnings = self.warnings(existing.as_ref(), &nothing, &recorded.table, way).await;
        warnings.extend(policies);
        warnings.extend(said_by(recorded.census.as_ref()));
        let (spool, said) = self.spool(&source).await?;
        pass(Point::SpoolWritten);
        warnings.extend(said);
        let makes_destination = self.makes_destination(existing.as_ref()).await?;
        let findings = Findings { makes_destination, warnings, ..Findings::default() };
        let choice = Choice {
            way,
            replaces,
            schema_hash: recorded.hash,
            location,
            parts: parts(&spool),
            expired: Vec::new(),
            as_of_us: recorded.census.as_ref().and_then(|census| census.complete_us),
            by_arrival: false,
            row_key: self.route.backup.row_key.clone().filter(|_| way == Way::Rows),
            cut: CUT_VERSION,
            spool: Some(spool),
            recorded: self.options.asked.from_scan.then(|| recorded.table.clone()),
        };
        let opened = self.table(recorded.table, Vec::new(), choice, findings, self.record());
        let mut table = Table { rows: Some(source), ..opened };
        table.begin(self.shared).await?;
        Ok(table)
    }

    /// Without a key, rows that are there cannot be told from lost ones.
    fn refuse_fill_without_key(&self, existing: Option<&serde_json::Value>) -> Result<()> {
        let rows = existing.map_or(0, target::rows);
        if !self.options.asked.fill || self.route.backup.row_key.is_some() || rows == 0 {
            return Ok(());
        }
        let message = format!(
            "table {} has {rows} rows, and route {} has no row_key: rows that are there cannot be told from lost ones",
            self.name(),
            self.route.name
        );
        Err(Error::new(Kind::Config, message).with_hint(
            "name a row_key in the route, or give up what the table holds with --replace",
        ))
    }

    /// Takes up what an earlier attempt chose; where its spool is gone or altered, the table starts over.
    async fn take_up_rows(&self, plan: &Plan, record: RestoreRecord) -> Result<Table> {
        let choice: Choice = serde_json::from_str(&record.choice).map_err(unreadable)?;
        let findings: Findings = serde_json::from_str(&record.findings).map_err(unreadable)?;
        let recorded = match &choice.recorded {
            Some(recorded) => recorded.clone(),
            None => self.duplicate.table(&choice.schema_hash).await?,
        };
        let source = self.source(plan, &recorded)?;
        let opened = self.table(recorded, Vec::new(), choice, findings, record);
        let mut table = Table { rows: Some(source.clone()), ..opened };
        if table.record.stage >= TableStage::Proven {
            return Ok(table);
        }
        let facts = table.choice.spool.as_ref().map(|spool| spool.facts.clone());
        let Some(problem) = spool::check(&source.path, &facts.unwrap_or_default())? else {
            return Ok(table);
        };
        tracing::warn!(spool = %source.path.display(), problem, "the rows are looked for again");
        let (spool, said) = self.spool(&source).await?;
        table.findings.warnings.push(format!(
            "the spool {} cannot be used ({problem}): the restore of {} started over with what is in redis now",
            source.path.display(),
            table.name()
        ));
        table.findings.warnings.extend(said);
        table.choice.parts = parts(&spool);
        table.choice.spool = Some(spool);
        super::super::staging::drop_staging(self.shared, &table).await?;
        table.begin(self.shared).await?;
        Ok(table)
    }

    async fn recorded_by_backup(&self) -> Result<Recorded> {
        let run = self.shared.patiently(|| self.duplicate.run()).await.map_err(|error| {
            if error.kind() != Kind::Difference {
                return error;
            }
            error.with_hint("run rekindle backup bigquery while the table is there; if it is lost, make it again as it was and add --from-scan --replace")
        })?;
        self.check_table(&run)?;
        let table = self.duplicate.table(&run.schema_hash).await?;
        let Some(census) = run.census else {
            return Err(damaged(format!(
                "key {} is no record of rows: it has no census",
                self.duplicate.keys.run()
            )));
        };
        Ok(Recorded { table, hash: run.schema_hash, census: Some(census) })
    }

    fn recorded_by_what_stands(&self, existing: Option<&serde_json::Value>) -> Result<Recorded> {
        let table = existing.and_then(|found| TableRecord::new(self.dataset, self.table, found));
        let Some(table) = table else {
            let message = format!(
                "table {} is not there: without its record nobody knows its columns",
                self.name()
            );
            return Err(Error::new(Kind::Config, message).with_hint(
                "make the table again as it was, then: rekindle restore bigquery --from-scan",
            ));
        };
        let (_, hash) = table.to_json();
        Ok(Recorded { table, hash: format!("{hash:032x}"), census: None })
    }

    /// Rows in Redis do not tell when they arrived in the table, so they would get another table partition.
    fn refuse_by_arrival(&self, recorded: &TableRecord) -> Result<()> {
        if !target::is_by_arrival(&recorded.resource) {
            return Ok(());
        }
        let message = format!(
            "route {} cannot be restored: table {} is partitioned by the time rows arrive, which rows in redis do not tell",
            self.route.name,
            self.name()
        );
        Err(Error::new(Kind::Config, message).with_hint("back the table up with type = \"blocks\""))
    }

    /// Rows that shared a key were folded into one; which of them Redis holds nobody knows.
    fn refuse_shared_keys(&self, census: Option<&Census>) -> Result<()> {
        let Some(census) = census else { return Ok(()) };
        match census.distinct_keys {
            Some(distinct) if distinct != census.rows => Err(Error::new(
                Kind::Config,
                format!(
                    "route {} is derived and cannot be restored from: at the last backup {} rows of {} had {distinct} keys",
                    self.route.name,
                    census.rows,
                    self.name()
                ),
            )
            .with_hint("add a column to key that tells the rows apart, or back the table up with type = \"blocks\"")),
            _ => Ok(()),
        }
    }

    /// Binds the route backwards; every reason against it at once.
    fn source(&self, plan: &Plan, recorded: &TableRecord) -> Result<RowSource> {
        let derived = |reasons: Vec<String>| {
            let message = format!(
                "route {} is derived and cannot be restored from: {}",
                self.route.name,
                reasons.join("; ")
            );
            Error::new(Kind::Config, message).with_hint(
                "mend the route, or back the table up with type = \"blocks\"; rekindle plan",
            )
        };
        let (schema, required) =
            table_schema(&recorded.table, &recorded.resource).map_err(derived)?;
        let reverse = ReverseRoute::bind_required(self.route, schema, &required)
            .map_err(|errors| derived(errors.iter().map(ToString::to_string).collect()))?;
        let (state, run_id) = (&self.options.state, &self.shared.run_id);
        let Some(held) = held_in(self.route.layout) else {
            return Err(derived(vec![format!("type {} holds no rows", self.route.layout.word())]));
        };
        Ok(RowSource {
            rows: row_server(plan)?,
            held,
            reverse: Arc::new(reverse),
            route: Arc::new(self.route.clone()),
            path: spool::path(state, run_id, &self.route.name),
            rejects: Arc::new(RejectWriter::new(state, run_id, &plan.fingerprint())),
        })
    }

    /// Looks for the rows, and says what a person should know of them.
    async fn spool(&self, source: &RowSource) -> Result<(Spool, Vec<String>)> {
        let search = Search {
            rows: &source.rows,
            held: source.held,
            template: &self.route.key,
            retry_for: self.options.retry_for,
            cancel: &self.options.cancel,
        };
        let looked = search.collect(&source.path).await?;
        let path = source.path.clone();
        let facts = looked.facts.clone();
        let cut = tokio::task::spawn_blocking(move || spool::cut(&path, &facts)).await;
        let cuts = cut.map_err(|error| {
            Error::new(Kind::Internal, "cutting a spool panicked").with_source(error)
        })??;
        let mut said = Vec::new();
        if looked.unfit > 0 {
            said.push(format!(
                "{} keys of type {} begin like {} and do not fit it; they are not restored",
                looked.unfit,
                source.held.redis_type(),
                self.route.key
            ));
        }
        Ok((Spool { facts: looked.facts, cuts }, said))
    }
}

fn parts(spool: &Spool) -> Vec<Part> {
    let part = |(place, cut): (usize, &spool::Cut)| Part {
        table_partition: partition_name(place),
        generation: 0,
        rows: cut.rows.max(1),
        digest: String::new(),
    };
    spool.cuts.iter().enumerate().map(part).collect()
}

/// What the last census found wanting.
fn said_by(census: Option<&Census>) -> Option<String> {
    let census = census?;
    let lacking = census.lacking();
    (lacking > 0).then(|| {
        format!(
            "at the last backup redis lacked {lacking} of the {} rows of the table",
            census.rows
        )
    })
}
