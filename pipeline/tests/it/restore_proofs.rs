//! What proves a restore, each proof by itself: headers and digests of blocks, rows of write streams, rows of staging.
//!
//! Invariant: each test spoils what one proof alone can tell, and everything else is as it should be.

use crate::items::{signal, wait_for_stop};
use crate::lost::{Days, Lost, PREFIX};
use crate::lost_rows::rows_of;
use crate::net::spawn;
use crate::restore::{SNAPSHOT_US, lost};
use crate::world::Ran;
use nix::sys::signal::Signal;
use redis::Commands;
use schemas::block::{self, Header};
use schemas::manifest::{BlockEntry, Keys, Manifest, Run, RunPartition, TableRecord, Version};
use serde_json::json;
use stages::failpoint::{Point, VARIABLE};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

fn verify(lost: &Lost) -> Ran {
    let words = ["verify", "bigquery", "--tier", "full", "--progress", "none"];
    Ran::of(&lost.rekindle(&words).output().unwrap())
}

/// `restore bigquery` that tells what it does.
fn telling(lost: &Lost) -> Command {
    lost.rekindle(&["restore", "bigquery", "--json", "--progress", "log", "--retry-for", "20s"])
}

/// The same, which stops or is killed at a point.
fn up_to(lost: &Lost, at: &str) -> Command {
    let mut command = telling(lost);
    command.env(VARIABLE, at);
    command
}

fn swap(lost: &Lost, [one, other]: [&str; 2]) {
    let mut redis = lost.connection();
    let values: [Vec<u8>; 2] = [redis.get(one).unwrap(), redis.get(other).unwrap()];
    let _: () = redis.set(one, &values[1]).unwrap();
    let _: () = redis.set(other, &values[0]).unwrap();
}

/// Makes the second block of a newest version the first one once more, under a header of its own: what differs is its place.
fn twin(lost: &Lost, name: &str) {
    let mut redis = lost.connection();
    say_otherwise(lost, name, |version, _| {
        let key = |ordinal| Keys::new(PREFIX).block(name, version.generation, ordinal);
        let values: [Vec<u8>; 2] = [redis.get(key(0)).unwrap(), redis.get(key(1)).unwrap()];
        let (first, body) = block::open(&values[0]).unwrap();
        let (second, _) = block::open(&values[1]).unwrap();
        let header = Header { ordinal: second.ordinal, is_last: second.is_last, ..first };
        let _: () = redis.set(key(1), [&header.to_bytes(), body].concat()).unwrap();
        version.blocks[1] = version.blocks[0].clone();
        version.stored_bytes = version.blocks.iter().map(BlockEntry::bytes).sum();
    });
}

