//! One `[[route]]`: reading and checking its fields.
//!
//! Invariant: every field is checked even when another one is wrong.

use super::columns::columns;
use super::many::{self, many};
use super::newest::newest;
use super::origin::{origin, statement};
use super::raw::{Entry, Fields, Section, Text};
use super::{
    Backup, Expiry, Layout, NullPolicy, OnCollision, Origin, RejectsMax, Route, System, Uses,
    stream,
};
use crate::drift::OnDrift;
use crate::key::KeyTemplate;
use std::collections::HashSet;

pub(super) const FIELDS: Fields = Fields {
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
        "version_by",
        "catch_up",
        "use",
        "priority",
        "newest_by",
        "on_drift",
        "rejects_max",
        "rejects_keep",
        "watermark",
        "keep_versions",
        "row_key",
        "member",
        "score",
    ],
    refused: &[],
};
/// What a route of many rows per value cannot have: its rows go whole, and its keys are its own.
pub(super) const ROW_FIELDS: [&str; 16] = [
    "split_by",
    "where",
    "columns",
    "as_text",
    "expire_at",
    "ttl",
    "ttl_from",
    "null",
    "on_collision",
    "order_by",
    "on_conflict",
    "version_by",
    "catch_up",
    "newest_by",
    "rejects_max",
    "rejects_keep",
];
const BLOCKS_FIELDS: [&str; 2] = ["watermark", "keep_versions"];
pub(super) const KEEP_VERSIONS_MAX: u64 = 1_000;
pub(super) const LAYOUTS: [(&str, Layout); 9] = [
    ("hash", Layout::Hash),
    ("string", Layout::String),
    ("json", Layout::Json),
    ("redisjson", Layout::RedisJson),
    ("blocks", Layout::Blocks),
    ("stream", Layout::Stream),
    ("set", Layout::Set),
    ("zset", Layout::Zset),
    ("list", Layout::List),
];
pub(super) const NAME_LENGTH_MAX: usize = 100;
const PRIORITY_DEFAULT: u64 = 100;
pub(super) const PRIORITY_MAX: u64 = 1_000_000;

/// Reads one route. `None` only where a mistake was noted.
///
/// `names` are the names of the routes before it.
pub(super) fn route(section: &Section<'_>, names: &mut HashSet<String>) -> Option<Route> {
    section.know(&FIELDS);
    let name = section.required("name").and_then(|text| name(&text, names));
    let origin = origin(section);
    let layout = section.required("type").and_then(|text| text.choose(&LAYOUTS, &[]));
    let is_many = many::is_many(section, layout);
    let uses = uses(section, layout);
    let is_prefix = layout == Some(Layout::Blocks) || stream::is_rebuilt(layout, uses);
    let is_shared = layout == Some(Layout::Stream) || is_many;
    let key = section.required("key").and_then(|text| key(&text, is_prefix, is_shared));
    let priority =
        section.entry("priority").map_or(Some(PRIORITY_DEFAULT), |e| e.count(PRIORITY_MAX));
    let filter = section.text("where").and_then(|text| statement(&text));
    let null = choice(section, "null", &NULLS, &[]).unwrap_or(NullPolicy::Omit);
    let (on_conflict, catch_up) = newest(section, layout, origin.as_ref(), is_many);
    let on_drift = choice(section, "on_drift", &DRIFTS, &[]).unwrap_or_default();
    let backup = backup(section, layout, origin.as_ref(), uses);
    let many = many(section, layout, key.as_ref());
    if is_many {
        many::check_use(section, uses);
    }
    let rejects_max =
        section.entry("rejects_max").map_or(Some(RejectsMax::Rows(0)), |e| rejects(&e));
    let columns = columns(section, layout, is_many);
    let as_text = as_text(section);
    let expiry = expiry(section);
    let on_collision = on_collision(section, layout);
    Some(Route {
        split_by: section.string("split_by"),
        newest_by: section.string("newest_by"),
        name: name?,
        origin: origin?,
        filter,
        key: key?,
        layout: layout?,
        columns,
        many,
        as_text,
        expiry,
        null,
        on_collision,
        on_conflict,
        version_by: section.string("version_by"),
        catch_up,
        priority: u32::try_from(priority?).ok()?,
        on_drift,
        rejects_max: rejects_max?,
        rejects_keep: section.entry("rejects_keep").and_then(|entry| entry.duration()),
        uses: uses?,
        backup: backup?,
    })
}

pub(super) const NULLS: [(&str, NullPolicy); 3] =
    [("omit", NullPolicy::Omit), ("empty", NullPolicy::Empty), ("error", NullPolicy::Error)];
