//! What a reading tells, on made-up counters.

use super::*;

fn route(name: &str, phase: Phase, rows: u64, estimate: Option<u64>) -> RouteReading {
    RouteReading {
        name: name.to_owned(),
        phase: phase as usize,
        rows,
        rows_estimate: estimate,
        bytes: 57_300_000,
        partitions_done: 3,
        partitions: 17,
        rejects: 0,
    }
}

fn reading(rows_now: u64, routes: Vec<RouteReading>) -> Reading {
    Reading {
        elapsed: Duration::from_secs(2),
        since_loss: Duration::from_secs(9),
        rto: Duration::from_hours(24),
        rows_now,
        rest: None,
        waits: [0; 4],
        lanes: 0,
        commits: Some(4),
        routes,
    }
}

#[test]
fn one_route_at_work_is_named() {
    let reading = reading(340_112, vec![route("builds", Phase::Loading, 340_112, Some(1_000_000))]);
    assert_eq!(
        reading.line(),
        "builds loading 340,112/1,000,000 rows 34 %, 170,056 rows/s, 28.6 MB/s, eta 00:00:04, \
         RTO 00:00:09 of 24:00:00, 3/17 partitions, 4 commits"
    );
    assert_eq!(
        reading.bottom_line(),
        "170,056 rows/s, 28.6 MB/s, RTO 00:00:09 of 24:00:00, ends in about 00:00:04"
    );
}

#[test]
fn several_routes_at_work_are_summed() {
    let routes = vec![
        route("customers", Phase::Done, 10, Some(10)),
        route("builds", Phase::Loading, 100, Some(1_000)),
        route("logs", Phase::Loading, 100, Some(990)),
    ];
    let line = reading(210, routes).line();
    assert!(line.starts_with("2 of 3 routes loading 210/2,000 rows 10 %, 105 rows/s"), "{line}");
    assert!(line.contains("9/51 partitions"), "{line}");
}

#[test]
fn speed_is_of_this_process_alone() {
    // 900 of the 1,000 rows were carried by an earlier attempt.
    let reading = reading(100, vec![route("builds", Phase::Loading, 1_000, Some(2_000))]);
    assert_eq!(reading.time_left(), Some(Duration::from_secs(20)));
}

#[test]
fn time_left_is_unknown_without_estimate_or_speed() {
    let estimated = route("builds", Phase::Loading, 0, Some(1_000));
    assert_eq!(reading(0, vec![estimated.clone()]).time_left(), None);
    let unknown = route("logs", Phase::Waiting, 0, None);
    assert_eq!(reading(10, vec![estimated.clone(), unknown]).time_left(), None);
    let first = RouteReading { partitions_done: 0, ..route("logs", Phase::Loading, 11, Some(10)) };
    assert_eq!(reading(10, vec![estimated.clone(), first]).time_left(), None);
    // What has been read completely needs no estimate.
    let read = route("logs", Phase::ReadingBack, 5, None);
    assert_eq!(reading(500, vec![estimated, read]).time_left(), Some(Duration::from_secs(4)));
}

#[test]
fn an_estimate_that_was_too_low_gives_way_to_the_partitions() {
    // 3 of 17 partitions held 1,200 rows, so 14 hold 5,600.
    let exceeded = route("logs", Phase::Loading, 1_200, Some(1_000));
    assert_eq!(exceeded.progress(), "loading 1,200 rows");
    let reading = reading(1_200, vec![exceeded]);
    assert_eq!(figures::clock(reading.time_left().unwrap()), "00:00:09");
}

#[test]
fn the_end_of_catching_up_and_reading_back_is_unknown() {
    let routes =
        vec![route("a", Phase::Done, 10, Some(40)), route("b", Phase::ReadingBack, 9, Some(9))];
    let mut reading = reading(19, routes);
    assert_eq!(reading.time_left(), None);
    assert_eq!(reading.routes[0].progress(), "done 10 rows");
    reading.routes[1].phase = Phase::Done as usize;
    assert_eq!(reading.time_left(), Some(Duration::ZERO));
}

#[test]
fn a_run_that_will_miss_the_rto_says_so() {
    let mut reading = reading(10, vec![route("builds", Phase::Loading, 10, Some(1_000_000))]);
    let late = reading.late().unwrap();
    assert_eq!(late.end, Duration::from_secs(9 + 199_998));
    assert!(
        late.to_string().starts_with("warning: at this rate the run ends 55:33:27 after the loss"),
        "{late}"
    );
    reading.waits = [10, 30, 50, 10];
    assert!(reading.late().unwrap().to_string().contains("it waits for: target 50 %"));
    reading.rto = Duration::from_hours(87_600);
    assert_eq!(reading.late(), None);
}

#[test]
fn the_band_of_the_end_is_told_and_warned_of() {
    let mut reading = reading(10, vec![route("builds", Phase::Loading, 10, Some(1_000_000))]);
    reading.rest = Some(Rest { seconds: 100.0, least: 90.0, most: Some(120.5) });
    assert_eq!(reading.time_left(), Some(Duration::from_secs(100)));
    assert!(
        reading.line().contains("eta 00:01:40 (00:01:30 to 00:02:00), RTO"),
        "{}",
        reading.line()
    );
    assert!(reading.bottom_line().ends_with("ends in about 00:01:40 (00:01:30 to 00:02:00)"));
    assert_eq!(reading.late(), None);
    // The RTO lies between the mean and the slower end.
    reading.rto = Duration::from_mins(2);
    assert!(
        reading
            .late()
            .unwrap()
            .to_string()
            .contains("the run may end 00:01:49 (00:01:39 to 00:02:09)")
    );
    reading.rest = Some(Rest { seconds: 100.0, least: 90.0, most: None });
    assert!(reading.line().contains("eta 00:01:40 (00:01:30 or more)"), "{}", reading.line());
    reading.rest = Some(Rest { seconds: 100.0, least: 99.9, most: Some(100.1) });
    assert!(reading.line().contains("eta 00:01:40, RTO"), "{}", reading.line());
}

#[test]
fn rejects_are_shown_as_soon_as_there_are_any() {
    let mut builds = route("builds", Phase::CatchingUp, 10, Some(10));
    builds.rejects = 2;
    assert_eq!(builds.described(), "builds catching up 10 rows, 2 rejects");
}
