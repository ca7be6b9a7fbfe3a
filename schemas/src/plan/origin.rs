//! What a route reads: `table`, or `query` with `from`.
//!
//! Invariant: a table name is split into parts exactly once, here; parts are kept as the source spells them.

use super::raw::{Section, Text};
use super::{Origin, System, sql};

pub(super) const SYSTEMS: [(&str, System); 2] =
    [("alloydb", System::AlloyDb), ("bigquery", System::BigQuery)];
/// How a table is written.
const FORMS: &str = "\"alloydb:schema.table\" or \"bigquery:dataset.table\"";

/// Reads `table`, `query` and `from`.
pub(super) fn origin(route: &Section<'_>) -> Option<Origin> {
    let (has_table, has_query) = (route.has("table"), route.has("query"));
    if has_table && has_query {
        route.mistake("query", "table and query exclude each other");
    }
    if !has_table && !has_query {
        route.mistake_here("needs \"table\" or \"query\"");
    }
    if has_query && !has_table && !route.has("from") {
        route.mistake("query", "needs \"from\", the system it is asked of");
    }
    if has_table && !has_query && route.has("from") {
        route.mistake("from", "goes with \"query\" only; a table names its system itself");
    }
    let from = route.text("from").and_then(|from| from.choose(&SYSTEMS, &[]));
    let table = route.text("table").and_then(|text| table(&text));
    let query = route.text("query").and_then(|text| statement(&text));
    table.or_else(|| Some(Origin::Query { system: from?, sql: query? }))
}

/// Returns the text of a field that must be one self-contained piece of SQL.
pub(super) fn statement(text: &Text<'_>) -> Option<String> {
    match sql::problem(&text.value) {
        Some(problem) => {
            text.mistake(problem);
            None
        }
        None => Some(text.value.clone()),
    }
}

fn table(text: &Text<'_>) -> Option<Origin> {
    let Some((system, name)) = text.value.split_once(':') else {
        text.mistake(format!("names no system; write {FORMS}"));
        return None;
    };
    let Some((_, system)) = SYSTEMS.into_iter().find(|(word, _)| *word == system) else {
        let message = format!("unknown system {system:?}, write {FORMS}");
        text.mistake_quoting(message, &format!("unknown system, write {FORMS}"));
        return None;
    };
    match parts(name) {
        Ok(parts) => match <[String; 2]>::try_from(parts) {
            Ok([schema, table]) => return Some(Origin::Table { system, schema, table }),
            Err(mut one) if one.len() == 1 && system == System::AlloyDb => {
                let schema = "public".to_owned();
                return one.pop().map(|table| Origin::Table { system, schema, table });
            }
            Err(one) if one.len() == 1 => text.mistake(format!("names no dataset; write {FORMS}")),
            Err(_) => text.mistake(format!("has too many parts; write {FORMS}")),
        },
        Err(problem) => text.mistake(problem),
    }
    None
}

/// Splits at dots outside double quotes; a doubled quote inside quotes is one quote. Nothing is folded.
fn parts(name: &str) -> Result<Vec<String>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = name;
    loop {
        let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_part(quoted)?
        } else {
            let (part, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
            (part.to_owned(), after)
        };
        if part.is_empty() {
            return Err("has an empty name");
        }
        let is_quoted = rest.starts_with('"');
        if !is_quoted && part.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
            return Err("has a name that must be put in double quotes");
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err("has something other than a dot after a quoted name"),
        }
    }
}

/// Reads up to the closing quote; returns the name and what follows it.
fn quoted_part(mut rest: &str) -> Result<(String, &str), &'static str> {
    let mut part = String::new();
    while let Some((before, after)) = rest.split_once('"') {
        part.push_str(before);
        let Some(next) = after.strip_prefix('"') else { return Ok((part, after)) };
        part.push('"');
        rest = next;
    }
    Err("leaves a double quote open")
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn names_split_at_dots_outside_quotes() {
        for (name, expected) in [
            ("builds", vec!["builds"]),
            ("Public.Builds", vec!["Public", "Builds"]),
            ("\"My Schema\".\"My.Table\"", vec!["My Schema", "My.Table"]),
            ("\"a\"\"b\".größe", vec!["a\"b", "größe"]),
            ("a.b.c", vec!["a", "b", "c"]),
        ] {
            assert_eq!(parts(name), Ok(expected.into_iter().map(String::from).collect()), "{name}");
        }
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for name in ["", ".", "a.", ".a", "a..b", "\"\"", "\"a", "\"a\"b", "a b", " a", "a\"b\""] {
            assert!(parts(name).is_err(), "{name}");
        }
    }
}
