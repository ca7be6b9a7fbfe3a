//! The version of what is stored under a key.
//!
//! Invariant: the rules are those of the script that compares on the server, form by form; a test asks both.

use super::digits::YEAR_MAX;
use super::{Rank, VersionKind};
use crate::bind::BoundRoute;
use crate::layout::json_member;
use crate::text::US_PER_DAY;
use crate::text::parse::days_from_civil;

/// What a stored value says of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Nothing: no such field or member, or an empty one, or a value of another type. It is older than any row.
    Nothing,
    /// Something that is no version of the column's type: it may be newer, so it is left alone.
    Unreadable,
    /// A version.
    At(Rank),
}

impl Stored {
    /// Reads the version field of a hash.
    pub fn in_hash<'a>(
        bound: &BoundRoute,
        pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let Some(version) = bound.version else { return Self::Nothing };
        let name = bound.fields[version.field].name.as_bytes();
        let found = pairs.into_iter().find(|(field, _)| *field == name);
        found.map_or(Self::Nothing, |(_, text)| Self::of(version.kind, text))
    }

    /// Reads the version member of a JSON object.
    pub fn in_json(bound: &BoundRoute, text: &[u8]) -> Self {
        let Some(version) = bound.version else { return Self::Nothing };
        match json_member(text, &bound.fields[version.field].name) {
            None | Some("null") => Self::Nothing,
            Some(raw) if raw.starts_with('"') => match serde_json::from_str::<String>(raw) {
                Ok(text) => Self::of(version.kind, text.as_bytes()),
                Err(_) => Self::Unreadable,
            },
            Some(raw) => Self::of(version.kind, raw.as_bytes()),
        }
    }

    /// Reads a text.
    pub fn of(kind: VersionKind, text: &[u8]) -> Self {
        if text.is_empty() {
            return Self::Nothing;
        }
        let rank = match kind {
            VersionKind::Integer => integer(text).map(|number| kind.rank_of(number.into())),
            _ => time(kind, text),
        };
        rank.map_or(Self::Unreadable, Self::At)
    }
}

impl VersionKind {
    fn rank_of(self, value: i128) -> Rank {
        debug_assert!(value != i128::MIN && value != i128::MAX, "kept for both ends of {self:?}");
        Rank(value)
    }
}

/// An optional sign and decimal digits, within 64 bits.
fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"+").or_else(|| text.strip_prefix(b"-")).unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A date, or a date and a time of day, in every form that is documented as read; and those of our own that
/// `BigQuery` has not: years beyond 9999, ` BC`, and the infinities.
fn time(kind: VersionKind, text: &[u8]) -> Option<Rank> {
    match text {
        b"infinity" => return Some(Rank::LAST),
        b"-infinity" => return Some(Rank::OLDEST),
        _ => {}
    }
    let (text, is_bc) = match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let year_length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(4..=7).contains(&year_length) {
        return None;
    }
    let (year, rest) = text.split_at(year_length);
    let [b'-', m1, m2, b'-', d1, d2, rest @ ..] = rest else { return None };
    let year = number(year)?;
    let year = if is_bc { 1 - year } else { year };
    let (month, day) = (number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let is_year =
        (year != 0 || is_bc) && (1 - super::digits::YEAR_ADDED..=YEAR_MAX).contains(&year);
    if !is_year || !(1..=12).contains(&month) || day < 1 || day > last_day(year, month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    if kind == VersionKind::Date {
        return rest.is_empty().then(|| kind.rank_of(days.into()));
    }
    let rest = match kind {
        VersionKind::TimestampTz => without_zone(rest)?,
        _ => rest,
    };
    let us = clock(rest)?;
    Some(kind.rank_of(i128::from(days) * i128::from(US_PER_DAY) + i128::from(us)))
}

fn last_day(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)),
        _ => 31,
    }
}

fn without_zone(text: &[u8]) -> Option<&[u8]> {
    let zones: [&[u8]; 5] = [b"Z", b"z", b"+00:00", b"+00", b" UTC"];
    zones.iter().find_map(|zone| text.strip_suffix(*zone))
}

/// Microseconds since midnight of `THH:MM:SS[.f…]`, where a space or `t` may stand for `T`.
fn clock(text: &[u8]) -> Option<i64> {
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else {
        return None;
    };
    let hours = number(&[*h1, *h2]).filter(|hours| *hours < 24)?;
    let minutes = number(&[*m1, *m2]).filter(|minutes| *minutes < 60)?;
    let seconds = number(&[*s1, *s2]).filter(|seconds| *seconds < 60)?;
    let us = match rest {
        [] => 0,
        [b'.', fraction @ ..] if !fraction.is_empty() => {
            if !fraction.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let (six, behind) = fraction.split_at(fraction.len().min(6));
            if behind.iter().any(|digit| *digit != b'0') {
                return None;
            }
            let missing = u32::try_from(6 - six.len()).ok()?;
            number(six)? * 10_i64.pow(missing)
        }
        _ => return None,
    };
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + us)
}

/// A number of up to seven digits.
fn number(text: &[u8]) -> Option<i64> {
    text.iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}
