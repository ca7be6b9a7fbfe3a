//! What everything that a bench leaves begins with, however it ended.
//!
//! Invariant: its fields stand beside those of what it heads, so that evidence of each kind is read in the same way.

use super::{COMMAND, System};
use crate::lane::now_ms;
use crate::summarize::rfc3339;
use serde::Serialize;
use uuid::Uuid;

/// The head of a report or of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Head {
    /// Always `bench`.
    pub command: String,
    /// An id of its own.
    pub run_id: String,
    /// `done` of a report; `failed` or `interrupted` of an attempt.
    pub status: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub ended_at: String,
    /// Seconds of all of it.
    pub seconds: f64,
    /// The system whose recovery was measured, and that the RTO is of.
    pub system: String,
}

impl Head {
    /// Heads what began then, in milliseconds since 1970, and ends now.
    pub(super) fn of(started_ms: i64, system: System, status: &str) -> Self {
        let ended_ms = now_ms();
        Self {
            command: COMMAND.to_owned(),
            run_id: Uuid::new_v4().to_string(),
            status: status.to_owned(),
            started_at: rfc3339(started_ms),
            ended_at: rfc3339(ended_ms),
            seconds: (ended_ms - started_ms) as f64 / 1e3,
            system: system.word().to_owned(),
        }
    }
}
