//! What a verification comes to.
//!
//! Invariant: a whole passes only when every part of it passes.

use crate::outcome::Exit;
use serde::{Deserialize, Serialize};

/// What a verification comes to, in the order in which one part decides about the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Both ends agree, as far as was asked.
    Pass,
    /// Some of it could not be proven: it kept changing, could not be read under one snapshot, or a system went away.
    Inconclusive,
    /// A difference was found that stays.
    Fail,
}

impl Verdict {
    /// Returns the exit of a verification that met no error.
    ///
    /// Inconclusive is 4 like a difference: what was asked for is not proven, and repeating the command later is for
    /// the caller to decide. Where a system went away, the error says so and its exit, 3, comes first.
    pub fn exit(self) -> Exit {
        match self {
            Self::Pass => Exit::Done,
            Self::Inconclusive | Self::Fail => Exit::Difference,
        }
    }

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }

    /// Returns what several parts come to together; nothing at all is inconclusive.
    pub fn of_all(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().max().unwrap_or(Self::Inconclusive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_decides_and_nothing_proves_nothing() {
        use Verdict::{Fail, Inconclusive, Pass};
        assert_eq!(Verdict::of_all([Pass, Inconclusive, Fail]), Fail);
        assert_eq!(Verdict::of_all([Pass, Inconclusive]), Inconclusive);
        assert_eq!(Verdict::of_all([Pass, Pass]), Pass);
        assert_eq!(Verdict::of_all([]), Inconclusive);
        assert_eq!([Pass, Inconclusive, Fail].map(|verdict| verdict.exit().code()), [0, 4, 4]);
    }
}
