//! What planted runs say would meet an RTO.

use super::*;

const HOUR: u64 = 3_600;

fn sample(kind: &str, rows: u64, seconds: f64, limit: &str) -> Sample {
    Sample {
        kind: kind.to_owned(),
        routes: vec!["builds".to_owned()],
        rows,
        bytes: rows * 100,
        seconds,
        rows_per_second: rows as f64 / seconds,
        lanes: 4,
        limit: limit.to_owned(),
        limit_share: Some(0.61),
    }
}

/// What is needed where everything takes so many times an hour, and the RTO is one.
fn needed(system: System, times: f64, samples: &[Sample]) -> Needed {
    let time = Time { held: times * 3_600.0, start: 0.0, rto_seconds: HOUR };
    Needed::of(system, time, Measured { fitted: samples, benched: samples }, &[])
}

/// One run of everything that waited for `limit`.
fn after(times: f64, limit: &str) -> Needed {
    needed(System::Redis, times, &[sample(WHOLE, 1_000_000, 4.0, limit)])
}

#[test]
fn an_rto_that_is_met_is_told_with_its_margin_and_needs_nothing_more() {
    let met = after(0.75, "target");
    assert!(met.is_met && (met.margin_seconds - 900.0).abs() < 1e-6, "{met:?}");
    assert_eq!((met.redis_nodes, met.machines, met.lanes), (Some(1), Some(1), None));
    assert_eq!(
        met.told,
        [
            "nothing more is needed: with 00:45:00 at most it is met by a margin of 00:15:00, 25 % of it; \
             the pace is limited by: target 61 %",
            "lanes: no other number of them was measured: rekindle bench --try-lanes 1,2,4,8",
        ]
    );
}

#[test]
fn a_target_that_is_2_3_times_too_slow_needs_3_redis_nodes() {
    let late = after(2.3, "target");
    assert_eq!((late.is_met, late.redis_nodes, late.machines), (false, Some(3), None));
    // 1,000,000 rows in 4 s are 4 us of its main thread each.
    assert!((late.redis_us_per_row.unwrap() - 4.0).abs() < 1e-9, "{late:?}");
    assert_eq!(late.told[0], "3 Redis nodes would meet it");
    for part in ["2.3 times the RTO", "target 61 %", "4.00 us of the main thread of Redis"] {
        assert!(late.told[1].contains(part), "{part}: {:?}", late.told);
    }
    assert!(late.told[2].starts_with("an extrapolation: if keys spread evenly over the nodes"));
    assert!(late.told[2].contains("source and this machine permitting"), "{:?}", late.told);
}

#[test]
fn what_does_not_grow_with_rows_is_not_shared_out() {
    let samples = [sample(WHOLE, 1_000_000, 4.0, "target")];
    let of = |start: f64| {
        let time = Time { held: 2.3 * 3_600.0, start, rto_seconds: HOUR };
        let runs = Measured { fitted: &samples, benched: &samples };
        Needed::of(System::Redis, time, runs, &[])
    };
    // Of 2.3 h the first half hour stays: 1.8 h of rows have to fit into half an hour.
    assert_eq!(of(1_800.0).redis_nodes, Some(4));
    let never = of(3_600.0);
    assert_eq!((never.redis_nodes, never.machines), (None, None));
    assert!(never.told[0].contains("does not grow with rows takes 01:00:00"), "{never:?}");
}

#[test]
fn a_machine_that_is_too_slow_needs_more_of_them() {
    for limit in ["cpu", "network"] {
        let late = after(2.3, limit);
        assert_eq!((late.redis_nodes, late.machines), (None, Some(3)), "{limit}");
        assert_eq!(late.redis_us_per_row, None);
        assert!(late.told[0].starts_with("3 machines like this one"), "{:?}", late.told);
        assert_eq!(late.told[0].contains("or one of "), limit == "cpu", "{:?}", late.told);
        assert!(late.told[1].contains(&format!("most is: {limit} 61 %")), "{:?}", late.told);
        assert!(late.told[2].contains("source and Redis permitting"), "{:?}", late.told);
    }
}

#[test]
fn a_source_that_is_too_slow_is_helped_by_neither() {
    let late = after(2.3, "source");
    assert_eq!((late.redis_nodes, late.machines, late.lanes), (None, None, None));
    assert!(
        late.told[0]
            .starts_with("neither more Redis nodes nor more machines would meet it: the source")
            && late.told[0].ends_with("2.3 times as fast"),
        "{:?}",
        late.told
    );
    assert!(!late.told.iter().any(|told| told.contains("extrapolation")), "{:?}", late.told);
    assert!(after(2.3, "limits").told[0].contains("higher limits"));
    assert!(after(2.3, "none").told[0].contains("no run has told what it waited for"));
}

