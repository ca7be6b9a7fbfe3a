//! What a run carried, every few seconds, written down while it works.
//!
//! Invariant: one file per process of a run, only appended to; recording never slows or stops a run, and a line that a
//! kill cut off is left out.

use crate::lane::now_ms;
use crate::progress::Counters;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a point is taken.
const EVERY: Duration = Duration::from_secs(1);
/// When the first one is taken: before, the counters know nothing of the processes that came before.
const FIRST: Duration = Duration::from_millis(200);
/// Points of one process that evidence keeps; more are thinned out evenly.
const POINTS_MAX: usize = 600;
const FOLDER: &str = "history";

/// What was carried until a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Rows of all routes, those of earlier processes included.
    pub rows: u64,
    /// Source bytes that this process has read.
    pub bytes: u64,
}

/// What each process of a run carried, in the order of their starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// One list of points per process.
    pub processes: Vec<Vec<Point>>,
}

/// Records until it is dropped, and then once more.
#[derive(Debug)]
pub struct Recording {
    task: tokio::task::JoinHandle<()>,
    counters: Arc<Counters>,
    file: Arc<File>,
}

impl Recording {
    /// Begins to record a run under a state folder; `None`, and a warning, where that cannot be written.
    pub fn begin(state: &Path, run_id: &str, counters: &Arc<Counters>) -> Option<Self> {
        let file = match create(&folder(state, run_id), now_ms()) {
            Ok(file) => Arc::new(file),
            Err(error) => {
                tracing::warn!(%error, "what the run carries is not recorded for its report");
                return None;
            }
        };
        let counters = Arc::clone(counters);
        let task = tokio::spawn({
            let (counters, file) = (Arc::clone(&counters), Arc::clone(&file));
            async move {
                let first = tokio::time::Instant::now() + FIRST;
                let mut clock = tokio::time::interval_at(first, EVERY);
                clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                loop {
                    clock.tick().await;
                    note(&file, &counters, now_ms());
                }
            }
        });
        Some(Self { task, counters, file })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
        note(&self.file, &self.counters, now_ms());
    }
}

impl History {
    /// Reads what the processes of a run have recorded; nothing where nothing was.
    pub fn read(state: &Path, run_id: &str) -> Self {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder(state, run_id))
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        // Names are times of one length.
        paths.sort_unstable();
        let read = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let points = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            thinned(points.collect())
        };
        Self { processes: paths.iter().map(read).filter(|points| !points.is_empty()).collect() }
    }
}

fn folder(state: &Path, run_id: &str) -> PathBuf {
    state.join("runs").join(run_id).join(FOLDER)
}

fn create(folder: &Path, now_ms: i64) -> std::io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("{now_ms:015}.jsonl"));
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// A point that cannot be written is missing from a plot, and nothing else.
fn note(mut file: &File, counters: &Counters, at_ms: i64) {
    let bytes = counters.routes.iter().map(|route| route.bytes.load(Ordering::Relaxed)).sum();
    let point = Point { at_ms, rows: counters.rows(), bytes };
    if let Ok(mut line) = serde_json::to_vec(&point) {
        line.push(b'\n');
        if let Err(error) = file.write_all(&line) {
            tracing::debug!(%error, "a point of the history is lost");
        }
    }
}

/// Keeps the first and last point and evenly many between.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    let each = points.len().div_ceil(POINTS_MAX).max(1);
    let last = points.len().saturating_sub(1);
    let keeps = |index: usize| index.is_multiple_of(each) || index == last;
    points
        .into_iter()
        .enumerate()
        .filter(|(index, _)| keeps(*index))
        .map(|(_, point)| point)
        .collect()
}
