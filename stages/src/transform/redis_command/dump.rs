//! Hashes as the RDB file format has them: in `RESTORE` payloads, which are what `DUMP` would answer, and in files.
//!
//! Invariant: the server's own limits stay in force. A hash within them is built as the listpack that the
//! server would have built; any other goes as plain field-value pairs, and the server picks the encoding.
//! Formats: the RDB file format, version 10 (Redis 7.0, `rdb.c`), and listpack (`listpack.c`).

use crate::crc64::checksum;

/// Redis 7.0; later servers read it too, older ones refuse it.
const RDB_VERSION: u16 = 10;
/// A hash as alternating fields and values (`RDB_TYPE_HASH`).
const TYPE_HASH: u8 = 4;
/// A hash as one listpack (`RDB_TYPE_HASH_LISTPACK`).
const TYPE_HASH_LISTPACK: u8 = 16;
/// The end of a listpack.
const LISTPACK_END: u8 = 0xff;
/// Bytes before the first element: total bytes (u32) and elements (u16), little-endian.
const LISTPACK_HEADER: usize = 6;

/// Up to which size the target keeps a hash as a listpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListpackLimits {
    /// Fields (`hash-max-listpack-entries`).
    pub fields_max: usize,
    /// Bytes of a field name or value (`hash-max-listpack-value`).
    pub value_bytes_max: usize,
}

impl Default for ListpackLimits {
    /// The defaults of Redis 7.0 and later.
    fn default() -> Self {
        Self { fields_max: 512, value_bytes_max: 64 }
    }
}

impl ListpackLimits {
    /// Lengths this encoder writes; what is longer goes as plain pairs.
    const FIELDS_MAX: usize = 1024;
    const VALUE_BYTES_MAX: usize = 4095;

    /// Bounds what a server says by what this encoder can write.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            fields_max: self.fields_max.min(Self::FIELDS_MAX),
            value_bytes_max: self.value_bytes_max.min(Self::VALUE_BYTES_MAX),
        }
    }
}

/// Writes payloads; the elements of the field names are made once.
#[derive(Debug)]
pub(super) struct DumpEncoder {
    limits: ListpackLimits,
    /// Per field: its name as a listpack element; `None` when it is longer than the limit.
    elements: Vec<Option<Vec<u8>>>,
    names: Vec<Vec<u8>>,
}

