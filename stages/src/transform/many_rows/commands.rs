//! The commands of keys of many rows.
//!
//! Invariant: a key that is written at once is written by one transaction or script; a key that is built piece by
//! piece is seen under its name only when it is finished.

use super::script::{FINISH_SCRIPT, KEEP_ELEMENTS_SHA1};
use super::segment::{Expiry, Segment};
use crate::batch::{Entry, Unit};
use crate::error::{Error, Kind, Result};
use crate::transform::Style;
use crate::transform::redis_command::resp;
use schemas::Digest;
use schemas::digest::entry_hash;
use schemas::layout::Tally;
use schemas::plan::Layout;

/// What temporary keys begin with.
pub const TEMPORARY_PREFIX: &str = "rekindle:tmp:";
/// How long a temporary key stays after the last piece of it, should nobody finish or remove it.
pub(in crate::transform) const TEMPORARY_TTL_MS: i64 = 3_600_000;
/// Rows in one transaction: enough to make what surrounds them cheap, few enough not to hold the server.
const TRANSACTION_ROWS_MAX: u64 = 64;

/// How keys of a route are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) layout: Layout,
    pub(super) style: Style,
}

impl Manner {
    fn verb(self) -> &'static [u8] {
        match self.layout {
            Layout::Set => b"SADD",
            Layout::Zset => b"ZADD",
            Layout::List => b"RPUSH",
            _ => b"HSET",
        }
    }

    fn counting_verb(self) -> &'static [u8] {
        match self.layout {
            Layout::Set => b"SCARD",
            Layout::Zset => b"ZCARD",
            Layout::List => b"LLEN",
            _ => b"HLEN",
        }
    }

    fn arguments_per_element(self) -> usize {
        if matches!(self.layout, Layout::Zset | Layout::Hash) { 2 } else { 1 }
    }
}

/// Commands of whole keys, and what the ledger has to know of them.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) payload: Vec<u8>,
    pub(super) units: Vec<Unit>,
    pub(super) keys: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    /// Sum over the keys.
    pub(super) digest: Digest,
    /// Rows behind all of it.
    pub(super) rows: u64,
    /// Temporary keys that are begun.
    pub(super) temporary: Vec<Vec<u8>>,
    /// Whether one is put in its place.
    pub(super) puts_in_place: bool,
    open_rows: u64,
    open_folded: u64,
    open_replies: u32,
}

impl Commands {
    /// Writes a whole key.
    pub(super) fn whole(&mut self, manner: Manner, segment: &Segment) -> Result<()> {
        let expires_ms = segment.expiry.expires_ms();
        match manner.style {
            Style::Keep => self.keep(manner, segment, expires_ms)?,
            Style::Blank if expires_ms == 0 && segment.pieces.len() == 1 => {
                self.end_transaction()?;
                self.add(manner, &segment.key, segment);
                self.unit(segment.rows, segment.folded(), 1)?;
            }
            Style::Blank | Style::Exact | Style::Newest => {
                self.begin_transaction();
                if manner.style != Style::Blank {
                    self.unlink(&segment.key);
                }
                self.open_replies += self.add(manner, &segment.key, segment);
                if expires_ms != 0 {
                    self.expire(b"PEXPIREAT", &segment.key, expires_ms);
                }
                self.open_rows += segment.rows;
                self.open_folded += segment.folded();
                if self.open_rows >= TRANSACTION_ROWS_MAX {
                    self.end_transaction()?;
                }
            }
        }
        self.record(&segment.key, &segment.tally, segment.expiry, segment.rows)
    }

    /// Writes a piece of a key under a temporary name, the first one in the place of whatever is there.
    pub(super) fn piece(
        &mut self,
        manner: Manner,
        temporary: &[u8],
        is_first: bool,
        segment: &Segment,
    ) -> Result<()> {
        self.end_transaction()?;
        self.begin_transaction();
        if is_first {
            self.unlink(temporary);
            self.temporary.push(temporary.to_vec());
        }
        self.open_replies += self.add(manner, temporary, segment);
        self.expire(b"PEXPIRE", temporary, TEMPORARY_TTL_MS);
        // Its rows count once the key is finished.
        self.end_transaction()
    }

