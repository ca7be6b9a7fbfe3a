//! `rekindle state`: its flags, and how what is there is told.
//!
//! Invariant: only `reset` writes, only under `--state`, and only what was named.

use super::args::Shared;
use super::help::EXIT_CODES;
use super::signals::Signals;
use super::{print, status, tell_errors, until_signal};
use crate::journal::Journal;
use crate::outcome::{Exit, from_journal};
use crate::state::{reset, show};
use clap::{Args, Subcommand};
use std::io::{self, BufWriter, Write};

const AFTER_EXPORT: &str = "\
One JSON object per line: `table` names the table of the journal, every other member is a column of it. The first line
is the format and the version that wrote it; then runs, snapshots, routes, servers, partitions, and what restores keep.
Names ending in _ms and _us are times since 1970. Positions and bounds may hold values of the column a table is cut by.
All lines are of one instant, also beside a run.

";

const AFTER_RESET: &str = "\
What a run wrote to Redis or BigQuery stays, its mark too; the command says what to type about it.
Refused while a run holds the folder.

";

/// What can be done with the state folder.
#[derive(Debug, Subcommand)]
pub enum State {
    /// Tells which runs the folder holds, with their routes and their sizes on disk
    #[command(after_help = EXIT_CODES)]
    Show,
    /// Prints the journal as JSON lines
    #[command(after_help = format!("{AFTER_EXPORT}{EXIT_CODES}"))]
    Export,
    /// Forgets one run: its record in the journal and its ledgers; touches neither Redis nor BigQuery
    #[command(after_help = format!("{AFTER_RESET}{EXIT_CODES}"))]
    Reset(Reset),
}

/// Flags of `state reset`.
#[derive(Debug, Args)]
pub struct Reset {
    /// The run to forget
    #[arg(long, value_name = "RUN_ID")]
    pub run: String,
    /// Do it; without this it is only told what would be forgotten
    #[arg(long)]
    pub yes_forget: bool,
    /// Delete its rejected rows too
    #[arg(long)]
    pub with_rejects: bool,
}

pub(super) async fn state(shared: &Shared, command: &State, signals: &Signals) -> Exit {
    match command {
        State::Show => Box::pin(until_signal(shown(shared), signals)).await,
        State::Export => Box::pin(until_signal(export(shared), signals)).await,
        State::Reset(flags) => {
            let run = flags.run.as_str();
            match reset(&shared.state, run, flags.yes_forget, flags.with_rejects).await {
                Ok(forgotten) => print(shared.json, &forgotten, || forgotten.render()),
                Err(error) => tell_errors(&[error], None, shared.json),
            }
        }
    }
}

async fn shown(shared: &Shared) -> Exit {
    match show(&shared.state, status::holder(&shared.state)).await {
        Ok(contents) => print(shared.json, &contents, || contents.render()),
        Err(error) => tell_errors(&[error], None, shared.json),
    }
}

async fn export(shared: &Shared) -> Exit {
    let journal = match Journal::open_read_only(&shared.state).await {
        Ok(Some(journal)) => journal,
        // No journal has no lines.
        Ok(None) => return Exit::Done,
        Err(error) => return tell_errors(&[from_journal(error)], None, shared.json),
    };
    let mut out = BufWriter::new(io::stdout());
    let mut failed = None;
    let exported = journal
        .export(&mut |line| {
            let written = writeln!(out, "{line}");
            failed = written.as_ref().err().map(io::Error::kind);
            written
        })
        .await;
    let flushed = out.flush();
    match (exported, failed.or(flushed.as_ref().err().map(io::Error::kind))) {
        // A reader such as `head` that has seen enough is no failure.
        (_, Some(io::ErrorKind::BrokenPipe)) | (Ok(()), None) => Exit::Done,
        (Err(error), _) => tell_errors(&[from_journal(error)], None, shared.json),
        (Ok(()), Some(kind)) => {
            super::internal("cannot write to stdout", &io::Error::from(kind), shared.json)
        }
    }
}
