//! One `[[route]]`: reading and checking its fields.
//!
//! Invariant: every field is checked even when another one is wrong.

use super::columns::columns;
use super::origin::{origin, statement};
use super::raw::{Entry, Fields, Section, Text};
use super::{Expiry, Layout, NullPolicy, OnCollision, OnConflict, RejectsMax, Route};
use crate::key::KeyTemplate;
use std::collections::HashSet;

const FIELDS: Fields = Fields {
    noun: "field",
    built: &[
        "name",
        "table",
        "query",
        "from",
        "split_by",
        "where",
        "key",
        "type",
        "columns",
        "as_text",
        "expire_at",
        "ttl",
        "ttl_from",
        "null",
        "on_collision",
        "order_by",
        "on_conflict",
        "use",
        "priority",
        "newest_by",
        "on_drift",
        "rejects_max",
    ],
    refused: &[
        "version_by",
        "member",
        "score",
        "watermark",
        "keep_versions",
        "row_key",
        "catch_up",
        "rejects_keep",
    ],
};
const LAYOUTS: [(&str, Layout); 3] =
    [("hash", Layout::Hash), ("string", Layout::String), ("json", Layout::Json)];
const LAYOUTS_REFUSED: [&str; 5] = ["stream", "blocks", "set", "zset", "list"];
const NAME_LENGTH_MAX: usize = 100;
const PRIORITY_DEFAULT: u64 = 100;
const PRIORITY_MAX: u64 = 1_000_000;

/// Reads one route. `None` only where a mistake was noted.
///
/// `names` are the names of the routes before it.
pub(super) fn route(section: &Section<'_>, names: &mut HashSet<String>) -> Option<Route> {
    section.know(&FIELDS);
    let name = section.required("name").and_then(|text| name(&text, names));
    let origin = origin(section);
    let layout = section.required("type").and_then(|text| text.choose(&LAYOUTS, &LAYOUTS_REFUSED));
    let key = section.required("key").and_then(|text| key(&text));
    let priority =
        section.entry("priority").map_or(Some(PRIORITY_DEFAULT), |e| e.count(PRIORITY_MAX));
    let filter = section.text("where").and_then(|text| statement(&text));
    let null = choice(section, "null", &NULLS, &[]).unwrap_or(NullPolicy::Omit);
    let on_conflict =
        choice(section, "on_conflict", &CONFLICTS, &["newest"]).unwrap_or(OnConflict::Replace);
    choice(section, "on_drift", &[("fail", ())], &["warn"]);
    check_use(section);
    let rejects_max =
        section.entry("rejects_max").map_or(Some(RejectsMax::Rows(0)), |e| rejects(&e));
    let columns = columns(section, layout);
    let as_text = as_text(section);
    let expiry = expiry(section);
    let on_collision = on_collision(section);
    Some(Route {
        split_by: section.string("split_by"),
        newest_by: section.string("newest_by"),
        name: name?,
        origin: origin?,
        filter,
        key: key?,
        layout: layout?,
        columns,
        as_text,
        expiry,
        null,
        on_collision,
        on_conflict,
        priority: u32::try_from(priority?).ok()?,
        rejects_max: rejects_max?,
    })
}

const NULLS: [(&str, NullPolicy); 3] =
    [("omit", NullPolicy::Omit), ("empty", NullPolicy::Empty), ("error", NullPolicy::Error)];
const CONFLICTS: [(&str, OnConflict); 2] =
    [("replace", OnConflict::Replace), ("keep", OnConflict::Keep)];

fn choice<T: Copy>(
    section: &Section<'_>,
    field: &str,
    built: &[(&str, T)],
    refused: &[&str],
) -> Option<T> {
    section.text(field)?.choose(built, refused)
}

