//! `[[unrouted]]`: keys that live in Redis and that no route writes, each with an owner and a way back.
//!
//! Invariant: no prefix reaches into the keys of a route or of rekindle itself, so what explains a key does not depend
//! on the order in which one asks.

use super::Route;
use super::raw::{Entry, Fields, Section, Text};

pub(super) const FIELDS: Fields =
    Fields { noun: "field", built: &["prefix", "owner", "comes_back"], refused: &[] };
/// What every key begins with that rekindle leaves in Redis beside those of routes.
pub const OWN_KEYS: &str = "rekindle:";

/// Keys of one prefix that no route brings back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrouted {
    /// What the keys begin with.
    pub prefix: String,
    /// Whom to ask.
    pub owner: String,
    /// How they come back, in words.
    pub comes_back: String,
}

/// Reads every `[[unrouted]]`. What is returned is used only where no mistake was noted.
pub(super) fn unrouted(root: &Section<'_>, routes: &[Route]) -> Vec<Unrouted> {
    let elements = root
        .entry("unrouted")
        .and_then(|entry| entry.elements("an array of tables, written [[unrouted]]"));
    let sections = elements.unwrap_or_default();
    let mut found: Vec<Unrouted> = Vec::with_capacity(sections.len());
    for section in sections.iter().filter_map(Entry::section) {
        section.know(&FIELDS);
        let prefix = section.required("prefix");
        let owner = section.required("owner");
        let comes_back = section.required("comes_back");
        if let Some(prefix) = &prefix {
            check(prefix, &found, routes);
        }
        if let (Some(prefix), Some(owner), Some(comes_back)) = (prefix, owner, comes_back) {
            let (prefix, owner, comes_back) = (prefix.value, owner.value, comes_back.value);
            found.push(Unrouted { prefix, owner, comes_back });
        }
    }
    found
}

fn check(prefix: &Text<'_>, before: &[Unrouted], routes: &[Route]) {
    let value = &prefix.value;
    if before.iter().any(|other| other.prefix == *value) {
        prefix.mistake("another [[unrouted]] has this prefix");
    }
    if overlaps(value, OWN_KEYS) {
        prefix.mistake(format!("reaches into {OWN_KEYS:?}, the keys of rekindle itself"));
    }
    for route in routes {
        let start = route.keys_begin_with();
        if !overlaps(value, &start) {
            continue;
        }
        let route = &route.name;
        let message = match start.as_str() {
            "" => {
                format!("reaches into the keys of route {route:?}, which may begin with anything")
            }
            _ => format!("reaches into the keys of route {route:?}, which begin with {start:?}"),
        };
        prefix.mistake_quoting(message, "reaches into the keys of a route");
    }
}

fn overlaps(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}
