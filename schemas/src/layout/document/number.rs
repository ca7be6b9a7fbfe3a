//! Numbers of documents: which ones the module holds, and the form they are sent in.
//!
//! Invariant: a number that is written is parsed by one exactly rounded step or none at all, and is the shortest text of
//! what it became. The module's own parser is off by one in the last place of every fifth number of 17 digits.

use super::both;
use std::iter::repeat_n;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Decimals of so many digits come back from a double as they went in (`DBL_DIG` of C).
const DIGITS_MAX: usize = 15;
/// Powers of ten up to this one are doubles; a number of 15 digits is one division or multiplication by it away.
const EXPONENT_MAX: i64 = 22;
/// Digits of the largest whole number of 64 bits.
const WHOLE_DIGITS_MAX: i64 = 20;

/// A decimal number: digits times a power of ten.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decimal<'d> {
    is_negative: bool,
    /// Without zeros at either end; none of zero.
    digits: &'d [u8],
    exponent: i64,
}

impl<'d> Decimal<'d> {
    /// Takes a JSON number apart; `None` where its exponent is beyond all measure.
    pub(super) fn read(text: &[u8], digits: &'d mut Vec<u8>) -> Option<Self> {
        let (is_negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
        let exponent: i64 = match text.get(end + 1..) {
            Some(exponent) => std::str::from_utf8(exponent).ok()?.parse().ok()?,
            None => 0,
        };
        let mantissa = &text[..end];
        let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(end);
        let behind = mantissa.get(point + 1..).unwrap_or_default();
        digits.clear();
        digits.extend_from_slice(&mantissa[..point]);
        digits.extend_from_slice(behind);
        let kept = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        let dropped = i64::try_from(digits.len() - kept).ok()?;
        let behind = i64::try_from(behind.len()).ok()?;
        let exponent = exponent.checked_sub(behind)?.checked_add(dropped)?;
        let first = digits[..kept].iter().position(|digit| *digit != b'0').unwrap_or(kept);
        let digits = &digits[first..kept];
        let exponent = if digits.is_empty() { 0 } else { exponent };
        Some(Self { is_negative, digits, exponent })
    }

    pub(super) fn hash(&self, seed: u64) -> u64 {
        let digits = xxh3_64_with_seed(self.digits, seed + u64::from(self.is_negative));
        both(digits, self.exponent.cast_unsigned(), seed)
    }

    /// Appends it where the module holds it. Zero keeps its sign.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Option<()> {
        if self.is_negative {
            out.push(b'-');
        }
        if self.digits.is_empty() {
            out.extend_from_slice(if self.is_negative { b"0.0" } else { b"0" });
            return Some(());
        }
        if let Some(whole) = self.whole() {
            out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
            return Some(());
        }
        let is_held = self.digits.len() <= DIGITS_MAX
            && (-EXPONENT_MAX..=EXPONENT_MAX).contains(&self.exponent);
        if !is_held {
            return None;
        }
        if self.exponent >= 0 {
            out.extend_from_slice(self.digits);
            out.push(b'e');
            out.extend_from_slice(itoa::Buffer::new().format(self.exponent).as_bytes());
            return Some(());
        }
        let behind = usize::try_from(-self.exponent).ok()?;
        let before = self.digits.len().saturating_sub(behind);
        if before == 0 {
            out.push(b'0');
        }
        out.extend_from_slice(&self.digits[..before]);
        out.push(b'.');
        out.extend(repeat_n(b'0', behind.saturating_sub(self.digits.len())));
        out.extend_from_slice(&self.digits[before..]);
        Some(())
    }

    /// The magnitude of a whole number that the module keeps as an integer: from -2^63 to 2^64 - 1.
    fn whole(&self) -> Option<u64> {
        let length = i64::try_from(self.digits.len()).ok()?.checked_add(self.exponent)?;
        if self.exponent < 0 || length > WHOLE_DIGITS_MAX {
            return None;
        }
        let zeros = repeat_n(b'0', usize::try_from(self.exponent).ok()?);
        let magnitude =
            self.digits.iter().copied().chain(zeros).try_fold(0_u64, |sum, digit| {
                sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
            })?;
        let limit = if self.is_negative { i64::MIN.unsigned_abs() } else { u64::MAX };
        (magnitude <= limit).then_some(magnitude)
    }
}
