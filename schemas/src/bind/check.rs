//! What a route may not ask of the types of its columns.
//!
//! Invariant: each rule adds one message that names the column and what to write instead.

use super::{BoundField, FieldValue, Mistakes};
use crate::key::{Filter, KeyTemplate};
use crate::plan::{FieldSpec, Layout, Route};
use crate::table::{Column, TableSchema};
use crate::type_map::ColumnType;
use crate::version::{BoundVersion, VersionKind};

/// Columns of a template must have a type whose text identifies the value and can be taken apart again.
pub(super) fn template(
    what: &str,
    template: &KeyTemplate,
    schema: &TableSchema,
    mistakes: &mut Mistakes<'_>,
) {
    for placeholder in template.placeholders() {
        let Some(index) = schema.index_of(&placeholder.column) else { continue };
        let column = &schema.columns[index];
        let (name, column_type) = (&column.name, &column.column_type);
        if !is_key_type(column_type) {
            mistakes.add(format!(
                "{what} column {name} has type {}, which cannot be in a {what}",
                column_type.name()
            ));
        }
        if matches!(placeholder.filter, Filter::Date(_)) && !is_date_or_timestamp(column_type) {
            mistakes.add(format!(
                "filter date needs a date, timestamp or timestamptz column, {name} is {}",
                column_type.name()
            ));
        }
        let always = always_contains(column_type);
        if matches!(placeholder.filter, Filter::None | Filter::Lower)
            && always.iter().any(|text| *text == placeholder.literal)
        {
            mistakes.add(format!(
                "{what} column {name} always contains {:?}, the text that follows it in the {what}; write {{{name}|urlencode}} or another separator",
                placeholder.literal
            ));
        }
    }
}

fn is_key_type(column_type: &ColumnType) -> bool {
    match column_type {
        ColumnType::Bool
        | ColumnType::Int2
        | ColumnType::Int4
        | ColumnType::Int8
        | ColumnType::Numeric
        | ColumnType::Decimal128
        | ColumnType::Decimal256
        | ColumnType::Text
        | ColumnType::Inet
        | ColumnType::Printed(_)
        | ColumnType::Uuid
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Timestamp
        | ColumnType::TimestampTz => true,
        ColumnType::Float4
        | ColumnType::Float8
        | ColumnType::Bytea
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Bytes
        | ColumnType::Interval
        | ColumnType::Range(_)
        | ColumnType::Struct(_)
        | ColumnType::Array(_) => false,
    }
}

fn is_date_or_timestamp(column_type: &ColumnType) -> bool {
    matches!(column_type, ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz)
}

/// Separators that every finite value of a type contains, so that every row would be refused.
fn always_contains(column_type: &ColumnType) -> &'static [&'static str] {
    match column_type {
        ColumnType::Uuid | ColumnType::Date => &["-"],
        ColumnType::Time => &[":"],
        ColumnType::Timestamp | ColumnType::TimestampTz => &["-", ":"],
        _ => &[],
    }
}

/// A hash holds at least one field, a string exactly one column, and no field name comes twice.
pub(super) fn layout(route: &Route, specs: &[FieldSpec], mistakes: &mut Mistakes<'_>) {
    let names: Vec<&str> = specs.iter().map(field_name).collect();
    match route.layout {
        Layout::String if !matches!(specs, [FieldSpec::Column { .. } | FieldSpec::Path { .. }]) => mistakes.add(format!(
            "type string holds exactly one column, this route has {} fields ({}); list one in columns",
            names.len(),
            names.join(", ")
        )),
        Layout::Hash if names.is_empty() => {
            mistakes.add("type hash needs at least one field; list one in columns".into());
        }
        Layout::Blocks => mistakes.add("type blocks carries whole rows, not fields".into()),
        Layout::Stream if !route.is_rebuilt_stream() => {
            mistakes.add("type stream is written where use = [\"rebuild\"] says so".into());
        }
        Layout::Stream if names.is_empty() => {
            mistakes.add("type stream needs at least one field; list one in columns".into());
        }
        Layout::String
        | Layout::Hash
        | Layout::Json
        | Layout::Stream
        | Layout::RedisJson
        | Layout::Set
        | Layout::Zset
        | Layout::List => {}
    }
    if route.layout != Layout::String {
        field_names(specs, mistakes);
    }
}

/// What `layout` asks of a layout that is read back row by row, and which those are.
pub(super) fn layout_back(route: &Route, specs: &[FieldSpec], mistakes: &mut Mistakes<'_>) {
    match route.layout {
        Layout::Hash | Layout::Json if route.many.is_none() => layout(route, specs, mistakes),
        Layout::Stream => {
            if specs.is_empty() {
                mistakes.add("type stream needs at least one field; list one in columns".into());
            }
            field_names(specs, mistakes);
        }
        Layout::Hash
        | Layout::Json
        | Layout::RedisJson
        | Layout::String
        | Layout::Blocks
        | Layout::Set
        | Layout::Zset
        | Layout::List => mistakes.add(format!(
            "type {} is not read back row by row; hash, json and stream are",
            route.layout.word()
        )),
    }
}

/// No field name comes twice.
fn field_names(specs: &[FieldSpec], mistakes: &mut Mistakes<'_>) {
    let names: Vec<&str> = specs.iter().map(field_name).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            mistakes.add(format!("field {name} appears twice"));
        }
    }
}

fn field_name(spec: &FieldSpec) -> &str {
    match spec {
        FieldSpec::Column { field, .. }
        | FieldSpec::Path { field, .. }
        | FieldSpec::Constant { field, .. } => field,
    }
}

/// A path leads into JSON.
pub(super) fn path(column: &Column, mistakes: &mut Mistakes<'_>) {
    if !matches!(column.column_type, ColumnType::Json | ColumnType::Jsonb) {
        mistakes.add(format!(
            "column {} has type {}; a path goes with columns of JSON only",
            column.name, column.source_type
        ));
    }
}

/// An expiry is computed from a point in time.
pub(super) fn expiry(column: &Column, mistakes: &mut Mistakes<'_>) {
    if !is_date_or_timestamp(&column.column_type) {
        mistakes.add(format!(
            "expiry column {} has type {}; it must be timestamptz, timestamp or date",
            column.name,
            column.column_type.name()
        ));
    }
}

/// The version has an exact order, and the value carries it, so that what is stored can be compared.
pub(super) fn version(
    route: &Route,
    schema: &TableSchema,
    fields: &[BoundField],
    mistakes: &mut Mistakes<'_>,
) -> Option<BoundVersion> {
    let column = mistakes.index_of(schema, route.version_by.as_deref()?)?;
    let Column { name, column_type, .. } = &schema.columns[column];
    let kind = VersionKind::of(column_type);
    if kind.is_none() {
        mistakes.add(format!(
            "version_by column {name} has type {}; it must be an integer, a date, a timestamp or a timestamptz",
            column_type.name()
        ));
    }
    let field = fields.iter().position(|field| field.value == FieldValue::Column(column));
    if field.is_none() {
        mistakes.add(format!(
            "version_by column {name} is not in the value, so what is stored cannot be compared; add it to columns"
        ));
    }
    Some(BoundVersion { column, field: field?, kind: kind? })
}
