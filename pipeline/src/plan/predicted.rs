//! How long a run will take, by runs that were measured.
//!
//! Invariant: which kind of runs it was fitted to is said, and sizes beyond the measured ones are called so.

use crate::cli::figures::{clock_of_seconds, count};
use crate::growth::Growth;
use crate::model::{Model, Observation};
use serde::{Deserialize, Serialize};

/// What a sample of a bench is called that was made of all routes together.
pub(crate) const WHOLE: &str = "whole";

/// Which kind of runs a prediction was fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FittedTo {
    /// Rebuilds of the plan's own Redis.
    Rebuilds,
    /// Rebuilds into the plan's own Redis under other keys, by a bench.
    OwnBenches,
    /// Rebuilds into a throwaway server, by a bench.
    #[default]
    Benches,
    /// Backups into a throwaway server, by a bench.
    BenchedBackups,
    /// Restores into a table that was made for them, by a bench.
    BenchedRestores,
}

impl FittedTo {
    /// How what they cost grows with the rows of the target.
    pub(crate) fn growth(self) -> Growth {
        match self {
            Self::Rebuilds | Self::OwnBenches | Self::Benches => Growth::OF_REDIS,
            // Few keys of many rows, and tables.
            Self::BenchedBackups | Self::BenchedRestores => Growth::NONE,
        }
    }

    /// Writes `3 rebuilds` or `6 benches into a throwaway server`.
    pub(crate) fn told(self, runs: usize) -> String {
        let (one, many, into) = match self {
            Self::Rebuilds => ("rebuild", "rebuilds", ""),
            Self::OwnBenches => ("bench", "benches", " into the plan's own redis"),
            Self::Benches => ("bench", "benches", " into a throwaway server"),
            Self::BenchedBackups => ("backup", "backups", " into a throwaway server"),
            Self::BenchedRestores => ("restore", "restores", " into a scratch table"),
        };
        format!("{} {}{into}", count(runs as u64), if runs == 1 { one } else { many })
    }
}

/// A predicted time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// The expected time, in seconds.
    pub seconds: f64,
    /// With 95 % probability not less; absent where there are too few runs to tell.
    pub least_seconds: Option<f64>,
    /// With 95 % probability not more.
    pub most_seconds: Option<f64>,
    /// Seconds of a run without rows, and seconds per row, as the runs have them.
    pub start_seconds: f64,
    /// See `start_seconds`.
    pub seconds_per_row: f64,
    /// The part of it that each byte of a row takes, in seconds per byte; 0 where the runs do not tell bytes from rows.
    #[serde(default)]
    pub seconds_per_byte: f64,
    /// Root mean square of the relative errors of the fit.
    pub error: Option<f64>,
    /// Measured runs.
    pub runs: usize,
    /// What kind of runs these were.
    #[serde(default)]
    pub fitted_to: FittedTo,
    /// Rows of the smallest and of the largest of them.
    pub rows_measured: (u64, u64),
    /// Whether the predicted size lies between these.
    pub is_within: bool,
    /// How many times as much a row is taken to cost as in the largest of them, because the target holds more; 1 within.
    #[serde(default = "ungrown")]
    pub growth: f64,
    /// Whether the expected time lies within the RTO.
    pub within_rto: bool,
    /// Whether the slower end of the interval does; absent where there is none.
    pub surely_within_rto: Option<bool>,
}

/// What earlier versions took for granted.
fn ungrown() -> f64 {
    1.0
}

impl Predicted {
    /// Predicts a run of so many rows from measured ones; `None` where there are none.
    pub(crate) fn of(
        runs: &[Observation],
        fitted_to: FittedTo,
        rows: u64,
        rto_seconds: u64,
    ) -> Option<Self> {
        Self::of_size(runs, fitted_to, (rows, None), rto_seconds)
    }