#[test]
fn blocks_under_the_keys_of_each_other_are_refused_though_each_is_whole() {
    // GIVEN a table partition of the same rows twice, in two blocks and two generations, and another one beside it
    let lost = Lost::new(false);
    let half = rows_of(&lost.schema, Some(0), 1_000, "20261101");
    let rows = arrow::compute::concat_batches(&lost.schema, [&half, &half]).unwrap();
    let other = rows_of(&lost.schema, Some(1), 1_000, "20261102");
    let days = [
        Days { name: "20261101".to_owned(), rows },
        Days { name: "20261102".to_owned(), rows: other },
    ];
    lost.append("original", &days);
    for generation in [1, 2] {
        let at_us = SNAPSHOT_US + 60_000_000 * i64::try_from(generation).unwrap();
        lost.back_up(&days, generation, at_us, None);
        twin(&lost, "20261101");
    }
    lost.restore(&[]).expect(0);
    verify(&lost).expect(0);
    let key = |name: &str| format!("{PREFIX}:b:{name}");
    let another = "is altered: it is another block than its manifest says";
    for (one, other, said, what) in [
        ("20261101:2:0", "20261101:2:1", another, "its place"),
        ("20261101:2:0", "20261101:1:0", another, "its generation"),
        // Their lengths may differ, and are looked at first.
        ("20261101:2:0", "20261102:2:0", "", "its table partition"),
    ] {
        let keys = [key(one), key(other)];
        let keys = keys.each_ref().map(String::as_str);
        // WHEN two of them change places THEN that is refused by name, and nothing is written
        swap(&lost, keys);
        lost.restore(&["--replace", "--fresh"]).expect(4).says(&[keys[0], said]);
        assert!(lost.rows("builds") == lost.rows("original"), "{keys:?}");
        let said = format!("{} is altered: {what} is not what its manifest says", keys[0]);
        verify(&lost).expect(4).shows(&[&said]);
        swap(&lost, keys);
    }
    lost.restore(&["--replace", "--fresh"]).expect(0);
    lost.assert_restored();
    // AND so it is where only headers tell what there was
    let mut redis = lost.connection();
    let documents: Vec<String> = redis.keys(format!("{PREFIX}:m:*")).unwrap();
    let _: () = redis.del(documents).unwrap();
    let _: () = redis.del(format!("{PREFIX}:run")).unwrap();
    swap(&lost, [&key("20261101:2:0"), &key("20261101:2:1")]);
    let words = ["--from-scan", "--replace", "--fresh"];
    lost.restore(&words).expect(4).says(&["20261101 generation 2 holds another block"]);
}

/// Changes what the manifest of a table partition says of its newest copy, and the record of the backup with it.
fn say_otherwise(lost: &Lost, name: &str, alter: impl FnOnce(&mut Version, &mut Run)) {
    let (mut redis, keys) = (lost.connection(), Keys::new(PREFIX));
    let text: Vec<u8> = redis.get(keys.manifest(name)).unwrap();
    let mut manifest = Manifest::parse(&text, name).unwrap();
    let text: Vec<u8> = redis.get(keys.run()).unwrap();
    let mut run = Run::parse(&text).unwrap();
    alter(&mut manifest.versions[0], &mut run);
    let entry = run.table_partitions.iter_mut().find(|entry| entry.table_partition == name);
    *entry.unwrap() = RunPartition::of(&manifest).unwrap();
    let _: () = redis.set(keys.manifest(name), manifest.to_json()).unwrap();
    let _: () = redis.set(keys.run(), run.to_json()).unwrap();
}

#[test]
fn rows_of_another_digest_than_their_manifest_says_are_never_published() {
    let (mut lost, _) = lost(1_500, false);
    let mut right = String::new();
    say_otherwise(&lost, "20261101", |version, _| {
        right = std::mem::replace(&mut version.digest, "1".repeat(32));
    });
    let says =
        ["table partition 20261101 generation 1: its blocks hold 1500 rows with another digest"];
    let is_refused = |lost: &Lost| {
        lost.restore(&["--fresh"]).expect(4).says(&says);
        assert_eq!(lost.runtime.block_on(lost.client.table("logs", "builds")).unwrap(), None);
    };
    is_refused(&lost);
    // AND where its rows are fitted into another schema, so that they have another digest in the table anyway
    lost.resource["description"] = json!("what they said later");
    let record = TableRecord::new("logs", "builds", &lost.resource).unwrap();
    let (text, hash) = record.to_json();
    let hash = format!("{hash:032x}");
    let _: () = lost.connection().set(Keys::new(PREFIX).schema(&hash), text).unwrap();
    say_otherwise(&lost, "20261101", |_, run| run.schema_hash = hash);
    is_refused(&lost);
    // AND all of it comes back under the digest that it has
    say_otherwise(&lost, "20261101", |version, _| version.digest = right);
    lost.restore(&["--fresh"]).expect(0);
    assert!(lost.rows("builds") == lost.rows("original"));
}

