//! The summary of a run: the object that `--json` prints and people read.
//!
//! Invariant: every figure is measured or read from the journal; what was not proven is not called done.

use crate::coverage::left_out::NotBroughtBack;
use crate::guard::GuardSummary;
use crate::tuning::Tuned;
use crate::wiring::ArchiveRead;
use schemas::drift::Drift;
use serde::{Deserialize, Serialize};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunEnd {
    /// Complete and read back.
    Done,
    /// Complete, not read back because `--no-verify` was given.
    Unverified,
    /// Loaded up to the share that was asked for; what was left out is listed. Resumable.
    Partial,
    /// Stopped by a signal; resumable.
    Interrupted,
    /// Stopped by an error; resumable unless the error says otherwise.
    Failed,
}

/// One run, resumes included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// For example `rebuild redis`.
    pub command: String,
    /// The run's id.
    pub run_id: String,
    /// How it ended.
    pub status: RunEnd,
    /// When the data was lost, RFC 3339.
    pub lost_at: String,
    /// `loss` when `--lost-at` was given, else `start`: the clock then runs from the first start, not from the loss.
    pub clock_from: String,
    /// First start of the run, RFC 3339.
    pub started_at: String,
    /// End of the run, RFC 3339.
    pub ended_at: String,
    /// Seconds this process worked.
    pub seconds: f64,
    /// Seconds from the loss (or first start) to the end.
    pub seconds_since_loss: f64,
    /// The recovery time objective.
    pub rto_seconds: u64,
    /// Whether the end came within it.
    pub within_rto: bool,
    /// Oldest source state that the target now shows, RFC 3339; absent when nothing was read.
    pub data_as_of: Option<String>,
    /// Age of that state at the loss, in seconds; 0 when it is younger.
    pub rpo_seconds: Option<f64>,
    /// Whether that age is within the recovery point objective.
    pub within_rpo: Option<bool>,
    /// Rows read, all attempts, rows read again by a catch-up included.
    pub rows: u64,
    /// Source bytes read.
    pub bytes: u64,
    /// Rows written.
    pub written: u64,
    /// Rows whose existing key was kept.
    pub kept: u64,
    /// Rows skipped because they had expired.
    pub expired: u64,
    /// Rows that could not be carried.
    pub rejects: u64,
    /// Keys removed because their rows were deleted since they were written.
    pub dropped_keys: u64,
    /// Rows this process carried per second of its own time.
    pub rows_per_second: f64,
    /// Peak resident memory of this process.
    pub peak_rss_bytes: u64,
    /// Attempts before this one.
    pub resumed: u32,
    /// What the read-back covered.
    pub verified: Verified,
    /// Seconds from the first start until every route of a priority was complete, by priority.
    pub priorities: Vec<PriorityDone>,
    /// Per route.
    pub routes: Vec<RouteSummary>,
    /// How hashes were written and why; absent where none were.
    #[serde(default)]
    pub way: Option<String>,
    /// How much was on its way at once in the end, and how that was found; absent where it was not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<Tuned>,
    /// How the run was held back, what it needs in the target, and what it left out.
    #[serde(default, flatten)]
    pub guard: GuardSummary,
    /// Which database serves now, where one was built beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_over: Option<CutOverSummary>,
    /// The RDB files that were written, where no server was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSummary>,
    /// What was read from the archive in place of BigQuery, by route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archive: Vec<ArchiveRead>,
    /// What a rebuild leaves out and what is known of it; absent where nothing is rebuilt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_brought_back: Option<NotBroughtBack>,
    /// How tables differ from what they were when they were last read, where the run went on all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<DriftSummary>,
    /// What a person should know although the run ended well.
    pub warnings: Vec<String>,
}

