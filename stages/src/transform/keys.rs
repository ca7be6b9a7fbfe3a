//! Keys alone, from batches that hold only the key columns: for collision and deletion checks.
//!
//! Invariant: the keys are the ones that the full transform renders for the same rows.

use super::Decoder;
use crate::batch::RawBatch;
use crate::error::{Error, Kind, Result};
use schemas::bind::KeyOnly;
use schemas::key::key_hash;

/// The keys of one batch.
#[derive(Debug, Default)]
pub struct RenderedKeys {
    /// The keys, concatenated.
    pub keys: Vec<u8>,
    /// The end of each key.
    pub ends: Vec<u32>,
    /// Rows without a key: a null in it, or a value that the full transform rejects.
    pub skipped: u64,
}

impl RenderedKeys {
    /// Iterates over the keys in row order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let key = &self.keys[start..*end as usize];
            start = *end as usize;
            key
        })
    }

    /// Iterates over the xxh3-128 hashes of the keys in row order.
    pub fn hashes(&self) -> impl Iterator<Item = u128> {
        self.iter().map(key_hash)
    }
}

/// Renders the keys of a raw batch that holds the columns of `key_only.schema`.
pub fn render_keys(
    raw: &RawBatch,
    decoder: impl Into<Decoder>,
    key_only: &KeyOnly,
) -> Result<RenderedKeys> {
    let batch = decoder.into().decode(raw, &key_only.schema)?;
    let key = key_only.key.renderer(&batch.rows).map_err(|error| {
        Error::new(Kind::Internal, "a decoded column has the wrong arrow type").with_source(error)
    })?;
    let row_count = batch.rows.num_rows();
    let mut rendered = RenderedKeys {
        keys: Vec::with_capacity(raw.bytes.len()),
        ends: Vec::with_capacity(row_count),
        skipped: 0,
    };
    let mut bad = batch.bad.iter().peekable();
    for row in 0..row_count {
        let is_bad = bad.next_if(|bad| bad.row == row).is_some();
        if is_bad || key.render(row, &mut rendered.keys).is_err() {
            rendered.skipped += 1;
            continue;
        }
        rendered.ends.push(
            u32::try_from(rendered.keys.len())
                .map_err(|_| Error::new(Kind::Internal, "the keys of a batch exceed 4 GiB"))?,
        );
    }
    Ok(rendered)
}
