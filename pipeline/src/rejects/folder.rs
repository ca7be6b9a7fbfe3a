//! The folder of rejects: `<state>/rejects/<run>/<partition>-<epoch>-<number>.parquet`, and how a file is marked done.
//!
//! Invariant: nothing in it is overwritten; a file that was replayed is renamed, and its rows that stay rejected are in
//! a file named after it before that. What an attempt wrote and did not commit goes when the next attempt begins.

use super::file;
use crate::ledger::io_error;
use schemas::{PartitionId, Plan};
use stages::Result;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the name of a file ends in.
const OPEN: &str = ".parquet";
/// The same once it was replayed.
const DONE: &str = ".parquet.done";
/// What stands before the number of a replay in a name.
const AGAIN: char = '+';

/// The folder of one run.
pub(super) fn of_run(state: &Path, run_id: &str) -> PathBuf {
    root(state).join(run_id)
}

fn root(state: &Path) -> PathBuf {
    state.join("rejects")
}

/// Returns the ids of the runs that have rejected rows, oldest first.
pub(super) fn runs(state: &Path) -> Result<Vec<String>> {
    let mut runs: Vec<String> = entries(&root(state))?
        .into_iter()
        .filter(|path| path.is_dir())
        .map(|path| name(&path))
        .collect();
    runs.sort();
    Ok(runs)
}

/// A file of rejected rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RejectFile {
    pub(super) path: PathBuf,
    pub(super) name: String,
    /// Whether its rows were replayed: they are in Redis, gone, or in a later file.
    pub(super) is_done: bool,
}

