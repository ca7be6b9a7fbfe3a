//! The switch that ends a round: thrown by a signal or by an error that no lane can get past.
//!
//! Invariant: after `renew`, only the run's own cancellation still counts.

use stages::{Error, Kind, Result};
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Ends the lanes of a round; can be renewed for the next one.
#[derive(Debug)]
pub struct StopSwitch {
    run: CancellationToken,
    round: Mutex<CancellationToken>,
}

impl StopSwitch {
    /// Makes a switch that is also thrown when `run` is cancelled.
    pub fn new(run: CancellationToken) -> Self {
        let round = Mutex::new(run.child_token());
        Self { run, round }
    }

    /// The token of the current round.
    pub fn token(&self) -> CancellationToken {
        self.round.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the current round.
    pub fn cancel(&self) {
        self.token().cancel();
    }

    /// Whether the current round is to end.
    pub fn is_cancelled(&self) -> bool {
        self.token().is_cancelled()
    }

    /// Whether the run itself was asked to stop.
    pub fn is_run_cancelled(&self) -> bool {
        self.run.is_cancelled()
    }

    /// Runs work that has no batches to stop at, and leaves it when the run is asked to stop.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.run.cancelled() => Err(Error::new(Kind::Cancelled, "the run was asked to stop")),
        }
    }

    /// Arms the switch for another round.
    pub fn renew(&self) {
        *self.round.lock().unwrap_or_else(PoisonError::into_inner) = self.run.child_token();
    }
}
