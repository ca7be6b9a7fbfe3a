//! Names of temporary keys in the hash slot of the key they become, so that a rename stays on one node.
//!
//! Invariant: the tag of the name hashes to the slot of the key (Redis cluster specification, "Key distribution model"
//! and "Hash tags": CRC-16/XMODEM of the tag, or of the whole key, mod 16384).

use super::commands::TEMPORARY_PREFIX;
use crc::{CRC_16_XMODEM, Crc};

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
const SLOTS: u16 = 16_384;

/// What of a key is hashed: what stands between the first `{` and the first `}` after it, where that is anything.
fn hashed(key: &[u8]) -> (&[u8], bool) {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    tag.map_or((key, false), |tag| (tag, true))
}

fn slot(hashed: &[u8]) -> u16 {
    CRC.checksum(hashed) % SLOTS
}

/// Returns a hash tag, without its braces, that puts a key into the slot of `key`.
///
/// A key with a tag lends it; for another one a number is looked for, of which one in 16384 fits.
fn tag_beside(key: &[u8]) -> Vec<u8> {
    let (text, is_tag) = hashed(key);
    if is_tag {
        return text.to_vec();
    }
    let wanted = slot(text);
    let mut number = 0_u32;
    loop {
        let digits = number.to_string().into_bytes();
        if slot(&digits) == wanted {
            return digits;
        }
        number += 1;
    }
}

/// Returns the name of the temporary key of this number, which an attempt builds `key` under.
pub(in crate::transform) fn temporary_key(key: &[u8], attempt: &str, number: u64) -> Vec<u8> {
    let number = number.to_string();
    let tag = tag_beside(key);
    let parts: [&[u8]; 7] = [
        TEMPORARY_PREFIX.as_bytes(),
        b"{",
        &tag,
        b"}:",
        attempt.as_bytes(),
        b":",
        number.as_bytes(),
    ];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` answers.
        for (key, wanted) in
            [("", 0), ("123456789", 12_739), ("foo", 12_182), ("bar", 5_061), ("user1000", 3_443)]
        {
            assert_eq!(slot(key.as_bytes()), wanted, "{key}");
        }
        for (key, wanted) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("a}b{c", "a}b{c"),
        ] {
            assert_eq!(hashed(key.as_bytes()).0, wanted.as_bytes(), "{key}");
        }
    }

    #[test]
    fn a_tag_beside_a_key_has_its_slot() {
        for number in 0..300 {
            let key = format!("repo:{number}:builds");
            let tag = tag_beside(key.as_bytes());
            assert!(tag.len() < 10 && tag.iter().all(u8::is_ascii_digit));
            let name = [b"rekindle:tmp:{", &tag[..], b"}:x"].concat();
            assert_eq!(slot(hashed(&name).0), slot(key.as_bytes()));
        }
        assert_eq!(tag_beside(b"a:{user}:b"), b"user");
    }
}
