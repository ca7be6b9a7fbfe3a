//! What a verification of Redis found: the object of `--json`, and its text.
//!
//! Invariant: keys are named, values never; what was not looked for is absent, not 0.

use super::judge::Difference;
use super::page::Tally;
use super::repair::Repaired;
use crate::cli::figures::{count, seconds, things};
use crate::verify::{EXAMPLES_MAX, Verdict};
use serde::Serialize;
use std::fmt::Write as _;

/// A verification of Redis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `verify redis`.
    pub command: &'static str,
    /// The id of this verification.
    pub run_id: String,
    /// What it comes to.
    pub status: Verdict,
    /// `count`, `sample` or `full`.
    pub tier: &'static str,
    /// What the comparison would have found, in words.
    pub detects: String,
    /// The number to give to `--seed` to take the same sample; absent where none was taken.
    pub seed: Option<u64>,
    /// Where Redis is.
    pub target: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: String,
    /// Seconds it took.
    pub seconds: f64,
    /// Oldest state of a source that was compared, RFC 3339.
    pub data_as_of: Option<String>,
    /// Everything counted over all routes.
    #[serde(flatten)]
    pub total: Counted,
    /// Rows per second.
    pub rows_per_second: f64,
    /// Peak resident memory of this process.
    pub peak_rss_bytes: u64,
    /// The file that names every key that differs; absent where none does.
    pub findings: Option<String>,
    /// What a repair wrote, or would write.
    pub repair: Option<Repaired>,
    /// Per route.
    pub routes: Vec<RouteReport>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counted {
    /// Rows read.
    pub rows: u64,
    /// Bytes read of the source.
    pub bytes: u64,
    /// Rows that could not be carried: no key is expected of them.
    pub rejects: u64,
    /// Keys asked for.
    pub keys: u64,
    /// Keys whose values were compared.
    pub compared: u64,
    /// Rows that have expired and whose key is gone.
    pub expired: u64,
    /// Keys that hold something else, which the route keeps.
    pub kept: u64,
    /// Keys that hold a newer version than their row, which an application wrote.
    pub newer: u64,
    /// Keys that differed at first and agreed when they were looked at again.
    pub settled: u64,
    /// Rows without a key.
    pub missing: u64,
    /// Keys with another value.
    pub different_value: u64,
    /// Keys with the right value and another expiry.
    pub different_expiry: u64,
    /// Keys with another value, whose version cannot be read.
    pub unreadable: u64,
    /// Keys that no row explains; absent where they were not looked for and none was met.
    pub unexplained: Option<u64>,
    /// Keys that kept changing.
    pub moving: u64,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteReport {
    /// The route.
    pub name: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// What was counted.
    #[serde(flatten)]
    pub counted: Counted,
    /// Partitions read.
    pub partitions: u64,
    /// Some of the keys that differ.
    pub examples: Vec<Example>,
    /// Why it is inconclusive although no key moved.
    pub unproven: Option<String>,
}

/// A key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The key.
    pub key: String,
    /// How it differs.
    pub difference: Difference,
    /// The ids of its entries that differ, where it is a stream of many rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The fields that differ, where the layout has fields and the value does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

impl Counted {
    /// Takes what was counted on the way.
    pub(super) fn take(&mut self, tally: &Tally) {
        self.rows += tally.rows;
        self.bytes += tally.bytes;
        self.rejects += tally.rejects;
        self.keys += tally.keys;
        self.compared += tally.compared;
        self.expired += tally.expired;
        self.kept += tally.kept;
        self.newer += tally.newer;
    }

    /// Counts a key that differs.
    pub(super) fn differ(&mut self, difference: Difference) {
        match difference {
            Difference::Missing => self.missing += 1,
            Difference::Value => self.different_value += 1,
            Difference::Expiry => self.different_expiry += 1,
            Difference::Unreadable => self.unreadable += 1,
            Difference::Unexplained => *self.unexplained.get_or_insert(0) += 1,
            Difference::Moving => self.moving += 1,
        }
    }

    /// Returns how many keys differ in this way.
    pub fn of(&self, difference: Difference) -> u64 {
        match difference {
            Difference::Missing => self.missing,
            Difference::Value => self.different_value,
            Difference::Expiry => self.different_expiry,
            Difference::Unreadable => self.unreadable,
            Difference::Unexplained => self.unexplained.unwrap_or(0),
            Difference::Moving => self.moving,
        }
    }

    /// Adds another route.
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.rejects += other.rejects;
        self.keys += other.keys;
        self.compared += other.compared;
        self.expired += other.expired;
        self.kept += other.kept;
        self.newer += other.newer;
        self.settled += other.settled;
        self.missing += other.missing;
        self.different_value += other.different_value;
        self.different_expiry += other.different_expiry;
        self.unreadable += other.unreadable;
        if let Some(unexplained) = other.unexplained {
            *self.unexplained.get_or_insert(0) += unexplained;
        }
        self.moving += other.moving;
    }

    /// Returns what the counts come to.
    pub(super) fn verdict(&self) -> Verdict {
        let differs = |difference: &Difference| self.of(*difference) > 0;
        let mut for_good = Difference::ALL.iter().filter(|d| **d != Difference::Moving);
        if for_good.any(differs) {
            Verdict::Fail
        } else if self.moving > 0 {
            Verdict::Inconclusive
        } else {
            Verdict::Pass
        }
    }

    fn told(&self) -> String {
        let mut parts =
            vec![things(self.rows, "row"), format!("{} asked for", things(self.keys, "key"))];
        let mut tell = |number: u64, what: &str| {
            if number > 0 {
                parts.push(format!("{} {what}", count(number)));
            }
        };
        tell(self.compared, "values compared");
        tell(self.expired, "expired");
        tell(self.kept, "kept");
        tell(self.newer, "newer");
        tell(self.rejects, "rejected");
        tell(self.settled, "settled");
        for difference in Difference::ALL {
            tell(self.of(difference), difference.told());
        }
        parts.join(", ")
    }
}

