//! Binding: a route checked against the table it reads, with every name resolved to a column index.
//!
//! Invariant: a `BoundRoute` can be encoded without looking up a name; everything that can be refused
//! before the first row is refused here, all mistakes at once.

mod check;
mod many;
mod reverse;
#[cfg(test)]
pub(crate) mod tests;

pub use many::{BoundMany, BoundScore, OrderBy, ScoreScale};
pub use reverse::ReverseRoute;

use crate::json_path::JsonPath;
use crate::key::{BoundKey, nearest_name};
use crate::plan::{Expiry, FieldSpec, Route, System};
use crate::table::TableSchema;
use crate::version::BoundVersion;

/// A mistake found when a route meets its table. The message names route and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route {route}: {message}")]
pub struct BindError {
    /// Route name.
    pub route: String,
    /// What is wrong, lowercase.
    pub message: String,
}

/// Where a field's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// Column by index in the extracted row.
    Column(usize),
    /// A part of a JSON column by index.
    Path(usize, JsonPath),
    /// The same text for every row.
    Constant(String),
}

/// One field of the value, in output order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundField {
    /// Field name in Redis (JSON member name, hash field); unused by the string layout.
    pub name: String,
    /// Its value.
    pub value: FieldValue,
}

/// A route with its names resolved against the table schema.
#[derive(Debug, Clone)]
pub struct BoundRoute {
    /// The route.
    pub route: Route,
    /// The columns in extract order.
    pub schema: TableSchema,
    /// The key template with column indexes.
    pub key: BoundKey,
    /// The fields in output order.
    pub fields: Vec<BoundField>,
    /// Index of the expiry column and what is added to its time, in milliseconds.
    pub expiry: Option<(usize, i64)>,
    /// What `on_conflict = "newest"` compares.
    pub version: Option<BoundVersion>,
    /// Columns that the row digest covers (key columns and field columns, each once), in name order.
    pub digest_columns: Vec<usize>,
    /// Whether a unique key of the table lies inside the losslessly rendered key columns.
    pub key_is_proven_unique: bool,
    /// Present where many rows make one key.
    pub many: Option<BoundMany>,
}

/// A route reduced to its key, for reads that need the keys only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOnly {
    /// The key columns, each once, in the order in which the source has to deliver them.
    pub schema: TableSchema,
    /// The key template with indexes into `schema`.
    pub key: BoundKey,
}

impl BoundRoute {
    /// Checks a route against the schema of the columns that `columns_needed` names.
    pub fn bind(route: &Route, schema: TableSchema) -> Result<Self, Vec<BindError>> {
        let names: Vec<String> = schema.columns.iter().map(|c| c.name.clone()).collect();
        let mut mistakes = Mistakes::new(route);
        let specs = field_specs(route, &names);
        check::layout(route, &specs, &mut mistakes);
        let fields: Vec<BoundField> = specs
            .into_iter()
            .filter_map(|spec| match spec {
                FieldSpec::Column { field, column } => {
                    let index = mistakes.index_of(&schema, &column)?;
                    Some(BoundField { name: field, value: FieldValue::Column(index) })
                }
                FieldSpec::Path { field, column, path } => {
                    let index = mistakes.index_of(&schema, &column)?;
                    check::path(&schema.columns[index], &mut mistakes);
                    Some(BoundField { name: field, value: FieldValue::Path(index, path) })
                }
                FieldSpec::Constant { field, value } => {
                    Some(BoundField { name: field, value: FieldValue::Constant(value) })
                }
            })
            .collect();
        let expiry = route.expiry.as_ref().and_then(|expiry| {
            Some((mistakes.index_of(&schema, expiry.column())?, added_ms(expiry)))
        });
        for (column, _) in route.key.columns() {
            mistakes.index_of(&schema, column);
        }
        check::template("key", &route.key, &schema, &mut mistakes);
        let many = route.many.as_ref();
        let many = many.and_then(|many| BoundMany::bind(route, many, &schema, &mut mistakes));
        if let Some((index, _)) = expiry {
            check::expiry(&schema.columns[index], &mut mistakes);
        }
        let version = check::version(route, &schema, &fields, &mut mistakes);
        match BoundKey::new(&route.key, &schema) {
            Ok(key) if mistakes.found.is_empty() => Ok(Self {
                digest_columns: digest_columns(&schema, &key, &fields),
                key_is_proven_unique: is_proven_unique(route, &schema),
                many,
                route: route.clone(),
                schema,
                key,
                fields,
                expiry,
                version,
            }),
            // A column that the key lacks was reported above.
            _ => Err(mistakes.found),
        }
    }

    /// Whether the rows of a partition make one stream.
    pub fn is_stream(&self) -> bool {
        self.route.is_rebuilt_stream()
    }

