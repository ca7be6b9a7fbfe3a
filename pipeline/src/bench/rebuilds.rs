//! `rekindle bench`: rebuilds of parts of the tables, each into a server that is empty, or under keys of its own.
//!
//! Invariant: a sample is a rebuild that was done and read back; what it wrote is gone before the next one begins, whatever
//! became of it.

use super::keys::{OwnKeys, check_room};
use super::report::{BenchReport, Sample};
use super::sizes::{Size, sizes};
use super::surroundings::Surroundings;
use super::widths::{NARROW, narrow, with_fields};
use super::{Bench, Benched, Found, System, unwatched};
use crate::lane::now_ms;
use crate::outcome::Exit;
use crate::plan::{PlanReport, RouteReport, plan_rebuild};
use crate::rebuild::{Ended, Options, rebuild_redis};
use crate::share::Share;
use crate::summary::{RunEnd, Summary};
use crate::tuning::Lanes;
use schemas::Plan;
use schemas::plan::FieldSpec;
use stages::{Error, Kind};
use std::path::Path;

/// What a measured run is one of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trial {
    /// All routes together, or one alone.
    pub(super) routes: Vec<String>,
    /// Whether these are all.
    pub(super) is_whole: bool,
    /// Which part of their tables; `None` for all of it.
    pub(super) share: Option<Share>,
    /// What is different from a rebuild; empty for none.
    pub(super) variant: String,
    pub(super) lanes: Lanes,
    /// The fields of the one route, where it does not have all of them.
    pub(super) fields: Option<Vec<FieldSpec>>,
}

impl Trial {
    /// The plan with the fields that are measured.
    fn of_plan(&self, plan: Plan) -> Plan {
        match (&self.fields, self.routes.first()) {
            (Some(fields), Some(route)) => with_fields(&plan, route, fields),
            _ => plan,
        }
    }
}

/// Keys that were taken away again.
#[derive(Default)]
struct Removed {
    keys: u64,
    /// Whether some could not be.
    is_short: bool,
}

pub(super) async fn run(bench: &Bench<'_>) -> Benched {
    let mut removed = Removed::default();
    let mut benched = Box::pin(measure(bench, &mut removed)).await;
    // What could not be removed stays noted, for the next bench.
    let Some(own) = bench.own.as_ref().filter(|_| !removed.is_short) else { return benched };
    match own.end(removed.keys) {
        Ok(against) => {
            if let Some(Found::Redis(report)) = &mut benched.report {
                report.against = Some(against);
            }
        }
        Err(error) => {
            benched.exits.push(Exit::of_kind(error.kind()));
            benched.errors.push(error);
        }
    }
    benched
}

async fn measure(bench: &Bench<'_>, removed: &mut Removed) -> Benched {
    let started_ms = now_ms();
    let planned = match planned(bench).await {
        Ok(planned) => planned,
        Err(errors) => return Benched::failed(errors),
    };
    let known: Vec<(&str, Option<u64>)> =
        planned.routes.iter().map(|route| (route.name.as_str(), route.rows_estimate)).collect();
    let sizes = match sizes(&known, &bench.asked.rows) {
        Ok(sizes) => sizes,
        Err(errors) => return Benched::failed(errors),
    };
    if bench.own.is_some()
        && let Err(error) = check_room(&planned, largest_share(&known, &sizes))
    {
        return Benched::failed(vec![error]);
    }
    if bench.asked.widths && halves(bench, &planned).is_empty() {
        let message =
            "no route has fields of which half could be left out, so --widths measures nothing";
        let hint = "leave --widths out, or name another route with --route";
        return Benched::failed(vec![Error::new(Kind::Config, message).with_hint(hint)]);
    }
    let trials = trials(bench, &planned, &sizes);
    let mut samples = Vec::new();
    for (number, trial) in trials.iter().enumerate() {
        let summary = match measured(bench, number, trial, removed).await {
            Ok(summary) => summary,
            Err(ended) => return ended.after(started_ms, System::Redis, samples, trials.len()),
        };
        let sample = Sample::of(trial, &summary);
        (bench.tell)(&format!("{:>2} of {}: {}", number + 1, trials.len(), sample.line()));
        samples.push(sample);
    }
    let version = planned.target.version.clone();
    let around = Surroundings::look(bench.plan, version, bench.own.is_some()).await;
    let Some(report) = BenchReport::of(started_ms, &planned, samples, &around) else {
        let message = "no measured run took any time or carried any row";
        let error = Error::new(Kind::Config, message)
            .with_hint("look whether the tables have rows: rekindle plan --sample 1");
        return Benched::failed(vec![error]).after(
            started_ms,
            System::Redis,
            Vec::new(),
            trials.len(),
        );
    };
    Benched::found(Found::Redis(Box::new(report)))
}

/// The part of all rows that the largest size is.
fn largest_share(known: &[(&str, Option<u64>)], sizes: &[Size]) -> f64 {
    let all: u64 = known.iter().filter_map(|(_, rows)| *rows).sum();
    let largest = sizes.iter().map(|size| size.rows).max().unwrap_or(all);
    largest as f64 / all.max(1) as f64
}

