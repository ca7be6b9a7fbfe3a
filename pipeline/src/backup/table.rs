//! One table of a backup: looked at, decided about, and recorded when it is complete.
//!
//! Invariant: a table that is missing or was made anew changes nothing in the duplicate unless its loss was accepted.

use super::buffer;
use super::copy::{Copied, TableCopy, Unit};
use super::cut::{Partitioning, UNPARTITIONED};
use super::decide::{Asked, Fate, Loss, decide, gained};
use super::drift;
use super::publish::publish;
use super::source::{self, SourceTable};
use super::standing::Standing;
use super::windows;
use crate::share::Share;
use schemas::digest::DIGEST_VERSION;
use schemas::drift::Drift;
use schemas::manifest::{FORMAT, Held, Keys, Manifest, Run, RunPartition, Version};
use schemas::plan::Origin;
use schemas::{Digest, Route};
use stages::connect::bigquery::BigQuery;
use stages::failpoint::{Point, pass};
use stages::load::store::Store;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;

/// What all tables of a backup have in common.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    /// The source.
    pub bigquery: &'a BigQuery,
    /// The target.
    pub duplicate: &'a dyn Store,
    /// The pinned time.
    pub snapshot_us: i64,
    /// Copy everything again.
    pub full: bool,
    /// See [`super::Options`].
    pub share: Option<Share>,
}

/// A table that was looked at.
pub struct Table {
    /// Its route.
    pub route: Route,
    /// The dataset.
    pub dataset: String,
    /// The table.
    pub name: String,
    /// Its keys.
    pub keys: Keys,
    /// What the source has; `None` where it is missing.
    pub source: Option<SourceTable>,
    /// What the duplicate has.
    pub standing: Standing,
    /// What becomes of each table partition.
    pub fates: BTreeMap<String, Fate>,
    /// How it differs from what the duplicate recorded.
    pub drift: Vec<Drift>,
    filters: BTreeMap<String, String>,
    /// Whether its loss of rows was accepted.
    pub accept_loss: bool,
    /// Generations that a verification found damaged, by table partition.
    damaged: BTreeMap<String, Vec<u64>>,
    /// Losses and damage, by name.
    pub findings: Vec<Error>,
    /// Whether anything may be written: not for a table that is missing or was made anew.
    pub is_open: bool,
}

impl Table {
    /// Looks at both sides and decides. `known` names table partitions that the journal has seen.
    pub async fn inspect(
        common: &Common<'_>,
        route: &Route,
        accept_loss: bool,
        known: Vec<String>,
        damaged: &BTreeMap<String, Vec<u64>>,
    ) -> Result<Self> {
        let Origin::Table { schema: dataset, table: name, .. } = &route.origin else {
            return Err(Error::new(
                Kind::Config,
                format!("route {}: a query cannot be duplicated", route.name),
            ));
        };
        let keys = Keys::new(route.key.text());
        let mut source = source::inspect(common.bigquery, dataset, name).await?;
        let partitions = source.iter().flat_map(|source| &source.partitions);
        let mut known = known;
        known.extend(partitions.map(|partition| partition.id.clone()));
        let mut standing = Standing::read(common.duplicate, &keys, known).await?;
        standing.measure(common.duplicate, &keys).await?;
        for name in damaged.keys() {
            let problem = format!("a verification found table partition {name} damaged");
            standing.damage.entry(name.clone()).or_insert(problem);
        }
        let drift =
            drift::since_the_last(common.duplicate, &keys, route, &standing, source.as_ref());
        let drift = drift.await?;
        let outdated = drift::outdated(common.duplicate, &keys, route, &standing, source.as_ref());
        standing.outdated = outdated.await?;
        let mut filters = BTreeMap::new();
        let snapshot_us = common.snapshot_us;
        if let (Some(found), Some(watermark)) = (&mut source, &route.backup.watermark)
            && found.partitioning == Partitioning::None
        {
            filters =
                windows::cut(common.bigquery, found, &standing, watermark, snapshot_us).await?;
        } else if let Some(found) = &mut source {
            buffer::settle(common.bigquery, found, &standing, snapshot_us).await?;
        }
        if let (Some(found), Some(share)) = (&mut source, common.share) {
            found.thin(share);
        }
        let mut table = Self {
            route: route.clone(),
            dataset: dataset.clone(),
            name: name.clone(),
            keys,
            findings: standing.errors(&format!("{dataset}.{name}")),
            source,
            standing,
            fates: BTreeMap::new(),
            drift,
            filters,
            accept_loss,
            damaged: damaged.clone(),
            is_open: true,
        };
        table.decide(common)?;
        for drift in table.drift.iter().filter(|_| table.is_open) {
            tracing::warn!("{drift}");
        }
        Ok(table)
    }

