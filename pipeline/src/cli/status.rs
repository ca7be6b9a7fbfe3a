//! `rekindle status`: how the last run stands, read beside a run that may be writing the journal.
//!
//! Invariant: nothing is written and no lock is taken; a run counts as at work only while the kernel says that the
//! process which took the lock still holds it.

mod copies;
mod text;

use crate::alloydb_backups::BackupAge;
use crate::backup::age::Age;
use crate::checkpoint::Status;
use crate::journal::{Journal, PartitionRecord, RouteRecord, RunRecord, RunStatus};
use crate::lane::now_ms;
use crate::outcome::from_journal;
use crate::restore::standing::{TableStanding, standings};
use crate::schedule::Standing;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::Serialize;
use stages::Result;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The commands that leave runs in the journal.
const COMMANDS: [&str; 4] = [
    crate::rebuild::COMMAND,
    crate::rebuild::FILES_COMMAND,
    crate::backup::COMMAND,
    crate::backup::ARCHIVE_COMMAND,
];

/// How the last run stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StatusReport {
    /// Always `status`.
    pub(crate) command: &'static str,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// The last rebuild or backup; absent when there is none.
    pub(crate) run: Option<RunStanding>,
    /// The last restore; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restore: Option<RunStanding>,
    /// How old the duplicate of each table is; absent where the plan or its Redis cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duplicates: Option<Vec<Age>>,
    /// How old AlloyDB's own backups are; absent where the plan names no cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alloydb_backups: Option<BackupAge>,
    /// Every schedule that was recorded, and what was MISSED.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) schedules: Vec<Standing>,
    /// What could not be found out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown: Vec<String>,
    /// How old the archive of each table is; absent where the plan has none or it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) archives: Option<Vec<Age>>,
}

/// How one run stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RunStanding {
    /// The run's command.
    pub(crate) command: String,
    /// Its id.
    pub(crate) run_id: String,
    /// `running`, `killed`, `interrupted`, `failed`, `done` or `abandoned`.
    pub(crate) status: String,
    /// The process at work.
    pub(crate) pid: Option<u32>,
    /// 1 and one more for every resume.
    pub(crate) attempts: u32,
    /// First start, RFC 3339.
    pub(crate) started_at: String,
    /// End, RFC 3339.
    pub(crate) ended_at: Option<String>,
    /// When the data was lost, RFC 3339.
    pub(crate) lost_at: String,
    /// `loss` when somebody said so, else `start`.
    pub(crate) clock_from: &'static str,
    /// Seconds from the loss to the end, or to now.
    pub(crate) seconds_since_loss: f64,
    /// Seconds since the journal was last written.
    pub(crate) checkpoint_age_seconds: Option<f64>,
    /// Whether the same command would continue this run.
    pub(crate) is_resumable: bool,
    /// Rows committed.
    pub(crate) rows: u64,
    /// Rows that could not be carried.
    pub(crate) rejects: u64,
    /// Per route.
    pub(crate) routes: Vec<RouteStanding>,
    /// Per table, of a restore.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tables: Vec<TableStanding>,
    /// What went wrong in partitions that are not done.
    pub(crate) errors: Vec<PartitionError>,
    /// The summary it left, when it ended.
    pub(crate) summary: Option<serde_json::Value>,
}

/// How one route stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RouteStanding {
    /// Its name.
    pub(crate) name: String,
    /// Partitions cut.
    pub(crate) partitions: u64,
    /// Partitions done.
    pub(crate) partitions_done: u64,
    /// Partitions whose last attempt failed.
    pub(crate) partitions_failed: u64,
    /// Rows committed.
    pub(crate) rows: u64,
    /// Rows that could not be carried.
    pub(crate) rejects: u64,
    /// When it was complete, RFC 3339.
    pub(crate) completed_at: Option<String>,
}

/// The last error of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PartitionError {
    /// The partition.
    pub(crate) partition: String,
    /// Its attempts.
    pub(crate) attempts: u32,
    /// What the last one met.
    pub(crate) error: String,
}

