//! Looks at both sides of a backed-up table: what BigQuery lists, what the duplicate records, and what a backup would
//! make of the two.
//!
//! Invariant: nothing is written; the pinned time was taken before the table partitions are listed, so a change in
//! between looks newer than its copy, never older.

use super::Shared;
use super::shape::{Columns, columns_of};
use crate::backup::buffer;
use crate::backup::cut::{Partitioning, UNPARTITIONED};
use crate::backup::decide::{Asked, Fate, InSource, decide, gained};
use crate::backup::drift::{loses, refusal};
use crate::backup::source::{self, SourceTable};
use crate::backup::standing::Standing;
use crate::backup::windows;
use schemas::Route;
use schemas::drift::{Drift, compare};
use schemas::manifest::{Keys, Manifest, TableRecord, Version};
use schemas::plan::Origin;
use stages::connect::bigquery::JobStatement;
use stages::extract::bigquery::resource_shape;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;

/// How far back a dataset can be read unless it says otherwise.
const TRAVEL_HOURS: i64 = 7 * 24;
const HOUR_US: i64 = 3_600_000_000;

/// Both sides of one table, before anything is compared.
pub(super) struct Looked {
    pub(super) route: Route,
    pub(super) dataset: String,
    pub(super) name: String,
    pub(super) keys: Keys,
    /// `None` where BigQuery has no such table.
    pub(super) source: Option<SourceTable>,
    pub(super) standing: Standing,
    /// What a backup would do with each table partition.
    pub(super) fates: BTreeMap<String, Fate>,
    /// Filters of windows, by name.
    filters: BTreeMap<String, String>,
    /// Rows of each table partition at the pinned time; those of windows are counted one by one.
    pub(super) counted: BTreeMap<String, u64>,
    /// Whether rows may come into table partitions without their time of modification showing it.
    pub(super) has_buffer: bool,
    pub(super) has_windows: bool,
    /// Whether the table is another one than the one that was copied.
    pub(super) is_made_anew: bool,
    /// The earliest time that BigQuery can show, microseconds since 1970.
    pub(super) oldest_us: i64,
    /// Recorded tables by their hash; `None` where one is missing or altered.
    pub(super) records: BTreeMap<String, Option<TableRecord>>,
    /// What is wrong with documents of the table as a whole, in words.
    pub(super) damage: Vec<String>,
}

impl Looked {
    /// Looks at both sides of a route of blocks.
    pub(super) async fn at(shared: &Shared, route: &Route) -> Result<Self> {
        let Origin::Table { schema: dataset, table: name, .. } = &route.origin else {
            return Err(Error::new(
                Kind::Config,
                format!("route {}: a query cannot be duplicated", route.name),
            ));
        };
        let keys = Keys::new(route.key.text());
        let mut source = source::inspect(&shared.bigquery, dataset, name).await?;
        let partitions = source.iter().flat_map(|source| &source.partitions);
        let known: Vec<String> = partitions.map(|partition| partition.id.clone()).collect();
        let standing = Standing::read(&shared.duplicate, &keys, known).await?;
        let mut looked = Self {
            route: route.clone(),
            dataset: dataset.clone(),
            name: name.clone(),
            keys,
            has_buffer: source.as_ref().is_some_and(has_buffer),
            has_windows: false,
            filters: BTreeMap::new(),
            counted: BTreeMap::new(),
            fates: BTreeMap::new(),
            is_made_anew: false,
            oldest_us: i64::MIN,
            records: BTreeMap::new(),
            damage: standing.damage.get("").cloned().into_iter().collect(),
            source: None,
            standing,
        };
        if let Some(found) = &mut source {
            looked.settle(shared, found).await?;
        }
        looked.source = source;
        looked.decide(shared.snapshot_us);
        looked.look_back(shared).await?;
        looked.read_records(shared).await?;
        Ok(looked)
    }

