//! Rows that give way to a newer version under their key.
//!
//! Invariant: one command and one reply per row, which says whether the row was written or the key kept.

use super::BatchEncoder;
use crate::error::{Error, Kind, Result};
use crate::transform::redis_command::{NEWEST_SHA1, resp};
use schemas::layout::string_value_hash;
use schemas::plan::Layout;

impl BatchEncoder<'_> {
    /// Writes the row at hand by `EVALSHA` of `NEWEST_SCRIPT`; returns the hash of its value.
    pub(super) fn write_newest(
        &mut self,
        key_start: usize,
        expires_ms: i64,
        version: Option<i64>,
    ) -> Result<u64> {
        let bound = &self.commands.bound;
        let (Some(at), Some(version)) = (bound.version, version) else {
            return Err(Error::new(Kind::Internal, "a route without a version compares versions"));
        };
        self.digits.clear();
        at.kind.write_digits(version, &mut self.digits);
        let is_hash = bound.route.layout == Layout::Hash;
        let values = if is_hash { 2 * self.fields.spans().len() } else { 1 };
        let out = &mut self.payload;
        resp::write_array(8 + values, out);
        out.extend_from_slice(b"$7\r\nEVALSHA\r\n");
        resp::write_bulk(NEWEST_SHA1.as_bytes(), out);
        out.extend_from_slice(b"$1\r\n1\r\n");
        resp::write_bulk(&self.keys[key_start..], out);
        let layout = match bound.route.layout {
            Layout::Hash => b'h',
            Layout::RedisJson => b'd',
            _ => b'j',
        };
        resp::write_bulk(&[layout, at.kind.letter()], out);
        out.extend_from_slice(&self.commands.field_headers[at.field]);
        resp::write_bulk(&self.digits, out);
        resp::write_integer(expires_ms, out);
        if !is_hash {
            resp::write_bulk(&self.value, out);
            return Ok(match bound.route.layout {
                Layout::RedisJson => self.documents.value_hash(&self.value),
                _ => string_value_hash(&self.value),
            });
        }
        for span in self.fields.spans() {
            out.extend_from_slice(&self.commands.field_headers[span.field]);
            resp::write_bulk(self.fields.value(span), out);
        }
        Ok(self.fields.value_hash())
    }
}
