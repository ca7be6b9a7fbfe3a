//! Filters of key placeholders: what is done to a column's canonical text on its way into a key.
//!
//! Invariant: `undo(apply(text)) == text` for a filter that is not lossy.

use crate::text::{Civil, write_timestamp};

/// What a placeholder does to the canonical text of its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Nothing.
    None,
    /// Unicode lowercase; lossy.
    Lower,
    /// The date or time in a format of its own, in UTC; lossy.
    Date(DateFormat),
    /// Percent-encoding of everything but RFC 3986 unreserved characters.
    UrlEncode,
}

/// Names of the filters, for messages.
pub(super) const FILTER_NAMES: [&str; 3] = ["lower", "date", "urlencode"];

impl Filter {
    /// Returns whether the column cannot be read back from the key.
    pub fn is_lossy(&self) -> bool {
        matches!(self, Self::Lower | Self::Date(_))
    }

    /// Filters `out[start..]`, the canonical text of a value; `time_us` is the value in microseconds since 1970-01-01
    /// UTC where it is a date or timestamp. Returns whether the value can be in a key; `out` is unspecified otherwise.
    #[inline]
    pub(crate) fn apply(&self, start: usize, time_us: Option<i64>, out: &mut Vec<u8>) -> bool {
        match self {
            Self::None => {}
            Self::Lower => lower_tail(start, out),
            Self::UrlEncode => url_encode_tail(start, out),
            Self::Date(format) => {
                out.truncate(start);
                return time_us.is_some_and(|us| format.write(us, out));
            }
        }
        true
    }

    /// Turns a rendered text back into the column's canonical text as far as that is possible.
    pub(crate) fn undo(&self, rendered: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::UrlEncode => url_decode(rendered),
            Self::None | Self::Lower | Self::Date(_) => Some(rendered.to_vec()),
        }
    }
}

/// A parsed strftime format of the directives `%Y %m %d %H %M %S %j %%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateFormat {
    parts: Vec<DatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DatePart {
    Literal(u8),
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    DayOfYear,
}

impl DateFormat {
    /// Parses a format; the error is one lowercase phrase.
    pub(super) fn parse(format: &str) -> Result<Self, String> {
        let mut parts = Vec::with_capacity(format.len());
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                parts.extend(c.encode_utf8(&mut [0; 4]).bytes().map(DatePart::Literal));
                continue;
            }
            parts.push(match chars.next() {
                Some('Y') => DatePart::Year,
                Some('m') => DatePart::Month,
                Some('d') => DatePart::Day,
                Some('H') => DatePart::Hour,
                Some('M') => DatePart::Minute,
                Some('S') => DatePart::Second,
                Some('j') => DatePart::DayOfYear,
                Some('%') => DatePart::Literal(b'%'),
                Some(other) => {
                    return Err(format!(
                        "unknown date directive %{other}; known are %Y %m %d %H %M %S %j and %%"
                    ));
                }
                None => return Err("a date format ends in a single %".into()),
            });
        }
        if parts.iter().all(|part| matches!(part, DatePart::Literal(_))) {
            return Err("a date format has no directive such as %Y%m%d".into());
        }
        Ok(Self { parts })
    }

    /// Appends a time given in microseconds since 1970-01-01 UTC; returns whether its year has four digits
    /// (nothing is appended otherwise, and for the infinities).
    fn write(&self, us: i64, out: &mut Vec<u8>) -> bool {
        let civil = Civil::from_days(us.div_euclid(crate::text::US_PER_DAY));
        if !(1..=9999).contains(&civil.year) {
            return false;
        }
        // The canonical form `YYYY-MM-DDTHH:MM:SS` has every two-digit field at a fixed place.
        let start = out.len();
        write_timestamp(us, false, out);
        let mut canonical = [0; 19];
        canonical.copy_from_slice(&out[start..start + 19]);
        out.truncate(start);
        for part in &self.parts {
            match part {
                DatePart::Literal(byte) => out.push(*byte),
                DatePart::Year => out.extend_from_slice(&canonical[..4]),
                DatePart::Month => out.extend_from_slice(&canonical[5..7]),
                DatePart::Day => out.extend_from_slice(&canonical[8..10]),
                DatePart::Hour => out.extend_from_slice(&canonical[11..13]),
                DatePart::Minute => out.extend_from_slice(&canonical[14..16]),
                DatePart::Second => out.extend_from_slice(&canonical[17..19]),
                DatePart::DayOfYear => {
                    let day = civil.day_of_year();
                    for digit in [day / 100, day / 10 % 10, day % 10] {
                        out.push(b"0123456789"[usize::from(digit)]);
                    }
                }
            }
        }
        true
    }
}

/// Lowercases `out[start..]`; canonical key text is valid UTF-8.
fn lower_tail(start: usize, out: &mut Vec<u8>) {
    if out[start..].is_ascii() {
        out[start..].make_ascii_lowercase();
        return;
    }
    let lower = String::from_utf8_lossy(&out[start..]).to_lowercase();
    out.truncate(start);
    out.extend_from_slice(lower.as_bytes());
}

/// RFC 3986 section 2.3.
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Percent-encodes `out[start..]` in place (RFC 3986 section 2.1, uppercase digits).
fn url_encode_tail(start: usize, out: &mut Vec<u8>) {
    let reserved = out[start..].iter().filter(|byte| !is_unreserved(**byte)).count();
    if reserved == 0 {
        return;
    }
    // Moves from the back, so that no byte is overwritten before it is read.
    let mut read = out.len();
    out.resize(read + 2 * reserved, 0);
    let mut write = out.len();
    while read < write {
        read -= 1;
        let byte = out[read];
        if is_unreserved(byte) {
            write -= 1;
            out[write] = byte;
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            write -= 3;
            out[write] = b'%';
            out[write + 1] = DIGITS[usize::from(byte >> 4)];
            out[write + 2] = DIGITS[usize::from(byte & 15)];
        }
    }
}

/// Undoes percent-encoding; `None` unless the text is exactly what the encoder produces.
fn url_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let value = upper_hex(*bytes.next()?)? << 4 | upper_hex(*bytes.next()?)?;
            if is_unreserved(value) {
                return None;
            }
            decoded.push(value);
        } else if is_unreserved(*byte) {
            decoded.push(*byte);
        } else {
            return None;
        }
    }
    Some(decoded)
}

fn upper_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
