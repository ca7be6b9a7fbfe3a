//! NUMERIC and BIGNUMERIC.
//!
//! Invariant: digits are counted, never rounded; no float is involved.

use super::Parsed;
use arrow::datatypes::i256;

/// Digits of the widest magnitude and a few to spare.
const DIGITS_MAX: usize = 80;
/// Nobody writes an exponent beyond this except with zeros; the bound keeps the sums below from overflowing.
const EXPONENT_MAX: u64 = 1_000;
/// 38 digits, 9 of them behind the point.
const NUMERIC_LIMIT: i128 = 10_i128.pow(38);

const NUMERIC: Messages = Messages {
    syntax: "is no NUMERIC",
    lossy: "has more than 9 digits behind the point, which NUMERIC cannot hold",
    range: "is beyond NUMERIC",
};
const BIGNUMERIC: Messages = Messages {
    syntax: "is no BIGNUMERIC",
    lossy: "has more than 38 digits behind the point, which BIGNUMERIC cannot hold",
    range: "is beyond BIGNUMERIC",
};

struct Messages {
    syntax: &'static str,
    lossy: &'static str,
    range: &'static str,
}

/// Reads a NUMERIC in units of 10^-9.
#[inline]
pub(crate) fn decimal128(text: &[u8]) -> Parsed<i128> {
    let mut buffer = [0; DIGITS_MAX];
    let (is_negative, digits) = scaled(text, 9, &NUMERIC, &mut buffer)?;
    if digits.len() > 38 {
        return Err(NUMERIC.range);
    }
    let magnitude = digits.iter().fold(0_i128, |value, digit| value * 10 + i128::from(*digit));
    debug_assert!(magnitude < NUMERIC_LIMIT, "38 digits");
    Ok(if is_negative { -magnitude } else { magnitude })
}

/// Reads a BIGNUMERIC in units of 10^-38.
pub(crate) fn decimal256(text: &[u8]) -> Parsed<i256> {
    let mut buffer = [0; DIGITS_MAX];
    let (is_negative, digits) = scaled(text, 38, &BIGNUMERIC, &mut buffer)?;
    let mut value = i256::ZERO;
    let ten = i256::from_i128(10);
    for digit in digits {
        // The smallest value has no positive counterpart, so negative numbers are built downwards.
        let digit =
            i256::from_i128(if is_negative { -i128::from(*digit) } else { i128::from(*digit) });
        value = value
            .checked_mul(ten)
            .and_then(|value| value.checked_add(digit))
            .ok_or(BIGNUMERIC.range)?;
    }
    Ok(value)
}

/// Reads `[sign]digits[.digits][e[sign]digits]` as a whole number of units of 10^-`scale`, most significant digit
/// first and without leading zeros.
fn scaled<'b>(
    text: &[u8],
    scale: usize,
    messages: &Messages,
    buffer: &'b mut [u8; DIGITS_MAX],
) -> Parsed<(bool, &'b [u8])> {
    let (is_negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mantissa_end =
        unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(unsigned.len());
    let exponent = match unsigned.get(mantissa_end + 1..) {
        Some(exponent) => super::int8(exponent).map_err(|_| messages.syntax)?,
        None => 0,
    };
    let mantissa = &unsigned[..mantissa_end];
    let point = mantissa.iter().position(|byte| *byte == b'.');
    let digits_count = mantissa.len() - usize::from(point.is_some());
    // A second point would be counted among the digits.
    let (whole, behind) = mantissa.split_at(point.unwrap_or(mantissa.len()));
    let behind = behind.get(1..).unwrap_or_default();
    let is_digits = whole.iter().chain(behind).all(u8::is_ascii_digit);
    if digits_count == 0 || !is_digits {
        return Err(messages.syntax);
    }
    let digits = || whole.iter().chain(behind).map(|byte| byte - b'0');
    let trailing = digits().rev().take_while(|digit| *digit == 0).count();
    if trailing == digits_count {
        return Ok((false, &[]));
    }
    if exponent.unsigned_abs() > EXPONENT_MAX {
        return Err(if exponent < 0 { messages.lossy } else { messages.range });
    }
    // What is left of the digits is counted in 10^-(behind - trailing - exponent).
    let places = i64::try_from(behind.len()).unwrap_or(i64::MAX)
        - i64::try_from(trailing).unwrap_or(i64::MAX)
        - exponent;
    let zeros = i64::try_from(scale).unwrap_or(0) - places;
    if zeros < 0 {
        return Err(messages.lossy);
    }
    let zeros = usize::try_from(zeros).unwrap_or(usize::MAX);
    let mut length = 0;
    for digit in digits().take(digits_count - trailing).skip_while(|digit| *digit == 0) {
        *buffer.get_mut(length).ok_or(messages.range)? = digit;
        length += 1;
    }
    let total =
        length.checked_add(zeros).filter(|total| *total <= DIGITS_MAX).ok_or(messages.range)?;
    buffer[length..total].fill(0);
    Ok((is_negative, &buffer[..total]))
}
