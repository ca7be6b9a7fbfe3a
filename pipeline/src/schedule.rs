//! Schedules of backups: recorded in the state folder, and compared with the runs that there were.
//!
//! Invariant: records are sealed and only added to; a time counts as missed only when its grace is over and no run, failed
//! ones included, was at work in it.

pub mod cron;
mod line;

pub use cron::Cron;
pub use line::{crontab_line, quoted};

use crate::evidence::{Chain, Evidence, account};
use crate::journal::Journal;
use crate::lane::now_ms;
use crate::outcome::from_journal;
use crate::summarize::rfc3339;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use stages::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FOLDER: &str = "schedules";
const FORMAT: u32 = 1;
/// How late a run may begin, unless the next time comes first.
pub const GRACE: Duration = Duration::from_hours(1);

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format.
    pub format: u32,
    /// What is to run, for example `backup bigquery`.
    pub command: String,
    /// When; absent from where the schedule was taken back.
    pub cron: Option<String>,
    /// The time zone of the machine, where it has a name.
    pub time_zone: Option<String>,
    /// The line for the crontab.
    pub line: Option<String>,
    /// Since when, RFC 3339.
    pub recorded_at: String,
    /// The account that recorded it.
    pub run_by: String,
}

/// How a schedule stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// What is to run.
    pub command: String,
    /// When.
    pub cron: String,
    /// In which time zone.
    pub time_zone: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// The next time, RFC 3339.
    pub next_at: Option<String>,
    /// What was missed and is not closed, oldest first.
    pub missed: Vec<Missed>,
    /// Whether nothing ran since the last time that was missed.
    pub is_behind: bool,
}

/// Times in a row that were missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missed {
    /// Its name, made of the first time.
    pub id: String,
    /// What did not run.
    pub command: String,
    /// The first time, RFC 3339.
    pub first_at: String,
    /// The last time, RFC 3339.
    pub last_at: String,
    /// How many.
    pub times: usize,
}

/// Times that somebody has closed, both ends included, milliseconds since 1970.
pub type Closed = (i64, i64);
/// When a run was at work, both ends included, milliseconds since 1970.
pub type Activity = (i64, i64);

impl Standing {
    /// Returns one line for people.
    pub fn line(&self) -> String {
        let next = self.next_at.as_deref().unwrap_or("never");
        let head = format!("\"{}\" ({}), next at {next}", self.cron, self.time_zone);
        let times: usize = self.missed.iter().map(|missed| missed.times).sum();
        match self.missed.last() {
            None => format!("{head}; no run was missed"),
            Some(last) => {
                let word = if times == 1 { "time" } else { "times" };
                format!("{head}; MISSED {times} {word}, the last at {}", last.last_at)
            }
        }
    }
}

/// The time zone of this machine, and what to call it.
pub fn zone_here() -> (TimeZone, Option<String>) {
    let zone = TimeZone::system();
    // A machine that does not tell is taken to be on UTC, as cron takes it.
    let zone = if zone.is_unknown() { TimeZone::UTC } else { zone };
    let name = zone.iana_name().map(str::to_owned);
    (zone, name)
}

/// Records a schedule, or with `None` that there is none any more; returns the file.
pub fn record(
    state: &Path,
    command: &str,
    cron: Option<&Cron>,
    line: Option<&str>,
) -> Result<PathBuf> {
    let record = Record {
        format: FORMAT,
        command: command.to_owned(),
        cron: cron.map(|cron| cron.text().to_owned()),
        time_zone: zone_here().1,
        line: line.map(str::to_owned),
        recorded_at: rfc3339(now_ms()),
        run_by: account(),
    };
    Chain::of_records(state, FOLDER).seal(&command.replace(' ', "-"), &record)
}

/// Reads every record, oldest first; refuses what was altered.
pub fn records(state: &Path) -> Result<Vec<Record>> {
    Chain::of_records(state, FOLDER).records(FORMAT.into())
}

/// When runs of a command were at work: those that left evidence, and the last one of the journal.
pub async fn activities(
    state: &Path,
    command: &str,
    evidence: &[Evidence],
) -> Result<Vec<Activity>> {
    let ms = |text: &str| text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    let mut found: Vec<Activity> = evidence
        .iter()
        .filter(|evidence| evidence.command == command)
        .filter_map(|evidence| {
            let ended = ms(&evidence.made_at)?;
            let started = evidence.summary["started_at"].as_str().and_then(ms).unwrap_or(ended);
            Some((started, ended))
        })
        .collect();
    // A run that is at work, or was killed, has no evidence.
    if let Some(journal) = Journal::open_read_only(state).await.map_err(from_journal)? {
        let last = journal.latest_run(command).await.map_err(from_journal);
        journal.close().await;
        found.extend(last?.map(|run| (run.started_ms, run.ended_ms.unwrap_or(run.started_ms))));
    }
    Ok(found)
}

/// How the schedule of each command stands now.
pub async fn standings(
    state: &Path,
    evidence: &[Evidence],
    closed: &[Closed],
) -> Result<Vec<Standing>> {
    let records = records(state)?;
    let mut commands: Vec<&str> = records.iter().map(|record| record.command.as_str()).collect();
    commands.sort_unstable();
    commands.dedup();
    let mut standings = Vec::new();
    for command in commands {
        let activity = activities(state, command, evidence).await?;
        let of_it: Vec<&Record> =
            records.iter().filter(|record| record.command == command).collect();
        standings.extend(standing(&of_it, &activity, closed, now_ms())?);
    }
    Ok(standings)
}

