//! A bench that did not come to its end: what it had measured by then.
//!
//! Invariant: it predicts nothing, whatever it had measured; its runs are those that were done and read back.

use super::{COMMAND, Sample};
use crate::lane::now_ms;
use crate::outcome::Exit;
use crate::summarize::rfc3339;
use serde::Serialize;
use std::fmt::Write as _;
use uuid::Uuid;

/// What is kept of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// Always `bench`.
    pub command: String,
    /// An id of its own.
    pub run_id: String,
    /// `failed` or `interrupted`.
    pub status: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub ended_at: String,
    /// Seconds of all of it.
    pub seconds: f64,
    /// The system whose recovery was measured.
    pub system: String,
    /// Runs that it was going to make.
    pub wanted: usize,
    /// Those that were done, in the order they were made.
    pub samples: Vec<Sample>,
    /// What this does not show.
    pub not_tested: Vec<String>,
}

impl Attempt {
    pub(super) fn of(
        started_ms: i64,
        system: &str,
        samples: Vec<Sample>,
        wanted: usize,
        exits: &[Exit],
    ) -> Self {
        let is_stopped = |exit: &Exit| matches!(exit, Exit::Interrupted | Exit::Terminated);
        let ended_ms = now_ms();
        Self {
            command: COMMAND.to_owned(),
            run_id: Uuid::new_v4().to_string(),
            status: if exits.iter().any(is_stopped) { "interrupted" } else { "failed" }.to_owned(),
            started_at: rfc3339(started_ms),
            ended_at: rfc3339(ended_ms),
            seconds: (ended_ms - started_ms) as f64 / 1e3,
            system: system.to_owned(),
            wanted,
            samples,
            not_tested: vec![
                "anything of production: the bench did not come to its end, so it predicts nothing"
                    .to_owned(),
            ],
        }
    }

    /// Writes it for people.
    pub fn render(&self) -> String {
        let Self { status, samples, wanted, .. } = self;
        let mut text = format!(
            "bench       {status} after {} of {wanted} runs; it predicts nothing\n",
            samples.len()
        );
        for (number, sample) in samples.iter().enumerate() {
            let label = if number == 0 { "measured" } else { "" };
            writeln!(text, "{label:<12}{}", sample.line())
                .expect("writing to a string cannot fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_that_ended_early_says_so_and_keeps_what_it_had() {
        let failed = Attempt::of(now_ms(), "redis", Vec::new(), 9, &[Exit::Rejects]);
        assert_eq!((failed.status.as_str(), failed.command.as_str()), ("failed", "bench"));
        assert_eq!(failed.render(), "bench       failed after 0 of 9 runs; it predicts nothing\n");
        let stopped = Attempt::of(now_ms(), "redis", Vec::new(), 9, &[Exit::Interrupted]);
        assert_eq!(stopped.status, "interrupted");
    }
}
