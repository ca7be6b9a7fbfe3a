//! `rekindle restore bigquery`: its flags, and how its run is told.
//!
//! Invariant: what destroys rows is asked for by a long flag of its own; flags that contradict each other are refused.

use super::args::{Shared, parse_past};
use super::on_problem::ProblemFlags;
use super::signals::Signals;
use super::{
    evidence, exit_of, leave_stopped_out, objective, print, summary_text, tell_errors, watch,
};
use crate::outcome::Exit;
use crate::place::Place;
use crate::rebuild::Watcher;
use crate::restore::{Asked, COMMAND, Options, PartitionRange, restore_bigquery};
use clap::{Args, Subcommand};
use indicatif::MultiProgress;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const ABOUT: &str =
    "Restores tables of BigQuery from their duplicate in Redis, and reads them back";
const AFTER: &str = "\
Rows go into a staging table first; one job publishes them, so the table is never seen half restored.
With --partitions, and with --fill without a row_key, each table partition is published by itself.
Killing it is safe: the same command resumes where the journal stands.

";

/// What can be restored.
#[derive(Debug, Subcommand)]
pub enum Target {
    /// BigQuery.
    #[command(about = ABOUT, after_help = format!("{AFTER}{}", super::help::EXIT_CODES))]
    Bigquery(RestoreBigquery),
}

/// Flags of `restore bigquery`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that is typed or not")]
#[derive(Debug, Args)]
pub struct RestoreBigquery {
    /// Read the archive of [archive] instead of the duplicate in Redis
    #[arg(long, value_name = "PLACE", value_parser = ["archive"], hide_possible_values = true, conflicts_with = "from_scan")]
    pub from: Option<String>,
    /// Replace the rows that the table (with --partitions: these table partitions) holds
    #[arg(long, conflicts_with = "fill")]
    pub replace: bool,
    /// Add what the table lacks: table partitions without rows, or with a `row_key` rows whose key is absent
    #[arg(long)]
    pub fill: bool,
    /// Only these table partitions, both ends included, for example 20261101..20261130
    #[arg(long, value_name = "FROM..TO", value_parser = PartitionRange::parse)]
    pub partitions: Option<PartitionRange>,
    /// The state of the table at this time (RFC 3339), as far as versions are kept
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    pub as_of: Option<jiff::Timestamp>,
    /// Make lost manifests again from the headers of blocks; says which guarantees are gone then
    #[arg(long, conflicts_with = "as_of")]
    pub from_scan: bool,
    /// Take copies of this table although it was created anew after the last complete backup
    #[arg(long, value_name = "DATASET.TABLE")]
    pub accept_recreated: Vec<String>,
    /// Restore this table without the row access policies it had, which cannot be put back
    #[arg(long, value_name = "DATASET.TABLE")]
    pub accept_no_row_policies: Vec<String>,
    /// Start over instead of resuming the unfinished run
    #[arg(long)]
    pub fresh: bool,
    /// Do not read the table back; the run then ends as unverified, never as done
    #[arg(long)]
    pub no_verify: bool,
    /// How long a system may stay unreachable before the run gives up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = schemas::duration::parse)]
    pub retry_for: Duration,
    /// What to run after a problem.
    #[command(flatten)]
    pub problem: ProblemFlags,
}

fn options(shared: &Shared, flags: &RestoreBigquery, signals: &Signals) -> Options {
    Options {
        state: shared.state.clone(),
        lanes: shared.lanes.start,
        routes: shared.routes.clone(),
        deadline: shared.deadline,
        lost_at_ms: shared.lost_at.map(jiff::Timestamp::as_millisecond),
        fresh: flags.fresh,
        verify: !flags.no_verify,
        retry_for: flags.retry_for,
        asked: Asked {
            from: if flags.from.is_some() { Place::Archive } else { Place::Redis },
            replace: flags.replace,
            fill: flags.fill,
            partitions: flags.partitions.clone(),
            as_of_us: flags.as_of.map(jiff::Timestamp::as_microsecond),
            from_scan: flags.from_scan,
            accept_recreated: flags.accept_recreated.clone(),
            accept_no_row_policies: flags.accept_no_row_policies.clone(),
            into: None,
        },
        scratch: None,
        cancel: signals.cancel.clone(),
    }
}

/// Restores, and tells how it went.
pub(super) async fn restore(
    shared: &Shared,
    flags: &RestoreBigquery,
    bars: MultiProgress,
    signals: &Signals,
) -> Exit {
    let plan = match evidence::plan_of(shared, COMMAND) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    objective::warn_if_over(shared, ("bigquery", plan.bigquery_objective.rto));
    let display = Arc::new(watch::Display::new(shared.progress, bars));
    let watcher: Arc<dyn Watcher> = Arc::<watch::Display>::clone(&display);
    let run = restore_bigquery(&plan, options(shared, flags, signals), watcher);
    let mut ended = Box::pin(run).await;
    display.end();
    leave_stopped_out(&mut ended, signals.is_received());
    let mut exit = signals.name(exit_of(&ended));
    if let Some(summary) = &ended.summary {
        let printed = print(shared.json, summary, || summary_text::render(summary, Path::new("")));
        exit = exit.min(printed);
        evidence::keep(shared, &plan, summary, (exit, &ended.errors));
    } else {
        evidence::keep_refusal(shared, &plan, COMMAND, (exit, &ended.errors));
    }
    if ended.errors.is_empty() { exit } else { tell_errors(&ended.errors, Some(exit), shared.json) }
}