fn name(text: &Text<'_>, names: &mut HashSet<String>) -> Option<String> {
    let name = &text.value;
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if !name.bytes().all(is_allowed) {
        text.mistake("may have letters, digits, \"_\", \".\" and \"-\" only");
    } else if name.len() > NAME_LENGTH_MAX {
        text.mistake(format!("must be at most {NAME_LENGTH_MAX} characters"));
    } else if name == "." || name == ".." {
        // Names become file names beside the journal.
        text.mistake("must not be \".\" or \"..\"");
    } else if !names.insert(name.clone()) {
        text.mistake("another route has this name");
    } else {
        return Some(name.clone());
    }
    None
}

fn key(text: &Text<'_>) -> Option<KeyTemplate> {
    KeyTemplate::parse(&text.value)
        .map_err(|message| text.mistake_quoting(message, "is not a valid key template"))
        .ok()
}

fn check_use(section: &Section<'_>) {
    let Some(entry) = section.entry("use") else { return };
    let Some(uses) = entry.elements("an array such as [\"rebuild\"]") else { return };
    if uses.is_empty() {
        entry.mistake("must not be empty; leave it out for [\"rebuild\"]");
    }
    for text in uses.iter().filter_map(Entry::text) {
        text.choose(&[("rebuild", ())], &["backup"]);
    }
}

fn as_text(section: &Section<'_>) -> Vec<String> {
    let elements = section.entry("as_text").and_then(|e| e.elements("an array of column names"));
    let mut columns = Vec::new();
    for text in elements.unwrap_or_default().iter().filter_map(Entry::text) {
        if columns.contains(&text.value) {
            text.mistake(format!("column {} is named twice", text.shown()));
        }
        columns.push(text.value);
    }
    columns
}

fn expiry(section: &Section<'_>) -> Option<Expiry> {
    let ttl = section.entry("ttl").and_then(|entry| entry.duration());
    let ttl_from = section.string("ttl_from");
    let expire_at = section.string("expire_at");
    let (has_ttl, has_from) = (section.has("ttl"), section.has("ttl_from"));
    if section.has("expire_at") && (has_ttl || has_from) {
        let field = if has_ttl { "ttl" } else { "ttl_from" };
        section.mistake(field, "excludes \"expire_at\"");
    } else if has_ttl && !has_from {
        section.mistake("ttl", "needs \"ttl_from\", the column it counts from");
    } else if has_from && !has_ttl {
        section.mistake("ttl_from", "needs \"ttl\"");
    }
    match (expire_at, ttl, ttl_from) {
        (Some(column), ..) => Some(Expiry::At { column }),
        (None, Some(ttl), Some(column)) => Some(Expiry::After { column, ttl }),
        _ => None,
    }
}

fn on_collision(section: &Section<'_>) -> Option<OnCollision> {
    let is_last = choice(section, "on_collision", &[("error", false), ("last", true)], &[]);
    let order_by = section.string("order_by");
    let has_order = section.has("order_by");
    if is_last == Some(true) && !has_order {
        section.mistake("on_collision", "\"last\" needs \"order_by\"");
    }
    let is_wrong = is_last.is_none() && section.has("on_collision");
    if has_order && is_last != Some(true) && !is_wrong {
        section.mistake("order_by", "needs on_collision = \"last\"");
    }
    if is_last? {
        order_by.map(|order_by| OnCollision::Last { order_by })
    } else {
        Some(OnCollision::Error)
    }
}

fn rejects(entry: &Entry<'_>) -> Option<RejectsMax> {
    if entry.is_integer() {
        // Counters are journaled as signed 64-bit numbers.
        return entry.count(i64::MAX.unsigned_abs()).map(RejectsMax::Rows);
    }
    if !entry.is_string() {
        return entry.expected("a number of rows or a share such as \"0.1%\"");
    }
    let text = entry.text()?;
    let number = text.value.strip_suffix('%').unwrap_or("x");
    let is_decimal = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let share = number.parse::<f64>().ok().filter(|share| is_decimal && *share <= 100.0);
    if share.is_none() {
        text.mistake("must be a number of rows or a share from \"0%\" to \"100%\"");
    }
    share.map(RejectsMax::Percent)
}
