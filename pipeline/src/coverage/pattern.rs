//! The pattern of a key: what differs from key to key replaced by a placeholder.
//!
//! Invariant: pure, linear in the length of the key, and what it returns is printable and bounded.

/// A pattern is cut at this many characters.
const PATTERN_CHARS_MAX: usize = 120;
/// A word of at least this many characters, with letters and digits, is an id and no name.
const ID_CHARS_MIN: usize = 16;
const HEX_CHARS_MIN: usize = 8;

/// Returns the pattern of a key, for example `session:<uuid>` or `cart:<n>:items`.
///
/// Placeholders: `<uuid>`, `<date>` (also with a time), `<n>` for digits, `<hex>` for eight or more hexadecimal
/// digits, `<id>` for sixteen or more letters and digits mixed, `<bytes>` for what is not UTF-8.
pub(super) fn pattern_of(key: &[u8]) -> String {
    let (text, is_cut) = match str::from_utf8(key) {
        Ok(text) => (text, false),
        // What can be read of it tells more than nothing.
        Err(error) => (str::from_utf8(&key[..error.valid_up_to()]).unwrap_or_default(), true),
    };
    let mut pattern = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if let Some(length) = uuid(rest) {
            pattern.push_str("<uuid>");
            length
        } else if let Some(length) = date(rest) {
            pattern.push_str("<date>");
            length
        } else if first.is_alphanumeric() {
            let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
            word(&rest[..end], &mut pattern);
            end
        } else {
            push_printable(first, &mut pattern);
            first.len_utf8()
        };
        rest = &rest[taken..];
        if pattern.len() > 4 * PATTERN_CHARS_MAX {
            break;
        }
    }
    if is_cut {
        pattern.push_str("<bytes>");
    }
    shorten(pattern, PATTERN_CHARS_MAX)
}

/// Returns the first word of a pattern with its separator and a star, for patterns that are too many to be told apart.
pub(super) fn family_of(pattern: &str) -> String {
    let end = pattern.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
    match end.and_then(|end| Some((end, pattern[end..].chars().next()?))) {
        Some((end, separator)) if end > 0 && separator != '<' => {
            format!("{}{separator}*", &pattern[..end])
        }
        _ => "*".to_owned(),
    }
}

/// Returns a key as it may be shown: printable, and cut at a length.
pub(super) fn shown(key: &[u8]) -> String {
    let mut text = String::new();
    for chunk in key[..key.len().min(4 * PATTERN_CHARS_MAX)].utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_printable(c, &mut text));
        for byte in chunk.invalid() {
            text.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    shorten(text, PATTERN_CHARS_MAX)
}

fn push_printable(c: char, out: &mut String) {
    if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
}

