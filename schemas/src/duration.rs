//! Durations of the plan file and the command line: `<int>(s|m|h|d)`.
//!
//! Invariant: `parse(format(d)) == d` for every whole number of seconds up to the bound, and no message repeats its input.

use std::time::Duration;

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The longest duration that is accepted: ten years.
pub const LONGEST: Duration = Duration::from_secs(3650 * DAY);

const TOO_LONG: &str = "must be at most 3650d";

/// Parses `<int>(s|m|h|d)`, more than zero and at most [`LONGEST`].
///
/// The error is one lowercase sentence without final stop that does not repeat the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let shape =
        || "must be a whole number and a unit (s, m, h or d), for example \"24h\"".to_owned();
    let (digits, seconds_per_unit) = [('s', SECOND), ('m', MINUTE), ('h', HOUR), ('d', DAY)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or_else(shape)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(shape());
    }
    // Only digits are left, so the one way to fail is a number past u64, which is past the bound too.
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(seconds_per_unit));
    match seconds.map(Duration::from_secs) {
        Some(Duration::ZERO) => Err("must be more than zero".to_owned()),
        Some(duration) => bounded(duration),
        None => Err(TOO_LONG.to_owned()),
    }
}

/// Refuses what is longer than [`LONGEST`]: added to the time of day, it would be no time of day any more.
pub fn bounded(duration: Duration) -> Result<Duration, String> {
    if duration <= LONGEST { Ok(duration) } else { Err(TOO_LONG.to_owned()) }
}

/// Renders a duration in the largest unit that divides it; parts of a second are shown as a decimal.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_millis() > 0 {
        return format!("{seconds}.{:03}s", duration.subsec_millis());
    }
    let (size, unit) = [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')]
        .into_iter()
        .find(|(size, _)| seconds > 0 && seconds.is_multiple_of(*size))
        .unwrap_or((SECOND, 's'));
    format!("{}{unit}", seconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_of_a_plan_parses() {
        for (text, seconds) in [("1s", 1), ("90m", 5400), ("24h", 86_400), ("3650d", 315_360_000)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_of_a_plan_is_refused() {
        for text in ["", "h", "24", "24 h", " 24h", "-1h", "+1h", "1.5h", "1w", "1H", "٣h", "1h30m"]
        {
            assert!(parse(text).unwrap_err().starts_with("must be a whole number"), "{text}");
        }
        assert_eq!(parse("0s").unwrap_err(), "must be more than zero");
        for text in ["3651d", "315360001s", "18446744073709551615d", "99999999999999999999999s"] {
            assert_eq!(parse(text).unwrap_err(), "must be at most 3650d", "{text}");
        }
    }

    #[test]
    fn the_largest_exact_unit_is_printed() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (5400, "90m"), (7200, "2h"), (172_800, "2d")]
        {
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
        assert_eq!(format(Duration::from_millis(1250)), "1.250s");
    }

    proptest! {
        #[test]
        fn format_then_parse_is_the_identity(seconds in 1_u64..=315_360_000) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
