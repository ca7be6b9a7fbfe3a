//! The places that copies of BigQuery are kept in: the duplicate in Redis, and the archive.
//!
//! Invariant: a run is of one place, and whatever it tells a person to type names that place.

use serde::{Deserialize, Serialize};
use stages::Error;

/// Where a copy of BigQuery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The duplicate, under keys of `[redis.duplicate]` or `[redis]`.
    #[default]
    Redis,
    /// Files of `[archive]`.
    Archive,
}

const BACKUP: &str = "rekindle backup bigquery";
const RESTORE: &str = "rekindle restore bigquery";

/// What only blocks in Redis can do: they carry all that their manifest says.
const SCAN: &str = ", or what the blocks themselves tell with --from-scan";

impl Place {
    /// The command of a backup to this place, in the journal and in summaries.
    pub fn backup_command(self) -> &'static str {
        match self {
            Self::Redis => crate::backup::COMMAND,
            Self::Archive => crate::backup::ARCHIVE_COMMAND,
        }
    }

    /// Makes the commands of a text those of this place.
    pub fn named(self, text: &str) -> String {
        match self {
            Self::Redis => text.to_owned(),
            Self::Archive => text
                .replace(BACKUP, &format!("{BACKUP} --to archive"))
                .replace(RESTORE, &format!("{RESTORE} --from archive"))
                .replace(SCAN, ""),
        }
    }

    /// Does the same with the hints of errors.
    pub fn hinted(self, errors: Vec<Error>) -> Vec<Error> {
        let hinted = |error: Error| match error.hint().map(|hint| self.named(hint)) {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
        errors.into_iter().map(hinted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stages::Kind;

    #[test]
    fn what_is_to_be_typed_names_the_place() {
        let error = || {
            Error::new(Kind::Config, "no").with_hint(
                "if that was meant: rekindle backup bigquery --accept-loss d.t; if not: rekindle restore bigquery",
            )
        };
        let hint = |place: Place| place.hinted(vec![error()]).remove(0).hint().map(str::to_owned);
        assert_eq!(hint(Place::Redis), error().hint().map(str::to_owned));
        assert_eq!(
            hint(Place::Archive).as_deref(),
            Some(
                "if that was meant: rekindle backup bigquery --to archive --accept-loss d.t; if not: rekindle restore bigquery --from archive"
            )
        );
    }
}
