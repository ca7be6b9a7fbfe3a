//! Which parts of the files each partition wrote: in memory, and as lines of JSON in a list that is only appended to.
//!
//! Invariant: an extent is in the list only after its bytes are in the file, and belongs to one attempt; what an attempt
//! before it wrote beyond its committed entries is in no partition any more.

use crate::batch::FilePart;
use crate::error::{Error, Kind, Result};
use schemas::PartitionId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Consecutive entries of one batch in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// What it holds.
    pub part: FilePart,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    partition: String,
    attempt: u64,
    /// Of an attempt that begins: the batches of earlier ones that it goes on behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<u64>,
    /// Of a batch: its number in the partition, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<u64>,
    /// Of a batch: node, offset, bytes, CRC, entries, and expiring ones of each extent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<[u64; 6]>,
}

/// Room in the files for one batch.
#[derive(Debug, Clone)]
pub(super) struct Reserved {
    partition: PartitionId,
    attempt: u64,
    batch: u64,
    pub(super) extents: Vec<Extent>,
}

/// What one partition wrote.
#[derive(Debug, Default)]
struct Segment {
    attempt: u64,
    /// The number of the next batch.
    next: u64,
    batches: BTreeMap<u64, Vec<Extent>>,
}

/// What all partitions wrote, and how long each file is.
#[derive(Debug)]
pub(super) struct Extents {
    segments: HashMap<PartitionId, Segment>,
    lengths: Vec<u64>,
}

impl Extents {
    /// Nothing, in so many files that each begin with so many bytes.
    pub(super) fn new(files: usize, header_bytes: u64) -> Self {
        Self { segments: HashMap::new(), lengths: vec![header_bytes; files] }
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.lengths.iter().sum()
    }

    /// Takes a line that was read from the list; `None` where it cannot be right.
    pub(super) fn replay(&mut self, line: &Line) -> Option<()> {
        let segment = self.segments.entry(PartitionId(line.partition.clone())).or_default();
        match (line.kept, line.batch) {
            (Some(kept), None) => segment.begin(line.attempt, kept),
            (None, Some(batch)) => {
                let extents: Vec<Extent> =
                    line.parts.iter().map(extent).collect::<Option<Vec<_>>>()?;
                for Extent { offset, part } in &extents {
                    let length = self.lengths.get_mut(usize::from(part.node))?;
                    *length = (*length).max(offset.checked_add(part.bytes)?);
                }
                segment.add(line.attempt, batch, extents);
            }
            _ => return None,
        }
        Some(())
    }

    /// Begins an attempt behind the batches that hold exactly so many entries; returns the line that says so.
    pub(super) fn begin(&mut self, partition: &PartitionId, entries: u64) -> Result<Line> {
        let segment = self.segments.entry(partition.clone()).or_default();
        let kept = segment.kept(entries).ok_or_else(|| {
            let message =
                format!("the rdb files lack entries of partition {partition} that were committed");
            Error::new(Kind::Internal, message)
                .with_hint("rekindle rebuild redis --to-rdb DIR --fresh")
        })?;
        let attempt = segment.attempt + 1;
        segment.begin(attempt, kept);
        let partition = partition.0.clone();
        Ok(Line { partition, attempt, kept: Some(kept), batch: None, parts: Vec::new() })
    }

    /// Whether the list has batches of a partition that hold exactly so many entries.
    pub(super) fn holds(&self, partition: &PartitionId, entries: u64) -> Option<Vec<Extent>> {
        let Some(segment) = self.segments.get(partition) else {
            return (entries == 0).then(Vec::new);
        };
        let kept = segment.kept(entries)?;
        Some(segment.batches.range(..kept).flat_map(|(_, extents)| extents.clone()).collect())
    }

