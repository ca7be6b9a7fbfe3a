//! `on_conflict`, and what goes with `newest` only.
//!
//! Invariant: a route that compares versions names their column, has values that carry it, and reads changed rows
//! again only where its source can tell them.

use super::raw::{Entry, Section};
use super::route::{choice, refuse};
use super::{Layout, OnConflict, Origin, System};
use std::time::Duration;

pub(super) const CONFLICTS: [(&str, OnConflict); 3] =
    [("replace", OnConflict::Replace), ("keep", OnConflict::Keep), ("newest", OnConflict::Newest)];

/// Reads `on_conflict` and `catch_up`, and notes what they do not go with.
pub(super) fn newest(
    section: &Section<'_>,
    layout: Option<Layout>,
    origin: Option<&Origin>,
    is_many: bool,
) -> (OnConflict, Option<Duration>) {
    let chosen = choice(section, "on_conflict", &CONFLICTS, &[]);
    let catch_up = section.entry("catch_up").and_then(|entry| entry.duration());
    // Of these layouts every field here was refused already.
    let is_row = !matches!(layout, Some(Layout::Blocks | Layout::Stream));
    let is_misspelt = chosen.is_none() && section.has("on_conflict");
    match chosen {
        Some(OnConflict::Newest) if is_row => check(section, layout, origin, is_many),
        Some(OnConflict::Newest) => {}
        _ if is_row && !is_misspelt => {
            let only = "goes with on_conflict = \"newest\" only";
            refuse(section, &["version_by", "catch_up"], only);
        }
        _ => {}
    }
    (chosen.unwrap_or(OnConflict::Replace), catch_up)
}

fn check(section: &Section<'_>, layout: Option<Layout>, origin: Option<&Origin>, is_many: bool) {
    if !section.has("version_by") {
        section
            .mistake("on_conflict", "\"newest\" needs \"version_by\", the column that is compared");
    }
    let carries =
        |layout: &Layout| matches!(layout, Layout::Hash | Layout::Json | Layout::RedisJson);
    if let Some(layout) = layout.filter(|layout| !carries(layout)) {
        let message = format!(
            "\"newest\" goes with type \"hash\", \"json\" and \"redisjson\", whose values carry the version, not with {:?}",
            layout.word()
        );
        section.mistake("on_conflict", message);
    }
    if is_many && layout == Some(Layout::Hash) {
        let message = "\"newest\" goes with one row per key; a key of many rows has no version";
        section.mistake("on_conflict", message);
    }
    let written = section.entry("on_collision");
    if written.as_ref().and_then(Entry::written) == Some("last") {
        let message = "\"last\" does not go with \"newest\", which decides by the version";
        section.mistake("on_collision", message);
    }
    if section.has("catch_up") && origin.is_some_and(|origin| origin.system() == System::BigQuery) {
        let message = "does not go with bigquery, which is read at one time for the whole run";
        section.mistake("catch_up", message);
    }
}
