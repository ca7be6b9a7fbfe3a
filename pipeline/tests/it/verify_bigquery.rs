//! `verify bigquery` of blocks, against the BigQuery stand-in and a real Redis: planted damage of the duplicate, rows that
//! differ, what changed meanwhile, and repair.
//!
//! Invariant: the full tier names every planted thing and nothing else, and a verification writes to neither side.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE, plain};
use crate::verified::{Numbers, part};
use crate::world::Ran;
use fixtures::servers::RedisOptions;
use redis::Commands;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const KEYED: &str = "row_key = \"id\"\n";

fn keyed() -> Cloud {
    let cloud = Cloud::new(RedisOptions::default(), &format!("{ROUTE}{KEYED}"));
    cloud.table(DAY_PARTITIONED);
    cloud
}

/// Rows of incompressible text on one day, so that they take several blocks.
fn insert_blocks(cloud: &Cloud, day: u32) {
    let mut numbers = Numbers(u64::from(day));
    let rows: Vec<_> = (0..700)
        .map(|id| {
            let text: Vec<String> = (0..600).map(|_| format!("{:016x}", numbers.next())).collect();
            json!({"json": {"id": id, "name": text.concat(), "ts": format!("2025-11-{day:02}T00:00:00Z")}})
        })
        .collect();
    for rows in rows.chunks(100) {
        let path = "bigquery/v2/projects/p/datasets/d/tables/t/insertAll";
        cloud.post(path, &json!({"rows": rows}));
    }
}

#[test]
fn a_whole_duplicate_passes_at_every_tier() {
    let cloud = keyed();
    for day in 1..=25 {
        cloud.insert(day, 0..40);
    }
    cloud.insert(0, 0..10);
    cloud.verify(&["--tier", "count"]).expect(4);
    cloud.backup(&[]).expect(0);
    let summary = cloud.verify_full(0);
    assert_eq!(summary["verdict"], "pass", "{summary}");
    let table = &summary["tables"][0];
    assert_eq!((&table["compared"], &table["rows_compared"]), (&json!(26), &json!(1_010)));
    assert_eq!((&table["blocks_read"], table.get("parts")), (&json!(26), None));
    cloud.rows_read();
    let summary = cloud.verify(&["--tier", "count"]).expect(0).summary();
    assert_eq!(cloud.rows_read(), 0);
    assert_eq!(summary["tables"][0]["blocks_read"], 0);
    let sample = cloud.verify(&["--sample", "30", "--seed", "7"]).expect(0).summary();
    assert_eq!(sample["tables"][0]["compared"], 20);
    let detects = sample["tables"][0]["detects"].as_str().unwrap();
    assert!(detects.contains("13.91 % of all of them or more"), "{detects}");
    let words = ["verify", "bigquery", "--tier", "full", "--progress", "log"];
    let told = Ran::of(&cloud.command(&words).output().unwrap())
        .says(&["logs done 1,010 rows, 26/26 partitions"]);
    assert!(told.stdout.starts_with("verify bigquery: pass\n"), "{}", told.stdout);
    let words = ["verify", "bigquery", "--tier", "count", "--progress", "none"];
    assert_eq!(Ran::of(&cloud.command(&words).output().unwrap()).stderr, "");
    cloud.verify(&["--route", "nothing"]).expect(2).says(&["nothing"]);
}

/// Damages one block; `other` is one of another place.
fn damage(cloud: &Cloud, key: &str, other: &str, numbers: &mut Numbers) {
    let value = cloud.value(key);
    let mut connection = cloud.connection();
    match numbers.below(6) {
        0 => {
            let mut flipped = value;
            let at = numbers.below(flipped.len());
            flipped[at] ^= 1 << numbers.below(8);
            cloud.put(key, &flipped);
        }
        1 => connection.del(key).unwrap(),
        2 => cloud.put(key, &cloud.value(other)),
        3 => cloud.put(key, &value[..numbers.below(value.len())]),
        4 => connection.append(key, "x").unwrap(),
        _ => connection.expire(key, 100_000).unwrap(),
    }
}

