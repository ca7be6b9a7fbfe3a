//! Partitions of a spool: ranges of its keys, groups of its streams, id ranges of one large stream.
//!
//! Invariant: a function of the file alone; every record, and every id of a stream, is in exactly one partition.

use super::{Facts, Records};
use serde::{Deserialize, Serialize};
use stages::Result;
use stages::extract::redis_rows::{EntryId, StreamState};
use std::path::Path;

/// Rows of a partition, unless that would make too many partitions.
const ROWS_PER_PARTITION: u64 = 50_000;
/// Partitions of one spool.
const PARTITIONS_MAX: u64 = 2_000;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Where its first record begins in the file.
    pub offset: u64,
    /// Its records.
    pub records: u64,
    /// Rows in it, as far as is known beforehand.
    pub rows: u64,
    /// The entries of its only stream that are in it, both ends included: `ms`, `seq`, `ms`, `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<[u64; 4]>,
}

impl Cut {
    /// The entries of a stream that are in it; `last` is the last one of the stream.
    pub fn range(&self, last: EntryId) -> (EntryId, EntryId) {
        match self.ids {
            Some([from_ms, from_seq, to_ms, to_seq]) => {
                (EntryId { ms: from_ms, seq: from_seq }, EntryId { ms: to_ms, seq: to_seq })
            }
            None => (EntryId::MIN, last),
        }
    }
}

/// Cuts a checked file.
pub fn cut(path: &Path, facts: &Facts) -> Result<Vec<Cut>> {
    cut_by(path, facts, ROWS_PER_PARTITION)
}

fn cut_by(path: &Path, facts: &Facts, rows_min: u64) -> Result<Vec<Cut>> {
    let rows = facts.entries.max(facts.records);
    let rows_each = rows_min.max(rows.div_ceil(PARTITIONS_MAX));
    let mut records = Records::open(path, facts.records)?;
    let mut cuts = Vec::new();
    let mut open = Cut { offset: records.offset(), records: 0, rows: 0, ids: None };
    loop {
        let offset = records.offset();
        let Some(record) = records.next()? else { break };
        let rows = record.stream.map_or(1, |stream| stream.entries);
        let large = record.stream.filter(|stream| stream.entries > rows_each);
        if open.records > 0 && (large.is_some() || open.rows + rows > rows_each) {
            cuts.push(std::mem::replace(&mut open, Cut { offset, records: 0, rows: 0, ids: None }));
        }
        if let Some(stream) = large {
            cuts.extend(ranges(offset, stream, rows_each));
            open.offset = records.offset();
        } else {
            open.records += 1;
            open.rows += rows;
        }
    }
    if open.records > 0 {
        cuts.push(open);
    }
    Ok(cuts)
}

/// Cuts one stream evenly by its ids; they are times, so that is even where entries come evenly.
fn ranges(offset: u64, stream: StreamState, rows_each: u64) -> Vec<Cut> {
    let parts = stream.entries.div_ceil(rows_each);
    let (first, last) = (stream.first.number(), stream.last.number());
    let step = (last.saturating_sub(first) / u128::from(parts)).max(1);
    let mut cuts = Vec::new();
    let mut from = EntryId::MIN;
    for part in 1..=parts {
        let end = first.saturating_add(step.saturating_mul(u128::from(part)));
        let to = if part == parts { stream.last } else { EntryId::of_number(end.min(last)) };
        let ids = Some([from.ms, from.seq, to.ms, to.seq]);
        cuts.push(Cut { offset, records: 1, rows: stream.entries.div_ceil(parts), ids });
        match to.after() {
            Some(next) if to < stream.last => from = next,
            _ => break,
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;

    #[test]
    fn every_key_is_in_one_partition() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.keys");
        let mut writer = Writer::new(&path, false).unwrap();
        for number in 0..1_005 {
            writer.push(format!("log:{number:05}").as_bytes(), None).unwrap();
        }
        let facts = writer.finish().unwrap();
        let cuts = cut_by(&path, &facts, 100).unwrap();
        assert_eq!(cuts.len(), 11);
        let mut found = Vec::new();
        for cut in &cuts {
            let mut records = Records::open_at(&path, cut.offset, cut.records).unwrap();
            while let Some(record) = records.next().unwrap() {
                found.push(record.key);
            }
        }
        assert!(found.is_sorted() && found.len() == 1_005);
        assert_eq!(cut(&path, &facts).unwrap().len(), 1);
    }

    #[test]
    fn streams_are_grouped_and_a_large_one_is_cut_by_its_ids() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.keys");
        let mut writer = Writer::new(&path, true).unwrap();
        let id = |ms, seq| EntryId { ms, seq };
        let state = |entries, last| StreamState { entries, first: id(10, 0), last };
        for (key, entries, last) in [
            ("a", 40, id(50, 0)),
            ("b", 40, id(50, 0)),
            ("c", 1_000, id(1_010, 7)),
            ("d", 40, id(50, 0)),
            // All of one millisecond, and ids as near as can be.
            ("e", 300, id(10, 299)),
        ] {
            writer.push(key.as_bytes(), Some(state(entries, last))).unwrap();
        }
        let facts = writer.finish().unwrap();
        let cuts = cut_by(&path, &facts, 100).unwrap();
        let records: Vec<u64> = cuts.iter().map(|cut| cut.records).collect();
        assert_eq!(records, [&[2_u64][..], &[1; 10], &[1], &[1; 3]].concat());
        for (large, last) in [(&cuts[1..11], id(1_010, 7)), (&cuts[12..], id(10, 299))] {
            assert_eq!(large[0].range(last).0, EntryId::MIN);
            assert_eq!(large.last().unwrap().range(last).1, last);
            for pair in large.windows(2) {
                assert_eq!(pair[0].range(last).1.after(), Some(pair[1].range(last).0));
                assert_eq!(pair[0].offset, pair[1].offset);
            }
        }
        assert_eq!(cuts[0].range(id(50, 0)), (EntryId::MIN, id(50, 0)));
    }
}
