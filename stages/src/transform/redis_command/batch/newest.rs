//! Rows that give way to a newer version under their key.
//!
//! Invariant: one command and one reply per group of rows, and the reply says how many keys of it were kept.

use super::{BatchEncoder, Group};
use crate::error::{Error, Kind, Result};
use crate::transform::redis_command::{NEWEST_SHA1, resp};
use schemas::layout::string_value_hash;
use schemas::plan::Layout;

/// Rows in one call: enough to make what surrounds them cheap, few enough not to block the server.
pub(super) const CALL_ROWS_MAX: u32 = 32;
/// Bytes of the rows of a call beyond which it takes no more of them.
const CALL_BYTES_MAX: usize = 64 * 1024;
/// The script's SHA-1, the number of keys, the form and the name of the version stand before the rows.
const HEAD_ARGUMENTS: usize = 5;

impl BatchEncoder<'_> {
    /// Adds the row at hand to the open call of `NEWEST_SCRIPT`; returns the hash of its value.
    pub(super) fn write_newest(&mut self, expires_ms: i64, version: Option<i64>) -> Result<u64> {
        let (Some(at), Some(version)) = (self.commands.bound.version, version) else {
            return Err(Error::new(Kind::Internal, "a route without a version compares versions"));
        };
        // Only now, because the row before is among the entries by now.
        if self.open_rows == CALL_ROWS_MAX || self.arguments.len() >= CALL_BYTES_MAX {
            self.close_group();
        }
        self.digits.clear();
        at.kind.write_digits(version, &mut self.digits);
        let is_hash = self.commands.bound.route.layout == Layout::Hash;
        let values = if is_hash { 2 * self.fields.spans().len() } else { 1 };
        let out = &mut self.arguments;
        resp::write_bulk(&self.digits, out);
        resp::write_integer(expires_ms, out);
        resp::write_integer(i64::try_from(values).unwrap_or(i64::MAX), out);
        self.open_rows += 1;
        self.open_arguments += 3 + values;
        if !is_hash {
            resp::write_bulk(&self.value, out);
            return Ok(match self.commands.bound.route.layout {
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

    /// Writes the call of the open rows, whose keys are the last ones among the entries.
    pub(super) fn close_call(&mut self) {
        debug_assert_eq!(self.group, Group::Call);
        let Some(at) = self.commands.bound.version else { return };
        let rows = self.open_rows as usize;
        let first = self.entries.len() - rows;
        let mut start = first.checked_sub(1).map_or(0, |last| self.entries[last].key_end as usize);
        let out = &mut self.payload;
        resp::write_array(HEAD_ARGUMENTS + rows + self.open_arguments, out);
        out.extend_from_slice(b"$7\r\nEVALSHA\r\n");
        resp::write_bulk(NEWEST_SHA1.as_bytes(), out);
        resp::write_integer(self.open_rows.into(), out);
        for entry in &self.entries[first..] {
            let end = entry.key_end as usize;
            resp::write_bulk(&self.keys[start..end], out);
            start = end;
        }
        let layout = match self.commands.bound.route.layout {
            Layout::Hash => b'h',
            Layout::RedisJson => b'd',
            _ => b'j',
        };
        resp::write_bulk(&[layout, at.kind.letter()], out);
        out.extend_from_slice(&self.commands.field_headers[at.field]);
        out.append(&mut self.arguments);
        self.open_arguments = 0;
    }
}