impl DumpEncoder {
    pub(super) fn new<'a>(limits: ListpackLimits, names: impl Iterator<Item = &'a [u8]>) -> Self {
        let limits = limits.bounded();
        let names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
        let elements = names
            .iter()
            .map(|name| {
                (name.len() <= limits.value_bytes_max).then(|| {
                    let mut element = Vec::new();
                    write_element(name, &mut element);
                    element
                })
            })
            .collect();
        Self { limits, elements, names }
    }

    /// Whether a name or a value is too long for a listpack. A hash with too many fields is another matter: by `HSET` it
    /// would grow as a listpack first.
    #[inline]
    pub(super) fn is_beyond<'a>(
        &self,
        mut fields: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> bool {
        fields.any(|(field, value)| {
            value.len() > self.limits.value_bytes_max || self.elements[field].is_none()
        })
    }

    /// Replaces `out` by the payload of one hash, given as (index of the name, value), and returns where in `out`
    /// it starts.
    #[inline]
    pub(super) fn write<'a>(
        &self,
        fields: impl ExactSizeIterator<Item = (usize, &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) -> usize {
        let start = self.write_value(fields, out);
        out.extend_from_slice(&RDB_VERSION.to_le_bytes());
        let checksum = checksum(&out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
        start
    }

    /// The same without version and checksum: the type, then the value as it stands behind its key in a file.
    #[inline]
    pub(super) fn write_value<'a>(
        &self,
        fields: impl ExactSizeIterator<Item = (usize, &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) -> usize {
        out.clear();
        self.write_listpack(fields.clone(), out).unwrap_or_else(|| {
            out.clear();
            self.write_pairs(fields, out);
            0
        })
    }

    /// Returns where it starts; `None`, with rubbish in `out`, where the hash is beyond the limits.
    #[inline]
    fn write_listpack<'a>(
        &self,
        fields: impl ExactSizeIterator<Item = (usize, &'a [u8])>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        /// The type, and the longest length that can stand before the listpack.
        const HEAD: usize = 1 + 5;
        let count = fields.len();
        if count > self.limits.fields_max {
            return None;
        }
        out.resize(HEAD + LISTPACK_HEADER, 0);
        for (field, value) in fields {
            let name = self.elements[field].as_ref()?;
            if value.len() > self.limits.value_bytes_max {
                return None;
            }
            out.extend_from_slice(name);
            write_element(value, out);
        }
        out.push(LISTPACK_END);
        let bytes = out.len() - HEAD;
        let head = &mut out[HEAD..HEAD + LISTPACK_HEADER];
        head[..4].copy_from_slice(&truncated_u32(bytes).to_le_bytes());
        head[4..].copy_from_slice(&elements(count).to_le_bytes());
        // The length varies in width, so type and length are put right before the listpack.
        let mut length = [0; 5];
        let width = rdb_length(bytes, &mut length);
        let start = HEAD - 1 - width;
        out[start] = TYPE_HASH_LISTPACK;
        out[start + 1..HEAD].copy_from_slice(&length[..width]);
        Some(start)
    }

    fn write_pairs<'a>(
        &self,
        fields: impl ExactSizeIterator<Item = (usize, &'a [u8])>,
        out: &mut Vec<u8>,
    ) {
        out.push(TYPE_HASH);
        write_rdb_length(fields.len(), out);
        for (field, value) in fields {
            write_rdb_string(&self.names[field], out);
            write_rdb_string(value, out);
        }
    }
}

/// Two per field; `bounded` keeps the count far below the header's 65,535.
fn elements(fields: usize) -> u16 {
    u16::try_from(2 * fields).unwrap_or(u16::MAX)
}

/// Lengths here are those of one row, whose parts PostgreSQL bounds at 1 GiB.
#[expect(clippy::cast_possible_truncation, reason = "a row is smaller than 4 GiB")]
fn truncated_u32(length: usize) -> u32 {
    length as u32
}

/// Puts an RDB length at the start of the buffer and returns its width: 6 bits, 14 bits or 32 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "each arm writes what its bound lets through")]
fn rdb_length(length: usize, out: &mut [u8; 5]) -> usize {
    match length {
        0..0x40 => {
            out[0] = length as u8;
            1
        }
        0x40..0x4000 => {
            out[0] = 0x40 | (length >> 8) as u8;
            out[1] = length as u8;
            2
        }
        _ => {
            out[0] = 0x80;
            out[1..].copy_from_slice(&truncated_u32(length).to_be_bytes());
            5
        }
    }
}

fn write_rdb_length(length: usize, out: &mut Vec<u8>) {
    let mut bytes = [0; 5];
    let width = rdb_length(length, &mut bytes);
    out.extend_from_slice(&bytes[..width]);
}

/// Appends a string: its length, then its bytes as they are.
#[inline]
pub(super) fn write_rdb_string(text: &[u8], out: &mut Vec<u8>) {
    write_rdb_length(text.len(), out);
    out.extend_from_slice(text);
}

