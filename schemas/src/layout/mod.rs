//! Layouts: how the fields of a row become the value under its key, and the hash that compares values.
//!
//! Invariant: the value hash written down when a row is encoded equals the one computed from what Redis
//! gives back, in whatever order it gives it.

mod decode;
mod document;
mod expiry;
mod many;
mod row;
mod score;
mod stored;
#[cfg(test)]
mod tests;

pub(crate) use decode::json_member;
pub use decode::{RowDecoder, RowFault};
pub use document::{DocumentHasher, Documents, NotHeld};
pub use expiry::ExpiryTimes;
pub use many::{Element, Elements, Part, ReadBackTally, Tally};
pub use row::{FieldSpan, HashFields, RowRefusal, RowValues};
pub use stored::StoredHash;

use crate::bind::BoundRoute;
use xxhash_rust::xxh3::xxh3_64;

/// Returns the value hash of a string or JSON entry: xxh3-64 of its bytes.
pub fn string_value_hash(value: &[u8]) -> u64 {
    xxh3_64(value)
}

/// Returns the value hash of a hash entry read back as (field, value) pairs in any order.
///
/// The hash covers, for each field in the route's order, u32 LE length and name, u32 LE length and value.
/// Pairs that the route does not know follow in name order, so that they make the hash differ.
pub fn hash_value_hash<'a>(
    bound: &BoundRoute,
    pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> u64 {
    xxh3_64(&canonical(bound, pairs))
}

/// Returns what the hashes of a hash entry cover.
fn canonical<'a>(
    bound: &BoundRoute,
    pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Vec<u8> {
    let mut pairs: Vec<(&[u8], &[u8])> = pairs.into_iter().collect();
    pairs.sort_unstable();
    let mut is_known = vec![false; pairs.len()];
    let mut canonical = Vec::with_capacity(256);
    for field in &bound.fields {
        if let Ok(at) = pairs.binary_search_by(|(name, _)| (*name).cmp(field.name.as_bytes())) {
            is_known[at] = true;
            write_sized(pairs[at].0, &mut canonical);
            write_sized(pairs[at].1, &mut canonical);
        }
    }
    for ((name, value), _) in pairs.iter().zip(&is_known).filter(|(_, is_known)| !**is_known) {
        write_sized(name, &mut canonical);
        write_sized(value, &mut canonical);
    }
    canonical
}

/// Appends a length (u32 LE) and the bytes.
pub(crate) fn write_sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&size(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Redis values end at 512 MiB and PostgreSQL's at 1 GiB, both below the u32 range.
#[expect(clippy::cast_possible_truncation, reason = "both systems bound a value below 4 GiB")]
pub(crate) fn size(bytes: usize) -> [u8; 4] {
    (bytes as u32).to_le_bytes()
}