#[test]
fn every_damaged_block_is_named_and_nothing_else() {
    let cloud = plain();
    for day in 1..=20 {
        cloud.insert(day, 0..30);
    }
    insert_blocks(&cloud, 21);
    cloud.backup(&[]).expect(0);
    // A second version of some table partitions: its blocks are read as well.
    cloud.sql(
        "INSERT INTO d.t (id, name, ts) VALUES (1, 'x', TIMESTAMP '2025-11-03 00:00:00+00:00')",
    );
    cloud.backup(&[]).expect(0);
    let keys = cloud.block_keys();
    assert!(keys.iter().filter(|key| key.contains(":20251121:")).count() >= 3, "{keys:?}");
    cloud.verify_full(0);
    let mut numbers = Numbers(11);
    for count in [1, 1, 1, 1, 2, 7, keys.len()] {
        let damaged = numbers.some(count, keys.len());
        let originals: BTreeMap<&String, Vec<u8>> =
            damaged.iter().map(|place| (&keys[*place], cloud.value(&keys[*place]))).collect();
        for (place, key) in damaged.iter().map(|place| (*place, &keys[*place])) {
            let other = &keys[(place + 1 + numbers.below(keys.len() - 1)) % keys.len()];
            // What was damaged a moment ago may not be there any more.
            let is_there: bool = cloud.connection().exists(other).unwrap();
            damage(&cloud, key, if is_there { other } else { key }, &mut numbers);
        }
        let changed: BTreeSet<String> = originals
            .iter()
            .filter(|(key, value)| {
                let mut connection = cloud.connection();
                let now: Option<Vec<u8>> = connection.get(**key).unwrap();
                let left: i64 = connection.ttl(**key).unwrap();
                now.as_ref() != Some(*value) || left >= 0
            })
            .map(|(key, _)| (*key).clone())
            .collect();
        let summary = cloud.verify_full(4);
        assert_eq!(cloud.found("damaged", "key"), changed, "{count} of {}: {summary}", keys.len());
        for (key, value) in originals {
            cloud.put(key, &value);
        }
        cloud.verify_full(0);
    }
    // Blocks of two table partitions that have changed places.
    let (a, b) = (&keys[0], &keys[5]);
    let (of_a, of_b) = (cloud.value(a), cloud.value(b));
    cloud.put(a, &of_b);
    cloud.put(b, &of_a);
    let summary = cloud.verify_full(4);
    assert_eq!(cloud.found("damaged", "key"), [a.clone(), b.clone()].into());
    assert!(summary.to_string().contains("its table partition is not what its manifest says"));
    cloud.put(a, &of_a);
    // Lengths are the same: that is no business of the count tier, but of the sample's.
    cloud.put(b, &{
        let mut flipped = of_b.clone();
        flipped[150] ^= 1;
        flipped
    });
    cloud.verify(&["--tier", "count"]).expect(0);
    cloud.verify(&["--tier", "sample", "--sample", "1"]).expect(4);
    cloud.put(b, &of_b);
    // A block more than the manifest has is told, and harms nothing.
    let extra = format!("{a}7");
    cloud.put(&extra, &of_a);
    let summary = cloud.verify_full(0);
    assert_eq!(summary["tables"][0]["unexplained_examples"], json!([extra]));
}

#[test]
fn altered_documents_are_named_whether_their_hash_is_right_or_not() {
    let cloud = plain();
    for day in 1..=3 {
        cloud.insert(day, 0..30);
    }
    cloud.backup(&[]).expect(0);
    let image: BTreeMap<String, Vec<u8>> =
        cloud.image().into_keys().map(|key| (key.clone(), cloud.value(&key))).collect();
    let undo = || image.iter().for_each(|(key, value)| cloud.put(key, value));
    let key = "log:m:20251102";
    let says = |code: i32, texts: &[&str]| {
        let summary = cloud.verify_full(code).to_string();
        for text in texts {
            assert!(summary.contains(text), "{text} is not in {summary}");
        }
        undo();
        cloud.verify_full(0);
    };
    // Not what was written.
    let mut altered = image[key].clone();
    let at = altered.len() / 2;
    altered[at] = altered[at].wrapping_add(1);
    cloud.put(key, &altered);
    says(4, &["the manifest of table partition 20251102 is altered"]);
    let _: () = cloud.connection().del(key).unwrap();
    says(4, &["the manifest of table partition 20251102 is missing"]);
    // With its own hash right, and not the one that was recorded.
    let mut manifest = cloud.manifest("20251102");
    manifest.versions[0].last_modified_us -= 1;
    cloud.put(key, &manifest.to_json());
    says(4, &["the manifest of table partition 20251102 is not the one recorded"]);
    // With everything recorded anew: only the blocks tell.
    let mut manifest = cloud.manifest("20251102");
    manifest.versions[0].digest = "1".repeat(32);
    cloud.publish_as_recorded(manifest);
    says(4, &["log:m:20251102 is altered: generation 1 has another digest than its blocks"]);
    let mut manifest = cloud.manifest("20251102");
    manifest.versions[0].expires_us = Some(4_000_000_000_000_000);
    cloud.publish_as_recorded(manifest);
    says(4, &["its expiry is not what its manifest says"]);
    // What belongs to the table as a whole.
    let _: () = cloud.connection().del("log:run").unwrap();
    says(4, &["there is no record of a complete backup", "rekindle backup bigquery --route logs"]);
    let _: () = cloud.connection().append("log:run", " ").unwrap();
    says(4, &["the record of the last complete backup is altered"]);
    let schema = image.keys().find(|key| key.starts_with("log:s:")).unwrap();
    let _: () = cloud.connection().del(schema).unwrap();
    says(4, &["the recorded table"]);
}

