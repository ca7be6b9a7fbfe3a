//! What a bench of BigQuery found: every measured backup and restore, a model of each table, and what production would take.
//!
//! Invariant: tables are restored one after the other, so their times add up, and so do the ends of their intervals; what a
//! limit of BigQuery makes slower, or refuses, is not called met.

use super::needed::{Measured, Needed, Time};
use super::quotas::{self, Link, OfRestore, Quota};
use super::report::model;
use super::tables::{BACKUP, Known, RESTORE};
use super::{Head, Sample, System};
use crate::cli::figures::{bytes, clock_of_seconds, count, things};
use crate::model::Observation;
use crate::plan::{FittedTo, Predicted};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// How long one table takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableModel {
    /// The route.
    pub route: String,
    /// `dataset.table`.
    pub table: String,
    /// Rows it has, by BigQuery.
    pub rows: u64,
    /// Logical bytes it has, by BigQuery.
    pub bytes: u64,
    /// A backup of all of it into an empty server.
    pub backup: Predicted,
    /// A restore of all of it.
    pub restore: Predicted,
}

/// All tables, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// The expected time.
    pub seconds: f64,
    /// The lower ends of the intervals added up; absent where one has none.
    pub least_seconds: Option<f64>,
    /// The upper ends.
    pub most_seconds: Option<f64>,
    /// The time that a limit of others leaves no less of; 0 where none is known.
    pub limited_seconds: f64,
}

/// What was measured and what it says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TablesReport {
    /// What it begins with.
    #[serde(flatten)]
    pub head: Head,
    /// The recovery time objective.
    pub rto_seconds: u64,
    /// Product and version of the server that held the duplicate.
    pub target: String,
    /// Every run, in the order they were made.
    pub samples: Vec<Sample>,
    /// Rows of production.
    pub rows: u64,
    /// Logical bytes of production.
    pub bytes: u64,
    /// Each table.
    pub tables: Vec<TableModel>,
    /// A backup of all into an empty server.
    pub backup: Total,
    /// A restore of all.
    pub restore: Total,
    /// Whether the restore is expected within the RTO, and refused by no limit.
    pub within_rto: bool,
    /// Limits that a restore of everything would meet.
    pub quotas: Vec<Quota>,
    /// What would meet the RTO, or what limits the pace where it is met; what has to be done before anything else helps.
    pub advice: String,
    /// How many lanes, Redis nodes and machines would meet the RTO.
    pub needed: Needed,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What this does not show.
    pub not_tested: Vec<String>,
}

/// What the samples are held against.
pub(super) struct Settings {
    pub(super) rto_seconds: u64,
    /// Table partitions at once.
    pub(super) lanes: usize,
    /// Product and version of the server that held the duplicate.
    pub(super) target: String,
    pub(super) link: Option<Link>,
}

impl Total {
    /// Adds up the times of tables that are carried one after the other.
    pub(crate) fn of(predicted: &[&Predicted]) -> Self {
        let sum = |end: fn(&Predicted) -> Option<f64>| -> Option<f64> {
            predicted.iter().map(|one| end(one)).sum()
        };
        Self {
            seconds: predicted.iter().map(|one| one.seconds).sum(),
            least_seconds: sum(|one| one.least_seconds),
            most_seconds: sum(|one| one.most_seconds),
            limited_seconds: 0.0,
        }
    }

    /// The expected time, limits of others included.
    pub(crate) fn expected(&self) -> f64 {
        self.seconds.max(self.limited_seconds)
    }

    /// Writes `00:41:10 (00:38:00 to 00:44:20)`, and what a limit makes of it.
    pub(crate) fn line(&self) -> String {
        let interval = match (self.least_seconds, self.most_seconds) {
            (Some(least), Some(most)) => {
                format!(" ({} to {})", clock_of_seconds(least), clock_of_seconds(most))
            }
            _ => " (too few runs to tell how far off that may be)".to_owned(),
        };
        let limited = if self.limited_seconds > self.seconds {
            format!("; a limit makes it {} at least", clock_of_seconds(self.limited_seconds))
        } else {
            String::new()
        };
        format!("{}{interval}{limited}", clock_of_seconds(self.seconds))
    }
}

