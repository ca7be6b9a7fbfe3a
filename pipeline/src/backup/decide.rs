//! What becomes of each table partition: copied, kept, held against a damaged source, or let go.
//!
//! Invariant: rows that the source lost never leave the duplicate unless they were past their recorded expiry or the
//! loss was accepted by name. Pure, so that every case is a test.

use super::cut::UNPARTITIONED;
use std::collections::BTreeMap;

/// One table partition as the source shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSource {
    /// Its name.
    pub id: String,
    /// Rows, as the source counts them.
    pub rows: u64,
    /// Logical bytes.
    pub bytes: u64,
    /// When it was changed last, microseconds since 1970.
    pub last_modified_us: i64,
    /// When it expires.
    pub expires_us: Option<i64>,
}

/// One table partition as the duplicate has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDuplicate {
    /// Rows of its newest version.
    pub rows: u64,
    /// When the source had changed it last before that version was read.
    pub last_modified_us: i64,
    /// When the source lets it expire, as far as was known then.
    pub expires_us: Option<i64>,
    /// Creation of the table that version was read from.
    pub table_created_ms: i64,
    /// Whether blocks of it are missing or its manifest is lost or altered.
    pub is_damaged: bool,
    /// Whether it holds columns that its table had otherwise then.
    pub is_outdated: bool,
}

/// How a backup was asked for, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Copy everything again.
    pub full: bool,
    /// The loss of rows of this table was accepted.
    pub accept_loss: bool,
    /// The pinned time of the backup.
    pub snapshot_us: i64,
    /// Creation of the table as it is now.
    pub table_created_ms: i64,
    /// Rows that may have moved from [`UNPARTITIONED`] into other table partitions: what those have [`gained`]. Zero
    /// where rows do not move.
    pub moved_rows: u64,
}

/// Why a table partition is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The duplicate does not have it.
    New,
    /// The source changed it.
    Changed,
    /// Blocks or manifest in the duplicate are missing or altered.
    Damaged,
    /// `--full`.
    Asked,
}

/// What the source lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It has fewer rows.
    Shrank,
    /// It has none.
    Emptied,
    /// It is not there.
    Vanished,
}

impl Loss {
    /// Returns the word for messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Shrank => "has fewer rows than its copy",
            Self::Emptied => "has no rows any more",
            Self::Vanished => "is gone",
        }
    }
}

/// What becomes of one table partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its newest version is what the source has.
    Keep,
    /// It is read and written as a new version.
    Copy(InSource, Why),
    /// The source lost rows: its copy stays and is named.
    Hold(Loss),
    /// It was past its expiry: its copy goes, too.
    Expire,
    /// Its loss was accepted: a version without rows is published.
    Empty,
    /// Its rows are in other table partitions now: a version without rows is published.
    Move,
}

/// Decides about every table partition of either side, in ascending order of name.
pub fn decide(
    source: &[InSource],
    duplicate: &BTreeMap<String, InDuplicate>,
    asked: &Asked,
) -> BTreeMap<String, Fate> {
    let mut fates: BTreeMap<String, Fate> = duplicate
        .iter()
        .filter(|(id, _)| source.iter().all(|found| found.id != **id))
        .map(|(id, copy)| (id.clone(), fate_of_gone(id, copy, asked)))
        .collect();
    for found in source {
        let fate = fate_of(found, duplicate.get(&found.id), asked);
        fates.insert(found.id.clone(), fate);
    }
    fates
}

/// Returns how many rows the table partitions of the source have beyond those recorded at the last complete backup.
///
/// Rows of the streaming buffer cannot be deleted while they are in it; so many of them may have moved.
pub fn gained(source: &[InSource], recorded: &BTreeMap<String, u64>) -> u64 {
    let sorted = source.iter().filter(|found| found.id != UNPARTITIONED);
    let before = |id: &str| recorded.get(id).copied().unwrap_or(0);
    sorted.map(|found| found.rows.saturating_sub(before(&found.id))).sum()
}

/// Rows that a table partition may have fewer than its copy without a loss.
fn may_have_moved(id: &str, asked: &Asked) -> u64 {
    if id == UNPARTITIONED { asked.moved_rows } else { 0 }
}

fn fate_of_gone(id: &str, copy: &InDuplicate, asked: &Asked) -> Fate {
    if is_expired(copy, asked) {
        Fate::Expire
    } else if copy.rows == 0 {
        Fate::Keep
    } else if copy.rows <= may_have_moved(id, asked) {
        Fate::Move
    } else if asked.accept_loss {
        Fate::Empty
    } else {
        Fate::Hold(Loss::Vanished)
    }
}

fn fate_of(found: &InSource, copy: Option<&InDuplicate>, asked: &Asked) -> Fate {
    let Some(copy) = copy else { return Fate::Copy(found.clone(), Why::New) };
    let has_lost = found.rows.saturating_add(may_have_moved(&found.id, asked)) < copy.rows;
    if has_lost && !asked.accept_loss && !is_expired(copy, asked) {
        return Fate::Hold(if found.rows == 0 { Loss::Emptied } else { Loss::Shrank });
    }
    // The source counts rows at another time than the pinned one, so an equal count proves nothing, an unequal one does.
    let has_changed = found.last_modified_us > copy.last_modified_us
        || found.rows != copy.rows
        || asked.table_created_ms != copy.table_created_ms
        || copy.is_outdated;
    if copy.is_damaged {
        Fate::Copy(found.clone(), Why::Damaged)
    } else if has_changed {
        Fate::Copy(found.clone(), Why::Changed)
    } else if asked.full {
        Fate::Copy(found.clone(), Why::Asked)
    } else {
        Fate::Keep
    }
}

