//! CRC-64 as Redis uses it (Jones' polynomial, reflected, from 0), and the CRC of joined parts from the CRCs of the parts.
//!
//! Invariant: `joined(checksum(a), checksum(b), b.len()) == checksum(a ‖ b)`; so the CRC of a file costs no pass of its own
//! over bytes that were summed up when they were made.

use crc::{CRC_64_REDIS, Crc, Table};

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The polynomial, reflected: bit 63 is `x^0`.
const POLYNOMIAL: u64 = CRC_64_REDIS.poly.reverse_bits();
/// `x^0` and `x^8`.
const ONE: u64 = 1 << 63;
const X8: u64 = 1 << 55;

/// Returns the CRC of some bytes.
#[inline]
pub fn checksum(bytes: &[u8]) -> u64 {
    CRC.checksum(bytes)
}

/// Returns the CRC of two parts behind each other.
///
/// A CRC that starts from 0 is linear: that of `a ‖ b` is that of `a`, shifted by the bits of `b`, plus that of `b`.
#[must_use]
pub fn joined(first: u64, second: u64, second_bytes: u64) -> u64 {
    multiplied(first, shift_by(second_bytes)) ^ second
}

/// `x^(8 * bytes)`, by squaring.
fn shift_by(mut bytes: u64) -> u64 {
    let (mut power, mut square) = (ONE, X8);
    while bytes != 0 {
        if bytes & 1 != 0 {
            power = multiplied(power, square);
        }
        square = multiplied(square, square);
        bytes >>= 1;
    }
    power
}

/// The product of two polynomials modulo the one of the CRC.
fn multiplied(left: u64, mut right: u64) -> u64 {
    let mut product = 0;
    for power in (0..64).rev() {
        if left >> power & 1 != 0 {
            product ^= right;
        }
        // `right` times x: its highest power, bit 0, is replaced by what it is congruent to.
        right = (right >> 1) ^ if right & 1 != 0 { POLYNOMIAL } else { 0 };
    }
    product
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
