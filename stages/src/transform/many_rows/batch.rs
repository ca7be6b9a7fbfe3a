//! One batch of ordered rows into whole keys, with its first and last key left open.
//!
//! Invariant: every row becomes part of exactly one of a key, the rows left out, the expired ones and the rejects.

use super::commands::{Commands, Manner};
use super::segment::{OpenBatch, Part, Segment};
use super::stitch::{Stitcher, check};
use crate::batch::{Encoded, RawBatch};
use crate::error::{Error, Kind, Result};
use crate::transform::copy_binary::{Decoded, LastLead, Lead};
use crate::transform::redis_command::{mismatch, rejected};
use crate::transform::{self, Attempt, Decoder, Open, Style, Transform};
use schemas::layout::{self, Element, Elements, ExpiryTimes};
use schemas::{BoundRoute, Position};
use std::collections::HashSet;
use std::sync::Arc;

/// Encodes raw batches whose rows come in the order of the keys they make.
///
/// | | `Blank` | `Exact` | `Keep` |
/// |---|---|---|---|
/// | a key inside a batch | `SADD` and its like; with an expiry in `MULTI`…`EXEC` | `UNLINK`, `SADD`, `PEXPIREAT` in `MULTI`…`EXEC` | `EVALSHA` of `KEEP_ELEMENTS_SCRIPT` |
/// | a key across batches | pieces under a temporary name, then `FINISH_SCRIPT` | the same | the same, where a key that exists stays |
#[derive(Debug)]
pub struct ManyRows {
    bound: Arc<BoundRoute>,
    decoder: Decoder,
    manner: Manner,
    /// The keys that are wanted, where not all are.
    only: Option<Arc<HashSet<Vec<u8>>>>,
}

impl ManyRows {
    /// Makes the transform of a route of many rows per key.
    pub fn new(bound: Arc<BoundRoute>, decoder: impl Into<Decoder>, style: Style) -> Self {
        let manner = Manner { layout: bound.route.layout, style };
        Self { bound, decoder: decoder.into(), manner, only: None }
    }
}

impl Transform for ManyRows {
    fn apply(&self, raw: RawBatch, now_ms: i64) -> Result<Encoded> {
        let decoded = self.decoder.decode(&raw, &self.bound.schema)?;
        let mut open = Grouping::new(self, &decoded, raw.is_last).run(now_ms)?;
        open.bytes_read = raw.bytes_read;
        Ok(Encoded { open: Some(Open::Keys(Box::new(open))), ..Encoded::empty() })
    }

    fn stitcher(&self, attempt: &Attempt<'_>) -> Option<transform::Stitcher> {
        let (bound, name) = (Arc::clone(&self.bound), attempt.name.to_owned());
        Some(transform::Stitcher::Keys(Stitcher::new(bound, self.manner.style, name)))
    }

    fn of_keys(&self, keys: &Arc<HashSet<Vec<u8>>>) -> Option<Arc<dyn Transform>> {
        let bound = Arc::clone(&self.bound);
        let (decoder, manner, only) = (self.decoder, self.manner, Some(Arc::clone(keys)));
        Some(Arc::new(Self { bound, decoder, manner, only }))
    }
}

/// A batch on its way from rows to keys.
struct Grouping<'a> {
    many: &'a ManyRows,
    decoded: &'a Decoded,
    is_last: bool,
    /// The row from which on the column that cuts the table has its last value, and the value before it.
    boundary: Option<(usize, &'a str)>,
    /// The key at hand.
    current: Segment,
    head: Option<Segment>,
    is_in_head: bool,
    parts: Vec<Part>,
    commands: Commands,
    expired: u64,
    left_out: u64,
    rejected: Vec<(usize, String)>,
}

impl<'a> Grouping<'a> {
    fn new(many: &'a ManyRows, decoded: &'a Decoded, is_last: bool) -> Self {
        let boundary = match &decoded.last {
            LastLead::Key { complete: Some(text), last_from, .. } if !is_last => {
                Some((*last_from, text.as_str()))
            }
            _ => None,
        };
        Self {
            many,
            decoded,
            is_last,
            boundary,
            current: Segment::default(),
            head: None,
            is_in_head: true,
            parts: Vec::with_capacity(2),
            commands: Commands::default(),
            expired: 0,
            left_out: 0,
            rejected: Vec::new(),
        }
    }

