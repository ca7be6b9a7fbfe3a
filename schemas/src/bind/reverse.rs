//! Binding backwards: whether a route of rows in Redis can be read into its BigQuery table.
//!
//! Invariant: a `ReverseRoute` exists only where every column of the table is in the value or losslessly in the key, and
//! where what Redis holds has one meaning only. Whether the key is unique is known to the census, not here.

use super::{BindError, BoundField, FieldValue, Mistakes, check, field_specs};
use crate::key::BoundKey;
use crate::plan::{FieldSpec, Layout, NullPolicy, Origin, Route, System};
use crate::table::{Column, TableSchema};
use crate::type_map::ColumnType;

/// A route that can be read backwards, with its names resolved against the table.
#[derive(Debug, Clone)]
pub struct ReverseRoute {
    pub(crate) schema: TableSchema,
    pub(crate) key: BoundKey,
    pub(crate) fields: Vec<BoundField>,
    pub(crate) null: NullPolicy,
}

impl ReverseRoute {
    /// Checks that a route can be read backwards into a table; all reasons at once.
    ///
    /// `schema` has every column of the BigQuery table, in table order. Every column counts as nullable; see
    /// `bind_required` where some are not. Whether the key is unique is not checked here: the caller knows the census.
    pub fn bind(route: &Route, schema: TableSchema) -> Result<Self, Vec<BindError>> {
        Self::bind_required(route, schema, &[])
    }

    /// As `bind`, where the columns named in `required` are REQUIRED: they hold no null, so that nothing is mistaken
    /// for one.
    pub fn bind_required(
        route: &Route,
        schema: TableSchema,
        required: &[String],
    ) -> Result<Self, Vec<BindError>> {
        let mut mistakes = Mistakes::new(route);
        let names: Vec<String> = schema.columns.iter().map(|c| c.name.clone()).collect();
        let specs = field_specs(route, &names);
        whole_rows(route, &mut mistakes);
        check::layout_back(route, &specs, &mut mistakes);
        check::template("key", &route.key, &schema, &mut mistakes);
        for (column, _) in route.key.columns() {
            mistakes.index_of(&schema, column);
        }
        let fields = fields(specs, &schema, &mut mistakes);
        carried(route, &schema, &fields, &mut mistakes);
        for column in &schema.columns {
            meaning(route, column, required.contains(&column.name), &mut mistakes);
        }
        match BoundKey::new(&route.key, &schema) {
            Ok(key) if mistakes.found.is_empty() => {
                Ok(Self { key, fields, null: route.null, schema })
            }
            _ => Err(mistakes.found),
        }
    }

    /// Returns the columns of the table, in table order.
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// Returns the columns that a key gives back, each once, in the order of the key.
    pub fn key_columns(&self) -> Vec<&str> {
        self.key.template().lossless_columns()
    }
}

/// A source and options that leave rows or columns as they are.
fn whole_rows(route: &Route, mistakes: &mut Mistakes<'_>) {
    match &route.origin {
        Origin::Table { system: System::BigQuery, .. } => {}
        Origin::Table { .. } => mistakes.add("it names no table of bigquery to restore".into()),
        Origin::Query { .. } => mistakes
            .add("it reads a query, whose rows cannot be put back; name a table instead".into()),
    }
    if route.filter.is_some() {
        mistakes.add("where leaves rows out, so the table cannot be read back from it".into());
    }
    if !route.as_text.is_empty() {
        mistakes.add(format!(
            "as_text of {} leaves the type of a value behind; bigquery's types are all carried without it",
            route.as_text.join(", ")
        ));
    }
}

