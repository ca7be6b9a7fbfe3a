//! Rows that become documents of Redis' JSON module.
//!
//! Invariant: `JSON.SET` keeps an expiry and fails on a key of another type, so unless the keyspace is blank the key is
//! deleted first, in the same transaction.

use super::BatchEncoder;
use crate::transform::redis_command::{KEEP_DOCUMENT_SHA1, Style, resp};

impl BatchEncoder<'_> {
    /// Writes the row at hand; returns the hash of its value.
    #[inline]
    pub(super) fn write_document(&mut self, key_start: usize, expires_ms: i64) -> u64 {
        if self.commands.style == Style::Keep {
            let out = &mut self.payload;
            out.extend_from_slice(b"*6\r\n$7\r\nEVALSHA\r\n");
            resp::write_bulk(KEEP_DOCUMENT_SHA1.as_bytes(), out);
            out.extend_from_slice(b"$1\r\n1\r\n");
            resp::write_bulk(&self.keys[key_start..], out);
            resp::write_integer(expires_ms, out);
            resp::write_bulk(&self.value, out);
        } else {
            self.open_row(key_start);
            let out = &mut self.payload;
            out.extend_from_slice(b"*4\r\n$8\r\nJSON.SET\r\n");
            resp::write_bulk(&self.keys[key_start..], out);
            out.extend_from_slice(b"$1\r\n$\r\n");
            resp::write_bulk(&self.value, out);
            self.open_commands += 1;
            self.close_row(key_start, expires_ms);
        }
        self.documents.value_hash(&self.value)
    }
}
