//! Rows of the streaming buffer: with which unit of a backup each of them is read.
//!
//! Invariant: where the buffer may have held rows at the pinned time, every unit is counted as of that time by the very
//! condition that reads it, so that a row is in one unit whether it was sorted in yet or not.

use super::cut::{NULL, Partitioning, TimeType, UNPARTITIONED, quoted};
use super::decide::InSource;
use super::source::SourceTable;
use super::standing::Standing;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use stages::connect::bigquery::{BigQuery, JobStatement};
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;

/// Replaces the rows that the table partitions were listed with by those they had at the pinned time, and adds units for
/// rows that no listed table partition has, wherever the streaming buffer may matter.
///
/// The list is younger than the pinned time: what the buffer held then is still in it, or it is in a table partition
/// that was changed since.
pub async fn settle(
    bigquery: &BigQuery,
    source: &mut SourceTable,
    standing: &Standing,
    snapshot_us: i64,
) -> Result<()> {
    if !may_matter(source, standing, snapshot_us) {
        return Ok(());
    }
    let counted = count(bigquery, source, snapshot_us).await?;
    apply(source, counted, snapshot_us);
    Ok(())
}

fn may_matter(source: &SourceTable, standing: &Standing, snapshot_us: i64) -> bool {
    let rows_copied = || {
        let newest = standing.manifests.get(UNPARTITIONED).and_then(|manifest| manifest.newest());
        newest.map_or(0, |version| version.rows)
    };
    let mut listed = source.partitions.iter();
    let of_buffer = |found: &&InSource| found.id == UNPARTITIONED;
    source.has_buffer
        || match &source.partitioning {
            Partitioning::None => false,
            Partitioning::Time { column: Some(_), .. } => listed.any(|found| of_buffer(&found)),
            Partitioning::Time { column: None, .. } => {
                let is_younger = |found: &InSource| found.last_modified_us > snapshot_us;
                rows_copied() > 0 || listed.any(|found| of_buffer(&found) || is_younger(found))
            }
            // Rows outside of all ranges have the same name as those of the buffer.
            Partitioning::Range { .. } => {
                listed.find(of_buffer).map_or(0, |found| found.rows) != rows_copied()
            }
        }
}

/// Counts the rows of every table partition as of a time, those of the streaming buffer where they belong.
pub(crate) async fn count(
    bigquery: &BigQuery,
    source: &SourceTable,
    snapshot_us: i64,
) -> Result<BTreeMap<String, u64>> {
    let table = &source.record.table;
    let from = format!(
        "FROM `{}.{table}` FOR SYSTEM_TIME AS OF TIMESTAMP_MICROS({snapshot_us})",
        bigquery.project()
    );
    let of_rows = every_row(&source.partitioning).zip(expression(&source.partitioning));
    let sql = match of_rows {
        None => format!("SELECT COUNT(*) {from}"),
        Some((every_row, (.., start))) => {
            format!("SELECT {start}, COUNT(*) {from} WHERE {every_row} GROUP BY 1")
        }
    };
    let location = source.record.location.as_deref();
    let rows = bigquery.query_rows(&JobStatement { sql: &sql, parameters: &[], location }).await?;
    let mut counted = BTreeMap::new();
    for row in &rows {
        let id = row.first().and_then(|start| id_of(&source.partitioning, start));
        let rows = row.last().and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok());
        let (Some(id), Some(rows)) = (id, rows) else {
            let message = format!("bigquery did not count the rows of {table}");
            return Err(Error::new(Kind::Internal, message));
        };
        if rows > 0 {
            counted.insert(id, rows);
        }
    }
    Ok(counted)
}

/// A condition on the partition column that holds for every row, because a table may ask for one.
pub(crate) fn every_row(partitioning: &Partitioning) -> Option<String> {
    let (column, least, _) = expression(partitioning)?;
    Some(format!("({column} >= {least} OR {column} IS NULL)"))
}

