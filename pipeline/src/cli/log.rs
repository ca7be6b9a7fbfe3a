//! `rekindle log`: its flags, and how a review and a closing are told.
//!
//! Invariant: nothing is recorded without a name, and nothing of a log that was altered is told.

use super::args::Shared;
use super::help::EXIT_CODES;
use super::{print, tell_errors};
use crate::log_review;
use crate::outcome::Exit;
use clap::{Args, Subcommand};

const AFTER_REVIEW: &str = "\
Problems come first: runs that failed, held losses and differences, missed objectives, runs that were scheduled and did not
happen (MISSED), rejected rows. Each one stays open until `rekindle log close` closes it.
With --by the review is recorded under --state, sealed like evidence; the next one lists the runs since then.
Exit code 0, open problems or not; with --strict that of the worst open problem, 6 for what was missed. 4: evidence or a
record of a review was altered.

";

const AFTER_CLOSE: &str = "\
A closing is recorded with the name, the note and the account, sealed like evidence, and is never taken back.

";

/// What can be done with the log.
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Lists the runs since the last review and every problem that nobody has closed; records who reviewed
    #[command(after_help = format!("{AFTER_REVIEW}{EXIT_CODES}"))]
    Review(Review),
    /// Closes a problem, or all problems of a run, with a name and a note
    #[command(after_help = format!("{AFTER_CLOSE}{EXIT_CODES}"))]
    Close(Close),
}

/// Flags of `log review`.
#[derive(Debug, Args)]
pub struct Review {
    /// Record that this person has reviewed the log now
    #[arg(long, value_name = "NAME", value_parser = parse_words)]
    pub by: Option<String>,
    /// End with the exit code of the worst problem that is open
    #[arg(long)]
    pub strict: bool,
}

/// Flags of `log close`.
#[derive(Debug, Args)]
pub struct Close {
    /// The problem, as the review names it, or the id of a run
    #[arg(value_name = "PROBLEM_ID")]
    pub problem: String,
    /// Who closes it
    #[arg(long, value_name = "NAME", value_parser = parse_words)]
    pub by: String,
    /// What was found and done
    #[arg(long, value_name = "TEXT", value_parser = parse_words)]
    pub note: String,
}

/// A text of one line that says something.
fn parse_words(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_control) {
        return Err("must be one line of text, and not empty".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) async fn log(shared: &Shared, command: &Log) -> Exit {
    match command {
        Log::Review(flags) => review(shared, flags).await,
        Log::Close(flags) => close(shared, flags).await,
    }
}

async fn review(shared: &Shared, flags: &Review) -> Exit {
    match log_review::review(&shared.state, flags.by.as_deref()).await {
        Ok(review) => {
            let printed = print(shared.json, &review, || review.render(&shared.state));
            if flags.strict { printed.min(review.worst()) } else { printed }
        }
        Err(error) => tell_errors(&[error], None, shared.json),
    }
}

async fn close(shared: &Shared, flags: &Close) -> Exit {
    match log_review::close(&shared.state, &flags.problem, &flags.by, &flags.note).await {
        Ok(closure) => print(shared.json, &closure, || closure.render()),
        Err(error) => tell_errors(&[error], None, shared.json),
    }
}
