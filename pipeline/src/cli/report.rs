//! `rekindle report`: evidence of runs, listed or as a report.
//!
//! Invariant: a report is made only of a chain in which nothing was altered; it overwrites no file.

use super::args::Shared;
use super::help::EXIT_CODES;
use super::{figures, print, tell_errors};
use crate::evidence::{Chain, Entry, Evidence, sha256};
use crate::outcome::Exit;
use crate::report::Report as Rendered;
use clap::{Args, ValueEnum};
use serde::Serialize;
use stages::{Error, Kind, Result};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const AFTER: &str = "\
Every rebuild, backup, restore, verify and bench leaves a file of evidence under --state, which is
written once and sealed by a manifest that seals the one before. An altered, missing or unsealed
file ends with exit code 4, and its name is told.

";

pub(super) fn after_help() -> String {
    format!("{AFTER}{EXIT_CODES}")
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Markdown, without drawings.
    Markdown,
    /// One HTML page, with drawings.
    Html,
}

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Which evidence: its number, or the id of its run [default: the newest]
    #[arg(value_name = "EVIDENCE")]
    pub evidence: Option<String>,
    /// List all evidence instead
    #[arg(long, conflicts_with_all = ["evidence", "out"])]
    pub list: bool,
    /// How it is written: markdown or html
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Markdown, hide_possible_values = true)]
    pub format: Format,
    /// Write it into this file, which must not be there yet, instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// One line of the list.
#[derive(Serialize)]
struct Listed {
    evidence: u64,
    command: String,
    run_id: String,
    made_at: String,
    status: String,
    exit_code: u8,
    path: PathBuf,
}

/// All evidence.
#[derive(Serialize)]
struct List {
    command: &'static str,
    evidence: Vec<Listed>,
}

pub(super) fn report(shared: &Shared, flags: &Report) -> Exit {
    let chain = Chain::of_state(&shared.state);
    let made = if flags.list { list(shared, &chain) } else { render(shared, flags, &chain) };
    made.unwrap_or_else(|error| tell_errors(&[error], None, shared.json))
}

fn list(shared: &Shared, chain: &Chain) -> Result<Exit> {
    let mut evidence = Vec::new();
    for entry in chain.list()? {
        let Evidence { command, run_id, made_at, ended, .. } = Chain::read(&entry)?;
        let (evidence_number, path) = (entry.number, entry.path);
        let (status, exit_code) = (ended.status, ended.exit_code);
        evidence.push(Listed {
            evidence: evidence_number,
            command,
            run_id,
            made_at,
            status,
            exit_code,
            path,
        });
    }
    let list = List { command: "report --list", evidence };
    let printed = print(shared.json, &list, || list.render());
    let sealed = chain.unaltered();
    Ok(match sealed {
        Ok(()) => printed,
        Err(error) => tell_errors(&[error], None, shared.json),
    })
}

impl List {
    fn render(&self) -> String {
        if self.evidence.is_empty() {
            return "no evidence yet: every rebuild, backup, restore, verify and bench leaves some\n"
                .to_owned();
        }
        self.evidence.iter().fold(String::new(), |mut text, listed| {
            let Listed { evidence, command, run_id, made_at, status, exit_code, .. } = listed;
            writeln!(
                text,
                "{evidence:>6}  {made_at}  {command} {run_id}: {status}, exit {exit_code}"
            )
            .expect("writing to a string cannot fail");
            text
        })
    }
}

fn render(shared: &Shared, flags: &Report, chain: &Chain) -> Result<Exit> {
    chain.unaltered()?;
    let entry = chosen(chain, flags.evidence.as_deref())?;
    let evidence = Chain::read(&entry)?;
    if shared.json {
        return Ok(print(true, &evidence, String::new));
    }
    let bytes = fs::read(&entry.path).unwrap_or_default();
    let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
    let report = Rendered::of(&evidence, &name, &sha256(&bytes));
    let text = match flags.format {
        Format::Markdown => report.markdown(),
        Format::Html => report.html(),
    };
    match &flags.out {
        None => Ok(print(false, &(), || text)),
        Some(path) => create(path, &text),
    }
}

/// The evidence of a number or a run; of several of one run the newest.
fn chosen(chain: &Chain, wanted: Option<&str>) -> Result<Entry> {
    let entries = chain.list()?;
    let is_wanted = |entry: &&Entry| match wanted {
        None => true,
        Some(wanted) => {
            let name = entry.path.file_stem().unwrap_or_default().to_string_lossy();
            wanted.parse() == Ok(entry.number) || (wanted.len() == 36 && name.ends_with(wanted))
        }
    };
    entries.iter().rfind(is_wanted).cloned().ok_or_else(|| {
        let message = match wanted {
            Some(wanted) => {
                format!("there is no evidence {wanted} in {}", chain.folder().display())
            }
            None => format!("there is no evidence in {} yet", chain.folder().display()),
        };
        Error::new(Kind::Config, message).with_hint("rekindle report --list")
    })
}

fn create(path: &Path, text: &str) -> Result<Exit> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => {
            super::failure::say(&format!(
                "wrote {}, {}\n",
                path.display(),
                figures::bytes(text.len() as u64)
            ));
            Ok(Exit::Done)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let message = format!("{} exists, and is not overwritten", path.display());
            Err(Error::new(Kind::Config, message).with_hint("name another file with --out"))
        }
        Err(error) => {
            let message = format!("cannot write {}: {error}", path.display());
            Err(Error::new(Kind::Internal, message).with_hint("name another file with --out"))
        }
    }
}
