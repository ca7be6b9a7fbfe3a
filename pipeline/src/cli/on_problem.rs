//! `--on-problem`: a command of the user's own that is run once after a problem.
//!
//! Invariant: whatever becomes of it is told and changes neither the exit code nor what is on stdout, and it is waited for
//! for a bounded time.

use super::args::{Cli, Command, Target};
use super::failure::say;
use super::{backup, restore, verify};
use crate::outcome::Exit;
use clap::Args;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the command may take.
const RUN_MAX: Duration = Duration::from_mins(1);
/// Longest text of a problem that is handed over, in characters.
const PROBLEM_MAX: usize = 1_000;

/// The flag.
#[derive(Debug, Args)]
pub struct ProblemFlags {
    /// After a failure, a missed objective or a copy older than its RPO, run this by sh -c, for a minute at most; it finds
    /// `REKINDLE_EXIT`, `REKINDLE_COMMAND`, `REKINDLE_RUN_ID` and `REKINDLE_PROBLEM` in its environment
    #[arg(long, value_name = "CMD")]
    pub on_problem: Option<String>,
}

/// What a command has met so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Noted(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    run_id: Option<String>,
    problem: Option<String>,
}

impl Noted {
    /// Notes which run it was.
    pub(super) fn run(&self, id: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.run_id = Some(id.to_owned());
    }

    /// Notes a problem; the first one is handed over.
    pub(super) fn problem(&self, text: impl Into<String>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.problem.get_or_insert(text.into());
    }

    fn take(&self) -> (String, String) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.run_id.take().unwrap_or_default(), inner.problem.take().unwrap_or_default())
    }
}

/// The name of a command that has the flag, and what was typed.
fn asked(command: &Command) -> Option<(&'static str, &str)> {
    let (name, flags) = match command {
        Command::Check(flags) => ("check", &flags.problem),
        Command::Status(flags) => ("status", flags),
        Command::Rebuild { target: Target::Redis(flags) } => ("rebuild redis", &flags.problem),
        Command::Backup { source: backup::Source::Bigquery(flags) } => {
            ("backup bigquery", &flags.problem)
        }
        Command::Restore { target: restore::Target::Bigquery(flags) } => {
            ("restore bigquery", &flags.problem)
        }
        Command::Verify { target: verify::Target::Redis(flags) } => {
            ("verify redis", &flags.problem)
        }
        Command::Verify { target: verify::Target::Bigquery(flags) } => {
            ("verify bigquery", &flags.problem)
        }
        _ => return None,
    };
    Some((name, flags.on_problem.as_deref()?))
}

/// Runs what was asked for where a command ended with a problem. One that somebody stopped has none.
pub(super) async fn after(cli: &Cli, exit: Exit) {
    let Some((name, command)) = asked(&cli.command) else { return };
    if matches!(exit, Exit::Done | Exit::Interrupted | Exit::Terminated) {
        return;
    }
    let (run_id, problem) = cli.shared.noted.take();
    let problem = if problem.is_empty() { meaning(exit).to_owned() } else { problem };
    // What the kernel does not take in an environment would keep the command from running.
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PROBLEM_MAX).collect()
    };
    let spawned = tokio::process::Command::new("/bin/sh")
        .args(["-c", command])
        .env("REKINDLE_EXIT", exit.code().to_string())
        .env("REKINDLE_COMMAND", name)
        .env("REKINDLE_RUN_ID", run_id)
        .env("REKINDLE_PROBLEM", plain(&problem))
        .stdin(Stdio::null())
        // Stdout is for data; what the command prints there is none.
        .stdout(Stdio::from(std::io::stderr()))
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return say(&format!("warning: --on-problem cannot be run: {error}\n")),
    };
    match tokio::time::timeout(RUN_MAX, child.wait()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => say(&format!("warning: --on-problem ended with {status}\n")),
        Ok(Err(error)) => say(&format!("warning: --on-problem was lost: {error}\n")),
        Err(_) => {
            let group = child.id().and_then(|id| i32::try_from(id).ok());
            let killed = group.map(|group| killpg(Pid::from_raw(group), Signal::SIGKILL));
            tracing::debug!(?killed, "the command of --on-problem is killed");
            say(&format!(
                "warning: --on-problem took more than {} s and was killed\n",
                RUN_MAX.as_secs()
            ));
        }
    }
}

/// What an exit code means where nothing else was told.
fn meaning(exit: Exit) -> &'static str {
    match exit {
        Exit::Internal => "internal error",
        Exit::Usage => "usage, plan, credentials, permission, or changed plan or schema",
        Exit::Held => "another run holds the state folder or the target",
        Exit::Unreachable => "a system could not be reached in time",
        Exit::Capacity => "the target would evict or run out of memory",
        Exit::Difference => "a difference was found",
        Exit::Rejects => "more rejected rows than the plan allows",
        Exit::Objective => "an objective was missed",
        Exit::Done | Exit::Interrupted | Exit::Terminated => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parsed(words: &[&str]) -> Cli {
        Cli::try_parse_from(["rekindle"].iter().chain(words)).unwrap()
    }

    #[test]
    fn every_run_command_takes_it_and_the_others_refuse_it() {
        for words in [
            &["check"][..],
            &["status"],
            &["rebuild", "redis"],
            &["backup", "bigquery"],
            &["restore", "bigquery"],
            &["verify", "redis"],
            &["verify", "bigquery"],
        ] {
            let cli = parsed(&[words, &["--on-problem", "true"]].concat());
            assert_eq!(asked(&cli.command), Some((words.join(" ").as_str(), "true")));
            assert_eq!(asked(&parsed(words).command), None);
        }
        for words in [["report", "--on-problem"], ["plan", "--on-problem"]] {
            assert!(Cli::try_parse_from(["rekindle", words[0], words[1], "true"]).is_err());
        }
    }

    #[test]
    fn the_first_problem_is_handed_over_once() {
        let cli = parsed(&["status"]);
        cli.shared.noted.problem("first");
        cli.shared.noted.problem("second");
        cli.shared.noted.run("r1");
        assert_eq!(cli.shared.noted.take(), ("r1".to_owned(), "first".to_owned()));
        assert_eq!(cli.shared.noted.take(), (String::new(), String::new()));
    }
}
