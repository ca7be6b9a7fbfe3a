//! `restore bigquery` against the stand-in: whole, in parts, filled, killed, with lost answers, with a damaged duplicate.
//!
//! Invariant: whatever happened, a restore that ends 0 leaves exactly the rows of the original, told by REST.

use crate::lost::{Days, Lost, PREFIX};
use redis::Commands;
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

/// 2023-11-14T22:13:20Z.
pub(crate) const SNAPSHOT_US: i64 = 1_700_000_000_000_000;

/// A lost table of some days, and the days.
pub(crate) fn lost(rows: usize, row_key: bool) -> (Lost, Vec<Days>) {
    let lost = Lost::new(row_key);
    let days = lost.days(rows);
    lost.append("original", &days);
    lost.back_up(&days, 1, SNAPSHOT_US, None);
    (lost, days)
}

pub(crate) fn count(days: &[Days]) -> u64 {
    days.iter().map(|day| day.rows.num_rows() as u64).sum()
}

#[test]
fn a_lost_table_comes_back_with_every_type_and_all_that_belongs_to_it() {
    let is_soak = std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1");
    let (lost, days) = lost(if is_soak { 100_000 } else { 4_000 }, false);
    let ran = lost.restore(&[]).expect(0);
    let summary = ran.summary();
    lost.assert_restored();
    assert_eq!(summary["rows"].as_u64(), Some(count(&days)), "{summary}");
    assert_eq!(summary["written"], summary["rows"]);
    assert_eq!(summary["verified"]["tier"], "full");
    assert_eq!(summary["status"], "done");
    println!(
        "{} rows in {} s: {} rows/s, {} stored bytes, peak {} bytes, waits for {}",
        summary["rows"],
        summary["seconds"],
        summary["rows_per_second"],
        summary["bytes"],
        summary["peak_rss_bytes"],
        summary["routes"][0]["bottleneck"]
    );
    // AND a second restore refuses to touch it, an other one replaces it
    lost.restore(&[]).expect(2).says(&["logs.builds has ", "--fill", "--replace"]);
    lost.append("builds", &days[..1]);
    lost.restore(&["--replace"]).expect(0);
    lost.assert_restored();
}

#[test]
fn killed_at_random_instants_the_resumed_restore_has_every_row_once() {
    let (lost, _) = lost(12_000, false);
    let started = Instant::now();
    lost.restore(&[]).expect(0);
    let whole = started.elapsed();
    let soak = std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1");
    let seed = RandomState::new().hash_one(());
    println!("seed {seed}, a whole restore takes {whole:?}");
    let mut seed = seed;
    for round in 0..if soak { 20 } else { 3 } {
        lost.lose_again();
        let mut kills = 0;
        // Killed up to three times before it may end.
        for _ in 0..=round % 3 {
            let mut child = lost.start(&[]);
            let part = crate::items::random(&mut seed, 100);
            std::thread::sleep(whole.mul_f64(part as f64 / 100.0));
            child.kill().unwrap();
            kills += u32::from(!child.wait().unwrap().success());
        }
        let done = kills == 0;
        let ran = lost.restore(&[]);
        // Where no kill came in time the table is there, which the next run refuses.
        if ran.code == Some(2) {
            assert!(done || ran.stderr.contains("has "), "{}", ran.stderr);
        } else {
            ran.expect(0);
        }
        lost.assert_restored();
    }
}

