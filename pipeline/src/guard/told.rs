//! What a guard tells in the summary of a run.
//!
//! Invariant: what is not known is absent, never 0.

use super::omitted::Omitted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The guard's part of a summary.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GuardSummary {
    /// How often and how long batches were held back, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pauses: BTreeMap<String, Pause>,
    /// What the run would add to the target, by route, as it was projected before the first write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<RouteNeed>,
    /// What was left out because it does not fit, in the order it would have been loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<Omitted>,
}

/// How often and how long batches were held back for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Pause {
    /// Pauses of the run, or, of a rate, batches that waited.
    pub count: u64,
    /// Seconds of all of them; those of batches that waited at once are added up.
    pub seconds: f64,
}

impl Pause {
    pub(super) fn add(&mut self, waited: Duration) {
        self.count += 1;
        self.seconds += waited.as_secs_f64();
    }
}

/// What one route would add to the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteNeed {
    /// Route name.
    pub route: String,
    /// Rows still to be written; absent where the source has no statistics.
    pub rows: Option<u64>,
    /// Bytes that a row adds, the growth of what it replaces; absent where no row could be looked at.
    pub bytes_per_row: Option<u64>,
    /// Both together.
    pub bytes: Option<u64>,
    /// `measured` in the target, or `derived` from its encodings.
    pub how: String,
    /// Rows looked at.
    pub sampled: u64,
    /// Why something is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}
