//! Windows of a watermark: how a table without table partitions is cut.
//!
//! Invariant: windows are half-open, touch, and never overlap; the newest one ends a lag before the pinned time, because
//! rows may come in a little late. A window whose count differs is copied again; updates, and deletes that inserts make
//! up for, show only to `--full`.

use super::cut::{NULL, TimeType, quoted};
use super::decide::InSource;
use super::source::SourceTable;
use super::standing::Standing;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use stages::connect::bigquery::{BigQuery, JobStatement};
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;

/// How far behind the pinned time the newest window ends.
pub const LAG_US: i64 = 600 * 1_000_000;
const DAY_US: i64 = 86_400 * 1_000_000;

/// A half-open window; `from` is absent in the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First microsecond, or everything before `to`.
    pub from: Option<i64>,
    /// First microsecond behind it.
    pub to: i64,
}

impl Window {
    /// Returns the name in the duplicate: `w:<from>..<to>`, microseconds since 1970.
    pub fn name(&self) -> String {
        let from = self.from.map(|from| from.to_string()).unwrap_or_default();
        format!("w:{from}..{}", self.to)
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        let (from, to) = name.strip_prefix("w:")?.split_once("..")?;
        let from = if from.is_empty() { None } else { Some(from.parse().ok()?) };
        Some(Self { from, to: to.parse().ok()? })
    }

    fn filter(&self, column: &str, time_type: TimeType) -> Result<String> {
        let to = format!("{column} < {}", literal(time_type, self.to)?);
        Ok(match self.from {
            None => to,
            Some(from) => format!("{column} >= {} AND {to}", literal(time_type, from)?),
        })
    }
}

fn literal(time_type: TimeType, us: i64) -> Result<String> {
    let time = Timestamp::from_microsecond(us).map_err(|error| {
        Error::new(Kind::Internal, "a window lies outside of time").with_source(error)
    })?;
    Ok(time_type.literal(time.to_zoned(TimeZone::UTC).datetime()))
}

/// Returns the recorded windows and, where time has gone on, a new one behind them.
fn windows(recorded: &mut [Window], upper_us: i64) -> Vec<Window> {
    recorded.sort_by_key(|window| window.to);
    let mut all = recorded.to_owned();
    match recorded.last() {
        None => all.push(Window { from: None, to: upper_us }),
        Some(last) if last.to < upper_us => {
            all.push(Window { from: Some(last.to), to: upper_us });
        }
        Some(_) => {}
    }
    all
}

/// Replaces the one unit of a table without table partitions by windows, and returns the filter of each.
pub async fn cut(
    bigquery: &BigQuery,
    source: &mut SourceTable,
    standing: &Standing,
    watermark: &str,
    snapshot_us: i64,
) -> Result<BTreeMap<String, String>> {
    let table = source.record.table.clone();
    let time_type = TimeType::of_column(&source.record.resource, watermark).ok_or_else(|| {
        Error::new(
            Kind::Schema,
            format!("watermark {watermark} of {table} is no TIMESTAMP, DATETIME or DATE column"),
        )
        .with_hint("name such a column, or leave watermark out to copy the whole table each time")
    })?;
    let mut upper_us = snapshot_us - LAG_US;
    if time_type == TimeType::Date {
        // A day is complete only when it is over.
        upper_us -= upper_us.rem_euclid(DAY_US);
    }
    let mut recorded: Vec<Window> =
        standing.summary().keys().filter_map(|name| Window::parse(name)).collect();
    let windows = windows(&mut recorded, upper_us);
    let column = quoted(watermark);
    let mut columns = vec![format!("COUNTIF({column} IS NULL)")];
    for window in &windows {
        columns.push(format!("COUNTIF({column} < {})", literal(time_type, window.to)?));
    }
    let sql = format!("SELECT {} FROM `{}.{table}`", columns.join(", "), bigquery.project());
    let location = source.record.location.clone();
    let statement = JobStatement { sql: &sql, parameters: &[], location: location.as_deref() };
    let rows = bigquery.query_rows(&statement).await?;
    let counts: Vec<u64> = rows.first().into_iter().flatten().filter_map(count).collect();
    if counts.len() != columns.len() {
        return Err(Error::new(
            Kind::Internal,
            format!("bigquery did not count the rows of {table}"),
        ));
    }
    let bytes = source.partitions.iter().map(|partition| partition.bytes).sum::<u64>();
    let all_rows = source.partitions.iter().map(|partition| partition.rows).sum::<u64>().max(1);
    let unit = |id: String, rows: u64| InSource {
        id,
        rows,
        bytes: u64::try_from(u128::from(bytes) * u128::from(rows) / u128::from(all_rows))
            .unwrap_or(bytes),
        // The table tells when it was changed, not which window; only counts do.
        last_modified_us: 0,
        expires_us: None,
    };
    let mut filters = BTreeMap::new();
    source.partitions.clear();
    let has_null = counts[0] > 0 || standing.summary().contains_key(NULL);
    if has_null {
        source.partitions.push(unit(NULL.to_owned(), counts[0]));
        filters.insert(NULL.to_owned(), format!("{column} IS NULL"));
    }
    let mut before = 0;
    for (window, below) in windows.iter().zip(&counts[1..]) {
        // A new window without rows is left to the next backup, whose window then begins where this one does.
        if *below <= before && !recorded.contains(window) {
            continue;
        }
        source.partitions.push(unit(window.name(), below.saturating_sub(before)));
        filters.insert(window.name(), window.filter(&column, time_type)?);
        before = *below;
    }
    Ok(filters)
}

fn count(cell: &Value) -> Option<u64> {
    cell.as_u64().or_else(|| cell.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_touch_and_their_names_are_read_back() {
        let first = windows(&mut Vec::new(), 100);
        assert_eq!(first, [Window { from: None, to: 100 }]);
        let second = windows(&mut first.clone(), 250);
        assert_eq!(second[1], Window { from: Some(100), to: 250 });
        let third = windows(&mut second.iter().rev().copied().collect::<Vec<_>>(), 250);
        assert_eq!(third, second);
        for window in third {
            assert_eq!(Window::parse(&window.name()), Some(window));
        }
        assert_eq!(Window::parse("20261101"), None);
    }

    #[test]
    fn a_filter_is_half_open() {
        let window = Window { from: Some(0), to: DAY_US + 1 };
        assert_eq!(
            window.filter("`ts`", TimeType::Timestamp).unwrap(),
            "`ts` >= TIMESTAMP '1970-01-01 00:00:00+00:00' AND `ts` < TIMESTAMP '1970-01-02 00:00:00.000001+00:00'"
        );
    }
}
