//! BigQuery's NUMERIC and BIGNUMERIC as text.
//!
//! Invariant: plain digits, no trailing zero behind the point, no point without digits behind it, no `-0`.

use arrow::datatypes::i256;

const SCALE_128: usize = 9;
const SCALE_256: usize = 38;
/// The largest power of ten below 2^64, so that a remainder of it fits a limb.
const CHUNK: u128 = 10_000_000_000_000_000_000;
const CHUNK_DIGITS: usize = 19;
/// Digits of 2^256 and room for leading zeros.
const DIGITS_MAX: usize = 5 * CHUNK_DIGITS;

/// Appends a NUMERIC: the value is counted in 10^-9.
#[inline]
pub(crate) fn write_decimal128(value: i128, out: &mut Vec<u8>) {
    let magnitude = value.unsigned_abs();
    write(value < 0, [low(magnitude), low(magnitude >> 64), 0, 0], SCALE_128, out);
}

/// Appends a BIGNUMERIC: the value is counted in 10^-38.
pub(crate) fn write_decimal256(value: i256, out: &mut Vec<u8>) {
    let is_negative = value < i256::ZERO;
    // The smallest value wraps to itself, whose bits are those of its magnitude.
    let (least, most) =
        if is_negative { value.wrapping_neg().to_parts() } else { value.to_parts() };
    let most = most.cast_unsigned();
    write(is_negative, [low(least), low(least >> 64), low(most), low(most >> 64)], SCALE_256, out);
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn low(bits: u128) -> u64 {
    bits as u64
}

/// Appends a magnitude given in limbs, least significant first.
fn write(is_negative: bool, mut limbs: [u64; 4], scale: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; DIGITS_MAX];
    let mut first = DIGITS_MAX;
    while limbs.iter().any(|limb| *limb != 0) {
        let mut rest = 0_u128;
        for limb in limbs.iter_mut().rev() {
            let dividend = rest << 64 | u128::from(*limb);
            *limb = low(dividend / CHUNK);
            rest = dividend % CHUNK;
        }
        let start = first - CHUNK_DIGITS;
        let mut rest = low(rest);
        for digit in digits[start..first].iter_mut().rev() {
            *digit = b'0' + (rest % 10).to_le_bytes()[0];
            rest /= 10;
        }
        first = start;
    }
    let point = DIGITS_MAX - scale;
    let whole =
        &digits[digits.iter().position(|digit| *digit != b'0').unwrap_or(point).min(point)..point];
    let fraction = &digits[point..];
    let fraction =
        &fraction[..fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |at| at + 1)];
    if is_negative {
        out.push(b'-');
    }
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(value: i128) -> String {
        let mut out = Vec::new();
        write_decimal128(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn bignumeric(value: i256) -> String {
        let mut out = Vec::new();
        write_decimal256(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numerics_have_no_zeros_to_spare() {
        for (value, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (-1, "-0.000000001"),
            (1_100_000_000, "1.1"),
            (-12_000_000_000, "-12"),
            (100_000_000_000_000_000_000_000_000_000, "100000000000000000000"),
            (
                99_999_999_999_999_999_999_999_999_999_999_999_999,
                "99999999999999999999999999999.999999999",
            ),
            (
                -99_999_999_999_999_999_999_999_999_999_999_999_999,
                "-99999999999999999999999999999.999999999",
            ),
        ] {
            assert_eq!(numeric(value), text);
        }
    }

    #[test]
    fn bignumerics_reach_their_limits() {
        let smallest =
            "-578960446186580977117854925043439539266.34992332820282019728792003956564819968";
        let largest =
            "578960446186580977117854925043439539266.34992332820282019728792003956564819967";
        assert_eq!(bignumeric(i256::MIN), smallest);
        assert_eq!(bignumeric(i256::MAX), largest);
        assert_eq!(bignumeric(i256::ZERO), "0");
        assert_eq!(bignumeric(i256::ONE), "0.00000000000000000000000000000000000001");
        let half = i256::from_string("-50000000000000000000000000000000000000").unwrap();
        assert_eq!(bignumeric(half), "-0.5");
        let ten = i256::from_string("1000000000000000000000000000000000000000").unwrap();
        assert_eq!(bignumeric(ten), "10");
    }
}