/// What a rebuild of everything would do.
async fn planned(bench: &Bench<'_>) -> Result<PlanReport, Vec<Error>> {
    if let Some(own) = &bench.own {
        return plan_rebuild(own.plan(), bench.options).await;
    }
    let server = bench.server().await.map_err(|error| vec![error])?;
    let plan = Plan { redis: Some(server.url().clone()), ..bench.plan.clone() };
    let planned = plan_rebuild(&plan, bench.options).await;
    server.end().await;
    planned
}

/// Sizes in turn, so that a machine that slows down meanwhile slows all of them; then each route alone, then lanes.
fn trials(bench: &Bench<'_>, planned: &PlanReport, sizes: &[Size]) -> Vec<Trial> {
    let all: Vec<String> = planned.routes.iter().map(|route| route.name.clone()).collect();
    let trial = |routes: &[String], size: &Size| Trial {
        routes: routes.to_vec(),
        is_whole: routes.len() == all.len(),
        share: size.share,
        variant: String::new(),
        lanes: bench.options.lanes,
        fields: None,
    };
    let mut trials: Vec<Trial> =
        (0..bench.asked.repeats).flat_map(|_| sizes.iter()).map(|size| trial(&all, size)).collect();
    if all.len() > 1 {
        let alone = all
            .iter()
            .flat_map(|route| sizes.iter().map(|size| trial(std::slice::from_ref(route), size)));
        trials.extend(alone);
    }
    for (name, fields) in halves(bench, planned) {
        let of_half = |size: &Size| Trial {
            variant: NARROW.to_owned(),
            fields: Some(fields.clone()),
            ..trial(std::slice::from_ref(&name), size)
        };
        trials.extend(sizes.iter().map(of_half));
    }
    if let Some(largest) = sizes.last() {
        trials.extend(bench.asked.lanes.iter().map(|lanes| Trial {
            variant: format!("{lanes} lanes"),
            lanes: Lanes::fixed(*lanes),
            ..trial(&all, largest)
        }));
    }
    trials
}

/// Routes with half of their fields, where these are to be measured.
fn halves(bench: &Bench<'_>, planned: &PlanReport) -> Vec<(String, Vec<FieldSpec>)> {
    let half = |report: &RouteReport| {
        let route = bench.plan.routes.iter().find(|route| route.name == report.name)?;
        Some((route.name.clone(), narrow(route, report)?))
    };
    let asked = planned.routes.iter().filter(|_| bench.asked.widths);
    asked.filter_map(half).collect()
}

/// Rebuilds a part, and takes away what it wrote; anything but a proven end is one of the bench.
async fn measured(
    bench: &Bench<'_>,
    number: usize,
    trial: &Trial,
    removed: &mut Removed,
) -> Result<Summary, Benched> {
    let failed = |error| Benched::failed(vec![error]);
    let options = Options {
        state: bench.folder.join(number.to_string()),
        routes: trial.routes.clone(),
        lanes: trial.lanes,
        share: trial.share,
        ..bench.options.clone()
    };
    let Some(own) = &bench.own else {
        let server = bench.server().await.map_err(failed)?;
        let plan = Plan { redis: Some(server.url().clone()), ..bench.plan.clone() };
        let plan = trial.of_plan(plan);
        let ended = Box::pin(rebuild_redis(&plan, options, unwatched())).await;
        server.end().await;
        return proven(ended);
    };
    let state = options.state.clone();
    let plan = trial.of_plan(own.plan().clone());
    let ended = Box::pin(rebuild_redis(&plan, options, unwatched())).await;
    let taken = take_away(own, &state, removed).await;
    match (proven(ended), taken) {
        (Ok(summary), Ok(())) => Ok(summary),
        (Ok(_), Err(error)) => Err(failed(error)),
        (Err(ended), Ok(())) => Err(ended),
        (Err(mut ended), Err(error)) => {
            ended.exits.push(Exit::of_kind(error.kind()));
            ended.errors.push(error);
            Err(ended)
        }
    }
}

async fn take_away(own: &OwnKeys, state: &Path, removed: &mut Removed) -> stages::Result<()> {
    match own.remove(state).await {
        Ok(keys) => {
            removed.keys += keys;
            Ok(())
        }
        Err(error) => {
            removed.is_short = true;
            Err(error)
        }
    }
}

/// The summary of a rebuild that was done and read back.
fn proven(ended: Ended) -> Result<Summary, Benched> {
    let Ended { summary, exits, errors } = ended;
    match summary {
        Some(summary) if summary.status == RunEnd::Done && errors.is_empty() => Ok(summary),
        Some(summary) if errors.is_empty() && exits.iter().all(|exit| *exit == Exit::Done) => {
            let message =
                format!("a measured run ended as {:?}, which measures nothing", summary.status);
            let error = Error::new(Kind::Config, message).with_hint("leave --fit out");
            Err(Benched::failed(vec![error]))
        }
        _ => Err(Benched { report: None, attempt: None, exits, errors }),
    }
}
