//! Cuts a table along its own table partitions into groups of consecutive ones.
//!
//! Invariant: the filters of one cut select every row exactly once whatever the table holds: ranges touch, the outer ends
//! are open, nulls have a filter of their own. So a cut never grows stale, and rows still in the streaming buffer are
//! read where their column puts them.

use super::pieces;
use super::shape::{Partitioning, Read};
use super::{BigQueryServer, Shape};
use crate::connect::bigquery::JobStatement;
use crate::error::Result;
use schemas::{BoundRoute, Bounds, Partition, PartitionId};
use serde_json::Value;

/// A partition is cut no smaller than this: a session costs about a second.
const PARTITION_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// And no larger, so that redoing one is bounded; a table partition that is not sorted by its column may be.
const PARTITION_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A filter that selects every row, in the form that a table which asks for a filter takes.
pub(super) fn everything(partitioning: Option<&Partitioning>) -> Bounds {
    let Some(partitioning) = partitioning else { return Bounds::Whole };
    let (column, least) = (quoted(&partitioning.column), smallest(&partitioning.type_name));
    Bounds::Filter { condition: format!("{column} >= {least} OR {column} IS NULL") }
}

/// One table partition of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TablePartition {
    /// `YYYY[MM[DD[HH]]]`, or the start of an integer range.
    pub(super) id: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

pub(super) async fn partitions(
    server: &BigQueryServer,
    bound: &BoundRoute,
    shape: &Shape,
    staged: Option<(u64, u64)>,
    (wanted, first): (usize, usize),
) -> Result<Vec<Partition>> {
    let cut = if let (Some(partitioning), Read::Table { dataset, table }) =
        (&shape.partitioning, &shape.origin)
    {
        by_partition(partitioning, table_partitions(server, dataset, table).await?, wanted)
    } else {
        let (rows, bytes) = staged.unwrap_or((shape.rows_estimate.unwrap_or(0), shape.bytes));
        vec![Group { bounds: Bounds::Whole, rows, bytes, newest: None }]
    };
    let is_newest_by = shape
        .partitioning
        .as_ref()
        .is_some_and(|partitioning| bound.route.newest_by.as_ref() == Some(&partitioning.column));
    let partition = |(index, group): (usize, Group)| Partition {
        id: PartitionId(format!("{}/{}", bound.route.name, first + index)),
        route: bound.route.name.clone(),
        bounds: group.bounds,
        rows_estimate: group.rows,
        bytes_estimate: group.bytes,
        newest_us: group.newest.filter(|_| is_newest_by),
    };
    Ok(cut.into_iter().enumerate().map(partition).collect())
}

async fn table_partitions(
    server: &BigQueryServer,
    dataset: &str,
    table: &str,
) -> Result<Vec<TablePartition>> {
    let sql = format!(
        "SELECT partition_id, total_rows, total_logical_bytes \
         FROM `{}`.`{dataset}`.INFORMATION_SCHEMA.PARTITIONS WHERE table_name = @table",
        server.bigquery().project()
    );
    let parameters = [("table", "STRING", table)];
    let location = server.bigquery().location_of(dataset).await?;
    let statement =
        JobStatement { sql: &sql, parameters: &parameters, location: location.as_deref() };
    let rows = server.bigquery().query_rows(&statement).await?;
    let number = |cell: Option<&Value>| {
        cell.and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let partition = |row: &Vec<Value>| TablePartition {
        id: row.first().and_then(Value::as_str).unwrap_or_default().to_owned(),
        rows: number(row.get(1)),
        bytes: number(row.get(2)),
    };
    Ok(rows.iter().map(partition).collect())
}

/// One filter and what it is expected to select.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    bounds: Bounds,
    rows: u64,
    bytes: u64,
    newest: Option<i64>,
}

fn by_partition(
    partitioning: &Partitioning,
    found: Vec<TablePartition>,
    wanted: usize,
) -> Vec<Group> {
    let total: u64 = found.iter().map(|partition| partition.bytes).sum();
    let wanted = u64::try_from(wanted.max(1)).unwrap_or(1);
    let size = (total / wanted).clamp(PARTITION_BYTES_MIN, PARTITION_BYTES_MAX);
    let is_null = |partition: &TablePartition| partition.id == "__NULL__";
    let (null_rows, null_bytes) = found
        .iter()
        .filter(|partition| is_null(partition))
        .fold((0, 0), |(rows, bytes), p| (rows + p.rows, bytes + p.bytes));
    // `__UNPARTITIONED__` is the streaming buffer, or what lies outside all integer ranges: the open ends have it.
    let mut ranges: Vec<(Start, TablePartition)> = found
        .into_iter()
        .filter_map(|partition| {
            Some((Start::of(&partition.id, &partitioning.type_name)?, partition))
        })
        .flat_map(|(start, partition)| pieces::cut(partitioning, start, partition, size))
        .collect();
    ranges.sort_by_key(|(start, _)| start.order);
    let mut groups: Vec<Group> = Vec::new();
    let mut starts: Vec<Start> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    let mut newest = None;
    for (start, partition) in ranges {
        if bytes > 0 && bytes + partition.bytes > size {
            groups.push(Group { bounds: Bounds::Whole, rows, bytes, newest });
            starts.push(start.clone());
            (rows, bytes) = (0, 0);
        }
        (rows, bytes) = (rows + partition.rows, bytes + partition.bytes);
        newest = Some(start.order);
    }
    groups.push(Group { bounds: Bounds::Whole, rows, bytes, newest });
    let column = quoted(&partitioning.column);
    let count = groups.len();
    for (index, group) in groups.iter_mut().enumerate() {
        // The first range has a lower bound all the same: a table may ask for a filter that it can prune by.
        let from = match index {
            0 => smallest(&partitioning.type_name).to_owned(),
            _ => starts[index - 1].literal.clone(),
        };
        let mut condition = format!("{column} >= {from}");
        if index + 1 < count {
            condition = format!("{condition} AND {column} < {}", starts[index].literal);
        }
        group.bounds = Bounds::Filter { condition };
    }
    if partitioning.is_nullable {
        let bounds = Bounds::Filter { condition: format!("{column} IS NULL") };
        groups.push(Group { bounds, rows: null_rows, bytes: null_bytes, newest: None });
    }
    groups
}

