//! What a bench found: every measured run, the model made of them, and what it says of production.
//!
//! Invariant: every figure is measured, or derived from measured ones and called predicted; nothing is promised beyond the
//! measured sizes without saying so.

use super::keys::Against;
use super::needed::{Measured, Needed, Time};
use super::quotas::{self, Quota};
use super::rebuilds::Trial;
use super::surroundings::Surroundings;
use super::tables::{BACKUP, RESTORE};
use super::widths::{self, NARROW};
use super::{Head, System};
use crate::cli::figures::{bytes, clock_of_seconds, count, per_second, seconds, things};
use crate::model::Observation;
use crate::plan::{FittedTo, PlanReport, Predicted, WHOLE};
use crate::summary::{RouteSummary, Summary};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// One measured run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// `whole` for all routes together, `route` for one alone, or what is different from a rebuild, as `8 lanes` or
    /// `half of its fields`; of tables of BigQuery `backup` or `restore`.
    pub kind: String,
    /// The routes.
    pub routes: Vec<String>,
    /// Rows it carried.
    pub rows: u64,
    /// Source bytes it read.
    pub bytes: u64,
    /// Seconds it took, read-back included.
    pub seconds: f64,
    /// Rows per second of all of that.
    pub rows_per_second: f64,
    /// Partitions at once at most.
    pub lanes: usize,
    /// What its lanes waited for most, as the summary of a rebuild names it.
    pub limit: String,
    /// That wait's share of all, from 0 to 1; absent where it was not measured.
    pub limit_share: Option<f64>,
}

/// How long one route takes alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteModel {
    /// The route.
    pub name: String,
    /// Rows it has, by the statistics of its source.
    pub rows: u64,
    /// Its time alone.
    pub predicted: Predicted,
}

/// What was measured and what it says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// What it begins with.
    #[serde(flatten)]
    pub head: Head,
    /// The recovery time objective.
    pub rto_seconds: u64,
    /// Product and version of the server that was written to.
    pub target: String,
    /// What was written into the plan's own Redis, where it was that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// Every run, in the order they were made.
    pub samples: Vec<Sample>,
    /// Rows of production, by the statistics of its sources.
    pub rows: u64,
    /// What production would add to the target's memory, as far as it is known.
    pub memory_bytes: u64,
    /// A rebuild of everything.
    pub predicted: Predicted,
    /// Whether the rebuild is expected within the RTO, and refused by no limit.
    pub within_rto: bool,
    /// Limits that it would meet.
    pub quotas: Vec<Quota>,
    /// Rows that the RTO has time for; absent where time does not grow with rows.
    pub rows_within_rto: Option<u64>,
    /// Each route alone, where there are several, or where half of its fields were measured too.
    pub models: Vec<RouteModel>,
    /// What would meet the RTO, or what limits the pace where it is met; what has to be done before anything else helps.
    pub advice: String,
    /// How many lanes, Redis nodes and machines would meet the RTO.
    pub needed: Needed,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What this does not show.
    pub not_tested: Vec<String>,
}

impl Sample {
    pub(super) fn of(trial: &Trial, summary: &Summary) -> Self {
        let kind = match (trial.variant.as_str(), trial.is_whole) {
            ("", true) => WHOLE,
            ("", false) => "route",
            (variant, _) => variant,
        };
        Self::of_run(kind.to_owned(), &trial.routes, trial.lanes.most, summary)
    }

    /// Takes what a run has measured.
    pub(super) fn of_run(kind: String, routes: &[String], lanes: usize, summary: &Summary) -> Self {
        let waited = |route: &&RouteSummary| route.bottleneck_share.unwrap_or(0.0) * route.seconds;
        let most = summary.routes.iter().max_by(|a, b| waited(a).total_cmp(&waited(b)));
        Self {
            kind,
            routes: routes.to_vec(),
            rows: summary.rows,
            bytes: summary.bytes,
            seconds: summary.seconds,
            rows_per_second: summary.rows as f64 / summary.seconds.max(f64::MIN_POSITIVE),
            lanes,
            limit: most.map_or_else(|| "none".to_owned(), |route| route.bottleneck.clone()),
            limit_share: most.and_then(|route| route.bottleneck_share),
        }
    }

