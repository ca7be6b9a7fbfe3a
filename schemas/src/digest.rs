//! The row digest: an order-independent sum of 128-bit row hashes, comparable between runs.
//!
//! Invariant: digests are added mod 2^128 together with the row count, never XORed (equal rows would cancel).

use std::ops::AddAssign;

/// Version of the row hash: column order, tags, canonical bytes, hash function and key together.
pub const DIGEST_VERSION: u32 = 1;

/// Sum mod 2^128 of row hashes, and how many rows it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// Sum of the row hashes mod 2^128.
    pub sum: u128,
    /// Rows added.
    pub count: u64,
}

impl Digest {
    /// Adds one row hash.
    pub fn add_row(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_add(hash);
        self.count += 1;
    }

    /// Returns the 32 hex digits of the sum.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count += other.count;
    }
}
