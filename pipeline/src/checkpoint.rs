//! The checkpoint of a partition: a pure state machine folded from what happened to it.
//!
//! Invariant: nothing here does I/O or reads a clock; the journal stores only states this machine allows.

use schemas::{Digest, Position};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// The shortest checkpoint interval: below it the journal's own writes are the load.
pub const COMMIT_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The longest checkpoint interval: the work a crash may cost by default.
pub const COMMIT_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// Where a partition stands.
///
/// Every pair that is not in the table is an [`IllegalTransition`].
///
/// | status    | `Begin`   | `Commit`  | `Finish` | `Fail`   | `Reset`   | `Void` |
/// |-----------|-----------|-----------|----------|----------|-----------|--------|
/// | `Pending` | `Running` |           |          |          | `Pending` | `Void` |
/// | `Running` | `Running` | `Running` | `Done`   | `Failed` | `Pending` | `Void` |
/// | `Done`    |           |           |          |          | `Pending` | `Void` |
/// | `Failed`  | `Running` |           |          |          | `Pending` | `Void` |
/// | `Void`    |           |           |          |          | `Pending` | `Void` |
///
/// `Begin` on `Running` is a takeover: the attempt before it died or was lost, and its epoch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// No attempt has begun since it was cut or reset.
    #[default]
    Pending,
    /// An attempt has begun and neither finished nor failed.
    Running,
    /// Every row of it is committed.
    Done,
    /// The last attempt gave up; what it committed stands.
    Failed,
    /// Its cut no longer holds; kept only so that its epoch is never reused.
    Void,
}

impl Status {
    /// Returns the status after `event`, or why it cannot happen. Epochs and spans are checked by [`State::apply`].
    pub fn next(self, event: &Event) -> Result<Self, IllegalTransition> {
        match (self, event) {
            (_, Event::Reset) => Ok(Self::Pending),
            (_, Event::Void) => Ok(Self::Void),
            (Self::Pending | Self::Running | Self::Failed, Event::Begin { .. })
            | (Self::Running, Event::Commit { .. }) => Ok(Self::Running),
            (Self::Running, Event::Finish { .. }) => Ok(Self::Done),
            (Self::Running, Event::Fail { .. }) => Ok(Self::Failed),
            (
                Self::Pending | Self::Done | Self::Failed | Self::Void,
                Event::Commit { .. } | Event::Finish { .. } | Event::Fail { .. },
            )
            | (Self::Done | Self::Void, Event::Begin { .. }) => {
                Err(IllegalTransition::Status { status: self, event: event.name() })
            }
        }
    }

    /// Returns the word stored in the journal and shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Void => "void",
        }
    }

    /// Returns the status a stored word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Done, Self::Failed, Self::Void]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

/// What was counted while rows were carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows read from the source.
    pub rows: u64,
    /// Bytes read from the source.
    pub bytes: u64,
    /// Rows the target acknowledged as written.
    pub written: u64,
    /// Rows left out because the target's own entry was kept.
    pub kept: u64,
    /// Of the rows written, those whose member was in its key already.
    pub folded: u64,
    /// Rows left out because they had already expired.
    pub expired: u64,
    /// Rows that could not be carried and went to the reject file.
    pub rejects: u64,
    /// Digest of the rows read.
    pub digest: Digest,
}

impl Counts {
    /// Returns the sum of both, or `None` when a counter would overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let count = self.digest.count.checked_add(other.digest.count)?;
        Some(Self {
            rows: self.rows.checked_add(other.rows)?,
            bytes: self.bytes.checked_add(other.bytes)?,
            written: self.written.checked_add(other.written)?,
            kept: self.kept.checked_add(other.kept)?,
            folded: self.folded.checked_add(other.folded)?,
            expired: self.expired.checked_add(other.expired)?,
            rejects: self.rejects.checked_add(other.rejects)?,
            digest: Digest { sum: self.digest.sum.wrapping_add(other.digest.sum), count },
        })
    }
}

/// Something that happened to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An attempt begins; it owns the partition from now on.
    Begin {
        /// Higher than every epoch before it.
        epoch: u64,
    },
    /// The target acknowledged everything between two positions.
    Commit {
        /// The attempt that carried the rows.
        epoch: u64,
        /// Where the partition stood.
        from: Position,
        /// Where it stands now.
        to: Position,
        /// What was counted in between.
        counts: Counts,
    },
    /// The attempt reached the end of the partition.
    Finish {
        /// The attempt that reached it.
        epoch: u64,
    },
    /// The attempt gave up.
    Fail {
        /// The attempt that gave up.
        epoch: u64,
    },
    /// What was committed no longer counts (the target was emptied, the rows moved): start over, with this or a new cut.
    Reset,
    /// The cut no longer holds.
    Void,
}

