//! How a BigQuery table is cut into units of a backup, and the filter that reads one of them.
//!
//! Invariant: the filters of all units together let every row through once. Pure.

use jiff::civil::{Date, DateTime};
use jiff::{Span, ToSpan, Zoned, tz::TimeZone};
use serde_json::Value;
use stages::{Error, Kind, Result};

/// Rows that belong to no table partition: outside of a range, or not sorted in yet.
pub const UNPARTITIONED: &str = "__UNPARTITIONED__";
/// Rows whose partition column is null.
pub const NULL: &str = "__NULL__";

/// How the table is partitioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partitioning {
    /// Not at all.
    None,
    /// By a time, in units of an hour, day, month or year.
    Time {
        /// The unit.
        unit: Unit,
        /// The column and its type; `None` is the time of ingestion.
        column: Option<(String, TimeType)>,
        /// Microseconds from the end of a table partition to its expiry.
        expires_after_us: Option<i64>,
    },
    /// By an integer.
    Range {
        /// The column.
        column: String,
        /// First value.
        start: i64,
        /// First value behind the last one.
        end: i64,
        /// Width.
        interval: i64,
    },
}

/// Unit of a time partitioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `2026110107`.
    Hour,
    /// `20261101`.
    Day,
    /// `202611`.
    Month,
    /// `2026`.
    Year,
}

/// Type of a partition column or watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeType {
    /// `TIMESTAMP`.
    Timestamp,
    /// `DATETIME`, taken as UTC.
    DateTime,
    /// `DATE`.
    Date,
}

impl TimeType {
    /// Reads the type of a column of a table resource.
    pub fn of_column(resource: &Value, column: &str) -> Option<Self> {
        let fields = resource.pointer("/schema/fields")?.as_array()?;
        let is_named = |field: &&Value| {
            field["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(column))
        };
        match fields.iter().find(is_named)?["type"].as_str()? {
            "TIMESTAMP" => Some(Self::Timestamp),
            "DATETIME" => Some(Self::DateTime),
            "DATE" => Some(Self::Date),
            _ => None,
        }
    }

    /// Returns a literal; of a date only the day counts.
    pub fn literal(self, time: DateTime) -> String {
        let (date, clock) = (time.date(), time.time());
        match self {
            Self::Timestamp => format!("TIMESTAMP '{date} {clock}+00:00'"),
            Self::DateTime => format!("DATETIME '{date} {clock}'"),
            Self::Date => format!("DATE '{date}'"),
        }
    }
}

impl Unit {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "HOUR" => Self::Hour,
            "DAY" => Self::Day,
            "MONTH" => Self::Month,
            "YEAR" => Self::Year,
            _ => return None,
        })
    }

    /// Returns the word of SQL.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Month => "MONTH",
            Self::Year => "YEAR",
        }
    }

    /// Returns how many digits the name of a table partition has.
    pub fn digits(self) -> usize {
        match self {
            Self::Hour => 10,
            Self::Day => 8,
            Self::Month => 6,
            Self::Year => 4,
        }
    }

    fn span(self) -> Span {
        match self {
            Self::Hour => 1.hour(),
            Self::Day => 1.day(),
            Self::Month => 1.month(),
            Self::Year => 1.year(),
        }
    }

    /// Returns the first moment of a table partition and the first one behind it.
    fn bounds(self, id: &str) -> Option<(DateTime, DateTime)> {
        if id.len() != self.digits() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let part = |from: usize, to: usize, default: i8| {
            id.get(from..to).map_or(Some(default), |text| text.parse().ok())
        };
        let date = Date::new(id.get(..4)?.parse().ok()?, part(4, 6, 1)?, part(6, 8, 1)?).ok()?;
        let start = date.at(part(8, 10, 0)?, 0, 0, 0);
        Some((start, start.checked_add(self.span()).ok()?))
    }
}

impl Partitioning {
    /// Reads the partitioning of a table resource.
    pub fn of(resource: &Value) -> Result<Self> {
        let unknown = |what: String| {
            Error::new(Kind::Schema, what).with_hint("use a rekindle that knows this partitioning")
        };
        if let Some(time) = resource.get("timePartitioning").filter(|value| !value.is_null()) {
            let name = time["type"].as_str().unwrap_or("DAY");
            let unit = Unit::of(name)
                .ok_or_else(|| unknown(format!("the table is partitioned by {name}")))?;
            let column = match time["field"].as_str() {
                None => None,
                Some(column) => {
                    let time_type = TimeType::of_column(resource, column).ok_or_else(|| {
                        unknown(format!("partition column {column} has an unknown type"))
                    })?;
                    Some((column.to_owned(), time_type))
                }
            };
            let expires_after_us = number(&time["expirationMs"]).map(|ms| ms.saturating_mul(1_000));
            return Ok(Self::Time { unit, column, expires_after_us });
        }
        let Some(range) = resource.get("rangePartitioning").filter(|value| !value.is_null()) else {
            return Ok(Self::None);
        };
        let bound = |name: &str| {
            number(&range["range"][name])
                .ok_or_else(|| unknown(format!("the range partitioning has no {name}")))
        };
        let column = range["field"].as_str().unwrap_or_default().to_owned();
        Ok(Self::Range {
            column,
            start: bound("start")?,
            end: bound("end")?,
            interval: bound("interval")?,
        })
    }

