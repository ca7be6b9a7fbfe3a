//! How far a restored table, a write stream and a job are: pure state machines, folded from what was acknowledged.
//!
//! | table    | next                        | | stream      | next                        |
//! |----------|-----------------------------|-|-------------|-----------------------------|
//! | planned  | staged                      | | planned     | open                        |
//! | staged   | loaded, planned (anew)      | | open        | finalized, planned (anew)   |
//! | loaded   | proven, planned (anew)      | | finalized   | committing, planned (anew)  |
//! | proven   | published                   | | committing  | committed                   |
//! | published| complete                    | | committed   |                             |
//! | complete |                             | |             |                             |
//!
//! Invariant: a stream whose commit was asked for is never replaced, because the commit may still arrive; starting
//! over from there means another staging table, in which nothing old can appear.

use std::fmt;

/// How far the restore of one table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableStage {
    /// What is to be restored is known; nothing was written.
    Planned,
    /// The staging table is there.
    Staged,
    /// Every stream is committed into staging.
    Loaded,
    /// Staging has the rows and the digest of the manifests.
    Proven,
    /// The destination has the rows.
    Published,
    /// The destination is proven, its metadata put back, staging gone.
    Complete,
}

/// How far a write stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStage {
    /// There is none yet.
    Planned,
    /// It takes rows.
    Open,
    /// It takes no more rows, and its count is right.
    Finalized,
    /// Its commit was asked for; whether it happened is to be found out.
    Committing,
    /// Its rows are in staging.
    Committed,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStage {
    /// Its id is written down; whether BigQuery knows it is to be found out.
    Asked,
    /// It ended well.
    Done,
    /// It ended without an effect; the next attempt has another id.
    Failed,
}

/// A step that the state machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot go from {from} to {to}")]
pub struct IllegalStep {
    what: &'static str,
    from: String,
    to: String,
}

fn illegal(what: &'static str, from: impl fmt::Display, to: impl fmt::Display) -> IllegalStep {
    IllegalStep { what, from: from.to_string(), to: to.to_string() }
}

impl TableStage {
    const ALL: [Self; 6] =
        [Self::Planned, Self::Staged, Self::Loaded, Self::Proven, Self::Published, Self::Complete];

    /// Returns the word of the journal.
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Staged => "staged",
            Self::Loaded => "loaded",
            Self::Proven => "proven",
            Self::Published => "published",
            Self::Complete => "complete",
        }
    }

    /// Reads the word of the journal.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.word() == word)
    }

    /// Returns the next stage, or says that there is no such step. Repeating a step is one.
    pub fn step(self, to: Self) -> Result<Self, IllegalStep> {
        let is_forward = to as u8 == self as u8 + 1;
        let is_anew = to == Self::Planned && self < Self::Proven;
        if self == to || is_forward || is_anew {
            Ok(to)
        } else {
            Err(illegal("a restored table", self.word(), to.word()))
        }
    }
}

impl StreamStage {
    const ALL: [Self; 5] =
        [Self::Planned, Self::Open, Self::Finalized, Self::Committing, Self::Committed];

    /// Returns the word of the journal.
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Open => "open",
            Self::Finalized => "finalized",
            Self::Committing => "committing",
            Self::Committed => "committed",
        }
    }

    /// Reads the word of the journal.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.word() == word)
    }

    /// Returns the next stage, or says that there is no such step. Repeating a step is one.
    pub fn step(self, to: Self) -> Result<Self, IllegalStep> {
        let is_step = match (self, to) {
            (Self::Planned, Self::Open)
            | (Self::Open, Self::Finalized | Self::Planned)
            | (Self::Finalized, Self::Committing | Self::Planned)
            | (Self::Committing, Self::Committed) => true,
            (from, to) => from == to,
        };
        if is_step { Ok(to) } else { Err(illegal("a write stream", self.word(), to.word())) }
    }
}

impl JobStage {
    /// Returns the word of the journal.
    pub fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Reads the word of the journal.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Asked, Self::Done, Self::Failed].into_iter().find(|stage| stage.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_forward_one_step_at_a_time() {
        for (place, from) in TableStage::ALL.into_iter().enumerate() {
            for (other, to) in TableStage::ALL.into_iter().enumerate() {
                let is_anew = to == TableStage::Planned && from < TableStage::Proven;
                let is_expected = other == place || other == place + 1 || is_anew;
                assert_eq!(from.step(to).is_ok(), is_expected, "{from:?} to {to:?}");
            }
            assert_eq!(TableStage::parse(from.word()), Some(from));
        }
    }

    #[test]
    fn a_stream_whose_commit_was_asked_for_is_never_replaced() {
        use StreamStage as S;
        for from in S::ALL {
            let is_replaceable = matches!(from, S::Planned | S::Open | S::Finalized);
            assert_eq!(from.step(S::Planned).is_ok(), is_replaceable, "{from:?}");
            assert_eq!(S::parse(from.word()), Some(from));
        }
        assert!(S::Open.step(S::Committing).is_err() && S::Open.step(S::Committed).is_err());
        assert!(S::Committed.step(S::Open).is_err());
    }

    #[test]
    fn words_that_are_none_are_no_stage() {
        assert_eq!(TableStage::parse("done"), None);
        assert_eq!(StreamStage::parse(""), None);
        assert_eq!(JobStage::parse("done"), Some(JobStage::Done));
    }
}