#[test]
fn a_write_stream_that_lost_acknowledged_rows_is_filled_anew() {
    let lost = Lost::new(false);
    let days = &lost.days(1_000)[..1];
    lost.append("original", days);
    lost.back_up(days, 1, SNAPSHOT_US, None);
    // WHEN its last rows are acknowledged and lost THEN the number that it ends with tells
    lost.fault("AppendRows", "lose_rows", 0);
    let ran = Ran::of(&telling(&lost).output().unwrap()).expect(0);
    let ran = ran.says(&["the write stream is replaced", "another number of rows than were sent"]);
    assert!(!ran.stderr.contains("starts over"), "{}", ran.stderr);
    lost.assert_restored();
    // AND so it is where the process that closed it could not look
    lost.lose_again();
    lost.fault("AppendRows", "lose_rows", 0);
    let at = format!("{}:1", Point::StreamFinalized.name());
    let killed = up_to(&lost, &at).output().unwrap();
    assert_eq!(killed.status.signal(), Some(Signal::SIGKILL as i32));
    let ran = Ran::of(&telling(&lost).output().unwrap()).expect(0);
    let ran = ran.says(&["it was closed before it was complete"]);
    assert!(!ran.stderr.contains("starts over"), "{}", ran.stderr);
    lost.assert_restored();
}

#[test]
fn a_write_stream_whose_end_or_rows_were_forgotten_is_closed_again_or_filled_anew() {
    let (lost, _) = lost(1_000, false);
    let at = format!("{}:1:hold", Point::StreamFinalized.name());
    let again = ["bigquery did not commit", "INVALID_STREAM_STATE"];
    let anew = ["starts over: write stream", " 0 rows and had "];
    for (forgotten, [said, more], not_said) in [("end", again, anew[0]), ("rows", anew, again[0])] {
        // GIVEN a run whose streams are closed for the last time, all but told
        let child = spawn(up_to(&lost, &at));
        wait_for_stop(&child);
        // WHEN BigQuery forgets what it has answered
        let opened =
            lost.rest("POST", "stand-in/write-streams", Some(json!({"forget": forgotten})));
        assert!(opened["opened"].as_u64() >= Some(1), "{opened}");
        signal(&child, Signal::SIGCONT);
        // THEN streams are closed once more, and where rows are missing nothing of them is committed
        let ran = Ran::of(&child.wait_with_output().unwrap()).expect(0);
        let ran = ran.says(&[said, more]);
        assert!(!ran.stderr.contains(not_said), "{}", ran.stderr);
        lost.assert_restored();
        lost.lose_again();
    }
}

#[test]
fn a_staging_table_of_other_rows_is_never_published() {
    let (lost, days) = lost(1_000, false);
    let one = |day: &Days| Days { rows: day.rows.slice(0, 1), name: day.name.clone() };
    let single = days.iter().find(|day| day.rows.num_rows() == 1).unwrap();
    let table = |lost: &Lost| {
        let tables = lost.runtime.block_on(lost.client.tables("staging")).unwrap();
        tables[0]["tableReference"]["tableId"].as_str().unwrap().to_owned()
    };
    // One row more; another row in the place of one.
    let too_many = |lost: &Lost| lost.append(&format!("staging.{}", table(lost)), &[one(&days[0])]);
    let another = |lost: &Lost| {
        let partition = format!("{}${}", table(lost), single.name);
        lost.runtime.block_on(lost.client.delete_table("staging", &partition)).unwrap();
        too_many(lost);
    };
    let spoilt: [&dyn Fn(&Lost); 2] = [&too_many, &another];
    for spoil in spoilt {
        // GIVEN a staging table that is spoilt between the commit of its rows and its proof
        let at = format!("{}:1:hold", Point::StreamsCommitted.name());
        let child = spawn(up_to(&lost, &at));
        wait_for_stop(&child);
        spoil(&lost);
        signal(&child, Signal::SIGCONT);
        // THEN it is filled anew, and nothing of it was published
        let ran = Ran::of(&child.wait_with_output().unwrap()).expect(0);
        ran.says(&["staging logs.builds starts over: its staging table has"]);
        lost.assert_restored();
        lost.lose_again();
    }
}
