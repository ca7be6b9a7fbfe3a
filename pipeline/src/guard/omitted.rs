//! What a run that loads up to a share leaves out.
//!
//! Invariant: the ranges that are named and the rows that were committed are the whole of each route, and share no row, as
//! of the snapshot that was read.

use crate::catch_up::partitions_of;
use crate::checkpoint::Status;
use crate::engine::{Engine, order};
use crate::journal::PartitionRecord;
use crate::route::RouteRun;
use schemas::{Bounds, Position};
use serde::{Deserialize, Serialize};
use stages::Result;

/// A range of rows that was not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// The route.
    pub route: String,
    /// The partition it is in.
    pub partition: String,
    /// The relation, where a route reads several or the range is one of its blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    /// The rows: a condition in the SQL of the source, or `all rows`.
    pub range: String,
    /// Rows in it, about; absent where the source has no statistics.
    pub rows: Option<u64>,
}

/// Returns what is not loaded, in the order in which it would have been.
pub async fn omitted(engine: &Engine) -> Result<Vec<Omitted>> {
    let mut left = Vec::new();
    for route in &engine.routes {
        let partitions = partitions_of(engine, route.name()).await?;
        left.extend(partitions.into_iter().filter(|record| record.status != Status::Done));
    }
    order(&mut left, &engine.routes);
    let route_of = |record: &PartitionRecord| {
        engine.routes.iter().find(|route| route.name() == record.partition.route)
    };
    Ok(left.iter().filter_map(|record| Some(of(route_of(record)?, record))).collect())
}

fn of(route: &RouteRun, record: &PartitionRecord) -> Omitted {
    let partition = &record.partition;
    let (relation, range) =
        range(&partition.bounds, &record.position, route.bound.cut_by().unwrap_or_default());
    let rows = partition.rows_estimate.saturating_sub(record.counts.rows);
    Omitted {
        route: partition.route.clone(),
        partition: partition.id.to_string(),
        relation,
        range,
        rows: (partition.rows_estimate > 0 && route.has_row_estimate).then_some(rows),
    }
}

/// The relation and the condition of what lies behind a position.
fn range(bounds: &Bounds, position: &Position, column: &str) -> (Option<String>, String) {
    let all = |conditions: Vec<String>| {
        if conditions.is_empty() { "all rows".to_owned() } else { conditions.join(" and ") }
    };
    match bounds {
        Bounds::Ctid { relation, from_block, to_block } => {
            let from = match position {
                Position::Ctid { block, offset } => format!("ctid > '({block},{offset})'"),
                _ => format!("ctid >= '({from_block},0)'"),
            };
            let to = to_block.map(|block| format!("ctid < '({block},0)'"));
            (Some(relation.clone()), all([from].into_iter().chain(to).collect()))
        }
        Bounds::Key { from, to } => {
            let from = match position {
                Position::Key { text } => Some(text),
                _ => from.as_ref(),
            };
            let column = format!("\"{}\"", column.replace('"', "\"\""));
            let literal = |text: &String| format!("'{}'", text.replace('\'', "''"));
            let from = from.map(|text| format!("{column} > {}", literal(text)));
            let to = to.as_ref().map(|text| format!("{column} <= {}", literal(text)));
            (None, all(from.into_iter().chain(to).collect()))
        }
        Bounds::KeyNull => (None, format!("\"{}\" is null", column.replace('"', "\"\""))),
        Bounds::Filter { condition } => (None, condition.clone()),
        Bounds::TablePartition { table_partition, .. } => {
            (None, format!("table partition {table_partition}"))
        }
        Bounds::Files { table_partition, generation, from, to } => (
            None,
            format!(
                "files {from} to {} of generation {generation} of table partition {table_partition}",
                to.saturating_sub(1)
            ),
        ),
        Bounds::ChangedSince { relation, since_xid } => {
            (Some(relation.clone()), format!("changed since transaction {since_xid}"))
        }
        Bounds::Whole => (None, all(Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_begins_behind_what_is_committed() {
        let bounds =
            Bounds::Ctid { relation: "\"public\".\"b\"".into(), from_block: 4, to_block: Some(9) };
        let begun = range(&bounds, &Position::Ctid { block: 5, offset: 7 }, "");
        assert_eq!(begun.1, "ctid > '(5,7)' and ctid < '(9,0)'");
        assert_eq!(range(&bounds, &Position::Start, "").1, "ctid >= '(4,0)' and ctid < '(9,0)'");
        let bounds = Bounds::Key { from: None, to: Some("o'k".into()) };
        assert_eq!(range(&bounds, &Position::Start, "a").1, "\"a\" <= 'o''k'");
        let from = Position::Key { text: "m".into() };
        assert_eq!(range(&bounds, &from, "a").1, "\"a\" > 'm' and \"a\" <= 'o''k'");
        assert_eq!(range(&Bounds::Whole, &Position::Unordered, "").1, "all rows");
    }
}
