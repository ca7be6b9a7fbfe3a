//! What is done about an error: one table by kind, and one way to wait before another try.
//!
//! Invariant: whether something is tried again, rejected or stopped is a function of the error's kind alone; how long is
//! a function of the time since anything worked, never of how often it failed, where a limit in time was given.

use crate::error::{Error, Kind, Result};
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What is done about an error of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Try again after a pause: the same attempt may succeed later.
    Retry,
    /// The rows at fault become rejects, and the rest is written: at once, because nothing is away.
    Reject,
    /// Start over what was lost, which the run as a whole does.
    StartOver,
    /// This partition cannot be carried; the others go on.
    GiveUp,
    /// Nothing can be right any more: all lanes stop.
    Stop,
}

impl Kind {
    /// What is done about an error of this kind: the policy.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Connection | Self::Unavailable | Self::Timeout | Self::SnapshotLost => {
                Verdict::Retry
            }
            Self::Refused => Verdict::Reject,
            Self::RouteRestart | Self::TargetChanged => Verdict::StartOver,
            Self::Data => Verdict::GiveUp,
            Self::Config
            | Self::Auth
            | Self::Schema
            | Self::Capacity
            | Self::Fenced
            | Self::Difference
            | Self::Rejected
            | Self::Internal
            | Self::Cancelled => Verdict::Stop,
        }
    }
}

/// First pause before another try, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// First pause where tries are counted: few, so that together they are seconds.
const PAUSE_COUNTED: Duration = Duration::from_millis(400);

/// Pauses between tries: twice as long each time, each a random part of that ("full jitter"), so that lanes which lost
/// one server do not return to it all at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    fn from(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// Returns the next pause.
    pub fn pause(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(PAUSE_MAX);
        // The standard library seeds every `RandomState` at random; its hash of nothing is a random number.
        longest.mul_f64(RandomState::new().hash_one(()) as f64 / u64::MAX as f64)
    }

    /// Begins with short pauses again, because something worked.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// When trying again ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// So long after it began, or after something last worked.
    Time(Duration),
    /// After so many tries without anything that worked.
    Tries(u32),
}

/// Decides about each failure of one thing that is tried until it works.
#[derive(Debug, Clone)]
pub struct Retry {
    backoff: Backoff,
    limit: Limit,
    since: Instant,
    failures: u32,
}

impl Retry {
    /// Tries for this long, counted from now, or from when something last worked.
    pub fn within(limit: Duration) -> Self {
        Self::with(Limit::Time(limit), PAUSE_MIN)
    }

    /// Tries so many times, the first one included.
    pub fn times(tries: u32) -> Self {
        Self::with(Limit::Tries(tries), PAUSE_COUNTED)
    }

    fn with(limit: Limit, first: Duration) -> Self {
        Self { backoff: Backoff::from(first), limit, since: Instant::now(), failures: 0 }
    }

    /// Notes that something worked: only an outage without any progress counts against the limit.
    pub fn progressed(&mut self) {
        (self.since, self.failures) = (Instant::now(), 0);
        self.backoff.reset();
    }

    /// Returns how long to wait before another try, or the error where it is for good or that was the last try.
    ///
    /// Counted tries end as well where the peer stayed silent twice: whoever asked has the patience for more.
    pub fn pause_after(&mut self, error: Error) -> Result<Duration> {
        self.failures += 1;
        let is_over = match self.limit {
            Limit::Time(limit) => self.since.elapsed() >= limit,
            Limit::Tries(tries) => {
                let is_silent = error.kind() == Kind::Timeout;
                self.failures >= tries || (is_silent && self.since.elapsed() >= answer_max() * 2)
            }
        };
        if is_over || error.kind().verdict() != Verdict::Retry {
            return Err(error);
        }
        Ok(self.backoff.pause())
    }