    /// The same where the bytes of these rows may be known, in the measure of the runs.
    pub(crate) fn of_size(
        runs: &[Observation],
        fitted_to: FittedTo,
        (rows, bytes): (u64, Option<u64>),
        rto_seconds: u64,
    ) -> Option<Self> {
        let model = Model::fit(runs)?.growing(fitted_to.growth());
        let bytes_per_row =
            bytes.map_or(model.bytes_per_row, |bytes| bytes as f64 / rows.max(1) as f64);
        let found = model.predict(rows as f64, rows as f64 * bytes_per_row);
        let rto = rto_seconds as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts of rows"
        )]
        let whole = |value: f64| value as u64;
        Some(Self {
            seconds: found.seconds,
            least_seconds: found.interval.map(|(least, _)| least),
            most_seconds: found.interval.map(|(_, most)| most),
            start_seconds: model.coefficients[0],
            seconds_per_row: model.seconds_per_row(bytes_per_row),
            seconds_per_byte: model.coefficients[2],
            error: model.error,
            runs: model.runs,
            fitted_to,
            rows_measured: (whole(model.range.0), whole(model.range.1)),
            is_within: found.is_within,
            growth: found.growth,
            within_rto: found.seconds <= rto,
            surely_within_rto: found.interval.map(|(_, most)| most <= rto),
        })
    }

    /// Writes `predicted 00:41:10 (00:38:00 to 00:44:20), fitted to 3 rebuilds, of 200,000 to 1,000,000 rows`.
    pub fn line(&self) -> String {
        let interval = match (self.least_seconds, self.most_seconds) {
            (Some(least), Some(most)) => {
                format!(" ({} to {})", clock_of_seconds(least), clock_of_seconds(most))
            }
            _ => " (too few runs to tell how far off that may be)".to_owned(),
        };
        let (least, most) = self.rows_measured;
        let sizes = if least == most {
            count(least)
        } else {
            format!("{} to {}", count(least), count(most))
        };
        let mut beyond = String::new();
        if !self.is_within {
            beyond.push_str("; this size lies beyond what was measured");
        }
        if self.growth >= 1.005 {
            let more = (self.growth - 1.0) * 100.0;
            beyond = format!("{beyond}, and a row is taken to cost {more:.0} % more there");
        }
        format!(
            "predicted {}{interval}, fitted to {}, of {sizes} rows{beyond}",
            clock_of_seconds(self.seconds),
            self.fitted_to.told(self.runs)
        )
    }

    /// What a person should know before the run.
    pub fn warning(&self) -> Option<String> {
        match (self.within_rto, self.surely_within_rto) {
            (false, _) => Some(
                "the RTO would be missed: by what was measured here, the run ends after it"
                    .to_owned(),
            ),
            (true, Some(false)) => {
                Some("the RTO is at risk: it lies within the predicted interval".to_owned())
            }
            (true, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: f64, seconds: f64) -> Observation {
        Observation { rows, bytes: rows * 100.0, seconds }
    }

    #[test]
    fn runs_of_several_sizes_predict_a_larger_one_and_say_that_it_is_larger() {
        let runs = [run(2e5, 2.0), run(5e5, 3.5), run(1e6, 6.0)];
        let found = Predicted::of(&runs, FittedTo::Rebuilds, 10_000_000, 100).unwrap();
        let growth = 10_f64.powf(0.08);
        assert!((found.seconds - (1.0 + 50.0 * growth)).abs() < 1e-6, "{found:?}");
        assert!((found.growth - growth).abs() < 1e-9, "{found:?}");
        assert_eq!(
            (found.runs, found.rows_measured, found.is_within),
            (3, (200_000, 1_000_000), false)
        );
        assert_eq!(
            found.line(),
            "predicted 00:01:01 (00:00:50 to 00:01:11), fitted to 3 rebuilds, of 200,000 to 1,000,000 rows; \
             this size lies beyond what was measured, and a row is taken to cost 20 % more there"
        );
        assert_eq!(
            (found.within_rto, found.surely_within_rto, found.warning()),
            (true, Some(true), None)
        );
        // A restore writes no keys.
        let restore = Predicted::of(&runs, FittedTo::BenchedRestores, 10_000_000, 60).unwrap();
        assert!((restore.seconds - 51.0).abs() < 1e-6, "{restore:?}");
        assert!(restore.line().ends_with("beyond what was measured"), "{}", restore.line());
        let late = Predicted::of(&runs, FittedTo::Rebuilds, 10_000_000, 50).unwrap();
        assert!(late.warning().unwrap().starts_with("the RTO would be missed"));
    }

    #[test]
    fn few_or_unsteady_runs_are_told_to_be_so() {
        let one = Predicted::of(&[run(1e6, 6.0)], FittedTo::Benches, 1_000_000, 60).unwrap();
        assert_eq!(
            one.line(),
            "predicted 00:00:06 (too few runs to tell how far off that may be), fitted to 1 bench into a throwaway server, of 1,000,000 rows"
        );
        assert_eq!((one.surely_within_rto, one.warning()), (None, None));
        let unsteady = [run(1e6, 4.0), run(1e6, 8.0), run(1e6, 6.0)];
        let unsteady = Predicted::of(&unsteady, FittedTo::Benches, 1_000_000, 10).unwrap();
        assert!(unsteady.warning().unwrap().starts_with("the RTO is at risk"), "{unsteady:?}");
        assert_eq!(Predicted::of(&[], FittedTo::Benches, 1, 1), None);
    }

    #[test]
    fn runs_of_two_widths_tell_bytes_from_rows_and_predict_a_width_of_their_own() {
        let truth = |rows: f64, width: f64| Observation {
            rows,
            bytes: rows * width,
            seconds: 1.0 + 3e-6 * rows + 2e-8 * rows * width,
        };
        let runs: Vec<Observation> = [2e5, 5e5, 1e6]
            .iter()
            .flat_map(|rows| [truth(*rows, 100.0), truth(*rows, 60.0)])
            .collect();
        let size = (10_000_000, Some(1_000_000_000));
        let found = Predicted::of_size(&runs, FittedTo::BenchedRestores, size, 60).unwrap();
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-6;
        assert!(near(found.seconds, 51.0), "{found:?}");
        assert!(near(found.seconds_per_row, 5e-6) && near(found.seconds_per_byte, 2e-8));
        // Of rows whose bytes nobody knows, what was measured is the best guess: 80 of them each.
        let guessed = Predicted::of(&runs, FittedTo::BenchedRestores, 10_000_000, 60).unwrap();
        assert!(near(guessed.seconds, 47.0), "{guessed:?}");
    }

    #[test]
    fn a_prediction_of_an_earlier_version_was_made_of_benches() {
        let runs = [run(2e5, 2.0), run(5e5, 3.5)];
        let made = Predicted::of(&runs, FittedTo::Rebuilds, 5, 60).unwrap();
        let mut told = serde_json::to_value(&made).unwrap();
        assert_eq!(told["fitted_to"], "rebuilds");
        told.as_object_mut().unwrap().remove("fitted_to");
        let found: Predicted = serde_json::from_value(told).unwrap();
        assert_eq!(found.fitted_to, FittedTo::Benches);
    }
}