    /// `dataset.table`.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.dataset, self.name)
    }

    /// Every table partition of either side, by name.
    pub(super) fn units(&self) -> Vec<String> {
        let mut units: Vec<String> = self.fates.keys().cloned().collect();
        let more = self.standing.manifests.keys().chain(self.standing.damage.keys());
        units.extend(more.filter(|id| !id.is_empty()).cloned());
        units.sort_unstable();
        units.dedup();
        units
    }

    /// What BigQuery lists of a table partition.
    pub(super) fn listed(&self, id: &str) -> Option<&InSource> {
        self.source.as_ref()?.partitions.iter().find(|found| found.id == id)
    }

    /// Whether a copy could be made again: BigQuery has all the rows that it had.
    pub(super) fn is_repairable(&self, id: &str) -> bool {
        self.listed(id).is_some() && !matches!(self.fates.get(id), Some(Fate::Hold(_)))
    }

    /// The newest version of a table partition.
    pub(super) fn newest(&self, id: &str) -> Option<&Version> {
        self.standing.manifests.get(id).and_then(Manifest::newest)
    }

    /// The condition that reads a table partition; `None` reads the whole table.
    pub(super) fn filter(&self, id: &str) -> Result<Option<String>> {
        if let Some(filter) = self.filters.get(id) {
            return Ok(Some(filter.clone()));
        }
        self.source.as_ref().map_or(Ok(None), |source| source.partitioning.filter(id))
    }

    /// Which columns of the table a version has, as far as both can be compared.
    pub(super) fn columns(&self, version: &Version) -> std::result::Result<Columns, String> {
        let recorded = self.records.get(&version.schema_hash).and_then(Option::as_ref);
        match (recorded, &self.source) {
            (Some(recorded), Some(source)) => {
                columns_of(&recorded.resource, &source.record.resource)
                    .map_err(|reason| self.renamed(recorded, source).unwrap_or(reason))
            }
            _ => Ok(Columns::All),
        }
    }

    /// What became of the columns, where a backup would refuse them too.
    fn renamed(&self, recorded: &TableRecord, source: &SourceTable) -> Option<String> {
        let drifts = self.since(recorded, source);
        let lines: Vec<String> =
            drifts.iter().filter(|drift| loses(drift)).map(ToString::to_string).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    fn since(&self, recorded: &TableRecord, source: &SourceTable) -> Vec<Drift> {
        let then = resource_shape(&recorded.table, &recorded.resource);
        let now = resource_shape(&source.record.table, &source.record.resource);
        compare(&self.route, &then, &now)
    }

    /// The backup that copies the table as it is now, for a hint. Where a plain one would leave the duplicate as it is,
    /// it says what to accept, and how to have the table back instead.
    pub(super) fn hint_backup(&self, then: &str) -> String {
        let route = &self.route.name;
        let backup = format!("rekindle backup bigquery --route {route}");
        if !self.is_refused() {
            return format!("{backup}{then}");
        }
        let name = self.full_name();
        format!(
            "if that was meant: {backup} --accept-loss {name}{then}; if not: rekindle restore bigquery --route {route} --replace"
        )
    }

    /// Whether a backup refuses the table as a whole until somebody accepts what became of it.
    fn is_refused(&self) -> bool {
        let run = self.standing.run.as_ref();
        let recorded = run.and_then(|run| self.records.get(&run.schema_hash)?.as_ref());
        let drifts = recorded.zip(self.source.as_ref()).map(|(then, now)| self.since(then, now));
        let name = self.full_name();
        self.is_made_anew
            || drifts.is_some_and(|drifts| refusal(&self.route, &name, &drifts).is_some())
    }

    /// Cuts into windows, or finds the table partition of every row of the streaming buffer; counts at the pinned time.
    async fn settle(&mut self, shared: &Shared, found: &mut SourceTable) -> Result<()> {
        let (bigquery, at_us) = (&shared.bigquery, shared.snapshot_us);
        match &self.route.backup.watermark {
            Some(watermark) if found.partitioning == Partitioning::None => {
                self.filters =
                    windows::cut(bigquery, found, &self.standing, watermark, at_us).await?;
                self.has_windows = true;
            }
            _ => {
                buffer::settle(bigquery, found, &self.standing, at_us).await?;
                self.counted = buffer::count(bigquery, found, at_us).await?;
            }
        }
        Ok(())
    }

    fn decide(&mut self, snapshot_us: i64) {
        let recorded = self.standing.table_created_ms();
        let created = self.source.as_ref().map(|source| source.record.table_created_ms);
        self.is_made_anew = created.zip(recorded).is_some_and(|(now, before)| now != before);
        let asked = Asked {
            full: false,
            accept_loss: false,
            snapshot_us,
            table_created_ms: created.or(recorded).unwrap_or_default(),
            moved_rows: self.moved_rows(),
        };
        let found = self.source.as_ref().map_or(&[][..], |source| &source.partitions);
        self.fates = decide(found, &self.standing.summary(), &asked);
    }

    /// Rows that may have left the streaming buffer since the last complete backup.
    fn moved_rows(&self) -> u64 {
        let by_ingestion = |source: &&SourceTable| source.partitioning.is_by_ingestion();
        let Some(source) = self.source.as_ref().filter(by_ingestion) else { return 0 };
        let recorded = self.standing.run.iter().flat_map(|run| &run.table_partitions);
        let recorded = recorded.map(|part| (part.table_partition.clone(), part.rows)).collect();
        gained(&source.partitions, &recorded)
    }

    /// Finds out how far back the table can be read.
    async fn look_back(&mut self, shared: &Shared) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let hours = shared.bigquery.time_travel_hours(&self.dataset).await?;
        let window_us = hours.unwrap_or(TRAVEL_HOURS).saturating_mul(HOUR_US);
        let made_us = source.record.table_created_ms.saturating_mul(1_000);
        self.oldest_us = shared.snapshot_us.saturating_sub(window_us).max(made_us);
        Ok(())
    }

    /// Reads every recorded table that a version names.
    async fn read_records(&mut self, shared: &Shared) -> Result<()> {
        let versions = self.standing.manifests.values().flat_map(|manifest| &manifest.versions);
        let mut hashes: Vec<String> = versions.map(|version| version.schema_hash.clone()).collect();
        hashes.extend(self.standing.run.iter().map(|run| run.schema_hash.clone()));
        hashes.sort_unstable();
        hashes.dedup();
        for hash in hashes {
            let key = self.keys.schema(&hash);
            let record = match shared.duplicate.get(&key).await? {
                None => Err(format!("key {key} is missing: the recorded table")),
                Some(text) => {
                    TableRecord::parse(&text, &hash).map_err(|error| format!("key {key}: {error}"))
                }
            };
            let record = record.map_err(|problem| self.damage.push(problem)).ok();
            self.records.insert(hash, record);
        }
        Ok(())
    }

    /// Counts the rows of one table partition as of a time.
    pub(super) async fn count(&self, shared: &Shared, id: &str, at_us: i64) -> Result<u64> {
        let filter = self.filter(id)?;
        let condition = filter.map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
        let sql = format!(
            "SELECT COUNT(*) AS n FROM `{}`.`{}`.`{}` FOR SYSTEM_TIME AS OF TIMESTAMP_MICROS({at_us}){condition}",
            shared.bigquery.project(),
            self.dataset,
            self.name
        );
        let location = self.source.as_ref().and_then(|source| source.record.location.clone());
        let statement = JobStatement { sql: &sql, parameters: &[], location: location.as_deref() };
        let rows = shared.patiently(|| shared.bigquery.query_rows(&statement)).await?;
        let cell = rows.first().and_then(|row| row.first());
        cell.and_then(|cell| cell.as_u64().or_else(|| cell.as_str()?.parse().ok())).ok_or_else(
            || {
                let message = format!("bigquery did not count the rows of {}", self.full_name());
                Error::new(Kind::Internal, message)
            },
        )
    }
}

/// Whether the streaming buffer may hold rows: their table partitions do not show it.
fn has_buffer(source: &SourceTable) -> bool {
    let is_listed = || source.partitions.iter().any(|found| found.id == UNPARTITIONED);
    source.has_buffer || (matches!(source.partitioning, Partitioning::Time { .. }) && is_listed())
}