    /// Waits before another try; gives the error back where there is none.
    pub async fn wait_after(&mut self, error: Error) -> Result<()> {
        let told = error.to_string();
        let pause = self.pause_after(error)?;
        match self.limit {
            Limit::Time(_) => tracing::warn!(error = told, "trying again"),
            Limit::Tries(_) => tracing::debug!(error = told, "trying again"),
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// An outage in the middle of a run is waited out for this part of what the RTO leaves, where nothing else was asked for:
/// giving up leaves a run that has to be started by hand.
const OUTAGE_PART: u32 = 24;
const OUTAGE_MIN: Duration = Duration::from_mins(2);
const OUTAGE_MAX: Duration = Duration::from_hours(1);

/// How long a system may stay away in the middle of a run: what was asked for, else a part of what the RTO leaves,
/// between two minutes and an hour.
pub fn outage_max(asked: Option<Duration>, rto_left: Duration) -> Duration {
    asked.unwrap_or_else(|| (rto_left / OUTAGE_PART).clamp(OUTAGE_MIN, OUTAGE_MAX))
}

/// A silent peer is given up after this part of what it may stay away, so that there is time for other tries.
const ANSWER_PART: u32 = 4;
const ANSWER_MIN: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_mins(1);
/// Where a server has to work before it answers, it may be silent for so many times as long.
const WORK_FACTOR: u32 = 5;

/// What this process was told; it talks to all systems with one patience.
static ANSWER: OnceLock<Duration> = OnceLock::new();

/// Derives from how long a system may stay away how long one answer may. Only the first call of a process counts.
pub fn begin(outage: Duration) {
    let answer = ANSWER.get_or_init(|| answer_within(outage));
    tracing::debug!(seconds = answer.as_secs_f64(), "an answer may stay away so long");
}

/// How long a connection may be silent while an answer is due that costs its server no work.
pub fn answer_max() -> Duration {
    ANSWER.get().copied().unwrap_or(ANSWER_MAX)
}

/// How long it may where its server works on the answer and cannot be asked whether it still does.
pub fn work_max() -> Duration {
    answer_max() * WORK_FACTOR
}

fn answer_within(outage: Duration) -> Duration {
    (outage / ANSWER_PART).clamp(ANSWER_MIN, ANSWER_MAX)
}

/// Waits for an answer as long as [`answer_max`]; `what` names the system and its address.
pub async fn answered<T>(
    what: impl FnOnce() -> String,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    within(answer_max(), what, answer).await
}

/// The same with a limit of its own.
pub async fn within<T>(
    limit: Duration,
    what: impl FnOnce() -> String,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(silent(&what(), limit)))
}

/// The error of a peer that said nothing for so long.
pub fn silent(what: &str, limit: Duration) -> Error {
    let seconds = limit.as_secs();
    Error::new(Kind::Timeout, format!("{what} did not answer for {seconds} s"))
        .with_hint("see that the server is up and reachable, then run the same command again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn failure(kind: Kind) -> Error {
        Error::new(kind, "x")
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (kind, verdict) in [
            (Kind::Connection, Verdict::Retry),
            (Kind::Unavailable, Verdict::Retry),
            (Kind::Timeout, Verdict::Retry),
            (Kind::SnapshotLost, Verdict::Retry),
            (Kind::Refused, Verdict::Reject),
            (Kind::RouteRestart, Verdict::StartOver),
            (Kind::TargetChanged, Verdict::StartOver),
            (Kind::Data, Verdict::GiveUp),
            (Kind::Config, Verdict::Stop),
            (Kind::Auth, Verdict::Stop),
            (Kind::Schema, Verdict::Stop),
            (Kind::Capacity, Verdict::Stop),
            (Kind::Fenced, Verdict::Stop),
            (Kind::Difference, Verdict::Stop),
            (Kind::Rejected, Verdict::Stop),
            (Kind::Internal, Verdict::Stop),
            (Kind::Cancelled, Verdict::Stop),
        ] {
            assert_eq!(kind.verdict(), verdict, "{kind:?}");
            assert_eq!(kind.is_transient(), verdict == Verdict::Retry, "{kind:?}");
            let tried = Retry::within(Duration::from_mins(1)).pause_after(failure(kind));
            assert_eq!(tried.is_ok(), verdict == Verdict::Retry, "{kind:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_differ_at_random() {
        let mut backoff = Backoff::from(PAUSE_MIN);
        let mut longest = PAUSE_MIN;
        let mut distinct = HashSet::new();
        for _ in 0..12 {
            let pause = backoff.pause();
            assert!(pause <= longest, "{pause:?} of {longest:?}");
            distinct.insert(pause);
            longest = (longest * 2).min(PAUSE_MAX);
        }
        assert!(distinct.len() > 6, "{distinct:?}");
        backoff.reset();
        assert!(backoff.pause() <= PAUSE_MIN);
    }

    #[test]
    fn tries_and_time_end_and_progress_begins_anew() {
        let mut counted = Retry::times(3);
        let fail = |retry: &mut Retry| retry.pause_after(failure(Kind::Unavailable)).is_ok();
        assert!(fail(&mut counted) && fail(&mut counted));
        assert!(!fail(&mut counted));
        counted.progressed();
        assert!(fail(&mut counted));
        let mut none = Retry::within(Duration::ZERO);
        assert!(!fail(&mut none));
        let mut some = Retry::within(Duration::from_mins(1));
        assert!((0..50).all(|_| fail(&mut some)));
    }

    #[test]
    fn an_answer_may_stay_away_for_a_part_of_an_outage() {
        let seconds = Duration::from_secs;
        for (outage, answer) in [(0, 5), (2, 5), (60, 15), (120, 30), (3_600, 60)] {
            assert_eq!(answer_within(seconds(outage)), seconds(answer), "{outage}");
        }
    }

    #[test]
    fn an_outage_is_waited_out_for_a_part_of_what_the_rto_leaves() {
        let minutes = Duration::from_mins;
        for (asked, left, most) in [
            (None, minutes(24 * 60), minutes(60)),
            (None, minutes(6 * 60), minutes(15)),
            (None, minutes(10), minutes(2)),
            (None, Duration::ZERO, minutes(2)),
            (Some(minutes(5)), minutes(24 * 60), minutes(5)),
            (Some(Duration::from_secs(1)), Duration::ZERO, Duration::from_secs(1)),
        ] {
            assert_eq!(outage_max(asked, left), most, "{asked:?} {left:?}");
        }
    }
}
