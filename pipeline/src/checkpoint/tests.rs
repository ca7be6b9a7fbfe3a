//! Tests of the checkpoint: the table of transitions, and that a run may stop at any event.
//!
//! Invariant: pure; every case is a log of events and the state it folds to.

use super::Status::{Done, Failed, Pending, Running, Void};
use super::*;
use proptest::prelude::*;

const STATUSES: [Status; 5] =
    [Status::Pending, Status::Running, Status::Done, Status::Failed, Status::Void];

fn at(row: u32) -> Position {
    if row == 0 { Position::Start } else { Position::Ctid { block: row, offset: 1 } }
}

/// Counts rows `from..to` of a table in which every row has a hash of its own.
fn counts(from: u32, to: u32) -> Counts {
    let mut counts = Counts::default();
    for row in from..to {
        counts.rows += 1;
        counts.written += 1;
        counts.digest.add_row(u128::from(row + 3).wrapping_pow(61));
    }
    counts
}

fn commit(epoch: u64, from: u32, to: u32) -> Event {
    Event::Commit { epoch, from: at(from), to: at(to), counts: counts(from, to) }
}

#[test]
fn transitions_are_those_of_the_table() {
    let events = [
        Event::Begin { epoch: 1 },
        commit(1, 0, 1),
        Event::Finish { epoch: 1 },
        Event::Fail { epoch: 1 },
        Event::Reset,
        Event::Void,
    ];
    let table = [
        [Some(Running), None, None, None, Some(Pending), Some(Void)],
        [Some(Running), Some(Running), Some(Done), Some(Failed), Some(Pending), Some(Void)],
        [None, None, None, None, Some(Pending), Some(Void)],
        [Some(Running), None, None, None, Some(Pending), Some(Void)],
        [None, None, None, None, Some(Pending), Some(Void)],
    ];
    for (status, row) in STATUSES.into_iter().zip(table) {
        assert_eq!(Status::parse(status.as_str()), Some(status));
        for (event, expected) in events.iter().zip(row) {
            assert_eq!(status.next(event).ok(), expected, "{status:?} {}", event.name());
        }
    }
}

#[test]
fn an_overflow_is_refused() {
    let full = Counts { bytes: u64::MAX, ..Counts::default() };
    let state = State { status: Status::Running, epoch: 1, position: at(0), counts: full };
    let one = Counts { bytes: 1, ..Counts::default() };
    let event = Event::Commit { epoch: 1, from: at(0), to: at(1), counts: one };
    assert_eq!(state.apply(&event), Err(IllegalTransition::Overflow));
}

#[test]
fn the_interval_follows_young_within_its_bounds() {
    let hour = Duration::from_hours(1);
    assert_eq!(commit_interval(Duration::from_micros(50), hour), Duration::from_millis(600));
    assert_eq!(commit_interval(Duration::ZERO, hour), COMMIT_INTERVAL_MIN);
    assert_eq!(commit_interval(hour, hour), COMMIT_INTERVAL_MAX);
    assert_eq!(commit_interval(Duration::MAX, Duration::MAX), COMMIT_INTERVAL_MAX);
}

/// What happens to one attempt before it finishes or the next one takes over.
#[derive(Debug, Clone)]
struct Attempt {
    batches: Vec<u32>,
    fails: bool,
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (prop::collection::vec(1u32..20, 0..6), any::<bool>())
        .prop_map(|(batches, fails)| Attempt { batches, fails });
    prop::collection::vec(attempt, 1..5)
}

/// Writes the log of a partition that ends done at row `end`.
fn log(attempts: &[Attempt]) -> (Vec<Event>, u32) {
    let mut events = Vec::new();
    let (mut row, mut epoch) = (0, 0);
    for attempt in attempts {
        epoch += 1;
        events.push(Event::Begin { epoch });
        for batch in &attempt.batches {
            events.push(commit(epoch, row, row + batch));
            row += batch;
        }
        if attempt.fails {
            events.push(Event::Fail { epoch });
        }
    }
    epoch += 1;
    events.extend([Event::Begin { epoch }, commit(epoch, row, row + 1), Event::Finish { epoch }]);
    (events, row + 1)
}

proptest! {
    #[test]
    fn every_prefix_folds_to_a_state_the_rest_continues_from(attempts in attempts()) {
        let (events, end) = log(&attempts);
        let whole = State::default().fold(&events).unwrap();
        prop_assert_eq!(whole.counts, counts(0, end));
        for cut in 0..=events.len() {
            let (before, after) = events.split_at(cut);
            let prefix = State::default().fold(before).unwrap();
            prop_assert_eq!(&prefix.fold(after).unwrap(), &whole);
        }
    }

    #[test]
    fn after_a_crash_at_any_event_a_new_attempt_reaches_the_same_end(attempts in attempts()) {
        let (events, end) = log(&attempts);
        for cut in 0..events.len() {
            let state = State::default().fold(&events[..cut]).unwrap();
            let row = match state.position {
                Position::Ctid { block, .. } => block,
                _ => 0,
            };
            let epoch = state.epoch + 1;
            let rest = [Event::Begin { epoch }, commit(epoch, row, end), Event::Finish { epoch }];
            let resumed = if row == end { [&rest[..1], &rest[2..]].concat() } else { rest.to_vec() };
            let resumed = state.clone().fold(&resumed).unwrap();
            prop_assert_eq!((resumed.status, resumed.position), (Status::Done, at(end)));
            prop_assert_eq!(resumed.counts, counts(0, end));
            // Whatever the attempt that crashed still says is refused.
            let begun = state.apply(&Event::Begin { epoch }).unwrap();
            for late in &events[cut..] {
                let is_late = matches!(late, Event::Commit { epoch: e, .. } | Event::Finish { epoch: e }
                    | Event::Fail { epoch: e } | Event::Begin { epoch: e } if *e < epoch);
                prop_assert_eq!(is_late && begun.apply(late).is_ok(), false);
            }
        }
    }
}
