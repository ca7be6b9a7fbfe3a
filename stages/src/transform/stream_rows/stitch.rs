//! Numbers the entries of one partition, in order, and builds their stream under a temporary name.
//!
//! Invariant: entries are numbered from 1 without a gap, so a stream is whole exactly where it has as many entries as its
//! last id says. It is seen under its key only when it is whole, in the place of whatever was there.

use super::{OpenEntries, write_entry};
use crate::batch::{Encoded, Entry, Unit};
use crate::error::{Error, Kind, Result};
use crate::transform::many_rows::{FINISH_SCRIPT, TEMPORARY_TTL_MS, temporary_key};
use crate::transform::redis_command::resp;
use bytes::Bytes;
use schemas::Position;
use schemas::layout::Tally;
use schemas::plan::Layout;

/// The sequential state of one attempt at a partition.
#[derive(Debug)]
pub struct Stitcher {
    key: Vec<u8>,
    temporary: Vec<u8>,
    /// The entries sent so far.
    tally: Tally,
}

impl Stitcher {
    /// Begins a partition. `attempt` must name this attempt alone: what an earlier one still has on its way must not
    /// reach the stream of this one.
    pub(super) fn new(key: Vec<u8>, attempt: &str) -> Self {
        let temporary = temporary_key(&key, attempt, 0);
        Self { key, temporary, tally: Tally::default() }
    }

    /// Takes the next batch and returns what to send.
    pub(in crate::transform) fn take(&mut self, open: OpenEntries) -> Result<Encoded> {
        let mut payload = Vec::with_capacity(open.arguments.len() + open.entries.len() * 80);
        let mut temporary = Vec::new();
        let mut units = Vec::new();
        let written = open.entries.len();
        if written > 0 {
            let mut replies = written + 1;
            if self.tally.count() == 0 {
                // With its expiry in one transaction: whatever ends this process, no stream stays for good.
                payload.extend_from_slice(resp::MULTI);
                resp::write_array(2, &mut payload);
                payload.extend_from_slice(b"$6\r\nUNLINK\r\n");
                resp::write_bulk(&self.temporary, &mut payload);
                temporary.push(Bytes::copy_from_slice(&self.temporary));
                replies += 4;
            }
            let first = self.tally.count() + 1;
            for (number, (arguments, fields)) in (first..).zip(open.entries()) {
                write_entry(&self.temporary, number, arguments, fields, &mut payload);
                if number == 1 {
                    self.expire(&mut payload);
                    payload.extend_from_slice(resp::EXEC);
                }
            }
            self.expire(&mut payload);
            units.push(Unit { rows: narrow(written)?, folded: 0, replies: narrow(replies)? });
            self.tally.append(&open.tally, Layout::List);
        }
        Ok(Encoded {
            payload: Bytes::from(payload),
            units,
            rows_read: open.rows,
            bytes_read: open.bytes_read,
            carried: written as u64,
            rejected: open.rejected,
            digest: open.digest,
            // What is counted is committed with the end, and only then.
            is_settled: false,
            temporary,
            ..Encoded::empty()
        })
    }

    /// Ends the partition, whose source may not have known which batch is the last.
    pub(in crate::transform) fn end(&mut self) -> Result<Encoded> {
        // Without an order to continue from: another attempt replaces the stream.
        let mut end = Encoded { position: Position::Unordered, ..Encoded::empty() };
        if self.tally.count() == 0 {
            return Ok(end);
        }
        let mut payload = Vec::new();
        self.finish(&mut payload);
        end.payload = Bytes::from(payload);
        end.puts_in_place = true;
        end.units = vec![Unit { rows: 0, folded: 0, replies: 1 }];
        end.keys = Bytes::copy_from_slice(&self.key);
        end.entries = vec![Entry {
            key_end: narrow(self.key.len())?,
            value_hash: self.tally.value_hash(),
            expires_ms: 0,
        }];
        Ok(end)
    }

    fn expire(&self, out: &mut Vec<u8>) {
        resp::write_array(3, out);
        out.extend_from_slice(b"$7\r\nPEXPIRE\r\n");
        resp::write_bulk(&self.temporary, out);
        resp::write_integer(TEMPORARY_TTL_MS, out);
    }

    /// Puts the stream in its place, where it has every entry.
    fn finish(&self, out: &mut Vec<u8>) {
        resp::write_array(9, out);
        out.extend_from_slice(b"$4\r\nEVAL\r\n");
        resp::write_bulk(FINISH_SCRIPT.as_bytes(), out);
        out.extend_from_slice(b"$1\r\n2\r\n");
        resp::write_bulk(&self.temporary, out);
        resp::write_bulk(&self.key, out);
        resp::write_bulk(b"XLEN", out);
        resp::write_bulk(self.tally.count().to_string().as_bytes(), out);
        resp::write_integer(0, out);
        resp::write_bulk(b"replace", out);
    }
}

fn narrow(number: usize) -> Result<u32> {
    u32::try_from(number)
        .map_err(|_| Error::new(Kind::Internal, "a batch of a stream exceeds 4 billion entries"))
}
