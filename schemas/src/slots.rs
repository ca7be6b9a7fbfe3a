//! The 16,384 slots of a cluster, and how they are cut into ranges.
//!
//! Invariant: every key has one slot, and the ranges of a cut cover every slot exactly once. Source: the specification of
//! Redis Cluster (key hash tags, CRC16 of XMODEM), and `redis-cli --cluster create`, which a cut agrees with.

use std::fmt;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// Consecutive slots, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRange {
    /// The first one.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// All slots, cut into one range per node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotCut {
    ranges: Vec<SlotRange>,
    /// First slots of all ranges but the first.
    starts: Vec<u16>,
}

impl SlotCut {
    /// Cuts the slots as `redis-cli --cluster create` does for so many primaries, from 1 to [`SLOTS`].
    ///
    /// The ends lie at the rounded multiples of `16384 / nodes`, computed with floats of 32 bits as there.
    pub fn even(nodes: u16) -> Self {
        let nodes = nodes.clamp(1, SLOTS);
        let per_node = f32::from(SLOTS) / f32::from(nodes);
        let (mut ranges, mut first, mut cursor) = (Vec::with_capacity(nodes.into()), 0_u16, 0_f32);
        for node in 1..=nodes {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 16,384"
            )]
            let end = (cursor + per_node - 1.0).round() as u16;
            let last = if node == nodes { SLOTS - 1 } else { end.min(SLOTS - 1) };
            ranges.push(SlotRange { first, last: last.max(first) });
            first = last.max(first) + 1;
            cursor += per_node;
        }
        let starts = ranges.iter().skip(1).map(|range| range.first).collect();
        Self { ranges, starts }
    }

    /// The ranges in order; node `i` has range `i`.
    pub fn ranges(&self) -> &[SlotRange] {
        &self.ranges
    }

    /// Returns the node that a key belongs to.
    #[inline]
    pub fn node_of(&self, key: &[u8]) -> usize {
        if self.starts.is_empty() {
            return 0;
        }
        let slot = slot_of(key);
        self.starts.partition_point(|start| *start <= slot)
    }
}

/// Returns the slot of a key: of its hash tag where it has one that is not empty, else of all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        let close = behind.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &behind[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM: polynomial 0x1021, nothing reflected, from 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) ^ u16::from(*byte))])
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut at: u16 = 0;
    while at < 256 {
        let mut crc = at << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[at as usize] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of the catalogue of CRCs, and what `CLUSTER KEYSLOT` answers.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        for whole in [&b"foo{}{bar}"[..], b"foo{bar", b"}{", b""] {
            assert_eq!(slot_of(whole), crc16(whole) % SLOTS);
        }
    }

    #[test]
    fn a_cut_is_that_of_the_cluster_tool() {
        let told = |nodes| SlotCut::even(nodes).ranges().iter().map(ToString::to_string).collect();
        let three: Vec<String> = told(3);
        assert_eq!(three, ["0-5460", "5461-10922", "10923-16383"]);
        let five: Vec<String> = told(5);
        assert_eq!(five, ["0-3276", "3277-6553", "6554-9829", "9830-13106", "13107-16383"]);
    }

    #[test]
    fn every_slot_belongs_to_one_node() {
        for nodes in [1, 2, 3, 7, 100, 1_000, SLOTS] {
            let cut = SlotCut::even(nodes);
            assert_eq!(cut.ranges().len(), usize::from(nodes));
            let mut next = 0;
            for range in cut.ranges() {
                assert!(range.first == next && range.last >= range.first, "{nodes}: {range}");
                next = range.last + 1;
            }
            assert_eq!(next, SLOTS);
            for key in 0..500 {
                let key = format!("key:{key}");
                let range = cut.ranges()[cut.node_of(key.as_bytes())];
                assert!((range.first..=range.last).contains(&slot_of(key.as_bytes())));
            }
        }
    }
}
