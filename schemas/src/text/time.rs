//! Dates and times as text.
//!
//! Invariant: fixed-width ISO 8601 fields; a fraction is absent when zero and else has six digits; years
//! before 1 AD end in ` BC` as in PostgreSQL; the carried sentinels print as `infinity` and `-infinity`.

use super::{TWO_DIGITS, write_integer};

const US_PER_SECOND: i64 = 1_000_000;
pub(crate) const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

/// A day of the proleptic Gregorian calendar; year 0 is 1 BC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// Astronomical year.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

impl Civil {
    /// Returns the day that is `days` after 1970-01-01.
    ///
    /// The algorithm is `civil_from_days` of Howard Hinnant,
    /// <https://howardhinnant.github.io/date_algorithms.html>: eras of 400 years that begin in March.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the algorithm bounds month and day"
    )]
    pub fn from_days(days: i64) -> Self {
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month: month as u8, day: day as u8 }
    }

    /// Returns the day of the year, 1 to 366.
    pub fn day_of_year(self) -> u16 {
        const BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let is_leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        BEFORE[usize::from(self.month - 1)]
            + u16::from(self.day)
            + u16::from(is_leap && self.month > 2)
    }

    /// Appends `YYYY-MM-DD` without an era; the year is the one of the era, with at least four digits.
    fn write(self, out: &mut Vec<u8>) {
        let year = if self.year > 0 { self.year } else { 1 - self.year };
        let mut text = *b"0000-00-00";
        if year < 10_000 {
            put_two(&mut text, 0, year / 100);
            put_two(&mut text, 2, year % 100);
        }
        put_two(&mut text, 5, self.month.into());
        put_two(&mut text, 8, self.day.into());
        if year < 10_000 {
            out.extend_from_slice(&text);
        } else {
            write_integer(year, out);
            out.extend_from_slice(&text[4..]);
        }
    }

    fn write_era(self, out: &mut Vec<u8>) {
        if self.year <= 0 {
            out.extend_from_slice(b" BC");
        }
    }
}

/// Puts a number from 0 to 99 as two digits.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 99")]
pub(crate) fn put_two(text: &mut [u8], at: usize, value: i64) {
    let digits = value as usize * 2;
    text[at..at + 2].copy_from_slice(&TWO_DIGITS[digits..digits + 2]);
}

/// Appends a date given in days since 1970-01-01; `i32::MAX` and `i32::MIN` are the infinities.
pub fn write_date(days: i32, out: &mut Vec<u8>) {
    match days {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            let civil = Civil::from_days(days.into());
            civil.write(out);
            civil.write_era(out);
        }
    }
}

/// Appends `HH:MM:SS[.ffffff]` for microseconds since midnight (0 to 24:00:00 inclusive).
pub fn write_time(us: i64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (us / US_PER_SECOND, us % US_PER_SECOND);
    let mut text = *b"00:00:00.000000";
    put_two(&mut text, 0, seconds / 3600);
    put_two(&mut text, 3, seconds / 60 % 60);
    put_two(&mut text, 6, seconds % 60);
    if fraction == 0 {
        out.extend_from_slice(&text[..8]);
        return;
    }
    put_two(&mut text, 9, fraction / 10_000);
    put_two(&mut text, 11, fraction / 100 % 100);
    put_two(&mut text, 13, fraction % 100);
    out.extend_from_slice(&text);
}

/// Appends `YYYY-MM-DDTHH:MM:SS[.ffffff]`, with `Z` when `is_utc`, for microseconds since 1970-01-01;
/// `i64::MAX` and `i64::MIN` are the infinities.
pub fn write_timestamp(us: i64, is_utc: bool, out: &mut Vec<u8>) {
    match us {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            let civil = Civil::from_days(us.div_euclid(US_PER_DAY));
            civil.write(out);
            out.push(b'T');
            write_time(us.rem_euclid(US_PER_DAY), out);
            if is_utc {
                out.push(b'Z');
            }
            civil.write_era(out);
        }
    }
}
