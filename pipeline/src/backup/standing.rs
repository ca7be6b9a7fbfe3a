//! What the duplicate has of a table, found through its own documents.
//!
//! Invariant: nothing is searched for by SCAN; a document that is missing or altered is named, and what the others say
//! of it still counts.

use super::decide::InDuplicate;
use schemas::manifest::{Keys, Manifest, Run};
use stages::load::store::{Store, VALUES_MAX};
use stages::{Error, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Everything recorded of one table.
#[derive(Debug, Default)]
pub struct Standing {
    /// The last complete backup.
    pub run: Option<Run>,
    /// Manifests that are whole, by table partition.
    pub manifests: BTreeMap<String, Manifest>,
    /// What is missing or altered, in words, by table partition; the empty name is the record of the backup itself.
    pub damage: BTreeMap<String, String>,
    /// Hashes of recorded tables whose columns the source does not have as they were; whoever copies fills it in.
    pub outdated: BTreeSet<String>,
}

impl Standing {
    /// Reads the documents of a table; `known` names table partitions that may be there besides those recorded.
    pub async fn read(
        duplicate: &dyn Store,
        keys: &Keys,
        known: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let mut standing = Self::default();
        match duplicate.get(&keys.run()).await?.as_deref().map(Run::parse) {
            None => {}
            Some(Ok(run)) => standing.run = Some(run),
            Some(Err(error)) => {
                standing.damage.insert(String::new(), error.to_string());
            }
        }
        let mut names: BTreeSet<String> = known.into_iter().collect();
        let recorded = standing.run.iter().flat_map(|run| &run.table_partitions);
        names.extend(recorded.map(|partition| partition.table_partition.clone()));
        let names: Vec<String> = names.into_iter().collect();
        for slice in names.chunks(VALUES_MAX) {
            let wanted: Vec<String> = slice.iter().map(|name| keys.manifest(name)).collect();
            let found = duplicate.get_some(&wanted).await?;
            for (name, text) in slice.iter().zip(found) {
                standing.take(name, text.as_deref());
            }
        }
        Ok(standing)
    }

    fn take(&mut self, name: &str, text: Option<&[u8]>) {
        let recorded = self.run.iter().flat_map(|run| &run.table_partitions);
        let recorded = recorded.clone().find(|partition| partition.table_partition == name);
        match text.map(|text| Manifest::parse(text, name)) {
            None if recorded.is_none() => {}
            None => {
                let problem = format!("the manifest of table partition {name} is missing");
                self.damage.insert(name.to_owned(), problem);
            }
            Some(Err(error)) => {
                self.damage.insert(name.to_owned(), error.to_string());
            }
            Some(Ok(manifest)) => {
                if recorded.is_some_and(|recorded| !recorded.is_met_by(&manifest)) {
                    let problem =
                        format!("the manifest of table partition {name} is not the one recorded");
                    self.damage.insert(name.to_owned(), problem);
                }
                self.manifests.insert(name.to_owned(), manifest);
            }
        }
    }

    /// Measures every block of the newest versions; the values themselves are not read.
    pub async fn measure(&mut self, duplicate: &dyn Store, keys: &Keys) -> Result<()> {
        for (name, manifest) in &self.manifests {
            let Some(newest) = manifest.newest() else { continue };
            let wanted: Vec<String> = (0..)
                .zip(&newest.blocks)
                .map(|(ordinal, _)| keys.block(name, newest.generation, ordinal))
                .collect();
            let lengths = duplicate.lengths(&wanted).await?;
            let differing: Vec<&String> = wanted
                .iter()
                .zip(&newest.blocks)
                .zip(&lengths)
                .filter(|((_, block), length)| block.bytes() != **length)
                .map(|((key, _), _)| key)
                .collect();
            if let Some(first) = differing.first() {
                let count = differing.len();
                let problem = format!(
                    "{count} of {} blocks of table partition {name} are missing or altered, for example {first}",
                    wanted.len()
                );
                self.damage.insert(name.clone(), problem);
            }
        }
        Ok(())
    }

    /// Returns what the decision needs to know of every table partition.
    pub fn summary(&self) -> BTreeMap<String, InDuplicate> {
        let mut summary = BTreeMap::new();
        if let Some(run) = &self.run {
            for partition in &run.table_partitions {
                let copy = InDuplicate {
                    rows: partition.rows,
                    last_modified_us: i64::MIN,
                    expires_us: None,
                    table_created_ms: run.table_created_ms,
                    is_damaged: true,
                    is_outdated: false,
                };
                summary.insert(partition.table_partition.clone(), copy);
            }
        }
        for (name, manifest) in &self.manifests {
            let Some(newest) = manifest.newest() else { continue };
            let copy = InDuplicate {
                rows: newest.rows,
                last_modified_us: newest.last_modified_us,
                expires_us: newest.expires_us,
                table_created_ms: newest.table_created_ms,
                is_damaged: self.damage.contains_key(name),
                is_outdated: self.outdated.contains(&newest.schema_hash),
            };
            summary.insert(name.clone(), copy);
        }
        summary
    }

    /// Returns the highest generation that any document mentions for a table partition.
    pub fn generation_base(&self, name: &str) -> u64 {
        let recorded = self.run.iter().flat_map(|run| &run.table_partitions);
        let recorded = recorded.filter(|partition| partition.table_partition == name);
        let published = self.manifests.get(name);
        let versions = published.iter().flat_map(|manifest| &manifest.versions);
        let retired = published.iter().flat_map(|manifest| &manifest.retired);
        recorded
            .map(|partition| partition.generation)
            .chain(versions.map(|version| version.generation))
            .chain(retired.map(|(generation, _)| *generation))
            .max()
            .unwrap_or(0)
    }

    /// Returns the creation of the table that the newest copies were read from.
    pub fn table_created_ms(&self) -> Option<i64> {
        let of_run = self.run.as_ref().map(|run| run.table_created_ms);
        of_run.or_else(|| {
            self.manifests.values().filter_map(Manifest::newest).map(|v| v.table_created_ms).min()
        })
    }

    /// Returns every damage as an error that names the place.
    pub fn errors(&self, table: &str) -> Vec<Error> {
        let error = |problem: &String| {
            Error::new(Kind::Difference, format!("the duplicate of {table}: {problem}")).with_hint(
                "what the source still has is copied again by this backup; run: rekindle backup bigquery",
            )
        };
        self.damage.values().map(error).collect()
    }
}
