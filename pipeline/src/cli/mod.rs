//! The command line program: parses, dispatches, tells how it ended.
//!
//! Invariant: data goes to stdout, everything else to stderr, and the exit code is a function of what happened.

pub mod args;
mod backup;
mod bench;
mod check;
#[cfg(test)]
mod documented;
mod drill;
mod evidence;
mod failure;
pub(crate) mod figures;
#[cfg(test)]
mod fuzzed;
mod guard_text;
mod help;
mod init;
mod limits;
mod live_text;
mod loading;
mod log;
mod objective;
mod on_problem;
mod plan;
mod rdb;
mod rejects;
mod report;
mod restore;
mod schedule;
mod signals;
mod state;
pub(crate) mod status;
mod summary_text;
mod verify;
mod watch;
mod way;

use crate::outcome::Exit;
use crate::rebuild::{COMMAND, Ended, FILES_COMMAND, Options, Watcher, rebuild_redis};
use crate::rejects::RejectWriter;
use crate::summary::RunEnd;
use args::{Cli, Command, RunFlags, Shared, Target};
use clap::Parser;
use failure::{Failure, tell};
use futures::FutureExt;
use indicatif::MultiProgress;
use schemas::Plan;
use serde::Serialize;
use signals::Signals;
use stages::{Kind, failpoint};
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long a system may stay away where nothing else was asked for.
const RETRY_FOR: Duration = Duration::from_mins(2);
/// How long a thread that is still busy at the end may hold the process up.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if error.print().is_err() {
                // Nobody is listening; the code still tells.
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    let bars = MultiProgress::new();
    start_log(&cli.shared, &bars);
    // The default hook has said where it panicked; a lane's panic never comes this far.
    let exit = catch_unwind(AssertUnwindSafe(|| run(&cli, bars))).unwrap_or(Exit::Internal);
    ExitCode::from(exit.code())
}

fn start_log(shared: &Shared, bars: &MultiProgress) {
    let filter = tracing_subscriber::EnvFilter::try_new(&shared.log_level).unwrap_or_default();
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let writer = watch::LogWriter(bars.clone());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && !is_plain)
        .with_target(false)
        .with_writer(move || writer.clone());
    if log.try_init().is_err() {
        // Only a second call in one process, as in a test, finds a log already there.
        tracing::trace!("the log was started before");
    }
}

