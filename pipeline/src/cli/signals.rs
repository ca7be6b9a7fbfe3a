//! SIGINT and SIGTERM: the first asks the run to checkpoint and stop, the second ends the process at once.
//!
//! Invariant: the exit code names the first signal, whatever the run reports once it was asked to stop.

use super::failure::say;
use crate::outcome::Exit;
use indicatif::MultiProgress;
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

const STOPPING: &str =
    "stopping: what is under way is committed first; a second signal stops at once\n";

/// What is known of the signals so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    /// Cancelled by the first signal.
    pub(crate) cancel: CancellationToken,
    first: Arc<OnceLock<Exit>>,
}

impl Signals {
    /// Starts to listen; what it says goes above the bars. Must be called inside the runtime.
    pub(crate) fn listen(bars: MultiProgress) -> io::Result<Self> {
        let signals = Self::default();
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        tokio::spawn(signals.clone().attend(interrupt, terminate, bars));
        Ok(signals)
    }

    /// Whether a signal came.
    pub(crate) fn is_received(&self) -> bool {
        self.first.get().is_some()
    }

    /// Returns the exit of the command: an interrupted one is named after the signal that interrupted it.
    pub(crate) fn name(&self, exit: Exit) -> Exit {
        match (exit, self.first.get()) {
            (Exit::Interrupted | Exit::Terminated, Some(first)) => *first,
            _ => exit,
        }
    }

    async fn attend(self, mut interrupt: Signal, mut terminate: Signal, bars: MultiProgress) {
        loop {
            let received = tokio::select! {
                Some(()) = interrupt.recv() => Exit::Interrupted,
                Some(()) = terminate.recv() => Exit::Terminated,
                else => return,
            };
            if self.first.set(received).is_err() {
                leave(received);
            }
            bars.suspend(|| say(STOPPING));
            self.cancel.cancel();
        }
    }
}

#[expect(
    clippy::exit,
    reason = "the second signal is the promise to stop without waiting for anything"
)]
fn leave(exit: Exit) -> ! {
    std::process::exit(i32::from(exit.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_run_is_named_after_the_first_signal() {
        let signals = Signals::default();
        assert_eq!(signals.name(Exit::Interrupted), Exit::Interrupted);
        signals.first.set(Exit::Terminated).unwrap();
        assert_eq!(signals.name(Exit::Interrupted), Exit::Terminated);
        assert_eq!(signals.name(Exit::Done), Exit::Done);
    }
}
