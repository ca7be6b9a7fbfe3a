//! What travels between the stages: raw source bytes in, wire-format target bytes out.
//!
//! Invariant: `Encoded::rows_read == carried + left_out + expired + rejected` for every batch.

use crate::transform::Open;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use schemas::{Digest, Position};

/// Source bytes of consecutive rows, exactly as the wire carried them.
#[derive(Debug)]
pub struct RawBatch {
    /// Whole rows, back to back, in the source's wire format.
    pub bytes: Bytes,
    /// Number of rows in `bytes`.
    pub rows: usize,
    /// Whether this is the last batch of its partition (a cut by key may only complete a value then).
    pub is_last: bool,
    /// What it counts for of the bytes that the source sent: its length, or a share where several routes were read in
    /// one pass.
    pub bytes_read: u64,
}

impl RawBatch {
    /// Makes a batch of rows that were sent for one route alone.
    pub fn new(bytes: Bytes, rows: usize, is_last: bool) -> Self {
        let bytes_read = bytes.len() as u64;
        Self { bytes, rows, is_last, bytes_read }
    }

    /// The same batch again; its bytes are shared.
    #[must_use]
    pub fn share(&self) -> Self {
        let Self { bytes, rows, is_last, bytes_read } = self;
        Self { bytes: bytes.clone(), rows: *rows, is_last: *is_last, bytes_read: *bytes_read }
    }
}

/// One entry that a batch writes, for the ledger and the read-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// End of the key in `Encoded::keys`; it starts where the previous one ends.
    pub key_end: u32,
    /// xxh3-64 of the canonical entry value (see `schemas::layout`), expiry not included.
    pub value_hash: u64,
    /// Absolute expiry in milliseconds since 1970; 0 when it never expires.
    pub expires_ms: i64,
}

/// Rows of a batch that could not be carried.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The rejected rows in the source schema (values that could not be decoded are null).
    pub rows: RecordBatch,
    /// The rows as the wire carried them.
    pub raw: Vec<Bytes>,
    /// Why, one per row; names the column, never a value.
    pub reasons: Vec<String>,
}

/// Replies that belong together: a plain command (1 row, 1 reply) or a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Rows written by it.
    pub rows: u32,
    /// Those of them that are members which were there already.
    pub folded: u32,
    /// Top-level replies it causes.
    pub replies: u32,
}

/// The entries of a batch that belong into one file, where the target is files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePart {
    /// Which file, by the number of its node.
    pub node: u16,
    /// Entries.
    pub entries: u32,
    /// Those of them that expire.
    pub expiring: u32,
    /// Bytes of them in the payload.
    pub bytes: u64,
    /// CRC-64 of those bytes.
    pub crc: u64,
}

/// What a transform makes of a raw batch: bytes ready for the target.
#[derive(Debug)]
pub struct Encoded {
    /// How far the partition has come once this batch is durable.
    pub position: Position,
    /// Commands in the target's wire format, or entries in the format of its file.
    pub payload: Bytes,
    /// How the replies group; empty means one row and one reply per entry.
    pub units: Vec<Unit>,
    /// Where the target is files: what the payload is made of, in its order; none is without entries.
    pub parts: Vec<FilePart>,
    /// Whether a null or zero reply means that the key existed and was left alone (`keep`, `newest`).
    pub may_keep: bool,
    /// Rows decoded.
    pub rows_read: u64,
    /// Bytes that the raw batch counts for.
    pub bytes_read: u64,
    /// Rows behind the commands: one per entry, or the rows that make the keys.
    pub carried: u64,
    /// Rows of which nothing is written, because the route leaves out what is null.
    pub left_out: u64,
    /// Rows skipped because their expiry has passed.
    pub expired: u64,
    /// Keys of the entries, concatenated.
    pub keys: Bytes,
    /// One per key, in payload order.
    pub entries: Vec<Entry>,
    /// The version of each entry, as [`schemas::version::VersionKind::rank`] takes it; empty where the route has none.
    pub versions: Vec<i64>,
    /// Rows that could not be carried.
    pub rejected: Option<Rejected>,
    /// Digest of every row decoded, rejected and expired ones included; of the keys where many rows make one.
    pub digest: Digest,
    /// Whether what is counted may be committed with the position; otherwise it counts with the batch that follows.
    pub is_settled: bool,
    /// Temporary keys that the commands begin.
    pub temporary: Vec<Bytes>,
    /// Whether the commands put a key in its place that was built under a temporary name.
    pub puts_in_place: bool,
    /// Present where the batch is still to be stitched to those beside it; everything else is empty then.
    pub open: Option<Open>,
}

impl Encoded {
    /// A batch of nothing.
    pub fn empty() -> Self {
        Self {
            position: Position::Start,
            payload: Bytes::new(),
            units: Vec::new(),
            parts: Vec::new(),
            may_keep: false,
            rows_read: 0,
            bytes_read: 0,
            carried: 0,
            left_out: 0,
            expired: 0,
            keys: Bytes::new(),
            entries: Vec::new(),
            versions: Vec::new(),
            rejected: None,
            digest: Digest::default(),
            is_settled: true,
            temporary: Vec::new(),
            puts_in_place: false,
            open: None,
        }
    }

    /// Iterates over keys and entries in payload order.
    pub fn keyed(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let key = &self.keys[start..entry.key_end as usize];
            start = entry.key_end as usize;
            (key, entry)
        })
    }
}
