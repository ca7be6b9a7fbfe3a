//! What joins the batches of one attempt at a partition, whatever its layout asks of it.
//!
//! Invariant: batches are taken in the order of the partition, each once.

use super::many_rows::{self, OpenBatch};
use super::stream_rows::{self, OpenEntries};
use crate::batch::Encoded;
use crate::error::{Error, Kind, Result};

/// One attempt at a partition.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Names this attempt and no other one.
    pub name: &'a str,
    /// Which partition of its cut it is, from 0.
    pub number: u64,
}

/// A batch that is still to be joined to those before it.
#[derive(Debug)]
pub enum Open {
    /// Its first and last key may go on in the batches beside it.
    Keys(Box<OpenBatch>),
    /// How many entries come before its own is not known.
    Entries(Box<OpenEntries>),
}

/// The sequential state of one attempt.
#[derive(Debug)]
pub enum Stitcher {
    /// Of keys that many rows make.
    Keys(many_rows::Stitcher),
    /// Of a stream.
    Entries(stream_rows::Stitcher),
}

impl Stitcher {
    /// Takes the next batch and returns what to send, in order.
    pub fn take(&mut self, open: Open) -> Result<Vec<Encoded>> {
        match (self, open) {
            (Self::Keys(stitcher), Open::Keys(batch)) => stitcher.take(*batch),
            (Self::Entries(stitcher), Open::Entries(entries)) => Ok(vec![stitcher.take(*entries)?]),
            _ => Err(Error::new(Kind::Internal, "a batch is joined to those of another layout")),
        }
    }

    /// Ends the partition, after its last batch; returns what is still to be sent.
    pub fn end(&mut self) -> Result<Option<Encoded>> {
        match self {
            // The last batch says that it is the last.
            Self::Keys(_) => Ok(None),
            Self::Entries(stitcher) => stitcher.end().map(Some),
        }
    }
}