pub(super) const DRIFTS: [(&str, OnDrift); 2] = [("fail", OnDrift::Fail), ("warn", OnDrift::Warn)];
pub(super) fn choice<T: Copy>(
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

fn key(text: &Text<'_>, is_prefix: bool, is_shared: bool) -> Option<KeyTemplate> {
    let parse = match (is_prefix, is_shared) {
        (true, _) => KeyTemplate::parse_prefix,
        (false, true) => KeyTemplate::parse_shared,
        (false, false) => KeyTemplate::parse,
    };
    parse(&text.value)
        .and_then(|key| key.check_hash_tag().map(|()| key))
        .map_err(|message| text.mistake_quoting(message, "is not a valid key template"))
        .ok()
}

/// Reads `use`; what a layout is for by default, and what it cannot be for.
fn uses(section: &Section<'_>, layout: Option<Layout>) -> Option<Uses> {
    let layout = layout?;
    let Some(entry) = section.entry("use") else {
        let is_backup = matches!(layout, Layout::Blocks | Layout::Stream);
        return Some(Uses { rebuild: !is_backup, backup: is_backup });
    };
    let words = entry.elements("an array such as [\"rebuild\"]")?;
    if words.is_empty() {
        entry.mistake("must not be empty; leave it out for the default");
    }
    let mut uses = Uses { rebuild: false, backup: false };
    for text in words.iter().filter_map(Entry::text) {
        match text.choose(&[("rebuild", false), ("backup", true)], &[]) {
            Some(true) if layout == Layout::String => {
                text.mistake("\"backup\" of type \"string\" is not built yet");
            }
            Some(true) if layout == Layout::RedisJson => {
                text.mistake(
                    "\"backup\" does not go with type \"redisjson\": its server rewrites numbers, so a row read back may differ from the one written; type \"json\" keeps rows as they are",
                );
            }
            Some(true) => uses.backup = true,
            Some(false) if layout == Layout::Blocks => {
                text.mistake("blocks are a backup; they are not rebuilt");
            }
            Some(false) => uses.rebuild = true,
            None => {}
        }
    }
    if layout == Layout::Stream && uses.rebuild && uses.backup {
        entry.mistake(
            "a rebuild names its streams after partitions, a backup reads streams that the application names; write two routes",
        );
        // Checked as a backup alone, whose key may have columns.
        uses.rebuild = false;
    }
    Some(uses)
}

/// Reads what only backup routes have, and notes what a layout cannot have.
fn backup(
    section: &Section<'_>,
    layout: Option<Layout>,
    origin: Option<&Origin>,
    uses: Option<Uses>,
) -> Option<Backup> {
    let defaults = Backup::default();
    let keep_versions = section
        .entry("keep_versions")
        .map_or(Some(u64::from(defaults.keep_versions)), |entry| entry.count(KEEP_VERSIONS_MAX));
    if keep_versions == Some(0) {
        section.mistake("keep_versions", "must be at least 1, the newest version");
    }
    let backup = Backup {
        watermark: section.string("watermark"),
        keep_versions: u32::try_from(keep_versions?).ok()?,
        row_key: section.string("row_key"),
    };
    let layout = layout?;
    if layout == Layout::Blocks {
        refuse(section, &ROW_FIELDS, "goes with row-by-row types only; blocks carry whole rows");
    } else {
        refuse(section, &BLOCKS_FIELDS, "goes with type \"blocks\" only");
    }
    if layout == Layout::Stream {
        stream::check(section, uses);
    }
    let is_backup = layout == Layout::Blocks || uses.is_some_and(|uses| uses.backup);
    if !is_backup {
        refuse(section, &["row_key"], "goes with use = [\"backup\"] only");
        return Some(backup);
    }
    match origin {
        Some(Origin::Table { system: System::BigQuery, .. }) | None => {}
        Some(_) if layout == Layout::Blocks => {
            section.mistake("type", "\"blocks\" duplicates a \"bigquery:\" table");
        }
        Some(_) if section.has("use") => {
            section.mistake("use", "\"backup\" goes with a \"bigquery:\" table only");
        }
        Some(_) => section.mistake("type", "\"stream\" goes with a \"bigquery:\" table only"),
    }
    Some(backup)
}

pub(super) fn refuse(section: &Section<'_>, fields: &[&str], why: &str) {
    for field in fields.iter().filter(|field| section.has(field)) {
        section.mistake(field, why);
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

fn on_collision(section: &Section<'_>, layout: Option<Layout>) -> Option<OnCollision> {
    if matches!(layout, Some(Layout::Set | Layout::List)) {
        // `many` reads the order of a list and refuses the rest.
        return None;
    }
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
