//! Versions as digits of fixed length, which any server compares as text.
//!
//! Invariant: of one kind, digits have the order of the ranks; they are ASCII digits and nothing else, because Lua
//! compares text by the server's locale (`strcoll`), and every locale orders digits alike.

use super::{OLDEST, VersionKind};
use crate::text::{Civil, US_PER_DAY};
use std::io::Write;

/// Digits of a number: its sign and 19 digits, those of a negative one complemented to 9.
pub(super) const INTEGER_DIGITS: usize = 20;
/// Digits of a time: year and [`YEAR_ADDED`] in seven, then month, day, hour, minute, second and microsecond.
pub(super) const TIME_DIGITS: usize = 23;
/// Makes every year of PostgreSQL (4713 BC to 5874897) positive.
pub(super) const YEAR_ADDED: i64 = 5_000;
/// The last year that seven digits hold.
pub(super) const YEAR_MAX: i64 = 9_999_999 - YEAR_ADDED;

impl VersionKind {
    /// Appends the digits of a row's version (see [`VersionKind::rank`]).
    pub fn write_digits(self, version: i64, out: &mut Vec<u8>) {
        let length = if self == Self::Integer { INTEGER_DIGITS } else { TIME_DIGITS };
        match (self, version) {
            (_, OLDEST) => out.extend(std::iter::repeat_n(b'0', length)),
            (Self::Integer, _) => write_integer(version, out),
            (_, i64::MAX) => out.extend(std::iter::repeat_n(b'9', length)),
            (Self::Date, days) => write_time(days, 0, out),
            (Self::Timestamp | Self::TimestampTz, us) => {
                write_time(us.div_euclid(US_PER_DAY), us.rem_euclid(US_PER_DAY), out);
            }
        }
    }
}

fn write_integer(number: i64, out: &mut Vec<u8>) {
    let start = out.len() + 1;
    out.push(if number < 0 { b'0' } else { b'1' });
    print(out, format_args!("{:019}", number.unsigned_abs()));
    if number < 0 {
        out[start..].iter_mut().for_each(|digit| *digit = b'9' - (*digit - b'0'));
    }
}

fn write_time(days: i64, us: i64, out: &mut Vec<u8>) {
    let Civil { year, month, day } = Civil::from_days(days);
    let (seconds, us) = (us / 1_000_000, us % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let year = year + YEAR_ADDED;
    print(out, format_args!("{year:07}{month:02}{day:02}{hour:02}{minute:02}{second:02}{us:06}"));
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}
