//! Parsing of key templates.
//!
//! Invariant: a template that parses can be parsed back: between two placeholders stands a literal.

use super::filter::FILTER_NAMES;
use super::{DateFormat, Filter, KeyTemplate, Placeholder, nearest_name};

pub(super) fn parse(text: &str) -> Result<KeyTemplate, String> {
    let template = template(text)?;
    if template.placeholders.is_empty() {
        return Err(format!(
            "key template {text} has no {{column}}, so every row would share one key"
        ));
    }
    Ok(template)
}

pub(super) fn parse_prefix(text: &str) -> Result<KeyTemplate, String> {
    let template = template(text)?;
    match template.placeholders.first() {
        None => Ok(template),
        Some(placeholder) => Err(format!(
            "key {text} is a prefix: it takes no column such as {{{}}}",
            placeholder.column
        )),
    }
}

/// Parses a template with or without placeholders.
pub(super) fn template(text: &str) -> Result<KeyTemplate, String> {
    if text.is_empty() {
        return Err("a key template is empty".into());
    }
    let mut leading = String::new();
    let mut placeholders: Vec<Placeholder> = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let literal = placeholders.last_mut().map_or(&mut leading, |p| &mut p.literal);
        if let Some(after) = rest.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else if c == '}' {
            return Err(format!(
                "key template {text} has a }} without its {{; write }}}} for a brace"
            ));
        } else if c == '{' {
            let Some((inside, after)) = rest[1..].split_once('}') else {
                return Err(format!(
                    "key template {text} has a {{ without its }}; write {{{{ for a brace"
                ));
            };
            if inside.contains('{') {
                return Err(format!("key template {text} has a {{ inside a placeholder"));
            }
            let next = placeholder(inside).map_err(|e| format!("key template {text}: {e}"))?;
            if let Some(previous) = placeholders.last().filter(|p| p.literal.is_empty()) {
                return Err(format!(
                    "key template {text} has no literal between {{{}}} and {{{}}}, so a key could not be taken apart",
                    previous.column, next.column
                ));
            }
            placeholders.push(next);
            rest = after;
        } else {
            literal.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(KeyTemplate { text: text.to_owned(), leading, placeholders })
}

/// Parses what stands between the braces.
fn placeholder(inside: &str) -> Result<Placeholder, String> {
    let (column, filter) = match inside.split_once('|') {
        Some((column, filter)) => (column, Some(filter)),
        None => (inside, None),
    };
    if column.trim().is_empty() {
        return Err("a placeholder has no column name".into());
    }
    let filter = match filter {
        None => Filter::None,
        Some("lower") => Filter::Lower,
        Some("urlencode") => Filter::UrlEncode,
        Some("date") => return Err("filter date needs a format, for example date:%Y%m%d".into()),
        Some(other) => match other.strip_prefix("date:") {
            Some(format) => Filter::Date(DateFormat::parse(format)?),
            None => return Err(unknown_filter(other)),
        },
    };
    Ok(Placeholder { column: column.to_owned(), filter, literal: String::new() })
}

fn unknown_filter(name: &str) -> String {
    match nearest_name(name, FILTER_NAMES) {
        Some(nearest) => format!("unknown filter {name}; did you mean {nearest}?"),
        None => format!("unknown filter {name}; known are {}", FILTER_NAMES.join(", ")),
    }
}
