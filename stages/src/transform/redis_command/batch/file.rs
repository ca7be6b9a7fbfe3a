//! Rows that become entries of RDB files, one file per node: `[expiry] type key value`.
//!
//! Invariant: the payload is the parts of the files behind each other, each with its own checksum; a key is in the part of
//! its slot. Format: `rdb.c` of Redis 7.0 (`rdbSaveKeyValuePair`), version 10.

use super::BatchEncoder;
use crate::batch::FilePart;
use crate::crc64::checksum;
use crate::transform::redis_command::dump::write_rdb_string;
use schemas::SlotCut;
use schemas::layout::string_value_hash;
use schemas::plan::Layout;

/// An expiry in milliseconds since 1970 follows, 8 bytes little-endian (`RDB_OPCODE_EXPIRETIME_MS`).
const EXPIRES_MS: u8 = 0xfc;
/// A string (`RDB_TYPE_STRING`).
const TYPE_STRING: u8 = 0;

/// Entries of one file.
#[derive(Debug, Default)]
pub(super) struct NodeEntries {
    bytes: Vec<u8>,
    entries: u32,
    expiring: u32,
}

impl NodeEntries {
    /// One per file of a cut; none where there is none.
    ///
    /// What rows add to the bytes that were read are the names of fields, above all.
    pub(super) fn of(cut: Option<&SlotCut>, bytes_read: usize, overhead: usize) -> Vec<Self> {
        let count = cut.map_or(0, |cut| cut.ranges().len());
        // Room that is not touched costs nothing; of several files each has a share.
        let room = (bytes_read + overhead) / count.max(1);
        let with_room = |_| Self { bytes: Vec::with_capacity(room), ..Self::default() };
        (0..count).map(with_room).collect()
    }
}

impl BatchEncoder<'_> {
    /// Writes the row at hand into the file of its slot; returns the hash of its value.
    #[inline]
    pub(super) fn write_entry(&mut self, cut: &SlotCut, key_start: usize, expires_ms: i64) -> u64 {
        let key = &self.keys[key_start..];
        let node = &mut self.nodes[cut.node_of(key)];
        let out = &mut node.bytes;
        if expires_ms != 0 {
            out.push(EXPIRES_MS);
            out.extend_from_slice(&expires_ms.to_le_bytes());
            node.expiring += 1;
        }
        node.entries += 1;
        match &self.commands.dump {
            Some(dump) if self.commands.bound.route.layout == Layout::Hash => {
                let start = dump.write_value(self.fields.iter(), &mut self.dump);
                out.push(self.dump[start]);
                write_rdb_string(key, out);
                out.extend_from_slice(&self.dump[start + 1..]);
                self.fields.value_hash()
            }
            _ => {
                out.push(TYPE_STRING);
                write_rdb_string(key, out);
                write_rdb_string(&self.value, out);
                string_value_hash(&self.value)
            }
        }
    }

    /// Makes the payload of the entries of all files.
    pub(super) fn join_nodes(&mut self) -> Vec<FilePart> {
        let mut parts = Vec::new();
        for (number, node) in (0..).zip(std::mem::take(&mut self.nodes)) {
            let NodeEntries { bytes, entries, expiring } = node;
            if entries == 0 {
                continue;
            }
            let (length, crc) = (bytes.len() as u64, checksum(&bytes));
            parts.push(FilePart { node: number, entries, expiring, bytes: length, crc });
            if self.payload.is_empty() {
                self.payload = bytes;
            } else {
                self.payload.extend_from_slice(&bytes);
            }
        }
        parts
    }
}