impl RouteReport {
    /// Makes the report of a route that was not looked at yet.
    pub(super) fn new(name: &str, looks_for_unexplained: bool) -> Self {
        let counted =
            Counted { unexplained: looks_for_unexplained.then_some(0), ..Counted::default() };
        Self {
            name: name.to_owned(),
            verdict: Verdict::Inconclusive,
            counted,
            partitions: 0,
            examples: Vec::new(),
            unproven: None,
        }
    }

    /// Counts a key that differs, and names the first ones of each kind.
    pub(super) fn differ(&mut self, difference: Difference, key: &[u8]) {
        if self.counted.of(difference) < EXAMPLES_MAX as u64 {
            let key = String::from_utf8_lossy(key).into_owned();
            self.examples.push(Example { key, difference, entry: None, fields: Vec::new() });
        }
        self.counted.differ(difference);
    }

    /// Names the first entries of each kind; they are counted apart.
    pub(super) fn name_entry(&mut self, difference: Difference, key: &[u8], ids: Option<&str>) {
        let of_kind = self.examples.iter().filter(|example| example.difference == difference);
        if of_kind.count() < EXAMPLES_MAX {
            let key = String::from_utf8_lossy(key).into_owned();
            let entry = ids.map(str::to_owned);
            self.examples.push(Example { key, difference, entry, fields: Vec::new() });
        }
    }

    /// Decides, once everything is known.
    pub(super) fn conclude(&mut self) {
        self.verdict = self.counted.verdict();
        if self.unproven.is_some() {
            self.verdict = self.verdict.max(Verdict::Inconclusive);
        }
    }
}

impl Example {
    fn told(&self) -> String {
        if let Some(entry) = &self.entry {
            format!("{} {entry}", self.key)
        } else if self.fields.is_empty() {
            self.key.clone()
        } else {
            format!("{} ({})", self.key, self.fields.join(", "))
        }
    }
}

impl Report {
    /// Writes the text for people.
    pub(super) fn render(&self) -> String {
        let mut text = format!(
            "verify redis: {}, tier {}, {} in {}\n",
            self.status.word(),
            self.tier,
            self.target,
            seconds(self.seconds)
        );
        let width = self.routes.iter().map(|route| route.name.chars().count()).max().unwrap_or(0);
        for route in &self.routes {
            let (name, verdict) = (&route.name, route.verdict.word());
            line(&mut text, &format!("  {name:width$}  {verdict:12}  {}", route.counted.told()));
            if let Some(reason) = &route.unproven {
                line(&mut text, &format!("    not proven: {reason}"));
            }
            for difference in Difference::ALL {
                let examples: Vec<String> = route
                    .examples
                    .iter()
                    .filter(|example| example.difference == difference)
                    .map(Example::told)
                    .collect();
                let more = route.counted.of(difference) - examples.len() as u64;
                let more = (more > 0).then(|| format!(" and {} more", count(more)));
                if !examples.is_empty() {
                    let (told, examples) = (difference.told(), examples.join(", "));
                    line(&mut text, &format!("    {told}: {examples}{}", more.unwrap_or_default()));
                }
            }
        }
        line(&mut text, &format!("  it would have found: {}", self.detects));
        if let Some(seed) = self.seed {
            line(&mut text, &format!("  the same sample again: --seed {seed}"));
        }
        if let Some(path) = &self.findings {
            line(&mut text, &format!("  every key that differs is named in {path}"));
        }
        if let Some(repair) = &self.repair {
            line(&mut text, &format!("  {}", repair.told()));
        }
        for warning in &self.warnings {
            line(&mut text, &format!("  warning: {warning}"));
        }
        text
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}
