//! What the traits of sources and sinks promise, asked of every implementation against its real system.
//!
//! Invariant: a promise is checked for every line of a list, or the line says why it cannot be.

mod appends;
mod archived;
mod blocks;
mod breaking;
mod list;
mod passes;
mod readers;
mod reading;
mod rows;
mod sinks;
mod sources;
mod target;
mod targets;

pub(crate) use reading::keys_in_order as read_alone;

/// Polls work so many times and drops it, wherever it has come to.
async fn some_turns(mut work: impl Future + Unpin, turns: usize) {
    for _ in 0..turns {
        tokio::select! {
            biased;
            _ = &mut work => return,
            () = tokio::task::yield_now() => {}
        }
    }
}
