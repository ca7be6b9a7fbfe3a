//! CRC-64 as Redis uses it (Jones' polynomial, reflected, from 0), and the CRC of joined parts from the CRCs of the parts.
//!
//! Invariant: `joined(checksum(a), checksum(b), b.len()) == checksum(a ‖ b)`; so the CRC of a file costs no pass of its own
//! over bytes that were summed up when they were made.

use crc_fast::CrcAlgorithm::Crc64Redis;

/// Jones' polynomial without its highest term, the bits reversed: bit 63 is the term of degree 0.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
/// The polynomial 1.
const ONE: u64 = 1 << 63;
/// Powers that [`DOUBLED`] holds: as many as a length in bits can have binary digits.
const DIGITS: usize = 64 + 3;
/// `x^(2^k)` modulo the polynomial, for each `k`.
const DOUBLED: [u64; DIGITS] = doubled();

/// Returns the CRC of some bytes.
#[inline]
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Redis, bytes)
}

/// Returns the CRC of two parts behind each other: that of the first one times `x` to the bits of the second, plus the
/// second (a CRC is a remainder, so it is linear).
///
/// The library's own way raises a matrix for each call, which was a sixth of the time that a file takes.
#[must_use]
pub fn joined(first: u64, second: u64, second_bytes: u64) -> u64 {
    let (mut shifted, mut rest, mut digit) = (first, second_bytes, 3);
    while rest > 0 {
        if rest & 1 == 1 {
            shifted = product(DOUBLED[digit], shifted);
        }
        rest >>= 1;
        digit += 1;
    }
    shifted ^ second
}

/// Multiplies two polynomials modulo the polynomial.
const fn product(a: u64, b: u64) -> u64 {
    let (mut sum, mut shifted, mut degree) = (0, b, 0);
    while degree < 64 {
        // Without branches: the bits are as good as random.
        sum ^= shifted & (a << degree >> 63).wrapping_neg();
        shifted = (shifted >> 1) ^ (POLYNOMIAL & (shifted & 1).wrapping_neg());
        degree += 1;
    }
    sum
}

const fn doubled() -> [u64; DIGITS] {
    let mut powers = [ONE >> 1; DIGITS];
    let mut digit = 1;
    while digit < DIGITS {
        powers[digit] = product(powers[digit - 1], powers[digit - 1]);
        digit += 1;
    }
    powers
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

    #[test]
    fn lengths_beyond_memory_are_joined_as_the_library_does() {
        for bytes in [1 << 32, (1 << 40) + 12_345, u64::MAX / 8, u64::MAX] {
            let expected = crc_fast::checksum_combine(Crc64Redis, 0x0123_4567_89ab_cdef, 77, bytes);
            assert_eq!(joined(0x0123_4567_89ab_cdef, 77, bytes), expected, "{bytes}");
        }
    }
}
