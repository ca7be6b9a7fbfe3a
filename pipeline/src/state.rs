//! The state folder as a whole: what is in it, and forgetting a run.
//!
//! Invariant: only files under `--state` are touched, never a system; a run is removed from the journal before its files,
//! so that no run is left without them.

use crate::checkpoint::Status;
use crate::cli::figures::{bytes, count, things, time};
use crate::journal::{Journal, RunRecord, RunStatus};
use crate::ledger::io_error;
use crate::outcome::from_journal;
use serde::Serialize;
use stages::{Error, Kind, Result};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the ledgers and spools of runs are.
const RUNS: &str = "runs";
const REJECTS: &str = "rejects";

/// What is in a state folder.
#[derive(Debug, Clone, Serialize)]
pub struct Contents {
    /// Always `state show`.
    pub command: &'static str,
    /// The folder.
    pub state: PathBuf,
    /// The process that holds its lock.
    pub pid: Option<u32>,
    /// Bytes of all files in it.
    pub bytes: u64,
    /// Bytes of the journal and its log.
    pub journal_bytes: u64,
    /// Oldest first; runs that only left files are last.
    pub runs: Vec<RunContents>,
}

/// What is there of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RunContents {
    /// Its id.
    pub run_id: String,
    /// What it does; absent where the journal does not know it and only files are there.
    pub command: Option<String>,
    /// `running`, `interrupted`, `failed`, `done` or `abandoned`.
    pub status: Option<&'static str>,
    /// Whether the same command would continue it.
    pub is_resumable: bool,
    /// 1 and one more for every resume.
    pub attempts: u32,
    /// First start, RFC 3339.
    pub started_at: Option<String>,
    /// End, RFC 3339.
    pub ended_at: Option<String>,
    /// Its routes.
    pub routes: Vec<RouteContents>,
    /// Bytes of its ledgers and spools.
    pub ledger_bytes: u64,
    /// Bytes of its rejected rows.
    pub rejects_bytes: u64,
}

/// What the journal knows of a route of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RouteContents {
    /// Its name.
    pub name: String,
    /// Partitions cut.
    pub partitions: u64,
    /// Partitions done.
    pub partitions_done: u64,
    /// Rows committed.
    pub rows: u64,
}

/// Reads what is in a state folder, also beside a run.
pub async fn show(state: &Path, pid: Option<u32>) -> Result<Contents> {
    let mut runs = Vec::new();
    let mut known = BTreeSet::new();
    if let Some(journal) = Journal::open_read_only(state).await.map_err(from_journal)? {
        for run in journal.runs().await.map_err(from_journal)? {
            known.insert(run.id.clone());
            let routes = routes_of(&journal, &run.id).await?;
            runs.push(contents_of(state, &run.id, Some(&run), routes)?);
        }
        journal.close().await;
    }
    for run in folders(state)?.difference(&known) {
        runs.push(contents_of(state, run, None, Vec::new())?);
    }
    let journal_bytes = ["", "-wal", "-shm"]
        .iter()
        .map(|suffix| size_of(&state.join(format!("journal.sqlite{suffix}"))))
        .sum::<Result<u64>>()?;
    Ok(Contents {
        command: "state show",
        state: state.to_owned(),
        pid,
        bytes: size_of(state)?,
        journal_bytes,
        runs,
    })
}

async fn routes_of(journal: &Journal, run_id: &str) -> Result<Vec<RouteContents>> {
    let partitions = journal.partitions(run_id).await.map_err(from_journal)?;
    let routes = journal.routes(run_id).await.map_err(from_journal)?;
    let contents = |name: String| {
        let own = || {
            partitions
                .iter()
                .filter(|record| record.partition.route == name && record.status != Status::Void)
        };
        RouteContents {
            partitions: own().count() as u64,
            partitions_done: own().filter(|record| record.status == Status::Done).count() as u64,
            rows: own().map(|record| record.counts.rows).sum(),
            name: name.clone(),
        }
    };
    Ok(routes.into_iter().map(|route| contents(route.name)).collect())
}

fn contents_of(
    state: &Path,
    run_id: &str,
    run: Option<&RunRecord>,
    routes: Vec<RouteContents>,
) -> Result<RunContents> {
    let is_open = |run: &RunRecord| {
        matches!(run.status, RunStatus::Running | RunStatus::Interrupted | RunStatus::Failed)
    };
    Ok(RunContents {
        run_id: run_id.to_owned(),
        command: run.map(|run| run.command.clone()),
        status: run.map(|run| run.status.as_str()),
        is_resumable: run.is_some_and(is_open),
        attempts: run.map_or(0, |run| run.attempts),
        started_at: run.map(|run| time(run.started_ms)),
        ended_at: run.and_then(|run| run.ended_ms).map(time),
        routes,
        ledger_bytes: size_of(&state.join(RUNS).join(run_id))?,
        rejects_bytes: size_of(&state.join(REJECTS).join(run_id))?,
    })
}

/// The runs that have files.
fn folders(state: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for kind in [RUNS, REJECTS] {
        for path in listed(&state.join(kind))? {
            if path.is_dir() {
                found.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| io_error("read", folder, error))?,
    };
    let paths: std::io::Result<Vec<PathBuf>> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    paths.map_err(|error| io_error("read", folder, error))
}

/// Bytes of a file, or of all files in a folder; what is not there, or goes meanwhile, has none.
fn size_of(path: &Path) -> Result<u64> {
    let facts = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        facts => facts.map_err(|error| io_error("look at", path, error))?,
    };
    if !facts.is_dir() {
        return Ok(facts.len());
    }
    listed(path)?.iter().map(|inside| size_of(inside)).sum()
}

