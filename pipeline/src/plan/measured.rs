//! Measured runs of the same routes on this machine, as the evidence under `--state` has them.
//!
//! Invariant: only whole runs that ended as asked count, from a chain in which nothing was altered; rebuilds and benches are
//! never fitted together.

use super::{FittedTo, WHOLE};
use crate::bench::{self, RESTORE, Sample};
use crate::evidence::{Chain, Evidence, machine};
use crate::rebuild::COMMAND;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Rebuilds that are enough to be preferred to benches: with two terms, one is left to tell the error.
const REBUILDS_MIN: usize = 3;

/// What there is to predict a rebuild from.
#[derive(Debug)]
pub(super) struct MeasuredRebuilds {
    /// Which kind of runs a time is fitted to.
    pub(super) fitted_to: FittedTo,
    /// These runs.
    pub(super) fitted: Vec<Sample>,
    /// Runs of benches, which have tried other numbers of lanes; those into the plan's own Redis where there are any.
    pub(super) benched: Vec<Sample>,
}

/// Evidence of runs on this machine; `None` where it cannot be trusted.
fn of_here(state: &Path) -> Option<Vec<Evidence>> {
    let chain = Chain::of_state(state);
    match chain.faults() {
        Ok(faults) if faults.is_empty() => {}
        Ok(faults) => {
            tracing::warn!(
                file = faults[0].file,
                "evidence was altered: no time is predicted from it"
            );
            return None;
        }
        Err(error) => {
            tracing::warn!(%error, "no time is predicted");
            return None;
        }
    }
    let here = machine();
    let is_here = |evidence: &Evidence| {
        evidence.machine.host == here.host && evidence.machine.cores == here.cores
    };
    let entries = chain.list().ok()?;
    Some(entries.iter().filter_map(|entry| Chain::read(entry).ok()).filter(is_here).collect())
}

/// Finds rebuilds, and benches of rebuilds, of just these routes, which have read an archive or have not.
pub(super) fn of_rebuilds(state: &Path, routes: &[&str], from_archive: bool) -> MeasuredRebuilds {
    let routes: BTreeSet<&str> = routes.iter().copied().collect();
    let (mut rebuilds, mut own, mut benches) = (Vec::new(), Vec::new(), Vec::new());
    let has_read_archive = |evidence: &Evidence| {
        evidence.summary["archive"].as_array().is_some_and(|reads| !reads.is_empty())
    };
    let found = of_here(state).unwrap_or_default().into_iter();
    for evidence in found.filter(|evidence| has_read_archive(evidence) == from_archive) {
        match evidence.command.as_str() {
            COMMAND => rebuilds.extend(rebuild(&evidence, &routes)),
            bench::COMMAND => {
                let is_into_throwaway = evidence.summary["against"].is_null();
                let into = if is_into_throwaway { &mut benches } else { &mut own };
                into.extend(samples(&evidence).into_iter().filter(|of| names(of) == routes));
            }
            _ => {}
        }
    }
    preferred(rebuilds, own, benches)
}

/// Finds restores of single tables by benches, those with other lanes among them.
pub(super) fn of_restores(state: &Path) -> Vec<Sample> {
    let benches = of_here(state).unwrap_or_default().into_iter();
    benches
        .filter(|evidence| evidence.command == bench::COMMAND)
        .flat_map(|evidence| samples(&evidence))
        .filter(|sample| sample.kind.starts_with(RESTORE))
        .collect()
}

fn names(sample: &Sample) -> BTreeSet<&str> {
    sample.routes.iter().map(String::as_str).collect()
}

/// Takes rebuilds where there are enough of them, because they are what is to be predicted, else benches, those into
/// production's own Redis first.
fn preferred(rebuilds: Vec<Sample>, own: Vec<Sample>, throwaway: Vec<Sample>) -> MeasuredRebuilds {
    let is_whole = |sample: &Sample| sample.kind == WHOLE;
    let (fitted_to, benched) = if own.iter().any(is_whole) {
        (FittedTo::OwnBenches, own)
    } else {
        (FittedTo::Benches, throwaway)
    };
    if rebuilds.len() >= REBUILDS_MIN || !benched.iter().any(is_whole) {
        return MeasuredRebuilds { fitted_to: FittedTo::Rebuilds, fitted: rebuilds, benched };
    }
    MeasuredRebuilds { fitted_to, fitted: benched.clone(), benched }
}

