//! Dates and times.
//!
//! Invariant: years 1 to 9999, as BigQuery has them; a day or an hour that does not exist is an error, never carried
//! over, and so is a fraction beyond microseconds.

use super::super::US_PER_DAY;
use super::{Parsed, digits, fraction};

const NO_DATE: &str = "is no DATE from year 1 to 9999 (YYYY-MM-DD)";
const NO_TIME: &str = "is no TIME of microseconds (HH:MM:SS[.ffffff])";
const NO_DATETIME: &str =
    "is no DATETIME of microseconds from year 1 to 9999 (YYYY-MM-DDTHH:MM:SS[.ffffff])";
const NO_TIMESTAMP: &str =
    "is no TIMESTAMP of microseconds in UTC from year 1 to 9999 (YYYY-MM-DDTHH:MM:SS[.ffffff]Z)";

/// Reads a date as days since 1970-01-01.
pub(crate) fn date(text: &[u8]) -> Parsed<i32> {
    let days = days(text).ok_or(NO_DATE)?;
    i32::try_from(days).map_err(|_| NO_DATE)
}

/// Reads a time of day as microseconds since midnight.
pub(crate) fn time(text: &[u8]) -> Parsed<i64> {
    clock(text).ok_or(NO_TIME)
}

/// Reads a DATETIME as microseconds since 1970-01-01.
pub(crate) fn datetime(text: &[u8]) -> Parsed<i64> {
    moment(text).ok_or(NO_DATETIME)
}

/// Reads a TIMESTAMP as microseconds since 1970-01-01 UTC. It has to say that it is UTC.
pub(crate) fn timestamp(text: &[u8]) -> Parsed<i64> {
    let local = text
        .strip_suffix(b"Z")
        .or_else(|| text.strip_suffix(b"z"))
        .or_else(|| text.strip_suffix(b"+00:00"))
        .or_else(|| text.strip_suffix(b"+00"))
        .or_else(|| text.strip_suffix(b" UTC"));
    local.and_then(moment).ok_or(NO_TIMESTAMP)
}

fn moment(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (separator, time) = rest.split_first()?;
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    Some(days(date)? * US_PER_DAY + clock(time)?)
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
fn days(text: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = digits(&[*y1, *y2, *y3, *y4], 4)?;
    let month = digits(&[*m1, *m2], 2)?;
    let day = digits(&[*d1, *d2], 2)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(is_leap),
        _ => return None,
    };
    if year == 0 || day == 0 || day > last {
        return None;
    }
    Some(days_from_civil(year.into(), month.into(), day.into()))
}

/// `days_from_civil` of Howard Hinnant, <https://howardhinnant.github.io/date_algorithms.html>; the reverse of
/// `Civil::from_days`.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Microseconds since midnight of `HH:MM:SS[.ffffff]`.
fn clock(text: &[u8]) -> Option<i64> {
    let (clock, behind) = text.split_at_checked(8)?;
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let hours = digits(&[*h1, *h2], 2).filter(|hours| *hours < 24)?;
    let minutes = digits(&[*m1, *m2], 2).filter(|minutes| *minutes < 60)?;
    let seconds = digits(&[*s1, *s2], 2).filter(|seconds| *seconds < 60)?;
    let us = match behind {
        [] => 0,
        [b'.', behind @ ..] => fraction(behind, 6)?,
        _ => return None,
    };
    Some(i64::from((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + i64::from(us))
}
