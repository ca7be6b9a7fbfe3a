//! BigQuery's INTERVAL as text.
//!
//! Invariant: BigQuery's canonical form `[-]Y-M [-]D [-]H:M:S[.F]`; the fraction has three, six or nine digits.

use super::write_integer;
use arrow::datatypes::IntervalMonthDayNano;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Appends an interval; its three parts keep their own signs.
pub(super) fn write_interval(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    if value.months < 0 {
        out.push(b'-');
    }
    write_integer(value.months.unsigned_abs() / 12, out);
    out.push(b'-');
    write_integer(value.months.unsigned_abs() % 12, out);
    out.push(b' ');
    write_integer(value.days, out);
    out.push(b' ');
    if value.nanoseconds < 0 {
        out.push(b'-');
    }
    let nanos = value.nanoseconds.unsigned_abs();
    let seconds = nanos / NANOS_PER_SECOND;
    write_integer(seconds / 3600, out);
    out.push(b':');
    write_integer(seconds / 60 % 60, out);
    out.push(b':');
    write_integer(seconds % 60, out);
    let mut fraction = nanos % NANOS_PER_SECOND;
    if fraction == 0 {
        return;
    }
    let mut digits = [b'0'; 9];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (fraction % 10).to_le_bytes()[0];
        fraction /= 10;
    }
    let width = if digits[3..] == *b"000000" {
        3
    } else if digits[6..] == *b"000" {
        6
    } else {
        9
    };
    out.push(b'.');
    out.extend_from_slice(&digits[..width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_parts_keep_their_signs() {
        for ((months, days, nanoseconds), text) in [
            ((0, 0, 0), "0-0 0 0:0:0"),
            ((14, 3, 14_706_789_000_000), "1-2 3 4:5:6.789"),
            ((-14, -3, -14_706_000_001_000), "-1-2 -3 -4:5:6.000001"),
            ((-1, 0, 1), "-0-1 0 0:0:0.000000001"),
            ((120_000, 3_660_000, 316_224_000_000_000_000_i64), "10000-0 3660000 87840:0:0"),
            ((i32::MIN, i32::MIN, i64::MIN), "-178956970-8 -2147483648 -2562047:47:16.854775808"),
        ] {
            let mut out = Vec::new();
            write_interval(IntervalMonthDayNano { months, days, nanoseconds }, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