#[test]
fn lanes_are_told_only_as_far_as_they_were_measured() {
    let mut samples = vec![
        sample(WHOLE, 200_000, 1.0, "source"),
        sample(WHOLE, 1_000_000, 4.0, "source"),
        sample("1 lanes", 1_000_000, 8.0, "source"),
        sample("8 lanes", 1_000_000, 2.0, "source"),
        // Another size says nothing of lanes.
        sample("64 lanes", 100_000, 0.01, "source"),
        Sample { routes: vec!["other".to_owned()], ..sample("9 lanes", 1_000_000, 0.1, "source") },
    ];
    // Eight lanes take half the time of what a rebuild has by itself.
    let met = needed(System::Redis, 1.9, &samples);
    let numbers: Vec<usize> = met.lanes_measured.iter().map(|of| of.lanes).collect();
    assert_eq!((met.lanes, numbers), (Some(8), vec![1, 8]));
    assert!((met.lanes_measured[1].seconds - 0.95 * 3_600.0).abs() < 1e-6, "{met:?}");
    assert_eq!(met.told[0], "--lanes 8 (as measured) would meet it");
    assert!(met.told.last().unwrap().contains("of those measured (1, 8), 8 are the fewest"));
    // Where it is met anyway, the fewest that still meet it are told.
    let easy = needed(System::Redis, 0.45, &samples);
    assert_eq!((easy.is_met, easy.lanes), (true, Some(1)));
    // Beyond what was measured nothing is claimed.
    let late = needed(System::Redis, 2.3, &samples);
    assert_eq!(late.lanes, None);
    assert_eq!(
        late.told.last().unwrap(),
        "lanes: none of those measured (1, 8) would meet it, the fastest being 8 in 01:09:00; \
         more than 8 lie beyond what was measured"
    );
    samples.push(sample("16 lanes", 1_000_000, 3.0, "source"));
    let worse = needed(System::Redis, 2.3, &samples);
    assert!(worse.told.last().unwrap().ends_with("more of them were not faster"), "{worse:?}");
}

#[test]
fn redis_is_the_source_of_a_restore_and_bigquery_its_target() {
    let restore = |limit: &str, variant: &str| {
        let samples = [
            sample(RESTORE, 1_000_000, 4.0, limit),
            sample(variant, 1_000_000, 1.0, limit),
            sample("backup, 2 lanes", 1_000_000, 0.1, limit),
        ];
        needed(System::Bigquery, 2.3, &samples)
    };
    let of_redis = restore("source", "restore, 8 lanes");
    assert_eq!((of_redis.redis_nodes, of_redis.machines, of_redis.lanes), (Some(3), None, Some(8)));
    assert_eq!(of_redis.lanes_measured.len(), 1);
    assert_eq!(of_redis.told[0], "--lanes 8 (as measured), or 3 Redis nodes would meet it");
    let of_bigquery = restore("target", "route");
    assert_eq!((of_bigquery.redis_nodes, of_bigquery.machines), (None, None));
    assert!(of_bigquery.told[0].contains("the target, BigQuery, would have to be 2.3 times"));
    assert!(of_bigquery.told.last().unwrap().contains("rekindle bench bigquery --try-lanes"));
}

#[test]
fn what_a_limit_leaves_no_less_of_counts() {
    let limit = |name: &str, least: f64| Quota {
        name: name.to_owned(),
        limit: 1.0,
        unit: "B/s".to_owned(),
        used: 2.0,
        share: 2.0,
        binds: true,
        least_seconds: Some(least),
        source: "a test".to_owned(),
    };
    let samples = [sample(WHOLE, 1_000_000, 4.0, "target")];
    let under = |limits: &[Quota]| {
        let time = Time { held: 1_800.0, start: 60.0, rto_seconds: HOUR };
        let runs = Measured { fitted: &samples, benched: &samples };
        Needed::of(System::Redis, time, runs, limits)
    };
    // The link of this machine: as many of them as it is too slow.
    let link = under(&[limit("network of this machine", 2.3 * 3_600.0)]);
    assert_eq!((link.is_met, link.machines, link.redis_nodes), (false, Some(3), None));
    assert_eq!((link.bottleneck.as_str(), link.bottleneck_share), ("network", None));
    // Somebody else's: nothing of ours helps, though what was measured would be fast enough.
    let quota = under(&[limit("rows appended by a project", 7_200.0)]);
    assert_eq!((quota.is_met, quota.machines, quota.redis_nodes), (false, None, None));
    assert!(quota.told[0].contains("before the limit that binds is raised"), "{quota:?}");
    assert!(under(&[limit("rows appended by a project", 600.0)]).is_met);
}
