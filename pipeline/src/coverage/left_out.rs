//! What a rebuild does not bring back, for its summary, and the record of the last `check --coverage`.
//!
//! Invariant: what was not looked at is said to be unknown, never taken for nothing.

use super::explain::is_blocks;
use super::{By, Coverage};
use crate::ledger::{io_error, make_folder};
use schemas::Plan;
use serde::{Deserialize, Serialize};
use stages::{Error, Kind, Result};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The record under `--state`; the newest check replaces it.
const FILE: &str = "coverage.json";
/// Unknown patterns that a summary names.
const UNKNOWN_SHOWN_MAX: usize = 10;

/// What a rebuild does not bring back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotBroughtBack {
    /// Keys that are left out on purpose.
    pub declared: Vec<Declared>,
    /// Routes that rebuild Redis and were not among those asked for.
    pub routes: Vec<String>,
    /// What the last check of coverage found; absent where there was none.
    pub coverage: Option<LastCoverage>,
    /// What is known of everything else, in a sentence.
    pub coverage_note: String,
}

/// Keys that something other than a rebuild brings back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// What they begin with.
    pub prefix: String,
    /// Whom to ask.
    pub owner: String,
    /// How they come back.
    pub comes_back: String,
}

/// The last check of coverage, as a summary tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastCoverage {
    /// When it was, RFC 3339.
    pub checked_at: String,
    /// Which Redis was looked at.
    pub address: String,
    /// Whether the routes of the plan are the same now.
    pub is_same_plan: bool,
    /// Keys it saw.
    pub keys: u64,
    /// Share of the keys that routes explained.
    pub routes_percent: f64,
    /// Keys that nothing explained.
    pub unknown_keys: u64,
    /// Their most frequent patterns.
    pub unknown_patterns: Vec<String>,
}

/// Returns what a rebuild of these routes (all when `asked` is empty) does not bring back.
pub fn not_brought_back(plan: &Plan, asked: &[String], state: &Path) -> NotBroughtBack {
    let mut declared: Vec<Declared> = plan
        .unrouted
        .iter()
        .map(|entry| Declared {
            prefix: entry.prefix.clone(),
            owner: entry.owner.clone(),
            comes_back: entry.comes_back.clone(),
        })
        .collect();
    // With a section of its own it is not the cache that lost it.
    let is_here = plan.duplicate.is_none();
    declared.extend(plan.routes.iter().filter(|route| is_here && is_blocks(route)).map(|route| {
        Declared {
            prefix: format!("{}:", route.key.text()),
            owner: format!("route {}", route.name),
            comes_back: "rekindle backup bigquery".to_owned(),
        }
    }));
    let rows_alone = |route: &&schemas::Route| !route.uses.rebuild && !is_blocks(route);
    declared.extend(plan.routes.iter().filter(rows_alone).map(|route| Declared {
        prefix: route.key.leading_literal().to_owned(),
        owner: format!("route {}", route.name),
        comes_back: "by the application, which writes these rows".to_owned(),
    }));
    let is_left_out = |name: &String| !asked.is_empty() && !asked.contains(name);
    let rebuilds = plan.routes.iter().filter(|route| route.uses.rebuild);
    let routes = rebuilds.map(|route| route.name.clone()).filter(is_left_out).collect();
    let (coverage, coverage_note) = match read(state) {
        Ok(Some(found)) => {
            let last = last(plan, &found);
            let note = note(&last);
            (Some(last), note)
        }
        Ok(None) => (None, "never checked: what else lived in this redis is unknown; while one is in use: rekindle check --coverage".to_owned()),
        Err(error) => (None, format!("unknown: {error}; to check it again: rekindle check --coverage")),
    };
    NotBroughtBack { declared, routes, coverage, coverage_note }
}

fn last(plan: &Plan, found: &Coverage) -> LastCoverage {
    let unknown = found.patterns.iter().filter(|pattern| pattern.by == By::Unknown);
    LastCoverage {
        checked_at: found.checked_at.clone(),
        address: found.address.clone(),
        is_same_plan: found.plan == plan.fingerprint(),
        keys: found.keys,
        routes_percent: found.routes.keys_percent,
        unknown_keys: found.unknown.keys,
        unknown_patterns: unknown
            .take(UNKNOWN_SHOWN_MAX)
            .map(|pattern| pattern.pattern.clone())
            .collect(),
    }
}