/// What the read-back proved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verified {
    /// `none`, `sample` or `full`.
    pub tier: String,
    /// Keys whose existence was checked.
    pub keys_counted: u64,
    /// Keys whose value and expiry were compared.
    pub keys_compared: u64,
    /// Keys missing or different.
    pub differences: u64,
    /// Keys that hold a newer version than was read, which an application wrote.
    #[serde(default)]
    pub newer: u64,
    /// What the sample would have found, in words.
    pub detects: String,
}

/// An RDB file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSummary {
    /// Where it is.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its keys.
    pub keys: u64,
    /// Those of them that expire.
    pub expiring: u64,
    /// The CRC-64 at its end, in 16 hex digits.
    pub crc64: String,
    /// The slots of its keys, first and last, for example `0-5460`.
    pub slots: String,
    /// Version of the format.
    pub rdb_version: u32,
}

/// A database that was built to take the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOverSummary {
    /// The number by which applications know it.
    pub serving_db: u32,
    /// The number under which it was built; after the swap it holds what served before.
    pub build_db: u32,
    /// Whether they were swapped.
    pub is_swapped: bool,
    /// The command that swaps them (again).
    pub way_back: String,
}

/// One change of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftSummary {
    /// The route that reads it.
    pub route: String,
    /// The table.
    pub table: String,
    /// The column, by its old name.
    pub column: String,
    /// `added`, `dropped`, `renamed`, `retyped`, `replaced`, `relaxed`, `tightened` or `key lost`.
    pub change: String,
    /// The type or name before, where there is one.
    pub from: Option<String>,
    /// The type or name now, where there is one.
    pub to: Option<String>,
    /// Whether the route writes other values than before.
    pub changes_values: bool,
}

impl DriftSummary {
    /// Makes the entry of a change.
    pub fn of(drift: &Drift) -> Self {
        let (from, to) = drift.ends();
        Self {
            route: drift.route.clone(),
            table: drift.table.clone(),
            column: drift.column.clone(),
            change: drift.word().to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            changes_values: drift.harm.is_some(),
        }
    }
}

/// When a priority was complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PriorityDone {
    /// The priority.
    pub priority: u32,
    /// Seconds from the first start of the run.
    pub seconds: f64,
}

/// One route of a summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteSummary {
    /// Route name.
    pub name: String,
    /// Rows read.
    pub rows: u64,
    /// Source bytes read.
    pub bytes: u64,
    /// Partitions, catch-up reads included.
    pub partitions: u64,
    /// Rows written.
    pub written: u64,
    /// Of the rows written, those whose member was in its key already: they made no element of their own.
    #[serde(default)]
    pub folded: u64,
    /// Rows whose existing key was kept.
    pub kept: u64,
    /// Rows skipped because they had expired.
    pub expired: u64,
    /// Rows that could not be carried.
    pub rejects: u64,
    /// Keys removed because their rows were deleted.
    pub dropped_keys: u64,
    /// Sum of the lanes' working time, in seconds.
    pub seconds: f64,
    /// What the lanes waited for most in this process: `source`, `cpu`, `network`, `target`, `limits`, or `none`.
    pub bottleneck: String,
    /// Its share of all that was waited for, from 0 to 1; absent where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck_share: Option<f64>,
    /// How old the route's source state is; absent when nothing was read, and where no source is read.
    #[serde(flatten)]
    pub freshness: Option<Freshness>,
    /// Row digest (32 hex digits) when every row was read once under one snapshot, else absent.
    pub digest: Option<String>,
}

/// How old the source state is that a route shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Freshness {
    /// The state, RFC 3339.
    pub data_as_of: String,
    /// Its age when the run ended, in seconds, the stale window: what changed in the source since is not in Redis,
    /// unless an application wrote it.
    pub stale_seconds: f64,
    /// How far behind the source the last catch-up pass ended, in seconds; absent without `catch_up`.
    #[serde(default)]
    pub lag_seconds: Option<f64>,
    /// Whether a newer version in Redis stays (`on_conflict = "newest"`).
    pub compares_versions: bool,
}
