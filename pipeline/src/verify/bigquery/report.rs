//! What a verification of BigQuery says: per table partition, per table, and together.
//!
//! Invariant: what is neither the same nor merely newer is named with its state and the next command to type; the
//! verdict of a table is that of its worst part.

mod text;

use super::super::{EXAMPLES_MAX, Verdict};
use super::apart::Apart;
use serde::Serialize;

/// What became of one table partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Both sides agree.
    Same,
    /// BigQuery changed it after it was copied, and the copy was right.
    Changed,
    /// BigQuery made it after the last backup.
    New,
    /// BigQuery let it expire; the copy goes with the next backup.
    Expired,
    /// What could be said needs another look; the reason says why.
    Inconclusive,
    /// BigQuery has fewer rows than the copy.
    Lost,
    /// BigQuery had rows that were never copied.
    Missing,
    /// Rows differ although both sides are whole.
    Different,
    /// Blocks or the manifest are missing or altered.
    Damaged,
}

impl State {
    /// What it makes of the whole.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Same | Self::Changed | Self::New | Self::Expired => Verdict::Pass,
            Self::Inconclusive => Verdict::Inconclusive,
            Self::Lost | Self::Missing | Self::Different | Self::Damaged => Verdict::Fail,
        }
    }
}

/// One table partition.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Part {
    pub(super) table_partition: String,
    pub(super) state: State,
    /// Rows of the newest copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows_in_duplicate: Option<u64>,
    /// Rows in BigQuery at the time of the comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows_in_bigquery: Option<u64>,
    /// The state of BigQuery that was compared, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compared_as_of: Option<String>,
    /// What is missing or altered in Redis: how many, and the first of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) damage_count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) damage: Vec<String>,
    /// Rows that differ, at the time of the comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<Apart>,
    /// Rows that differ from the copy at the pinned time, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Apart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    /// Versions that cannot be restored; a repair removes them when it has copied the table partition again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) damaged_generations: Vec<u64>,
    /// Lines for the file of findings.
    #[serde(skip)]
    pub(super) findings: Vec<serde_json::Value>,
    /// Whether a repair can copy it again from BigQuery.
    #[serde(skip)]
    pub(super) is_repairable: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Part {
    /// A table partition of which nothing is known yet.
    pub(super) fn new(id: &str) -> Self {
        Self {
            table_partition: id.to_owned(),
            state: State::Same,
            rows_in_duplicate: None,
            rows_in_bigquery: None,
            compared_as_of: None,
            damage_count: 0,
            damage: Vec::new(),
            rows: None,
            since: None,
            reason: None,
            hint: None,
            damaged_generations: Vec::new(),
            findings: Vec::new(),
            is_repairable: false,
        }
    }

    /// The next command for one with damage in Redis.
    pub(super) fn hint_damaged(is_repairable: bool) -> String {
        let hint = if is_repairable {
            "rekindle verify bigquery --repair --dry-run shows what would be copied again from bigquery"
        } else {
            "bigquery has fewer rows than its copy; what is left of that: rekindle restore bigquery"
        };
        hint.to_owned()
    }

    /// Adds something missing or altered.
    pub(super) fn damaged(&mut self, what: String) {
        self.damage_count += 1;
        if self.damage.len() < EXAMPLES_MAX {
            self.damage.push(what);
        }
    }
}

/// One table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TableReport {
    pub(super) route: String,
    pub(super) table: String,
    pub(super) verdict: Verdict,
    /// How the duplicate is kept: `blocks`, or `rows` that an application keeps.
    pub(super) kept_as: &'static str,
    /// Up to when everything is in the duplicate, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data_as_of: Option<String>,
    /// Table partitions that were looked at, and those whose rows were read on both sides.
    pub(super) table_partitions: u64,
    pub(super) compared: u64,
    /// Blocks whose bytes were read and checked.
    pub(super) blocks_read: u64,
    /// Rows of the duplicate that were compared one by one or by digest.
    pub(super) rows_compared: u64,
    /// What this would have found.
    pub(super) detects: String,
    /// What is wrong with the table as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<Problem>,
    /// Every table partition that is not the same on both sides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<Part>,
    /// Rows of a route whose rows an application keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<RowsReport>,
    /// Keys under the prefix that no manifest accounts for: how many, and the first of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) unexplained: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unexplained_examples: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

/// Something about a table as a whole.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Problem {
    pub(super) verdict: Verdict,
    pub(super) what: String,
    pub(super) hint: String,
}

/// A route whose rows an application keeps.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct RowsReport {
    pub(super) rows_in_bigquery: u64,
    pub(super) rows_in_redis: u64,
    /// Keys that the rows of BigQuery make, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) distinct_keys: Option<u64>,
    /// Keys of the type and prefix that the template does not fit.
    pub(super) unfit_keys: u64,
    /// Rows of Redis that cannot be read back.
    pub(super) rejects: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) reject_examples: Vec<String>,
    /// Rows that differ and stayed so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<Apart>,
    /// Rows that differed at first and not any more.
    pub(super) settled: u64,
}

impl TableReport {
    /// A table of which nothing is known yet.
    pub(super) fn new(route: &str, table: String, kept_as: &'static str) -> Self {
        Self {
            route: route.to_owned(),
            table,
            verdict: Verdict::Pass,
            kept_as,
            data_as_of: None,
            table_partitions: 0,
            compared: 0,
            blocks_read: 0,
            rows_compared: 0,
            detects: String::new(),
            problems: Vec::new(),
            parts: Vec::new(),
            rows: None,
            unexplained: 0,
            unexplained_examples: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds something about the table as a whole.
    pub(super) fn problem(&mut self, verdict: Verdict, what: String, hint: impl Into<String>) {
        self.problems.push(Problem { verdict, what, hint: hint.into() });
    }

    /// Adds something missing or altered of a table partition that was only counted.
    pub(super) fn damaged(&mut self, id: &str, what: String, is_repairable: bool) {
        let place = self.parts.iter().position(|part| part.table_partition == id);
        let place = place.unwrap_or_else(|| {
            self.parts.push(Part::new(id));
            self.parts.len() - 1
        });
        let part = &mut self.parts[place];
        part.damaged(what);
        part.state = State::Damaged;
        part.is_repairable = is_repairable;
        part.hint = Some(Part::hint_damaged(is_repairable));
    }

    /// Settles the verdict: that of the worst part.
    pub(super) fn judge(&mut self) {
        let parts = self.parts.iter().map(|part| part.state.verdict());
        let problems = self.problems.iter().map(|problem| problem.verdict);
        self.verdict = Verdict::of_all(parts.chain(problems).chain([Verdict::Pass]));
    }
}

/// The whole.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) command: &'static str,
    pub(super) verdict: Verdict,
    pub(super) tier: &'static str,
    /// Where the duplicate is, without credentials.
    pub(super) duplicate: String,
    /// The pinned time, RFC 3339.
    pub(super) as_of: String,
    pub(super) seconds: f64,
    pub(super) peak_rss_bytes: u64,
    /// The seed of the sample.
    pub(super) seed: u64,
    pub(super) tables: Vec<TableReport>,
    /// The file that names everything.
    pub(super) findings: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repair: Option<RepairReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

/// What a repair would write, or has written.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct RepairReport {
    pub(super) dry_run: bool,
    /// Table partitions that are copied again from BigQuery, as `dataset.table$partition`.
    pub(super) copied_again: Vec<String>,
    /// What is not repaired, and why.
    pub(super) left: Vec<String>,
}