/// Appends one listpack element of at most 4,095 bytes: its encoding, its data, and its length backwards.
///
/// A text that is the canonical form of an integer becomes that integer, as the server itself does.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "each arm writes what its bound lets through")]
fn write_element(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if let Some(value) = canonical_integer(text) {
        write_integer_element(value, out);
    } else if text.len() < 64 {
        out.push(0x80 | text.len() as u8);
        out.extend_from_slice(text);
    } else {
        out.push(0xe0 | (text.len() >> 8) as u8);
        out.push(text.len() as u8);
        out.extend_from_slice(text);
    }
    let length = out.len() - start;
    // `lpEncodeBacklen`: 7 bits per byte, the most significant first, all but the first with the high bit set.
    if length <= 127 {
        out.push(length as u8);
    } else {
        out.extend_from_slice(&[(length >> 7) as u8, (length & 0x7f) as u8 | 0x80]);
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "each arm writes what its bound lets through")]
#[expect(clippy::cast_sign_loss, reason = "the format stores two's complement")]
fn write_integer_element(value: i64, out: &mut Vec<u8>) {
    match value {
        0..=127 => out.push(value as u8),
        -4096..=4095 => {
            let bits = (value & 0x1fff) as u16;
            out.extend_from_slice(&[0xc0 | (bits >> 8) as u8, bits as u8]);
        }
        -0x8000..=0x7fff => {
            out.push(0xf1);
            out.extend_from_slice(&(value as i16).to_le_bytes());
        }
        -0x80_0000..=0x7f_ffff => {
            out.push(0xf2);
            out.extend_from_slice(&(value as i32).to_le_bytes()[..3]);
        }
        -0x8000_0000..=0x7fff_ffff => {
            out.push(0xf3);
            out.extend_from_slice(&(value as i32).to_le_bytes());
        }
        _ => {
            out.push(0xf4);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Parses a text that an integer prints as: no sign but a minus, no leading zero, within 64 bits.
#[inline]
fn canonical_integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (first, rest) = digits.split_first()?;
    if digits.len() > 19 || !first.is_ascii_digit() {
        return None;
    }
    if *first == b'0' {
        return (rest.is_empty() && !is_negative).then_some(0);
    }
    let mut value: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(digit - b'0');
    }
    // 19 digits fit u64, but not all of them i64.
    if is_negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_element(text, &mut out);
        out
    }

    #[test]
    fn integers_take_the_smallest_encoding_and_other_texts_stay_texts() {
        let cases: [(&str, &[u8]); 18] = [
            ("0", &[0, 1]),
            ("127", &[127, 1]),
            ("128", &[0xc0, 128, 2]),
            ("-1", &[0xdf, 0xff, 2]),
            ("4095", &[0xcf, 0xff, 2]),
            ("-4096", &[0xd0, 0, 2]),
            ("4096", &[0xf1, 0, 16, 3]),
            ("-32768", &[0xf1, 0, 0x80, 3]),
            ("32768", &[0xf2, 0, 0x80, 0, 4]),
            ("-8388608", &[0xf2, 0, 0, 0x80, 4]),
            ("8388608", &[0xf3, 0, 0, 0x80, 0, 5]),
            ("2147483648", &[0xf4, 0, 0, 0, 0x80, 0, 0, 0, 0, 9]),
            ("-9223372036854775808", &[0xf4, 0, 0, 0, 0, 0, 0, 0, 0x80, 9]),
            ("", &[0x80, 1]),
            ("-", &[0x81, b'-', 2]),
            ("-0", &[0x82, b'-', b'0', 3]),
            ("01", &[0x82, b'0', b'1', 3]),
            ("+1", &[0x82, b'+', b'1', 3]),
        ];
        for (text, expected) in cases {
            assert_eq!(element(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(element(b"9223372036854775808")[0], 0x93);
        assert_eq!(element(b"18446744073709551616")[0], 0x94);
    }

    #[test]
    fn the_backward_length_grows_with_the_element() {
        let short = element(&[b'a'; 63]);
        assert_eq!((short[0], short.len(), short[64]), (0xbf, 65, 64));
        let medium = element(&[b'a'; 64]);
        assert_eq!((&medium[..2], medium.len(), medium[66]), (&[0xe0, 64][..], 67, 66));
        let long = element(&[b'a'; 4095]);
        assert_eq!((&long[..2], &long[4097..]), (&[0xef, 0xff][..], &[32, 0x81][..]));
    }
}
