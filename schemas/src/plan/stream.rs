//! Streams that a rebuild makes: how they are named, and what such a route cannot have.
//!
//! Invariant: every key of such a route is its prefix, a colon and a number, and no key of another route can begin so;
//! only therefore may a rebuild remove what an earlier one left there.

use super::raw::{Entry, Section};
use super::route::refuse;
use super::{Layout, Route, Uses};

/// What a stream that is read back and never written cannot have.
const READ_BACK_FIELDS: [&str; 10] = [
    "split_by",
    "on_conflict",
    "version_by",
    "catch_up",
    "newest_by",
    "on_collision",
    "order_by",
    "expire_at",
    "ttl",
    "ttl_from",
];
/// What a stream that is rebuilt cannot have: its entries have no keys of their own, and it expires as a whole.
pub(super) const REBUILT_FIELDS: [&str; 7] =
    ["version_by", "catch_up", "on_collision", "order_by", "expire_at", "ttl", "ttl_from"];

/// Whether a route of this layout and use makes streams.
pub(super) fn is_rebuilt(layout: Option<Layout>, uses: Option<Uses>) -> bool {
    layout == Some(Layout::Stream) && uses.is_some_and(|uses| uses.rebuild)
}

/// Notes the fields that do not go with a stream.
pub(super) fn check(section: &Section<'_>, uses: Option<Uses>) {
    if !is_rebuilt(Some(Layout::Stream), uses) {
        let why = "does not go with type \"stream\" for use = [\"backup\"], which is never written";
        refuse(section, &READ_BACK_FIELDS, why);
        return;
    }
    let why = "does not go with type \"stream\", whose entries are rows without a key or expiry of their own";
    refuse(section, &REBUILT_FIELDS, why);
    let written = section.entry("on_conflict");
    if let Some(word @ ("keep" | "newest")) = written.as_ref().and_then(Entry::written) {
        let message = format!(
            "{word:?} does not go with type \"stream\", which is replaced whole; say \"replace\" or leave it out"
        );
        section.mistake("on_conflict", message);
    }
}

/// Notes where the streams of one route and the keys of an earlier one may have the same names.
pub(super) fn check_apart(section: &Section<'_>, route: &Route, before: &[Route]) {
    let start = route.keys_begin_with();
    for other in before {
        let theirs = other.keys_begin_with();
        let is_apart = !start.starts_with(&theirs) && !theirs.starts_with(&start);
        if is_apart || !(route.is_rebuilt_stream() || other.is_rebuilt_stream()) {
            continue;
        }
        let message = format!(
            "streams that a rebuild makes need a prefix of their own, and keys of route {:?} may begin alike",
            other.name
        );
        section.mistake("key", message);
    }
}

impl Route {
    /// Whether a rebuild makes streams through this route, one per partition.
    pub fn is_rebuilt_stream(&self) -> bool {
        is_rebuilt(Some(self.layout), Some(self.uses))
    }

    /// Returns what every key of this route begins with, as far as the plan tells; the keys of a duplicate and streams
    /// that are rebuilt have a colon behind the prefix.
    pub fn keys_begin_with(&self) -> String {
        let start = self.key.leading_literal();
        if self.layout == Layout::Blocks || self.is_rebuilt_stream() {
            format!("{start}:")
        } else {
            start.to_owned()
        }
    }

    /// Returns the key of the stream that the partition of this number, from 0, makes.
    pub fn stream_key(&self, number: u64) -> Vec<u8> {
        format!("{}:{number}", self.key.leading_literal()).into_bytes()
    }

    /// Returns the number of a stream of this route; `None` for every other key.
    pub fn stream_number(&self, key: &[u8]) -> Option<u64> {
        if !self.is_rebuilt_stream() {
            return None;
        }
        let digits = key.strip_prefix(self.keys_begin_with().as_bytes())?;
        let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (self.stream_key(number) == key).then_some(number)
    }

    /// Whether a key may be one of this route, by its name.
    pub fn fits(&self, key: &[u8]) -> bool {
        match self.layout {
            Layout::Blocks => false,
            _ if self.is_rebuilt_stream() => self.stream_number(key).is_some(),
            _ => self.key.parse_key(key).is_some(),
        }
    }
}
