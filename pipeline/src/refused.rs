//! Rows that the target refuses for good: found by halving the batch they are in, and left out of the next attempt.
//!
//! A row is refused after its key is in the ledger, and what the ledger holds is read back. So the key is noted as one that
//! never arrived, the attempt ends there, and the one after it makes the row a reject before its batch is written.
//!
//! Invariant: a row counts as refused only after it was sent alone; what is not refused is written by whoever halves, in a
//! form that may be repeated.

use crate::lane::{Shared, now_ms};
use crate::route::RouteRun;
use schemas::{Partition, PartitionId};
use stages::{Encoded, Error, Kind, RawBatch, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Refused rows of one partition that are remembered; a partition with more of them is not carried.
const REFUSED_MAX: usize = 10_000;

/// Why each row of a partition was refused, by its key.
pub type Reasons = HashMap<Vec<u8>, String>;

/// What was refused so far, by partition; forgotten when the partition is done.
#[derive(Debug, Default)]
pub struct Refusals {
    found: Mutex<HashMap<PartitionId, Arc<Reasons>>>,
}

impl Refusals {
    /// What the next attempt at a partition leaves out.
    pub fn of(&self, partition: &PartitionId) -> Arc<Reasons> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(partition).map(Arc::clone).unwrap_or_default()
    }

    /// Forgets a partition that is done.
    pub fn forget(&self, partition: &PartitionId) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    /// Adds to what is known of a partition; returns how many rows of it are refused now, and how many of them are new.
    fn add(&self, partition: &PartitionId, more: Reasons) -> (usize, usize) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = Arc::make_mut(found.entry(partition.clone()).or_default());
        let before = reasons.len();
        reasons.extend(more);
        (reasons.len(), reasons.len() - before)
    }
}

/// Finds the rows of a batch that the target refuses; the others are written. Returns the error that ends the attempt.
pub async fn single_out(
    shared: &Shared,
    route: &Arc<RouteRun>,
    partition: &Partition,
    lane: usize,
    raw: RawBatch,
) -> Error {
    let found = match search(shared, route, partition, lane, raw).await {
        Ok(found) => found,
        Err(error) => return error,
    };
    let Some(reason) = found.values().next().cloned() else {
        // Alone, or written exactly, they are all taken: the next attempt writes them so.
        let message =
            format!("the target took the rows of a batch of {} one by one only", partition.id);
        return Error::new(Kind::Unavailable, message);
    };
    let number = found.len();
    let noted = shared.ledger.note_refused(&partition.id, found.keys().map(Vec::as_slice), false);
    if let Err(error) = noted {
        return error;
    }
    let (all, new) = shared.refusals.add(&partition.id, found);
    // What was left out and is refused again would be so for ever.
    if all > REFUSED_MAX || new == 0 {
        let message = format!(
            "too many rows of partition {} are refused by the target ({all} so far): {reason}",
            partition.id
        );
        return Error::new(Kind::Data, message)
            .with_hint("mend the rows, leave them out with `where`, or let the target take them");
    }
    let message = format!("the target refuses {number} rows of partition {}", partition.id);
    Error::new(Kind::Refused, message).with_source(reason)
}

async fn search(
    shared: &Shared,
    route: &Arc<RouteRun>,
    partition: &Partition,
    lane: usize,
    raw: RawBatch,
) -> Result<Reasons> {
    let mut found = Reasons::new();
    // The whole was refused.
    let mut open: Vec<std::ops::Range<usize>> = halves(0..raw.rows);
    if open.is_empty() {
        open.push(0..raw.rows);
    }
    while let Some(rows) = open.pop() {
        let encoded = encode(shared, route, partition, raw.share(), rows.clone()).await?;
        match shared.sink.write(lane, &encoded).await {
            Ok(_) => {}
            Err(error) if error.kind() != Kind::Refused => return Err(error),
            Err(error) => match (halves(rows), encoded.keyed().next()) {
                (halves, _) if !halves.is_empty() => open.extend(halves),
                (_, Some((key, _))) => {
                    found.insert(key.to_vec(), told(&error));
                }
                (_, None) => return Err(error),
            },
        }
    }
    Ok(found)
}

/// Encodes some rows of a batch so that writing them again does no harm.
async fn encode(
    shared: &Shared,
    route: &Arc<RouteRun>,
    partition: &Partition,
    raw: RawBatch,
    rows: std::ops::Range<usize>,
) -> Result<Encoded> {
    let decoder = (route.decoder_of)(&partition.bounds);
    let transform = (route.transform)(&partition.bounds, route.style(&partition.bounds, false));
    let bound = Arc::clone(&route.bound);
    let work = shared.cpu.submit(move || {
        let whole = decoder.decode(&raw, &bound.schema)?;
        let rows: Vec<usize> = rows.collect();
        transform.apply(decoder.pick(&whole, &rows)?, now_ms())
    });
    work.await
}

/// Both halves of some rows; nothing where there is only one.
fn halves(rows: std::ops::Range<usize>) -> Vec<std::ops::Range<usize>> {
    if rows.len() < 2 {
        return Vec::new();
    }
    let middle = rows.start + rows.len() / 2;
    // The later half below: the earlier one comes first.
    vec![middle..rows.end, rows.start..middle]
}

/// What the target said, which names no value.
pub(crate) fn told(error: &Error) -> String {
    let said = std::error::Error::source(error).map(ToString::to_string);
    format!("the target refused it: {}", said.unwrap_or_else(|| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_whole_and_one_row_has_none() {
        assert_eq!(halves(3..8), [5..8, 3..5]);
        assert_eq!(halves(3..5), [4..5, 3..4]);
        assert!(halves(3..4).is_empty() && halves(3..3).is_empty());
    }

    #[test]
    fn refusals_are_kept_by_partition_until_it_is_done() {
        let refusals = Refusals::default();
        let (one, other) = (PartitionId("a/0".into()), PartitionId("a/1".into()));
        let reasons = |key: &str| Reasons::from([(key.as_bytes().to_vec(), "why".to_owned())]);
        assert_eq!(refusals.add(&one, reasons("k:1")), (1, 1));
        assert_eq!(refusals.add(&one, reasons("k:2")), (2, 1));
        assert_eq!(refusals.add(&one, reasons("k:2")), (2, 0));
        assert_eq!((refusals.of(&one).len(), refusals.of(&other).len()), (2, 0));
        refusals.forget(&one);
        assert!(refusals.of(&one).is_empty());
    }
}