impl StatusReport {
    /// Reads the last run of the state folder; `routes` limits what is listed when it is not empty.
    pub(crate) async fn read(state: &Path, routes: &[String]) -> Result<Self> {
        let mut report = Self {
            command: "status",
            state: state.to_owned(),
            run: None,
            restore: None,
            duplicates: None,
            alloydb_backups: None,
            schedules: Vec::new(),
            archives: None,
            unknown: Vec::new(),
        };
        let Some(journal) = Journal::open_read_only(state).await.map_err(from_journal)? else {
            return Ok(report);
        };
        let read = report.read_runs(&journal, routes).await;
        journal.close().await;
        read.map(|()| report)
    }

    async fn read_runs(&mut self, journal: &Journal, routes: &[String]) -> Result<()> {
        self.run = read_last(journal, &self.state, routes, &COMMANDS).await?;
        let restore = read_last(journal, &self.state, routes, &[crate::restore::COMMAND]).await?;
        if let Some(mut run) = restore {
            let mut tables = standings(journal, &run.run_id).await?;
            tables.retain(|table| routes.is_empty() || routes.contains(&table.route));
            run.rows = tables.iter().map(|table| table.acknowledged).sum();
            // A restore has streams where a rebuild has partitions.
            run.routes = Vec::new();
            run.tables = tables;
            self.restore = Some(run);
        }
        Ok(())
    }

    /// Renders it for people.
    pub(crate) fn render(&self) -> String {
        let mut text = text::render(self);
        self.render_copies(&mut text);
        text
    }
}

async fn read_last(
    journal: &Journal,
    state: &Path,
    routes: &[String],
    commands: &[&str],
) -> Result<Option<RunStanding>> {
    let mut last: Option<RunRecord> = None;
    for command in commands {
        let run = journal.latest_run(command).await.map_err(from_journal)?;
        last = last.into_iter().chain(run).max_by_key(|run| run.started_ms);
    }
    let Some(run) = last else { return Ok(None) };
    let is_listed = |route: &str| routes.is_empty() || routes.iter().any(|name| name == route);
    let mut records = journal.routes(&run.id).await.map_err(from_journal)?;
    records.retain(|route| is_listed(&route.name));
    let mut partitions = journal.partitions(&run.id).await.map_err(from_journal)?;
    partitions.retain(|record| is_listed(&record.partition.route));
    let holder = (run.status == RunStatus::Running).then(|| holder(state)).flatten();
    let holder = holder.filter(|pid| is_at(*pid, &run.command));
    let age = journal_age(journal.path());
    Ok(Some(RunStanding::of(&run, &records, &partitions, holder, age)))
}

impl RunStanding {
    fn of(
        run: &RunRecord,
        routes: &[RouteRecord],
        partitions: &[PartitionRecord],
        pid: Option<u32>,
        checkpoint_age_seconds: Option<f64>,
    ) -> Self {
        let is_killed = run.status == RunStatus::Running && pid.is_none();
        let until_ms = run.ended_ms.unwrap_or_else(now_ms);
        let routes: Vec<RouteStanding> =
            routes.iter().map(|route| RouteStanding::of(route, partitions)).collect();
        Self {
            command: run.command.clone(),
            run_id: run.id.clone(),
            status: if is_killed { "killed".to_owned() } else { run.status.as_str().to_owned() },
            pid,
            attempts: run.attempts,
            started_at: time(run.started_ms),
            ended_at: run.ended_ms.map(time),
            lost_at: time(run.lost_at_ms),
            clock_from: if run.lost_at_given { "loss" } else { "start" },
            seconds_since_loss: (until_ms - run.lost_at_ms).max(0) as f64 / 1000.0,
            checkpoint_age_seconds,
            is_resumable: is_killed
                || matches!(
                    run.status,
                    RunStatus::Interrupted | RunStatus::Failed | RunStatus::Partial
                ),
            rows: routes.iter().map(|route| route.rows).sum(),
            rejects: routes.iter().map(|route| route.rejects).sum(),
            errors: errors(partitions),
            routes,
            tables: Vec::new(),
            summary: run.summary.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        }
    }
}