#[test]
fn what_bigquery_changed_since_is_told_and_what_it_lost_is_a_difference() {
    let cloud = keyed();
    for day in 1..=5 {
        cloud.insert(day, 100 * day..100 * day + 30);
    }
    cloud.backup(&[]).expect(0);
    cloud.sql("UPDATE d.t SET name = 'changed' WHERE id IN (101, 102, 103)");
    cloud.insert(2, 900..905);
    cloud.insert(9, 950..960);
    let summary = cloud.verify_full(0);
    let (first, second) = (part(&summary, "20251101"), part(&summary, "20251102"));
    assert_eq!(
        (&first["state"], &first["since"]["different"]["rows"]),
        (&json!("changed"), &json!(3))
    );
    assert_eq!(second["since"]["missing_in_redis"]["rows"], 5);
    assert_eq!(part(&summary, "20251109")["state"], "new");
    assert_eq!(
        cloud.found("different", "row_key"),
        ["101", "102", "103"].map(str::to_owned).into()
    );
    assert_eq!(summary["tables"][0]["parts"].as_array().unwrap().len(), 3);
    cloud.verify(&["--tier", "count"]).expect(0);
    // A damaged block of a table partition that changed is still damage.
    let block = &cloud.block_keys()[0];
    let value = cloud.value(block);
    let _: () = cloud.connection().del(block).unwrap();
    assert_eq!(part(&cloud.verify_full(4), "20251101")["state"], "damaged");
    cloud.put(block, &value);
    // Rows that are gone.
    cloud.sql("DELETE FROM d.t WHERE id IN (301, 307)");
    cloud.sql("DELETE FROM d.t WHERE id >= 400 AND id < 500");
    let summary = cloud.verify_full(4);
    let (third, fourth) = (part(&summary, "20251103"), part(&summary, "20251104"));
    assert_eq!(
        (&third["state"], &third["since"]["missing_in_bigquery"]["rows"]),
        (&json!("lost"), &json!(2),)
    );
    assert_eq!((&fourth["state"], &fourth["reason"]), (&json!("lost"), &json!("is gone")));
    assert!(
        fourth["hint"].as_str().unwrap().contains("rekindle restore bigquery --route logs --fill")
    );
    assert_eq!(cloud.found("missing_in_bigquery", "row_key").len(), 2 + 30);
    cloud.verify(&["--tier", "count"]).expect(4);
    // Once it is too long ago, what cannot be looked at again is not called different.
    cloud.post("stand-in/clock", &json!({"let_pass_micros": 8_i64 * 86_400_000_000}));
    let summary = cloud.verify_full(4);
    let first = part(&summary, "20251101");
    assert_eq!(first["state"], "inconclusive", "{summary}");
    assert!(first["reason"].as_str().unwrap().contains("no time that old"), "{first}");
    assert_eq!(part(&summary, "20251103")["state"], "lost");
    assert_eq!(summary["tables"][0]["parts"].as_array().unwrap().len(), 5);
}

#[test]
fn a_backup_meanwhile_is_no_damage() {
    let cloud = Cloud::new(RedisOptions::default(), &format!("{ROUTE}keep_versions = 1\n"));
    cloud.table(DAY_PARTITIONED);
    for day in 1..=8 {
        cloud.insert(day, 0..200);
    }
    cloud.backup(&[]).expect(0);
    let mut id = 10_000;
    for _ in 0..4 {
        // Read slowly, so that versions are replaced under the eyes of the verification.
        cloud.fault("ReadRows", "delay_ms:150", 0, 8);
        let words = [
            "verify",
            "bigquery",
            "--json",
            "--tier",
            "full",
            "--lanes",
            "1",
            "--progress",
            "none",
        ];
        let mut command = cloud.command(&words);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            for day in 1..=8 {
                id += 1;
                cloud.insert(day, id..id + 1);
            }
            cloud.backup(&[]).expect(0);
        }
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        cloud.no_faults();
    }
    cloud.verify_full(0);
}

#[test]
fn a_table_that_is_missing_or_was_made_anew_is_compared_as_far_as_it_can_be() {
    let cloud = plain();
    cloud.insert(1, 0..30);
    cloud.insert(2, 0..30);
    cloud.backup(&[]).expect(0);
    cloud.add_column();
    cloud.verify_full(0);
    cloud.delete_table();
    let ran = cloud.verify(&["--tier", "full"]).expect(4).summary();
    assert!(ran.to_string().contains("table d.t is missing in bigquery"), "{ran}");
    cloud.table(DAY_PARTITIONED);
    cloud.insert(1, 0..30);
    cloud.insert(2, 0..31);
    let summary = cloud.verify_full(4);
    assert_eq!(summary["verdict"], "inconclusive", "{summary}");
    assert!(part(&summary, "20251102")["reason"].as_str().unwrap().contains("made anew"));
    cloud.sql("DELETE FROM d.t WHERE id = 30");
    let summary = cloud.verify_full(0);
    assert!(summary["tables"][0]["notes"].to_string().contains("made anew"), "{summary}");
}
