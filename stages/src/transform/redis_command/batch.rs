//! One batch on its way from decoded rows to commands.
//!
//! Invariant: buffers are per batch; nothing is allocated per row that is written. What a row's key or
//! value is refused for leaves no byte in the output.

mod document;
mod file;
mod group;
mod newest;

use super::{KEEP_HASH_SHA1, RedisCommands, Style, resp};
use crate::batch::{Encoded, Entry, RawBatch, Rejected, Unit};
use crate::error::{Error, Kind, Result};
use crate::transform::arrow_ipc;
use crate::transform::copy_binary::{BadRow, Decoded, LastLead, Lead};
use arrow::array::UInt64Array;
use arrow::compute::take_record_batch;
use bytes::Bytes;
use file::NodeEntries;
use group::{GROUP_ROWS_MAX, Group, MSET_HEAD};
use schemas::digest::RowHasher;
use schemas::key::KeyRenderer;
use schemas::layout::{Documents, ExpiryTimes, HashFields, RowValues, string_value_hash};
use schemas::plan::Layout;
use schemas::text::TypeMismatch;
use schemas::version::RowVersions;
use schemas::{Digest, Position, TableSchema};

pub(super) struct BatchEncoder<'a> {
    commands: &'a RedisCommands,
    decoded: &'a Decoded,
    now_ms: i64,
    key: KeyRenderer<'a>,
    values: RowValues<'a>,
    expiry: ExpiryTimes<'a>,
    versions: RowVersions<'a>,
    hasher: RowHasher<'a>,
    bad: std::iter::Peekable<std::slice::Iter<'a, BadRow>>,
    /// The value of the row at hand.
    value: Vec<u8>,
    fields: HashFields,
    documents: Documents,
    /// The `RESTORE` payload of the row at hand, or its hash as a file has it.
    dump: Vec<u8>,
    /// One per file; none where commands are written.
    nodes: Vec<NodeEntries>,
    group: Group,
    /// Rows and commands of the open group, and where it starts in the payload.
    open_rows: u32,
    open_commands: u32,
    open_at: usize,
    /// What follows the keys of an open call, and how many arguments that is.
    arguments: Vec<u8>,
    open_arguments: usize,
    payload: Vec<u8>,
    units: Vec<Unit>,
    keys: Vec<u8>,
    entries: Vec<Entry>,
    /// One per entry where the route compares versions.
    entry_versions: Vec<i64>,
    /// The digits of the version of the row at hand.
    digits: Vec<u8>,
    expired: u64,
    digest: Digest,
    rejected: Vec<(usize, String)>,
}

impl<'a> BatchEncoder<'a> {
    pub(super) fn new(
        commands: &'a RedisCommands,
        decoded: &'a Decoded,
        bytes_read: usize,
        now_ms: i64,
    ) -> Result<Self> {
        let bound = &*commands.bound;
        let row_count = decoded.rows.num_rows();
        let group = match (bound.route.layout, commands.style) {
            _ if commands.files.is_some() => Group::None,
            (_, Style::Newest) => Group::Call,
            (Layout::Hash, _) if commands.dump.is_some() => Group::None,
            (Layout::Hash | Layout::RedisJson, Style::Blank) if bound.expiry.is_none() => {
                Group::None
            }
            (Layout::Hash | Layout::RedisJson, Style::Blank | Style::Exact) => Group::Transaction,
            (Layout::String | Layout::Json, Style::Blank | Style::Exact)
                if bound.expiry.is_none() =>
            {
                Group::Mset
            }
            _ => Group::None,
        };
        let nodes = NodeEntries::of(
            commands.files.as_deref(),
            bytes_read,
            row_count * commands.row_overhead,
        );
        let room = bytes_read * 2 + row_count * commands.row_overhead;
        Ok(Self {
            key: bound.key.renderer(&decoded.rows).map_err(mismatch)?,
            values: RowValues::new(&decoded.rows, bound).map_err(mismatch)?,
            expiry: ExpiryTimes::new(&decoded.rows, bound).map_err(mismatch)?,
            versions: RowVersions::new(&decoded.rows, bound).map_err(mismatch)?,
            hasher: RowHasher::new(&decoded.rows, bound).map_err(mismatch)?,
            bad: decoded.bad.iter().peekable(),
            commands,
            decoded,
            now_ms,
            value: Vec::new(),
            fields: HashFields::default(),
            documents: Documents::default(),
            dump: Vec::new(),
            payload: Vec::with_capacity(if nodes.is_empty() { room } else { 0 }),
            nodes,
            group,
            open_rows: 0,
            open_commands: 0,
            open_at: 0,
            arguments: Vec::new(),
            open_arguments: 0,
            units: Vec::new(),
            keys: Vec::with_capacity(row_count * 24),
            entries: Vec::with_capacity(row_count),
            entry_versions: Vec::new(),
            digits: Vec::new(),
            expired: 0,
            digest: Digest::default(),
            rejected: Vec::new(),
        })
    }

