//! Exit codes: what kind of end a command came to, and which one wins when there are several.
//!
//! Invariant: a code is a function of error kinds; unknown trouble is never 0.

use crate::journal::JournalError;
use stages::{Error, Kind};

/// How a command ended, in order of precedence: an earlier one wins over a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// Stopped by SIGINT; checkpointed and resumable.
    Interrupted,
    /// Stopped by SIGTERM; checkpointed and resumable.
    Terminated,
    /// Panic, full disk, corrupt or newer journal.
    Internal,
    /// Usage, plan, credentials, permission, changed plan or schema, refused overwrite.
    Usage,
    /// Another run holds the lock or the target.
    Held,
    /// A system could not be reached in time.
    Unreachable,
    /// It would evict or run out of memory.
    Capacity,
    /// A difference was found.
    Difference,
    /// Finished with rejects over the budget.
    Rejects,
    /// The data is right but an objective was missed.
    Objective,
    /// Done and proven as asked.
    Done,
}

impl Exit {
    /// Returns the process exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Difference => 4,
            Self::Capacity => 5,
            Self::Objective => 6,
            Self::Rejects => 7,
            Self::Held => 8,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// Returns the exit that ends a process with this code.
    pub fn of_code(code: u8) -> Option<Self> {
        [
            Self::Interrupted,
            Self::Terminated,
            Self::Internal,
            Self::Usage,
            Self::Held,
            Self::Unreachable,
            Self::Capacity,
            Self::Difference,
            Self::Rejects,
            Self::Objective,
            Self::Done,
        ]
        .into_iter()
        .find(|exit| exit.code() == code)
    }

    /// Returns the exit of an error kind.
    pub fn of_kind(kind: Kind) -> Self {
        match kind {
            Kind::Config | Kind::Auth | Kind::Schema | Kind::Data | Kind::Refused => Self::Usage,
            Kind::Connection | Kind::Unavailable | Kind::Timeout | Kind::SnapshotLost => {
                Self::Unreachable
            }
            // A route that could not be read under one snapshot, a target that kept being replaced.
            Kind::RouteRestart | Kind::TargetChanged => Self::Unreachable,
            Kind::Capacity => Self::Capacity,
            Kind::Fenced => Self::Held,
            Kind::Difference => Self::Difference,
            Kind::Rejected => Self::Rejects,
            Kind::Internal => Self::Internal,
            Kind::Cancelled => Self::Interrupted,
        }
    }
}

/// Turns a journal failure into the stages' error, with the way out.
pub fn from_journal(error: JournalError) -> Error {
    let (kind, hint) = match &error {
        JournalError::Locked { .. } => {
            (Kind::Fenced, "wait for that process, or give this run another --state")
        }
        JournalError::Newer { .. } => {
            (Kind::Internal, "use the newer rekindle, or another --state")
        }
        JournalError::Corrupt { .. } => (
            Kind::Internal,
            "move the state folder away and start over with another --state; nothing in it was changed",
        ),
        JournalError::Fenced { .. } => (Kind::Fenced, "rekindle status"),
        JournalError::Io { .. } | JournalError::BeforeCommit { .. } => (
            Kind::Internal,
            "free space or mend permissions under --state, then run the same command again: it resumes",
        ),
        _ => (Kind::Internal, "rekindle status"),
    };
    Error::new(kind, error.to_string()).with_hint(hint).with_source(error)
}
