//! One error for all stages: what kind it is decides what the engine does with it.
//!
//! Invariant: what is done about an error is a function of `Kind` alone, and lives in `policy`.

use crate::policy::Verdict;
use std::fmt;

/// What went wrong, as far as the engine has to care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The plan, a flag, or a plan that does not fit the source or target.
    Config,
    /// Wrong credentials or a missing permission.
    Auth,
    /// A connection could not be made or was lost.
    Connection,
    /// The system is there but cannot serve now (LOADING, READONLY, starting up, recovery conflict).
    Unavailable,
    /// No answer in time.
    Timeout,
    /// The source's schema is not what the run started with, or cannot be carried.
    Schema,
    /// Data that the contract does not allow (a key collision, a wrong-typed key).
    Data,
    /// The target refuses some rows of a batch for good, and takes the others.
    Refused,
    /// The target is full or would evict.
    Capacity,
    /// Another run owns the target or the partition.
    Fenced,
    /// The snapshot is no longer valid; read again under a new one.
    SnapshotLost,
    /// Rows read so far cannot be brought up to date; the route must be read again from its start.
    RouteRestart,
    /// The target is not the server the run committed to.
    TargetChanged,
    /// Data that was written is missing or differs.
    Difference,
    /// More rows could not be carried than the plan allows.
    Rejected,
    /// A broken invariant, a full disk, a corrupt journal.
    Internal,
    /// The run was asked to stop.
    Cancelled,
}

impl Kind {
    /// Whether repeating the same attempt later may succeed.
    pub fn is_transient(self) -> bool {
        self.verdict() == Verdict::Retry
    }
}

/// An error of a stage: kind, what was being done, what it was done to, and the cause.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of a stage.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes an error; the message is lowercase, names the thing, and has no final stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Adds the next command to type.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the hint.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}
