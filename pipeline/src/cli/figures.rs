//! How figures are written for people: counts, bytes, clocks, rates.
//!
//! Invariant: a figure that is not known is called unknown, never 0.

use std::time::Duration;

/// Writes a count with a comma between thousands.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number of things, for example `1 row` or `2 rows`.
pub(crate) fn things(value: u64, one: &str) -> String {
    format!("{} {one}{}", count(value), if value == 1 { "" } else { "s" })
}

/// Writes bytes in the largest decimal unit that leaves at least 1.
pub(crate) fn bytes(value: u64) -> String {
    let (size, unit) =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")]
            .into_iter()
            .find(|(size, _)| value >= *size)
            .unwrap_or((1, "B"));
    if size == 1 {
        format!("{value} B")
    } else {
        format!("{:.1} {unit}", value as f64 / size as f64)
    }
}

/// Writes a duration as `hh:mm:ss`, rounded down; hours may pass 99.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Writes seconds as `hh:mm:ss`; what is no duration is unknown.
pub(crate) fn clock_of_seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "unknown".to_owned(), clock)
}

/// Writes the seconds a person would say: `0.25 s`, `42.1 s`, or a clock from a minute on.
pub(crate) fn seconds(value: f64) -> String {
    if value >= 60.0 {
        clock_of_seconds(value)
    } else if value >= 10.0 {
        format!("{value:.1} s")
    } else {
        format!("{value:.2} s")
    }
}

/// Writes a rate per second as a whole number.
pub(crate) fn per_second(value: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for display; casts saturate"
    )]
    let whole = value.max(0.0).round() as u64;
    count(whole)
}

/// Writes milliseconds since 1970 as RFC 3339 in UTC, whole seconds.
pub(crate) fn time(ms: i64) -> String {
    match jiff::Timestamp::from_second(ms.div_euclid(1000)) {
        Ok(time) => time.to_string(),
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (340_112, "340,112"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(count(value), text);
        }
        assert_eq!((things(1, "row"), things(0, "row")), ("1 row".to_owned(), "0 rows".to_owned()));
    }

    #[test]
    fn bytes_are_written_in_the_largest_unit() {
        for (value, text) in
            [(999, "999 B"), (1_500, "1.5 kB"), (31_200_000, "31.2 MB"), (2_000_000_000, "2.0 GB")]
        {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn durations_are_clocks() {
        assert_eq!(clock(Duration::from_hours(24)), "24:00:00");
        assert_eq!(clock(Duration::from_millis(72_999)), "00:01:12");
        assert_eq!(clock_of_seconds(f64::INFINITY), "unknown");
        assert_eq!(
            (seconds(0.25), seconds(42.12), seconds(61.0)),
            ("0.25 s".into(), "42.1 s".into(), "00:01:01".into())
        );
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(1_700_000_000_999), "2023-11-14T22:13:20Z");
    }
}
