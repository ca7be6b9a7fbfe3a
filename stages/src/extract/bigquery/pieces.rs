//! Cuts a large table partition into pieces by the time in its partition column.
//!
//! Invariant: the first piece begins where the table partition does, and pieces touch, because each ends where the next
//! begins. Only what BigQuery has sorted by that column is cut: elsewhere every piece would scan, and be billed for, the
//! whole table partition. Pure.

use super::cut::{Start, TablePartition, days_from_civil};
use super::shape::Partitioning;
use schemas::text::Civil;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// Returns the table partition in pieces of about `size` bytes, rows taken to be spread evenly over its time; whole
/// where it is small or cannot be cut.
pub(super) fn cut(
    partitioning: &Partitioning,
    start: Start,
    partition: TablePartition,
    size: u64,
) -> Vec<(Start, TablePartition)> {
    let step_us = match partitioning.type_name.as_str() {
        "TIMESTAMP" | "DATETIME" => HOUR_US,
        "DATE" => DAY_US,
        _ => return vec![(start, partition)],
    };
    // The pseudo column of ingestion time has one value in a table partition.
    let is_own = !partitioning.column.starts_with("_PARTITION");
    let end_us = end_us(&partition.id).filter(|_| partitioning.is_sorted && is_own);
    let steps = end_us.map_or(1, |end| (end - start.order) / step_us);
    let wanted = i64::try_from(partition.bytes.div_ceil(size.max(1))).unwrap_or(i64::MAX);
    let count = wanted.min(steps);
    if count <= 1 {
        return vec![(start, partition)];
    }
    let share = |total: u64| total / count.unsigned_abs();
    let piece = |index: i64| {
        let order = start.order + steps * index / count * step_us;
        let literal = if index == 0 {
            start.literal.clone()
        } else {
            literal(&partitioning.type_name, order)
        };
        let piece = TablePartition {
            id: partition.id.clone(),
            rows: share(partition.rows),
            bytes: share(partition.bytes),
        };
        (Start { literal, order }, piece)
    };
    (0..count).map(piece).collect()
}

/// Returns the first microsecond behind a table partition; `None` for one of an hour, which is not cut.
fn end_us(id: &str) -> Option<i64> {
    let part = |from: usize, to: usize| id.get(from..to)?.parse::<i64>().ok();
    let year = part(0, 4)?;
    let days = match id.len() {
        4 => days_from_civil(year + 1, 1, 1),
        6 if part(4, 6)? == 12 => days_from_civil(year + 1, 1, 1),
        6 => days_from_civil(year, part(4, 6)? + 1, 1),
        8 => days_from_civil(year, part(4, 6)?, part(6, 8)?) + 1,
        _ => return None,
    };
    Some(days * DAY_US)
}

fn literal(type_name: &str, us: i64) -> String {
    let Civil { year, month, day } = Civil::from_days(us.div_euclid(DAY_US));
    let hour = us.rem_euclid(DAY_US) / HOUR_US;
    match type_name {
        "DATE" => format!("DATE '{year:04}-{month:02}-{day:02}'"),
        "DATETIME" => format!("DATETIME '{year:04}-{month:02}-{day:02} {hour:02}:00:00'"),
        _ => format!("TIMESTAMP '{year:04}-{month:02}-{day:02} {hour:02}:00:00+00'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(column: &str, type_name: &str, id: &str, bytes: u64, is_sorted: bool) -> Vec<String> {
        let partitioning = Partitioning {
            column: column.into(),
            type_name: type_name.into(),
            is_nullable: true,
            is_sorted,
        };
        let partition = TablePartition { id: id.into(), rows: 100, bytes };
        let start = Start::of(id, type_name).unwrap();
        let pieces = cut(&partitioning, start, partition, 10);
        assert!(pieces.is_sorted_by(|(one, _), (next, _)| one.order < next.order));
        pieces.into_iter().map(|(start, _)| start.literal).collect()
    }

    #[test]
    fn a_day_is_cut_into_hours_and_a_month_into_days() {
        assert_eq!(
            starts("ts", "TIMESTAMP", "20260228", 31, true),
            [
                "TIMESTAMP '2026-02-28 00:00:00+00'",
                "TIMESTAMP '2026-02-28 06:00:00+00'",
                "TIMESTAMP '2026-02-28 12:00:00+00'",
                "TIMESTAMP '2026-02-28 18:00:00+00'",
            ]
        );
        assert_eq!(
            starts("ts", "DATE", "202602", 20, true),
            ["DATE '2026-02-01'", "DATE '2026-02-15'"]
        );
        assert_eq!(
            starts("ts", "DATETIME", "202612", 20, true),
            ["DATETIME '2026-12-01 00:00:00'", "DATETIME '2026-12-16 12:00:00'"]
        );
        // No more pieces than there are hours, however large the day.
        assert_eq!(starts("ts", "TIMESTAMP", "20260228", 1_000_000, true).len(), 24);
        assert_eq!(starts("ts", "DATE", "2024", 1_000_000, true).len(), 366);
    }

    #[test]
    fn what_is_small_or_cannot_be_cut_stays_whole() {
        for (column, type_name, id, bytes, is_sorted) in [
            ("ts", "TIMESTAMP", "20260228", 10, true),
            ("ts", "TIMESTAMP", "20260228", 1_000, false),
            ("ts", "TIMESTAMP", "2026022807", 1_000, true),
            ("ts", "DATE", "20260228", 1_000, true),
            ("n", "INT64", "20", 1_000, true),
            ("_PARTITIONTIME", "TIMESTAMP", "20260228", 1_000, true),
        ] {
            let found = starts(column, type_name, id, bytes, is_sorted);
            assert_eq!(found.len(), 1, "{column} {type_name} {id}");
        }
    }

    #[test]
    fn days_are_counted_there_and_back() {
        for days in [-719_468, -1, 0, 59, 60, 20_512, 2_932_896] {
            let Civil { year, month, day } = Civil::from_days(days);
            assert_eq!(days_from_civil(year, i64::from(month), i64::from(day)), days);
        }
    }
}
