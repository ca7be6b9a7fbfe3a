//! Joins the batches of one partition, in order: keys that go on from batch to batch are built under a temporary name.
//!
//! Invariant: nothing but the piece of one key is held back, and that only until it is known whether the key goes on.
//! A part whose position moves on leaves no key open before it, so what is committed is whole keys.

use super::commands::{Commands, Manner};
use super::segment::{OpenBatch, Segment};
use super::slot::temporary_key;
use crate::batch::Encoded;
use crate::error::{Error, Kind, Result};
use crate::transform::Style;
use bytes::Bytes;
use schemas::layout::Tally;
use schemas::plan::OnCollision;
use schemas::{BoundRoute, Position};
use std::sync::Arc;

/// The sequential state of one attempt at a partition.
#[derive(Debug)]
pub struct Stitcher {
    bound: Arc<BoundRoute>,
    manner: Manner,
    attempt: String,
    open: Open,
    /// Temporary keys begun, which tells them apart.
    begun: u64,
}

/// The key that the rows so far end in.
#[derive(Debug, Default)]
enum Open {
    #[default]
    None,
    /// Not sent yet, because it may be whole.
    Held(Segment),
    /// Under way; the segment holds what the pieces sent add up to, and no arguments.
    Building { temporary: Vec<u8>, sum: Segment },
}

impl Open {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::Held(segment) | Self::Building { sum: segment, .. } => Some(&segment.key),
        }
    }
}

impl Stitcher {
    /// Begins a partition. `attempt` must name this attempt alone: what an earlier one still has on its way must not
    /// reach the keys of this one.
    pub(super) fn new(bound: Arc<BoundRoute>, style: Style, attempt: String) -> Self {
        let manner = Manner { layout: bound.route.layout, style };
        Self { bound, manner, attempt, open: Open::None, begun: 0 }
    }

    /// Takes the next batch and returns what to send, in order; one batch gives one or two.
    pub fn take(&mut self, batch: OpenBatch) -> Result<Vec<Encoded>> {
        let OpenBatch { mut head, parts, mut tail, is_last, bytes_read } = batch;
        let count = parts.len();
        let mut encoded = Vec::with_capacity(count);
        for (index, mut part) in parts.into_iter().enumerate() {
            let is_final = index + 1 == count;
            part.commands.end_transaction()?;
            let has_whole_keys = !part.commands.entries.is_empty();
            if let Some(head) = head.take() {
                self.open(head, &mut part.commands)?;
            }
            if has_whole_keys {
                self.close(&mut part.commands)?;
            }
            if let Some(tail) = tail.take_if(|_| is_final) {
                self.open(tail, &mut part.commands)?;
            }
            if part.ends_keys || (is_final && is_last) {
                self.close(&mut part.commands)?;
            }
            part.commands.end_transaction()?;
            let Commands {
                payload,
                units,
                keys,
                entries,
                digest,
                rows,
                temporary,
                puts_in_place,
                ..
            } = part.commands;
            let rejects = part.rejected.as_ref().map_or(0, |rejected| rejected.reasons.len());
            encoded.push(Encoded {
                // A read without an order to continue from commits what it has: a new attempt starts over.
                is_settled: part.ends_keys
                    || (is_final && is_last)
                    || part.position == Position::Unordered,
                position: part.position,
                payload: Bytes::from(payload),
                units,
                parts: Vec::new(),
                may_keep: self.manner.style == Style::Keep,
                rows_read: rows + part.left_out + part.expired + rejects as u64,
                bytes_read: if index == 0 { bytes_read } else { 0 },
                carried: rows,
                left_out: part.left_out,
                expired: part.expired,
                keys: Bytes::from(keys),
                entries,
                // A key of many rows has no version of its own.
                versions: Vec::new(),
                temporary: temporary.into_iter().map(Bytes::from).collect(),
                puts_in_place,
                rejected: part.rejected,
                digest,
                open: None,
            });
        }
        Ok(encoded)
    }

    /// Takes the first piece of a key, or the next one of the key that is open.
    fn open(&mut self, segment: Segment, commands: &mut Commands) -> Result<()> {
        if self.open.key() != Some(&segment.key) {
            self.close(commands)?;
            self.open = Open::Held(segment);
            return Ok(());
        }
        let (temporary, mut sum) = match std::mem::take(&mut self.open) {
            Open::Building { temporary, sum } => (temporary, sum),
            Open::Held(mut first) => {
                let temporary = self.temporary(&first.key);
                commands.piece(self.manner, &temporary, true, &first)?;
                first.arguments = Vec::new();
                first.pieces = Vec::new();
                (temporary, first)
            }
            Open::None => return Err(Error::new(Kind::Internal, "no key is open")),
        };
        commands.piece(self.manner, &temporary, false, &segment)?;
        sum.tally.append(&segment.tally, self.manner.layout);
        sum.rows += segment.rows;
        sum.expiry = sum.expiry.later(segment.expiry);
        check(&self.bound, &sum.key, &sum.tally)?;
        self.open = Open::Building { temporary, sum };
        Ok(())
    }

    /// Ends the key that is open.
    fn close(&mut self, commands: &mut Commands) -> Result<()> {
        match std::mem::take(&mut self.open) {
            Open::None => Ok(()),
            Open::Held(segment) => commands.whole(self.manner, &segment),
            Open::Building { temporary, sum } => commands.finish(self.manner, &temporary, &sum),
        }
    }

    fn temporary(&mut self, key: &[u8]) -> Vec<u8> {
        let number = self.begun;
        self.begun += 1;
        temporary_key(key, &self.attempt, number)
    }
}

/// Refuses a member with two scores or a field with two values, unless the last by `order_by` wins.
pub(super) fn check(bound: &BoundRoute, key: &[u8], tally: &Tally) -> Result<()> {
    let is_last = matches!(bound.route.on_collision, Some(OnCollision::Last { .. }));
    if tally.contradictions() == 0 || is_last {
        return Ok(());
    }
    let what = match bound.route.layout {
        schemas::plan::Layout::Zset => "a member with two scores",
        _ => "a field with two values",
    };
    let message =
        format!("route {}: key {} has {what}", bound.route.name, String::from_utf8_lossy(key));
    Err(Error::new(Kind::Data, message)
        .with_hint("add a column to member, or say on_collision = \"last\" with order_by"))
}