    /// Returns the route reduced to its key columns.
    pub fn key_only(&self) -> KeyOnly {
        let mut indexes: Vec<usize> = Vec::new();
        for index in self.key.indexes() {
            if !indexes.contains(&index) {
                indexes.push(index);
            }
        }
        let schema = TableSchema {
            table: self.schema.table.clone(),
            columns: indexes.iter().map(|index| self.schema.columns[*index].clone()).collect(),
            unique_keys: self.schema.unique_keys.clone(),
        };
        KeyOnly { schema, key: self.key.reindexed(&indexes) }
    }
}

/// Returns the source columns that a route reads (key, fields, expiry, version), each once, in source order.
///
/// Every column that the route names is checked, `split_by`, `newest_by`, `order_by` and `as_text` too.
pub fn columns_needed(
    route: &Route,
    all_columns: &[String],
) -> Result<Vec<String>, Vec<BindError>> {
    let mut mistakes = Mistakes::new(route);
    let mut is_needed = vec![false; all_columns.len()];
    let fields = field_specs(route, all_columns);
    let read = route
        .key
        .columns()
        .map(|(column, _)| column)
        .chain(fields.iter().filter_map(|spec| match spec {
            FieldSpec::Column { column, .. } | FieldSpec::Path { column, .. } => {
                Some(column.as_str())
            }
            FieldSpec::Constant { .. } => None,
        }))
        .chain(route.expiry.as_ref().map(Expiry::column))
        .chain(route.version_by.as_deref())
        .chain(route.many.iter().flat_map(|many| {
            let score = many.score.iter().map(|score| score.column.as_str());
            many.member.columns().map(|(column, _)| column).chain(score)
        }));
    // A source that gives no order sends what the rows are ordered by.
    let is_sorted_here = route.many.is_some() && route.origin.system() == System::BigQuery;
    let order = route.order_column().filter(|_| is_sorted_here);
    for column in read.chain(order) {
        if let Some(index) = mistakes.position(column, all_columns.iter().map(String::as_str)) {
            is_needed[index] = true;
        }
    }
    let named = route.split_by.iter().chain(&route.newest_by).chain(&route.as_text);
    for column in named.map(String::as_str).chain(route.order_column()) {
        mistakes.position(column, all_columns.iter().map(String::as_str));
    }
    if !mistakes.found.is_empty() {
        return Err(mistakes.found);
    }
    let needed = all_columns.iter().zip(is_needed).filter(|(_, is_needed)| *is_needed);
    Ok(needed.map(|(column, _)| column.clone()).collect())
}

/// The fields as written, or by default every column that cannot be read back from the key.
///
/// A column that only the expiry needs is not told apart from the rest: the default carries it.
fn field_specs(route: &Route, all_columns: &[String]) -> Vec<FieldSpec> {
    if let Some(columns) = &route.columns {
        return columns.clone();
    }
    if route.many.is_some() {
        return Vec::new();
    }
    let in_key = route.key.lossless_columns();
    let carried = all_columns.iter().filter(|column| !in_key.contains(&column.as_str()));
    carried
        .map(|column| FieldSpec::Column { field: column.clone(), column: column.clone() })
        .collect()
}

/// What is added to the time of the expiry column, in milliseconds.
fn added_ms(expiry: &Expiry) -> i64 {
    match expiry {
        Expiry::At { .. } => 0,
        Expiry::After { ttl, .. } => i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX),
    }
}

fn digest_columns(schema: &TableSchema, key: &BoundKey, fields: &[BoundField]) -> Vec<usize> {
    let of_fields = fields.iter().filter_map(|field| match &field.value {
        FieldValue::Column(index) | FieldValue::Path(index, _) => Some(*index),
        FieldValue::Constant(_) => None,
    });
    let mut columns: Vec<usize> = key.indexes().chain(of_fields).collect();
    columns.sort_unstable_by_key(|index| &schema.columns[*index].name);
    columns.dedup();
    columns
}

fn is_proven_unique(route: &Route, schema: &TableSchema) -> bool {
    let in_key = route.key.lossless_columns();
    schema.unique_keys.iter().any(|unique| {
        !unique.is_empty() && unique.iter().all(|column| in_key.contains(&column.as_str()))
    })
}

/// The mistakes of one route, each once.
struct Mistakes<'a> {
    route: &'a Route,
    found: Vec<BindError>,
}

impl<'a> Mistakes<'a> {
    fn new(route: &'a Route) -> Self {
        Self { route, found: Vec::new() }
    }

    fn add(&mut self, message: String) {
        let mistake = BindError { route: self.route.name.clone(), message };
        if !self.found.contains(&mistake) {
            self.found.push(mistake);
        }
    }

    fn index_of(&mut self, schema: &TableSchema, column: &str) -> Option<usize> {
        self.position(column, schema.columns.iter().map(|c| c.name.as_str()))
    }

    /// Finds a column by name, or notes that it is unknown.
    fn position<'n>(
        &mut self,
        column: &str,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> Option<usize> {
        let position = names.clone().position(|name| name == column);
        if position.is_none() {
            self.add(match nearest_name(column, names) {
                Some(nearest) => format!("unknown column {column}; did you mean {nearest}?"),
                None => format!("unknown column {column}"),
            });
        }
        position
    }
}
