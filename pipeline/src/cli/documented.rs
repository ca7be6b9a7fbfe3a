//! Every command that the documents name is one that the program takes.
//!
//! Invariant: a line of `rekindle …` in README.md, RUNBOOK.md or IMPORT.md parses, its placeholders filled in.

use super::args::Cli;
use clap::Parser;
use clap::error::ErrorKind;

const DOCUMENTS: [(&str, &str); 3] = [
    ("README.md", include_str!("../../../README.md")),
    ("RUNBOOK.md", include_str!("../../../RUNBOOK.md")),
    ("IMPORT.md", include_str!("../../../IMPORT.md")),
];

const TIME: &str = "2026-11-29T12:00:00Z";

/// What stands for something that whoever types has to choose.
const PLACEHOLDERS: [(&str, &str); 16] = [
    ("$LOST", TIME),
    ("TIME", TIME),
    ("T", TIME),
    ("FROM..TO", "20251101..20251102"),
    ("DATASET.TABLE", "logs.lines"),
    ("SYSTEMS", "redis,bigquery"),
    ("DB", "1"),
    ("DIR", "folder"),
    ("N", "2"),
    ("NAME", "builds"),
    ("ID", "01a227c3"),
    ("KEY", "build:ten"),
    ("CRON", "0 3 * * *"),
    ("CMD", "true"),
    ("PROBLEM_ID", "7.failed"),
    ("TEXT", "mended"),
];

/// Commands in backticks, and whole lines of shell.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_shell = false;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_shell = language == "sh";
        } else if is_shell {
            found.push(line.split(" #").next().unwrap_or_default().trim().to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found.retain(|command| command.starts_with("rekindle ") && !command.contains(['…', '|', '>']));
    found
}

#[test]
fn every_documented_command_is_taken() {
    let mut tried = 0;
    for (name, text) in DOCUMENTS {
        for command in commands(text) {
            let filled = command.split_whitespace().map(|word| {
                let word = word.trim_matches('\'');
                PLACEHOLDERS.iter().find(|(place, _)| *place == word).map_or(word, |(_, with)| with)
            });
            let parsed = Cli::try_parse_from(filled);
            // A command that is named without its system shows the help.
            let is_help = |error: &clap::Error| {
                matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp
                        | ErrorKind::DisplayVersion
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                )
            };
            let refused = parsed.err().filter(|error| !is_help(error));
            assert!(refused.is_none(), "{name}: `{command}`: {}", refused.unwrap());
            tried += 1;
        }
    }
    assert!(tried > 60, "only {tried} commands were found");
}
