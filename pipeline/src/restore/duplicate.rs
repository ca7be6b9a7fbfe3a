//! A copy of a table in Redis or in the archive, read only: the record of the last backup, manifests, recorded tables,
//! blocks.
//!
//! Invariant: nothing is found by SCAN here, and nothing is believed that does not match its check; what is missing
//! or altered is named.

use super::Options;
use crate::place::Place;
use crate::wiring;
use futures::stream::{self, StreamExt};
use schemas::manifest::{Keys, Manifest, ManifestError, Run, RunPartition, TableRecord, Version};
use schemas::{Plan, Route};
use stages::extract::redis_values::RedisValues;
use stages::load::store::Values;
use stages::transform::form::Form;
use stages::transform::parquet_file::{key_id, wrong_key};
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Manifests read at once.
const MANIFESTS_AT_ONCE: usize = 16;
/// Keys asked for at once.
const KEYS_MAX: usize = 500;
/// What is named of many damaged things before it is only counted.
pub(super) const NAMED_MAX: usize = 20;
const HINT: &str = "restore an earlier version with --as-of TIME, or what the blocks themselves tell with --from-scan";

/// The duplicate of one route.
#[derive(Clone)]
pub(super) struct Duplicate {
    /// Where it is.
    pub(super) values: Arc<dyn Values>,
    /// The server it is in, to look through; an archive is never looked through.
    redis: Option<RedisValues>,
    /// Whether a file was seen that the key of the plan opens.
    is_key_known: Arc<AtomicBool>,
    /// Its keys.
    pub(super) keys: Keys,
}

/// Returns the error of something missing or altered.
pub(super) fn damaged(message: impl Into<String>) -> Error {
    Error::new(Kind::Difference, message).with_hint(HINT)
}

/// Returns the error of a document that is not as it was written.
pub(super) fn altered(key: &str, error: &ManifestError) -> Error {
    match error {
        ManifestError::Newer { .. } => Error::new(Kind::Internal, format!("key {key}: {error}"))
            .with_hint("use the newer rekindle that wrote this duplicate"),
        ManifestError::Altered { .. } => damaged(format!("key {key}: {error}")),
    }
}

