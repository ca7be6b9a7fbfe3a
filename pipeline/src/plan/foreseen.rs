//! What is foreseen of a rebuild, and of restores: their time, what would meet the RTO, and the limits that they would meet.
//!
//! Invariant: a time is that of measured runs, else unknown; a rate is then held against the RTO, as the one that meeting it
//! would take.

use super::measured::{of_rebuilds, of_restores};
use super::{FittedTo, MemoryReport, Predicted, WHOLE};
use crate::bench::quotas::{self, Link, OfRestore, Quota};
use crate::bench::{Measured, Needed, RESTORE, Sample, System, Time, Total};
use crate::cli::figures::clock_of_seconds;
use crate::guard::CEILING_PERCENT;
use crate::model::Observation;
use crate::restore::forecast::RestoreForecast;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// A rebuild whose time is asked for.
pub(super) struct Rebuild<'a> {
    /// The folder of evidence.
    pub(super) state: &'a Path,
    /// Whether it reads the archive in place of BigQuery.
    pub(super) from_archive: bool,
    pub(super) routes: &'a [&'a str],
    /// Rows by the statistics of the sources, where all are known.
    pub(super) rows: Option<u64>,
    pub(super) rto_seconds: u64,
    pub(super) memory: &'a MemoryReport,
}

/// What is foreseen of it.
pub(super) struct Foreseen {
    pub(super) predicted: Option<Predicted>,
    pub(super) needed: Option<Needed>,
    pub(super) quotas: Vec<Quota>,
    pub(super) notes: Vec<String>,
}

/// Foresees a rebuild by what was measured of the same routes.
pub(super) fn of_rebuild(asked: &Rebuild<'_>) -> Foreseen {
    let measured = of_rebuilds(asked.state, asked.routes, asked.from_archive);
    let whole: Vec<&Sample> = measured.fitted.iter().filter(|of| of.kind == WHOLE).collect();
    let runs: Vec<Observation> = whole.iter().map(|of| of.observation()).collect();
    let rto = asked.rto_seconds;
    let predicted = asked.rows.and_then(|rows| Predicted::of(&runs, measured.fitted_to, rows, rto));
    let memory = asked.memory;
    let ceiling = CEILING_PERCENT as f64 / 100.0;
    let room = memory
        .limit_bytes
        .map(|limit| quotas::of_memory_added(memory.used_bytes, memory.bytes, limit, ceiling));
    let largest = whole.iter().max_by_key(|of| of.rows);
    let bytes = largest
        .zip(asked.rows)
        .map(|(of, rows)| of.bytes as f64 / of.rows.max(1) as f64 * rows as f64);
    let seconds = predicted.as_ref().map_or(rto as f64, |predicted| predicted.seconds);
    let quotas = quotas::of_rebuild(room, Link::of_machine().as_ref(), (bytes, seconds));
    let runs = Measured { fitted: &measured.fitted, benched: &measured.benched };
    let needed = predicted
        .as_ref()
        .map(|predicted| Needed::of(System::Redis, Time::of(predicted, rto), runs, &quotas));
    let mut notes: Vec<String> =
        predicted.as_ref().and_then(Predicted::warning).into_iter().collect();
    notes.extend(quotas::warnings(&quotas));
    Foreseen { predicted, needed, quotas, notes }
}

/// What is foreseen of the restores of a plan, one table after the other.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RestoresForeseen {
    /// The recovery time objective.
    rto_seconds: u64,
    /// The time of all of them; absent where one has rows that nobody counted, or was not measured.
    predicted: Option<Total>,
    /// Whether that lies within the objective, and no limit would refuse it; absent where the time is unknown.
    within_rto: Option<bool>,
    /// How many lanes, Redis nodes and machines would meet it; absent where the time is unknown.
    needed: Option<Needed>,
    /// Limits that it would meet.
    quotas: Vec<Quota>,
    /// Those that bind.
    notes: Vec<String>,
}

/// Foresees restores by what benches have measured of the same tables. `place` is the location of the datasets.
pub(crate) fn of_restores_of(
    forecasts: &[RestoreForecast],
    state: &Path,
    (lanes, rto_seconds): (usize, u64),
    place: Option<&str>,
) -> RestoresForeseen {
    let is_of = |sample: &Sample| forecasts.iter().any(|of| sample.routes == [of.route.as_str()]);
    let samples: Vec<Sample> = of_restores(state).into_iter().filter(is_of).collect();
    let one = |forecast: &RestoreForecast| {
        let here = |of: &&Sample| of.kind == RESTORE && of.routes == [forecast.route.as_str()];
        let runs: Vec<Observation> = samples.iter().filter(here).map(Sample::observation).collect();
        // A source that does not tell the size of rows is not one without bytes.
        let is_told = runs.iter().all(|run| run.bytes > 0.0);
        let size = (forecast.rows?, forecast.source_bytes.filter(|_| is_told));
        Predicted::of_size(&runs, FittedTo::BenchedRestores, size, rto_seconds)
    };
    let tables = forecasts.iter().map(one).collect::<Option<Vec<Predicted>>>();
    let tables: Option<Vec<&Predicted>> = tables.as_ref().map(|tables| tables.iter().collect());
    let total = tables.as_ref().map(|tables| Total::of(tables));
    let seconds = total.as_ref().map_or(rto_seconds as f64, |total| total.seconds);
    let quotas = limits(forecasts, (lanes, seconds), place);
    let needed = tables.as_ref().map(|tables| {
        let time = Time::of_all(tables, rto_seconds);
        let runs = Measured { fitted: &samples, benched: &samples };
        Needed::of(System::Bigquery, time, runs, &quotas)
    });
    let predicted =
        total.map(|total| Total { limited_seconds: quotas::least_seconds(&quotas), ..total });
    let is_in_time = |of: &Total| of.expected() <= rto_seconds as f64;
    let within_rto = predicted.as_ref().map(|of| is_in_time(of) && !quotas::is_refused(&quotas));
    let notes = quotas::warnings(&quotas);
    RestoresForeseen { rto_seconds, predicted, within_rto, needed, quotas, notes }
}

