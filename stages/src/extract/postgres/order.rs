//! The order that rows of many-row keys are read in, and the expressions that tell values apart as keys do.
//!
//! Invariant: values that make different texts never compare as equal, whatever the collation or the type says (`citext`,
//! nondeterministic collations, 1.0 and 1.00), so that the rows of one key follow each other in one partition.

use super::shape::Shape;
use super::sql::quote;
use crate::connect::postgres::from_sqlx;
use crate::error::Result;
use schemas::bind::OrderBy;
use schemas::plan::{Layout, NullPolicy};
use schemas::{BoundRoute, Column, ColumnType};
use sqlx::PgConnection;

/// A partition of a table is cut no smaller than this.
const PARTITION_BYTES_MIN: u64 = 1024 * 1024;
/// A table without a fitting index is read whole by every partition, so it is cut into so many times fewer.
const FEWER_WITHOUT_INDEX: usize = 8;

/// What the rows are cut by: the column, or an expression that tells its texts apart.
pub(super) fn cut(bound: &BoundRoute) -> String {
    let name = bound.cut_by().unwrap_or_default();
    match bound.schema.index_of(name).filter(|_| bound.is_many()) {
        Some(index) => exact(&bound.schema.columns[index], false),
        None => quote(name),
    }
}

/// What the rows of a route of many rows per key are ordered by; `None` for other routes.
pub(super) fn rows(bound: &BoundRoute) -> Option<String> {
    let is_empty = bound.route.null == NullPolicy::Empty;
    let expressions: Vec<String> = bound
        .order()
        .into_iter()
        .map(|by| match by {
            OrderBy::Exactly(index) => exact(&bound.schema.columns[index], is_empty),
            OrderBy::Column { name, is_descending: false } => {
                format!("{} nulls first", quote(name))
            }
            OrderBy::Column { name, is_descending: true } => {
                format!("{} desc nulls last", quote(name))
            }
        })
        .collect();
    (!expressions.is_empty()).then(|| expressions.join(", "))
}

/// The conditions under which a row is an element of its key, where the route leaves nulls out.
pub(super) fn has_element(bound: &BoundRoute) -> Vec<String> {
    let Some(many) = &bound.many else { return Vec::new() };
    if bound.route.null != NullPolicy::Omit {
        return Vec::new();
    }
    let value = bound.fields.iter().filter_map(|field| match field.value {
        schemas::bind::FieldValue::Column(index) if bound.route.layout == Layout::Hash => {
            Some(index)
        }
        _ => None,
    });
    let mut columns: Vec<usize> = many.member.indexes().collect();
    columns.extend(many.score.iter().map(|score| score.index).chain(value));
    columns
        .into_iter()
        .map(|index| format!("{} is not null", quote(&bound.schema.columns[index].name)))
        .collect()
}

/// An expression whose equal values have equal texts. `is_null_empty`: a null is the empty text.
fn exact(column: &Column, is_null_empty: bool) -> String {
    let name = quote(&column.name);
    if is_native(column) {
        return name;
    }
    let is_plain = column.as_text
        || column.column_type != ColumnType::Text
        || column.source_type == "text"
        || column.source_type.starts_with("character varying");
    // A cast of bpchar to text drops blanks that the value has on the wire; concat does not.
    if !is_plain {
        return format!("(concat({name}, '') collate \"C\")");
    }
    if is_null_empty {
        return format!("(coalesce({name}::text, '') collate \"C\")");
    }
    format!("({name}::text collate \"C\")")
}

/// Whether equal values of the type itself have equal texts.
fn is_native(column: &Column) -> bool {
    !column.as_text
        && matches!(
            column.column_type,
            ColumnType::Bool
                | ColumnType::Int2
                | ColumnType::Int4
                | ColumnType::Int8
                | ColumnType::Uuid
                | ColumnType::Date
                | ColumnType::Time
                | ColumnType::Timestamp
                | ColumnType::TimestampTz
        )
}

/// How many partitions are worth their cost, of those wanted.
pub(super) async fn partitions(
    connection: &mut PgConnection,
    bound: &BoundRoute,
    shape: &Shape,
    wanted: usize,
) -> Result<usize> {
    if !bound.is_many() || !shape.is_heap() {
        return Ok(wanted);
    }
    let most = usize::try_from(shape.bytes() / PARTITION_BYTES_MIN).unwrap_or(usize::MAX);
    let wanted = wanted.min(most.saturating_add(1));
    if has_index(connection, bound, shape).await? {
        return Ok(wanted);
    }
    Ok((wanted / FEWER_WITHOUT_INDEX).max(1))
}

/// Whether an index of every relation begins with the column that the rows are cut by.
async fn has_index(
    connection: &mut PgConnection,
    bound: &BoundRoute,
    shape: &Shape,
) -> Result<bool> {
    let name = bound.cut_by().unwrap_or_default();
    let column = bound.schema.columns.iter().find(|column| column.name == name);
    if !column.is_some_and(is_native) {
        return Ok(false);
    }
    let oids: Vec<i64> = shape.relations.iter().map(|relation| relation.oid).collect();
    let indexed: i64 = sqlx::query_scalar(
        "select count(distinct i.indrelid) from pg_index i join pg_attribute a \
         on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
         where i.indrelid::bigint = any($1) and i.indisvalid and i.indpred is null and a.attname = $2",
    )
    .bind(&oids)
    .bind(name)
    .fetch_one(connection)
    .await
    .map_err(|error| from_sqlx(error, &format!("cannot read the indexes of {}", shape.name)))?;
    Ok(usize::try_from(indexed) == Ok(oids.len()))
}