/// What was forgotten.
#[derive(Debug, Clone, Serialize)]
pub struct Forgotten {
    /// Always `state reset`.
    pub command: &'static str,
    /// Which run.
    pub run_id: String,
    /// Whether the journal knew it.
    pub was_in_journal: bool,
    /// Bytes that were deleted.
    pub bytes: u64,
    /// What stays, and what to type about it.
    pub left: Vec<String>,
}

/// Forgets a run: its record and its ledgers, and its rejected rows where that is asked for.
///
/// Refused while another process holds the folder (`Fenced`), and without `is_sure`.
pub async fn reset(
    state: &Path,
    run_id: &str,
    is_sure: bool,
    with_rejects: bool,
) -> Result<Forgotten> {
    let unknown = || {
        let message = format!("--run {run_id}: {} has no such run", state.display());
        Error::new(Kind::Config, message).with_hint("rekindle state show")
    };
    if !state.join("journal.sqlite").exists() && !folders(state)?.contains(run_id) {
        return Err(unknown());
    }
    let journal = Journal::open(state).await.map_err(from_journal)?;
    let record = journal.run(run_id).await.map_err(from_journal)?;
    let (ledger, rejects) = (state.join(RUNS).join(run_id), state.join(REJECTS).join(run_id));
    if record.is_none() && !folders(state)?.contains(run_id) {
        return Err(unknown());
    }
    if !is_sure {
        let what = record.as_ref().map_or("files of a run", |run| run.command.as_str());
        let message = format!(
            "run {run_id} ({what}) would be forgotten, and {} of it deleted; it cannot be resumed or brought back",
            bytes(size_of(&ledger)?)
        );
        return Err(Error::new(Kind::Config, message)
            .with_hint(format!("rekindle state reset --run {run_id} --yes-forget")));
    }
    let was_in_journal = journal.forget(run_id).await.map_err(from_journal)?;
    let mut removed = remove(&ledger)?;
    let mut left = record.as_ref().map(left_by).unwrap_or_default();
    if with_rejects {
        removed += remove(&rejects)?;
    } else if rejects.exists() {
        left.push(format!(
            "its rejected rows stay in {}: rekindle rejects list --run {run_id}",
            rejects.display()
        ));
    }
    journal.close().await;
    let run_id = run_id.to_owned();
    Ok(Forgotten { command: "state reset", run_id, was_in_journal, bytes: removed, left })
}

/// What an unfinished run leaves in the systems, which nobody here touches.
fn left_by(run: &RunRecord) -> Vec<String> {
    if matches!(run.status, RunStatus::Done | RunStatus::Abandoned) {
        return Vec::new();
    }
    let id = &run.id;
    vec![match run.command.as_str() {
        crate::rebuild::COMMAND => format!(
            "redis keeps what it wrote, and its mark where it left one: rekindle rebuild redis --take-over {id}"
        ),
        crate::rebuild::FILES_COMMAND => {
            format!("its unfinished files stay in the hidden folder .rekindle-{id} where --to-rdb pointed")
        }
        crate::backup::COMMAND => {
            "blocks that it wrote and did not publish stay in redis; the next backup does not know them".to_owned()
        }
        crate::backup::ARCHIVE_COMMAND => {
            "files that it wrote and did not publish stay in the archive; the next backup does not know them".to_owned()
        }
        _ => "its staging tables stay in bigquery until they expire".to_owned(),
    }]
}

fn remove(folder: &Path) -> Result<u64> {
    let size = size_of(folder)?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", folder, error))
        }
        _ => Ok(size),
    }
}

impl Contents {
    /// Renders it for people.
    pub fn render(&self) -> String {
        let mut text = format!(
            "{}: {}, {} of it the journal\n",
            self.state.display(),
            bytes(self.bytes),
            bytes(self.journal_bytes)
        );
        if let Some(pid) = self.pid {
            writeln!(text, "in use by process {pid}").expect("writing to a string cannot fail");
        }
        if self.runs.is_empty() {
            text.push_str("no run yet\n");
        }
        for run in &self.runs {
            text.push_str(&run.render());
        }
        text
    }
}

impl RunContents {
    fn render(&self) -> String {
        let what = match (&self.command, self.status, &self.started_at) {
            (Some(command), Some(status), Some(started)) => {
                format!("{command}, {status}, {started}")
            }
            _ => "not in the journal, only files".to_owned(),
        };
        let mut text = format!(
            "run {} ({what}): ledgers {}, rejects {}\n",
            self.run_id,
            bytes(self.ledger_bytes),
            bytes(self.rejects_bytes)
        );
        for route in &self.routes {
            let (done, all) = (count(route.partitions_done), things(route.partitions, "partition"));
            writeln!(text, "  {}: {}, {done} of {all} done", route.name, things(route.rows, "row"))
                .expect("writing to a string cannot fail");
        }
        text
    }
}

impl Forgotten {
    /// Renders it for people.
    pub fn render(&self) -> String {
        let mut text = format!("run {} is forgotten, {} deleted\n", self.run_id, bytes(self.bytes));
        for left in &self.left {
            writeln!(text, "note: {left}").expect("writing to a string cannot fail");
        }
        text
    }
}