    /// Puts a finished key in its place.
    pub(super) fn finish(
        &mut self,
        manner: Manner,
        temporary: &[u8],
        whole: &Segment,
    ) -> Result<()> {
        self.end_transaction()?;
        self.puts_in_place = true;
        let out = &mut self.payload;
        resp::write_array(9, out);
        out.extend_from_slice(b"$4\r\nEVAL\r\n");
        resp::write_bulk(FINISH_SCRIPT.as_bytes(), out);
        out.extend_from_slice(b"$1\r\n2\r\n");
        resp::write_bulk(temporary, out);
        resp::write_bulk(&whole.key, out);
        resp::write_bulk(manner.counting_verb(), out);
        resp::write_bulk(whole.tally.count().to_string().as_bytes(), out);
        resp::write_integer(whole.expiry.expires_ms(), out);
        let is_keep = manner.style == Style::Keep;
        resp::write_bulk(if is_keep { b"keep" } else { b"replace" }, out);
        self.unit(whole.rows, whole.folded(), 1)?;
        self.record(&whole.key, &whole.tally, whole.expiry, whole.rows)
    }

    /// Ends what is open, so that units and payload are whole.
    pub(super) fn end_transaction(&mut self) -> Result<()> {
        if self.open_replies == 0 {
            return Ok(());
        }
        self.payload.extend_from_slice(resp::EXEC);
        // MULTI and EXEC answer once each, and every command between them with QUEUED.
        let (rows, folded, replies) = (self.open_rows, self.open_folded, 2 + self.open_replies);
        (self.open_rows, self.open_folded, self.open_replies) = (0, 0, 0);
        self.unit(rows, folded, replies)
    }

    fn begin_transaction(&mut self) {
        if self.open_replies == 0 {
            self.payload.extend_from_slice(resp::MULTI);
        }
    }

    /// `EVALSHA` of the script that writes only where nothing is.
    fn keep(&mut self, manner: Manner, segment: &Segment, expires_ms: i64) -> Result<()> {
        let elements: usize = segment.pieces().map(|(_, elements)| elements as usize).sum();
        let out = &mut self.payload;
        resp::write_array(6 + elements * manner.arguments_per_element(), out);
        out.extend_from_slice(b"$7\r\nEVALSHA\r\n");
        resp::write_bulk(KEEP_ELEMENTS_SHA1.as_bytes(), out);
        out.extend_from_slice(b"$1\r\n1\r\n");
        resp::write_bulk(&segment.key, out);
        resp::write_bulk(manner.verb(), out);
        resp::write_integer(expires_ms, out);
        out.extend_from_slice(&segment.arguments);
        self.unit(segment.rows, segment.folded(), 1)
    }

    /// Adds the elements to a key; returns how many commands that takes.
    fn add(&mut self, manner: Manner, key: &[u8], segment: &Segment) -> u32 {
        let out = &mut self.payload;
        let mut commands = 0;
        for (arguments, elements) in segment.pieces() {
            resp::write_array(2 + elements as usize * manner.arguments_per_element(), out);
            resp::write_bulk(manner.verb(), out);
            resp::write_bulk(key, out);
            out.extend_from_slice(arguments);
            commands += 1;
        }
        commands
    }

    fn unlink(&mut self, key: &[u8]) {
        self.payload.extend_from_slice(b"*2\r\n$6\r\nUNLINK\r\n");
        resp::write_bulk(key, &mut self.payload);
        self.open_replies += 1;
    }

    fn expire(&mut self, verb: &[u8], key: &[u8], ms: i64) {
        resp::write_array(3, &mut self.payload);
        resp::write_bulk(verb, &mut self.payload);
        resp::write_bulk(key, &mut self.payload);
        resp::write_integer(ms, &mut self.payload);
        self.open_replies += 1;
    }

    fn unit(&mut self, rows: u64, folded: u64, replies: u32) -> Result<()> {
        let narrow = |rows: u64| {
            u32::try_from(rows)
                .map_err(|_| Error::new(Kind::Internal, "a key of more than 4 billion rows"))
        };
        self.units.push(Unit { rows: narrow(rows)?, folded: narrow(folded)?, replies });
        Ok(())
    }

    /// Notes a key that the commands so far complete.
    fn record(&mut self, key: &[u8], tally: &Tally, expiry: Expiry, rows: u64) -> Result<()> {
        self.keys.extend_from_slice(key);
        let key_end = u32::try_from(self.keys.len())
            .map_err(|_| Error::new(Kind::Internal, "the keys of a batch exceed 4 GiB"))?;
        let value_hash = tally.value_hash();
        self.entries.push(Entry { key_end, value_hash, expires_ms: expiry.expires_ms() });
        self.digest.add_row(entry_hash(key, value_hash));
        self.rows += rows;
        Ok(())
    }
}
