//! One stream of tuples that several routes read, taken apart into the streams that each would have read alone.
//!
//! Invariant: what a part hands out is what a read of its own would have sent: the tuples it wants, behind their lead
//! column, with its columns in its order, whole, and none of them twice. The bytes read are credited to the parts in
//! proportion to what each took, so their sum is what the source sent.

use super::{Wire, broken};
use crate::batch::RawBatch;
use crate::error::Result;
use crate::transform::{TakeApart, Taken};
use bytes::{BufMut, BytesMut};

/// What one route takes of every tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The field that tells whether the route wants the tuple; absent where it wants all.
    pub wanted: Option<usize>,
    /// The fields that are its columns, in its order. Field 0 is the `ctid`, which every part gets first.
    pub columns: Vec<usize>,
    /// The last tuple (block number, line pointer) that it has already had.
    pub after: Option<(u32, u16)>,
}

/// Takes a stream of tuples apart.
#[derive(Debug)]
pub struct Split {
    fields: usize,
    batch_bytes: usize,
    parts: Vec<Filling>,
    /// Where the fields of a tuple begin, and where the last one ends.
    edges: Vec<usize>,
}

#[derive(Debug)]
struct Filling {
    part: Part,
    /// Fields that lie side by side, copied at once: first and one past the last.
    runs: Vec<(usize, usize)>,
    bytes: BytesMut,
    rows: usize,
    /// Bytes taken of the raw batch at hand.
    taken: usize,
    /// Bytes of the source that are this part's share and not handed out yet.
    credit: u64,
}

impl Split {
    /// Makes the split of tuples of `fields` fields; a part's batch is handed out at `batch_bytes`.
    pub fn new(fields: usize, parts: Vec<Part>, batch_bytes: usize) -> Self {
        let parts = parts
            .into_iter()
            .map(|part| Filling {
                runs: runs(&part.columns),
                part,
                bytes: BytesMut::with_capacity(batch_bytes + 4096),
                rows: 0,
                taken: 0,
                credit: 0,
            })
            .collect();
        Self { fields, batch_bytes, parts, edges: Vec::with_capacity(fields + 1) }
    }

    fn tuple(&mut self, wire: &mut Wire<'_>) -> Result<()> {
        let at = wire.at;
        self.edges.clear();
        self.edges.push(at);
        let Some(&[a, b, c, d, high, low]) = wire.field()? else {
            return Err(broken(at, "a ctid does not have 6 bytes"));
        };
        let ctid = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([high, low]));
        self.edges.push(wire.at);
        for _ in 1..self.fields {
            wire.field()?;
            self.edges.push(wire.at);
        }
        for filling in &mut self.parts {
            let is_wanted = filling.part.wanted.is_none_or(|flag| {
                // A bool that is true: one byte behind its length.
                wire.bytes[self.edges[flag]..self.edges[flag + 1]] == [0, 0, 0, 1, 1]
            });
            if is_wanted && filling.part.after.is_none_or(|after| ctid > after) {
                filling.take(wire.bytes, &self.edges);
            }
        }
        Ok(())
    }

    /// Shares out the bytes of a raw batch; what does not divide goes to the part that took most.
    fn credit(&mut self, bytes: u64) {
        let taken: u64 = self.parts.iter().map(|filling| filling.taken as u64).sum();
        let mut left = bytes;
        for filling in &mut self.parts {
            let share = u128::from(bytes) * filling.taken as u128;
            let share = share.checked_div(u128::from(taken)).unwrap_or(0);
            let share = u64::try_from(share).unwrap_or(0);
            filling.credit += share;
            left -= share;
        }
        if let Some(most) = self.parts.iter_mut().max_by_key(|filling| filling.taken) {
            most.credit += left;
        }
        for filling in &mut self.parts {
            filling.taken = 0;
        }
    }
}

impl TakeApart for Split {
    fn apply(&mut self, raw: &RawBatch) -> Result<Vec<Taken>> {
        let mut out = Vec::new();
        let mut wire = Wire { bytes: &raw.bytes, at: 0 };
        wire.skip_header()?;
        let mut rows = 0;
        while wire.at < raw.bytes.len() {
            let start = wire.at;
            match wire.int16()? {
                -1 => break,
                fields if usize::try_from(fields) == Ok(self.fields) => {}
                fields => {
                    let expected = self.fields;
                    let problem = format!("a tuple has {fields} fields, not {expected}");
                    return Err(broken(start, &problem));
                }
            }
            rows += 1;
            self.tuple(&mut wire)?;
        }
        if rows != raw.rows {
            let problem = format!("{rows} tuples where {} were sent", raw.rows);
            return Err(broken(raw.bytes.len(), &problem));
        }
        self.credit(raw.bytes_read);
        for (index, filling) in self.parts.iter_mut().enumerate() {
            if raw.is_last || filling.bytes.len() >= self.batch_bytes {
                out.push(Taken {
                    part: index,
                    batch: filling.hand_out(self.batch_bytes, raw.is_last),
                });
            }
        }
        Ok(out)
    }
}

impl Filling {
    #[inline]
    fn take(&mut self, bytes: &[u8], edges: &[usize]) {
        let before = self.bytes.len();
        let fields = self.part.columns.len() + 1;
        self.bytes.put_i16(i16::try_from(fields).unwrap_or(i16::MAX));
        for (first, end) in &self.runs {
            self.bytes.extend_from_slice(&bytes[edges[*first]..edges[*end]]);
        }
        self.rows += 1;
        self.taken += self.bytes.len() - before;
    }

    fn hand_out(&mut self, batch_bytes: usize, is_last: bool) -> RawBatch {
        let room = if is_last { 0 } else { batch_bytes + 4096 };
        let bytes = std::mem::replace(&mut self.bytes, BytesMut::with_capacity(room)).freeze();
        let rows = std::mem::take(&mut self.rows);
        let bytes_read = std::mem::take(&mut self.credit);
        RawBatch { bytes, rows, is_last, bytes_read }
    }
}

/// Joins fields that lie side by side, the lead column first.
fn runs(columns: &[usize]) -> Vec<(usize, usize)> {
    let mut runs = vec![(0, 1)];
    for column in columns {
        match runs.last_mut() {
            Some((_, end)) if *end == *column => *end += 1,
            _ => runs.push((*column, column + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
