//! Drift in a backup: what the duplicate recorded of a table against what BigQuery has now.
//!
//! Invariant: a column that is gone, or holds something else, changes nothing in the duplicate until somebody accepts it;
//! a column that is new loses nothing, and is told.

use super::source::SourceTable;
use super::standing::Standing;
use schemas::Route;
use schemas::drift::{Drift, OnDrift, What, compare};
use schemas::manifest::{Keys, Manifest, TableRecord};
use stages::extract::bigquery::resource_shape;
use stages::load::store::Store;
use stages::{Error, Kind, Result};
use std::collections::BTreeSet;

/// Returns what changed in a table since its last complete backup. A record that is missing or altered is told elsewhere.
pub async fn since_the_last(
    duplicate: &dyn Store,
    keys: &Keys,
    route: &Route,
    standing: &Standing,
    source: Option<&SourceTable>,
) -> Result<Vec<Drift>> {
    let (Some(run), Some(source)) = (&standing.run, source) else { return Ok(Vec::new()) };
    since(duplicate, keys, route, &run.schema_hash, source).await
}

/// Returns the hashes of recorded tables whose copies hold columns otherwise than copies of now would.
///
/// Nothing else shows it: BigQuery need not tell a table partition as changed where only its table was altered.
pub async fn outdated(
    duplicate: &dyn Store,
    keys: &Keys,
    route: &Route,
    standing: &Standing,
    source: Option<&SourceTable>,
) -> Result<BTreeSet<String>> {
    let Some(source) = source else { return Ok(BTreeSet::new()) };
    let newest = standing.manifests.values().filter_map(Manifest::newest);
    let hashes: BTreeSet<String> = newest.map(|version| version.schema_hash.clone()).collect();
    let mut outdated = BTreeSet::new();
    for hash in hashes {
        let found = since(duplicate, keys, route, &hash, source).await?;
        if found.iter().any(loses) {
            outdated.insert(hash);
        }
    }
    Ok(outdated)
}

async fn since(
    duplicate: &dyn Store,
    keys: &Keys,
    route: &Route,
    hash: &str,
    source: &SourceTable,
) -> Result<Vec<Drift>> {
    let Some(text) = duplicate.get(&keys.schema(hash)).await? else { return Ok(Vec::new()) };
    let Ok(recorded) = TableRecord::parse(&text, hash) else { return Ok(Vec::new()) };
    let before = resource_shape(&recorded.table, &recorded.resource);
    let now = resource_shape(&source.record.table, &source.record.resource);
    let mut found = compare(route, &before, &now);
    for drift in &mut found {
        // Whole rows are copied, so nothing is written otherwise than before.
        if !loses(drift) {
            drift.harm = None;
        }
    }
    Ok(found)
}

/// Whether an older copy holds what a new one would not.
pub(crate) fn loses(drift: &Drift) -> bool {
    match drift.what {
        What::Added(_) | What::Relaxed | What::Tightened | What::KeyLost => false,
        What::Dropped(_) | What::Renamed(..) | What::Retyped(..) | What::Replaced(..) => true,
    }
}

/// Refuses a table whose new copies would not hold what the older ones do, unless the plan only warns.
pub fn refusal(route: &Route, table: &str, drifts: &[Drift]) -> Option<Error> {
    let lines: Vec<String> =
        drifts.iter().filter(|drift| loses(drift)).map(ToString::to_string).collect();
    if lines.is_empty() || route.on_drift == OnDrift::Warn {
        return None;
    }
    let message = format!(
        "the schema of {table} changed since its last backup; its duplicate stays as it is:\n  {}",
        lines.join("\n  ")
    );
    Some(Error::new(Kind::Schema, message).with_hint(format!(
        "if that was meant: rekindle backup bigquery --accept-loss {table}; if not: rekindle restore bigquery"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Plan;
    use serde_json::json;

    fn drifts(fields: &serde_json::Value, more: &str) -> (Vec<String>, bool) {
        let plan = format!(
            "[bigquery]\nproject = \"p\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"t\"\n\
             table = \"bigquery:d.t\"\ntype = \"blocks\"\nkey = \"log:t\"\n{more}"
        );
        let route = Plan::parse(&plan, &|_| None, &|_| Err(std::io::Error::other("no file")))
            .unwrap()
            .routes
            .remove(0);
        let old = json!({"schema": {"fields": [
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"}, {"name": "a", "type": "STRING"}]}});
        let new = json!({"schema": {"fields": fields}});
        let found = compare(&route, &resource_shape("d.t", &old), &resource_shape("d.t", &new));
        let words = found.iter().map(|drift| format!("{} {}", drift.column, drift.word()));
        (words.collect(), refusal(&route, "d.t", &found).is_some())
    }

    #[test]
    fn a_column_that_goes_is_refused_and_one_that_comes_is_not() {
        let id = json!({"name": "id", "type": "INT64", "mode": "REQUIRED"});
        let a = json!({"name": "a", "type": "STRING"});
        let told = |words: &[&str], is_refused| {
            (words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), is_refused)
        };
        assert_eq!(drifts(&json!([id, a]), ""), told(&[], false));
        let b = json!({"name": "b", "type": "DATE"});
        assert_eq!(drifts(&json!([id, a, b]), ""), told(&["b added"], false));
        let relaxed = json!({"name": "id", "type": "INTEGER", "mode": "NULLABLE"});
        assert_eq!(drifts(&json!([relaxed, a]), ""), told(&["id relaxed"], false));
        assert_eq!(drifts(&json!([id]), ""), told(&["a dropped"], true));
        let renamed = json!({"name": "c", "type": "STRING"});
        assert_eq!(drifts(&json!([id, renamed]), ""), told(&["a renamed"], true));
        let retyped = json!({"name": "a", "type": "BYTES"});
        assert_eq!(drifts(&json!([id, retyped]), ""), told(&["a retyped"], true));
        assert_eq!(drifts(&json!([id]), "on_drift = \"warn\"\n"), told(&["a dropped"], false));
    }
}
