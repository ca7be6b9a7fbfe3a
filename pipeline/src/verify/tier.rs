//! How much a verification compares, and what it would have found.
//!
//! Invariant: what a tier does not look at is said wherever its verdict is.

use crate::readback::detection_power;

/// Keys (rows, in BigQuery) per route whose values a sample compares unless told otherwise.
///
/// It finds damage of 0.03 % of the values with 95 % probability ([`detection_power`]).
pub const SAMPLE_DEFAULT: u32 = 10_000;
/// Most that a sample may take per route, because it is held in memory.
pub const SAMPLE_MAX: u32 = 100_000;

/// How much is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Only whether everything is there.
    Count,
    /// Whether everything is there, and this many values per route.
    Sample(u32),
    /// Everything, what should not be there included.
    Full,
}

impl Tier {
    /// Returns the word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sample(_) => "sample",
            Self::Full => "full",
        }
    }

    /// Says what values compared at this tier would have found; `compared` counts them.
    pub fn detects(self, compared: u64) -> String {
        match self {
            Self::Count => "no value was compared".to_owned(),
            Self::Sample(_) => detection_power(compared),
            Self::Full => "every difference".to_owned(),
        }
    }
}