/// Returns the files of a run by name; refuses what does not belong there.
pub(super) fn files(state: &Path, run_id: &str) -> Result<Vec<RejectFile>> {
    let mut files = Vec::new();
    for path in entries(&of_run(state, run_id))? {
        let name = name(&path);
        if name.ends_with(file::UNFINISHED) {
            // A process that ended while it wrote left it; the rows were never counted.
            continue;
        }
        if !path.is_file() || !(name.ends_with(OPEN) || name.ends_with(DONE)) {
            return Err(file::foreign(&path, "its name is none of a file of rejected rows"));
        }
        files.push(RejectFile { is_done: name.ends_with(DONE), path, name });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    // A crash between the file of what stays and the mark: the later file is what counts.
    let stems: HashSet<String> = files.iter().map(|file| strip(&file.name).to_owned()).collect();
    for file in &mut files {
        file.is_done |= stems.contains(&again(strip(&file.name)));
    }
    Ok(files)
}

/// What every file of a partition begins with.
pub(super) fn prefix_of(partition: &PartitionId) -> String {
    format!("{}-", partition.0.replace('/', "@"))
}

/// Removes the files of a partition behind its first `committed` rows: its next attempt reads their rows again.
///
/// Batches are committed in the order in which their files are written, so that these rows are in the first files.
pub(super) fn take_back(run: &Path, partition: &PartitionId, committed: u64) -> Result<()> {
    let prefix = prefix_of(partition);
    let mut files: Vec<((u64, u64), bool, PathBuf)> = Vec::new();
    for path in entries(run)? {
        let name = name(&path);
        let Some(place) = strip(&name).strip_prefix(&prefix) else { continue };
        let (place, again) = place.split_once(AGAIN).map_or((place, false), |(of, _)| (of, true));
        let numbers = place.split_once('-').map(|(epoch, number)| (epoch.parse(), number.parse()));
        if let Some((Ok(epoch), Ok(number))) = numbers {
            files.push(((epoch, number), again, path));
        }
    }
    // A file stands before what stayed of it in replays, which counts with it.
    files.sort();
    let (mut rows, mut is_kept) = (0, true);
    for (_, is_again, path) in files {
        if !is_again {
            rows += if is_kept { file::rows(&path)? } else { 0 };
            is_kept &= rows <= committed;
        }
        if !is_kept {
            fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
        }
    }
    Ok(())
}

fn strip(name: &str) -> &str {
    name.strip_suffix(DONE).or_else(|| name.strip_suffix(OPEN)).unwrap_or(name)
}

/// The name after one more replay: `a`, `a+1`, `a+2`.
fn again(stem: &str) -> String {
    let numbered =
        stem.rsplit_once(AGAIN).and_then(|(stem, n)| Some((stem, n.parse::<u64>().ok()?)));
    let (stem, number) = numbered.unwrap_or((stem, 0));
    format!("{stem}{AGAIN}{}", number + 1)
}

impl RejectFile {
    /// Where the rows go that stay rejected after a replay of this file.
    pub(super) fn again(&self) -> PathBuf {
        self.path.with_file_name(format!("{}{OPEN}", again(strip(&self.name))))
    }

    /// Marks it as replayed.
    pub(super) fn finish(&self) -> Result<()> {
        file::rename(&self.path, &self.path.with_file_name(format!("{}{DONE}", strip(&self.name))))
    }
}

/// Deletes the files of routes whose `rejects_keep` has passed, replayed or not, but those of the run at hand; says how
/// many of each route.
///
/// A file that cannot be read, or of a route that the plan no longer has, stays.
pub fn forget_old(state: &Path, plan: &Plan, run_id: &str) -> Result<()> {
    let kept: Vec<(&str, Duration)> = plan
        .routes
        .iter()
        .filter_map(|route| Some((route.name.as_str(), route.rejects_keep?)))
        .collect();
    if kept.is_empty() {
        return Ok(());
    }
    for run in runs(state)?.into_iter().filter(|run| run != run_id) {
        for (route, keep) in &kept {
            let removed = remove_old(&of_run(state, &run), route, *keep)?;
            if removed > 0 {
                tracing::warn!(%route, %run, files = removed, "rejected rows older than rejects_keep were deleted");
            }
        }
        // Goes only where it is empty.
        if fs::remove_dir(of_run(state, &run)).is_ok() {
            tracing::debug!(%run, "no rejected rows are left");
        }
    }
    Ok(())
}

fn remove_old(folder: &Path, route: &str, keep: Duration) -> Result<u64> {
    let mut removed = 0;
    for path in entries(folder)? {
        let (name, now) = (name(&path), SystemTime::now());
        // Partitions are named `<route>/<number>`, and neither has a `@`.
        let is_ours = name.split_once('@').is_some_and(|(owner, _)| owner == route);
        if !is_ours || !path.is_file() {
            continue;
        }
        let written = fs::metadata(&path).and_then(|facts| facts.modified());
        let written = written.map_err(|error| io_error("look at", &path, error))?;
        if now.duration_since(written).is_ok_and(|age| age > keep) {
            fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(|error| io_error("read", folder, error))?,
    };
    let paths: std::io::Result<Vec<PathBuf>> =
        listed.map(|entry| entry.map(|entry| entry.path())).collect();
    paths.map_err(|error| io_error("read", folder, error))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use std::sync::Arc;

    #[test]
    fn what_stays_rejected_is_named_after_where_it_was() {
        assert_eq!(again("users@0-1-0"), "users@0-1-0+1");
        assert_eq!(again("users@0-1-0+9"), "users@0-1-0+10");
        assert_eq!(again("a+b@0-1-0"), "a+b@0-1-0+1");
    }

    #[test]
    fn files_of_rows_that_were_not_committed_are_taken_back() {
        let run = tempfile::tempdir().unwrap();
        let rows = |count: i64| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
            RecordBatch::try_from_iter([("id", column)]).unwrap()
        };
        let files = [
            ("a@1-1-0.parquet.done", 2),
            ("a@1-1-0+1.parquet", 1),
            ("a@1-1-3.parquet", 3),
            ("a@1-1-10.parquet", 4),
            ("a@1-2-0.parquet", 1),
            ("a@1-2-0+1.parquet", 1),
            ("a@10-1-0.parquet", 9),
            ("a@1-x-1-1.parquet", 9),
        ];
        for (name, count) in files {
            file::write(&run.path().join(name), &rows(count)).unwrap();
        }
        let left = |committed| {
            take_back(run.path(), &PartitionId("a/1".into()), committed).unwrap();
            let mut names: Vec<String> =
                entries(run.path()).unwrap().iter().map(|p| name(p)).collect();
            names.sort();
            names
        };
        // Eight rows end within the file of four.
        let others = ["a@1-x-1-1.parquet", "a@10-1-0.parquet"];
        let kept = ["a@1-1-0+1.parquet", "a@1-1-0.parquet.done", "a@1-1-3.parquet"];
        assert_eq!(left(8), [&kept[..], &others].concat());
        assert_eq!(left(5), [&kept[..], &others].concat());
        assert_eq!(left(4), [&kept[..2], &others].concat());
        assert_eq!(left(0), others);
        let none = run.path().join("none");
        take_back(&none, &PartitionId("a/1".into()), 0).unwrap();
    }

    #[test]
    fn a_file_with_a_later_one_counts_as_done_and_foreign_names_are_refused() {
        let state = tempfile::tempdir().unwrap();
        let folder = of_run(state.path(), "run");
        fs::create_dir_all(&folder).unwrap();
        for name in [
            "a@0-1-0.parquet",
            "a@0-1-0+1.parquet",
            "a@1-1-0.parquet",
            "b@0-1-0.parquet.done",
            "c.parquet.tmp",
        ] {
            fs::write(folder.join(name), "").unwrap();
        }
        let open: Vec<String> = files(state.path(), "run")
            .unwrap()
            .into_iter()
            .filter(|file| !file.is_done)
            .map(|file| file.name)
            .collect();
        assert_eq!(open, ["a@0-1-0+1.parquet", "a@1-1-0.parquet"]);
        fs::write(folder.join("notes.txt"), "").unwrap();
        assert!(files(state.path(), "run").unwrap_err().to_string().contains("notes.txt"));
    }
}