    /// Writes `1,000,000 rows in 4.10 s, 243,902 rows/s, waited for target 61 %`, and what it is.
    pub fn line(&self) -> String {
        let what = match self.kind.as_str() {
            WHOLE => String::new(),
            "route" => format!("; {} alone", self.routes.join(", ")),
            BACKUP | RESTORE => format!("; {} of {}", self.kind, self.routes.join(", ")),
            NARROW => format!("; {} alone, {NARROW}", self.routes.join(", ")),
            variant => format!("; {variant}"),
        };
        format!(
            "{} rows in {}, {} rows/s, waited for {}{what}",
            count(self.rows),
            seconds(self.seconds),
            per_second(self.rows_per_second),
            self.waited_for()
        )
    }

    /// Writes what its lanes waited for most, with its share where that was measured: `target 61 %`.
    pub(crate) fn waited_for(&self) -> String {
        let share = self.limit_share.map(|share| format!(" {:.0} %", share * 100.0));
        format!("{}{}", self.limit, share.unwrap_or_default())
    }

    pub(crate) fn observation(&self) -> Observation {
        Observation { rows: self.rows as f64, bytes: self.bytes as f64, seconds: self.seconds }
    }
}

impl BenchReport {
    /// Fits the samples; `None` where no sample is of everything.
    pub(super) fn of(
        started_ms: i64,
        planned: &PlanReport,
        samples: Vec<Sample>,
        surroundings: &Surroundings,
    ) -> Option<Self> {
        let rto = planned.rto_seconds;
        let fitted_to = if surroundings.is_own { FittedTo::OwnBenches } else { FittedTo::Benches };
        let of_all = samples.iter().filter(|sample| sample.kind == WHOLE);
        let runs: Vec<Observation> = of_all.map(Sample::observation).collect();
        let rows = planned.routes.iter().filter_map(|route| route.rows_estimate).sum();
        let predicted = Predicted::of(&runs, fitted_to, rows, rto)?;
        let models = widths::models(&samples, planned, fitted_to, rto);
        let mut warnings: Vec<String> = predicted.warning().into_iter().collect();
        warnings.extend(planned.notes.iter().filter(|note| note.starts_with("route ")).cloned());
        warnings.extend(stale(&samples, planned));
        let quotas = surroundings.quotas(&samples, &predicted, planned);
        warnings.extend(quotas::warnings(&quotas));
        warnings.extend(surroundings.unknown.clone());
        let limited = quotas::least_seconds(&quotas);
        let runs = Measured { fitted: &samples, benched: &samples };
        let needed = Needed::of(System::Redis, Time::of(&predicted, rto), runs, &quotas);
        let within_rto =
            predicted.seconds.max(limited) <= rto as f64 && !quotas::is_refused(&quotas);
        Some(Self {
            head: Head::of(started_ms, System::Redis, "done"),
            rto_seconds: rto,
            target: surroundings.version.clone(),
            against: None,
            rows,
            memory_bytes: planned.memory.bytes,
            rows_within_rto: rows_within(&predicted, rto),
            within_rto,
            models,
            advice: quotas::refusal(&quotas).unwrap_or_else(|| needed.told[0].clone()),
            needed,
            quotas,
            warnings,
            not_tested: not_tested(surroundings.is_own),
            predicted,
            samples,
        })
    }

    /// Whether the expected time lies within the RTO, limits of others included.
    pub fn is_met(&self) -> bool {
        self.within_rto
    }

