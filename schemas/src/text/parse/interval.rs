//! INTERVAL.
//!
//! Invariant: the three parts keep their signs and stay within BigQuery's limits.

use super::{Parsed, digits, fraction, split_once};
use arrow::datatypes::IntervalMonthDayNano;

const NO_INTERVAL: &str = "is no INTERVAL (years-months days hours:minutes:seconds)";
const MONTHS_MAX: i32 = 120_000;
const DAYS_MAX: i32 = 3_660_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
const NANOS_MAX: i64 = 87_840 * 3_600 * NANOS_PER_SECOND;

/// Reads `[-]Y-M [-]D [-]H:M:S[.F]`.
pub(crate) fn interval(text: &[u8]) -> Parsed<IntervalMonthDayNano> {
    let value = parts(text).ok_or(NO_INTERVAL)?;
    let is_within = value.months.abs() <= MONTHS_MAX
        && value.days.abs() <= DAYS_MAX
        && value.nanoseconds.abs() <= NANOS_MAX;
    if is_within { Ok(value) } else { Err("is beyond INTERVAL") }
}

fn parts(text: &[u8]) -> Option<IntervalMonthDayNano> {
    let (year_month, rest) = split_once(text, b' ')?;
    let (days, clock) = split_once(rest, b' ')?;
    let (is_before, year_month) = signed(year_month);
    let (years, months) = split_once(year_month, b'-')?;
    let months = digits(years, 5)? * 12 + digits(months, 2).filter(|months| *months < 12)?;
    let (is_past, days) = signed(days);
    let days = digits(days, 7)?;
    let (is_back, clock) = signed(clock);
    let (hours, clock) = split_once(clock, b':')?;
    let (minutes, seconds) = split_once(clock, b':')?;
    let (seconds, nanos) = match split_once(seconds, b'.') {
        Some((seconds, behind)) => (seconds, fraction(behind, 9)?),
        None => (seconds, 0),
    };
    let below_60 = |text| digits(text, 2).filter(|value| *value < 60).map(i64::from);
    let seconds =
        (i64::from(digits(hours, 5)?) * 60 + below_60(minutes)?) * 60 + below_60(seconds)?;
    let nanoseconds = seconds * NANOS_PER_SECOND + i64::from(nanos);
    let number = |is_negative: bool, value: u32| {
        let value = i32::try_from(value).ok()?;
        Some(if is_negative { -value } else { value })
    };
    Some(IntervalMonthDayNano {
        months: number(is_before, months)?,
        days: number(is_past, days)?,
        nanoseconds: if is_back { -nanoseconds } else { nanoseconds },
    })
}

fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    }
}
