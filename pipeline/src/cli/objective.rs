//! An RTO that is over before a command begins, which is told first and not only at the end.
//!
//! Invariant: it stops no recovery, whose data is wanted all the same; a plan, which was asked whether the RTO can be met,
//! ends with 6.

use super::args::Shared;
use super::failure::{Failure, tell};
use crate::outcome::Exit;
use jiff::Timestamp;
use schemas::duration;
use schemas::plan::Plan;
use std::time::Duration;

/// Warns before a recovery whose RTO is over.
pub(super) fn warn_if_over(shared: &Shared, objective: (&str, Duration)) {
    if let Some(over) = asked(shared, objective) {
        tracing::warn!("{over}; the recovery goes on, and ends with 6 at best");
    }
}

/// Tells which of the planned recoveries cannot meet their RTO any more.
pub(super) fn of_plan(shared: &Shared, plan: &Plan, has_rebuild: bool, has_restores: bool) -> Exit {
    let planned = [
        (has_rebuild, ("redis", plan.redis_objective.rto)),
        (has_restores, ("bigquery", plan.bigquery_objective.rto)),
    ];
    let told: Vec<Failure> = planned
        .into_iter()
        .filter(|(is_planned, _)| *is_planned)
        .filter_map(|(_, objective)| asked(shared, objective))
        .map(|over| {
            let hint = "recover all the same; --deadline asks about a later objective";
            Failure::new(Exit::Objective, over, Some(hint))
        })
        .collect();
    if told.is_empty() {
        return Exit::Done;
    }
    tell(&told, shared.json);
    Exit::Objective
}

/// Says that an RTO, or the `--deadline` in its place, is over now.
fn asked(shared: &Shared, (system, rto): (&str, Duration)) -> Option<String> {
    let rto = shared.deadline.unwrap_or(rto);
    over((system, rto), shared.lost_at, Timestamp::now())
}

/// Says that an RTO is over, where somebody said when the data was lost.
fn over(
    (system, rto): (&str, Duration),
    lost_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    let end = lost_at?.checked_add(rto).ok()?;
    let hours = now.duration_since(end).as_secs_f64() / 3600.0;
    let rto = duration::format(rto);
    (hours >= 0.0).then(|| {
        format!(
            "the RTO of {system}, {rto}, was over at {end}, {hours:.1} h ago: no run can meet it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rto_is_over_once_its_time_has_passed_since_the_loss() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let hour = Duration::from_hours(1);
        let lost = Some(at("2026-11-28T00:00:00Z"));
        assert_eq!(over(("redis", hour), lost, at("2026-11-28T00:59:59Z")), None);
        assert_eq!(over(("redis", hour), None, at("2026-11-28T02:00:00Z")), None);
        assert_eq!(
            over(("redis", hour), lost, at("2026-11-28T03:30:00Z")).unwrap(),
            "the RTO of redis, 1h, was over at 2026-11-28T01:00:00Z, 2.5 h ago: no run can meet it"
        );
        // An RTO beyond all time is never over.
        assert_eq!(over(("redis", Duration::MAX), lost, at("2026-11-28T03:30:00Z")), None);
    }
}