/// Where a table partition begins: as a literal, and as a number that orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) literal: String,
    pub(super) order: i64,
}

impl Start {
    /// Reads a partition id; `None` for `__NULL__`, `__UNPARTITIONED__` and what is not understood, whose rows then
    /// fall into the range around them.
    pub(super) fn of(id: &str, type_name: &str) -> Option<Self> {
        if type_name == "INT64" {
            let order = id.parse().ok()?;
            return Some(Self { literal: id.to_owned(), order });
        }
        if !id.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(id.len(), 4 | 6 | 8 | 10) {
            return None;
        }
        let part =
            |from: usize| id.get(from..from + 2).unwrap_or(if from == 8 { "00" } else { "01" });
        let (year, month, day, hour) = (&id[..4], part(4), part(6), part(8));
        let date = format!("{year}-{month}-{day}");
        let literal = match type_name {
            "DATE" => format!("DATE '{date}'"),
            "DATETIME" => format!("DATETIME '{date} {hour}:00:00'"),
            _ => format!("TIMESTAMP '{date} {hour}:00:00+00'"),
        };
        let number = |text: &str| text.parse::<i64>().ok();
        let days = days_from_civil(number(year)?, number(month)?, number(day)?);
        Some(Self { literal, order: (days * 24 + number(hour)?) * 3_600_000_000 })
    }
}

fn smallest(type_name: &str) -> &'static str {
    match type_name {
        "INT64" => "-9223372036854775808",
        "DATE" => "DATE '0001-01-01'",
        "DATETIME" => "DATETIME '0001-01-01 00:00:00'",
        _ => "TIMESTAMP '0001-01-01 00:00:00+00'",
    }
}

fn quoted(name: &str) -> String {
    // Column names have no backquote and no backslash.
    if name.starts_with("_PARTITION") { name.to_owned() } else { format!("`{name}`") }
}

/// Days since 1970-01-01: `days_from_civil` of Howard Hinnant, <https://howardhinnant.github.io/date_algorithms.html>.
pub(super) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1024 * 1024;

    fn cut(type_name: &str, ids: &[(&str, u64)], wanted: usize) -> Vec<String> {
        let partitioning = Partitioning {
            column: "ts".into(),
            type_name: type_name.into(),
            is_nullable: true,
            is_sorted: false,
        };
        let found = ids
            .iter()
            .map(|(id, bytes)| TablePartition { id: (*id).into(), rows: 1, bytes: *bytes })
            .collect();
        let condition = |group: Group| match group.bounds {
            Bounds::Filter { condition } => condition,
            other => format!("{other:?}"),
        };
        by_partition(&partitioning, found, wanted).into_iter().map(condition).collect()
    }

    #[test]
    fn ranges_touch_and_the_ends_are_open() {
        let ids = [
            ("20260103", 5 * MB),
            ("__NULL__", MB),
            ("20260101", 5 * MB),
            ("20260102", MB),
            ("__UNPARTITIONED__", MB),
        ];
        assert_eq!(
            cut("TIMESTAMP", &ids, 3),
            [
                "`ts` >= TIMESTAMP '0001-01-01 00:00:00+00' AND `ts` < TIMESTAMP '2026-01-02 00:00:00+00'",
                "`ts` >= TIMESTAMP '2026-01-02 00:00:00+00' AND `ts` < TIMESTAMP '2026-01-03 00:00:00+00'",
                "`ts` >= TIMESTAMP '2026-01-03 00:00:00+00'",
                "`ts` IS NULL",
            ]
        );
    }

    #[test]
    fn an_empty_table_is_still_covered() {
        assert_eq!(cut("DATE", &[], 8), ["`ts` >= DATE '0001-01-01'", "`ts` IS NULL"]);
    }

    #[test]
    fn integers_are_ordered_as_numbers() {
        let ids = [("100", 9 * MB), ("-5", 9 * MB), ("20", 9 * MB)];
        assert_eq!(
            cut("INT64", &ids, 3),
            [
                "`ts` >= -9223372036854775808 AND `ts` < 20",
                "`ts` >= 20 AND `ts` < 100",
                "`ts` >= 100",
                "`ts` IS NULL"
            ]
        );
    }

    #[test]
    fn hours_months_and_years_have_literals() {
        for (id, type_name, literal, order) in [
            (
                "2026010205",
                "TIMESTAMP",
                "TIMESTAMP '2026-01-02 05:00:00+00'",
                1_767_330_000_000_000,
            ),
            ("202601", "DATETIME", "DATETIME '2026-01-01 00:00:00'", 1_767_225_600_000_000),
            ("2026", "DATE", "DATE '2026-01-01'", 1_767_225_600_000_000),
        ] {
            let start = Start::of(id, type_name).unwrap();
            assert_eq!((start.literal.as_str(), start.order), (literal, order), "{id}");
        }
        assert_eq!(Start::of("__NULL__", "DATE"), None);
    }
}