    /// Writes it for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "{name:<12}{value}").expect("writing to a string cannot fail");
        };
        let target = &self.target;
        let into = match &self.against {
            None => format!("a throwaway server of this machine ({target})"),
            Some(Against { address, prefix, removed_keys }) => format!(
                "the plan's own redis at {address} ({target}), under {prefix}*: {} keys, all removed",
                count(*removed_keys)
            ),
        };
        line("bench", &format!("rebuild redis into {into}"));
        for (number, sample) in self.samples.iter().enumerate() {
            line(if number == 0 { "measured" } else { "" }, &sample.line());
        }
        line("model", &model(&self.predicted));
        line("production", &format!("{} rows: {}", count(self.rows), self.predicted.line()));
        let verdict = quotas::verdict(self.is_met(), &self.quotas);
        let margin = self.rto_seconds as f64 - self.predicted.seconds;
        let sign = if margin < 0.0 { "-" } else { "" };
        let rto = clock_of_seconds(self.rto_seconds as f64);
        let margin = clock_of_seconds(margin.abs());
        line("rto", &format!("{rto}: {verdict} by prediction, margin {sign}{margin}"));
        if let Some(rows) = self.rows_within_rto {
            line("", &format!("it has time for about {} rows", count(rows)));
        }
        for (number, quota) in self.quotas.iter().enumerate() {
            line(if number == 0 { "limits" } else { "" }, &quota.line());
        }
        line("memory", &format!("{} in redis, as far as it is known", bytes(self.memory_bytes)));
        for (number, route) in self.models.iter().enumerate() {
            let told = format!(
                "{}, {} rows: {}; {}",
                route.name,
                count(route.rows),
                route.predicted.line(),
                model(&route.predicted)
            );
            line(if number == 0 { "alone" } else { "" }, &told);
        }
        line("advice", &self.advice);
        self.needed.beside(&self.advice).for_each(|told| line("", told));
        for note in self.warnings.iter().chain(&self.not_tested) {
            line("note", note);
        }
        text
    }
}

/// Writes the fitted line with its error.
pub(super) fn model(predicted: &Predicted) -> String {
    let error = predicted.error.map_or_else(
        || "its error is not known".to_owned(),
        |error| format!("error {:.1} %", error * 100.0),
    );
    let of_byte = predicted.seconds_per_byte * 1e9;
    let of_bytes = if of_byte > 0.0 {
        format!(", {of_byte:.3} ns of that for each byte")
    } else {
        String::new()
    };
    format!(
        "{:.2} s + {:.3} us a row{of_bytes}, {error}, {}",
        predicted.start_seconds,
        predicted.seconds_per_row * 1e6,
        things(predicted.runs as u64, "run")
    )
}

fn rows_within(predicted: &Predicted, rto_seconds: u64) -> Option<u64> {
    let left = rto_seconds as f64 - predicted.start_seconds;
    let ungrown = left / predicted.seconds_per_row;
    // The growth is that of more rows than there is time for, so there is time for these.
    let largest = predicted.rows_measured.1 as f64;
    let growth = predicted.fitted_to.growth().factor((0.0, largest), (0.0, ungrown.max(largest)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
    (predicted.seconds_per_row > 0.0).then(|| (ungrown / growth).max(0.0) as u64)
}

/// Statistics that say something else than what was found when all of it was read.
fn stale(samples: &[Sample], planned: &PlanReport) -> Option<String> {
    let expected: u64 = planned.routes.iter().filter_map(|route| route.rows_estimate).sum();
    let largest =
        samples.iter().filter(|sample| sample.kind == WHOLE).max_by_key(|sample| sample.rows)?;
    let is_stale = largest.rows > expected + expected / 5;
    is_stale.then(|| {
        format!(
            "{} rows were read where the statistics tell of {}: they are stale, and the prediction is too low; ANALYZE the tables",
            count(largest.rows),
            count(expected)
        )
    })
}

fn not_tested(is_own: bool) -> Vec<String> {
    let target = if is_own {
        "an empty Redis: what was written to was in use, and under keys of the bench"
    } else {
        "production's own Redis and the network to it: what was written to is a server on this machine"
    };
    [
        target,
        "a source that serves its applications at the same time as the rebuild",
        "the steps around a rebuild (a new instance, network, credentials, repointing the application): UNKNOWN",
    ]
    .map(str::to_owned)
    .to_vec()
}