#[test]
fn a_commit_whose_answer_got_lost_is_found_to_be_done_after_a_kill() {
    let (lost, _) = lost(2_500, false);
    lost.fault("BatchCommitWriteStreams", "drop_after_apply", 0);
    // The run cannot find out, gives up, and the next one looks.
    for _ in 0..300 {
        lost.fault("GetWriteStream", "unavailable", 0);
    }
    let ran = lost.restore(&["--retry-for", "1s"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    lost.rest("DELETE", "stand-in/faults", None);
    let summary = lost.restore(&[]).expect(0).summary();
    assert_eq!(summary["resumed"], 1);
    lost.assert_restored();
}

#[test]
fn what_is_missing_or_altered_is_named_and_nothing_is_published() {
    let (lost, _) = lost(2_500, false);
    let mut redis = lost.connection();
    let block = format!("{PREFIX}:b:20261101:1:1");
    let manifest = format!("{PREFIX}:m:20261102");
    let run = format!("{PREFIX}:run");
    for key in [&block, &manifest, &run] {
        let stored: Vec<u8> = redis.get(key).unwrap();
        let _: () = redis.del(key).unwrap();
        lost.restore(&[]).expect(4).says(&[key.as_str(), "missing"]);
        let mut altered = stored.clone();
        let middle = stored.len() / 2;
        altered[middle] ^= 1;
        let _: () = redis.set(key, altered).unwrap();
        lost.restore(&["--fresh"]).expect(4).says(&[key.as_str(), "altered"]);
        let _: () = redis.set(key, stored).unwrap();
        assert_eq!(lost.runtime.block_on(lost.client.table("logs", "builds")).unwrap(), None);
    }
    lost.restore(&["--fresh"]).expect(0);
    lost.assert_restored();
}

#[test]
fn lost_manifests_are_made_again_from_the_blocks_when_asked() {
    let (lost, _) = lost(2_500, false);
    let mut redis = lost.connection();
    let keys: Vec<String> = redis.keys(format!("{PREFIX}:m:*")).unwrap();
    let _: () = redis.del(keys).unwrap();
    let _: () = redis.del(format!("{PREFIX}:run")).unwrap();
    lost.restore(&[]).expect(4).says(&["--from-scan"]);
    let summary = lost.restore(&["--from-scan"]).expect(0).summary();
    lost.assert_restored();
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("made again from the headers"), "{warnings}");
    // AND a table partition that lost a block is not made up
    lost.lose_again();
    let _: () = redis.del(format!("{PREFIX}:b:20261101:1:1")).unwrap();
    lost.restore(&["--from-scan"]).expect(4).says(&["20261101 generation 1"]);
}

#[test]
fn an_earlier_state_and_a_re_created_table_are_restored_only_as_named() {
    let (lost, days) = lost(1_000, false);
    // GIVEN a second backup of a table that was created anew, with fewer rows
    let fewer: Vec<Days> = days
        .iter()
        .map(|day| Days { rows: day.rows.slice(0, 1), name: day.name.clone() })
        .collect();
    let later = lost.resource["creationTime"].as_str().unwrap().parse::<i64>().unwrap() + 5_000;
    lost.back_up(&fewer, 2, SNAPSHOT_US + 60_000_000, Some(later));
    lost.restore(&[]).expect(2).says(&[
        "created anew",
        "--accept-recreated logs.builds",
        "--as-of",
    ]);
    // WHEN the time before is named THEN the first state comes back
    lost.restore(&["--as-of", "2023-11-14T22:13:50Z"]).expect(0);
    lost.assert_restored();
    // AND the new one where that is named
    lost.lose_again();
    let summary = lost.restore(&["--accept-recreated", "logs.builds"]).expect(0).summary();
    assert_eq!(summary["rows"].as_u64(), Some(count(&fewer)));
    assert_eq!(lost.rows("builds").len() as u64, count(&fewer));
}

#[test]
fn single_table_partitions_are_restored_into_a_table_that_stands() {
    let (lost, days) = lost(1_000, false);
    lost.restore(&[]).expect(0);
    // GIVEN one table partition emptied and one damaged
    lost.runtime.block_on(lost.client.delete_table("logs", "builds$20261101")).unwrap();
    lost.append("builds", &days[1..2]);
    lost.restore(&["--partitions", "20261101..20261102"])
        .expect(2)
        .says(&["20261102", "--replace"]);
    lost.restore(&["--partitions", "20261101..20261102", "--replace"]).expect(0);
    lost.assert_restored();
    lost.runtime.block_on(lost.client.delete_table("logs", "builds$20261101")).unwrap();
    // AND filling finds out itself which are absent
    let summary = lost.restore(&["--fill"]).expect(0).summary();
    lost.assert_restored();
    assert_eq!(summary["written"], 1_000);
}

#[test]
fn a_resumed_restore_must_be_asked_the_same() {
    let (lost, _) = lost(1_000, false);
    for _ in 0..200 {
        lost.fault("AppendRows", "unavailable", 0);
    }
    let ran = lost.restore(&["--retry-for", "1s"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    lost.rest("DELETE", "stand-in/faults", None);
    lost.restore(&["--replace"]).expect(2).says(&["unfinished", "--fresh"]);
    let summary: Value = lost.restore(&[]).expect(0).summary();
    assert_eq!(summary["resumed"], json!(1));
    lost.assert_restored();
}
