//! Counts keys by what explains them, with a sample of their sizes.
//!
//! Invariant: memory is bounded whatever the number of keys and patterns: patterns beyond a limit are counted by
//! their first word, and beyond that together. A sample is the keys of the smallest hashes, which is a random choice
//! that neither depends on the order of the keys nor counts a key twice.

use super::pattern::{family_of, shown};
use std::collections::{BTreeMap, BinaryHeap, HashMap};

/// Sizes per group; the mean of them is what the bytes of the group are estimated by.
pub(super) const SAMPLE_MAX: usize = 200;
/// Unknown patterns told apart. Keys come in no order of their names, so whatever is frequent is among the first.
pub const PATTERNS_MAX: usize = 500;
/// First words told apart once there are more patterns.
const FAMILIES_MAX: usize = 100;
/// Patterns of one first word that are shown; more are shown as one.
const PATTERNS_OF_FAMILY_MAX: usize = 8;
/// What is left when first words are too many as well.
pub const OTHERS: &str = "(others)";
const EXAMPLES_MAX: usize = 3;
/// Shapes kept of the keys of one group.
const SHAPES_MAX: usize = 8;

/// What a group of keys is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Group {
    /// Written by the route of this number.
    Route(usize),
    /// Part of the duplicate that the route of this number keeps.
    Duplicate(usize),
    /// rekindle's own.
    Own,
    /// Declared by the entry of this number.
    Unrouted(usize),
    /// Explained by nothing: a pattern, and why a route that its name fits is not the explanation.
    Unknown(String, Option<String>),
}

/// What is known of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    /// Keys seen.
    pub(super) keys: u64,
    /// A few of their names, as they may be shown.
    pub(super) examples: Vec<String>,
    /// Patterns of the keys, the most frequent of them.
    pub(super) shapes: BTreeMap<String, u64>,
    /// Keys of further shapes.
    pub(super) other_shapes: u64,
    sample: BinaryHeap<(u64, Option<u64>)>,
}

impl Counted {
    /// Whether a key of this hash belongs into the sample.
    fn wants(&self, hash: u64) -> bool {
        let is_smaller = self.sample.peek().is_none_or(|(largest, _)| hash < *largest);
        (self.sample.len() < SAMPLE_MAX || is_smaller)
            && !self.sample.iter().any(|(other, _)| *other == hash)
    }