    #[inline]
    pub(super) fn row(&mut self, row: usize) -> Result<()> {
        if let Some(bad) = self.bad.next_if(|bad| bad.row == row) {
            self.rejected.push((row, bad.reason.clone()));
            return Ok(());
        }
        self.digest.add_row(self.hasher.hash(row));
        let expires_ms = self.expiry.expires_ms(row);
        if expires_ms.is_some_and(|ms| ms <= self.now_ms) {
            self.expired += 1;
            return Ok(());
        }
        let key_start = self.keys.len();
        if let Err(error) = self.key.render(row, &mut self.keys) {
            self.rejected.push((row, error.to_string()));
            return Ok(());
        }
        let value = match self.commands.bound.route.layout {
            Layout::Hash => self.values.hash_fields(row, &mut self.fields),
            Layout::String => {
                self.value.clear();
                self.values.string(row, &mut self.value)
            }
            Layout::Json => {
                self.value.clear();
                self.values.json(row, &mut self.value)
            }
            Layout::RedisJson => {
                self.value.clear();
                self.values.document(row, &mut self.documents, &mut self.value)
            }
            layout @ (Layout::Blocks
            | Layout::Stream
            | Layout::Set
            | Layout::Zset
            | Layout::List) => {
                let message = format!("type {} is not written row by row", layout.word());
                return Err(Error::new(Kind::Internal, message));
            }
        };
        if let Err(refusal) = value {
            self.keys.truncate(key_start);
            self.rejected.push((row, refusal.to_string()));
            return Ok(());
        }
        let key_end = u32::try_from(self.keys.len())
            .map_err(|_| Error::new(Kind::Internal, "the keys of a batch exceed 4 GiB"))?;
        // Unexpired times are after `now_ms` and therefore not 0.
        let expires_ms = expires_ms.unwrap_or(0);
        let version = self.versions.version(row);
        self.entry_versions.extend(version);
        let value_hash = if let Some(cut) = &self.commands.files {
            self.write_entry(cut, key_start, expires_ms)
        } else if self.commands.style == Style::Newest {
            self.write_newest(expires_ms, version)?
        } else {
            self.write_value(key_start, expires_ms)
        };
        self.entries.push(Entry { key_end, value_hash, expires_ms });
        Ok(())
    }

    /// Writes the row at hand; returns the hash of its value.
    #[inline]
    fn write_value(&mut self, key_start: usize, expires_ms: i64) -> u64 {
        match self.commands.bound.route.layout {
            Layout::Hash => {
                match &self.commands.dump {
                    // The server makes a table of it either way, and `HSET` costs it less.
                    Some(dump)
                        if self.commands.style == Style::Blank
                            && expires_ms == 0
                            && dump.is_beyond(self.fields.iter()) =>
                    {
                        self.write_hash(key_start, 0);
                    }
                    Some(dump) => {
                        let start = dump.write(self.fields.iter(), &mut self.dump);
                        self.write_restore(key_start, expires_ms, start);
                    }
                    None => self.write_hash(key_start, expires_ms),
                }
                self.fields.value_hash()
            }
            Layout::RedisJson => self.write_document(key_start, expires_ms),
            _ => {
                if self.group == Group::Mset {
                    self.write_mset(key_start);
                } else {
                    self.write_set(key_start, expires_ms);
                }
                string_value_hash(&self.value)
            }
        }
    }

    /// `SET key value [NX] [PXAT ms]`.
    #[inline]
    fn write_set(&mut self, key_start: usize, expires_ms: i64) {
        let is_keep = self.commands.style == Style::Keep;
        let out = &mut self.payload;
        resp::write_array(3 + usize::from(is_keep) + 2 * usize::from(expires_ms != 0), out);
        out.extend_from_slice(b"$3\r\nSET\r\n");
        resp::write_bulk(&self.keys[key_start..], out);
        resp::write_bulk(&self.value, out);
        if is_keep {
            out.extend_from_slice(b"$2\r\nNX\r\n");
        }
        if expires_ms != 0 {
            out.extend_from_slice(b"$4\r\nPXAT\r\n");
            resp::write_integer(expires_ms, out);
        }
    }

    /// One key and value of an `MSET`, which discards an earlier expiry as `SET` does.
    #[inline]
    fn write_mset(&mut self, key_start: usize) {
        if self.open_rows == 0 {
            self.open_at = self.payload.len();
            self.payload.extend_from_slice(MSET_HEAD);
        }
        resp::write_bulk(&self.keys[key_start..], &mut self.payload);
        resp::write_bulk(&self.value, &mut self.payload);
        self.open_rows += 1;
        if self.open_rows == GROUP_ROWS_MAX {
            self.close_group();
        }
    }

