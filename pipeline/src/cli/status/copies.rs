//! The copies in `rekindle status`: how old they are, what was scheduled and did not happen, and what that is as an exit.
//!
//! Invariant: a copy whose age cannot be found out is UNKNOWN; only one that is known to be too old ends with 6.

use super::StatusReport;
use crate::alloydb_backups::backup_age;
use crate::backup::age::{Age, ages};
use crate::backup::archived::archive_ages;
use crate::evidence::Verdict;
use crate::log_review;
use crate::outcome::Exit;
use schemas::Plan;
use stages::Result;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::error::Elapsed;

/// How long what holds the duplicates, and the archive, may take to answer.
const AGES_TIMEOUT: Duration = Duration::from_secs(3);

impl StatusReport {
    /// Adds how old the copies of the plan are; a system that does not answer soon leaves that unknown.
    pub(crate) async fn add_copies(&mut self, plan: &Plan) {
        let within = AGES_TIMEOUT;
        let (duplicates, archives, alloydb) = tokio::join!(
            tokio::time::timeout(within, ages(plan)),
            tokio::time::timeout(within, archive_ages(plan)),
            backup_age(plan)
        );
        self.alloydb_backups = alloydb;
        self.duplicates = self.known(duplicates, "duplicates of bigquery", "redis");
        if plan.archive.is_some() {
            self.archives = self.known(archives, "archive of bigquery", "the archive");
        }
    }

    /// What was found out of the age of copies; what was not is noted as unknown.
    fn known(
        &mut self,
        asked: std::result::Result<Result<Vec<Age>>, Elapsed>,
        copies: &str,
        place: &str,
    ) -> Option<Vec<Age>> {
        match asked {
            Ok(Ok(ages)) => return Some(ages),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the age of the {copies} is unknown");
                self.unknown.push(format!("{copies}: {error}"));
            }
            Err(_) => self
                .unknown
                .push(format!("{copies}: {place} did not answer in {} s", AGES_TIMEOUT.as_secs())),
        }
        None
    }

    /// Adds the schedules of the state folder.
    pub(crate) async fn add_schedules(&mut self) {
        match log_review::schedules(&self.state).await {
            Ok(schedules) => self.schedules = schedules,
            Err(error) => self.unknown.push(format!("schedules: {error}")),
        }
    }

    /// What is too old or behind, a line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for age in self.duplicates.iter().flatten().filter(|age| is_too_old(age)) {
            problems.push(format!("duplicate of {}: {}", age.table, age.line()));
        }
        for age in self.archives.iter().flatten().filter(|age| is_too_old(age)) {
            problems.push(format!("archive of {}: {}", age.table, age.line()));
        }
        if let Some(age) =
            self.alloydb_backups.as_ref().filter(|age| age.verdict == Verdict::Missed)
        {
            problems.push(format!("alloydb backups: {}", age.detail));
        }
        for schedule in self.schedules.iter().filter(|schedule| schedule.is_behind) {
            problems.push(format!("schedule of {}: {}", schedule.command, schedule.line()));
        }
        problems
    }

    /// 6 where something is too old or behind.
    pub(crate) fn exit(&self) -> Exit {
        if self.problems().is_empty() { Exit::Done } else { Exit::Objective }
    }

    pub(super) fn render_copies(&self, text: &mut String) {
        let mut line = |words: String| {
            writeln!(text, "{words}").expect("writing to a string cannot fail");
        };
        for age in self.duplicates.iter().flatten() {
            line(format!("duplicate of {}: {}", age.table, age.line()));
        }
        for age in self.archives.iter().flatten() {
            line(format!("archive of {}: {}", age.table, age.line()));
        }
        if let Some(age) = &self.alloydb_backups {
            let word = match age.verdict {
                Verdict::Unknown => "UNKNOWN, ",
                Verdict::Met | Verdict::Missed => "",
            };
            line(format!("alloydb backups: {word}{}", age.detail));
        }
        for schedule in &self.schedules {
            line(format!("schedule of {}: {}", schedule.command, schedule.line()));
        }
        for unknown in &self.unknown {
            line(format!("UNKNOWN: {unknown}"));
        }
    }
}

/// Whether a copy is known to be older than its objective, or never was complete. A record that cannot be read says
/// nothing of its age.
fn is_too_old(age: &Age) -> bool {
    age.problem.is_none() && !age.within_rpo
}
