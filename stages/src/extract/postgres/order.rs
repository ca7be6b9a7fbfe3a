//! The order that rows of many-row keys are read in, and the expressions that tell values apart as keys do.
//!
//! Invariant: values that make different texts never compare as equal, whatever the collation or the type says (`citext`,
//! nondeterministic collations, 1.0 and 1.00), so that the rows of one key follow each other in one partition.

use super::shape::Shape;
use super::sql::{from_origin, quote};
use crate::connect::postgres::from_sqlx;
use crate::error::Result;
use schemas::bind::{FieldValue, OrderBy};
use schemas::plan::{Layout, NullPolicy, OnCollision};
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

/// What selects each key once; `distinct` alone would take equal values for one key whatever their texts.
pub(super) fn once(bound: &BoundRoute) -> String {
    let columns: Vec<String> =
        bound.key.indexes().map(|index| exact(&bound.schema.columns[index], false)).collect();
    if columns.is_empty() {
        return String::new();
    }
    format!("distinct on ({}) ", columns.join(", "))
}

/// The conditions under which a row is an element of its key: where the route leaves nulls out it has none, and it has
/// not expired. Whether it can be carried is not asked.
pub(super) fn has_element(bound: &BoundRoute) -> Vec<String> {
    let names = bound.never_null().into_iter();
    let mut conditions: Vec<String> =
        names.map(|name| format!("{} is not null", quote(name))).collect();
    if let Some((index, added_ms)) = bound.expiry.filter(|_| bound.is_many()) {
        let column = &bound.schema.columns[index];
        let name = quote(&column.name);
        // What is added to the time could take it out of range, so it is taken from the present.
        let until = match column.column_type {
            ColumnType::TimestampTz => name.clone(),
            _ => format!("({name}::timestamp at time zone 'UTC')"),
        };
        conditions.push(format!(
            "({name} is null or {until} > now() - {added_ms} * interval '1 millisecond')"
        ));
    }
    conditions
}

/// The query that counts members with several scores, or fields with several values; `None` where there can be none,
/// where the last one wins, and where an expiry decides which rows are elements at all.
pub(super) fn contradictions(bound: &BoundRoute) -> Option<String> {
    let many = bound.many.as_ref()?;
    let route = &bound.route;
    let is_told = matches!(route.layout, Layout::Zset | Layout::Hash)
        && !many.members_are_distinct
        && route.expiry.is_none()
        && !matches!(route.on_collision, Some(OnCollision::Last { .. }));
    if !is_told {
        return None;
    }
    let is_empty = route.null == NullPolicy::Empty;
    let group = |index: usize| exact(&bound.schema.columns[index], is_empty);
    let groups: Vec<String> = bound.key.indexes().chain(many.member.indexes()).map(group).collect();
    let name = |index: usize| quote(&bound.schema.columns[index].name);
    let told = match (&many.score, values(bound).next()) {
        (Some(score), _) => name(score.index),
        (None, Some(value)) if is_empty => format!("coalesce({}::text, '')", name(value)),
        (None, Some(value)) => format!("{}::text", name(value)),
        (None, None) => return None,
    };
    let mut conditions = has_element(bound);
    conditions.extend(route.filter.iter().map(|filter| format!("({filter}\n)")));
    let filter = if conditions.is_empty() {
        String::new()
    } else {
        format!(" where {}", conditions.join(" and "))
    };
    Some(format!(
        "select count(*) from (select 1 from {}{filter} group by {} having count(distinct {told}) > 1) c",
        from_origin(route),
        groups.join(", ")
    ))
}

/// The columns of the values of a hash.
fn values(bound: &BoundRoute) -> impl Iterator<Item = usize> {
    let is_hash = bound.route.layout == Layout::Hash;
    bound.fields.iter().filter_map(move |field| match field.value {
        FieldValue::Column(index) if is_hash => Some(index),
        _ => None,
    })
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