    /// `dataset.table`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.dataset, self.name)
    }

    /// Whether it is cut into windows of a watermark.
    pub fn has_windows(&self) -> bool {
        !self.filters.is_empty()
    }

    fn decide(&mut self, common: &Common<'_>) -> Result<()> {
        let accept_loss = self.accept_loss;
        let name = self.full_name();
        let recorded = self.standing.table_created_ms();
        let hint = format!(
            "if that was meant: rekindle backup bigquery --accept-loss {name}; if not: rekindle restore bigquery"
        );
        let created = self.source.as_ref().map(|source| source.record.table_created_ms);
        let problem = match (created, recorded) {
            (None, None) => {
                return Err(Error::new(Kind::Config, format!("bigquery has no table {name}"))
                    .with_hint("mend the plan, then: rekindle plan"));
            }
            (None, Some(_)) => Some("is missing in bigquery"),
            (Some(now), Some(before)) if now != before => Some("was made anew in bigquery"),
            _ => None,
        };
        if let (Some(problem), false) = (problem, accept_loss) {
            let message = format!("table {name} {problem}; its duplicate stays as it is");
            self.findings.push(Error::new(Kind::Difference, message).with_hint(hint));
            self.is_open = false;
            return Ok(());
        }
        let refusal = drift::refusal(&self.route, &name, &self.drift);
        if let (Some(refusal), false) = (refusal, accept_loss) {
            self.findings.push(refusal);
            self.is_open = false;
            return Ok(());
        }
        let asked = Asked {
            full: common.full,
            accept_loss,
            snapshot_us: common.snapshot_us,
            table_created_ms: created.or(recorded).unwrap_or_default(),
            moved_rows: self.moved_rows(),
        };
        let found =
            self.source.as_ref().map(|source| source.partitions.clone()).unwrap_or_default();
        self.fates = decide(&found, &self.standing.summary(), &asked);
        self.findings.extend(self.held().into_iter().map(|(id, loss)| {
            let word = loss.word();
            let message =
                format!("table partition {name}${id} {word}; its duplicate stays as it is");
            Error::new(Kind::Difference, message).with_hint(hint.clone())
        }));
        Ok(())
    }

    /// Rows that may have left the streaming buffer since the last complete backup.
    fn moved_rows(&self) -> u64 {
        let by_ingestion = |source: &&SourceTable| source.partitioning.is_by_ingestion();
        let Some(source) = self.source.as_ref().filter(by_ingestion) else { return 0 };
        let recorded = self.standing.run.iter().flat_map(|run| &run.table_partitions);
        let recorded = recorded.map(|part| (part.table_partition.clone(), part.rows)).collect();
        gained(&source.partitions, &recorded)
    }

    /// Table partitions whose older copy stays.
    pub fn held(&self) -> Vec<(String, Loss)> {
        let held = self.fates.iter().filter_map(|(id, fate)| match fate {
            Fate::Hold(loss) => Some((id.clone(), *loss)),
            _ => None,
        });
        held.collect()
    }

    /// Returns what is to be copied, with the highest generation each one has had; generations are given later.
    pub fn units(&self) -> Result<Vec<Unit>> {
        let Some(source) = self.source.as_ref().filter(|_| self.is_open) else {
            return Ok(Vec::new());
        };
        let copied = self.fates.values().filter_map(|fate| match fate {
            Fate::Copy(found, _) => Some(found),
            _ => None,
        });
        copied
            .map(|found| {
                let filter = match self.filters.get(&found.id) {
                    Some(filter) => Some(filter.clone()),
                    None => source.partitioning.filter(&found.id)?,
                };
                Ok(Unit {
                    source: found.clone(),
                    filter,
                    generation: self.standing.generation_base(&found.id),
                    published: self.standing.manifests.get(&found.id).cloned(),
                    damaged: self.damaged.get(&found.id).cloned().unwrap_or_default(),
                    is_buffer: source.partitioning.is_by_ingestion() && found.id == UNPARTITIONED,
                })
            })
            .collect()
    }

    /// Bytes that the copies will take, judged by the ones that are there.
    pub fn stored_estimate(&self) -> u64 {
        /// What aggregated logs come to; used until there is a copy to judge by.
        const SHARE_GUESS: f64 = 0.3;
        let newest = || self.standing.manifests.values().filter_map(Manifest::newest);
        let source_bytes: u64 = newest().map(|version| version.source_bytes).sum();
        let stored_bytes: u64 = newest().map(|version| version.stored_bytes).sum();
        let share =
            if source_bytes > 0 { stored_bytes as f64 / source_bytes as f64 } else { SHARE_GUESS };
        let bytes = self.fates.values().filter_map(|fate| match fate {
            Fate::Copy(found, _) if self.is_open => Some(found.bytes),
            _ => None,
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let estimate = (bytes.sum::<u64>() as f64 * share) as u64;
        estimate
    }

    /// Removes what earlier backups published away and had no time to delete.
    pub async fn remove_retired(&mut self, duplicate: &dyn Store) -> Result<()> {
        for manifest in self.standing.manifests.values_mut() {
            if !manifest.retired.is_empty() {
                *manifest = publish(duplicate, &self.keys, manifest.clone()).await?;
            }
        }
        Ok(())
    }

    /// Writes what the source says of the table; returns the hash that names it.
    pub async fn record(&self, duplicate: &dyn Store) -> Result<u128> {
        let Some(source) = &self.source else { return Ok(self.recorded_schema_hash()) };
        let (text, hash) = source.record.to_json();
        duplicate.set(&self.keys.schema(&format!("{hash:032x}")), &text).await?;
        pass(Point::TableRecorded);
        Ok(hash)
    }

    fn recorded_schema_hash(&self) -> u128 {
        let hash = self.standing.run.as_ref().map(|run| run.schema_hash.as_str());
        hash.and_then(|hash| u128::from_str_radix(hash, 16).ok()).unwrap_or_default()
    }

    /// Takes the manifests that copies have published.
    pub fn take(&mut self, copied: &Copied) {
        let manifest = copied.manifest.clone();
        self.standing.damage.remove(&manifest.table_partition);
        self.standing.manifests.insert(manifest.table_partition.clone(), manifest);
    }

    /// Publishes versions without rows for what has expired, has moved or whose loss was accepted.
    pub async fn let_go(&mut self, copy: &TableCopy) -> Result<()> {
        for (id, fate) in self.fates.clone() {
            if !matches!(fate, Fate::Empty | Fate::Expire | Fate::Move) {
                continue;
            }
            let published = self.standing.manifests.get(&id);
            let mut versions = vec![self.empty_version(copy, &id)];
            versions.extend(published.iter().flat_map(|manifest| manifest.versions.clone()));
            // What expired goes with all its versions; what was accepted as lost can still be restored from them.
            let kept = if fate == Fate::Expire { 1 } else { copy.keep_versions.max(2) };
            let dropped = versions.split_off(kept.min(versions.len()));
            let mut retired =
                published.map(|manifest| manifest.retired.clone()).unwrap_or_default();
            retired.extend(dropped.iter().map(|old| (old.generation, old.blocks.len() as u64)));
            let manifest = Manifest {
                format: FORMAT,
                table: self.full_name(),
                table_id: copy.table_id.clone(),
                table_partition: id.clone(),
                versions,
                retired,
                check: String::new(),
            };
            let manifest = publish(&*copy.duplicate, &self.keys, manifest).await?;
            self.standing.damage.remove(&id);
            self.standing.manifests.insert(id, manifest);
        }
        Ok(())
    }

    fn empty_version(&self, copy: &TableCopy, id: &str) -> Version {
        Version {
            generation: self.standing.generation_base(id) + 1,
            snapshot_us: copy.snapshot_us,
            last_modified_us: copy.snapshot_us,
            table_created_ms: copy.table_created_ms,
            expires_us: None,
            rows: 0,
            source_bytes: 0,
            stored_bytes: 0,
            digest: Digest::default().hex(),
            digest_version: DIGEST_VERSION,
            schema_hash: format!("{:032x}", copy.schema_hash),
            key_id: copy.key_id(),
            blocks: Vec::new(),
        }
    }

    /// Writes the record of a complete backup of this table: the last thing of all.
    pub async fn complete(&mut self, copy: &TableCopy, run_id: &str, now_us: i64) -> Result<()> {
        let before = self.standing.run.as_ref();
        let is_expired = |id: &str| self.fates.get(id) == Some(&Fate::Expire);
        let mut table_partitions: Vec<RunPartition> = self
            .standing
            .manifests
            .iter()
            .filter(|(id, _)| !is_expired(id) && !self.standing.damage.contains_key(*id))
            .filter_map(|(_, manifest)| RunPartition::of(manifest))
            .collect();
        // A held table partition whose manifest is lost stays recorded, so that it stays named.
        let recorded = before.iter().flat_map(|run| &run.table_partitions);
        let damaged =
            recorded.filter(|part| self.standing.damage.contains_key(&part.table_partition));
        table_partitions.extend(damaged.cloned());
        table_partitions.sort_by(|a, b| a.table_partition.cmp(&b.table_partition));
        let good_until = |id: &str| {
            let held = before.iter().flat_map(|run| &run.held);
            let earlier = held.clone().find(|held| held.table_partition == id);
            let newest = self.standing.manifests.get(id).and_then(Manifest::newest);
            earlier
                .map(|held| held.good_until_us)
                .or_else(|| before.map(|run| run.snapshot_us))
                .or_else(|| newest.map(|version| version.snapshot_us))
                .unwrap_or_default()
        };
        let held = self.held().into_iter();
        let held = held
            .map(|(id, _)| Held { good_until_us: good_until(&id), table_partition: id })
            .collect();
        let run = Run {
            format: FORMAT,
            run_id: run_id.to_owned(),
            table: self.full_name(),
            table_id: copy.table_id.clone(),
            table_created_ms: copy.table_created_ms,
            snapshot_us: copy.snapshot_us,
            completed_us: now_us,
            schema_hash: format!("{:032x}", copy.schema_hash),
            watermark: self.route.backup.watermark.clone(),
            table_partitions,
            held,
            census: None,
            check: String::new(),
        };
        copy.duplicate.set(&self.keys.run(), &run.to_json()).await?;
        pass(Point::BackupRecorded);
        self.standing.run = Some(run);
        Ok(())
    }
}
