//! The five fields of a crontab line: minute, hour, day of the month, month, day of the week.
//!
//! Invariant: what is accepted means here what it means to cron; whatever else cron may take (names, `@daily`, `L`, `#`,
//! seconds) is refused by name.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::ops::RangeInclusive;

/// How far ahead a day is looked for: beyond the longest pause between two 29th of February.
const DAYS_MAX: usize = 366 * 9;

/// When something is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether both kinds of day are restricted: then either one is enough.
    is_either_day: bool,
}

/// A field: what it is called and what it may hold.
struct Field {
    name: &'static str,
    range: RangeInclusive<u8>,
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", range: 0..=59 },
    Field { name: "hour", range: 0..=23 },
    Field { name: "day of the month", range: 1..=31 },
    Field { name: "month", range: 1..=12 },
    // Sunday is 0 and 7.
    Field { name: "day of the week", range: 0..=7 },
];

impl Cron {
    /// Parses five fields apart by white space, each a list of `*`, `N`, `N-M`, with `/STEP` behind `*` and `N-M`.
    ///
    /// The error is one lowercase sentence without final stop.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let words: [&str; 5] = words.try_into().map_err(|words: Vec<&str>| {
            format!(
                "must be the five fields minute, hour, day of the month, month, day of the week, such as \"0 3 * * *\"; \
                 this has {}",
                words.len()
            )
        })?;
        let mut bits = [0_u64; 5];
        for ((word, field), bits) in words.iter().zip(&FIELDS).zip(&mut bits) {
            *bits = field.parse(word)?;
        }
        let [minutes, hours, days, months, mut weekdays] = bits;
        if weekdays & (1 << 7) != 0 {
            weekdays = (weekdays | 1) & !(1 << 7);
        }
        // Cron looks at the first character only.
        let is_either_day = !words[2].starts_with('*') && !words[4].starts_with('*');
        let text = words.join(" ");
        let cron = Self { text, minutes, hours, days, months, weekdays, is_either_day };
        if cron.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_none() {
            return Err("names no day that there is, such as the 30th of February".to_owned());
        }
        Ok(cron)
    }

    /// The fields as they are written into a crontab.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn is_on(&self, date: Date) -> bool {
        let has = |bits: u64, value: i8| bits & (1 << value) != 0;
        let of_month = has(self.days, date.day());
        let of_week = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let is_day = if self.is_either_day { of_month || of_week } else { of_month && of_week };
        has(self.months, date.month()) && is_day
    }

    /// The times of a day, in order. A time that the clock jumps over is looked for an hour earlier, where cron makes it
    /// up; one that it passes twice is the first one.
    fn of_day(&self, date: Date, zone: &TimeZone) -> Vec<Timestamp> {
        let set = |bits: u64, range: &RangeInclusive<u8>| {
            range.clone().filter(move |value| bits & (1 << value) != 0)
        };
        let mut times = Vec::new();
        for hour in set(self.hours, &FIELDS[1].range) {
            for minute in set(self.minutes, &FIELDS[0].range) {
                let (Ok(hour), Ok(minute)) = (i8::try_from(hour), i8::try_from(minute)) else {
                    continue;
                };
                let civil = date.at(hour, minute, 0, 0);
                times.extend(zone.to_ambiguous_timestamp(civil).earlier());
            }
        }
        times.sort_unstable();
        times.dedup();
        times
    }

    /// Returns every time after `after` and up to `until`, in order.
    pub fn times(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Vec<Timestamp> {
        let mut times = Vec::new();
        let mut date = Some(after.to_zoned(zone.clone()).date());
        let last = until.to_zoned(zone.clone()).date();
        while let Some(day) = date.filter(|day| *day <= last) {
            if self.is_on(day) {
                let of_day = self.of_day(day, zone);
                times.extend(of_day.into_iter().filter(|time| *time > after && *time <= until));
            }
            date = day.tomorrow().ok();
        }
        times
    }

    /// Returns the first time after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = after.to_zoned(zone.clone()).date();
        for _ in 0..DAYS_MAX {
            if self.is_on(date)
                && let Some(time) = self.of_day(date, zone).into_iter().find(|time| *time > after)
            {
                return Some(time);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }
}

impl Field {
    /// Returns a bit for each value.
    fn parse(&self, word: &str) -> Result<u64, String> {
        let mut bits = 0;
        for part in word.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, self.number(step, word, 1..=59)?),
                None => (part, 1),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (*self.range.start(), *self.range.end()),
                Some((first, last)) => {
                    let of = |text| self.number(text, word, self.range.clone());
                    (of(first)?, of(last)?)
                }
                None if part.contains('/') => {
                    return Err(self.wrong(word, "a step goes behind * or a range"));
                }
                None => {
                    let value = self.number(range, word, self.range.clone())?;
                    (value, value)
                }
            };
            if first > last {
                return Err(self.wrong(word, "the range runs backwards"));
            }
            for value in (first..=last).step_by(usize::from(step)) {
                bits |= 1 << value;
            }
        }
        Ok(bits)
    }

    fn number(&self, text: &str, word: &str, range: RangeInclusive<u8>) -> Result<u8, String> {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse().ok().filter(|value| is_digits && range.contains(value));
        value.ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.wrong(word, &format!("{text:?} is no number from {least} to {most}"))
        })
    }

    fn wrong(&self, word: &str, why: &str) -> String {
        format!("field {} ({word:?}): {why}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn times(cron: &str, after: &str, until: &str) -> Vec<String> {
        let cron = Cron::parse(cron).unwrap();
        let found = cron.times(at(after), at(until), &TimeZone::UTC);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fields_mean_what_they_mean_to_cron() {
        assert_eq!(
            times("0 3 * * *", "2026-11-28T03:00:00Z", "2026-11-30T03:00:00Z"),
            ["2026-11-29T03:00:00Z", "2026-11-30T03:00:00Z"]
        );
        assert_eq!(
            times("5,10-20/10 */12 * * *", "2026-11-29T00:00:00Z", "2026-11-29T23:59:00Z"),
            [
                "2026-11-29T00:05:00Z",
                "2026-11-29T00:10:00Z",
                "2026-11-29T00:20:00Z",
                "2026-11-29T12:05:00Z",
                "2026-11-29T12:10:00Z",
                "2026-11-29T12:20:00Z",
            ]
        );
        // 2026-11-29 is a Sunday, which is 0 and 7.
        for sunday in ["0 0 * * 0", "0 0 * * 7", "0 0 * * 6-7"] {
            let found = times(sunday, "2026-11-28T12:00:00Z", "2026-11-30T12:00:00Z");
            assert_eq!(found, ["2026-11-29T00:00:00Z"], "{sunday}");
        }
        // Of two kinds of day either one is enough, unless one of them is *.
        assert_eq!(
            times("0 0 1 12 1", "2026-11-29T00:00:00Z", "2026-12-08T00:00:00Z"),
            ["2026-12-01T00:00:00Z", "2026-12-07T00:00:00Z"]
        );
        assert_eq!(times("0 0 1 * *", "2026-11-29T00:00:00Z", "2027-01-15T00:00:00Z").len(), 2);
    }

    #[test]
    fn the_next_time_is_found_however_far_it_is() {
        let next = |cron: &str, after: &str| {
            Cron::parse(cron).unwrap().next(at(after), &TimeZone::UTC).unwrap().to_string()
        };
        assert_eq!(next("0 3 * * *", "2026-11-29T03:00:00Z"), "2026-11-30T03:00:00Z");
        assert_eq!(next("0 3 * * *", "2026-11-29T02:59:59Z"), "2026-11-29T03:00:00Z");
        assert_eq!(next("0 0 29 2 *", "2096-03-01T00:00:00Z"), "2104-02-29T00:00:00Z");
    }

    #[test]
    fn a_clock_that_jumps_loses_no_time_and_doubles_none() {
        let offset = |hours| jiff::tz::Offset::from_hours(hours).unwrap();
        let zone = TimeZone::fixed(offset(2));
        let cron = Cron::parse("30 2 * * *").unwrap();
        let next = cron.next(at("2026-03-29T00:00:00Z"), &zone).unwrap();
        assert_eq!(next.to_string(), "2026-03-29T00:30:00Z");
        // POSIX rules need no database: summer time from the last Sunday of March to that of October.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let of = |from: &str, to: &str| {
            let found = cron.times(at(from), at(to), &zone);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"), ["2026-03-29T00:30:00Z"]);
        assert_eq!(of("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"), ["2026-10-25T00:30:00Z"]);
    }

    #[test]
    fn what_is_no_plain_schedule_is_refused_with_its_field() {
        for (bad, told) in [
            ("", "this has 0"),
            ("@daily", "this has 1"),
            ("0 3 * *", "this has 4"),
            ("0 0 3 * * *", "this has 6"),
            ("60 3 * * *", "field minute (\"60\"): \"60\" is no number from 0 to 59"),
            ("0 24 * * *", "field hour"),
            ("0 3 0 * *", "field day of the month"),
            ("0 3 * JAN *", "field month (\"JAN\"): \"JAN\" is no number from 1 to 12"),
            ("0 3 * * 8", "field day of the week"),
            ("0 3 L * *", "field day of the month"),
            ("0/5 3 * * *", "a step goes behind * or a range"),
            ("*/0 3 * * *", "\"0\" is no number from 1 to 59"),
            ("30-10 3 * * *", "the range runs backwards"),
            ("+1 3 * * *", "field minute"),
            ("1,,2 3 * * *", "field minute"),
            ("0 3 30 2 *", "names no day that there is"),
        ] {
            let error = Cron::parse(bad).unwrap_err();
            assert!(error.contains(told), "{bad}: {error}");
        }
        assert_eq!(Cron::parse(" 0  3 *\t* * ").unwrap().text(), "0 3 * * *");
    }
}
