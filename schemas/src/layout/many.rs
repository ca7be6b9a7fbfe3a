//! Elements of keys that are made of many rows, and the hash that compares such keys.
//!
//! Invariant: the hash of a key does not depend on how its elements were cut into batches; that of a list depends on
//! their order, that of a set, sorted set or hash does not. A member counts once, with what was written for it last.

use super::score::{ScoreValues, write_score};
use super::{RowValues, write_sized};
use crate::bind::{BoundMany, BoundRoute};
use crate::key::{KeyError, KeyRenderer};
use crate::plan::{Layout, NullPolicy};
use crate::text::TypeMismatch;
use arrow::record_batch::RecordBatch;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Odd, so that multiplying by it loses nothing mod 2^64; the fractional digits of the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One element of a key.
#[derive(Debug, Default)]
pub struct Element {
    /// The member of a set or sorted set, the element of a list, the name of a hash field.
    pub member: Vec<u8>,
    /// The score of a sorted set as Redis reads it, or the value of a hash field; empty otherwise.
    pub extra: Vec<u8>,
    score: f64,
}

/// What a row is to its key.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// An element, in the [`Element`] that was passed.
    Element,
    /// Nothing: its member, score or value is null and the route leaves nulls out.
    LeftOut,
    /// It cannot be carried; why, naming the column.
    Refused(String),
}

/// Makes the elements of one batch.
#[derive(Debug)]
pub struct Elements<'a> {
    bound: &'a BoundMany,
    layout: Layout,
    null: NullPolicy,
    member: KeyRenderer<'a>,
    score: Option<ScoreValues<'a>>,
    value: Option<RowValues<'a>>,
    score_column: &'a str,
}

impl<'a> Elements<'a> {
    /// Downcasts the columns of a batch. `bound` is `route.many`.
    pub fn new(
        rows: &'a RecordBatch,
        route: &'a BoundRoute,
        bound: &'a BoundMany,
    ) -> Result<Self, TypeMismatch> {
        let null = route.route.null;
        let member = bound.member.renderer(rows)?;
        let mut score_column = "";
        let score = match &bound.score {
            None => None,
            Some(score) => {
                let column = &route.schema.columns[score.index];
                score_column = &column.name;
                let array = rows.column(score.index).as_ref();
                Some(ScoreValues::new(array, &column.column_type, score.scale)?)
            }
        };
        let is_hash = route.route.layout == Layout::Hash;
        Ok(Self {
            bound,
            layout: route.route.layout,
            null,
            member: if null == NullPolicy::Empty { member.with_empty_nulls() } else { member },
            score,
            value: is_hash.then(|| RowValues::new(rows, route)).transpose()?,
            score_column,
        })
    }

    /// Makes the element of a row.
    pub fn make(&mut self, row: usize, out: &mut Element) -> Part {
        out.member.clear();
        out.extra.clear();
        match self.member.render(row, &mut out.member) {
            Ok(()) => {}
            Err(KeyError::Null { column }) => return self.null("member", column),
            Err(error) => return Part::Refused(error.of_member()),
        }
        if let Some(score) = &mut self.score {
            if score.is_null(row) {
                return self.null("score", self.score_column);
            }
            let Some(found) = score.score(row) else {
                let column = self.score_column;
                return Part::Refused(format!(
                    "score column {column} has a value that a double cannot hold exactly"
                ));
            };
            out.score = found;
            write_score(found, &mut out.extra);
        }
        if let Some(value) = &self.value {
            if self.null == NullPolicy::Omit && value.has_null(row) {
                return Part::LeftOut;
            }
            if let Err(refusal) = value.string(row, &mut out.extra) {
                return Part::Refused(refusal.to_string());
            }
        }
        Part::Element
    }

    /// A score has no empty text, so its null is refused unless it is left out.
    fn null(&self, what: &str, column: &str) -> Part {
        match self.null {
            NullPolicy::Omit => Part::LeftOut,
            NullPolicy::Empty | NullPolicy::Error => {
                Part::Refused(format!("{what} column {column} is null"))
            }
        }
    }

