//! What a drill does one after the other, each with its time, and the runs it is made of.
//!
//! Invariant: times are measured from the declared loss by one clock that never goes back; a phase that failed says so.

use crate::lane::now_ms;
use crate::summarize::rfc3339;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// One phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// How long it took.
    pub seconds: f64,
    /// From the declared loss to its end; absent where it does not count towards the RTO.
    pub since_loss: Option<f64>,
    /// `done` or `failed`.
    pub outcome: String,
}

/// A run that a drill is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The command.
    pub command: String,
    /// Its id.
    pub run_id: String,
    /// How it ended.
    pub status: String,
    /// Rows that it carried or compared.
    pub rows: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The clock of a drill.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    /// When the loss was declared; absent until then.
    lost: Option<(Instant, i64)>,
    pub(super) phases: Vec<Phase>,
}

/// A phase that is at work.
pub(super) struct Begun {
    name: &'static str,
    clock: Instant,
    started_ms: i64,
    is_counted: bool,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), lost: None, phases: Vec::new() }
    }

    /// Seconds since the drill began.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Declares the loss.
    pub(super) fn lose(&mut self) {
        self.lost = Some((Instant::now(), now_ms()));
    }

    /// When the loss was declared, milliseconds since 1970.
    pub(super) fn lost_ms(&self) -> Option<i64> {
        self.lost.map(|(_, at)| at)
    }

    /// Seconds since the loss.
    pub(super) fn since_loss(&self) -> f64 {
        self.lost.map_or(0.0, |(clock, _)| clock.elapsed().as_secs_f64())
    }

    /// Begins a phase; one that is counted lies between the loss and serving.
    pub(super) fn begin(name: &'static str, is_counted: bool) -> Begun {
        Begun { name, clock: Instant::now(), started_ms: now_ms(), is_counted }
    }

    /// Ends a phase; returns the line that tells it.
    pub(super) fn end(&mut self, begun: &Begun, is_done: bool) -> String {
        let seconds = begun.clock.elapsed().as_secs_f64();
        let outcome = if is_done { "done" } else { "failed" };
        self.phases.push(Phase {
            name: begun.name.to_owned(),
            started_at: rfc3339(begun.started_ms),
            seconds,
            since_loss: begun.is_counted.then(|| self.since_loss()),
            outcome: outcome.to_owned(),
        });
        format!("{}: {outcome}, {}", begun.name, crate::cli::figures::seconds(seconds))
    }
}