/// The runs of a bench that came to its end.
fn samples(evidence: &Evidence) -> Vec<Sample> {
    if evidence.ended.status != "done" {
        return Vec::new();
    }
    let samples = evidence.summary["samples"].clone();
    serde_json::from_value(samples).unwrap_or_else(|error| {
        tracing::warn!(%error, run = evidence.run_id, "no time is predicted from this bench");
        Vec::new()
    })
}

/// A rebuild that was neither resumed nor ended early, as a run of everything.
fn rebuild(evidence: &Evidence, routes: &BTreeSet<&str>) -> Option<Sample> {
    let summary = &evidence.summary;
    let all = summary["routes"].as_array()?;
    let name = |route: &Value| route["name"].as_str().map(str::to_owned);
    let named = all.iter().map(name).collect::<Option<Vec<String>>>()?;
    let is_same = named.iter().map(String::as_str).collect::<BTreeSet<_>>() == *routes;
    let is_whole = evidence.ended.status == "done" && summary["resumed"] == 0;
    if !is_same || !is_whole {
        return None;
    }
    let waited = |route: &&Value| {
        route["bottleneck_share"].as_f64().unwrap_or(0.0) * route["seconds"].as_f64().unwrap_or(0.0)
    };
    let most = all.iter().max_by(|a, b| waited(a).total_cmp(&waited(b)));
    let limit = most.and_then(|route| route["bottleneck"].as_str()).unwrap_or("none");
    let (rows, seconds) = (summary["rows"].as_u64()?, summary["seconds"].as_f64()?);
    Some(Sample {
        kind: WHOLE.to_owned(),
        routes: named,
        rows,
        bytes: summary["bytes"].as_u64()?,
        seconds,
        rows_per_second: rows as f64 / seconds.max(f64::MIN_POSITIVE),
        // A run finds out by itself how many it needs; nothing here asks for them.
        lanes: 0,
        limit: limit.to_owned(),
        limit_share: most.and_then(|route| route["bottleneck_share"].as_f64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: &str, seconds: f64) -> Sample {
        Sample {
            kind: kind.to_owned(),
            routes: vec!["builds".to_owned()],
            rows: 1_000_000,
            bytes: 100_000_000,
            seconds,
            rows_per_second: 1e6 / seconds,
            lanes: 4,
            limit: "target".to_owned(),
            limit_share: None,
        }
    }

    #[test]
    fn rebuilds_are_preferred_where_there_are_enough_of_them_and_nothing_is_mixed() {
        let runs = |seconds: f64, count: usize| vec![sample(WHOLE, seconds); count];
        let chosen = |rebuilds: usize, owns: usize, benches: usize| {
            let found = preferred(runs(6.0, rebuilds), runs(2.0, owns), runs(1.0, benches));
            let expected = match found.fitted_to {
                FittedTo::Rebuilds => 6.0,
                FittedTo::OwnBenches => 2.0,
                _ => 1.0,
            };
            let is_expected = |of: &Sample| (of.seconds - expected).abs() < 1e-9;
            assert!(found.fitted.iter().all(is_expected), "{found:?}");
            (found.fitted_to, found.fitted.len(), found.benched.len())
        };
        assert_eq!(chosen(3, 8, 9), (FittedTo::Rebuilds, 3, 8));
        assert_eq!(chosen(2, 8, 9), (FittedTo::OwnBenches, 8, 8));
        assert_eq!(chosen(2, 0, 9), (FittedTo::Benches, 9, 9));
        assert_eq!(chosen(2, 0, 0), (FittedTo::Rebuilds, 2, 0));
        assert_eq!(chosen(0, 0, 0), (FittedTo::Rebuilds, 0, 0));
    }
}