fn run(cli: &Cli, bars: MultiProgress) -> Exit {
    if let Some(name) = cli.command.not_built() {
        let message = format!("`rekindle {name}` is not built yet");
        tell(&[Failure::new(Exit::Usage, message, Some("rekindle --help"))], cli.shared.json);
        return Exit::Usage;
    }
    let asked = std::env::var(failpoint::VARIABLE).ok();
    if let Err(error) = failpoint::arm(asked.as_deref()) {
        return tell_errors(&[error], None, cli.shared.json);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return internal("cannot start the runtime", &error, cli.shared.json),
    };
    let exit = runtime.block_on(async {
        match Signals::listen(bars.clone()) {
            Ok(signals) => {
                let ran = AssertUnwindSafe(Box::pin(dispatch(cli, bars, &signals)));
                let exit = ran.catch_unwind().await.unwrap_or(Exit::Internal);
                on_problem::after(cli, exit).await;
                exit
            }
            Err(error) => internal("cannot listen for signals", &error, cli.shared.json),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    exit
}

fn internal(message: &str, error: &std::io::Error, json: bool) -> Exit {
    tell(&[Failure::new(Exit::Internal, format!("{message}: {error}"), None)], json);
    Exit::Internal
}

async fn dispatch(cli: &Cli, bars: MultiProgress, signals: &Signals) -> Exit {
    let shared = &cli.shared;
    match &cli.command {
        // These only read; the first signal may end them where they are.
        Command::Check(flags) => Box::pin(until_signal(check::check(shared, flags), signals)).await,
        Command::Plan(flags) => {
            Box::pin(until_signal(plan::plan(shared, flags, signals), signals)).await
        }
        Command::Init(flags) => Box::pin(until_signal(init::write(shared, flags), signals)).await,
        Command::Schema => print(true, &schemas::plan::json_schema(), String::new),
        Command::Status(_) => Box::pin(until_signal(show_status(shared), signals)).await,
        Command::Rebuild { target: Target::Redis(flags) } => {
            let take_over = flags.take_over.clone();
            let Ok(to_rdb) = flags.rdb.asked(shared.json) else { return Exit::Usage };
            let options = Options { take_over, to_rdb, ..options(shared, &flags.run, signals) };
            Box::pin(rebuild(shared, options, bars, signals)).await
        }
        Command::Backup { source: backup::Source::Bigquery(flags) } => {
            Box::pin(backup::backup(shared, flags, bars, signals)).await
        }
        Command::Restore { target: restore::Target::Bigquery(flags) } => {
            Box::pin(restore::restore(shared, flags, bars, signals)).await
        }
        Command::Rejects { command } => Box::pin(rejects::rejects(shared, command, signals)).await,
        Command::State { command } => Box::pin(state::state(shared, command, signals)).await,
        Command::Verify { target } => Box::pin(verify::verify(shared, target, bars, signals)).await,
        Command::Log { command } => {
            Box::pin(until_signal(log::log(shared, command), signals)).await
        }
        Command::Report(flags) => report::report(shared, flags),
        Command::Bench(flags) => Box::pin(bench::bench(shared, flags, signals)).await,
        Command::Drill(flags) => Box::pin(drill::drill(shared, flags, signals)).await,
        Command::Demo(_) => Exit::Usage,
    }
}

async fn until_signal(command: impl Future<Output = Exit>, signals: &Signals) -> Exit {
    tokio::select! {
        exit = command => exit,
        () = signals.cancel.cancelled() => signals.name(Exit::Interrupted),
    }
}

fn options(shared: &Shared, flags: &RunFlags, signals: &Signals) -> Options {
    Options {
        state: shared.state.clone(),
        lanes: flags.limits.lanes(shared.lanes),
        routes: shared.routes.clone(),
        deadline: shared.deadline,
        lost_at_ms: shared.lost_at.map(jiff::Timestamp::as_millisecond),
        fresh: flags.fresh,
        verify: !flags.no_verify,
        retry_for: flags.retry_for.unwrap_or(RETRY_FOR),
        outage: flags.retry_for,
        take_over: None,
        way: flags.way.choice(),
        cut_over: flags.cut_over,
        from_archive: flags.from.is_some(),
        to_rdb: None,
        share: None,
        limits: flags.limits.limits(),
        cancel: signals.cancel.clone(),
    }
}

/// Reads the plan, or tells every mistake in it.
fn plan_of(shared: &Shared) -> Result<Plan, Exit> {
    loading::load(&shared.plan, &shared.routes).map_err(|failures| {
        for failure in &failures {
            shared.noted.problem(failure.message());
        }
        tell(&failures, shared.json);
        Exit::Usage
    })
}

async fn show_status(shared: &Shared) -> Exit {
    match status::StatusReport::read(&shared.state, &shared.routes).await {
        Ok(mut report) => {
            // A run is shown whatever the plan says; the copies are in it.
            if let Ok(plan) = loading::load(&shared.plan, &[]) {
                report.add_copies(&plan).await;
            }
            report.add_schedules().await;
            report.problems().into_iter().for_each(|problem| shared.noted.problem(problem));
            print(shared.json, &report, || report.render()).min(report.exit())
        }
        Err(error) => {
            shared.noted.problem(error.to_string());
            tell_errors(&[error], None, shared.json)
        }
    }
}

async fn rebuild(
    shared: &Shared,
    options: Options,
    bars: MultiProgress,
    signals: &Signals,
) -> Exit {
    let command = if options.to_rdb.is_some() { FILES_COMMAND } else { COMMAND };
    let plan = match evidence::plan_of(shared, command) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    objective::warn_if_over(shared, ("redis", plan.redis_objective.rto));
    let display = Arc::new(watch::Display::new(shared.progress, bars));
    let watcher: Arc<dyn Watcher> = Arc::<watch::Display>::clone(&display);
    let mut ended = Box::pin(rebuild_redis(&plan, options, watcher)).await;
    // Whatever way the run came back, no bar is left below what follows.
    display.end();
    leave_stopped_out(&mut ended, signals.is_received());
    let mut exit = signals.name(exit_of(&ended));
    if let Some(summary) = &ended.summary {
        let rejects = RejectWriter::new(&shared.state, &summary.run_id, "");
        let printed =
            print(shared.json, summary, || summary_text::render(summary, rejects.folder()));
        exit = exit.min(printed);
        evidence::keep(shared, &plan, summary, (exit, &ended.errors));
    } else {
        evidence::keep_refusal(shared, &plan, command, (exit, &ended.errors));
    }
    if ended.errors.is_empty() { exit } else { tell_errors(&ended.errors, Some(exit), shared.json) }
}

/// Leaves out what lanes report that were told to stop: it is a consequence, and with a signal everybody knows of what.
/// Without one, the cause is another error, and that one names the exit.
fn leave_stopped_out(ended: &mut Ended, is_signalled: bool) {
    let is_stopped = |exit: &Exit| matches!(exit, Exit::Interrupted | Exit::Terminated);
    let has_cause = ended.errors.iter().any(|error| error.kind() != Kind::Cancelled);
    if is_signalled || has_cause {
        ended.errors.retain(|error| error.kind() != Kind::Cancelled);
    }
    if !is_signalled && ended.exits.iter().any(|exit| !is_stopped(exit)) {
        ended.exits.retain(|exit| !is_stopped(exit));
    }
}

/// Returns the worst of what the run came to; what is not known to be done is not done.
fn exit_of(ended: &Ended) -> Exit {
    let told = ended.exits.iter().copied().min().filter(|exit| *exit != Exit::Done);
    let met = || ended.errors.iter().map(|error| Exit::of_kind(error.kind())).min();
    told.or_else(met).unwrap_or(match &ended.summary {
        Some(summary) if is_as_asked(summary.status) => Exit::Done,
        Some(summary) if summary.status == RunEnd::Interrupted => Exit::Interrupted,
        _ => Exit::Internal,
    })
}

/// Whether a run ended as it was asked to.
fn is_as_asked(status: RunEnd) -> bool {
    matches!(status, RunEnd::Done | RunEnd::Unverified | RunEnd::Partial)
}

fn tell_errors(errors: &[stages::Error], exit: Option<Exit>, json: bool) -> Exit {
    let worst = errors.iter().map(|error| Exit::of_kind(error.kind())).min();
    let exit = exit.or(worst).unwrap_or(Exit::Internal);
    let failures: Vec<Failure> =
        errors.iter().map(|error| Failure::of_stage(exit, error)).collect();
    tell(&failures, json);
    exit
}

/// Prints data on stdout: one JSON object, or the text.
fn print(json: bool, data: &impl Serialize, text: impl FnOnce() -> String) -> Exit {
    let written = if json {
        serde_json::to_string_pretty(data).map(|mut object| {
            object.push('\n');
            object
        })
    } else {
        Ok(text())
    };
    let mut stdout = std::io::stdout().lock();
    match written.map_err(std::io::Error::from).and_then(|text| {
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }) {
        Ok(()) => Exit::Done,
        // A reader such as `head` that has seen enough is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => internal("cannot write to stdout", &error, json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stages::Error;

    fn ended() -> Ended {
        Ended {
            summary: None,
            exits: vec![Exit::Internal, Exit::Interrupted],
            errors: vec![
                Error::new(Kind::Internal, "a broken invariant"),
                Error::new(Kind::Cancelled, "the run was asked to stop"),
            ],
        }
    }

    #[test]
    fn a_failure_that_stopped_the_other_lanes_is_no_interruption() {
        let mut ended = ended();
        leave_stopped_out(&mut ended, false);
        assert_eq!((exit_of(&ended), ended.errors.len()), (Exit::Internal, 1));
    }

    #[test]
    fn a_signal_wins_over_what_failed_beside_it() {
        let mut ended = ended();
        leave_stopped_out(&mut ended, true);
        assert_eq!((exit_of(&ended), ended.errors.len()), (Exit::Interrupted, 1));
    }

    #[test]
    fn what_is_not_known_to_be_done_is_internal() {
        let nothing = || Ended { summary: None, exits: Vec::new(), errors: Vec::new() };
        assert_eq!(exit_of(&nothing()), Exit::Internal);
        let claims_done = Ended { exits: vec![Exit::Done], ..nothing() };
        assert_eq!(exit_of(&claims_done), Exit::Internal);
        let met = Ended { errors: vec![Error::new(Kind::Capacity, "full")], ..nothing() };
        assert_eq!(exit_of(&met), Exit::Capacity);
    }
}
