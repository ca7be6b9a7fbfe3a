//! `rekindle backup bigquery --schedule`: records when backups are to run, and prints the line for the crontab.
//!
//! Invariant: nothing is backed up and no crontab is changed; stdout is the line alone.

use super::args::Shared;
use super::backup::BackupBigquery;
use super::failure::{Failure, say, tell};
use super::{plan_of, print, tell_errors};
use crate::backup::COMMAND;
use crate::outcome::Exit;
use crate::schedule::{self, Cron, crontab_line, zone_here};
use serde::Serialize;
use stages::{Error, Kind, Result};
use std::path::Path;

/// What was typed after `--schedule`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// From now on at these times.
    At(Cron),
    /// Not any more.
    Off,
}

impl Schedule {
    /// Parses five fields of a crontab, or `off`.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        if text == "off" { Ok(Self::Off) } else { Cron::parse(text).map(Self::At) }
    }
}

/// What was recorded.
#[derive(Serialize)]
struct Scheduled {
    command: &'static str,
    schedule: Option<String>,
    time_zone: Option<String>,
    line: Option<String>,
    next_at: Option<String>,
    path: String,
}

/// Records the schedule and prints its line.
pub(super) fn record(shared: &Shared, flags: &BackupBigquery, schedule: &Schedule) -> Exit {
    let plan = match plan_of(shared) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    if !plan.routes.iter().any(|route| route.uses.backup) {
        let message = format!(
            "{} has no backup route, so there is nothing to schedule",
            shared.plan.display()
        );
        tell(
            &[Failure::new(Exit::Usage, message, Some("add a [[route]] of type blocks"))],
            shared.json,
        );
        return Exit::Usage;
    }
    match recorded(shared, flags, schedule) {
        Ok(scheduled) => {
            say(&told(&scheduled));
            print(shared.json, &scheduled, || {
                scheduled.line.as_ref().map(|line| format!("{line}\n")).unwrap_or_default()
            })
        }
        Err(error) => tell_errors(&[error], None, shared.json),
    }
}

fn recorded(shared: &Shared, flags: &BackupBigquery, schedule: &Schedule) -> Result<Scheduled> {
    let (cron, line) = match schedule {
        Schedule::Off => (None, None),
        Schedule::At(cron) => (Some(cron), Some(line(shared, flags, cron)?)),
    };
    let path = schedule::record(&shared.state, COMMAND, cron, line.as_deref())?;
    let (zone, time_zone) = zone_here();
    let next = cron.and_then(|cron| cron.next(jiff::Timestamp::now(), &zone));
    Ok(Scheduled {
        command: "backup bigquery --schedule",
        schedule: cron.map(|cron| cron.text().to_owned()),
        time_zone,
        line,
        next_at: next.map(|next| next.to_string()),
        path: path.display().to_string(),
    })
}

/// What a person has to do, on stderr.
fn told(scheduled: &Scheduled) -> String {
    let path = &scheduled.path;
    let Some(next) = &scheduled.next_at else {
        return format!(
            "no backup is expected any more; recorded in {path}. Remove the line: crontab -e\n"
        );
    };
    let zone = scheduled.time_zone.as_deref().unwrap_or("local time");
    format!(
        "recorded in {path}; the first one is expected at {next} (fields are in {zone}). Add the line to a crontab: \
         crontab -e\nwarning: cron starts it with an empty environment: what the plan takes from ${{env:…}} must be set in \
         the crontab, or come from ${{file:…}}\n"
    )
}

fn line(shared: &Shared, flags: &BackupBigquery, cron: &Cron) -> Result<String> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map(|path| path.display().to_string()).map_err(|error| {
            Error::new(Kind::Internal, format!("cannot tell where {} is: {error}", path.display()))
                .with_hint("name it by its absolute path")
        })
    };
    let program = std::env::current_exe().map_err(|error| {
        Error::new(Kind::Internal, format!("cannot tell where this program is: {error}"))
            .with_hint("rekindle backup bigquery --help")
    })?;
    let mut words = vec![absolute(&program)?];
    let mut add = |more: &[&str]| words.extend(more.iter().map(ToString::to_string));
    add(&["backup", "bigquery"]);
    add(&["--plan", &absolute(&shared.plan)?, "--state", &absolute(&shared.state)?]);
    add(&["--log-level", &shared.log_level, "--progress", "none"]);
    for route in &shared.routes {
        add(&["--route", route]);
    }
    if flags.full {
        add(&["--full"]);
    }
    add(&["--retry-for", &schemas::duration::format(flags.retry_for)]);
    if let Some(command) = &flags.problem.on_problem {
        add(&["--on-problem", command]);
    }
    crontab_line(cron, &words).map_err(|message| {
        Error::new(Kind::Config, message).with_hint("put it into a script, and name that")
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::args::Cli;
    use clap::Parser;

    #[test]
    fn a_schedule_is_five_fields_or_off_and_goes_with_nothing_that_loses_data() {
        let parse = |more: &[&str]| {
            let words = ["rekindle", "backup", "bigquery"];
            Cli::try_parse_from(words.iter().chain(more).copied())
        };
        assert!(parse(&["--schedule", "0 3 * * *", "--full"]).is_ok());
        assert!(parse(&["--schedule", "off"]).is_ok());
        for bad in [
            &["--schedule", "@daily"][..],
            &["--schedule", "0 3 * * *", "--fresh"],
            &["--schedule", "0 3 * * *", "--accept-loss", "d.t"],
            &["--schedule", "0 3 * * *", "--take-over", "r1"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
