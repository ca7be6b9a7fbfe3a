//! A piece of a key: the elements of consecutive rows, ready to be sent under whatever name turns out to be right.
//!
//! Invariant: a segment holds the elements of one key only, and no more than one batch brings along.

use super::commands::Commands;
use crate::batch::Rejected;
use schemas::Position;
use schemas::layout::{Element, Tally};
use schemas::plan::Layout;

/// Elements in one command; bounds how long one command holds the server.
const ELEMENTS_MAX: u32 = 1_024;

/// When a key expires: when the last of its rows does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Expiry {
    /// No row yet.
    #[default]
    Unknown,
    /// At this time, milliseconds since 1970.
    At(i64),
    /// Never, because one row never does.
    Never,
}

impl Expiry {
    pub(super) fn of(expires_ms: Option<i64>) -> Self {
        expires_ms.map_or(Self::Never, Self::At)
    }

    pub(super) fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, known) | (known, Self::Unknown) => known,
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::At(a), Self::At(b)) => Self::At(a.max(b)),
        }
    }

    /// Milliseconds since 1970; 0 for never.
    pub(super) fn expires_ms(self) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::Unknown | Self::Never => 0,
        }
    }
}

/// Elements of one key from consecutive rows.
#[derive(Debug, Default)]
pub struct Segment {
    /// The key; empty where there is no segment.
    pub(super) key: Vec<u8>,
    /// Arguments, each a bulk string.
    pub(super) arguments: Vec<u8>,
    /// Where the arguments of each command end, and how many elements they are.
    pub(super) pieces: Vec<(usize, u32)>,
    pub(super) tally: Tally,
    /// Rows behind the elements, those of equal members included.
    pub(super) rows: u64,
    pub(super) expiry: Expiry,
}

impl Segment {
    /// Empties it for another key.
    pub(super) fn begin(&mut self, key: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.arguments.clear();
        self.pieces.clear();
        self.tally = Tally::default();
        self.rows = 0;
        self.expiry = Expiry::Unknown;
    }

    /// Rows whose member was there already.
    pub(super) fn folded(&self) -> u64 {
        self.rows.saturating_sub(self.tally.count())
    }

    /// Appends the arguments of one element.
    pub(super) fn push(&mut self, layout: Layout, element: &Element, expires_ms: Option<i64>) {
        use crate::transform::redis_command::resp::write_bulk;
        let out = &mut self.arguments;
        match layout {
            Layout::Zset => {
                write_bulk(&element.extra, out);
                write_bulk(&element.member, out);
            }
            Layout::Hash => {
                write_bulk(&element.member, out);
                write_bulk(&element.extra, out);
            }
            _ => write_bulk(&element.member, out),
        }
        match self.pieces.last_mut().filter(|(_, elements)| *elements < ELEMENTS_MAX) {
            Some((end, elements)) => (*end, *elements) = (out.len(), *elements + 1),
            None => self.pieces.push((out.len(), 1)),
        }
        self.rows += 1;
        self.expiry = self.expiry.later(Expiry::of(expires_ms));
    }

    /// Iterates over the arguments of each command and how many elements they are.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let mut start = 0;
        self.pieces.iter().map(move |&(end, elements)| {
            let arguments = &self.arguments[start..end];
            start = end;
            (arguments, elements)
        })
    }
}

/// A batch whose first and last key may go on in the batches beside it.
#[derive(Debug)]
pub struct OpenBatch {
    /// The key of the first rows, which the batch before may have begun.
    pub(super) head: Option<Segment>,
    /// The batch up to the last value of the column it is cut by, and from there on; one part where there is one value,
    /// or an end.
    pub(super) parts: Vec<Part>,
    /// The key of the last rows, which the next batch may go on with; absent where that is the head.
    pub(super) tail: Option<Segment>,
    /// Whether nothing follows.
    pub(super) is_last: bool,
    /// Bytes of the raw batch.
    pub(super) bytes_read: u64,
}

/// Some rows of a batch: what is finished in them.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) commands: Commands,
    pub(super) expired: u64,
    pub(super) left_out: u64,
    pub(super) rejected: Option<Rejected>,
    /// Where the partition is once this part is durable, and every key before it.
    pub(super) position: Position,
    /// Whether every key of the rows so far ends here.
    pub(super) ends_keys: bool,
}
