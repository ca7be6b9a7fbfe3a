//! `rekindle rejects`: its flags, and how what it found is told.
//!
//! Invariant: no value of a row is printed.

use super::args::Shared;
use super::help::EXIT_CODES;
use super::signals::Signals;
use super::{plan_of, print, tell_errors, until_signal};
use crate::outcome::Exit;
use crate::rejects::list::Listing;
use crate::rejects::replay::{Options, replay};
use clap::{Args, Subcommand};
use std::time::Duration;

const AFTER_REPLAY: &str = "\
Each row is read from its source once more, as it is now, and goes through its route as the plan has it now.
What is written is read back. A row that the source has no more is left out; one that fails again stays rejected,
and so does one whose key, or which itself, was being changed.
A file whose rows are done is renamed to .parquet.done; another replay leaves it alone. rejects_keep deletes files.
Exit code 0: nothing is left; 7: rows stay rejected; 4: a key held something else right after it was written.

";

/// What can be done with rejected rows.
#[derive(Debug, Subcommand)]
pub enum Rejects {
    /// Tells which runs have rejected rows, of which routes, why, and in which files; never a value
    #[command(after_help = EXIT_CODES)]
    List(List),
    /// Sends the rejected rows of a run through their routes again, after the plan or the rows were mended
    #[command(after_help = format!("{AFTER_REPLAY}{EXIT_CODES}"))]
    Replay(Replay),
}

/// Flags of `rejects list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only this run
    #[arg(long, value_name = "RUN_ID")]
    pub run: Option<String>,
}

/// Flags of `rejects replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// This run instead of the newest one that has rejected rows
    #[arg(long, value_name = "RUN_ID")]
    pub run: Option<String>,
    /// How long an application may take between its write to the source and its write to Redis
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = super::verify::parse_settle)]
    pub settle: Duration,
    /// How long a system may stay unreachable before the command gives up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = schemas::duration::parse)]
    pub retry_for: Duration,
}

pub(super) async fn rejects(shared: &Shared, command: &Rejects, signals: &Signals) -> Exit {
    match command {
        Rejects::List(flags) => Box::pin(until_signal(list(shared, flags), signals)).await,
        Rejects::Replay(flags) => Box::pin(again(shared, flags, signals)).await,
    }
}

async fn list(shared: &Shared, flags: &List) -> Exit {
    match Listing::read(&shared.state, flags.run.as_deref(), &shared.routes).await {
        Ok(listing) => print(shared.json, &listing, || listing.render()),
        Err(error) => tell_errors(&[error], None, shared.json),
    }
}

async fn again(shared: &Shared, flags: &Replay, signals: &Signals) -> Exit {
    let plan = match plan_of(shared) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let options = Options {
        state: shared.state.clone(),
        run: flags.run.clone(),
        routes: shared.routes.clone(),
        lanes: shared.lanes.start,
        settle: flags.settle,
        retry_for: flags.retry_for,
        cancel: signals.cancel.clone(),
    };
    match Box::pin(replay(&plan, &options)).await {
        Ok(report) => {
            let printed = print(shared.json, &report, || report.render());
            report.exit().min(printed)
        }
        Err(errors) => signals.name(tell_errors(&errors, None, shared.json)),
    }
}
