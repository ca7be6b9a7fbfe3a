//! An even sample of the keys of a route, in one pass over keys that come in any order and any number.
//!
//! Invariant: of all keys offered it holds those whose hashes under the seed are the smallest, so every set of so many
//! keys is as likely as any other, and the order and the number of offers do not matter.

use super::judge::Expected;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Keys of one route, each with what its row says.
#[derive(Debug)]
pub(super) struct Sample {
    size: usize,
    seed: u64,
    /// Hashes above it are not taken any more; all of them until the sample is full.
    bound: AtomicU64,
    taken: Mutex<BTreeMap<(u64, Vec<u8>), Expected>>,
}

impl Sample {
    /// Makes an empty sample of up to `size` keys, at least 1.
    pub(super) fn new(size: usize, seed: u64) -> Self {
        Self { size, seed, bound: AtomicU64::new(u64::MAX), taken: Mutex::default() }
    }

    /// Offers a key; offered twice, the last row counts.
    pub(super) fn offer(&self, key: &[u8], expected: Expected) {
        let hash = xxh3_64_with_seed(key, self.seed);
        if hash > self.bound.load(Ordering::Relaxed) {
            return;
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert((hash, key.to_vec()), expected);
        if taken.len() > self.size {
            taken.pop_last();
        }
        if taken.len() == self.size
            && let Some(((largest, _), _)) = taken.last_key_value()
        {
            self.bound.store(*largest, Ordering::Relaxed);
        }
    }

    /// Returns the keys taken so far.
    pub(super) fn keys(&self) -> Vec<(Vec<u8>, Expected)> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().map(|((_, key), expected)| (key.clone(), *expected)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn taken(size: usize, seed: u64, keys: impl Iterator<Item = u32>) -> BTreeSet<Vec<u8>> {
        let sample = Sample::new(size, seed);
        for key in keys {
            sample.offer(format!("k:{key}").as_bytes(), Expected::new(0, 0));
        }
        sample.keys().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn order_and_repetition_do_not_matter_and_the_seed_does() {
        let forwards = taken(50, 1, 0..1_000);
        assert_eq!(forwards.len(), 50);
        assert_eq!(forwards, taken(50, 1, (0..1_000).rev().chain(0..1_000)));
        assert_ne!(forwards, taken(50, 2, 0..1_000));
        assert_eq!(taken(50, 1, 0..20).len(), 20);
    }

    #[test]
    fn every_key_is_as_likely_as_any_other() {
        let mut times = vec![0_u32; 200];
        for seed in 0..2_000 {
            for key in taken(20, seed, 0..200) {
                let number: usize = String::from_utf8(key).unwrap()[2..].parse().unwrap();
                times[number] += 1;
            }
        }
        // 2,000 draws of 10 %: 200 on average, with a standard deviation of 13.4.
        assert!(times.iter().all(|times| (140..=260).contains(times)), "{times:?}");
    }
}
