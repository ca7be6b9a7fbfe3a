//! Rows into the entries of streams: the rows of one partition make one stream.
//!
//! Invariant: every row read becomes exactly one of an entry and a reject. What a batch alone cannot tell, the number of
//! entries before it, is left to the [`Stitcher`], which sees the batches in order.

mod stitch;
#[cfg(test)]
mod tests;

pub use stitch::Stitcher;

use super::redis_command::{mismatch, rejected, resp};
use super::{Attempt, Decoder, Open, Transform};
use crate::batch::{Encoded, RawBatch, Rejected, Unit};
use crate::error::Result;
use crate::transform::copy_binary::Decoded;
use bytes::Bytes;
use schemas::digest::RowHasher;
use schemas::layout::{HashFields, RowRefusal, RowValues, Tally};
use schemas::{BoundRoute, Digest};
use std::io::Write;
use std::sync::Arc;

/// Encodes raw batches as entries, whose ids and key are still to come.
#[derive(Debug)]
pub struct StreamRows {
    bound: Arc<BoundRoute>,
    decoder: Decoder,
    /// `$<length>\r\n<name>\r\n` of every field.
    field_headers: Vec<Vec<u8>>,
}

/// The entries of one batch, in order.
#[derive(Debug, Default)]
pub struct OpenEntries {
    /// Names and values of the fields, each a bulk string.
    arguments: Vec<u8>,
    /// Where the arguments of each entry end, and how many fields it has.
    entries: Vec<(usize, usize)>,
    tally: Tally,
    digest: Digest,
    rows: u64,
    bytes_read: u64,
    rejected: Option<Rejected>,
}

/// The rows of one batch as a comparison wants them.
#[derive(Debug, Default)]
pub struct RowHashes {
    /// The long hash of the fields of each row that makes an entry.
    pub hashes: Vec<u128>,
    /// Rows decoded.
    pub rows: u64,
    /// Rows that could not be carried.
    pub rejects: u64,
    /// Bytes that the raw batch counts for.
    pub bytes_read: u64,
}

impl StreamRows {
    /// Makes the transform of a route whose rows are entries.
    pub fn new(bound: Arc<BoundRoute>, decoder: impl Into<Decoder>) -> Self {
        let header = |name: &str| {
            let mut header = Vec::new();
            resp::write_bulk(name.as_bytes(), &mut header);
            header
        };
        let field_headers = bound.fields.iter().map(|field| header(&field.name)).collect();
        Self { bound, decoder: decoder.into(), field_headers }
    }

    /// Hashes the rows of a batch as a read of their entries does.
    pub fn hashes(&self, raw: &RawBatch) -> Result<RowHashes> {
        let decoded = self.decoder.decode(raw, &self.bound.schema)?;
        let mut found = RowHashes { bytes_read: raw.bytes_read, ..RowHashes::default() };
        let refused = self.each(&decoded, &mut |fields| found.hashes.push(fields.long_hash()))?;
        (found.rows, found.rejects) = (decoded.rows.num_rows() as u64, refused.len() as u64);
        Ok(found)
    }

    /// Encodes one row as if it were the first of the first stream, for showing it.
    pub fn shown(&self, raw: &RawBatch) -> Result<Encoded> {
        let open = self.open(raw)?;
        let mut payload = Vec::new();
        let carried = open.entries.len() as u64;
        for (arguments, fields) in open.entries() {
            write_entry(&self.bound.route.stream_key(0), 1, arguments, fields, &mut payload);
        }
        Ok(Encoded {
            payload: Bytes::from(payload),
            units: vec![Unit { rows: 1, folded: 0, replies: 1 }],
            rows_read: open.rows,
            bytes_read: open.bytes_read,
            carried,
            rejected: open.rejected,
            ..Encoded::empty()
        })
    }

    fn open(&self, raw: &RawBatch) -> Result<OpenEntries> {
        let decoded = self.decoder.decode(raw, &self.bound.schema)?;
        let mut hasher = RowHasher::new(&decoded.rows, &self.bound).map_err(mismatch)?;
        let mut open = OpenEntries {
            arguments: Vec::with_capacity(raw.bytes.len() * 2),
            rows: decoded.rows.num_rows() as u64,
            bytes_read: raw.bytes_read,
            ..OpenEntries::default()
        };
        let refused = self.each(&decoded, &mut |fields| {
            for (field, value) in fields.iter() {
                open.arguments.extend_from_slice(&self.field_headers[field]);
                resp::write_bulk(value, &mut open.arguments);
            }
            open.entries.push((open.arguments.len(), fields.iter().len()));
            open.tally.push_entry(fields.value_hash());
        })?;
        // The digest covers every row that could be decoded, as that of other layouts does.
        let mut bad = decoded.bad.iter().map(|bad| bad.row).peekable();
        for row in 0..decoded.rows.num_rows() {
            if bad.next_if_eq(&row).is_none() {
                open.digest.add_row(hasher.hash(row));
            }
        }
        open.rejected = rejected(&decoded, refused, &self.bound.schema)?;
        Ok(open)
    }

    /// Hands the fields of every row that makes an entry to `take`; returns the rows refused, and why.
    fn each(
        &self,
        decoded: &Decoded,
        take: &mut dyn FnMut(&HashFields),
    ) -> Result<Vec<(usize, String)>> {
        let values = RowValues::new(&decoded.rows, &self.bound).map_err(mismatch)?;
        let mut bad = decoded.bad.iter().peekable();
        let mut fields = HashFields::default();
        let mut refused = Vec::new();
        for row in 0..decoded.rows.num_rows() {
            if let Some(bad) = bad.next_if(|bad| bad.row == row) {
                refused.push((row, bad.reason.clone()));
                continue;
            }
            match values.hash_fields(row, &mut fields) {
                Ok(()) => take(&fields),
                Err(RowRefusal::EmptyHash) => {
                    let reason = "every field is null, redis cannot hold an entry without fields";
                    refused.push((row, reason.to_owned()));
                }
                Err(refusal) => refused.push((row, refusal.to_string())),
            }
        }
        Ok(refused)
    }
}

impl Transform for StreamRows {
    fn apply(&self, raw: RawBatch, _now_ms: i64) -> Result<Encoded> {
        let open = self.open(&raw)?;
        Ok(Encoded { open: Some(Open::Entries(Box::new(open))), ..Encoded::empty() })
    }

    fn stitcher(&self, attempt: &Attempt<'_>) -> Option<super::Stitcher> {
        let key = self.bound.route.stream_key(attempt.number);
        Some(super::Stitcher::Entries(Stitcher::new(key, attempt.name)))
    }
}

impl OpenEntries {
    /// Iterates over the arguments of each entry and how many fields it has.
    fn entries(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let mut start = 0;
        self.entries.iter().map(move |&(end, fields)| {
            let arguments = &self.arguments[start..end];
            start = end;
            (arguments, fields)
        })
    }
}

/// `XADD key <number>-0 field value …`.
fn write_entry(key: &[u8], number: u64, arguments: &[u8], fields: usize, out: &mut Vec<u8>) {
    resp::write_array(3 + 2 * fields, out);
    out.extend_from_slice(b"$4\r\nXADD\r\n");
    resp::write_bulk(key, out);
    // Twenty digits and two characters at most, so the write cannot fail.
    let mut id = [0; 22];
    let mut rest = &mut id[..];
    let room = rest.len();
    let written = write!(rest, "{number}-0").map_or(0, |()| room - rest.len());
    resp::write_bulk(&id[..written], out);
    out.extend_from_slice(arguments);
}
