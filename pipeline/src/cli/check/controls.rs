//! One control: what was looked at, what came out, how to fix it.
//!
//! Invariant: only a failed control has an exit other than `Done`, and it is 2 unless a system is away or full.

use crate::outcome::Exit;
use serde::Serialize;
use stages::{Error, Kind};

/// What a control came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// A run would fail.
    Failed,
    /// Could not be found out.
    Unknown,
}

/// One line of the check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Control {
    /// What was looked at.
    #[serde(rename = "control")]
    pub(super) name: String,
    /// What it came to.
    pub(super) verdict: Verdict,
    /// Why.
    pub(super) detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
    /// What it means for the exit code.
    #[serde(skip)]
    pub(super) exit: Exit,
}

impl Control {
    fn new(
        control: impl Into<String>,
        verdict: Verdict,
        exit: Exit,
        detail: impl Into<String>,
    ) -> Self {
        Self { name: control.into(), verdict, detail: detail.into(), fix: None, exit }
    }

    /// As it should be.
    pub(super) fn ok(control: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(control, Verdict::Ok, Exit::Done, detail)
    }

    /// Could not be found out.
    pub(super) fn unknown(control: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(control, Verdict::Unknown, Exit::Done, detail)
    }

    /// A run would be refused.
    pub(super) fn failed(control: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(control, Verdict::Failed, Exit::Usage, detail)
    }

    /// The target is as good as full.
    pub(super) fn full(control: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(control, Verdict::Failed, Exit::Capacity, detail)
    }

    /// What is there is older than its objective allows.
    pub(super) fn late(control: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(control, Verdict::Failed, Exit::Objective, detail)
    }

    /// What an error means for a control, causes and way out included.
    pub(super) fn of_error(control: impl Into<String>, error: &Error) -> Self {
        let mut detail = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !detail.contains(&text) {
                detail = format!("{detail}: {text}");
            }
            next = cause.source();
        }
        let exit = match Exit::of_kind(error.kind()) {
            exit @ (Exit::Unreachable | Exit::Capacity) => exit,
            _ => Exit::Usage,
        };
        // The errors' own hint to run this very check leads nowhere from here.
        let fix = error.hint().filter(|hint| *hint != "rekindle check").map(str::to_owned);
        let fix = fix.or_else(|| match error.kind() {
            Kind::Connection | Kind::Timeout | Kind::Unavailable => {
                Some("see that the server is up, and that its address and the network let this machine in".to_owned())
            }
            _ => None,
        });
        Self { fix, ..Self::new(control, Verdict::Failed, exit, detail) }
    }

    /// Adds what to do about it.
    pub(super) fn with_fix(mut self, fix: Option<&str>) -> Self {
        self.fix = fix.map(str::to_owned);
        self
    }

    /// Returns what was looked at and why it is as it is, without the way out.
    pub(super) fn told(&self) -> String {
        format!("{}: {}", self.name, self.detail)
    }

    /// Returns the line for people.
    pub(super) fn render(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "OK",
            Verdict::Failed => "FAILED",
            Verdict::Unknown => "UNKNOWN",
        };
        let fix = self.fix.as_ref().map(|fix| format!(" ({fix})")).unwrap_or_default();
        format!("{verdict:<7}  {}: {}{fix}\n", self.name, self.detail)
    }
}
