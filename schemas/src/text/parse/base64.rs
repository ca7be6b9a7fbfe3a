//! Base64 with padding (RFC 4648 section 4).
//!
//! Invariant: only what the encoder writes is read: padded, without line breaks, the spare bits zero.

use super::Parsed;

const NO_BYTES: &str = "is no base64 with padding";
const NONE: u8 = 64;

const VALUES: [u8; 256] = {
    let mut table = [NONE; 256];
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0;
    while value < 64 {
        table[digits[value as usize] as usize] = value;
        value += 1;
    }
    table
};

/// Appends the bytes; on error `out` may have some of them.
pub(crate) fn base64(text: &[u8], out: &mut Vec<u8>) -> Parsed<()> {
    if !text.len().is_multiple_of(4) {
        return Err(NO_BYTES);
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    out.reserve(text.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut bits = 0;
        for digit in group {
            let value = VALUES[usize::from(*digit)];
            if value == NONE {
                return Err(NO_BYTES);
            }
            bits = bits << 6 | u32::from(value);
        }
        let spare = 4 - group.len();
        let [_, bytes @ ..] = (bits << (6 * spare)).to_be_bytes();
        out.extend_from_slice(&bytes[..3 - spare]);
        if bytes[3 - spare..].iter().any(|byte| *byte != 0) {
            return Err(NO_BYTES);
        }
    }
    Ok(())
}
