//! One table partition: its blocks checked, its rows compared with BigQuery, and what became of it said.
//!
//! Invariant: a table partition is called wrong only where no backup has published another version of it meanwhile.

use super::super::Verdict;
use super::Shared;
use super::compare::Seen;
use super::look::Looked;
use super::read::{self, Blocks};
use super::report::{Part, State};
use schemas::Digest;
use schemas::manifest::{Manifest, Version};
use serde_json::json;
use stages::Result;
use stages::load::redis::duplicate::Duplicate;
use std::sync::Arc;

/// Times that a table partition is looked at while backups replace its copy.
const LOOKS_MAX: u32 = 8;

/// How much of a table partition is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Rows are counted, blocks measured.
    Count,
    /// Every block and every row is read.
    Full,
}

/// What one comparison came to, beside what is said of it.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) blocks: u64,
    pub(super) rows: u64,
}

/// One table partition on its way.
pub(super) struct Unit<'a> {
    pub(super) shared: &'a Shared,
    pub(super) table: &'a Looked,
    pub(super) id: &'a str,
    pub(super) depth: Depth,
    /// What is published of it; read again where a backup has replaced it meanwhile.
    pub(super) manifest: Option<Manifest>,
    /// Whether that is not the one that was looked at first.
    pub(super) is_newer: bool,
}

