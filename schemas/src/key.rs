//! Key template: renders a key from a row and parses a key back into column texts.
//!
//! Invariant: `parse_key(render(row))` gives the row's key columns back wherever no filter is lossy; a
//! value that would break this is refused at render time, naming its column.

mod filter;
mod parse;
mod render;
#[cfg(test)]
mod tests;

pub use filter::{DateFormat, Filter};
pub use render::{BoundKey, KeyError, KeyRenderer};

use std::fmt;

/// A parsed key template: literals and placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    pub(crate) text: String,
    /// What comes before the first placeholder.
    leading: String,
    placeholders: Vec<Placeholder>,
}

/// One `{column|filter}` and the literal text up to the next placeholder or the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// Source column.
    pub column: String,
    /// What is done to the canonical text of its value.
    pub filter: Filter,
    /// The literal that follows; empty only at the end of the template.
    pub literal: String,
}

impl Placeholder {
    /// Returns whether a rendered value could contain the literal that ends it.
    ///
    /// A percent-encoded value consists of unreserved characters and `%`, so any other byte in the
    /// literal makes it unmistakable.
    fn may_contain_literal(&self) -> bool {
        !self.literal.is_empty()
            && (self.filter != Filter::UrlEncode
                || self.literal.bytes().all(|byte| filter::is_unreserved(byte) || byte == b'%'))
    }
}

impl KeyTemplate {
    /// Parses a template; the error is one lowercase sentence without final stop.
    ///
    /// `{column}`, `{column|lower}`, `{column|date:%Y%m%d}` and `{column|urlencode}` are placeholders,
    /// `{{` and `}}` literal braces.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text)
    }

    /// Parses a template that may do without a column, so that all rows share one key.
    pub fn parse_shared(text: &str) -> Result<Self, String> {
        parse::template(text)
    }

    /// Parses a key that is a prefix of many: it takes no column.
    pub fn parse_prefix(text: &str) -> Result<Self, String> {
        parse::parse_prefix(text)
    }

    /// Returns the template as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the same template behind a literal prefix.
    #[must_use]
    pub fn behind(&self, prefix: &str) -> Self {
        let escaped = prefix.replace('{', "{{").replace('}', "}}");
        Self {
            text: format!("{escaped}{}", self.text),
            leading: format!("{prefix}{}", self.leading),
            placeholders: self.placeholders.clone(),
        }
    }

    /// Returns the placeholders in order.
    pub fn placeholders(&self) -> &[Placeholder] {
        &self.placeholders
    }

    /// Iterates over the columns in order of appearance, with their filters; a column may appear twice.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Filter)> {
        self.placeholders.iter().map(|p| (p.column.as_str(), &p.filter))
    }

    /// Returns the columns that can be read back from a key, each once, in order of appearance.
    pub fn lossless_columns(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (column, filter) in self.columns() {
            if !filter.is_lossy() && !names.contains(&column) {
                names.push(column);
            }
        }
        names
    }

    /// Returns the text before the first placeholder, with `{{` and `}}` resolved: the prefix of every key.
    pub fn leading_literal(&self) -> &str {
        &self.leading
    }

    /// Refuses literal braces that Redis Cluster would not take for a hash tag: an opening brace that no literal one
    /// closes, and `{}` with nothing in it.
    ///
    /// A tag is what stands between the first `{` of a key and the first `}` after it (Redis cluster specification,
    /// "Hash tags"). What a value of a column brings along is not looked at: it changes the slot of a key, not the key.
    pub fn check_hash_tag(&self) -> Result<(), String> {
        let text = &self.text;
        let literals = std::iter::once(self.leading.as_str())
            .chain(self.placeholders.iter().map(|p| p.literal.as_str()));
        // Between two literals stands a value.
        let mut characters = literals.flat_map(|literal| literal.chars().map(Some).chain([None]));
        if !characters.any(|c| c == Some('{')) {
            return Ok(());
        }
        if characters.next() == Some(Some('}')) {
            return Err(format!(
                "key template {text} has an empty hash tag {{}}, which redis ignores; put something between the braces or leave them out"
            ));
        }
        if !characters.any(|c| c == Some('}')) {
            return Err(format!(
                "key template {text} opens a hash tag with {{{{ and never closes it; write }}}} behind it or leave it out"
            ));
        }
        Ok(())
    }

    /// Splits a key into the rendered texts of the placeholders in order, or `None` when it does not fit.
    ///
    /// `urlencode` is undone; what `lower` and `date` lost stays lost.
    pub fn parse_key(&self, key: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut rest = key.strip_prefix(self.leading.as_bytes())?;
        let mut texts = Vec::with_capacity(self.placeholders.len());
        for placeholder in &self.placeholders {
            let literal = placeholder.literal.as_bytes();
            let end = if literal.is_empty() { rest.len() } else { find(rest, literal)? };
            texts.push(placeholder.filter.undo(&rest[..end])?);
            rest = &rest[end + literal.len()..];
        }
        rest.is_empty().then_some(texts)
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns the 128-bit hash by which keys are told apart in collision and deletion checks (XXH3-128, no seed).
pub fn key_hash(key: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(key)
}

/// Returns where `needle` (not empty) first occurs.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    match needle {
        [byte] => haystack.iter().position(|b| b == byte),
        _ => haystack.windows(needle.len()).position(|window| window == needle),
    }
}

/// Returns the candidate most like a name, where one is like it at all.
pub(crate) fn nearest_name<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