    /// Whether the time of a row's ingestion alone says where it belongs, so that rows move from [`UNPARTITIONED`] into
    /// another table partition when they leave the streaming buffer.
    pub fn is_by_ingestion(&self) -> bool {
        matches!(self, Self::Time { column: None, .. })
    }

    /// Returns when a table partition expires, microseconds since 1970.
    pub fn expires_us(&self, id: &str) -> Option<i64> {
        let Self::Time { unit, expires_after_us: Some(after), .. } = self else { return None };
        Some(micros(unit.bounds(id)?.1)?.saturating_add(*after))
    }

    /// Returns the condition that reads a table partition; `None` reads the whole table.
    pub fn filter(&self, id: &str) -> Result<Option<String>> {
        let refused = || {
            Error::new(Kind::Schema, format!("table partition {id} does not fit its partitioning"))
                .with_hint("rekindle plan")
        };
        Ok(Some(match self {
            Self::None => return Ok(None),
            Self::Time { unit, column, .. } => {
                let (name, time_type) = match column {
                    Some((name, time_type)) => (quoted(name), *time_type),
                    None => ("_PARTITIONTIME".to_owned(), TimeType::Timestamp),
                };
                if id == NULL || id == UNPARTITIONED {
                    return Ok(Some(format!("{name} IS NULL")));
                }
                let (from, to) = unit.bounds(id).ok_or_else(refused)?;
                let (from, to) = (time_type.literal(from), time_type.literal(to));
                format!("{name} >= {from} AND {name} < {to}")
            }
            Self::Range { column, start, end, interval } => {
                let name = quoted(column);
                match id {
                    NULL => format!("{name} IS NULL"),
                    UNPARTITIONED => format!("{name} < {start} OR {name} >= {end}"),
                    _ => {
                        let from: i64 = id.parse().map_err(|_| refused())?;
                        let to = from.saturating_add(*interval).min(*end);
                        format!("{name} >= {from} AND {name} < {to}")
                    }
                }
            }
        }))
    }
}

/// Quotes a column name.
pub fn quoted(name: &str) -> String {
    format!("`{name}`")
}

fn micros(time: DateTime) -> Option<i64> {
    let zoned: Zoned = time.to_zoned(TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_microsecond())
}

/// REST sends 64-bit numbers as strings.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn by_time(unit: &str, type_name: &str) -> Partitioning {
        Partitioning::of(&json!({
            "timePartitioning": {"type": unit, "field": "ts", "expirationMs": "1000"},
            "schema": {"fields": [{"name": "ts", "type": type_name}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_filter_is_half_open_and_typed() {
        let filter = |of: Partitioning, id: &str| of.filter(id).unwrap().unwrap();
        assert_eq!(
            filter(by_time("DAY", "TIMESTAMP"), "20261231"),
            "`ts` >= TIMESTAMP '2026-12-31 00:00:00+00:00' AND `ts` < TIMESTAMP '2027-01-01 00:00:00+00:00'"
        );
        assert_eq!(
            filter(by_time("HOUR", "DATETIME"), "2026110123"),
            "`ts` >= DATETIME '2026-11-01 23:00:00' AND `ts` < DATETIME '2026-11-02 00:00:00'"
        );
        assert_eq!(
            filter(by_time("MONTH", "DATE"), "202602"),
            "`ts` >= DATE '2026-02-01' AND `ts` < DATE '2026-03-01'"
        );
        assert_eq!(filter(by_time("YEAR", "DATE"), "__NULL__"), "`ts` IS NULL");
        assert!(by_time("DAY", "DATE").filter("202602").is_err());
    }

    #[test]
    fn ranges_have_a_place_for_what_is_outside() {
        let range = Partitioning::of(&json!({"rangePartitioning": {"field": "n",
            "range": {"start": "0", "end": "25", "interval": "10"}}}))
        .unwrap();
        assert_eq!(range.filter("20").unwrap().unwrap(), "`n` >= 20 AND `n` < 25");
        assert_eq!(range.filter(UNPARTITIONED).unwrap().unwrap(), "`n` < 0 OR `n` >= 25");
        assert_eq!(Partitioning::of(&json!({})).unwrap().filter("x").unwrap(), None);
    }

    #[test]
    fn a_table_partition_expires_after_its_end() {
        assert_eq!(by_time("DAY", "DATE").expires_us("19700101"), Some(86_401_000_000));
        assert_eq!(by_time("DAY", "DATE").expires_us(NULL), None);
    }
}