    /// `RESTORE key ms payload [REPLACE] [ABSTTL]`.
    #[inline]
    fn write_restore(&mut self, key_start: usize, expires_ms: i64, dump_start: usize) {
        let is_keep = self.commands.style == Style::Keep;
        let out = &mut self.payload;
        resp::write_array(4 + usize::from(!is_keep) + usize::from(expires_ms != 0), out);
        out.extend_from_slice(b"$7\r\nRESTORE\r\n");
        resp::write_bulk(&self.keys[key_start..], out);
        resp::write_integer(expires_ms, out);
        resp::write_bulk(&self.dump[dump_start..], out);
        if !is_keep {
            out.extend_from_slice(b"$7\r\nREPLACE\r\n");
        }
        if expires_ms != 0 {
            out.extend_from_slice(b"$6\r\nABSTTL\r\n");
        }
    }

    #[inline]
    fn write_hash(&mut self, key_start: usize, expires_ms: i64) {
        self.open_row(key_start);
        let key = &self.keys[key_start..];
        let out = &mut self.payload;
        let fields = self.fields.spans().len();
        if self.commands.style == Style::Keep {
            resp::write_array(5 + 2 * fields, out);
            out.extend_from_slice(b"$7\r\nEVALSHA\r\n");
            resp::write_bulk(KEEP_HASH_SHA1.as_bytes(), out);
            out.extend_from_slice(b"$1\r\n1\r\n");
            resp::write_bulk(key, out);
            resp::write_integer(expires_ms, out);
        } else {
            resp::write_array(2 + 2 * fields, out);
            out.extend_from_slice(b"$4\r\nHSET\r\n");
            resp::write_bulk(key, out);
            self.open_commands += 1;
        }
        for span in self.fields.spans() {
            out.extend_from_slice(&self.commands.field_headers[span.field]);
            resp::write_bulk(self.fields.value(span), out);
        }
        self.close_row(key_start, expires_ms);
    }

    pub(super) fn finish(mut self, raw: &RawBatch) -> Result<Encoded> {
        self.close_group();
        let parts = self.join_nodes();
        // The room was for the longest rows; what was not needed would lie in every batch on its way.
        self.payload.shrink_to_fit();
        Ok(Encoded {
            position: position(&self.decoded.last, self.commands.decoder.lead(), raw.is_last),
            rejected: rejected(self.decoded, self.rejected, &self.commands.bound.schema)?,
            payload: Bytes::from(self.payload),
            units: self.units,
            parts,
            may_keep: matches!(self.commands.style, Style::Keep | Style::Newest),
            rows_read: self.decoded.rows.num_rows() as u64,
            bytes_read: raw.bytes_read,
            carried: self.entries.len() as u64,
            left_out: 0,
            expired: self.expired,
            is_settled: true,
            temporary: Vec::new(),
            puts_in_place: false,
            open: None,
            keys: Bytes::from(self.keys),
            entries: self.entries,
            versions: self.entry_versions,
            digest: self.digest,
        })
    }
}

/// How far the partition has come with this batch; `Start` when it has not come further.
fn position(last: &LastLead, lead: Lead, is_last: bool) -> Position {
    match last {
        LastLead::None if lead == Lead::None => Position::Unordered,
        LastLead::None => Position::Start,
        LastLead::Ctid { block, offset } => Position::Ctid { block: *block, offset: *offset },
        LastLead::Key { last: None, .. } => Position::Unordered,
        LastLead::Key { last, complete, .. } => match if is_last { last } else { complete } {
            Some(text) => Position::Key { text: text.clone() },
            None => Position::Start,
        },
    }
}

pub(in crate::transform) fn rejected(
    decoded: &Decoded,
    rejected: Vec<(usize, String)>,
    schema: &TableSchema,
) -> Result<Option<Rejected>> {
    if rejected.is_empty() {
        return Ok(None);
    }
    let indexes = UInt64Array::from_iter_values(rejected.iter().map(|(row, _)| *row as u64));
    let rows = take_record_batch(&decoded.rows, &indexes).map_err(|error| {
        Error::new(Kind::Internal, "rejected rows could not be collected").with_source(error)
    })?;
    let rows = arrow_ipc::storable(&rows, schema)?;
    let raw = rejected.iter().map(|(row, _)| decoded.raw(*row)).collect();
    let reasons = rejected.into_iter().map(|(_, reason)| reason).collect();
    Ok(Some(Rejected { rows, raw, reasons }))
}

/// The decoder makes arrays of the schema's types, so a mismatch is a defect of ours.
pub(in crate::transform) fn mismatch(error: TypeMismatch) -> Error {
    Error::new(Kind::Internal, "a decoded column has the wrong arrow type").with_source(error)
}