    /// Adds an element to a tally; an element that contradicts an earlier one is named by its kind.
    pub fn add(&self, element: &Element, tally: &mut Tally) {
        let hash = element_hash(self.layout, &element.member, &element.extra, element.score);
        if self.layout == Layout::List || self.bound.members_are_distinct {
            tally.push(hash, self.layout);
        } else {
            tally.push_seen(Seen { member: xxh3_128(&element.member), element: hash });
        }
    }
}

/// Hash of one element; the score counts by its bits, so that its text does not matter.
fn element_hash(layout: Layout, member: &[u8], extra: &[u8], score: f64) -> u64 {
    if layout == Layout::Set || layout == Layout::List {
        return xxh3_64(member);
    }
    let mut canonical = Vec::with_capacity(member.len() + extra.len() + 12);
    write_sized(member, &mut canonical);
    if layout == Layout::Zset {
        canonical.extend_from_slice(&score.to_bits().to_le_bytes());
    } else {
        canonical.extend_from_slice(extra);
    }
    xxh3_64(&canonical)
}

/// A member that was added, by its hash, and the hash of its element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    member: u128,
    element: u64,
}

/// What the elements of a key, or of a piece of it, add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Elements, each member once.
    count: u64,
    sum: u64,
    first: Option<Seen>,
    last: Option<Seen>,
    /// Members that came again with another score or value.
    contradictions: u64,
}

impl Tally {
    /// Elements, each member once.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Members that came again with another score or value than before.
    pub fn contradictions(&self) -> u64 {
        self.contradictions
    }

    /// The value hash of a key that has exactly these elements.
    pub fn value_hash(&self) -> u64 {
        let mut canonical = [0; 16];
        canonical[..8].copy_from_slice(&self.count.to_le_bytes());
        canonical[8..].copy_from_slice(&self.sum.to_le_bytes());
        xxh3_64(&canonical)
    }

    /// Adds the next entry of a stream, by the hash of its fields; the order counts, the ids do not.
    pub fn push_entry(&mut self, hash: u64) {
        self.push(hash, Layout::List);
    }

    fn push(&mut self, hash: u64, layout: Layout) {
        let sum = if layout == Layout::List { self.sum.wrapping_mul(STEP) } else { self.sum };
        self.sum = sum.wrapping_add(hash);
        self.count += 1;
    }

    /// Equal members follow each other, so the one before is the only one that can be equal.
    fn push_seen(&mut self, seen: Seen) {
        self.first.get_or_insert(seen);
        if let Some(last) = self.last.replace(seen).filter(|last| last.member == seen.member) {
            self.sum = self.sum.wrapping_sub(last.element);
            self.count -= 1;
            self.contradictions += u64::from(last.element != seen.element);
        }
        self.push(seen.element, Layout::Set);
    }

    /// Appends the elements that follow.
    pub fn append(&mut self, next: &Self, layout: Layout) {
        if next.count == 0 {
            return;
        }
        if layout == Layout::List {
            self.sum = self.sum.wrapping_mul(step_to(next.count));
        }
        if let (Some(last), Some(first)) = (self.last, next.first)
            && last.member == first.member
        {
            self.sum = self.sum.wrapping_sub(last.element);
            self.count -= 1;
            self.contradictions += u64::from(last.element != first.element);
        }
        self.sum = self.sum.wrapping_add(next.sum);
        self.count += next.count;
        self.contradictions += next.contradictions;
        self.first = self.first.or(next.first);
        self.last = next.last.or(self.last);
    }
}

