//! Encoding a batch without the rows that the target has refused: they become rejects.
//!
//! Invariant: position, digest and rows read are those of the whole batch, so that nothing is read or counted again.

use super::redis_command::rejected;
use super::{Decoder, Transform};
use crate::batch::{Encoded, RawBatch, Rejected};
use crate::error::{Error, Kind, Result};
use arrow::compute::concat_batches;
use schemas::TableSchema;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// Encodes a batch; rows whose key is among the refused ones are left out, each with its reason.
pub fn leave_out<S: BuildHasher>(
    transform: &dyn Transform,
    decoder: Decoder,
    schema: &TableSchema,
    raw: RawBatch,
    now_ms: i64,
    refused: &HashMap<Vec<u8>, String, S>,
) -> Result<Encoded> {
    if refused.is_empty() {
        return transform.apply(raw, now_ms);
    }
    let whole = transform.apply(raw.share(), now_ms)?;
    if whole.keyed().all(|(key, _)| !refused.contains_key(key)) {
        return Ok(whole);
    }
    let rows = decoder.decode(&raw, schema)?;
    let (mut kept, mut left_out) = (Vec::new(), Vec::new());
    for row in 0..raw.rows {
        let single = transform.apply(decoder.pick(&rows, &[row])?, now_ms)?;
        match single.keyed().next().and_then(|(key, _)| refused.get(key)) {
            Some(reason) => left_out.push((row, reason.clone())),
            None => kept.push(row),
        }
    }
    let rest = if kept.is_empty() {
        Encoded { may_keep: whole.may_keep, ..Encoded::empty() }
    } else {
        transform.apply(decoder.pick(&rows, &kept)?, now_ms)?
    };
    let left_out = rejected(&rows, left_out, schema)?;
    Ok(Encoded {
        position: whole.position,
        digest: whole.digest,
        rows_read: whole.rows_read,
        bytes_read: whole.bytes_read,
        rejected: joined(rest.rejected, left_out)?,
        ..rest
    })
}

fn joined(one: Option<Rejected>, other: Option<Rejected>) -> Result<Option<Rejected>> {
    let (mut all, more) = match (one, other) {
        (Some(all), Some(more)) => (all, more),
        (one, other) => return Ok(one.or(other)),
    };
    all.rows = concat_batches(&all.rows.schema(), [&all.rows, &more.rows]).map_err(|error| {
        Error::new(Kind::Internal, "rejected rows could not be collected").with_source(error)
    })?;
    all.raw.extend(more.raw);
    all.reasons.extend(more.reasons);
    Ok(Some(all))
}