/// What BigQuery and the link limit of these restores. Bytes that BigQuery did not tell are not counted as none: what is
/// limited of them is left out.
fn limits(
    forecasts: &[RestoreForecast],
    (lanes, seconds): (usize, f64),
    place: Option<&str>,
) -> Vec<Quota> {
    let bytes = forecasts.iter().map(|of| of.source_bytes).sum::<Option<u64>>();
    let counted = || forecasts.iter().map(|of| of.table_partitions.unwrap_or(0));
    let copies = || {
        let of = |forecast: &RestoreForecast| {
            if forecast.is_by_arrival { forecast.table_partitions.unwrap_or(0) } else { 1 }
        };
        forecasts.iter().map(of)
    };
    let largest = forecasts.iter().filter_map(|of| of.largest_bytes).max();
    let mut quotas = quotas::of_restore(
        place,
        &OfRestore {
            bytes: bytes.unwrap_or(0) as f64,
            bytes_of_partition: largest.unwrap_or(0) as f64,
            streams: counted().sum::<u64>() as f64,
            copies: copies().sum::<u64>() as f64,
            copies_of_table: copies().max().unwrap_or(0) as f64,
            lanes: lanes as f64,
            seconds,
        },
    );
    match bytes {
        Some(bytes) => {
            quotas.extend(Link::of_machine().map(|link| link.quota(bytes as f64, seconds)));
        }
        None => quotas.retain(|quota| !quota.unit.starts_with('B')),
    }
    quotas
}

impl RestoresForeseen {
    /// Renders it for people.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: &str| {
            writeln!(text, "{label:<14} {value}").expect("writing to a string cannot fail");
        };
        let time = self.predicted.as_ref().map_or_else(
            || "time unknown: rekindle bench bigquery measures it".to_owned(),
            |total| format!("predicted {}", total.line()),
        );
        let rto = clock_of_seconds(self.rto_seconds as f64);
        line("restore of all", &format!("{time}; RTO {rto}"));
        for told in self.needed.iter().flat_map(|needed| &needed.told) {
            line("  needed", told);
        }
        for quota in &self.quotas {
            line("  limit", &quota.line());
        }
        for note in &self.notes {
            line("  note:", note);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(source_bytes: Option<u64>, table_partitions: u64) -> RestoreForecast {
        RestoreForecast {
            route: "logs".to_owned(),
            table: "d.t".to_owned(),
            state: "ready",
            reason: None,
            data_as_of: None,
            table_partitions: Some(table_partitions),
            rows: Some(1_000),
            stored_bytes: None,
            source_bytes,
            recorded_table: None,
            destination: None,
            publishing: None,
            time_travel: None,
            memory_bound_bytes: None,
            notes: Vec::new(),
            largest_bytes: source_bytes,
            is_by_arrival: true,
        }
    }

    fn foreseen(forecast: RestoreForecast) -> RestoresForeseen {
        let state = tempfile::tempdir().unwrap();
        of_restores_of(&[forecast], state.path(), (4, 3_600), Some("us-central1"))
    }

    #[test]
    fn limits_are_told_without_any_measured_run_by_the_rate_that_the_rto_asks_for() {
        // 2.16 TB in an hour are twice the 300 MB/s of a region.
        let found = foreseen(forecast(Some(2_160_000_000_000), 10));
        assert_eq!((&found.predicted, &found.needed, found.within_rto), (&None, &None, None));
        let appended =
            found.quotas.iter().find(|of| of.name == "rows appended by a project").unwrap();
        assert!((appended.share - 2.0).abs() < 1e-9 && appended.binds, "{appended:?}");
        let text = found.render();
        for part in [
            "restore of all time unknown: rekindle bench bigquery measures it; RTO 01:00:00",
            "  limit        rows appended by a project: 300.0 MB/s, 200 % of it; it BINDS",
            "  note:        a limit binds: rows appended by a project",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // A backup's limit is none of a restore.
        assert!(!text.contains("read session of a backup"), "{text}");
    }

    #[test]
    fn bytes_that_nobody_told_are_not_held_against_a_limit() {
        let found = foreseen(forecast(None, 2_000));
        assert!(found.quotas.iter().all(|of| !of.unit.starts_with('B')), "{:?}", found.quotas);
        // Each table partition by arrival is published by a job of its own.
        let bound = |of: &&Quota| of.binds;
        let binding: Vec<&str> =
            found.quotas.iter().filter(bound).map(|of| of.name.as_str()).collect();
        assert_eq!(binding, ["changes of one table by jobs"]);
    }
}
