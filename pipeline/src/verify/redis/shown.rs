//! What the last dry run has shown, and what it was asked for: a repair does this and nothing else.
//!
//! Invariant: a repair is refused where plan, routes, tier, target or names are others than those of the dry run, or
//! where the file of findings is not the one that was shown.

use super::findings::measure;
use super::{RedisOptions, Repair};
use crate::ledger::io_error;
use schemas::Plan;
use serde::{Deserialize, Serialize};
use stages::{Error, Kind, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a dry run was asked for, and the file that it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    plan: String,
    routes: Vec<String>,
    tier: String,
    target: String,
    remove_unexplained: Vec<String>,
    findings: u64,
    hash: String,
}

/// Where the findings of the last dry run are.
pub(super) fn findings_path(folder: &Path) -> PathBuf {
    folder.join("dry-run.jsonl")
}

fn record_path(folder: &Path) -> PathBuf {
    folder.join("dry-run.json")
}

/// What a command asks for; two that ask for the same may follow each other as dry run and repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    plan: String,
    routes: Vec<String>,
    tier: String,
    target: String,
    remove_unexplained: Vec<String>,
}

impl Asked {
    /// Takes what a command was asked for. The size of a sample and its seed decide what is found, not what is done.
    pub(super) fn of(plan: &Plan, routes: &[String], target: &str, options: &RedisOptions) -> Self {
        let mut remove_unexplained = options.remove_unexplained.clone();
        remove_unexplained.sort();
        Self {
            plan: plan.fingerprint(),
            routes: routes.to_vec(),
            tier: options.verify.tier.word().to_owned(),
            target: target.to_owned(),
            remove_unexplained,
        }
    }
}

/// Notes that a dry run has shown its findings.
pub(super) fn note(folder: &Path, asked: &Asked, findings: u64, hash: u128) -> Result<()> {
    let Asked { plan, routes, tier, target, remove_unexplained } = asked.clone();
    let hash = format!("{hash:032x}");
    let shown = Shown { plan, routes, tier, target, remove_unexplained, findings, hash };
    let text = serde_json::to_string_pretty(&shown).map_err(|error| {
        Error::new(Kind::Internal, "what was shown cannot be written as JSON").with_source(error)
    })?;
    let (path, temporary) = (record_path(folder), folder.join("dry-run.json.new"));
    fs::write(&temporary, text).map_err(|error| io_error("write", &temporary, error))?;
    fs::rename(&temporary, &path).map_err(|error| io_error("write", &path, error))
}

/// Forgets the last dry run: it was repaired, or another one begins.
pub(super) fn forget(folder: &Path) -> Result<()> {
    let path = record_path(folder);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", &path, error))
        }
        _ => Ok(()),
    }
}

/// Refuses a repair that the last dry run has not shown.
pub(super) fn check(folder: &Path, asked: &Asked, options: &RedisOptions) -> Result<()> {
    let refused =
        |what: String| Error::new(Kind::Config, what).with_hint(command(Repair::DryRun, options));
    let path = record_path(folder);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refused(
                "--repair writes only what a dry run has shown, and there was none".into(),
            ));
        }
        Err(error) => return Err(io_error("read", &path, error)),
    };
    let Ok(shown) = serde_json::from_str::<Shown>(&text) else {
        return Err(refused(format!("{} does not say what was shown", path.display())));
    };
    let differs = [
        (shown.plan != asked.plan, "the routes of the plan"),
        (shown.routes != asked.routes, "--route"),
        (shown.tier != asked.tier, "--tier"),
        (shown.target != asked.target, "the url of [redis]"),
        (shown.remove_unexplained != asked.remove_unexplained, "--remove-unexplained"),
    ];
    let differing: Vec<&str> =
        differs.iter().filter(|(differs, _)| *differs).map(|(_, what)| *what).collect();
    if !differing.is_empty() {
        let what = differing.join(", ");
        return Err(refused(format!("the last dry run was asked for something else: {what}")));
    }
    let findings = findings_path(folder);
    let (count, hash) = measure(&findings)?;
    if (count, format!("{hash:032x}")) != (shown.findings, shown.hash) {
        return Err(refused(format!("{} is not what the dry run has left", findings.display())));
    }
    Ok(())
}

/// Returns the command that does the same with or without writing.
pub(super) fn command(repair: Repair, options: &RedisOptions) -> String {
    let mut words = format!("rekindle verify redis --tier {} --repair", options.verify.tier.word());
    if repair == Repair::DryRun {
        words.push_str(" --dry-run");
    }
    for name in &options.verify.routes {
        words = format!("{words} --route {name}");
    }
    for name in &options.remove_unexplained {
        words = format!("{words} --remove-unexplained '{name}'");
    }
    words
}