/// One time of a schedule, once its grace is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    at_ms: i64,
    is_missed: bool,
}

/// `None` where the schedule was taken back and nothing is left to tell of it.
fn standing(
    records: &[&Record],
    activity: &[Activity],
    closed: &[Closed],
    now_ms: i64,
) -> Result<Option<Standing>> {
    let mut due: Vec<Due> = Vec::new();
    let mut current = None;
    for (number, record) in records.iter().enumerate() {
        let until = records.get(number + 1).map(|next| time(&next.recorded_at)).transpose()?;
        let until_ms = until.map_or(now_ms, Timestamp::as_millisecond).min(now_ms);
        let Some(text) = &record.cron else {
            current = None;
            continue;
        };
        let cron = Cron::parse(text).map_err(|error| unreadable(record, &error))?;
        let zone = zone_of(record);
        let from = time(&record.recorded_at)?;
        due.extend(judged(&cron.times(from, instant(until_ms), &zone), activity, now_ms));
        current = Some((*record, cron, zone));
    }
    let is_closed = |at: i64| closed.iter().any(|(from, to)| (*from..=*to).contains(&at));
    let command = records.first().map(|record| record.command.clone()).unwrap_or_default();
    let missed = in_a_row(&command, &due, &is_closed);
    let is_behind = due.last().is_some_and(|last| {
        last.is_missed
            && !is_closed(last.at_ms)
            && !activity.iter().any(|(_, ended)| *ended >= last.at_ms)
    });
    let Some((record, cron, zone)) = current else {
        // What was missed before it was taken back stays to be closed.
        let gone = Standing {
            command,
            cron: "off".to_owned(),
            time_zone: "none".to_owned(),
            since: records.last().map(|record| record.recorded_at.clone()).unwrap_or_default(),
            next_at: None,
            is_behind: false,
            missed,
        };
        return Ok((!gone.missed.is_empty()).then_some(gone));
    };
    Ok(Some(Standing {
        command,
        cron: cron.text().to_owned(),
        time_zone: record.time_zone.clone().unwrap_or_else(|| "local time".to_owned()),
        since: record.recorded_at.clone(),
        next_at: cron.next(instant(now_ms), &zone).map(|time| time.to_string()),
        missed,
        is_behind,
    }))
}

/// Puts times in a row that were missed and are not closed together.
fn in_a_row(command: &str, due: &[Due], is_closed: &dyn Fn(i64) -> bool) -> Vec<Missed> {
    let mut missed: Vec<Missed> = Vec::new();
    let mut goes_on = false;
    for due in due {
        let is_open = due.is_missed && !is_closed(due.at_ms);
        let at = rfc3339(due.at_ms);
        match missed.last_mut().filter(|_| is_open && goes_on) {
            Some(last) => {
                last.last_at = at;
                last.times += 1;
            }
            None if is_open => missed.push(Missed {
                id: id_of(due.at_ms),
                command: command.to_owned(),
                first_at: at.clone(),
                last_at: at,
                times: 1,
            }),
            None => {}
        }
        goes_on = is_open;
    }
    missed
}

/// Judges each time whose grace is over.
fn judged(times: &[Timestamp], activity: &[Activity], now_ms: i64) -> Vec<Due> {
    let grace_ms = i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX);
    let mut judged = Vec::with_capacity(times.len());
    for (number, time) in times.iter().enumerate() {
        let at_ms = time.as_millisecond();
        let next = times.get(number + 1).map(|next| next.as_millisecond());
        let end_ms = next.unwrap_or(i64::MAX).min(at_ms.saturating_add(grace_ms));
        if end_ms > now_ms {
            break;
        }
        let was_at_work =
            activity.iter().any(|(started, ended)| *started < end_ms && *ended >= at_ms);
        judged.push(Due { at_ms, is_missed: !was_at_work });
    }
    judged
}

/// The name of what was missed, by its first time.
fn id_of(at_ms: i64) -> String {
    let digits: String =
        rfc3339(at_ms).chars().filter(char::is_ascii_alphanumeric).take(13).collect();
    format!("missed.{digits}Z")
}

fn zone_of(record: &Record) -> TimeZone {
    match record.time_zone.as_deref().map(TimeZone::get) {
        Some(Ok(zone)) => zone,
        Some(Err(error)) => {
            tracing::warn!(%error, "the time zone of a schedule is unknown here; it is taken in the local one");
            zone_here().0
        }
        None => zone_here().0,
    }
}

fn instant(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

fn time(text: &str) -> Result<Timestamp> {
    text.parse().map_err(|_| {
        Error::new(Kind::Internal, format!("{text:?} in a record of a schedule is no time"))
            .with_hint("record the schedule again with --schedule")
    })
}

fn unreadable(record: &Record, error: &str) -> Error {
    Error::new(
        Kind::Internal,
        format!("the schedule of {} that was recorded {error}", record.command),
    )
    .with_hint("record the schedule again with --schedule")
}

#[cfg(test)]
mod tests;
