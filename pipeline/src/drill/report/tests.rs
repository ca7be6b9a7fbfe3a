//! What drills come to, made up.

use super::*;
use crate::drill::steps::{Mark, timed};
use crate::guard::Limits;
use crate::tuning::Lanes;
use stages::load::redis::WayChoice;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn plan() -> Plan {
    let text = "[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"a\"\n\
        table = \"alloydb:a\"\nkey = \"a:{id}\"\ntype = \"hash\"\n";
    Plan::parse(text, &|_| None, &|_| Ok(String::new())).unwrap()
}

fn options(deadline: Duration) -> Options {
    Options {
        state: "state".into(),
        lanes: Lanes::fixed(1),
        routes: Vec::new(),
        deadline: Some(deadline),
        lost_at_ms: None,
        fresh: false,
        verify: true,
        retry_for: Duration::from_secs(1),
        outage: None,
        take_over: None,
        way: WayChoice::Auto,
        cut_over: None,
        from_archive: false,
        to_rdb: None,
        share: None,
        limits: Limits::default(),
        cancel: CancellationToken::new(),
    }
}

/// A drill of Redis that came to its end, with these steps timed.
fn found(marks: &[&str]) -> Found {
    let marks: Vec<Mark> = marks.iter().map(|mark| Mark::parse(mark).unwrap()).collect();
    let mut found = Found::new("d".to_owned(), Loss::Redis, timed(Loss::Redis, &marks).unwrap());
    found.clock.lose();
    found.serves("redis");
    found
}

const ALL: [&str; 5] =
    ["declare=1", "stop-writers=1", "create-instance=10", "connect-redis=1", "repoint=2"];

fn rto(found: &mut Found, minutes: u64) -> DrillReport {
    DrillReport::of(&plan(), &options(Duration::from_mins(minutes)), found)
}

#[test]
fn what_is_wholly_timed_and_fits_is_met() {
    let mut found = found(&ALL);
    let report = rto(&mut found, 60);
    assert_eq!(report.objectives[0].verdict, evidence::Verdict::Met);
    assert_eq!(report.verdict, "the data is right, and the whole recovery fits the RTO");
    assert_eq!((report.within_rto, report.status.as_str()), (Some(true), "done"));
    assert!(report.objectives[0].measured_seconds >= Some(15.0 * 60.0));
    assert!(found.exits.is_empty());
}

#[test]
fn a_step_that_nobody_timed_leaves_the_objective_unknown() {
    let mut found = found(&ALL[..4]);
    let report = rto(&mut found, 60);
    assert_eq!(report.objectives[0].verdict, evidence::Verdict::Unknown);
    assert_eq!(
        report.verdict,
        "the data is right, and the measured part fits the RTO; 1 step is UNKNOWN: repoint"
    );
    assert_eq!(report.unknown_steps, ["repoint"]);
    assert!(report.not_tested.iter().any(|line| line.contains("UNKNOWN: repoint")));
    assert!(report.render().contains("step repoint          UNKNOWN"), "{}", report.render());
    assert!(found.exits.is_empty());
}

#[test]
fn steps_that_take_longer_than_the_rto_miss_it_whatever_is_unknown() {
    let mut found = found(&["create-instance=11"]);
    let report = rto(&mut found, 10);
    assert_eq!(report.objectives[0].verdict, evidence::Verdict::Missed);
    assert_eq!((report.within_rto, report.rto_seconds), (Some(false), 600));
    assert_eq!(found.exits, [Exit::Objective]);
}

#[test]
fn a_difference_proves_nothing_and_meets_nothing() {
    let mut found = found(&ALL);
    found.served.clear();
    found.differences.push("route a: key a:1: missing".to_owned());
    found.is_failed = true;
    let report = rto(&mut found, 60);
    assert_eq!(report.verdict, "1 difference found; nothing is proven");
    assert_eq!((report.within_rto, report.seconds_since_loss), (None, None));
    assert_eq!(report.objectives[0].verdict, evidence::Verdict::Unknown);
    assert_eq!((report.verified.tier.as_str(), report.verified.differences), ("none", 1));
    assert!(report.render().contains("DIFFERENT: route a: key a:1: missing"));
}
