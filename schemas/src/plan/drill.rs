//! `[drill]`: the scratch targets of a restoration test.
//!
//! Invariant: only the form is checked here; whether a target is a production server is found out by asking both, before
//! a drill touches anything.

use super::Secret;
use super::address::redis_problem;
use super::raw::{Fields, Section};

pub(super) const FIELDS: Fields =
    Fields { noun: "field", built: &["redis", "dataset"], refused: &[] };
/// What a name of a dataset is made of.
pub(super) const DATASET_PATTERN: &str = "^[A-Za-z0-9_]{1,1024}$";
const DATASET_LENGTH_MAX: usize = 1024;

/// The `[drill]` section: the scratch targets of a restoration test; at least one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    /// `redis://` or `rediss://` URL of a Redis that may be emptied.
    pub redis: Option<Secret>,
    /// A dataset of BigQuery that may be emptied.
    pub dataset: Option<String>,
}

/// Reads the section. What is returned is used only where no mistake was noted.
pub(super) fn drill(root: &Section<'_>) -> Option<Drill> {
    let section = root.entry("drill")?.section()?;
    section.know(&FIELDS);
    if !section.has("redis") && !section.has("dataset") {
        section.mistake_here("needs \"redis\", \"dataset\" or both".to_owned());
    }
    let redis = section.text("redis");
    if let Some(redis) = &redis
        && let Some(problem) = redis_problem(&redis.value)
    {
        redis.mistake(problem);
    }
    let dataset = section.text("dataset");
    if let Some(dataset) = &dataset
        && !is_dataset(&dataset.value)
    {
        dataset.mistake("must be a dataset's name: letters, digits and underscores");
    }
    Some(Drill {
        redis: redis.map(|redis| Secret(redis.value)),
        dataset: dataset.map(|dataset| dataset.value),
    })
}

fn is_dataset(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= DATASET_LENGTH_MAX && name.chars().all(is_plain)
}
