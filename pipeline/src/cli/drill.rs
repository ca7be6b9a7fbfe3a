//! `rekindle drill`: its flags, and how a restoration test is told and kept as evidence.
//!
//! Invariant: production is touched only where it was asked for twice; a flag is honoured or refused.

use super::args::{Progress, Shared};
use super::failure::{Failure, say, tell};
use super::help::EXIT_CODES;
use super::signals::Signals;
use super::verify::parse_settle;
use super::{RETRY_FOR, evidence, leave_stopped_out, plan_of, print, tell_errors};
use crate::drill::{Asked, Loss, Mark, drill as test_restoration};
use crate::guard::Limits;
use crate::outcome::Exit;
use crate::rebuild::{Ended, Options};
use clap::{Args, ValueEnum};
use stages::load::redis::WayChoice;
use std::time::Duration;

const AFTER: &str = "\
The scratch targets are those of [drill] in the plan. They are emptied, filled by the very code of a recovery, compared in
full, asked questions whose answers are known, and taken down; a target that turns out to be a server of the plan, or that
holds what no drill left there, is refused before anything is touched.
The steps of RUNBOOK.md around the tool are timed by hand: --mark STEP=MINUTES. What nobody timed is UNKNOWN, never zero.
Steps: declare, stop-writers, time-travel, create-instance, connect-redis, access-bigquery, grants, repoint.
Killing it is safe: the same command empties the scratch targets and starts over. What it found is kept as evidence; see
`rekindle report`.

";

pub(super) fn after_help() -> String {
    format!("{AFTER}{EXIT_CODES}")
}

/// Flags of `drill`.
#[derive(Debug, Args)]
pub struct Drill {
    /// What is lost: redis, bigquery or both
    #[arg(long, value_name = "WHAT", value_enum, hide_possible_values = true)]
    pub lose: LossWord,
    /// How long a step around the tool took, for example create-instance=12; may be given several times
    #[arg(long = "mark", value_name = "STEP=MINUTES", value_parser = Mark::parse)]
    pub marks: Vec<Mark>,
    /// Leave the scratch targets as they are at the end; the next drill empties them
    #[arg(long)]
    pub keep: bool,
    /// Empty the Redis that serves, where [drill] names it; needs --confirm, and everybody has to know of it
    #[arg(long)]
    pub in_production: bool,
    /// With --in-production: the name of that Redis, HOST:PORT/DB, typed exactly
    #[arg(long, value_name = "TARGET")]
    pub confirm: Option<String>,
    /// Restore this table, by its name in the scratch dataset, without the row access policies it had
    #[arg(long, value_name = "DATASET.TABLE")]
    pub accept_no_row_policies: Vec<String>,
    /// How long an application may take between its write to the source and its write to Redis
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_settle)]
    pub settle: Duration,
    /// How long a system may stay unreachable before the drill gives up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = schemas::duration::parse)]
    pub retry_for: Duration,
}

/// What is lost, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LossWord {
    /// The cache.
    Redis,
    /// Tables that have a duplicate.
    Bigquery,
    /// Both, one after the other.
    Both,
}

impl Drill {
    fn asked(&self) -> Asked {
        Asked {
            lose: match self.lose {
                LossWord::Redis => Loss::Redis,
                LossWord::Bigquery => Loss::BigQuery,
                LossWord::Both => Loss::Both,
            },
            marks: self.marks.clone(),
            keep: self.keep,
            in_production: self.in_production,
            confirm: self.confirm.clone(),
            accept_no_row_policies: self.accept_no_row_policies.clone(),
            settle: self.settle,
        }
    }

    fn options(&self, shared: &Shared, signals: &Signals) -> Options {
        Options {
            state: shared.state.clone(),
            lanes: shared.lanes,
            routes: shared.routes.clone(),
            deadline: shared.deadline,
            lost_at_ms: None,
            fresh: false,
            verify: true,
            retry_for: self.retry_for,
            outage: (self.retry_for != RETRY_FOR).then_some(self.retry_for),
            take_over: None,
            way: WayChoice::Auto,
            cut_over: None,
            from_archive: false,
            to_rdb: None,
            share: None,
            limits: Limits::default(),
            cancel: signals.cancel.clone(),
        }
    }
}

/// Drills, and tells how it went.
pub(super) async fn drill(shared: &Shared, flags: &Drill, signals: &Signals) -> Exit {
    if shared.lost_at.is_some() {
        let message = "--lost-at goes with recoveries; a drill declares the loss itself";
        tell(&[Failure::new(Exit::Usage, message, Some("rekindle drill --help"))], shared.json);
        return Exit::Usage;
    }
    let plan = match plan_of(shared) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let is_told = shared.progress != Progress::None;
    let line = |line: &str| {
        if is_told {
            say(&format!("{line}\n"));
        }
    };
    let options = flags.options(shared, signals);
    let drilled = Box::pin(test_restoration(&plan, &options, &flags.asked(), &line)).await;
    let mut ended = Ended { summary: None, exits: drilled.exits, errors: drilled.errors };
    leave_stopped_out(&mut ended, signals.is_received());
    // A drill that met nothing has a report, whose end is then the best there is.
    let ideal = if drilled.report.is_some() { Exit::Done } else { Exit::Internal };
    let mut exit = signals.name(ended.exits.iter().copied().min().unwrap_or(ideal));
    if let Some(report) = &drilled.report {
        exit = exit.min(print(shared.json, report, || report.render()));
        evidence::keep(shared, &plan, report, (exit, &ended.errors));
    }
    if ended.errors.is_empty() { exit } else { tell_errors(&ended.errors, Some(exit), shared.json) }
}
