//! Rows out of the raw replies of a Redis: what an application wrote becomes arrow columns of the table.
//!
//! Invariant: every key or entry of a page becomes exactly one of a row, a key that is gone, or a reject; a reject
//! names the column and never the value.

use crate::error::{Error, Kind, Result};
use crate::extract::redis_rows::{Held, Replies, Reply};
use arrow::array::BinaryArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use schemas::{ReverseRoute, RowDecoder};
use std::sync::Arc;

/// What was asked for in one page, and what came back.
#[derive(Debug, Clone)]
pub struct Page {
    /// The keys in the order of the replies.
    pub keys: Vec<Vec<u8>>,
    /// One reply per key, as the wire carried them.
    pub replies: Bytes,
}

/// A row that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Its key.
    pub key: Vec<u8>,
    /// Why, naming the column.
    pub reason: String,
    /// The reply, or the stream entry, as the wire carried it.
    pub raw: Bytes,
}

/// What became of a page.
#[derive(Debug)]
pub struct Decoded {
    /// The rows in the schema of the table.
    pub rows: RecordBatch,
    /// Keys that are gone.
    pub vanished: u64,
    /// Rows that could not be decoded.
    pub rejects: Vec<Reject>,
}

/// Decodes a page into the arrow schema of the table.
pub fn decode(
    route: &ReverseRoute,
    schema: &SchemaRef,
    held: Held,
    page: &Page,
) -> Result<Decoded> {
    let decoder = RowDecoder::new(route, Arc::clone(schema), page.keys.len()).map_err(|error| {
        Error::new(Kind::Schema, "rows of redis do not fit the table").with_source(error)
    })?;
    let mut rows = Rows { decoder, page, vanished: 0, rejects: Vec::new() };
    let mut replies = Replies::new(&page.replies);
    for key in &page.keys {
        match held {
            Held::Hashes => rows.hash(key, &mut replies)?,
            Held::Texts => rows.text(key, &mut replies)?,
            Held::Streams => rows.stream(key, &mut replies)?,
        }
    }
    let Rows { mut decoder, vanished, rejects, .. } = rows;
    Ok(Decoded { rows: decoder.finish(), vanished, rejects })
}

/// Makes the columns of a reject file.
pub fn reject_keys(rejects: &[Reject]) -> Result<RecordBatch> {
    let schema = Schema::new(vec![Field::new("_key", DataType::Binary, false)]);
    let keys = BinaryArray::from_iter_values(rejects.iter().map(|reject| &reject.key));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys)]).map_err(|error| {
        Error::new(Kind::Internal, "cannot shape the rejected rows").with_source(error)
    })
}

struct Rows<'p> {
    decoder: RowDecoder,
    page: &'p Page,
    vanished: u64,
    rejects: Vec<Reject>,
}

/// Fields and values of one row, where they lie.
type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

impl Rows<'_> {
    fn hash(&mut self, key: &[u8], replies: &mut Replies<'_>) -> Result<()> {
        let mut whole = replies.clone();
        match replies.token()? {
            Reply::Array(0) | Reply::Null => self.vanished += 1,
            Reply::Array(elements) => {
                let pairs = pairs(replies, elements)?;
                if let Err(fault) = self.decoder.pairs(key, pairs) {
                    self.reject(key, &fault, whole.whole()?);
                }
            }
            Reply::Error(_) => self.reject(key, &OTHER_TYPE, whole.whole()?),
            Reply::Text(_) | Reply::Integer(_) => return Err(unexpected()),
        }
        Ok(())
    }

    fn text(&mut self, key: &[u8], replies: &mut Replies<'_>) -> Result<()> {
        let mut whole = replies.clone();
        match replies.token()? {
            Reply::Null => self.vanished += 1,
            Reply::Text(value) => {
                if let Err(fault) = self.decoder.json(key, value) {
                    self.reject(key, &fault, whole.whole()?);
                }
            }
            Reply::Error(_) => self.reject(key, &OTHER_TYPE, whole.whole()?),
            Reply::Array(_) | Reply::Integer(_) => return Err(unexpected()),
        }
        Ok(())
    }

    /// Entries that are gone cannot be told here; the spool knows how many there were.
    fn stream(&mut self, key: &[u8], replies: &mut Replies<'_>) -> Result<()> {
        let mut whole = replies.clone();
        match replies.token()? {
            Reply::Array(entries) => {
                for _ in 0..entries {
                    self.entry(key, replies)?;
                }
            }
            Reply::Error(_) => self.reject(key, &OTHER_TYPE, whole.whole()?),
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    fn entry(&mut self, key: &[u8], replies: &mut Replies<'_>) -> Result<()> {
        let mut whole = replies.clone();
        let (Reply::Array(2), Reply::Text(_)) = (replies.token()?, replies.token()?) else {
            return Err(unexpected());
        };
        let Reply::Array(elements) = replies.token()? else { return Err(unexpected()) };
        let pairs = pairs(replies, elements)?;
        if let Err(fault) = self.decoder.pairs(key, pairs) {
            self.reject(key, &fault, whole.whole()?);
        }
        Ok(())
    }

    fn reject(&mut self, key: &[u8], reason: &dyn std::fmt::Display, raw: &[u8]) {
        // `raw` is a part of the page.
        let raw = self.page.replies.slice_ref(raw);
        self.rejects.push(Reject { key: key.to_vec(), reason: reason.to_string(), raw });
    }
}

const OTHER_TYPE: &str = "the key holds another type now";

fn pairs<'a>(replies: &mut Replies<'a>, elements: usize) -> Result<Pairs<'a>> {
    let mut pairs = Vec::with_capacity(elements / 2);
    for _ in 0..elements / 2 {
        let (Reply::Text(field), Reply::Text(value)) = (replies.token()?, replies.token()?) else {
            return Err(unexpected());
        };
        pairs.push((field, value));
    }
    Ok(pairs)
}

fn unexpected() -> Error {
    Error::new(Kind::Internal, "redis answered a read with another kind of reply")
        .with_hint("see that no proxy between changes answers, then: rekindle check")
}