fn is_expired(copy: &InDuplicate, asked: &Asked) -> bool {
    copy.expires_us.is_some_and(|at| at <= asked.snapshot_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000;

    fn asked() -> Asked {
        Asked {
            full: false,
            accept_loss: false,
            snapshot_us: NOW,
            table_created_ms: 1,
            moved_rows: 0,
        }
    }

    fn found(rows: u64, last_modified_us: i64) -> InSource {
        InSource { id: "20261101".into(), rows, bytes: 1, last_modified_us, expires_us: None }
    }

    fn copy() -> InDuplicate {
        InDuplicate {
            rows: 10,
            last_modified_us: 500,
            expires_us: None,
            table_created_ms: 1,
            is_damaged: false,
            is_outdated: false,
        }
    }

    fn fate(source: Option<InSource>, copy: Option<InDuplicate>, asked: &Asked) -> Fate {
        let source: Vec<InSource> = source.into_iter().collect();
        let duplicate = copy.map(|copy| ("20261101".to_owned(), copy)).into_iter().collect();
        decide(&source, &duplicate, asked).remove("20261101").unwrap()
    }

    #[test]
    fn what_is_new_changed_or_damaged_is_copied_and_the_rest_is_kept() {
        let why = |source: InSource, of: InDuplicate, asked: &Asked| match fate(
            Some(source),
            Some(of),
            asked,
        ) {
            Fate::Copy(_, why) => Some(why),
            Fate::Keep => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(fate(Some(found(1, 2)), None, &asked()), Fate::Copy(found(1, 2), Why::New));
        assert_eq!(why(found(10, 500), copy(), &asked()), None);
        assert_eq!(why(found(10, 501), copy(), &asked()), Some(Why::Changed));
        assert_eq!(why(found(11, 500), copy(), &asked()), Some(Why::Changed));
        assert_eq!(
            why(found(10, 500), InDuplicate { is_damaged: true, ..copy() }, &asked()),
            Some(Why::Damaged)
        );
        assert_eq!(why(found(10, 500), copy(), &Asked { full: true, ..asked() }), Some(Why::Asked));
        assert_eq!(
            why(found(10, 400), copy(), &Asked { table_created_ms: 2, ..asked() }),
            Some(Why::Changed)
        );
    }

    #[test]
    fn what_the_source_lost_is_held_unless_it_was_accepted_or_had_expired() {
        let accepted = Asked { accept_loss: true, ..asked() };
        let expired = || InDuplicate { expires_us: Some(NOW), ..copy() };
        assert_eq!(fate(None, Some(copy()), &asked()), Fate::Hold(Loss::Vanished));
        assert_eq!(fate(None, Some(copy()), &accepted), Fate::Empty);
        assert_eq!(fate(None, Some(expired()), &asked()), Fate::Expire);
        assert_eq!(fate(None, Some(InDuplicate { rows: 0, ..copy() }), &asked()), Fate::Keep);
        assert_eq!(fate(Some(found(9, 600)), Some(copy()), &asked()), Fate::Hold(Loss::Shrank));
        assert_eq!(fate(Some(found(0, 600)), Some(copy()), &asked()), Fate::Hold(Loss::Emptied));
        let damaged = InDuplicate { is_damaged: true, ..copy() };
        assert_eq!(fate(Some(found(9, 600)), Some(damaged), &asked()), Fate::Hold(Loss::Shrank));
        assert_eq!(
            fate(Some(found(9, 600)), Some(copy()), &accepted),
            Fate::Copy(found(9, 600), Why::Changed)
        );
    }

    #[test]
    fn rows_that_left_the_streaming_buffer_are_no_loss_as_far_as_others_grew() {
        let id = || UNPARTITIONED.to_owned();
        let of = |source: &[InSource], moved_rows: u64| {
            let duplicate = [(id(), copy())].into();
            decide(source, &duplicate, &Asked { moved_rows, ..asked() }).remove(UNPARTITIONED)
        };
        assert_eq!(of(&[], 10), Some(Fate::Move));
        assert_eq!(of(&[], 9), Some(Fate::Hold(Loss::Vanished)));
        let left = InSource { id: id(), ..found(4, 600) };
        assert_eq!(
            of(std::slice::from_ref(&left), 6),
            Some(Fate::Copy(left.clone(), Why::Changed))
        );
        assert_eq!(of(&[left], 5), Some(Fate::Hold(Loss::Shrank)));
        // No other table partition may shrink for it.
        let moved = Asked { moved_rows: 10, ..asked() };
        assert_eq!(fate(Some(found(9, 600)), Some(copy()), &moved), Fate::Hold(Loss::Shrank));

        let buffer = InSource { id: id(), ..found(50, 1) };
        let source = [found(12, 1), InSource { id: "20261102".into(), ..found(3, 1) }, buffer];
        assert_eq!(gained(&source, &[("20261101".to_owned(), 10)].into()), 5);
        assert_eq!(gained(&source, &[("20261101".to_owned(), 20)].into()), 3);
    }
}