impl TablesReport {
    /// Fits the samples; `None` where a table has none.
    pub(super) fn of(
        started_ms: i64,
        known: &[Known],
        samples: Vec<Sample>,
        settings: Settings,
        mut warnings: Vec<String>,
    ) -> Option<Self> {
        let Settings { rto_seconds, lanes, target, link } = settings;
        let tables: Vec<TableModel> =
            known.iter().map(|known| table(known, &samples, rto_seconds)).collect::<Option<_>>()?;
        let backups: Vec<&Predicted> = tables.iter().map(|table| &table.backup).collect();
        let restores: Vec<&Predicted> = tables.iter().map(|table| &table.restore).collect();
        let (backup, unlimited) = (Total::of(&backups), Total::of(&restores));
        let location = known.first().and_then(|known| known.location.as_deref());
        let mut quotas = quotas::of_restore(location, &asks(known, lanes, unlimited.seconds));
        quotas.extend(quotas::of_backup());
        let bytes: u64 = known.iter().map(|known| known.bytes).sum();
        quotas.extend(link.map(|link| link.quota(bytes as f64, unlimited.seconds)));
        let runs = Measured { fitted: &samples, benched: &samples };
        let time = Time::of_all(&restores, rto_seconds);
        let needed = Needed::of(System::Bigquery, time, runs, &quotas);
        let restore = Total { limited_seconds: quotas::least_seconds(&quotas), ..unlimited };
        let within_rto = restore.expected() <= rto_seconds as f64 && !quotas::is_refused(&quotas);
        warnings.extend(quotas::warnings(&quotas));
        if tables.iter().any(|table| !table.restore.is_within) {
            warnings.push(
                "production is larger than what was measured: its time is an extrapolation"
                    .to_owned(),
            );
        }
        Some(Self {
            head: Head::of(started_ms, System::Bigquery, "done"),
            rto_seconds,
            target,
            rows: known.iter().map(|known| known.rows).sum(),
            bytes,
            advice: quotas::refusal(&quotas).unwrap_or_else(|| needed.told[0].clone()),
            needed,
            samples,
            tables,
            backup,
            restore,
            within_rto,
            quotas,
            warnings,
            not_tested: not_tested(),
        })
    }

    /// Whether everything is expected to be back within the RTO.
    pub fn is_met(&self) -> bool {
        self.within_rto
    }

    /// Writes it for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "{name:<12}{value}").expect("writing to a string cannot fail");
        };
        line(
            "bench",
            &format!(
                "backup and restore of bigquery through a throwaway server of this machine ({})",
                self.target
            ),
        );
        for (number, sample) in self.samples.iter().enumerate() {
            line(if number == 0 { "measured" } else { "" }, &sample.line());
        }
        for table in &self.tables {
            let TableModel { table: name, rows, bytes: size, backup, restore, .. } = table;
            line("table", &format!("{name}, {} rows, {}", count(*rows), bytes(*size)));
            line("", &format!("backup {}; {}", backup.line(), model(backup)));
            line("", &format!("restore {}; {}", restore.line(), model(restore)));
        }
        let tables = things(self.tables.len() as u64, "table");
        let all = format!("{} rows in {tables}", count(self.rows));
        line("production", &format!("{all}: backup {}", self.backup.line()));
        line("", &format!("restore {}", self.restore.line()));
        let verdict = quotas::verdict(self.within_rto, &self.quotas);
        let rto = clock_of_seconds(self.rto_seconds as f64);
        line("rto", &format!("{rto}: {verdict} by prediction"));
        for (number, quota) in self.quotas.iter().enumerate() {
            line(if number == 0 { "limits" } else { "" }, &quota.line());
        }
        line("advice", &self.advice);
        self.needed.beside(&self.advice).for_each(|told| line("", told));
        for note in self.warnings.iter().chain(&self.not_tested) {
            line("note", note);
        }
        text
    }
}

fn table(known: &Known, samples: &[Sample], rto_seconds: u64) -> Option<TableModel> {
    let fitted = |kind: &str, fitted_to: FittedTo| {
        let is_of =
            |sample: &&Sample| sample.kind == kind && sample.routes == [known.route.as_str()];
        let runs: Vec<Observation> =
            samples.iter().filter(is_of).map(Sample::observation).collect();
        // A source that does not tell the size of rows is not one without bytes.
        let is_told = known.bytes > 0 && runs.iter().all(|run| run.bytes > 0.0);
        let size = (known.rows, is_told.then_some(known.bytes));
        Predicted::of_size(&runs, fitted_to, size, rto_seconds)
    };
    Some(TableModel {
        route: known.route.clone(),
        table: known.table.clone(),
        rows: known.rows,
        bytes: known.bytes,
        backup: fitted(BACKUP, FittedTo::BenchedBackups)?,
        restore: fitted(RESTORE, FittedTo::BenchedRestores)?,
    })
}