fn note(last: &LastCoverage) -> String {
    let mut note = format!(
        "checked at {} on {}: routes explained {} % of {} keys",
        last.checked_at, last.address, last.routes_percent, last.keys
    );
    if last.unknown_keys == 0 {
        note.push_str(", and nothing was unknown");
    } else {
        let patterns = last.unknown_patterns.join(", ");
        note = format!(
            "{note}; unknown, and not brought back: {} keys, {patterns}",
            last.unknown_keys
        );
    }
    if !last.is_same_plan {
        note.push_str("; the routes of the plan have changed since");
    }
    note
}

fn path(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// Reads the record of the last check.
pub fn read(state: &Path) -> Result<Option<Coverage>> {
    let path = path(state);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path, error)),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let message =
            format!("cannot read the record of the last coverage check {}", path.display());
        Error::new(Kind::Internal, message)
            .with_hint("rekindle check --coverage writes it anew")
            .with_source(error)
    })
}

/// Keeps the result of a check, in place of the one before. It holds names of keys, so only its owner may read it.
pub fn keep(state: &Path, coverage: &Coverage) -> Result<()> {
    make_folder(state)?;
    let path = path(state);
    let unfinished = path.with_extension("json.new");
    let text = serde_json::to_vec_pretty(coverage).map_err(|error| {
        Error::new(Kind::Internal, "cannot write the record of a coverage check").with_source(error)
    })?;
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&unfinished, &path));
    written.map_err(|error| io_error("write", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{Pattern, Share};
    use std::collections::BTreeMap;

    fn plan() -> Plan {
        let text = "[bigquery]\nproject = \"p\"\n[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n\
            [[route]]\nname = \"a\"\ntable = \"alloydb:a\"\nkey = \"a:{id}\"\ntype = \"hash\"\n\
            [[route]]\nname = \"b\"\ntable = \"alloydb:b\"\nkey = \"b:{id}\"\ntype = \"hash\"\n\
            [[route]]\nname = \"d\"\ntable = \"bigquery:logs.d\"\nkey = \"dup\"\ntype = \"blocks\"\n\
            [[unrouted]]\nprefix = \"s:\"\nowner = \"web\"\ncomes_back = \"by logging in\"\n";
        Plan::parse(text, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap()
    }

    fn coverage(plan: &str) -> Coverage {
        let unknown = Share { keys: 2, keys_percent: 20.0, ..Share::default() };
        Coverage {
            checked_at: "2026-01-31T04:05:06Z".into(),
            address: "h:6379/0".into(),
            plan: plan.into(),
            entries: 10,
            keys: 10,
            bytes_estimate: Some(1_000),
            bytes_refused: None,
            seconds: 1.5,
            server_percent: 9.5,
            server_percent_max: 10.0,
            routes: Share { keys: 8, keys_percent: 80.0, ..Share::default() },
            duplicates: Share::default(),
            rekindle: Share::default(),
            unrouted: Share::default(),
            unknown,
            patterns: vec![Pattern {
                by: By::Unknown,
                name: "cart:<n>".into(),
                pattern: "cart:<n>".into(),
                share: unknown,
                bytes_sampled: 2,
                examples: vec!["cart:1".into()],
                shapes: BTreeMap::new(),
                other_shapes: 0,
                owner: None,
                comes_back: None,
                why: None,
            }],
        }
    }

    #[test]
    fn what_is_declared_left_out_and_unknown_is_named() {
        let state = tempfile::tempdir().unwrap();
        let plan = plan();
        let left_out = not_brought_back(&plan, &["a".to_owned()], state.path());
        let prefixes: Vec<&str> = left_out.declared.iter().map(|d| d.prefix.as_str()).collect();
        assert_eq!((prefixes, left_out.routes), (vec!["s:", "dup:"], vec!["b".to_owned()]));
        assert!(left_out.coverage_note.starts_with("never checked"), "{}", left_out.coverage_note);
        assert!(not_brought_back(&plan, &[], state.path()).routes.is_empty());

        keep(state.path(), &coverage(&plan.fingerprint())).unwrap();
        assert_eq!(read(state.path()).unwrap(), Some(coverage(&plan.fingerprint())));
        assert_eq!(
            not_brought_back(&plan, &[], state.path()).coverage_note,
            "checked at 2026-01-31T04:05:06Z on h:6379/0: routes explained 80 % of 10 keys; \
             unknown, and not brought back: 2 keys, cart:<n>"
        );
        keep(state.path(), &coverage("other")).unwrap();
        let note = not_brought_back(&plan, &[], state.path()).coverage_note;
        assert!(note.ends_with("the routes of the plan have changed since"), "{note}");

        fs::write(path(state.path()), "{").unwrap();
        let note = not_brought_back(&plan, &[], state.path()).coverage_note;
        assert!(note.starts_with("unknown: cannot read the record"), "{note}");
    }
}
