//! Booleans, integers and floats.
//!
//! Invariant: a float is the nearest to the text, and neither overflows nor vanishes.

use super::Parsed;

const NO_BOOL: &str = "is no BOOL";
const NO_INT64: &str = "is no INT64";
const NO_FLOAT64: &str = "is no FLOAT64";

/// `true` and `false` in any case, `1` and `0`.
pub(crate) fn boolean(text: &[u8]) -> Parsed<bool> {
    match text {
        b"true" | b"1" => Ok(true),
        b"false" | b"0" => Ok(false),
        _ if text.eq_ignore_ascii_case(b"true") => Ok(true),
        _ if text.eq_ignore_ascii_case(b"false") => Ok(false),
        _ => Err(NO_BOOL),
    }
}

/// An optional sign and digits.
#[inline]
pub(crate) fn int8(text: &[u8]) -> Parsed<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(NO_INT64);
    }
    let mut value = 0_i64;
    // Eighteen digits cannot overflow.
    let (safe, rest) = digits.split_at(digits.len().min(18));
    for byte in safe {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(NO_INT64);
        }
        value = value * 10 + i64::from(digit);
    }
    if is_negative {
        value = -value;
    }
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(NO_INT64);
        }
        let digit = if is_negative { -i64::from(digit) } else { i64::from(digit) };
        value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(NO_INT64)?;
    }
    Ok(value)
}

/// A decimal number with or without exponent; `NaN`, `Infinity` and `inf` in any case.
#[inline]
pub(crate) fn float8(text: &[u8]) -> Parsed<f64> {
    let text = std::str::from_utf8(text).map_err(|_| NO_FLOAT64)?;
    let value: f64 = text.parse().map_err(|_| NO_FLOAT64)?;
    let is_number = text.bytes().any(|byte| byte.is_ascii_digit());
    if value.is_infinite() && is_number {
        return Err("is beyond FLOAT64");
    }
    if value == 0.0 && vanished(text) {
        return Err("is too small for FLOAT64");
    }
    // Every NaN is one value; a sign of it has no meaning.
    Ok(if value.is_nan() { f64::NAN } else { value })
}

/// Whether a digit before the exponent is not zero.
fn vanished(text: &str) -> bool {
    text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).any(|b| (b'1'..=b'9').contains(&b))
}