/// What a restore of all would ask of BigQuery.
fn asks(known: &[Known], lanes: usize, seconds: f64) -> OfRestore {
    let copies = |known: &Known| if known.is_by_arrival { known.table_partitions } else { 1 };
    let most = |of: fn(&Known) -> u64| known.iter().map(of).max().unwrap_or(0) as f64;
    OfRestore {
        bytes: known.iter().map(|known| known.bytes).sum::<u64>() as f64,
        bytes_of_partition: most(|known| known.bytes_of_partition),
        streams: known.iter().map(|known| known.table_partitions).sum::<u64>() as f64,
        copies: known.iter().map(copies).sum::<u64>() as f64,
        copies_of_table: known.iter().map(copies).max().unwrap_or(0) as f64,
        lanes: lanes as f64,
        seconds,
    }
}

fn not_tested() -> Vec<String> {
    [
        "production's own Redis and the network to it: the duplicate was in a server on this machine",
        "rows that an application keeps in Redis: only blocks were measured",
        "the steps around a restore (credentials, writers, views and policies of datasets): UNKNOWN",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::now_ms;

    fn sample(kind: &str, rows: u64, seconds: f64) -> Sample {
        Sample {
            kind: kind.to_owned(),
            routes: vec!["logs".to_owned()],
            rows,
            bytes: rows * 100,
            seconds,
            rows_per_second: rows as f64 / seconds,
            lanes: 4,
            limit: "target".to_owned(),
            limit_share: None,
        }
    }

    fn known(rows: u64) -> Known {
        Known {
            route: "logs".to_owned(),
            table: "d.t".to_owned(),
            location: Some("us-central1".to_owned()),
            rows,
            bytes: rows * 100,
            table_partitions: 10,
            bytes_of_partition: rows * 10,
            is_by_arrival: false,
            sizes: Vec::new(),
        }
    }

    fn samples() -> Vec<Sample> {
        [(200_000, 2.0), (500_000, 3.5), (1_000_000, 6.0)]
            .into_iter()
            .flat_map(|(rows, seconds)| {
                [sample(BACKUP, rows, seconds / 2.0), sample(RESTORE, rows, seconds)]
            })
            .collect()
    }

    fn of(known: &[Known], rto_seconds: u64) -> Option<TablesReport> {
        let target = "Redis 7".to_owned();
        let settings = Settings { rto_seconds, lanes: 4, target, link: None };
        TablesReport::of(now_ms(), known, samples(), settings, Vec::new())
    }

    #[test]
    fn a_table_is_predicted_from_its_own_runs_and_the_rto_is_that_of_the_restore() {
        let report = of(&[known(10_000_000)], 60).unwrap();
        assert!((report.restore.seconds - 51.0).abs() < 1e-6, "{:?}", report.restore);
        assert!((report.backup.seconds - 25.5).abs() < 1e-6, "{:?}", report.backup);
        assert!(report.is_met() && !report.tables[0].restore.is_within);
        let text = report.render();
        for part in [
            "d.t, 10,000,000 rows, 1.0 GB",
            "fitted to 3 restores into a scratch table, of 200,000 to 1,000,000 rows",
            "fitted to 3 backups into a throwaway server",
            "rto         00:01:00: met by prediction",
            "rows appended by a project: 300.0 MB/s, 7 % of it",
            "an extrapolation",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!of(&[known(10_000_000)], 50).unwrap().is_met());
        // A table without runs of its own is not predicted from those of others.
        let other = Known { route: "other".to_owned(), ..known(5) };
        assert_eq!(of(&[known(5), other], 60), None);
    }

    #[test]
    fn a_limit_that_binds_is_told_and_counts() {
        // 3 TB at 300 MB/s are 10,000 s; a table partition of 300 GB does not fit into pending streams.
        let mut large = known(10_000_000);
        (large.bytes, large.bytes_of_partition) = (3_000_000_000_000, 1_000_000_000);
        let report = of(std::slice::from_ref(&large), 9_000).unwrap();
        assert!(report.restore.limited_seconds >= 10_000.0 && !report.is_met(), "{report:?}");
        assert!(report.advice.contains("before the limit that binds is raised"));
        assert!(report.warnings[0].starts_with("a limit binds: rows appended by a project"));
        large.bytes_of_partition = 300_000_000_000;
        let report = of(&[large], 86_400).unwrap();
        assert!(report.restore.expected() < 86_400.0 && !report.is_met(), "{report:?}");
        assert!(report.advice.ends_with("bytes in streams that are not committed yet"));
        assert!(report.render().contains("REFUSED by a limit, by prediction"));
    }
}
