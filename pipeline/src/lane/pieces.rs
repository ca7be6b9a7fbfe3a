//! Batches between transform and write: joined where a key goes on, framed for the ledger.
//!
//! Invariant: order is kept, and what is joined is one piece with one frame.

use super::Shared;
use super::clock::Clock;
use crate::guard::Grant;
use crate::ledger;
use crate::tuning::{Dials, Place, Window};
use futures::{Stream, StreamExt};
use stages::transform::Stitcher;
use stages::{Encoded, RawBatch, Result};
use std::sync::Arc;

/// A batch that was transformed, with its ledger frame where it stands for itself.
pub(super) struct Transformed {
    pub(super) encoded: Encoded,
    pub(super) frame: Option<Vec<u8>>,
    pub(super) raw: Option<RawBatch>,
}

/// A batch ready to be written, with its ledger frame.
pub(super) struct Ready {
    pub(super) encoded: Encoded,
    pub(super) frame: Vec<u8>,
    /// What it was made of, where it stands for itself: its rows may have to be told apart.
    pub(super) raw: Option<RawBatch>,
}

/// Makes the ledger frame of a batch that has none yet.
pub(super) async fn framed(shared: Arc<Shared>, transformed: Transformed) -> Result<Ready> {
    let Transformed { encoded, frame, raw } = transformed;
    if let Some(frame) = frame {
        return Ok(Ready { encoded, frame, raw });
    }
    let framing = shared.cpu.submit(move || {
        let frame = ledger::encode_frame(&encoded)?;
        Ok(Ready { encoded, frame, raw: None })
    });
    framing.await
}

/// Joins a batch that is open at its ends to the one before; every other one passes.
pub(super) fn stitched(
    stitcher: &mut Option<Stitcher>,
    transformed: Result<Transformed>,
) -> Vec<Result<Transformed>> {
    let (open, stitcher) = match (transformed, stitcher) {
        (Ok(Transformed { encoded: Encoded { open: Some(open), .. }, .. }), Some(stitcher)) => {
            (open, stitcher)
        }
        (transformed, _) => return vec![transformed],
    };
    match stitcher.take(open) {
        Ok(parts) => parts
            .into_iter()
            .map(|encoded| Ok(Transformed { encoded, frame: None, raw: None }))
            .collect(),
        Err(error) => vec![Err(error)],
    }
}

/// Ends what the batches of a partition were joined to.
pub(super) fn ended(stitcher: &mut Option<Stitcher>) -> Vec<Result<Transformed>> {
    let end = stitcher.as_mut().and_then(|stitcher| stitcher.end().transpose());
    end.into_iter().map(|end| Ok(Transformed { encoded: end?, frame: None, raw: None })).collect()
}

/// Lets batches on, in order, as the lane has places at the target; ends when they do.
pub(super) fn placed<'a, T: 'a>(
    dials: &'a Dials,
    clock: &'a Clock<'_>,
    window: &'a Window,
    admitted: impl Stream<Item = Result<(T, Grant)>> + 'a,
) -> impl Stream<Item = Result<(T, (Grant, Place))>> + 'a {
    futures::stream::unfold(Box::pin(admitted), move |mut admitted| async move {
        let placed = match admitted.next().await? {
            Ok((batch, grant)) => {
                clock.turn(|now| (now.is_held, now.is_queued) = (false, true));
                let place = window.place(dials.depth()).await;
                clock.turn(|now| (now.is_queued, now.writes) = (false, now.writes + 1));
                Ok((batch, (grant, place)))
            }
            Err(error) => Err(error),
        };
        Some((placed, admitted))
    })
}
