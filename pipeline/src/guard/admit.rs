//! Batches of a lane, let through as the guard does.
//!
//! Invariant: they keep their order, and none overtakes one that waits.

use super::{Asked, Grant, Guard};
use futures::{Stream, StreamExt};
use stages::Result;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Lets batches through one by one, in order, each with what it was granted; ends when no more may be sent.
pub fn admitted<'a, T: 'a>(
    guard: &'a Arc<Guard>,
    stop: &'a CancellationToken,
    ask: impl Fn(&T) -> Asked + 'a,
    ready: impl Stream<Item = Result<T>> + 'a,
) -> impl Stream<Item = Result<(T, Grant)>> + 'a {
    futures::stream::unfold((Box::pin(ready), ask), move |(mut ready, ask)| async move {
        let admitted = match ready.next().await? {
            Ok(batch) => {
                let asked = ask(&batch);
                guard.admit(asked, stop).await.transpose()?.map(|grant| (batch, grant))
            }
            Err(error) => Err(error),
        };
        Some((admitted, (ready, ask)))
    })
}
