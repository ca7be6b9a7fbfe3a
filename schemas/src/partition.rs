//! Partitions and positions: what a lane works on and how far it has come.
//!
//! Invariant: a position is meaningful only inside its own partition and, for `Ctid`, only while the
//! relation keeps its `relfilenode`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Names one partition inside a run: `<route>/<ordinal>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionId(pub String);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far inside a partition everything is committed. Serialised as JSON in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Position {
    /// Nothing is committed yet.
    #[default]
    Start,
    /// Everything up to and including this heap tuple (block number, line pointer) is committed.
    Ctid {
        /// Block number.
        block: u32,
        /// Line pointer inside the block, from 1.
        offset: u16,
    },
    /// Everything up to and including this `split_by` value (its PostgreSQL text) is committed.
    Key {
        /// Canonical PostgreSQL text of the value.
        text: String,
    },
    /// Rows are committed but the cut has no order to continue from; a new attempt starts over.
    Unordered,
}

/// The filter that makes a partition. Serialised as JSON in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cut", rename_all = "snake_case")]
pub enum Bounds {
    /// Heap blocks `from_block..to_block` of one relation; the last range is open (`to_block` absent).
    Ctid {
        /// Qualified and quoted relation, for example `"public"."builds_2026"`.
        relation: String,
        /// First block.
        from_block: u32,
        /// First block of the next range; absent for the last one.
        to_block: Option<u32>,
    },
    /// `from < split_by <= to`, open where absent. Values are PostgreSQL text.
    Key {
        /// Lower bound, exclusive.
        from: Option<String>,
        /// Upper bound, inclusive.
        to: Option<String>,
    },
    /// Rows whose `split_by` is null.
    KeyNull,
    /// The whole table, view or query in one pass.
    Whole,
    /// One table partition of BigQuery, or a window of a table without them, for a backup.
    TablePartition {
        /// Its name in the duplicate.
        table_partition: String,
        /// The highest generation that was there when it was cut; attempts write higher ones.
        generation_base: u64,
    },
    /// Consecutive files of one table partition in an archive, which are read in place of the table.
    Files {
        /// Its name in the archive.
        table_partition: String,
        /// Which rewriting of it.
        generation: u64,
        /// First file.
        from: u32,
        /// First file behind the last one.
        to: u32,
    },
    /// Rows that a condition in the source's own SQL selects.
    Filter {
        /// The condition.
        condition: String,
    },
    /// Rows of one relation whose row version may be invisible to an earlier snapshot (`xmin` not before `since_xid`).
    ChangedSince {
        /// Qualified and quoted relation.
        relation: String,
        /// The `xmin` of the earliest snapshot used (`pg_snapshot_xmin`), a 64-bit transaction id.
        since_xid: u64,
    },
}

/// One unit of parallelism, checkpoint and retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its name in the journal.
    pub id: PartitionId,
    /// The route it belongs to.
    pub route: String,
    /// What it covers.
    pub bounds: Bounds,
    /// Estimated rows, for ordering and progress only.
    pub rows_estimate: u64,
    /// Estimated bytes on the wire, for ordering and progress only.
    pub bytes_estimate: u64,
    /// Newest `newest_by` value seen in a small sample, as microseconds since 1970; orders partitions only.
    pub newest_us: Option<i64>,
}
