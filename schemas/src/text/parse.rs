//! From canonical texts back to the values of BigQuery's types, with the equivalents that applications write.
//!
//! Invariant: what a writer of `text` writes for a value that BigQuery can hold is read back as the same bits, and
//! nothing is rounded or cut: a text that would lose something is an error. Errors follow the name of a column and
//! never show the text. `schemas/TYPES.md` lists what is accepted.

mod base64;
mod decimal;
mod interval;
mod number;
mod time;

pub(crate) use base64::base64;
pub(crate) use decimal::{decimal128, decimal256};
pub(crate) use interval::interval;
pub(crate) use number::{boolean, float8, int8};
pub(crate) use time::{date, datetime, days_from_civil, time, timestamp};

/// A value, or what follows the name of the column.
pub(crate) type Parsed<T> = Result<T, &'static str>;

/// Splits at the first `separator`.
fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Reads one to `max` digits as a number; nothing else may be there. `max` is at most 9.
fn digits(text: &[u8], max: usize) -> Option<u32> {
    if text.is_empty() || text.len() > max {
        return None;
    }
    let mut value = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u32::from(digit);
    }
    Some(value)
}

/// Reads digits behind a point as units of 10^-`places` (at most 9); further digits have to be zeros.
fn fraction(text: &[u8], places: usize) -> Option<u32> {
    let (kept, cut) = text.split_at(text.len().min(places));
    if cut.iter().any(|byte| *byte != b'0') {
        return None;
    }
    let missing = u32::try_from(places - kept.len()).ok()?;
    Some(digits(kept, places)? * 10_u32.pow(missing))
}

#[cfg(test)]
mod tests;
