//! The steps of a recovery.
//!
//! Invariant: their order is that in which one needs another.

use crate::place::Place;

/// What brings a dataset back, in the order in which one needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Keys that the archive gives wait for no table.
    RebuildFromArchive,
    Restore,
    RestoreFromArchive,
    Rebuild,
    Backup,
}

impl Step {
    pub(super) fn command(self) -> String {
        match self {
            Self::RebuildFromArchive => "rekindle rebuild redis --from archive".to_owned(),
            Self::Restore => "rekindle restore bigquery".to_owned(),
            Self::RestoreFromArchive => Place::Archive.named("rekindle restore bigquery"),
            Self::Rebuild => "rekindle rebuild redis".to_owned(),
            Self::Backup => "rekindle backup bigquery".to_owned(),
        }
    }
}
