//! The SQL that reads a partition.
//!
//! Invariant: every identifier is quoted, every literal escaped; the plan's own SQL (`where`, `query`)
//! is enclosed in parentheses and ended by a newline, so that a comment in it cannot swallow what follows.

use super::order;
use crate::extract::Columns;
use schemas::plan::{OnCollision, Origin, Route};
use schemas::{BoundRoute, Bounds, Partition, Position};
use std::fmt::Write;

/// Quotes an identifier (PostgreSQL manual, 4.1.1).
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Quotes a literal so that it means the same whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Returns what stands after FROM for the route's whole origin.
pub(super) fn from_origin(route: &Route) -> String {
    match &route.origin {
        Origin::Table { schema, table, .. } => format!("{}.{}", quote(schema), quote(table)),
        Origin::Query { sql, .. } => format!("({sql}\n) as q"),
    }
}

/// What a partition makes of a statement.
struct Cut {
    source: String,
    conditions: Vec<String>,
    lead: Option<String>,
    order: Option<String>,
}

/// Returns the COPY statement of a partition from a position on, of so many rows at most.
pub(super) fn copy(
    bound: &BoundRoute,
    partition: &Partition,
    from: &Position,
    columns: Columns,
    rows_max: Option<usize>,
) -> String {
    let Cut { source, mut conditions, lead, mut order } = cut(bound, partition, from);
    if let Some(filter) = &bound.route.filter {
        conditions.insert(0, format!("({filter}\n)"));
    }
    let mut selected = selected(bound, columns);
    if columns == Columns::All {
        selected.splice(0..0, lead);
    } else {
        order = None;
        conditions.extend(order::has_element(bound));
    }
    // The keys of many rows are wanted once.
    let is_once = columns == Columns::Key && bound.is_many();
    let distinct = if is_once { order::once(bound) } else { String::new() };
    let mut sql = format!("copy (select {distinct}{} from {source}", selected.join(", "));
    if !conditions.is_empty() {
        sql.push_str(" where ");
        sql.push_str(&conditions.join(" and "));
    }
    if let Some(order) = order {
        sql.push_str(" order by ");
        sql.push_str(&order);
    }
    // A key without columns is there as soon as one row is.
    let limit = if is_once && selected.is_empty() { Some(1) } else { rows_max };
    if let Some(limit) = limit {
        write!(sql, " limit {limit}").expect("text takes what is written");
    }
    sql.push_str(") to stdout (format binary)");
    sql
}

fn cut(bound: &BoundRoute, partition: &Partition, from: &Position) -> Cut {
    let route = &bound.route;
    let mut conditions = Vec::new();
    let (mut lead, mut order) = (None, None);
    let source = match &partition.bounds {
        Bounds::Ctid { relation, .. } => {
            lead = Some("ctid".to_owned());
            let after = match from {
                Position::Ctid { block, offset } => Some((*block, *offset)),
                _ => None,
            };
            conditions.extend(ctid_range(&partition.bounds, after));
            format!("only {relation}")
        }
        Bounds::ChangedSince { relation, since_xid } => {
            lead = Some("ctid".to_owned());
            conditions.push(changed_since(*since_xid));
            format!("only {relation}")
        }
        Bounds::Key { .. } => {
            let exact = order::cut(bound);
            conditions.extend(key_range(bound, &partition.bounds, from));
            // Under a name of its own: the column may be selected too, and ORDER BY looks at names first.
            lead = Some(format!("{exact}::text as \"rekindle:position\""));
            order = order::rows(bound).or(Some(exact));
            from_origin(route)
        }
        Bounds::KeyNull => {
            conditions.extend(key_range(bound, &partition.bounds, from));
            from_origin(route)
        }
        Bounds::Filter { condition } => {
            conditions.push(format!("({condition}\n)"));
            order = order::rows(bound);
            from_origin(route)
        }
        // BigQuery's table partitions, and files of them, never reach PostgreSQL.
        Bounds::Whole | Bounds::TablePartition { .. } | Bounds::Files { .. } => {
            if bound.is_many() {
                order = order::rows(bound);
            } else if let Some(OnCollision::Last { order_by }) = &route.on_collision {
                order = Some(format!("{} nulls first", quote(order_by)));
            }
            from_origin(route)
        }
    };
    Cut { source, conditions, lead, order }
}

/// Returns the conditions of a range of the column that is cut by, from a position on; none where everything is one part.
pub(super) fn key_range(bound: &BoundRoute, bounds: &Bounds, from: &Position) -> Vec<String> {
    let column = quote(bound.cut_by().unwrap_or_default());
    let (lower, to) = match (bounds, from) {
        (Bounds::Key { to, .. }, Position::Key { text }) => (Some(text), to),
        (Bounds::Key { from, to }, _) => (from.as_ref(), to),
        (Bounds::KeyNull, _) => return vec![format!("{column} is null")],
        _ => return Vec::new(),
    };
    let exact = order::cut(bound);
    // A range without bounds still leaves the nulls to their own partition.
    let lower = match lower {
        Some(value) => format!("{exact} > {}", literal(value)),
        None => format!("{column} is not null"),
    };
    let upper = to.iter().map(|value| format!("{exact} <= {}", literal(value)));
    std::iter::once(lower).chain(upper).collect()
}

/// Rows whose inserting transaction is not surely older than the snapshot.
///
/// `xmin` is 32 bits wide and compared on the circle of 2^32, as PostgreSQL does (manual, 25.1.5). A
/// frozen tuple keeps its raw `xmin`; where its age exceeds half the circle it is read once more for nothing,
/// never missed. Subtransactions are above their snapshot's xmin too, unlike in `pg_visible_in_snapshot`.
pub(super) fn changed_since(since_xid: u64) -> String {
    let low = since_xid % (1 << 32);
    format!("((xmin::text::bigint - {low} + 4294967296) % 4294967296) < 2147483648")
}

/// Returns the conditions of a range of heap blocks, from behind a tuple on where one is given.
pub(super) fn ctid_range(bounds: &Bounds, after: Option<(u32, u16)>) -> Vec<String> {
    let Bounds::Ctid { from_block, to_block, .. } = bounds else { return Vec::new() };
    let from = match after {
        Some((block, offset)) => format!("ctid > '({block},{offset})'"),
        None => format!("ctid >= '({from_block},0)'"),
    };
    std::iter::once(from).chain(to_block.map(|to| format!("ctid < '({to},0)'"))).collect()
}

/// Returns what is selected for the columns of a route, in their order.
pub(super) fn columns(bound: &BoundRoute) -> Vec<String> {
    selected(bound, Columns::All)
}

fn selected(bound: &BoundRoute, columns: Columns) -> Vec<String> {
    let schema = match columns {
        Columns::All => bound.schema.clone(),
        Columns::Key => bound.key_only().schema,
    };
    let text_of = |column: &schemas::Column| {
        let cast = if column.as_text { Some("text") } else { column.column_type.cast() };
        let cast = cast.map(|cast| format!("::{cast}")).unwrap_or_default();
        format!("{}{cast}", quote(&column.name))
    };
    schema.columns.iter().map(text_of).collect()
}
