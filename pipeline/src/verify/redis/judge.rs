//! What a row says of its key, beside what Redis holds: the same, rightly absent, kept, or different.
//!
//! Invariant: pure; a disagreement counts as a difference only where both ends said the same thing twice.

use schemas::version::{OLDEST, Stored as StoredVersion, VersionKind};
use serde::{Deserialize, Serialize};
use stages::extract::redis_entries::{EXPIRY_TOLERANCE_MS, Stored, is_same_expiry};

/// What a row leaves under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Hash of the value.
    pub(crate) hash: u64,
    /// Absolute expiry in ms since 1970, perhaps passed; 0 when it never expires.
    pub(crate) expires_ms: i64,
    /// Version of the row, as [`VersionKind::rank`] takes it; the oldest where the route compares none.
    pub(crate) version: i64,
}

impl Expected {
    /// Makes one of a route that compares no versions.
    pub(crate) fn new(hash: u64, expires_ms: i64) -> Self {
        Self { hash, expires_ms, version: OLDEST }
    }
}

/// How a key differs from its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// The row has no key.
    Missing,
    /// The key holds another value, or another type.
    Value,
    /// The key expires at another time, or lives although its row has expired.
    Expiry,
    /// The key holds another value, whose version cannot be read: it may be newer than the row.
    Unreadable,
    /// No row explains the key.
    Unexplained,
    /// It differs each time, and never twice in the same way: both ends are being written.
    Moving,
}

impl Difference {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 6] = [
        Self::Missing,
        Self::Value,
        Self::Expiry,
        Self::Unreadable,
        Self::Unexplained,
        Self::Moving,
    ];

    /// Returns what is wrong, for people.
    pub fn told(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Value => "another value",
            Self::Expiry => "another expiry",
            Self::Unreadable => "a version that cannot be read",
            Self::Unexplained => "unexplained",
            Self::Moving => "still changing",
        }
    }
}

/// In which way both ends agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// The key holds what the row says.
    Same,
    /// The row has expired and its key is gone.
    Expired,
    /// The key holds something else, which the route keeps.
    Kept,
    /// The key holds a newer version than its row.
    Newer,
    /// Neither row nor key.
    Absent,
}

/// What a comparison goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Whether the route leaves a key alone that exists.
    pub(crate) keeps: bool,
    /// How versions are compared, where the route leaves a key alone that holds a newer one.
    pub(crate) versions: Option<VersionKind>,
    /// Whether values were asked for.
    pub(crate) values: bool,
}

impl Rules {
    /// Compares one key; `now_ms` is the time of the server that holds it.
    pub(crate) fn compare(
        self,
        expected: Option<Expected>,
        stored: Stored,
        now_ms: i64,
    ) -> Result<Agreement, Difference> {
        let Some(Expected { hash, expires_ms: due_ms, version: row_version }) = expected else {
            return match stored {
                Stored::Missing => Ok(Agreement::Absent),
                Stored::There { .. } => Err(Difference::Unexplained),
            };
        };
        let is_due = due_ms != 0 && due_ms <= now_ms + EXPIRY_TOLERANCE_MS;
        let Stored::There { value, expires_ms, version } = stored else {
            return if is_due { Ok(Agreement::Expired) } else { Err(Difference::Missing) };
        };
        let differs = if self.values && value != Some(hash) {
            Some(Difference::Value)
        } else if is_same_expiry(due_ms, expires_ms) {
            None
        } else {
            Some(Difference::Expiry)
        };
        let rank = self.versions.map(|kind| kind.rank(row_version));
        match (differs, version) {
            (None, _) => Ok(Agreement::Same),
            (Some(_), _) if self.keeps => Ok(Agreement::Kept),
            (Some(_), StoredVersion::Unreadable) if rank.is_some() => Err(Difference::Unreadable),
            (Some(_), StoredVersion::At(stored)) if rank.is_some_and(|rank| stored > rank) => {
                Ok(Agreement::Newer)
            }
            // The row has expired for good: whatever the value, the key should be gone.
            (Some(_), _) if due_ms != 0 && due_ms < now_ms - EXPIRY_TOLERANCE_MS => {
                Err(Difference::Expiry)
            }
            (Some(difference), _) => Err(difference),
        }
    }
}

/// What a second look at a key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    /// Both ends agree now.
    Agrees(Agreement),
    /// Neither end has moved: they differ.
    Differs(Difference),
    /// One of them has moved: it has to be looked at again.
    Moves,
}

/// One end or both of a key at one time. `stored` is `None` where only its existence is known, from a SCAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) expected: Option<Expected>,
    pub(crate) stored: Option<Stored>,
}