    /// Takes room for the next batch of a partition.
    pub(super) fn reserve(
        &mut self,
        partition: &PartitionId,
        parts: &[FilePart],
    ) -> Result<Reserved> {
        let Some(segment) = self.segments.get_mut(partition) else {
            let message = format!("partition {partition} was not begun");
            return Err(Error::new(Kind::Internal, message));
        };
        let mut extents = Vec::with_capacity(parts.len());
        for part in parts {
            let Some(length) = self.lengths.get_mut(usize::from(part.node)) else {
                return Err(Error::new(Kind::Internal, "a batch is for a file that is not there"));
            };
            extents.push(Extent { offset: *length, part: *part });
            *length += part.bytes;
        }
        let batch = segment.next;
        segment.next += 1;
        Ok(Reserved { partition: partition.clone(), attempt: segment.attempt, batch, extents })
    }

    /// Adds a batch whose bytes are in the files; one of an attempt that is over is passed by.
    pub(super) fn add(&mut self, reserved: Reserved) {
        let Reserved { partition, attempt, batch, extents } = reserved;
        if let Some(segment) = self.segments.get_mut(&partition) {
            segment.add(attempt, batch, extents);
        }
    }

    /// What a partition wrote, in order.
    pub(super) fn batches(&self, partition: &PartitionId) -> Vec<Vec<Extent>> {
        let segment = self.segments.get(partition);
        segment.map(|segment| segment.batches.values().cloned().collect()).unwrap_or_default()
    }

    /// The same in other places, as the lines of a new list; partitions that are not named are left out.
    pub(super) fn moved(
        &self,
        partitions: &[PartitionId],
        place: impl Fn(&Extent) -> u64,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        for partition in partitions {
            let name = || partition.0.clone();
            let begun = Line {
                partition: name(),
                attempt: 1,
                kept: Some(0),
                batch: None,
                parts: Vec::new(),
            };
            lines.push(begun);
            for (batch, extents) in (0..).zip(self.batches(partition)) {
                let parts = extents.iter().map(|e| numbers(&Extent { offset: place(e), ..*e }));
                let parts = parts.collect();
                lines.push(Line {
                    partition: name(),
                    attempt: 1,
                    kept: None,
                    batch: Some(batch),
                    parts,
                });
            }
        }
        lines
    }
}

impl Segment {
    fn begin(&mut self, attempt: u64, kept: u64) {
        self.batches.split_off(&kept);
        (self.attempt, self.next) = (attempt, kept);
    }

    fn add(&mut self, attempt: u64, batch: u64, extents: Vec<Extent>) {
        if attempt == self.attempt {
            self.batches.insert(batch, extents);
        }
    }

    /// How many batches hold exactly so many entries; they have to be the first ones, without a gap.
    fn kept(&self, entries: u64) -> Option<u64> {
        let (mut kept, mut held) = (0, 0);
        for (number, extents) in &self.batches {
            if held == entries || *number != kept {
                break;
            }
            held += extents.iter().map(|extent| u64::from(extent.part.entries)).sum::<u64>();
            kept += 1;
        }
        (held == entries).then_some(kept)
    }
}

impl Reserved {
    /// The line that says so.
    pub(super) fn line(&self) -> Line {
        Line {
            partition: self.partition.0.clone(),
            attempt: self.attempt,
            kept: None,
            batch: Some(self.batch),
            parts: self.extents.iter().map(numbers).collect(),
        }
    }
}

fn numbers(extent: &Extent) -> [u64; 6] {
    let FilePart { node, entries, expiring, bytes, crc } = extent.part;
    [node.into(), extent.offset, bytes, crc, entries.into(), expiring.into()]
}

