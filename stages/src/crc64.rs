//! CRC-64 as Redis uses it (Jones' polynomial, reflected, from 0), and the CRC of joined parts from the CRCs of the parts.
//!
//! Invariant: `joined(checksum(a), checksum(b), b.len()) == checksum(a ‖ b)`; so the CRC of a file costs no pass of its own
//! over bytes that were summed up when they were made.

use crc_fast::CrcAlgorithm::Crc64Redis;

/// Returns the CRC of some bytes.
#[inline]
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Redis, bytes)
}

/// Returns the CRC of two parts behind each other.
#[must_use]
pub fn joined(first: u64, second: u64, second_bytes: u64) -> u64 {
    crc_fast::checksum_combine(Crc64Redis, first, second, second_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_redis() {
        // The check value of the catalogue, and of `crc64.c`.
        assert_eq!(checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn joined_parts_have_the_checksum_of_the_whole() {
        let bytes: Vec<u8> =
            (0..100_000_u32).map(|i| (i * 31 + i / 251).to_le_bytes()[0]).collect();
        for at in [0, 1, 7, 8, 255, 4_096, 65_537, 99_999, 100_000] {
            let (first, second) = bytes.split_at(at);
            let whole = joined(checksum(first), checksum(second), second.len() as u64);
            assert_eq!(whole, checksum(&bytes), "cut at {at}");
        }
        // Zeros alone have the checksum 0, and still move what stands in front of them.
        let zeros = vec![0; 1 << 20];
        let whole = joined(checksum(b"x"), checksum(&zeros), zeros.len() as u64);
        assert_eq!(whole, checksum(&[b"x", &zeros[..]].concat()));
    }
}
