//! JSON strings.
//!
//! Invariant: the output is valid JSON (RFC 8259 section 7) whenever the input is valid UTF-8.

/// What follows the backslash for a byte that RFC 8259 makes us escape; 0 where nothing is escaped,
/// `u` where only the `\u00XX` form exists.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends a UTF-8 text as a JSON string with its quotes.
#[inline]
pub fn write_json_string(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    // Nearly every value needs no escape: one scan, one copy.
    while let Some(at) = rest.iter().position(|byte| ESCAPES[usize::from(*byte)] != 0) {
        out.extend_from_slice(&rest[..at]);
        write_escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let escape = ESCAPES[usize::from(byte)];
    out.extend_from_slice(&[b'\\', escape]);
    if escape == b'u' {
        out.extend_from_slice(b"00");
        out.extend_from_slice(&super::hex_pair(byte));
    }
}