fn shorten(mut text: String, chars_max: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Appends the pattern of a run of letters and digits.
fn word(word: &str, out: &mut String) {
    let count = |is: fn(&char) -> bool| word.chars().filter(is).count();
    let (length, digits) = (word.chars().count(), count(char::is_ascii_digit));
    if digits == length {
        out.push_str(if is_compact_date(word) { "<date>" } else { "<n>" });
    } else if digits > 0 && length >= HEX_CHARS_MIN && count(char::is_ascii_hexdigit) == length {
        out.push_str("<hex>");
    } else if digits > 0 && length >= ID_CHARS_MIN {
        out.push_str("<id>");
    } else {
        let mut is_in_number = false;
        for c in word.chars() {
            if !c.is_ascii_digit() {
                out.push(c);
            } else if !is_in_number {
                out.push_str("<n>");
            }
            is_in_number = c.is_ascii_digit();
        }
    }
}

/// `YYYYMMDD` of the years 1900 to 2099.
fn is_compact_date(digits: &str) -> bool {
    digits.len() == 8
        && (digits.starts_with("19") || digits.starts_with("20"))
        && is_between(&digits[4..6], 1, 12)
        && is_between(&digits[6..8], 1, 31)
}

fn is_between(digits: &str, from: u8, to: u8) -> bool {
    digits.parse::<u8>().is_ok_and(|number| (from..=to).contains(&number))
}

/// The length of a UUID at the start of a text, if there is one that ends there.
fn uuid(text: &str) -> Option<usize> {
    matches(text, "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh")
        .then_some(36)
        .filter(|end| ends(text, *end))
}

/// The length of a date at the start of a text, its time included.
fn date(text: &str) -> Option<usize> {
    if !matches(text, "dddd-dd-dd") || !is_between(&text[5..7], 1, 12) {
        return None;
    }
    let time = &text[10..];
    let is_time = matches(time, "Tdd:dd:dd") || matches(time, " dd:dd:dd");
    if !is_time {
        return Some(10).filter(|end| ends(text, *end));
    }
    let mut end = 10 + 9;
    if let Some(fraction) = text[end..].strip_prefix('.') {
        end += 1 + fraction.bytes().take_while(u8::is_ascii_digit).count();
    }
    let zone = &text[end..];
    if zone.starts_with(['Z', 'z']) {
        end += 1;
    } else if matches(zone, "+dd:dd") || matches(zone, "-dd:dd") {
        end += 6;
    }
    Some(end)
}

/// Whether a text begins as a mask says: `h` a hexadecimal digit, `d` a digit, anything else itself.
fn matches(text: &str, mask: &str) -> bool {
    text.len() >= mask.len()
        && text.bytes().zip(mask.bytes()).all(|(byte, mask)| match mask {
            b'h' => byte.is_ascii_hexdigit(),
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

/// Whether no word goes on at this place.
fn ends(text: &str, at: usize) -> bool {
    !text[at..].starts_with(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_differs_becomes_a_placeholder() {
        for (key, pattern) in [
            ("session:0b8f1c9e-7a64-4d1e-9f55-0a1b2c3d4e5f", "session:<uuid>"),
            ("cart:42:items", "cart:<n>:items"),
            ("daily:2026-01-31:hits", "daily:<date>:hits"),
            ("at:2026-01-31T04:05:06.123Z/x", "at:<date>/x"),
            ("at:2026-01-31 04:05:06+01:00", "at:<date>"),
            ("day:20260131", "day:<date>"),
            ("n:99999999", "n:<n>"),
            ("etag:9f86d081884c7d65", "etag:<hex>"),
            ("tok:dQw4w9WgXcQabcdE", "tok:<id>"),
            ("user12.name", "user<n>.name"),
            ("feature_flags", "feature_flags"),
            ("größe:7", "größe:<n>"),
            ("a\nb", "a\\nb"),
            ("", ""),
            ("x:2026-13-31", "x:<n>-<n>-<n>"),
        ] {
            assert_eq!(pattern_of(key.as_bytes()), pattern, "{key}");
        }
        assert_eq!(pattern_of(b"blob:\xff\xfe"), "blob:<bytes>");
        assert_eq!(shown(b"blob:\xff\n"), "blob:\\xff\\n");
        let long = pattern_of("é:".repeat(1_000).as_bytes());
        assert_eq!(long.chars().count(), PATTERN_CHARS_MAX + 1);
    }

    #[test]
    fn a_family_is_the_first_word() {
        for (pattern, family) in [
            ("session:alice", "session:*"),
            ("feature_flags.x", "feature_flags.*"),
            ("<n>:x", "*"),
            ("lonely", "*"),
            ("user<n>:x", "*"),
        ] {
            assert_eq!(family_of(pattern), family, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_key_makes_it_panic_or_grow(key in prop::collection::vec(any::<u8>(), 0..600)) {
            for text in [pattern_of(&key), shown(&key)] {
                prop_assert!(text.chars().count() <= PATTERN_CHARS_MAX + 8);
                prop_assert!(!text.contains(char::is_control));
            }
        }
    }
}