/// Joins the names of what is damaged, the first of many.
pub(super) fn named(what: &[String]) -> String {
    let text = what[..what.len().min(NAMED_MAX)].join("; ");
    match what.len().saturating_sub(NAMED_MAX) {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}

impl Duplicate {
    /// Names the copy of a route that was asked for; nothing is connected yet.
    pub(super) fn asked(plan: &Plan, options: &Options, route: &Route) -> Result<Self> {
        Self::new(plan, options.asked.from, route.key.text(), options.lanes * 2 + 2)
    }

    /// Names the copy of a route; nothing is connected yet.
    pub(super) fn new(plan: &Plan, from: Place, prefix: &str, connections: usize) -> Result<Self> {
        if from == Place::Archive {
            return Ok(Self::of_values(Arc::new(wiring::open_archive(plan)?), prefix));
        }
        let keys = Keys::new(prefix);
        let values = wiring::make_values(plan, connections)?;
        let redis = Some(values.clone());
        Ok(Self { values: Arc::new(values), redis, is_key_known: Arc::default(), keys })
    }

    /// Names a copy that is in an archive.
    pub(super) fn of_values(values: Arc<dyn Values>, prefix: &str) -> Self {
        Self { values, redis: None, is_key_known: Arc::default(), keys: Keys::new(prefix) }
    }

    /// The server that can be looked through.
    pub(super) fn redis(&self) -> Result<&RedisValues> {
        self.redis.as_ref().ok_or_else(|| {
            let message = "files of an archive are found by its manifests only";
            Error::new(Kind::Config, message).with_hint("leave --from-scan away")
        })
    }

    /// Refuses files of another key than the plan has, before anything is written anywhere. One file tells for all:
    /// files of two keys are an exception, which shows where they are read.
    async fn check_key(&self, first: Option<&String>) -> Result<()> {
        let (Form::Parquet(key), Some(first)) = (self.values.form(), first) else { return Ok(()) };
        if self.is_key_known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(file) = self.values.get(first).await? else { return Ok(()) };
        // One that does not tell is altered, which is told by name where it is read.
        let Ok(Some(asked)) = key_id(file) else {
            self.is_key_known.store(true, Ordering::Relaxed);
            return Ok(());
        };
        match key {
            Some(key) if key.id_text() == asked => {
                self.is_key_known.store(true, Ordering::Relaxed);
                Ok(())
            }
            other => Err(wrong_key(&asked, other.as_deref())),
        }
    }

    /// Returns the record of the last complete backup.
    pub(super) async fn run(&self) -> Result<Run> {
        let key = self.keys.run();
        let Some(text) = self.values.get(&key).await? else {
            return Err(damaged(format!(
                "key {key} is missing in {}: there is no record of a complete backup",
                self.values.place()
            )));
        };
        Run::parse(&text).map_err(|error| altered(&key, &error))
    }

    /// Returns the manifest of a table partition: the one that the run record names, or one that came after it.
    pub(super) async fn manifest(&self, entry: &RunPartition) -> Result<Manifest> {
        let partition = &entry.table_partition;
        let key = self.keys.manifest(partition);
        let Some(text) = self.values.get(&key).await? else {
            return Err(damaged(format!(
                "key {key} is missing: the manifest of table partition {partition}"
            )));
        };
        let manifest = Manifest::parse(&text, partition).map_err(|error| altered(&key, &error))?;
        if !entry.is_met_by(&manifest) {
            return Err(damaged(format!(
                "key {key} is altered or older than the last complete backup: it is not the manifest that the record of that backup names"
            )));
        }
        Ok(manifest)
    }

    /// Returns every manifest that the record of a backup names, in its order; all that is damaged is named at once.
    pub(super) async fn manifests(&self, run: &Run) -> Result<Vec<Manifest>> {
        let found: Vec<Result<Manifest>> = stream::iter(&run.table_partitions)
            .map(|entry| self.manifest(entry))
            .buffered(MANIFESTS_AT_ONCE)
            .collect()
            .await;
        let mut manifests = Vec::with_capacity(found.len());
        let mut broken = Vec::new();
        for manifest in found {
            match manifest {
                Ok(manifest) => manifests.push(manifest),
                Err(error) if error.kind() == Kind::Difference => broken.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if broken.is_empty() { Ok(manifests) } else { Err(damaged(named(&broken))) }
    }

    /// Returns a recorded table.
    pub(super) async fn table(&self, schema_hash: &str) -> Result<TableRecord> {
        let key = self.keys.schema(schema_hash);
        let Some(text) = self.values.get(&key).await? else {
            return Err(damaged(format!("key {key} is missing: the recorded table")));
        };
        TableRecord::parse(&text, schema_hash).map_err(|error| altered(&key, &error))
    }

    /// Names every block of a version that is not there or has another length.
    pub(super) async fn missing_blocks(
        &self,
        partition: &str,
        version: &Version,
    ) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (first, entries) in version.blocks.chunks(KEYS_MAX).enumerate() {
            let keys: Vec<String> = (0..entries.len())
                .map(|place| {
                    let ordinal = u32::try_from(first * KEYS_MAX + place).unwrap_or(u32::MAX);
                    self.keys.block(partition, version.generation, ordinal)
                })
                .collect();
            let lengths = self.values.lengths(&keys).await?;
            if first == 0 {
                self.check_key(keys.first()).await?;
            }
            for ((key, entry), length) in keys.iter().zip(entries).zip(lengths) {
                if length == 0 {
                    found.push(format!("block {key} is missing"));
                } else if length != entry.bytes() {
                    found.push(format!(
                        "block {key} has {length} bytes where its manifest says {}",
                        entry.bytes()
                    ));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_damaged_things_the_first_are_named_and_the_rest_counted() {
        let what: Vec<String> = (0..25).map(|number| format!("b{number}")).collect();
        let text = named(&what);
        assert!(text.starts_with("b0; b1") && text.ends_with("b19; and 5 more"), "{text}");
        assert_eq!(named(&what[..2]), "b0; b1");
    }
}
