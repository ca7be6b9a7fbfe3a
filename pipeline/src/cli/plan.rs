//! The command `plan`: what a rebuild, backups and restores would do, or what a loss would mean.
//!
//! Invariant: nothing is written; what is known is printed, also where a system is away.

use super::args::{PlanFlags, Shared};
use super::signals::Signals;
use super::{failure, objective, options, plan_of, print, tell_errors};
use crate::backup::forecast::{Forecast, forecast};
use crate::bench::quotas::{self, Quota};
use crate::outcome::Exit;
use crate::plan::lost::{Losses, plan_loss};
use crate::plan::sample::{RouteSample, sample};
use crate::plan::{PlanReport, RestoresForeseen, of_restores_of, plan_rebuild};
use crate::restore::forecast::{RestoreForecast, forecast as restore_forecast};
use schemas::Plan;
use serde::Serialize;

pub(super) async fn plan(shared: &Shared, flags: &PlanFlags, signals: &Signals) -> Exit {
    let plan = match plan_of(shared) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    if let Some(lost) = flags.lost {
        return show_loss(shared, &plan, lost);
    }
    let (backups, restores, foreseen) = match forecasts(shared, flags, &plan).await {
        Ok(forecasts) => forecasts,
        Err(exit) => return exit,
    };
    let mut options = options(shared, &flags.run, signals);
    let is_rebuilt = |name: &String| {
        let is_backup = backups.iter().any(|backup| backup.route == *name);
        let rebuilt = plan.routes.iter().any(|route| route.name == *name && route.uses.rebuild);
        rebuilt || !is_backup
    };
    options.routes.retain(is_rebuilt);
    // A plan of backups alone has nothing to say about a rebuild.
    let only_backups = options.routes.is_empty()
        && (!shared.routes.is_empty() || plan.routes.iter().all(|route| !route.uses.rebuild));
    let rebuild = if only_backups && !backups.is_empty() {
        None
    } else {
        match plan_rebuild(&plan, &options).await {
            Ok(report) => Some(report),
            Err(errors) => return tell_errors(&errors, None, shared.json),
        }
    };
    let mut samples = Vec::new();
    if let (Some(_), Some(rows)) = (&rebuild, flags.sample) {
        match sample(&plan, &options, usize::from(rows)).await {
            Ok(found) => samples = found,
            Err(errors) => return tell_errors(&errors, None, shared.json),
        }
    }
    let copies = backups.iter().any(|backup| !backup.is_row_route);
    if flags.sample.is_some() && copies {
        failure::say("note: a duplicate holds many rows per value; its routes are not sampled\n");
    }
    let whole = WholePlan {
        rebuild,
        backup_quotas: if copies { quotas::of_backup() } else { Vec::new() },
        backups,
        restores,
        restores_foreseen: foreseen,
        samples,
    };
    let (has_rebuild, has_restores) = (whole.rebuild.is_some(), !whole.restores.is_empty());
    let printed = print(shared.json, &whole, || whole.render());
    printed.min(objective::of_plan(shared, &plan, has_rebuild, has_restores))
}

/// What backups and restores would do.
type Forecasts = (Vec<Forecast>, Vec<RestoreForecast>, Option<RestoresForeseen>);

/// Forecasts backups and restores. A rebuild that reads the archive is asked for where BigQuery may be gone, and nothing
/// else is looked at then.
async fn forecasts(shared: &Shared, flags: &PlanFlags, plan: &Plan) -> Result<Forecasts, Exit> {
    if flags.run.from.is_some() {
        return Ok((Vec::new(), Vec::new(), None));
    }
    let lost_at_ms = shared.lost_at.map(jiff::Timestamp::as_millisecond);
    let lanes = shared.lanes.start;
    let restores = restore_forecast(plan, &shared.routes, lanes, lost_at_ms).await;
    let foreseen = foreseen(shared, plan, &restores);
    match forecast(plan, &shared.routes).await {
        Ok(backups) => Ok((backups, restores, foreseen)),
        Err(error) => {
            // What is known of a restore is wanted most when a system is away.
            if !restores.is_empty() {
                let whole =
                    WholePlan { restores, restores_foreseen: foreseen, ..WholePlan::default() };
                print(shared.json, &whole, || whole.render());
            }
            Err(tell_errors(&[error], None, shared.json))
        }
    }
}

/// What is foreseen of the restores; `None` where there are none.
fn foreseen(
    shared: &Shared,
    plan: &Plan,
    restores: &[RestoreForecast],
) -> Option<RestoresForeseen> {
    if restores.is_empty() {
        return None;
    }
    let rto = shared.deadline.unwrap_or(plan.bigquery_objective.rto);
    let place = plan.bigquery.as_ref().and_then(|section| section.location.as_deref());
    let asked = (shared.lanes.start, rto.as_secs());
    Some(of_restores_of(restores, &shared.state, asked, place))
}

/// Tells what a loss means; what nothing brings back misses every objective.
fn show_loss(shared: &Shared, plan: &Plan, lost: Losses) -> Exit {
    if !shared.routes.is_empty() {
        let message =
            "--lost looks at the whole plan, and what one route leaves out another may hold";
        let hint = Some("leave --route out");
        failure::tell(&[failure::Failure::new(Exit::Usage, message.to_owned(), hint)], shared.json);
        return Exit::Usage;
    }
    let report = plan_loss(plan, lost);
    let exit = if report.unrecoverable.is_empty() { Exit::Done } else { Exit::Objective };
    exit.min(print(shared.json, &report, || report.render()))
}

/// What a plan would do: a rebuild, backups, restores.
#[derive(Default, Serialize)]
struct WholePlan {
    #[serde(flatten)]
    rebuild: Option<PlanReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backups: Vec<Forecast>,
    /// Limits of others that these backups would meet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backup_quotas: Vec<Quota>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    restores: Vec<RestoreForecast>,
    /// The time of all of these together, and what would meet their RTO.
    #[serde(skip_serializing_if = "Option::is_none")]
    restores_foreseen: Option<RestoresForeseen>,
    /// Rows that were asked for with `--sample`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples: Vec<RouteSample>,
}

impl WholePlan {
    fn render(&self) -> String {
        let rebuild = self.rebuild.iter().map(PlanReport::render);
        let backups = self.backups.iter().map(Forecast::render);
        let of_backups =
            self.backup_quotas.iter().map(|quota| format!("  limit {}\n", quota.line()));
        let restores = self.restores.iter().map(RestoreForecast::render);
        let foreseen = self.restores_foreseen.iter().map(RestoresForeseen::render);
        let samples = self.samples.iter().map(RouteSample::render);
        let copies = backups.chain(of_backups).chain(restores).chain(foreseen);
        rebuild.chain(copies).chain(samples).collect()
    }
}
