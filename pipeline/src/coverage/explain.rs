//! What explains a key: a route, the duplicate, rekindle itself, an `[[unrouted]]` entry, or nothing.
//!
//! Invariant: pure; a key that nothing explains is unknown, never counted for what it resembles.

use crate::backup::rows::keys_of;
use crate::bench::KEY_PREFIX;
use schemas::manifest::Keys;
use schemas::plan::{OWN_KEYS, Unrouted};
use schemas::{Plan, Route};
use stages::load::redis::SENTINEL_KEY;
use stages::load::redis::duplicate::BACKUP_SENTINEL_KEY;
use stages::transform::many_rows::TEMPORARY_PREFIX;
use stages::transform::redis_command::TRIAL_PREFIX;

/// What a key is, as far as its name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// A mark or a trial key of rekindle.
    Own,
    /// A key of the duplicate that this route keeps.
    Duplicate(usize),
    /// A key of an `[[unrouted]]` entry, by its number in the plan.
    Unrouted(usize),
    /// The key templates of these routes fit; the type decides. Never empty.
    Routes(Vec<usize>),
    /// Nothing fits.
    Unknown,
}

/// A plan, asked about keys.
pub(crate) struct Explainer<'a> {
    routes: &'a [Route],
    unrouted: &'a [Unrouted],
    /// Keys of duplicates, or of what is recorded of rows, with the number of their route.
    duplicates: Vec<(usize, Keys)>,
}

impl<'a> Explainer<'a> {
    /// Takes a plan. `has_duplicate` says whether the duplicate of BigQuery lives in the same database.
    pub(crate) fn new(plan: &'a Plan, has_duplicate: bool) -> Self {
        let duplicates = plan
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| has_duplicate && route.uses.backup)
            .map(|(index, route)| (index, keys_of(route)))
            .collect();
        Self { routes: &plan.routes, unrouted: &plan.unrouted, duplicates }
    }

    /// Returns what a key is by its name.
    pub(crate) fn named(&self, key: &[u8]) -> Named {
        if is_own(key) {
            return Named::Own;
        }
        if let Some((index, _)) = self.duplicates.iter().find(|(_, keys)| is_of(keys, key)) {
            return Named::Duplicate(*index);
        }
        let longest = self
            .unrouted
            .iter()
            .enumerate()
            .filter(|(_, entry)| key.starts_with(entry.prefix.as_bytes()))
            .max_by_key(|(_, entry)| entry.prefix.len());
        if let Some((index, _)) = longest {
            return Named::Unrouted(index);
        }
        // Rows are in this database, also those that only a restore reads.
        let fitting: Vec<usize> =
            (0..self.routes.len()).filter(|index| self.routes[*index].fits(key)).collect();
        if fitting.is_empty() { Named::Unknown } else { Named::Routes(fitting) }
    }

    /// Returns the first of these routes that writes values of a type, as `TYPE` names it.
    pub(super) fn of_type(&self, routes: &[usize], type_name: &str) -> Option<usize> {
        routes.iter().copied().find(|index| redis_type(&self.routes[*index]) == type_name)
    }
}

/// Whether a route keeps a duplicate of many rows per value, whose keys its prefix makes.
pub(super) fn is_blocks(route: &Route) -> bool {
    route.layout.word() == "blocks"
}

/// The type that `TYPE` names for the values of a route.
pub(super) fn redis_type(route: &Route) -> &'static str {
    match route.layout.word() {
        word @ ("hash" | "stream" | "set" | "zset" | "list") => word,
        "redisjson" => "ReJSON-RL",
        _ => "string",
    }
}

fn is_own(key: &[u8]) -> bool {
    key.starts_with(OWN_KEYS.as_bytes())
        && (key == SENTINEL_KEY.as_bytes()
            || key == BACKUP_SENTINEL_KEY.as_bytes()
            || key.starts_with(TRIAL_PREFIX.as_bytes())
            || key.starts_with(TEMPORARY_PREFIX.as_bytes())
            || key.starts_with(KEY_PREFIX.as_bytes()))
}

/// Whether a key is one that a duplicate has: a block, a manifest, a recorded table, or the record of its last run.
fn is_of(keys: &Keys, key: &[u8]) -> bool {
    let Ok(key) = str::from_utf8(key) else { return false };
    key == keys.run()
        || key.starts_with(&keys.manifest(""))
        || key.starts_with(&keys.schema(""))
        || keys.parse_block(key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
[bigquery]
project = "p"
[alloydb]
url = "postgres://h/d"
[redis]
url = "redis://h"
[[route]]
name = "builds"
table = "alloydb:builds"
key = "build:{id}"
type = "hash"
[[route]]
name = "titles"
table = "alloydb:builds"
key = "build:{id}:title"
type = "string"
columns = ["title"]
[[route]]
name = "logs"
table = "bigquery:logs.build_logs"
key = "dup:logs"
type = "blocks"
[[route]]
name = "lines"
table = "bigquery:logs.lines"
key = "line:{id}"
type = "hash"
use = ["backup"]
[[unrouted]]
prefix = "session:"
owner = "web"
comes_back = "by logging in"
[[unrouted]]
prefix = "session:admin:"
owner = "ops"
comes_back = "by hand"
"#;

    fn plan() -> Plan {
        Plan::parse(PLAN, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap()
    }

    #[test]
    fn every_kind_of_key_has_its_explanation() {
        let plan = plan();
        let explainer = Explainer::new(&plan, true);
        for (key, named) in [
            ("rekindle:run", Named::Own),
            ("rekindle:backup", Named::Own),
            ("rekindle:trial:7", Named::Own),
            ("rekindle:bench:7:item:1", Named::Own),
            ("rekindle:other", Named::Unknown),
            ("dup:logs:b:2026:01:3:0", Named::Duplicate(2)),
            ("dup:logs:m:20260101", Named::Duplicate(2)),
            ("dup:logs:s:00ff", Named::Duplicate(2)),
            ("dup:logs:run", Named::Duplicate(2)),
            ("line:7", Named::Routes(vec![3])),
            ("rekindle:rows:lines:run", Named::Duplicate(3)),
            ("rekindle:rows:others:run", Named::Unknown),
            ("dup:logs:x", Named::Unknown),
            ("dup:logs", Named::Unknown),
            ("session:7", Named::Unrouted(0)),
            ("session:admin:7", Named::Unrouted(1)),
            ("build:7", Named::Routes(vec![0])),
            ("build:7:title", Named::Routes(vec![0, 1])),
            ("cart:7", Named::Unknown),
            ("", Named::Unknown),
        ] {
            assert_eq!(explainer.named(key.as_bytes()), named, "{key}");
        }
        assert_eq!(explainer.of_type(&[0, 1], "string"), Some(1));
        assert_eq!(explainer.of_type(&[0, 1], "hash"), Some(0));
        assert_eq!(explainer.of_type(&[0, 1], "list"), None);
    }

    #[test]
    fn a_duplicate_that_lives_elsewhere_explains_nothing_here() {
        let plan = plan();
        assert_eq!(Explainer::new(&plan, false).named(b"dup:logs:run"), Named::Unknown);
    }
}
