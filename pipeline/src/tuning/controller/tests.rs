//! The controller against servers that are formulas.
//!
//! Invariant: a rate rises with what is on its way until something is full, and latency rises with the queue behind that.

use super::*;
use proptest::prelude::*;

/// A source and a target with limits of their own.
#[derive(Debug, Clone, Copy)]
struct Systems {
    /// Bytes per second that one lane reads, and that the source gives out at most.
    lane: f64,
    source: f64,
    /// Bytes per second that the target takes, and seconds until it answers anybody.
    target: f64,
    trip: f64,
    /// Most that the rate is off by, as a share.
    noise: f64,
}

impl Systems {
    fn of(settings: &Settings) -> f64 {
        (settings.lanes * settings.depth * settings.batch_bytes) as f64
    }

    fn observe(&self, settings: &Settings, period: usize) -> Observed {
        let offered = (self.lane * settings.lanes as f64).min(self.source);
        // Little's law: what is on its way divided by the time it takes.
        let carried = Self::of(settings) / self.trip;
        let rate = offered.min(carried).min(self.target);
        let queue = (Self::of(settings) / self.target - self.trip).max(0.0);
        let is_source = offered <= carried.min(self.target);
        let wobble = 1.0 + self.noise * ((period * 7919 % 201) as f64 / 100.0 - 1.0);
        Observed {
            bytes_per_second: rate * wobble,
            source: if is_source { 0.8 } else { 0.1 },
            cpu: 0.1,
            target: if is_source { 0.1 } else { 0.8 },
            held: 0.0,
            cpu_busy: 0.3,
            target_busy: None,
            latency: Some(Duration::from_secs_f64(
                self.trip + if offered > self.target { queue } else { 0.0 },
            )),
            lanes_at_work: settings.lanes,
        }
    }

    fn best(&self, lanes: Lanes) -> f64 {
        (self.lane * lanes.most as f64).min(self.source).min(self.target)
    }
}

const LANES: Lanes = Lanes { start: 4, most: 32 };

fn run(systems: Systems, periods: usize) -> (Controller, f64) {
    let mut controller = Controller::new(LANES, Duration::from_millis(25));
    for period in 0..periods {
        let seen = systems.observe(&controller.settings(), period);
        controller.observe(&seen);
    }
    let settled = Systems { noise: 0.0, ..systems };
    let rate = settled.observe(&controller.settings(), 0).bytes_per_second;
    (controller, rate)
}

const MB: f64 = 1e6;

#[test]
fn lanes_are_added_while_the_source_gives_more_and_no_further() {
    let systems = Systems {
        lane: 20.0 * MB,
        source: 300.0 * MB,
        target: 900.0 * MB,
        trip: 0.002,
        noise: 0.0,
    };
    let (controller, rate) = run(systems, 300);
    assert!(rate > 0.9 * systems.best(LANES), "{controller:?}");
    assert!((15..=17).contains(&controller.settings().lanes), "{controller:?}");
}

#[test]
fn a_target_far_away_gets_more_on_its_way() {
    let systems = Systems {
        lane: 50.0 * MB,
        source: 900.0 * MB,
        target: 200.0 * MB,
        trip: 0.05,
        noise: 0.02,
    };
    let (controller, rate) = run(systems, 600);
    assert!(rate > 0.85 * systems.best(LANES), "{rate} {controller:?}");
    assert!(controller.settings().depth > 2, "{controller:?}");
}

#[test]
fn a_target_that_gets_slow_gets_half_and_what_does_not_pay_is_left_alone() {
    let mut controller = Controller::new(LANES, Duration::from_millis(25));
    let calm = Observed {
        bytes_per_second: 100.0 * MB,
        source: 0.1,
        cpu: 0.1,
        target: 0.8,
        held: 0.0,
        cpu_busy: 0.2,
        target_busy: None,
        latency: Some(Duration::from_millis(1)),
        lanes_at_work: 4,
    };
    let slow = Observed { latency: Some(Duration::from_millis(81)), ..calm };
    controller.observe(&calm);
    assert_eq!(
        (controller.observe(&slow), controller.settings().depth),
        (None, 2),
        "one may be chance"
    );
    let (settings, why) = controller.observe(&slow).unwrap();
    assert_eq!((settings.depth, settings.lanes), (1, 4));
    assert!(why.contains("80ms") && why.contains("25ms"), "{why}");
    for _ in 0..8 {
        controller.observe(&slow);
    }
    assert_eq!((controller.settings().depth, controller.settings().lanes), (1, 1));

    // A rate that stays the same: every step is taken back, and tried ever more rarely.
    let mut controller = Controller::new(LANES, Duration::from_millis(25));
    let changes = (0..2_000).filter(|_| controller.observe(&calm).is_some()).count();
    assert_eq!(controller.settings(), Settings::at_first(LANES));
    assert!((12..60).contains(&changes), "{changes} {controller:?}");
    assert_eq!((controller.counts[0], controller.counts[2]), (0, 0));
}