impl Unit<'_> {
    /// Compares, and compares again where a backup has published another version in between.
    pub(super) async fn verify(mut self) -> Result<(Part, Read)> {
        for _ in 0..LOOKS_MAX {
            let (mut part, read) = self.once().await?;
            let is_settled = part.state.verdict() == Verdict::Pass && !part.is_stale;
            if is_settled || (!self.was_replaced().await? && !part.is_stale) {
                self.note(&mut part)?;
                return Ok((part, read));
            }
        }
        let mut part = Part::new(self.id);
        self.inconclusive(&mut part, "its copy was replaced again and again meanwhile".to_owned());
        self.note(&mut part)?;
        Ok((part, Read::default()))
    }

    async fn once(&self) -> Result<(Part, Read)> {
        let mut part = Part::new(self.id);
        let mut read = Read::default();
        let newest = self.manifest.as_ref().and_then(Manifest::newest).cloned().map(Arc::new);
        if let Some(problem) = self.table.standing.damage.get(self.id).filter(|_| !self.is_newer) {
            self.found_damage(&mut part, problem.clone(), "");
        }
        let copy = match &newest {
            Some(newest) => Some(self.blocks(newest, &mut part, &mut read).await?),
            None => None,
        };
        part.rows_in_duplicate = newest.as_ref().map(|newest| newest.rows);
        match (&newest, copy) {
            (Some(newest), Some(copy)) => self.compare(&mut part, newest, copy).await?,
            _ if part.damage_count > 0 => {}
            _ => self.never_copied(&mut part).await?,
        }
        if part.damage_count > 0 {
            self.is_damaged(&mut part);
        }
        if self.depth == Depth::Full {
            read.rows = part.rows_in_duplicate.unwrap_or(0);
        }
        Ok((part, read))
    }

    /// Checks the blocks of all versions; returns what the newest one holds.
    async fn blocks(
        &self,
        newest: &Arc<Version>,
        part: &mut Part,
        read: &mut Read,
    ) -> Result<Seen> {
        let recorded = newest.digest().map(|digest| digest.sum);
        let mut seen = Seen { rows: newest.rows, sum: recorded };
        for version in self.manifest.iter().flat_map(|manifest| &manifest.versions) {
            let blocks = self.blocks_of(version);
            let before = part.damage_count;
            self.measure(&blocks, part).await?;
            if self.depth == Depth::Full {
                let digest = self.read_blocks(&blocks, part).await?;
                read.blocks += version.blocks.len() as u64;
                if let (Some(digest), true) = (digest, version.generation == newest.generation) {
                    seen = digest.into();
                }
            }
            if part.damage_count > before {
                part.damaged_generations.push(version.generation);
            }
        }
        Ok(seen)
    }

    /// Reads and checks all blocks of a version; returns their digest where all of them are whole.
    async fn read_blocks(&self, blocks: &Blocks, part: &mut Part) -> Result<Option<Digest>> {
        let version = &blocks.version;
        let mut digest = Digest::default();
        let ordinals = 0..u32::try_from(version.blocks.len()).unwrap_or(u32::MAX);
        let mut add = |block: Digest| {
            digest += block;
            Ok(())
        };
        let bad = blocks.read(self.shared, ordinals, &read::digest(), &mut add).await?;
        for bad in &bad {
            self.found_damage(part, format!("block {} {}", bad.key, bad.what), &bad.key);
        }
        if !bad.is_empty() {
            return Ok(None);
        }
        if version.digest().is_some_and(|recorded| recorded != digest) {
            let key = self.table.keys.manifest(self.id);
            let what = format!(
                "key {key} is altered: generation {} has another digest than its blocks",
                version.generation
            );
            self.found_damage(part, what, &key);
        }
        Ok(Some(digest))
    }

    pub(super) fn blocks_of(&self, version: &Version) -> Blocks {
        Blocks {
            keys: self.table.keys.clone(),
            table: self.table.full_name(),
            table_partition: self.id.to_owned(),
            version: Arc::new(version.clone()),
        }
    }

    /// Measures every block and its expiry; the values themselves stay where they are.
    async fn measure(&self, blocks: &Blocks, part: &mut Part) -> Result<()> {
        let entries = &blocks.version.blocks;
        let ordinals = 0..u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let keys: Vec<String> = ordinals.map(|ordinal| blocks.key(ordinal)).collect();
        let duplicate: &Duplicate = &self.shared.duplicate;
        if self.depth == Depth::Count {
            let lengths = self.shared.patiently(|| duplicate.lengths(&keys)).await?;
            for ((key, entry), length) in keys.iter().zip(entries).zip(lengths) {
                let bytes = entry.bytes();
                let what = match length {
                    0 => format!("block {key} is missing"),
                    length if length != bytes => {
                        format!("block {key} has {length} bytes where its manifest says {bytes}")
                    }
                    _ => continue,
                };
                self.found_damage(part, what, key);
            }
        }
        let expiring = self.shared.patiently(|| duplicate.expiring(&keys)).await?;
        for (key, _) in keys.iter().zip(expiring).filter(|(_, expires)| *expires) {
            self.found_damage(part, format!("block {key} is going to expire"), key);
        }
        Ok(())
    }

    /// BigQuery lists it and the duplicate never had it.
    async fn never_copied(&self, part: &mut Part) -> Result<()> {
        let Some(found) = self.table.listed(self.id) else { return Ok(()) };
        part.rows_in_bigquery = Some(found.rows);
        part.state = State::New;
        let run = self.table.standing.run.as_ref();
        let Some(at_us) = run.map(|run| run.snapshot_us).filter(|_| !self.table.has_windows) else {
            return Ok(());
        };
        if at_us < self.table.oldest_us {
            if found.last_modified_us > at_us {
                self.inconclusive(part, "whether it was there at the last backup cannot be told: bigquery shows no time that old any more".to_owned());
            }
            return Ok(());
        }
        let rows = self.table.count(self.shared, self.id, at_us).await?;
        if rows > 0 && !self.may_have_moved() {
            part.state = State::Missing;
            part.reason =
                Some(format!("{rows} rows were there at the last backup and were not copied"));
            part.hint = Some(self.table.hint_backup(""));
        }
        Ok(())
    }

    fn is_damaged(&self, part: &mut Part) {
        if self.manifest.is_none() {
            // Its blocks are explained by nothing once another manifest is published.
            let recorded = self.table.standing.run.iter().flat_map(|run| &run.table_partitions);
            let recorded = recorded.filter(|recorded| recorded.table_partition == self.id);
            part.damaged_generations.extend(recorded.map(|recorded| recorded.generation));
        }
        let is_same = matches!(part.state, State::Same | State::Changed);
        part.is_repairable = self.table.is_repairable(self.id);
        if is_same && part.is_repairable && part.rows_in_duplicate.is_some() {
            part.reason = Some("bigquery has the rows that its manifest tells of".to_owned());
        }
        part.state = State::Damaged;
        part.hint = Some(Part::hint_damaged(part.is_repairable));
    }

    pub(super) fn inconclusive(&self, part: &mut Part, reason: String) {
        part.state = State::Inconclusive;
        part.reason = Some(reason);
        part.hint = Some(self.table.hint_backup(", then verify again"));
    }

    pub(super) fn hint_lost(&self) -> String {
        let name = self.table.full_name();
        format!(
            "if that was meant: rekindle backup bigquery --accept-loss {name}; if not: {}",
            self.restore()
        )
    }

    /// The restore that would bring the rows of the copy back.
    pub(super) fn restore(&self) -> String {
        let is_named = !self.id.contains(':') && self.id != crate::backup::cut::UNPARTITIONED;
        let which = match (&self.table.route.backup.row_key, is_named) {
            (Some(_), _) => " --fill".to_owned(),
            (None, true) => format!(" --partitions {0}..{0}", self.id),
            (None, false) => String::new(),
        };
        format!("rekindle restore bigquery --route {}{which}", self.table.route.name)
    }

    /// Whether its rows may be in other table partitions now, or those of others here.
    pub(super) fn may_have_moved(&self) -> bool {
        self.table.has_buffer
            && self
                .table
                .source
                .as_ref()
                .is_some_and(|source| source.partitioning.is_by_ingestion())
    }

    fn found_damage(&self, part: &mut Part, what: String, key: &str) {
        part.findings.push(json!({
            "table": self.table.full_name(), "table_partition": self.id, "what": "damaged",
            "key": (!key.is_empty()).then_some(key), "problem": what,
        }));
        part.damaged(what);
    }

    fn note(&self, part: &mut Part) -> Result<()> {
        for finding in std::mem::take(&mut part.findings) {
            self.shared.findings.note(&finding)?;
        }
        if part.state == State::Same {
            return Ok(());
        }
        self.shared.findings.note(&json!({
            "table": self.table.full_name(), "table_partition": self.id, "what": part.state,
            "reason": part.reason,
        }))
    }

    /// Whether a backup has published another version since, which is then looked at instead.
    async fn was_replaced(&mut self) -> Result<bool> {
        let key = self.table.keys.manifest(self.id);
        let text = self.shared.patiently(|| self.shared.duplicate.get(&key)).await?;
        let found = text.and_then(|text| Manifest::parse(&text, self.id).ok());
        let newest = |manifest: &Manifest| manifest.newest().map(|version| version.generation);
        let is_newer = found.as_ref().and_then(newest) > self.manifest.as_ref().and_then(newest);
        if is_newer {
            self.manifest = found;
            self.is_newer = true;
        }
        Ok(is_newer)
    }
}