    fn put(&mut self, hash: u64, bytes: Option<u64>) {
        if self.wants(hash) {
            self.sample.push((hash, bytes));
            if self.sample.len() > SAMPLE_MAX {
                self.sample.pop();
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.keys += other.keys;
        self.other_shapes += other.other_shapes;
        other.shapes.into_iter().for_each(|(shape, keys)| self.shape(shape, keys));
        other.sample.into_iter().for_each(|(hash, bytes)| self.put(hash, bytes));
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    fn shape(&mut self, shape: String, keys: u64) {
        if self.shapes.len() >= SHAPES_MAX && !self.shapes.contains_key(&shape) {
            self.other_shapes += keys;
            return;
        }
        *self.shapes.entry(shape).or_default() += keys;
    }

    /// How many sizes were measured, and their mean in bytes; `None` where there is none.
    pub(super) fn mean_bytes(&self) -> Option<(u64, f64)> {
        let sizes: Vec<u64> = self.sample.iter().filter_map(|(_, bytes)| *bytes).collect();
        let sum: f64 = sizes.iter().map(|bytes| *bytes as f64).sum();
        (!sizes.is_empty()).then(|| (sizes.len() as u64, sum / sizes.len() as f64))
    }
}

/// A key that was counted and whose size is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    group: Group,
    hash: u64,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Tally {
    groups: HashMap<Group, Counted>,
    patterns: usize,
    families: usize,
}

impl Tally {
    /// Counts a key with its pattern; returns what to call [`Self::measured`] with where its size is wanted.
    pub(super) fn count(&mut self, group: Group, pattern: String, key: &[u8]) -> Option<Wanted> {
        let group = self.bounded(group);
        let counted = self.groups.entry(group.clone()).or_default();
        counted.keys += 1;
        if counted.examples.len() < EXAMPLES_MAX {
            counted.examples.push(shown(key));
        }
        counted.shape(pattern, 1);
        let hash = xxhash_rust::xxh3::xxh3_64(key);
        counted.wants(hash).then_some(Wanted { group, hash })
    }

    /// Takes the size of a key; `None` where it is gone.
    pub(super) fn measured(&mut self, wanted: &Wanted, bytes: Option<u64>) {
        if let Some(counted) = self.groups.get_mut(&wanted.group) {
            counted.put(wanted.hash, bytes);
        }
    }

    /// Puts a pattern that is one too many into a wider group.
    fn bounded(&mut self, group: Group) -> Group {
        let Group::Unknown(pattern, why) = group else { return group };
        let own = Group::Unknown(pattern, why);
        if self.groups.contains_key(&own) {
            return own;
        }
        if self.patterns < PATTERNS_MAX {
            self.patterns += 1;
            return own;
        }
        let Group::Unknown(pattern, _) = own else { return own };
        let family = Group::Unknown(family_of(&pattern), None);
        if self.groups.contains_key(&family) {
            return family;
        }
        if self.families < FAMILIES_MAX {
            self.families += 1;
            return family;
        }
        Group::Unknown(OTHERS.to_owned(), None)
    }

    /// Returns the groups, with the patterns of a first word that has many of them put together.
    pub(super) fn finish(self) -> BTreeMap<Group, Counted> {
        let mut of_family: HashMap<String, usize> = HashMap::new();
        for group in self.groups.keys() {
            if let Group::Unknown(pattern, None) = group {
                *of_family.entry(family_of(pattern)).or_default() += 1;
            }
        }
        let mut finished: BTreeMap<Group, Counted> = BTreeMap::new();
        for (group, counted) in self.groups {
            let group = match group {
                Group::Unknown(pattern, None) if pattern != OTHERS => {
                    let family = family_of(&pattern);
                    let is_many =
                        of_family.get(&family).is_some_and(|n| *n > PATTERNS_OF_FAMILY_MAX);
                    Group::Unknown(if is_many { family } else { pattern }, None)
                }
                other => other,
            };
            finished.entry(group).or_default().merge(counted);
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::pattern::pattern_of;

    fn count(tally: &mut Tally, key: &str, bytes: u64) {
        let pattern = pattern_of(key.as_bytes());
        let group = Group::Unknown(pattern.clone(), None);
        if let Some(wanted) = tally.count(group, pattern, key.as_bytes()) {
            tally.measured(&wanted, Some(bytes));
        }
    }

    #[test]
    fn a_sample_is_bounded_and_does_not_depend_on_the_order() {
        let sampled = |numbers: Vec<u64>| {
            let mut tally = Tally::default();
            for number in numbers {
                count(&mut tally, &format!("cart:{number}"), number);
            }
            let (_, counted) = tally.finish().pop_first().unwrap();
            (counted.keys, counted.mean_bytes().unwrap())
        };
        let (keys, forwards) = sampled((0..10_000).collect());
        let (_, backwards) = sampled((0..10_000).rev().collect());
        assert_eq!((keys, forwards.0), (10_000, SAMPLE_MAX as u64));
        assert_eq!(forwards.0, backwards.0);
        assert!((forwards.1 - backwards.1).abs() < 1e-6);
        // 200 of 10,000 sizes spread evenly: the mean is within five standard errors.
        assert!((forwards.1 - 5_000.0).abs() < 5.0 * 10_000.0 / (12.0 * 200.0_f64).sqrt());
        let (_, twice) = sampled(vec![7, 7, 7]);
        assert_eq!(twice.0, 1);
    }

    #[test]
    fn patterns_beyond_the_limit_are_counted_together() {
        let mut tally = Tally::default();
        let words = |number: usize| -> String {
            // Letters only, so that no placeholder makes them one pattern.
            number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
        };
        for number in 0..5_000 {
            count(&mut tally, &format!("session:{}", words(number)), 10);
            count(&mut tally, &format!("{}:x", words(number)), 10);
            count(&mut tally, &format!("{}:y:z", words(number)), 10);
        }
        assert!(tally.groups.len() <= PATTERNS_MAX + FAMILIES_MAX + 1, "{}", tally.groups.len());
        let finished = tally.finish();
        let keys: u64 = finished.values().map(|counted| counted.keys).sum();
        assert_eq!(keys, 15_000);
        let of = |pattern: &str| finished[&Group::Unknown(pattern.to_owned(), None)].keys;
        assert_eq!(of("session:*"), 5_000);
        assert!(of(OTHERS) > 0);
    }

    #[test]
    fn few_patterns_of_a_first_word_stay_apart() {
        let mut tally = Tally::default();
        for key in ["cart:1", "cart:2:items", "cart:3:items"] {
            count(&mut tally, key, 10);
        }
        let finished = tally.finish();
        let patterns: Vec<(&Group, u64)> =
            finished.iter().map(|(group, counted)| (group, counted.keys)).collect();
        let unknown = |pattern: &str| Group::Unknown(pattern.to_owned(), None);
        assert_eq!(patterns, [(&unknown("cart:<n>"), 1), (&unknown("cart:<n>:items"), 2)]);
    }
}
