//! `rekindle rejects list`: which runs have rejected rows, of which routes, why, and in which files.
//!
//! Invariant: nothing is written and no lock is taken; no value of a row is told.

use super::file;
use super::folder;
use super::told::{Reason, Reasons};
use crate::cli::figures::{count, things, time};
use crate::journal::Journal;
use crate::outcome::from_journal;
use serde::Serialize;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// File names of a route that people are shown.
const NAMES_SHOWN: usize = 3;

/// The runs that have rejected rows.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Always `rejects list`.
    pub command: &'static str,
    /// Oldest first.
    pub runs: Vec<RunRejects>,
}

/// The rejected rows of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RunRejects {
    /// Its id.
    pub run_id: String,
    /// What it did; absent where the journal does not know it.
    pub command: Option<String>,
    /// When it began, RFC 3339.
    pub started_at: Option<String>,
    /// Where the files are.
    pub folder: PathBuf,
    /// Rows that were not replayed, or stay rejected.
    pub rows: u64,
    /// Rows in files that were replayed.
    pub rows_done: u64,
    /// Per route.
    pub routes: Vec<RouteRejects>,
}

/// The rejected rows of a route.
#[derive(Debug, Clone, Serialize)]
pub struct RouteRejects {
    /// Its name.
    pub name: String,
    /// Rows that were not replayed, or stay rejected.
    pub rows: u64,
    /// Rows in files that were replayed.
    pub rows_done: u64,
    /// Fingerprints of the plans under which they were rejected.
    pub plans: Vec<String>,
    /// Why, most frequent first, of the rows that are not done.
    pub reasons: Vec<Reason>,
    /// Names of the files that are not done.
    pub files: Vec<String>,
    /// Names of the files that are.
    pub files_done: Vec<String>,
    #[serde(skip)]
    noted: Reasons,
}

impl Listing {
    /// Reads the files of a run, or of all of them; `routes` limits what is listed when it is not empty.
    pub async fn read(state: &Path, run: Option<&str>, routes: &[String]) -> Result<Self> {
        let mut wanted = folder::runs(state)?;
        if let Some(run) = run {
            if !wanted.iter().any(|known| known == run) {
                let message = format!("--run {run}: no rows of such a run were rejected");
                return Err(Error::new(Kind::Config, message).with_hint("rekindle rejects list"));
            }
            wanted.retain(|known| known == run);
        }
        let journal = Journal::open_read_only(state).await.map_err(from_journal)?;
        let mut runs = Vec::new();
        for run_id in wanted {
            let record = match &journal {
                Some(journal) => journal.run(&run_id).await.map_err(from_journal)?,
                None => None,
            };
            let routes = by_route(state, &run_id, routes)?;
            let sum = |of: fn(&RouteRejects) -> u64| routes.iter().map(of).sum();
            runs.push(RunRejects {
                rows: sum(|route| route.rows),
                rows_done: sum(|route| route.rows_done),
                command: record.as_ref().map(|record| record.command.clone()),
                started_at: record.map(|record| time(record.started_ms)),
                folder: folder::of_run(state, &run_id),
                run_id,
                routes,
            });
        }
        Ok(Self { command: "rejects list", runs })
    }

    /// Renders it for people.
    pub fn render(&self) -> String {
        if self.runs.is_empty() {
            return "no run has rejected rows\n".to_owned();
        }
        self.runs.iter().map(RunRejects::render).collect()
    }
}

fn by_route(state: &Path, run_id: &str, only: &[String]) -> Result<Vec<RouteRejects>> {
    let mut found: BTreeMap<String, RouteRejects> = BTreeMap::new();
    for reject in folder::files(state, run_id)? {
        file::read(&reject.path, &mut |rows| {
            for row in 0..rows.rows.num_rows() {
                let name = rows.routes.value(row);
                if !only.is_empty() && only.iter().all(|wanted| wanted != name) {
                    continue;
                }
                if !found.contains_key(name) {
                    found.insert(name.to_owned(), RouteRejects::new(name));
                }
                let Some(route) = found.get_mut(name) else { continue };
                let names = if reject.is_done {
                    route.rows_done += 1;
                    &mut route.files_done
                } else {
                    route.rows += 1;
                    route.noted.note(rows.reasons.value(row));
                    &mut route.files
                };
                if names.last() != Some(&reject.name) {
                    names.push(reject.name.clone());
                }
                let plan = rows.plans.value(row);
                if route.plans.iter().all(|known| known != plan) {
                    route.plans.push(plan.to_owned());
                }
            }
            Ok(())
        })?;
    }
    let listed = |route: RouteRejects| RouteRejects { reasons: route.noted.list(), ..route };
    Ok(found.into_values().map(listed).collect())
}

impl RouteRejects {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rows: 0,
            rows_done: 0,
            plans: Vec::new(),
            reasons: Vec::new(),
            files: Vec::new(),
            files_done: Vec::new(),
            noted: Reasons::default(),
        }
    }
}

impl RunRejects {
    fn render(&self) -> String {
        let what = match (&self.command, &self.started_at) {
            (Some(command), Some(started)) => format!("{command}, {started}"),
            _ => "not in the journal".to_owned(),
        };
        let mut text = format!("run {} ({what})\n", self.run_id);
        let mut line = |line: String| {
            writeln!(text, "{line}").expect("writing to a string cannot fail");
        };
        line(format!("  files in {}", self.folder.display()));
        for route in &self.routes {
            let done = match route.rows_done {
                0 => String::new(),
                done => format!(", {} replayed", count(done)),
            };
            line(format!("  {}: {}{done}", route.name, things(route.rows, "row")));
            for Reason { reason, rows } in &route.reasons {
                line(format!("    {} x {reason}", count(*rows)));
            }
            for name in route.files.iter().take(NAMES_SHOWN) {
                line(format!("    {name}"));
            }
            if let Some(more) = route.files.len().checked_sub(NAMES_SHOWN).filter(|more| *more > 0)
            {
                line(format!("    and {} more", things(more as u64, "file")));
            }
        }
        if self.rows > 0 {
            line(format!("  again: rekindle rejects replay --run {}", self.run_id));
        }
        text
    }
}