/// Returns the partition column, its least value, and where the table partition of a row begins.
fn expression(partitioning: &Partitioning) -> Option<(String, &'static str, String)> {
    match partitioning {
        Partitioning::None => None,
        Partitioning::Time { unit, column, .. } => {
            let (column, time_type) = match column {
                Some((name, time_type)) => (quoted(name), *time_type),
                None => ("_PARTITIONTIME".to_owned(), TimeType::Timestamp),
            };
            let (function, least) = match time_type {
                TimeType::Timestamp => ("TIMESTAMP_TRUNC", "TIMESTAMP '0001-01-01 00:00:00+00:00'"),
                TimeType::DateTime => ("DATETIME_TRUNC", "DATETIME '0001-01-01 00:00:00'"),
                TimeType::Date => ("DATE_TRUNC", "DATE '0001-01-01'"),
            };
            let start = format!("{function}({column}, {})", unit.word());
            Some((column, least, start))
        }
        Partitioning::Range { column, start, end, interval } => {
            let column = quoted(column);
            let inside = format!("{column} >= {start} AND {column} < {end}");
            // The end stands for what is outside; numbers are computed with inside only, so that none overflows.
            let offset = format!("MOD(IF({inside}, {column}, {start}) - {start}, {interval})");
            let begin = format!(
                "IF({column} < {start} OR {column} >= {end}, {end}, IF({inside}, {column}, NULL) - {offset})"
            );
            Some((column, "-9223372036854775808", begin))
        }
    }
}

/// Reads the name of a table partition from where it begins; `None` where the answer is not understood.
fn id_of(partitioning: &Partitioning, start: &Value) -> Option<String> {
    match (partitioning, start) {
        (Partitioning::None, _) | (Partitioning::Time { column: None, .. }, Value::Null) => {
            Some(UNPARTITIONED.to_owned())
        }
        (_, Value::Null) => Some(NULL.to_owned()),
        (Partitioning::Range { end, .. }, start) => {
            let start: i64 = start.as_str()?.parse().ok()?;
            Some(if start == *end { UNPARTITIONED.to_owned() } else { start.to_string() })
        }
        (Partitioning::Time { unit, column, .. }, start) => {
            let is_micros =
                column.as_ref().is_none_or(|(_, time_type)| *time_type == TimeType::Timestamp);
            let text = start.as_str()?;
            let digits: String = if is_micros {
                let time = Timestamp::from_microsecond(text.parse().ok()?).ok()?;
                time.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H").to_string()
            } else {
                text.chars().filter(char::is_ascii_digit).collect()
            };
            digits.get(..unit.digits()).map(str::to_owned)
        }
    }
}

fn apply(source: &mut SourceTable, mut counted: BTreeMap<String, u64>, snapshot_us: i64) {
    let rows: u64 = source.partitions.iter().map(|found| found.rows).sum();
    let bytes: u64 = source.partitions.iter().map(|found| found.bytes).sum();
    for found in &mut source.partitions {
        found.rows = counted.remove(&found.id).unwrap_or(0);
    }
    // The name of the buffer is no unit where nothing is read under it.
    source.partitions.retain(|found| found.id != UNPARTITIONED || found.rows > 0);
    source.partitions.extend(counted.into_iter().map(|(id, count)| InSource {
        expires_us: source.partitioning.expires_us(&id),
        rows: count,
        bytes: count.saturating_mul(bytes / rows.max(1)),
        // Nobody tells when; so it counts as changed for as long as it is not listed.
        last_modified_us: snapshot_us,
        id,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn by(time_type: &str, unit: &str) -> Partitioning {
        Partitioning::of(&json!({
            "timePartitioning": {"type": unit, "field": "ts"},
            "schema": {"fields": [{"name": "ts", "type": time_type}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_beginning_of_a_table_partition_names_it() {
        let ingestion = Partitioning::of(&json!({"timePartitioning": {"type": "DAY"}})).unwrap();
        let range = Partitioning::of(&json!({"rangePartitioning": {"field": "n",
            "range": {"start": "-10", "end": "25", "interval": "10"}}}))
        .unwrap();
        for (partitioning, start, id) in [
            (&ingestion, json!("1761955200000000"), "20251101"),
            (&ingestion, Value::Null, UNPARTITIONED),
            (&by("TIMESTAMP", "HOUR"), json!("1761958800000000"), "2025110101"),
            (&by("TIMESTAMP", "HOUR"), Value::Null, NULL),
            (&by("DATETIME", "DAY"), json!("2025-11-01T00:00:00"), "20251101"),
            (&by("DATE", "MONTH"), json!("2025-11-01"), "202511"),
            (&by("DATE", "YEAR"), json!("2025-01-01"), "2025"),
            (&range, json!("-10"), "-10"),
            (&range, json!("25"), UNPARTITIONED),
            (&range, Value::Null, NULL),
            (&Partitioning::None, Value::Null, UNPARTITIONED),
        ] {
            assert_eq!(id_of(partitioning, &start).as_deref(), Some(id), "{start}");
        }
        assert_eq!(id_of(&range, &json!("x")), None);
    }
}