/// `STEP` to the power of `count`, mod 2^64.
fn step_to(count: u64) -> u64 {
    let (mut power, mut base, mut rest) = (1_u64, STEP, count);
    while rest > 0 {
        if rest & 1 == 1 {
            power = power.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        rest >>= 1;
    }
    power
}

/// Adds up the elements of a key as they are read back.
#[derive(Debug)]
pub struct ReadBackTally {
    layout: Layout,
    tally: Tally,
}

impl ReadBackTally {
    /// Begins a key of a layout of many rows.
    pub fn new(layout: Layout) -> Self {
        Self { layout, tally: Tally::default() }
    }

    /// Adds an element: `extra` is the score or value as Redis gives it. Returns false where it is no score.
    pub fn add(&mut self, member: &[u8], extra: &[u8]) -> bool {
        let mut score = 0.0;
        if self.layout == Layout::Zset {
            let text = std::str::from_utf8(extra).ok();
            let Some(found) = text.and_then(|text| text.parse::<f64>().ok()) else { return false };
            score = if found == 0.0 { 0.0 } else { found };
        }
        self.tally.push(element_hash(self.layout, member, extra, score), self.layout);
        true
    }

    /// Elements added.
    pub fn count(&self) -> u64 {
        self.tally.count
    }

    /// The value hash of what was added.
    pub fn value_hash(&self) -> u64 {
        self.tally.value_hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tally(layout: Layout, elements: &[(u8, u8)]) -> Tally {
        let mut tally = Tally::default();
        for (member, extra) in elements {
            let hash = element_hash(layout, &[*member], &[*extra], f64::from(*extra));
            if layout == Layout::List {
                tally.push(hash, layout);
            } else {
                tally.push_seen(Seen { member: xxh3_128(&[*member]), element: hash });
            }
        }
        tally
    }

    fn read_back(layout: Layout, elements: impl Iterator<Item = (u8, u8)>) -> u64 {
        let mut tally = ReadBackTally::new(layout);
        for (member, extra) in elements {
            let text = extra.to_string().into_bytes();
            assert!(tally.add(
                &[member],
                if layout == Layout::Zset { &text } else { std::slice::from_ref(&extra) }
            ));
        }
        tally.value_hash()
    }

    proptest! {
        #[test]
        fn a_key_has_one_hash_however_it_is_cut(
            mut elements in prop::collection::vec((0..6_u8, 0..3_u8), 0..40),
            cuts in prop::collection::vec(0..40_usize, 0..6),
            layout in prop::sample::select(vec![Layout::Set, Layout::Zset, Layout::List, Layout::Hash]),
        ) {
            if layout != Layout::List {
                // Equal members follow each other; which is last among them stays.
                elements.sort_by_key(|(member, _)| *member);
            }
            let whole = tally(layout, &elements);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(elements.len())).collect();
            cuts.extend([0, elements.len()]);
            cuts.sort_unstable();
            let mut joined = Tally::default();
            for pair in cuts.windows(2) {
                joined.append(&tally(layout, &elements[pair[0]..pair[1]]), layout);
            }
            prop_assert_eq!(joined.value_hash(), whole.value_hash());
            prop_assert_eq!(joined.contradictions(), whole.contradictions());
            // What Redis holds in the end: each member once with its last score or value, in any order.
            if layout == Layout::List {
                prop_assert_eq!(read_back(layout, elements.iter().copied()), whole.value_hash());
            } else {
                let held: std::collections::BTreeMap<u8, u8> = elements.iter().copied().collect();
                prop_assert_eq!(held.len() as u64, whole.count());
                prop_assert_eq!(read_back(layout, held.into_iter().rev()), whole.value_hash());
            }
        }
    }

    #[test]
    fn order_counts_in_lists_alone() {
        let (forth, back) = ([(1, 0), (2, 0)], [(2, 0), (1, 0)]);
        let hash = |layout, elements: &[(u8, u8)]| read_back(layout, elements.iter().copied());
        assert_eq!(hash(Layout::Set, &forth), hash(Layout::Set, &back));
        assert_ne!(hash(Layout::List, &forth), hash(Layout::List, &back));
        assert_ne!(hash(Layout::List, &forth), hash(Layout::List, &[(1, 0), (2, 0), (2, 0)]));
        assert_ne!(hash(Layout::Zset, &forth), hash(Layout::Zset, &[(1, 1), (2, 0)]));
    }
}