impl Event {
    /// Returns the event's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "begin",
            Self::Commit { .. } => "commit",
            Self::Finish { .. } => "finish",
            Self::Fail { .. } => "fail",
            Self::Reset => "reset",
            Self::Void => "void",
        }
    }
}

/// Why an event cannot follow a state. Positions are not printed: they hold values of rows.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IllegalTransition {
    /// The status does not allow the event.
    #[error("cannot {event} a partition that is {}", status.as_str())]
    Status {
        /// The status it has.
        status: Status,
        /// The event refused.
        event: &'static str,
    },
    /// The event belongs to an attempt that no longer owns the partition, or to none that ever did.
    #[error("epoch {found} does not own the partition, which is at epoch {current}")]
    Epoch {
        /// The epoch of the state.
        current: u64,
        /// The epoch of the event.
        found: u64,
    },
    /// The span does not start where the partition stands.
    #[error("the committed span does not start where the partition stands")]
    Gap {
        /// Where the partition stands.
        expected: Position,
        /// Where the span starts.
        found: Position,
    },
    /// A counter would pass 2^64.
    #[error("a counter of the partition would overflow")]
    Overflow,
}

/// Everything the events of a partition add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// The attempt that owns it, from 1; 0 before the first. Never goes down.
    pub epoch: u64,
    /// Everything up to here is committed.
    pub position: Position,
    /// What was counted up to `position`.
    pub counts: Counts,
}

impl State {
    /// Returns the state after `event`, or why it cannot follow this one.
    ///
    /// `Begin` after unordered rows starts over, counters included: there is no place to continue from.
    pub fn apply(&self, event: &Event) -> Result<Self, IllegalTransition> {
        self.check_epoch(event)?;
        let status = self.status.next(event)?;
        let mut state = Self { status, ..self.clone() };
        match event {
            Event::Begin { epoch } => {
                state.epoch = *epoch;
                if state.position == Position::Unordered {
                    state.start_over();
                }
            }
            Event::Commit { from, to, counts, .. } => {
                if *from != self.position {
                    let expected = self.position.clone();
                    return Err(IllegalTransition::Gap { expected, found: from.clone() });
                }
                state.position = to.clone();
                state.counts =
                    self.counts.checked_add(*counts).ok_or(IllegalTransition::Overflow)?;
            }
            Event::Reset => state.start_over(),
            Event::Finish { .. } | Event::Fail { .. } | Event::Void => {}
        }
        Ok(state)
    }

    /// Returns the state after all `events` in order.
    pub fn fold<'a>(
        self,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, IllegalTransition> {
        events.into_iter().try_fold(self, |state, event| state.apply(event))
    }

    fn start_over(&mut self) {
        self.position = Position::Start;
        self.counts = Counts::default();
    }

    fn check_epoch(&self, event: &Event) -> Result<(), IllegalTransition> {
        let (found, is_owner) = match event {
            Event::Begin { epoch } => (*epoch, *epoch > self.epoch),
            Event::Commit { epoch, .. } | Event::Finish { epoch } | Event::Fail { epoch } => {
                (*epoch, *epoch == self.epoch)
            }
            Event::Reset | Event::Void => return Ok(()),
        };
        if is_owner { Ok(()) } else { Err(IllegalTransition::Epoch { current: self.epoch, found }) }
    }
}

/// Returns the checkpoint interval that costs least time: `sqrt(2 * commit_cost * mtbf)`, kept within
/// [`COMMIT_INTERVAL_MIN`] and [`COMMIT_INTERVAL_MAX`].
///
/// First order of Young, "A first order approximation to the optimum checkpoint interval" (1974); the higher order of
/// Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps" (2006), differs from it only
/// when a commit costs a noticeable share of the time between failures, which a commit of milliseconds never does.
pub fn commit_interval(commit_cost: Duration, mtbf: Duration) -> Duration {
    let seconds = (2.0 * commit_cost.as_secs_f64() * mtbf.as_secs_f64()).sqrt();
    Duration::try_from_secs_f64(seconds)
        .unwrap_or(COMMIT_INTERVAL_MAX)
        .clamp(COMMIT_INTERVAL_MIN, COMMIT_INTERVAL_MAX)
}

#[cfg(test)]
mod tests;