/// Resolves the fields; a column comes back from one field only.
fn fields(
    specs: Vec<FieldSpec>,
    schema: &TableSchema,
    mistakes: &mut Mistakes<'_>,
) -> Vec<BoundField> {
    let mut fields: Vec<BoundField> = Vec::with_capacity(specs.len());
    for spec in specs {
        let (name, value) = match spec {
            FieldSpec::Column { field, column } => {
                let Some(index) = mistakes.index_of(schema, &column) else { continue };
                (field, FieldValue::Column(index))
            }
            FieldSpec::Path { field, column, path } => {
                mistakes.add(format!(
                    "field {field} holds only {path} of column {column}; carry the column itself"
                ));
                continue;
            }
            FieldSpec::Constant { field, value } => (field, FieldValue::Constant(value)),
        };
        let other = fields
            .iter()
            .find(|other| other.value == value && matches!(value, FieldValue::Column(_)));
        if let (Some(other), FieldValue::Column(index)) = (other, &value) {
            mistakes.add(format!(
                "column {} is in two fields, {} and {name}; keep one of them",
                schema.columns[*index].name, other.name
            ));
        }
        fields.push(BoundField { name, value });
    }
    fields
}

/// Every column is in a field, or in the key through a filter that can be undone.
fn carried(
    route: &Route,
    schema: &TableSchema,
    fields: &[BoundField],
    mistakes: &mut Mistakes<'_>,
) {
    let in_key = route.key.lossless_columns();
    for (index, column) in schema.columns.iter().enumerate() {
        let name = column.name.as_str();
        let is_field = fields.iter().any(|field| field.value == FieldValue::Column(index));
        if is_field || in_key.contains(&name) {
            continue;
        }
        if route.key.columns().any(|(column, _)| column == name) {
            mistakes.add(format!(
                "column {name} is in the key through a filter that loses it; add it to columns"
            ));
        } else {
            mistakes.add(format!("column {name} is left out; add it to columns"));
        }
    }
}

/// What Redis holds of a column has one meaning.
fn meaning(route: &Route, column: &Column, is_required: bool, mistakes: &mut Mistakes<'_>) {
    let (name, column_type) = (&column.name, &column.column_type);
    if column.as_text || !is_readable(column_type) {
        mistakes.add(format!(
            "column {name} has type {}, which is not read back into bigquery",
            column_type.name()
        ));
    } else if merges_json_null(column_type) {
        mistakes.add(format!(
            "column {name} is {}: null of a JSON member of a struct may be NULL or JSON's null",
            column_type.name()
        ));
    }
    // A key column is never null.
    let is_in_key = route.key.columns().any(|(column, _)| column == name);
    if route.null != NullPolicy::Empty || is_required || is_in_key {
        return;
    }
    let ambiguous = match (route.layout, column_type) {
        (Layout::Json, ColumnType::Json) => "JSON's null",
        (Layout::Hash | Layout::Stream, ColumnType::Text | ColumnType::Bytes) => "an empty value",
        _ => return,
    };
    mistakes.add(format!(
        "null = \"empty\" writes a null of column {name} ({}) as {ambiguous}; say null = \"omit\"",
        column_type.name()
    ));
}

/// The types that BigQuery's are carried as.
fn is_readable(column_type: &ColumnType) -> bool {
    match column_type {
        ColumnType::Bool
        | ColumnType::Int8
        | ColumnType::Float8
        | ColumnType::Text
        | ColumnType::Bytes
        | ColumnType::Decimal128
        | ColumnType::Decimal256
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Timestamp
        | ColumnType::TimestampTz
        | ColumnType::Json
        | ColumnType::Interval => true,
        ColumnType::Range(element) => {
            matches!(**element, ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz)
        }
        ColumnType::Array(element) => {
            !matches!(**element, ColumnType::Array(_)) && is_readable(element)
        }
        ColumnType::Struct(fields) => fields.iter().all(|(_, kind)| is_readable(kind)),
        ColumnType::Int2
        | ColumnType::Int4
        | ColumnType::Float4
        | ColumnType::Numeric
        | ColumnType::Bytea
        | ColumnType::Uuid
        | ColumnType::Jsonb
        | ColumnType::Inet
        | ColumnType::Printed(_) => false,
    }
}

/// Whether a struct at any depth has a JSON member, whose NULL and whose `null` are written alike.
fn merges_json_null(column_type: &ColumnType) -> bool {
    match column_type {
        ColumnType::Struct(fields) => {
            fields.iter().any(|(_, kind)| *kind == ColumnType::Json || merges_json_null(kind))
        }
        ColumnType::Array(element) => merges_json_null(element),
        _ => false,
    }
}
