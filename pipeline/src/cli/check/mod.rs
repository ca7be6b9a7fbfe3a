//! `rekindle check`: looks at everything a run depends on, one line per control.
//!
//! Invariant: nothing is written to a system (`--coverage` keeps its result under `--state`), and what could not be found out is UNKNOWN, never OK.

mod acl;
mod alloydb;
mod alloydb_backups;
mod bigquery;
mod controls;
mod coverage;
mod duplicate;
mod redis;
mod schedule;
mod state;
mod verify;

use super::args::{Check, Shared};
use super::failure::say;
use super::{figures, loading};
use crate::coverage::Coverage;
use crate::outcome::Exit;
use controls::{Control, Verdict};
use schemas::Plan;
use serde::Serialize;
use std::fmt::Write as _;

/// What all controls came to.
#[derive(Debug, Serialize)]
struct CheckReport {
    command: &'static str,
    code: u8,
    ok: usize,
    failed: usize,
    unknown: usize,
    controls: Vec<Control>,
    /// What `--coverage` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<Coverage>,
}

impl CheckReport {
    fn new(controls: Vec<Control>, strict: bool) -> Self {
        let count = |verdict| controls.iter().filter(|control| control.verdict == verdict).count();
        let (ok, failed, unknown) =
            (count(Verdict::Ok), count(Verdict::Failed), count(Verdict::Unknown));
        Self {
            command: "check",
            code: exit_of(&controls, strict).code(),
            ok,
            failed,
            unknown,
            controls,
            coverage: None,
        }
    }

    fn render(&self) -> String {
        let mut text: String = self.controls.iter().map(Control::render).collect();
        writeln!(text, "{} OK, {} FAILED, {} UNKNOWN", self.ok, self.failed, self.unknown)
            .expect("writing to a string cannot fail");
        text
    }
}

/// Runs every control and prints them.
pub(super) async fn check(shared: &Shared, flags: &Check) -> Exit {
    let strict = flags.strict;
    let mut controls = Box::pin(controls(shared)).await;
    let coverage = if flags.coverage { coverage::add(shared, &mut controls).await } else { None };
    let exit = exit_of(&controls, strict);
    let failed = controls.iter().filter(|control| control.exit != Exit::Done);
    failed.for_each(|control| shared.noted.problem(control.told()));
    let report = CheckReport { coverage, ..CheckReport::new(controls, strict) };
    let printed = super::print(shared.json, &report, || report.render());
    if report.unknown > 0 && report.failed == 0 {
        let fate = if strict {
            "which --strict does not accept"
        } else {
            "--strict would not accept that"
        };
        say(&format!(
            "warning: {} could not be found out, {fate}\n",
            figures::things(report.unknown as u64, "control")
        ));
    }
    exit.min(printed)
}

/// By the worst control; what is only unknown fails nothing unless asked to.
fn exit_of(controls: &[Control], strict: bool) -> Exit {
    let has_unknown = controls.iter().any(|control| control.verdict == Verdict::Unknown);
    let worst = controls.iter().map(|control| control.exit).min().unwrap_or(Exit::Done);
    if strict && has_unknown { worst.min(Exit::Usage) } else { worst }
}

async fn controls(shared: &Shared) -> Vec<Control> {
    let plan = match loading::load(&shared.plan, &shared.routes) {
        Ok(plan) => plan,
        Err(mistakes) => {
            let mut controls: Vec<Control> = mistakes
                .iter()
                .map(|mistake| Control::failed("plan", mistake.message()).with_fix(mistake.hint()))
                .collect();
            controls.extend(state::controls(&shared.state).await.0);
            return controls;
        }
    };
    let mut controls = vec![plan_control(shared, &plan)];
    let (of_state, unfinished) = state::controls(&shared.state).await;
    // Systems that do not answer cost the time of one.
    let (of_alloydb, of_backups, of_bigquery, of_redis, of_duplicate, of_archive, of_verify) = tokio::join!(
        alloydb::controls(&plan, &shared.routes),
        alloydb_backups::controls(&plan),
        bigquery::controls(&plan, &shared.routes),
        redis::controls(&plan, unfinished.as_deref()),
        duplicate::controls(&plan),
        duplicate::archive_controls(&plan),
        verify::bigquery(&plan, &shared.routes)
    );
    controls.extend(of_state);
    controls.extend(schedule::controls(&shared.state).await);
    controls.extend(of_alloydb);
    controls.extend(of_backups);
    controls.extend(of_bigquery);
    controls.extend(of_redis);
    controls.extend(of_duplicate);
    controls.extend(of_archive);
    controls.extend(of_verify);
    controls
}

fn plan_control(shared: &Shared, plan: &Plan) -> Control {
    let routes = plan.routes.len() as u64;
    let detail = format!("{}, {}", shared.plan.display(), figures::things(routes, "route"));
    if routes == 0 {
        return Control::failed("plan", format!("{detail}: there is nothing to rebuild"))
            .with_fix(Some("add a [[route]]"));
    }
    Control::ok("plan", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stages::{Error, Kind};

    #[test]
    fn the_worst_control_decides() {
        let ok = || Control::ok("plan", "fine");
        let unknown = || Control::unknown("row estimate", "never analysed");
        let away = || Control::of_error("alloydb", &Error::new(Kind::Connection, "away"));
        let full = || Control::of_error("redis", &Error::new(Kind::Capacity, "full"));
        let denied = || Control::of_error("redis", &Error::new(Kind::Auth, "denied"));
        assert_eq!(exit_of(&[ok()], true), Exit::Done);
        assert_eq!(exit_of(&[ok(), unknown()], false), Exit::Done);
        assert_eq!(exit_of(&[ok(), unknown()], true), Exit::Usage);
        assert_eq!(exit_of(&[full(), ok()], false), Exit::Capacity);
        assert_eq!(exit_of(&[full(), away()], false), Exit::Unreachable);
        assert_eq!(exit_of(&[full(), away(), denied()], false), Exit::Usage);
        assert_eq!(exit_of(&[full(), unknown()], true), Exit::Usage);
    }

    #[test]
    fn a_line_tells_what_why_and_how_to_fix_it() {
        let controls = vec![
            Control::ok("plan", "rekindle.toml, 2 routes"),
            Control::unknown("route builds: rows", "never analysed")
                .with_fix(Some("analyze public.builds")),
            Control::failed("redis access", "user app may not run EVAL"),
        ];
        insta::assert_snapshot!(CheckReport::new(controls, false).render(), @r"
        OK       plan: rekindle.toml, 2 routes
        UNKNOWN  route builds: rows: never analysed (analyze public.builds)
        FAILED   redis access: user app may not run EVAL
        1 OK, 1 FAILED, 1 UNKNOWN
        ");
    }
}
