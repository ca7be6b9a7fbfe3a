//! `restore bigquery` of a table whose rows belong to the table partition of the time they arrived.
//!
//! Invariant: every row comes back once, into the table partition it was in; only what had none comes into today's.

use crate::items::random;
use crate::lost::{Days, Lost};
use crate::restore::SNAPSHOT_US;
use crate::restore_faults::{called, lose_each, refuse_jobs};
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

const DAYS: [&str; 3] = ["20261101", "20261102", "20261105"];

/// The original is partitioned by a column, so its table partitions show what belongs where.
fn lost(rows: usize) -> (Lost, Vec<Days>) {
    let mut lost = Lost::new(false);
    lost.resource["timePartitioning"] = json!({"type": "DAY"});
    let mut days = lost.days(rows);
    lost.append("original", &days);
    for day in days.iter_mut().filter(|day| day.name == "__NULL__") {
        "__UNPARTITIONED__".clone_into(&mut day.name);
    }
    days.sort_by(|a, b| a.name.cmp(&b.name));
    lost.back_up(&days, 1, SNAPSHOT_US, None);
    (lost, days)
}

#[track_caller]
fn assert_restored(lost: &Lost) {
    for day in DAYS {
        let (found, expected) =
            (lost.rows(&format!("builds${day}")), lost.rows(&format!("original${day}")));
        assert!(!expected.is_empty() && found == expected, "{day} differs");
    }
    assert!(lost.rows("builds") == lost.rows("original"), "the table differs from the original");
    let found = lost.runtime.block_on(lost.client.table("logs", "builds")).unwrap().unwrap();
    assert_eq!(found["timePartitioning"]["type"], "DAY");
    assert_eq!(found["timePartitioning"]["field"], Value::Null);
    for field in ["schema", "clustering", "labels", "requirePartitionFilter"] {
        assert_eq!(found[field], lost.resource[field], "{field}");
    }
    let staging = lost.runtime.block_on(lost.client.tables("staging")).unwrap();
    assert!(staging.is_empty(), "{staging:?}");
}

#[test]
fn rows_come_back_into_the_table_partition_they_arrived_in() {
    let (lost, days) = lost(2_500);
    let ran = lost.restore(&[]).expect(0).says(&["streaming buffer at backup", "one by one"]);
    let summary = ran.summary();
    assert_restored(&lost);
    let rows: u64 = days.iter().map(|day| day.rows.num_rows() as u64).sum();
    assert_eq!((summary["rows"].as_u64(), &summary["written"]), (Some(rows), &summary["rows"]));
    // AND it is not replaced as a whole, but by table partitions
    lost.restore(&["--replace"]).expect(2).says(&["--partitions FROM..TO --replace"]);
    lost.restore(&["--partitions", "20261101..20261102", "--replace"]).expect(0);
    assert_restored(&lost);
    // AND a lost one is filled, while rows without one are not doubled
    lost.runtime.block_on(lost.client.delete_table("logs", "builds$20261101")).unwrap();
    let filled = lost.restore(&["--fill"]).expect(0).says(&["cannot be told"]).summary();
    assert_restored(&lost);
    assert_eq!(filled["written"], 2_500);
}

#[test]
fn a_lost_answer_of_any_call_doubles_no_arrival() {
    let (lost, _) = lost(1_000);
    called(&lost);
    lost.restore(&[]).expect(0);
    let methods = called(&lost);
    let kinds = ["drop_after_apply", "throttle"];
    lose_each(&lost, &methods, &[], &kinds, &Lost::lose_again, &assert_restored);
    // AND a run that is given up leaves no staging table
    lost.lose_again();
    refuse_jobs(&lost);
    lost.restore(&["--retry-for", "1s"]).expect(3);
    lost.rest("DELETE", "stand-in/faults", None);
    lost.restore(&["--fresh"]).expect(0);
    assert_restored(&lost);
}

#[test]
fn killed_at_random_instants_every_arrival_comes_back_once() {
    let (lost, _) = lost(8_000);
    let started = Instant::now();
    lost.restore(&[]).expect(0);
    let whole = started.elapsed();
    let mut seed = RandomState::new().hash_one(());
    println!("seed {seed}, a whole restore takes {whole:?}");
    let is_soak = std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1");
    for _ in 0..if is_soak { 20 } else { 3 } {
        lost.lose_again();
        let mut child = lost.start(&[]);
        let part = random(&mut seed, 100);
        std::thread::sleep(whole.mul_f64(part as f64 / 100.0));
        child.kill().unwrap();
        let is_killed = !child.wait().unwrap().success();
        let ran = lost.restore(&[]);
        // Where the kill came too late the table is there, which the next run refuses.
        let expected = if is_killed { Some(0) } else { Some(2) };
        assert!(ran.code == expected || ran.stderr.contains(" rows"), "{}", ran.stderr);
        assert_restored(&lost);
    }
}