    fn run(mut self, now_ms: i64) -> Result<OpenBatch> {
        let (bound, decoded) = (&*self.many.bound, self.decoded);
        let Some(many) = &bound.many else {
            let message = format!("route {} makes one key of each row", bound.route.name);
            return Err(Error::new(Kind::Internal, message));
        };
        let layout = bound.route.layout;
        let keys = bound.key.renderer(&decoded.rows).map_err(mismatch)?;
        let expiry = ExpiryTimes::new(&decoded.rows, bound).map_err(mismatch)?;
        let mut elements = Elements::new(&decoded.rows, bound, many).map_err(mismatch)?;
        let mut bad = decoded.bad.iter().peekable();
        let (mut key, mut element) = (Vec::new(), Element::default());
        for row in 0..decoded.rows.num_rows() {
            if let Some((_, text)) = self.boundary.filter(|(from, _)| *from == row) {
                self.end_key()?;
                self.is_in_head = false;
                self.end_part(Position::Key { text: text.to_owned() }, true)?;
            }
            if let Some(bad) = bad.next_if(|bad| bad.row == row) {
                self.rejected.push((row, bad.reason.clone()));
                continue;
            }
            let expires_ms = expiry.expires_ms(row);
            if expires_ms.is_some_and(|ms| ms <= now_ms) {
                self.expired += 1;
                continue;
            }
            key.clear();
            if let Err(error) = keys.render(row, &mut key) {
                self.rejected.push((row, error.to_string()));
                continue;
            }
            if self.many.only.as_ref().is_some_and(|only| !only.contains(&key)) {
                continue;
            }
            match elements.make(row, &mut element) {
                layout::Part::Element => {}
                layout::Part::LeftOut => {
                    self.left_out += 1;
                    continue;
                }
                layout::Part::Refused(reason) => {
                    self.rejected.push((row, reason));
                    continue;
                }
            }
            if self.current.key != key {
                self.end_key()?;
                self.current.begin(&key);
            }
            self.current.push(layout, &element, expires_ms);
            elements.add(&element, &mut self.current.tally);
        }
        self.end_batch()
    }

    /// Ends the key at hand, which another one follows.
    fn end_key(&mut self) -> Result<()> {
        if self.current.rows == 0 {
            return Ok(());
        }
        check(&self.many.bound, &self.current.key, &self.current.tally)?;
        if self.is_in_head {
            self.is_in_head = false;
            self.head = Some(std::mem::take(&mut self.current));
        } else {
            self.commands.whole(self.many.manner, &self.current)?;
            self.current.rows = 0;
            self.current.key.clear();
        }
        Ok(())
    }

    fn end_part(&mut self, position: Position, ends_keys: bool) -> Result<()> {
        let rows = std::mem::take(&mut self.rejected);
        self.parts.push(Part {
            commands: std::mem::take(&mut self.commands),
            expired: std::mem::take(&mut self.expired),
            left_out: std::mem::take(&mut self.left_out),
            rejected: rejected(self.decoded, rows, &self.many.bound.schema)?,
            position,
            ends_keys,
        });
        Ok(())
    }

    fn end_batch(mut self) -> Result<OpenBatch> {
        let mut tail = None;
        if self.current.rows > 0 {
            check(&self.many.bound, &self.current.key, &self.current.tally)?;
            let current = std::mem::take(&mut self.current);
            if self.is_in_head {
                self.head = Some(current);
            } else {
                tail = Some(current);
            }
        }
        let position = match &self.decoded.last {
            LastLead::None if self.many.decoder.lead() == Lead::None => Position::Unordered,
            LastLead::Key { last: Some(text), .. } if self.is_last => {
                Position::Key { text: text.clone() }
            }
            LastLead::Key { last: None, .. } => Position::Unordered,
            _ => Position::Start,
        };
        let is_last = self.is_last;
        self.end_part(position, false)?;
        Ok(OpenBatch { head: self.head, parts: self.parts, tail, is_last, bytes_read: 0 })
    }
}
