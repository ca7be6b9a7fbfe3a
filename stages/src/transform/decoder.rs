//! The wire formats that raw batches come in.
//!
//! Invariant: whatever the format, a decoded batch has the columns of the schema in its order.

use super::arrow_ipc;
use super::copy_binary::{self, Decoded, Lead};
use crate::batch::RawBatch;
use crate::error::{Error, Kind, Result};
use schemas::TableSchema;

/// How a raw batch is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// PostgreSQL's COPY BINARY tuples, behind this lead column.
    CopyBinary(Lead),
    /// An arrow IPC schema message and one record batch message.
    ArrowIpc,
}

impl From<Lead> for Decoder {
    fn from(lead: Lead) -> Self {
        Self::CopyBinary(lead)
    }
}

impl Decoder {
    /// Decodes a batch; fails where it does not hold the rows that it says.
    pub fn decode(self, raw: &RawBatch, schema: &TableSchema) -> Result<Decoded> {
        let decoded = match self {
            Self::CopyBinary(lead) => copy_binary::decode(&raw.bytes, lead, schema)?,
            Self::ArrowIpc => Decoded::of_rows(arrow_ipc::decode(&raw.bytes, schema)?),
        };
        if decoded.rows.num_rows() != raw.rows {
            return Err(Error::new(
                Kind::Internal,
                format!("a batch of {} rows decoded to {}", raw.rows, decoded.rows.num_rows()),
            ));
        }
        Ok(decoded)
    }

    /// Returns what stands before the columns of the schema.
    pub(super) fn lead(self) -> Lead {
        match self {
            Self::CopyBinary(lead) => lead,
            Self::ArrowIpc => Lead::None,
        }
    }
}