impl Rules {
    /// Judges a key that differed at a first look by what both ends say now.
    pub(crate) fn judge(
        self,
        first: Look,
        expected: Option<Expected>,
        stored: Stored,
        now_ms: i64,
    ) -> Second {
        let difference = match self.compare(expected, stored, now_ms) {
            Ok(agreement) => return Second::Agrees(agreement),
            Err(difference) => difference,
        };
        let is_still = match first.stored {
            Some(before) => before.is_same(&stored),
            None => matches!(stored, Stored::There { .. }),
        };
        if is_still && first.expected == expected {
            Second::Differs(difference)
        } else {
            Second::Moves
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;
    const RULES: Rules = Rules { keeps: false, versions: None, values: true };

    #[expect(clippy::unnecessary_wraps, reason = "rows are compared as options")]
    fn row(hash: u64, expires_ms: i64) -> Option<Expected> {
        Some(Expected::new(hash, expires_ms))
    }

    fn key(value: u64, expires_ms: i64) -> Stored {
        Stored::There { value: Some(value), expires_ms, version: StoredVersion::Nothing }
    }

    #[test]
    fn every_way_to_agree_and_to_differ() {
        let version = StoredVersion::Nothing;
        let other_type = Stored::There { value: None, expires_ms: 0, version };
        for (expected, stored, told) in [
            (row(1, 0), key(1, 0), Ok(Agreement::Same)),
            (row(1, NOW + 9_000), key(1, NOW + 9_900), Ok(Agreement::Same)),
            (row(1, NOW - 9_000), Stored::Missing, Ok(Agreement::Expired)),
            (row(1, NOW + 1_000), Stored::Missing, Ok(Agreement::Expired)),
            (None, Stored::Missing, Ok(Agreement::Absent)),
            (row(1, 0), Stored::Missing, Err(Difference::Missing)),
            (row(1, NOW + 9_000), Stored::Missing, Err(Difference::Missing)),
            (row(1, 0), key(2, 0), Err(Difference::Value)),
            (row(1, 0), other_type, Err(Difference::Value)),
            (row(1, NOW + 9_000), key(2, 0), Err(Difference::Value)),
            (row(1, 0), key(1, NOW + 9_000), Err(Difference::Expiry)),
            (row(1, NOW + 9_000), key(1, 0), Err(Difference::Expiry)),
            (row(1, NOW + 9_000), key(1, NOW + 19_000), Err(Difference::Expiry)),
            (row(1, NOW - 9_000), key(1, 0), Err(Difference::Expiry)),
            (row(1, NOW - 9_000), key(2, 0), Err(Difference::Expiry)),
            (None, key(1, 0), Err(Difference::Unexplained)),
        ] {
            assert_eq!(RULES.compare(expected, stored, NOW), told, "{expected:?} {stored:?}");
        }
        let keeps = Rules { keeps: true, ..RULES };
        assert_eq!(keeps.compare(row(1, 0), key(2, 5), NOW), Ok(Agreement::Kept));
        assert_eq!(keeps.compare(row(1, 0), Stored::Missing, NOW), Err(Difference::Missing));
        let blind = Rules { values: false, ..RULES };
        assert_eq!(blind.compare(row(1, 0), other_type, NOW), Ok(Agreement::Same));
    }

    #[test]
    fn a_newer_version_is_no_difference_and_an_unreadable_one_is_told() {
        let kind = VersionKind::Integer;
        let rules = Rules { versions: Some(kind), ..RULES };
        let row = |expires_ms| Some(Expected { hash: 1, expires_ms, version: 7 });
        let key = |value, version| Stored::There { value: Some(value), expires_ms: 0, version };
        let at = |version| StoredVersion::At(kind.rank(version));
        for (expected, stored, told) in [
            (row(0), key(1, at(7)), Ok(Agreement::Same)),
            (row(0), key(2, at(8)), Ok(Agreement::Newer)),
            (row(NOW - 9_000), key(2, at(8)), Ok(Agreement::Newer)),
            (row(0), key(2, at(7)), Err(Difference::Value)),
            (row(0), key(2, at(6)), Err(Difference::Value)),
            (row(0), key(2, StoredVersion::Nothing), Err(Difference::Value)),
            (row(0), key(2, StoredVersion::Unreadable), Err(Difference::Unreadable)),
            (row(NOW + 9_000), key(1, at(7)), Err(Difference::Expiry)),
            (row(NOW - 9_000), key(2, at(6)), Err(Difference::Expiry)),
            (row(0), Stored::Missing, Err(Difference::Missing)),
            (None, key(2, at(8)), Err(Difference::Unexplained)),
        ] {
            assert_eq!(rules.compare(expected, stored, NOW), told, "{expected:?} {stored:?}");
        }
    }

    #[test]
    fn only_what_stood_still_differs() {
        let look = |expected, stored| Look { expected, stored: Some(stored) };
        let judge = |first, expected, stored| RULES.judge(first, expected, stored, NOW);
        let first = look(row(1, 0), key(2, 0));
        assert_eq!(judge(first, row(1, 0), key(2, 0)), Second::Differs(Difference::Value));
        assert_eq!(judge(first, row(2, 0), key(2, 0)), Second::Agrees(Agreement::Same));
        assert_eq!(judge(first, row(1, 0), key(3, 0)), Second::Moves);
        assert_eq!(judge(first, row(3, 0), key(2, 0)), Second::Moves);
        assert_eq!(judge(first, None, Stored::Missing), Second::Agrees(Agreement::Absent));
        assert_eq!(judge(first, None, key(2, 0)), Second::Moves);
        let scanned = Look { expected: None, stored: None };
        assert_eq!(judge(scanned, None, key(2, 0)), Second::Differs(Difference::Unexplained));
        assert_eq!(judge(scanned, row(2, 0), key(2, 0)), Second::Agrees(Agreement::Same));
        assert_eq!(judge(scanned, row(1, 0), key(2, 0)), Second::Moves);
    }
}