impl RouteStanding {
    fn of(route: &RouteRecord, partitions: &[PartitionRecord]) -> Self {
        let own: Vec<&PartitionRecord> = partitions
            .iter()
            .filter(|record| record.partition.route == route.name && record.status != Status::Void)
            .collect();
        let count =
            |status: Status| own.iter().filter(|record| record.status == status).count() as u64;
        Self {
            name: route.name.clone(),
            partitions: own.len() as u64,
            partitions_done: count(Status::Done),
            partitions_failed: count(Status::Failed),
            rows: own.iter().map(|record| record.counts.rows).sum(),
            rejects: own.iter().map(|record| record.counts.rejects).sum(),
            completed_at: route.completed_ms.map(time),
        }
    }
}

/// Errors of partitions that are not done; a later success has removed the rest.
fn errors(partitions: &[PartitionRecord]) -> Vec<PartitionError> {
    partitions
        .iter()
        .filter(|record| record.status != Status::Void)
        .filter_map(|record| {
            Some(PartitionError {
                partition: record.partition.id.to_string(),
                attempts: record.attempts,
                error: record.error.clone()?,
            })
        })
        .collect()
}

fn time(ms: i64) -> String {
    super::figures::time(ms)
}

/// Returns the process that holds the lock of the state folder.
///
/// The process id in the file outlives its process and may come to belong to another one, so the kernel's list of
/// locks decides; asking by trying to lock would make a run that starts at this moment fail.
pub(crate) fn holder(state: &Path) -> Option<u32> {
    let path = state.join("lock");
    let pid: u32 = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    let inode = fs::metadata(&path).ok()?.ino();
    let holds = match fs::read_to_string("/proc/locks") {
        Ok(locks) => locks.lines().any(|line| is_lock_of(line, pid, inode)),
        Err(_) => kill(Pid::from_raw(i32::try_from(pid).ok()?), None).is_ok(),
    };
    holds.then_some(pid)
}

/// Whether a process was started with the first word of a command, for example `restore`; a state folder may have
/// unfinished runs of several. What the kernel does not tell is believed.
pub(crate) fn is_at(pid: u32, command: &str) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return true };
    let verb = command.split(' ').next().unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == verb.as_bytes())
}

/// Whether a line of `/proc/locks`, for example `1: FLOCK ADVISORY WRITE 6537 fe:00:1006 0 EOF`, is that lock.
fn is_lock_of(line: &str, pid: u32, inode: u64) -> bool {
    let mut words = line.split_whitespace().skip(1);
    words.next() == Some("FLOCK")
        && words.nth(2).and_then(|word| word.parse().ok()) == Some(pid)
        && words.next().and_then(|file| file.rsplit(':').next()).and_then(|word| word.parse().ok())
            == Some(inode)
}

/// Seconds since the journal or its log was last written.
fn journal_age(journal: &Path) -> Option<f64> {
    let mut log = journal.as_os_str().to_owned();
    log.push("-wal");
    // Only looked at, never opened: closing a descriptor of the file would drop SQLite's own locks on it.
    let written = [journal.to_owned(), PathBuf::from(log)]
        .iter()
        .filter_map(|path| fs::metadata(path).ok()?.modified().ok())
        .max()?;
    Some(SystemTime::now().duration_since(written).unwrap_or_default().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_recognised_by_process_and_file() {
        let line = "1: FLOCK  ADVISORY  WRITE 6537 fe:00:10060876 0 EOF";
        assert!(is_lock_of(line, 6537, 10_060_876));
        assert!(!is_lock_of(line, 6538, 10_060_876));
        assert!(!is_lock_of(line, 6537, 10_060_877));
        assert!(!is_lock_of(
            "2: POSIX  ADVISORY  READ 6537 fe:00:10060876 128 128",
            6537,
            10_060_876
        ));
        assert!(!is_lock_of("", 1, 1));
    }

    #[tokio::test]
    async fn a_folder_without_a_journal_has_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let report = StatusReport::read(&folder.path().join("none"), &[]).await.unwrap();
        assert_eq!(report.run, None);
        assert!(report.render().starts_with("no run yet"), "{}", report.render());
    }
}
