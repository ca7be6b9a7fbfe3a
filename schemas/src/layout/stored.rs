//! The value hash of a hash entry as Redis gives it back, pair by pair.
//!
//! Invariant: equal to `hash_value_hash` of the same pairs, in whatever order they come; in the order of the route,
//! which is how they were written, nothing is sorted or looked up.

use super::write_sized;
use crate::bind::BoundRoute;
use crate::version::Stored;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Takes the pairs of one entry after the other; buffers are reused.
#[derive(Debug)]
pub struct StoredHash<'a> {
    bound: &'a BoundRoute,
    canonical: Vec<u8>,
    /// Where each name and value stands in `canonical`.
    pairs: Vec<(Span, Span)>,
    /// The next field of the route; all pairs so far came in its order.
    next: usize,
    is_in_order: bool,
}

type Span = (usize, usize);

impl<'a> StoredHash<'a> {
    /// Makes one for the entries of a route.
    pub fn new(bound: &'a BoundRoute) -> Self {
        Self { bound, canonical: Vec::new(), pairs: Vec::new(), next: 0, is_in_order: true }
    }

    /// Forgets the entry before.
    #[inline]
    pub fn begin(&mut self) {
        self.canonical.clear();
        self.pairs.clear();
        (self.next, self.is_in_order) = (0, true);
    }

    /// Takes the next pair.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.is_in_order {
            // A field that is null may have been left out.
            let rest = &self.bound.fields[self.next..];
            match rest.iter().position(|field| field.name.as_bytes() == name) {
                Some(skipped) => self.next += skipped + 1,
                None => self.is_in_order = false,
            }
        }
        let name = self.sized(name);
        let value = self.sized(value);
        self.pairs.push((name, value));
    }

    fn sized(&mut self, bytes: &[u8]) -> Span {
        write_sized(bytes, &mut self.canonical);
        (self.canonical.len() - bytes.len(), self.canonical.len())
    }

    /// Returns the value hash of the pairs taken.
    #[inline]
    pub fn value_hash(&self) -> u64 {
        if self.is_in_order {
            return xxh3_64(&self.canonical);
        }
        super::hash_value_hash(self.bound, self.taken())
    }

    /// Returns the longer hash, the one that [`HashFields::long_hash`] gives for the same pairs.
    ///
    /// [`HashFields::long_hash`]: super::HashFields::long_hash
    pub fn long_hash(&self) -> u128 {
        if self.is_in_order {
            return xxh3_128(&self.canonical);
        }
        xxh3_128(&super::canonical(self.bound, self.taken()))
    }

    /// Returns what the pairs taken say of their version, where the route compares versions.
    #[inline]
    pub fn version(&self) -> Stored {
        Stored::in_hash(self.bound, self.taken())
    }

    fn taken(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        let bytes = |(from, to): Span| &self.canonical[from..to];
        self.pairs.iter().map(move |(name, value)| (bytes(*name), bytes(*value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::tests::{route, schema};
    use crate::layout::hash_value_hash;
    use crate::plan::Layout;
    use crate::type_map::ColumnType;

    #[test]
    fn every_order_of_the_pairs_gives_the_same_hash() {
        let columns = ["id", "c", "a", "b"].map(|name| (name, ColumnType::Text));
        let bound =
            BoundRoute::bind(&route("k:{id}", Layout::Hash), schema(&columns, &[])).unwrap();
        let mut stored = StoredHash::new(&bound);
        let cases: [&[(&str, &str)]; 7] = [
            &[("c", "1"), ("a", "2"), ("b", "3")],
            &[("c", "1"), ("b", "3")],
            &[("b", "3"), ("a", "2"), ("c", "1")],
            &[("a", "2"), ("c", "1")],
            &[("x", "9"), ("c", "1")],
            &[("c", "1"), ("x", "9"), ("b", "3")],
            &[("c", ""), ("a", "c"), ("b", "")],
        ];
        let mut hashes = Vec::new();
        for pairs in cases {
            let pairs: Vec<(&[u8], &[u8])> =
                pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            stored.begin();
            for (name, value) in &pairs {
                stored.push(name, value);
            }
            assert_eq!(stored.value_hash(), hash_value_hash(&bound, pairs.iter().copied()));
            hashes.push(stored.value_hash());
        }
        assert_eq!(hashes[0], hashes[2]);
        hashes.swap_remove(2);
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), cases.len() - 1);
    }
}
