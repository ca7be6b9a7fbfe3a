//! A bench that did not come to its end: what it had measured by then.
//!
//! Invariant: it predicts nothing, whatever it had measured; its runs are those that were done and read back.

use super::{Head, Sample, System};
use crate::outcome::Exit;
use serde::Serialize;
use std::fmt::Write as _;

/// What is kept of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// What it begins with.
    #[serde(flatten)]
    pub head: Head,
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
        system: System,
        samples: Vec<Sample>,
        wanted: usize,
        exits: &[Exit],
    ) -> Self {
        let is_stopped = |exit: &Exit| matches!(exit, Exit::Interrupted | Exit::Terminated);
        let status = if exits.iter().any(is_stopped) { "interrupted" } else { "failed" };
        Self {
            head: Head::of(started_ms, system, status),
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
        let Self { head: Head { status, .. }, samples, wanted, .. } = self;
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
    use crate::lane::now_ms;

    #[test]
    fn a_bench_that_ended_early_says_so_and_keeps_what_it_had() {
        let failed = Attempt::of(now_ms(), System::Redis, Vec::new(), 9, &[Exit::Rejects]);
        assert_eq!(
            (failed.head.status.as_str(), failed.head.command.as_str()),
            ("failed", "bench")
        );
        assert_eq!(failed.render(), "bench       failed after 0 of 9 runs; it predicts nothing\n");
        let stopped = Attempt::of(now_ms(), System::Redis, Vec::new(), 9, &[Exit::Interrupted]);
        assert_eq!(stopped.head.status, "interrupted");
        // Its head stands beside the rest, not under a name of its own.
        let told = serde_json::to_value(&stopped).unwrap();
        let mut names: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "command",
                "ended_at",
                "not_tested",
                "run_id",
                "samples",
                "seconds",
                "started_at",
                "status",
                "system",
                "wanted"
            ]
        );
    }
}
