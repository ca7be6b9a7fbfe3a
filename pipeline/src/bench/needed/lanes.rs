//! The time of a recovery with other numbers of lanes, by benches that have measured them.
//!
//! Invariant: only numbers that were measured are told, each by runs of all the routes, beside runs of the same size.

use crate::bench::Sample;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Runs of at least this share of the largest are of its size.
const SAME_SIZE: f64 = 0.8;
/// The same of runs with other lanes, which are of the largest size, but may cut its part otherwise.
const SAME_SIZE_CUT_ANEW: f64 = 0.5;

/// The time of everything with so many lanes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LaneTime {
    /// Partitions at once.
    pub lanes: usize,
    /// The time that is held against the objective, by as much longer or shorter as the measured runs were.
    pub seconds: f64,
}

/// Scales a time to every number of lanes that was measured, by number. `whole` is what runs with the lanes of a recovery
/// are called; several tables weigh by what their largest runs took.
pub(super) fn measured(samples: &[Sample], whole: &str, seconds: f64) -> Vec<LaneTime> {
    let tables: BTreeSet<&[String]> =
        samples.iter().filter(|of| of.kind == whole).map(|of| of.routes.as_slice()).collect();
    let of_table = |routes: &[String]| -> Option<(f64, BTreeMap<usize, f64>)> {
        let here = || samples.iter().filter(|of| of.routes == routes);
        let most = here().filter(|of| of.kind == whole).map(|of| of.rows).max()? as f64;
        let is_large = |of: &&Sample| {
            let share = if of.kind == whole { SAME_SIZE } else { SAME_SIZE_CUT_ANEW };
            of.rows as f64 >= most * share
        };
        let usual = pace(here().filter(|of| of.kind == whole).filter(is_large))?;
        let tried: BTreeSet<usize> = here().filter_map(|of| lanes_of(of, whole)).collect();
        let with = |lanes: usize| {
            let runs = here().filter(is_large).filter(|of| lanes_of(of, whole) == Some(lanes));
            Some((lanes, pace(runs)? * most))
        };
        Some((usual * most, tried.into_iter().filter_map(with).collect()))
    };
    let Some(tables) = tables.into_iter().map(of_table).collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    let usual: f64 = tables.iter().map(|(usual, _)| usual).sum();
    let Some((_, first)) = tables.first() else { return Vec::new() };
    let time = |lanes: &usize| {
        let all = tables.iter().map(|(_, tried)| tried.get(lanes)).sum::<Option<f64>>()?;
        Some(LaneTime { lanes: *lanes, seconds: seconds * all / usual })
    };
    first.keys().filter_map(time).collect()
}

/// Seconds per row over these runs; `None` where there are none.
fn pace<'a>(runs: impl Iterator<Item = &'a Sample>) -> Option<f64> {
    let (rows, seconds) =
        runs.fold((0.0, 0.0), |(rows, all), of| (rows + of.rows as f64, all + of.seconds));
    (rows > 0.0 && seconds > 0.0).then(|| seconds / rows)
}

/// The lanes of a run that tried them: of `8 lanes`, or of `restore, 8 lanes`.
fn lanes_of(sample: &Sample, whole: &str) -> Option<usize> {
    let kind = sample.kind.strip_suffix(" lanes")?;
    let of_kind = kind.strip_prefix(whole).and_then(|rest| rest.strip_prefix(", "));
    of_kind.unwrap_or(kind).parse().ok()
}
