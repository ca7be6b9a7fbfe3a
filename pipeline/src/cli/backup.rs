//! `rekindle backup bigquery`: its flags, and how its run is told.
//!
//! Invariant: what may lose rows of the duplicate is asked for by naming the table.

use super::args::Shared;
use super::on_problem::ProblemFlags;
use super::schedule::{self, Schedule};
use super::signals::Signals;
use super::{evidence, exit_of, leave_stopped_out, print, tell_errors, watch};
use crate::backup::{COMMAND, Ended, Options, backup_bigquery};
use crate::outcome::Exit;
use crate::place::Place;
use crate::rebuild::{self, Watcher};
use crate::summary::RunEnd;
use clap::{Args, Subcommand};
use indicatif::MultiProgress;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const ABOUT: &str =
    "Copies the table partitions of BigQuery that are new or changed into their duplicate in Redis";

const AFTER: &str = "\
A version is published when it was read back; until then the one before it stands.
What the source lost is not lost here: its copy stays and is named, with exit code 4.

";

/// What can be backed up.
#[derive(Debug, Subcommand)]
pub enum Source {
    /// BigQuery.
    #[command(about = ABOUT, after_help = format!("{AFTER}{}", super::help::EXIT_CODES))]
    Bigquery(BackupBigquery),
}

/// Flags of `backup bigquery`.
#[derive(Debug, Args)]
pub struct BackupBigquery {
    /// Keep the copy in the archive of [archive], as Parquet files, instead of in Redis
    #[arg(long, value_name = "PLACE", value_parser = ["archive"], hide_possible_values = true)]
    pub to: Option<String>,
    /// Copy every table partition again, also what seems unchanged
    #[arg(long)]
    pub full: bool,
    /// Give unfinished backups up and remove all they left, also of routes that the plan has no longer
    #[arg(long)]
    pub fresh: bool,
    /// Let the duplicate of this table lose what the table has lost; may be given several times
    #[arg(long, value_name = "DATASET.TABLE")]
    pub accept_loss: Vec<String>,
    /// How long a system may stay unreachable before the backup gives up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = schemas::duration::parse)]
    pub retry_for: Duration,
    /// Take the duplicate over from this run, which must be dead
    #[arg(long, value_name = "RUN_ID")]
    pub take_over: Option<String>,
    /// Back nothing up: record that backups run at these times ("0 3 * * *"; off: not any more), print the line for
    /// the crontab, and tell from then on which of them were MISSED
    #[arg(long, value_name = "CRON", value_parser = Schedule::parse, conflicts_with_all = ["fresh", "accept_loss", "take_over"])]
    pub schedule: Option<Schedule>,
    /// What to run after a problem.
    #[command(flatten)]
    pub problem: ProblemFlags,
}

pub(super) async fn backup(
    shared: &Shared,
    flags: &BackupBigquery,
    bars: MultiProgress,
    signals: &Signals,
) -> Exit {
    if let Some(asked) = &flags.schedule {
        return schedule::record(shared, flags, asked);
    }
    let plan = match evidence::plan_of(shared, COMMAND) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let options = Options {
        state: shared.state.clone(),
        to: if flags.to.is_some() { Place::Archive } else { Place::Redis },
        lanes: shared.lanes.start,
        routes: shared.routes.clone(),
        deadline: shared.deadline,
        full: flags.full,
        fresh: flags.fresh,
        accept_loss: flags.accept_loss.clone(),
        retry_for: flags.retry_for,
        take_over: flags.take_over.clone(),
        damaged: BTreeMap::new(),
        share: None,
        cancel: signals.cancel.clone(),
    };
    let display = Arc::new(watch::Display::new(shared.progress, bars));
    let watcher: Arc<dyn Watcher> = Arc::<watch::Display>::clone(&display);
    let Ended { summary, exits, errors } = Box::pin(backup_bigquery(&plan, options, watcher)).await;
    display.end();
    let mut ended = rebuild::Ended { summary: None, exits, errors };
    leave_stopped_out(&mut ended, signals.is_received());
    let is_done = summary.as_ref().is_some_and(|summary| summary.run.status == RunEnd::Done);
    let told = ended.exits.iter().copied().min();
    let mut exit = signals.name(told.unwrap_or(if is_done { Exit::Done } else { exit_of(&ended) }));
    if let Some(summary) = &summary {
        exit = exit.min(print(shared.json, summary, || summary.render()));
        evidence::keep(shared, &plan, summary, (exit, &ended.errors));
    } else {
        evidence::keep_refusal(shared, &plan, COMMAND, (exit, &ended.errors));
    }
    if ended.errors.is_empty() { exit } else { tell_errors(&ended.errors, Some(exit), shared.json) }
}