fn extent(numbers: &[u64; 6]) -> Option<Extent> {
    let [node, offset, bytes, crc, entries, expiring] = *numbers;
    let part = FilePart {
        node: node.try_into().ok()?,
        entries: entries.try_into().ok()?,
        expiring: expiring.try_into().ok()?,
        bytes,
        crc,
    };
    Some(Extent { offset, part })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(node: u16, entries: u32) -> FilePart {
        FilePart { node, entries, expiring: 0, bytes: u64::from(entries) * 10, crc: 7 }
    }

    fn id(name: &str) -> PartitionId {
        PartitionId(name.into())
    }

    fn entries_of(extents: &Extents, name: &str) -> Vec<u32> {
        extents.batches(&id(name)).iter().flatten().map(|extent| extent.part.entries).collect()
    }

    #[test]
    fn an_attempt_goes_on_behind_what_was_committed_and_nowhere_else() {
        let mut extents = Extents::new(2, 100);
        let mut lines = vec![extents.begin(&id("a/0"), 0).unwrap()];
        let mut write = |extents: &mut Extents, parts: &[FilePart]| {
            let reserved = extents.reserve(&id("a/0"), parts).unwrap();
            lines.push(reserved.line());
            extents.add(reserved.clone());
            reserved
        };
        write(&mut extents, &[part(0, 3), part(1, 1)]);
        let late = write(&mut extents, &[part(1, 2)]);
        write(&mut extents, &[part(0, 5)]);
        assert_eq!(extents.bytes(), 200 + 110);
        // 5 entries are no end of a batch, 4 and 6 are.
        assert!(extents.begin(&id("a/0"), 5).is_err());
        assert!(extents.holds(&id("a/0"), 5).is_none() && extents.holds(&id("b/0"), 1).is_none());
        assert_eq!(extents.holds(&id("a/0"), 6).map(|held| held.len()), Some(3));
        lines.push(extents.begin(&id("a/0"), 4).unwrap());
        // What an attempt that is over brings late counts for nothing.
        extents.add(late.clone());
        lines.push(late.line());
        assert_eq!(entries_of(&extents, "a/0"), [3, 1]);
        let reserved = extents.reserve(&id("a/0"), &[part(0, 9)]).unwrap();
        assert_eq!((reserved.batch, reserved.extents[0].offset), (1, 180));
        lines.push(reserved.line());
        extents.add(reserved);

        // AND the list says the same.
        let mut read = Extents::new(2, 100);
        for line in &lines {
            let text = serde_json::to_string(line).unwrap();
            read.replay(&serde_json::from_str(&text).unwrap()).unwrap();
        }
        assert_eq!(entries_of(&read, "a/0"), [3, 1, 9]);
        assert_eq!(read.lengths, extents.lengths);

        // AND so does the list of the same in other places.
        let mut moved = Extents::new(2, 100);
        for line in read.moved(&[id("a/0")], |extent| extent.offset + 1) {
            moved.replay(&line).unwrap();
        }
        assert_eq!(entries_of(&moved, "a/0"), [3, 1, 9]);
        assert_eq!(moved.holds(&id("a/0"), 13).unwrap()[0].offset, 101);
    }

    #[test]
    fn a_batch_that_is_missing_ends_what_is_kept() {
        let mut extents = Extents::new(1, 0);
        extents.begin(&id("a/0"), 0).unwrap();
        let first = extents.reserve(&id("a/0"), &[part(0, 1)]).unwrap();
        let second = extents.reserve(&id("a/0"), &[part(0, 1)]).unwrap();
        extents.add(second);
        assert!(extents.holds(&id("a/0"), 1).is_none());
        extents.add(first);
        assert_eq!(extents.holds(&id("a/0"), 2).map(|held| held.len()), Some(2));
    }

    #[test]
    fn lines_that_cannot_be_right_are_refused() {
        let mut extents = Extents::new(1, 0);
        let line = |text: &str| serde_json::from_str::<Line>(text).unwrap();
        for text in [
            r#"{"partition":"a/0","attempt":1}"#,
            r#"{"partition":"a/0","attempt":1,"batch":0,"parts":[[1,0,1,0,1,0]]}"#,
            r#"{"partition":"a/0","attempt":1,"batch":0,"parts":[[0,18446744073709551615,1,0,1,0]]}"#,
        ] {
            assert!(extents.replay(&line(text)).is_none(), "{text}");
        }
    }
}