#[test]
fn a_full_target_whose_rate_varies_is_left_as_it_is() {
    let systems = Systems {
        lane: 100.0 * MB,
        source: 900.0 * MB,
        target: 200.0 * MB,
        trip: 0.001,
        noise: 0.25,
    };
    let (controller, _) = run(systems, 600);
    let [kept, taken_back, _] = controller.counts;
    assert!(kept <= 1 && taken_back >= 10, "{controller:?}");
    assert_eq!(controller.settings().batch_bytes, BATCH_BYTES);
}

#[test]
fn a_target_far_away_is_not_taken_for_a_slow_one() {
    let systems =
        Systems { lane: 1.0 * MB, source: 900.0 * MB, target: 900.0 * MB, trip: 0.2, noise: 0.0 };
    let (controller, _) = run(systems, 200);
    assert_eq!(controller.counts[2], 0);
}

#[test]
fn what_is_held_back_or_short_of_cpu_is_not_pushed() {
    let mut controller = Controller::new(LANES, Duration::from_millis(25));
    let seen = Observed {
        bytes_per_second: 1.0 * MB,
        source: 0.1,
        cpu: 0.1,
        target: 0.1,
        held: 0.7,
        cpu_busy: 0.1,
        target_busy: None,
        latency: None,
        lanes_at_work: 4,
    };
    let busy = Observed { held: 0.0, source: 0.6, cpu_busy: 0.97, ..seen };
    let waiting = Observed { held: 0.0, cpu: 0.9, ..seen };
    for seen in [seen, busy, waiting] {
        assert!((0..100).all(|_| controller.observe(&seen).is_none()), "{seen:?}");
    }
}

#[test]
fn nothing_is_tried_against_a_target_whose_thread_is_full() {
    let far =
        Systems { lane: 50.0 * MB, source: 900.0 * MB, target: 200.0 * MB, trip: 0.05, noise: 0.0 };
    let mut controller = Controller::new(LANES, Duration::from_millis(25));
    // It tells in some periods only; what it told last holds for the others.
    for period in 0..40 {
        let target_busy = (period % 3 == 0).then_some(0.93);
        let seen = Observed { target_busy, ..far.observe(&controller.settings(), period) };
        assert_eq!(controller.observe(&seen), None);
    }
    let seen = |controller: &Controller| Observed {
        target_busy: Some(0.4),
        ..far.observe(&controller.settings(), 40)
    };
    assert!((0..10).any(|_| controller.observe(&seen(&controller)).is_some()), "{controller:?}");
}

#[test]
fn batches_have_room_beside_every_lane_that_is_at_work_still() {
    let controller = Controller::new(LANES, Duration::from_millis(25));
    assert!(controller.raised(Dial::BatchBytes, LANES.start).is_some());
    assert_eq!(controller.raised(Dial::BatchBytes, LANES.most), None);
}

proptest! {
    #[test]
    fn settings_never_leave_their_range_and_are_no_worse_than_the_first(
        lane in 1.0_f64..100.0, source in 10.0_f64..2000.0, target in 10.0_f64..2000.0,
        trip in 0.0005_f64..0.02, noise in 0.0_f64..0.04,
    ) {
        let systems = Systems { lane: lane * MB, source: source * MB, target: target * MB, trip, noise };
        let mut controller = Controller::new(LANES, Duration::from_millis(25));
        let first = systems.observe(&controller.settings(), 100).bytes_per_second;
        for period in 0..400 {
            let seen = systems.observe(&controller.settings(), period);
            controller.observe(&seen);
            let now = controller.settings();
            prop_assert!((1..=LANES.most).contains(&now.lanes) && (1..=WRITES).contains(&now.depth));
            prop_assert!((1..=CONNECTIONS_MAX).contains(&now.connections));
            prop_assert!(now.lanes * now.batch_bytes <= LANES.most * BATCH_BYTES);
        }
        let settled = Systems { noise: 0.0, ..systems }.observe(&controller.settings(), 0);
        // A target that is slow to answer others is given less on purpose.
        if controller.counts[2] == 0 {
            prop_assert!(settled.bytes_per_second >= 0.9 * first, "{:?}", controller);
        }
    }
}
