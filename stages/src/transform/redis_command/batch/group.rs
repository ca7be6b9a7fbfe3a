//! What several rows share: a transaction, an `MSET`, a call of a script, or nothing.
//!
//! Invariant: a group is closed with the number of its rows and of the replies that belong to it, so that every reply is
//! counted.

use super::BatchEncoder;
use crate::batch::Unit;
use crate::transform::redis_command::{Style, resp};

/// Rows in one transaction or `MSET`: enough to make what surrounds them cheap, few enough not to block the server.
pub(super) const GROUP_ROWS_MAX: u32 = 64;
/// The head of a full `MSET`: the verb, and a key and a value per row.
pub(super) const MSET_HEAD: &[u8] = b"*129\r\n$4\r\nMSET\r\n";

/// What several rows share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Nothing: every row is a command of its own.
    None,
    /// `MULTI` … `EXEC`.
    Transaction,
    /// `MSET`.
    Mset,
    /// One call of `NEWEST_SCRIPT`.
    Call,
}

impl BatchEncoder<'_> {
    /// What comes before the value of a row: `MULTI`, `DEL key`, or nothing.
    #[inline]
    pub(super) fn open_row(&mut self, key_start: usize) {
        let out = &mut self.payload;
        if self.group == Group::Transaction && self.open_rows == 0 {
            out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        }
        if self.commands.style == Style::Exact {
            out.extend_from_slice(b"*2\r\n$3\r\nDEL\r\n");
            resp::write_bulk(&self.keys[key_start..], out);
            self.open_commands += 1;
        }
    }

    /// What comes behind it in a transaction: `PEXPIREAT`, and `EXEC` behind the last row.
    #[inline]
    pub(super) fn close_row(&mut self, key_start: usize, expires_ms: i64) {
        if self.group != Group::Transaction {
            return;
        }
        let key = &self.keys[key_start..];
        let out = &mut self.payload;
        if expires_ms != 0 {
            out.extend_from_slice(b"*3\r\n$9\r\nPEXPIREAT\r\n");
            resp::write_bulk(key, out);
            resp::write_integer(expires_ms, out);
            self.open_commands += 1;
        }
        self.open_rows += 1;
        if self.open_rows == GROUP_ROWS_MAX {
            self.close_group();
        }
    }

    pub(super) fn close_group(&mut self) {
        if self.open_rows == 0 {
            return;
        }
        let replies = match self.group {
            Group::Mset => {
                if self.open_rows < GROUP_ROWS_MAX {
                    self.shorten_mset_head();
                }
                1
            }
            Group::Call => {
                self.close_call();
                1
            }
            Group::None | Group::Transaction => {
                self.payload.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
                // MULTI and EXEC answer once each, and every command between them with QUEUED.
                2 + self.open_commands
            }
        };
        self.units.push(Unit { rows: self.open_rows, folded: 0, replies });
        (self.open_rows, self.open_commands) = (0, 0);
    }

    /// Only the last group of a batch holds fewer rows than its head says.
    fn shorten_mset_head(&mut self) {
        let mut head = Vec::with_capacity(MSET_HEAD.len());
        resp::write_array(1 + 2 * self.open_rows as usize, &mut head);
        head.extend_from_slice(b"$4\r\nMSET\r\n");
        self.payload.splice(self.open_at..self.open_at + MSET_HEAD.len(), head);
    }
}
