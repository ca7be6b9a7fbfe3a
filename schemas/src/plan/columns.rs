//! The `columns` of a route: which fields a value has and where each comes from.
//!
//! Invariant: field names are distinct, and the string layout has one field that comes from a column.

use super::raw::{Entry, Fields, Section, Text};
use super::{FieldSpec, Layout};
use crate::json_path::JsonPath;
use std::collections::HashSet;

pub(super) const FIELDS: Fields =
    Fields { noun: "field", built: &["field", "column", "value", "path"], refused: &[] };

/// Reads `columns`; `None` where it is absent.
pub(super) fn columns(
    route: &Section<'_>,
    layout: Option<Layout>,
    is_many: bool,
) -> Option<Vec<FieldSpec>> {
    let entry = route.entry("columns")?;
    let elements = entry.elements("an array of column names and tables")?;
    let mut seen = HashSet::new();
    let mut specs = Vec::with_capacity(elements.len());
    for element in &elements {
        let Some((spec, name)) = field(element) else { continue };
        if !seen.insert(name.value.clone()) {
            name.mistake(format!("field {} is named twice", name.shown()));
        }
        specs.push(spec);
    }
    if elements.is_empty() {
        entry.mistake("must name at least one column; leave it out to carry every column");
    } else if layout == Some(Layout::String) {
        check_one(&entry, "a string", elements.len(), &specs);
    } else if layout == Some(Layout::Hash) && is_many {
        check_one(&entry, "a field of a hash of many rows", elements.len(), &specs);
    }
    Some(specs)
}

fn check_one(entry: &Entry<'_>, what: &str, count: usize, specs: &[FieldSpec]) {
    if count != 1 {
        entry.mistake(format!("{what} holds one column, not {count}"));
    } else if matches!(specs, [FieldSpec::Constant { .. }]) {
        entry.mistake(format!("{what} must hold a column, not a constant"));
    }
}

/// Reads one entry; returns it with the text that names its field.
fn field<'a>(element: &Entry<'a>) -> Option<(FieldSpec, Text<'a>)> {
    if element.is_string() {
        let name = element.text()?;
        let (field, column) = (name.value.clone(), name.value.clone());
        return Some((FieldSpec::Column { field, column }, name));
    }
    if !element.is_table() {
        return element
            .expected("a column name or a table such as { field = \"a\", column = \"b\" }");
    }
    let section = element.section()?;
    section.know(&FIELDS);
    match (section.has("column"), section.has("value")) {
        (true, true) => section.mistake_here("column and value exclude each other"),
        (false, false) => section.mistake_here("needs \"column\" or \"value\""),
        _ => {}
    }
    if section.has("path") && !section.has("column") {
        section.mistake("path", "needs \"column\", the JSON that it leads into");
    }
    let column = section.string("column");
    let path = section
        .text("path")
        .map(|text| JsonPath::parse(&text.value).map_err(|message| text.mistake(message)).ok());
    let value = section.entry("value").and_then(|value| Some(value.text_or_empty()?.value));
    let name = section.required("field")?;
    let field = name.value.clone();
    let spec = match (column, path) {
        (Some(column), Some(path)) => FieldSpec::Path { field, column, path: path? },
        (Some(column), None) => FieldSpec::Column { field, column },
        (None, _) => FieldSpec::Constant { field, value: value? },
    };
    Some((spec, name))
}
