//! `verify bigquery` where rows differ: in duplicates that are whole in themselves, in tables without table partitions,
//! in the streaming buffer, and in rows that an application keeps.
//!
//! Invariant: every row that differs is named by its key where it has one, and counted where it has none.

use crate::app_logs::{HASHES, Logs, STREAM};
use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::verified::{Numbers, part};
use arrow::array::{ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use fixtures::servers::RedisOptions;
use redis::Commands;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

fn ids(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

/// Leaves rows out, repeats rows, and gives others another name; by id.
fn changed(rows: &RecordBatch, lost: &[i64], twice: &[i64], other: &[i64]) -> RecordBatch {
    let ids = ids(rows);
    let only = |wanted: &dyn Fn(&i64) -> bool| {
        let mask: BooleanArray = ids.iter().map(|id| Some(wanted(id))).collect();
        filter_record_batch(rows, &mask).unwrap()
    };
    let kept = only(&|id| !lost.contains(id) && !other.contains(id));
    let renamed = only(&|id| other.contains(id));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["another"; renamed.num_rows()]));
    let place = rows.schema().index_of("name").unwrap();
    let mut columns = renamed.columns().to_vec();
    columns[place] = names;
    let renamed = RecordBatch::try_new(rows.schema(), columns).unwrap();
    concat_batches(&rows.schema(), &[kept, renamed, only(&|id| twice.contains(id))]).unwrap()
}

#[test]
fn rows_that_differ_where_nothing_shows_it_are_named_by_key_or_counted() {
    for row_key in [true, false] {
        let more = if row_key { "row_key = \"id\"\n" } else { "" };
        let cloud = Cloud::new(RedisOptions::default(), &format!("{ROUTE}{more}"));
        cloud.table(DAY_PARTITIONED);
        for day in 1..=3 {
            cloud.insert(day, 1_000 * day..1_000 * day + 400);
        }
        cloud.backup(&[]).expect(0);
        let mut numbers = Numbers(5);
        for count in [1, 2, 40] {
            let image: Vec<_> =
                cloud.image().into_keys().map(|key| (key.clone(), cloud.value(&key))).collect();
            let mut chosen: Vec<i64> = numbers
                .some(3 * count, 400)
                .into_iter()
                .map(|id| 2_000 + i64::try_from(id).unwrap())
                .collect();
            let other = chosen.split_off(2 * count);
            let twice = chosen.split_off(count);
            let lost = chosen;
            cloud.falsify("20251102", |rows| changed(rows, &lost, &twice, &other));
            let summary = cloud.verify_full(4);
            let found = part(&summary, "20251102");
            assert_eq!(found["state"], "different", "{summary}");
            assert_eq!(summary["tables"][0]["parts"].as_array().unwrap().len(), 1);
            let rows = |sort: &str| {
                usize::try_from(found["rows"][sort]["rows"].as_u64().unwrap()).unwrap()
            };
            let named = |sort: &str| cloud.found(sort, "row_key");
            let texts = |ids: &[i64]| ids.iter().map(i64::to_string).collect::<BTreeSet<_>>();
            if row_key {
                assert_eq!(rows("missing_in_redis"), count);
                assert_eq!((rows("missing_in_bigquery"), rows("different")), (count, count));
                assert_eq!(named("missing_in_redis"), texts(&lost));
                assert_eq!(named("missing_in_bigquery"), texts(&twice));
                assert_eq!(named("different"), texts(&other));
            } else {
                assert_eq!(rows("missing_in_redis"), 2 * count);
                assert_eq!((rows("missing_in_bigquery"), rows("different")), (2 * count, 0));
            }
            let text = cloud.command(&["verify", "bigquery", "--tier", "full"]).output().unwrap();
            assert!(
                !String::from_utf8(text.stdout).unwrap().contains("another"),
                "a value is shown"
            );
            for (key, value) in image {
                cloud.put(&key, &value);
            }
        }
        cloud.verify_full(0);
    }
}

#[test]
fn a_sample_finds_what_differs_as_often_as_it_says() {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    cloud.table(r#"{"timePartitioning": {"type": "HOUR", "field": "ts"}}"#);
    let hours: Vec<String> = (0..40)
        .map(|hour| {
            format!(
                "({hour}, 'x', TIMESTAMP '2025-11-{:02} {:02}:00:00+00:00')",
                1 + hour / 24,
                hour % 24
            )
        })
        .collect();
    cloud.sql(&format!("INSERT INTO d.t (id, name, ts) VALUES {}", hours.join(", ")));
    cloud.backup(&[]).expect(0);
    let falsified = ["2025110103", "2025110117", "2025110205"];
    for id in falsified {
        cloud.falsify(id, |rows| changed(rows, &[], &[], &ids(rows)));
    }
    // The count tier cannot see it: there are as many rows.
    cloud.verify(&["--tier", "count"]).expect(0);
    let mut runs = 0;
    let mut times = 0;
    for seed in 0..24 {
        let ran = cloud.verify(&["--sample", "1", "--seed", &seed.to_string()]);
        let summary = ran.summary();
        assert_eq!(summary["tables"][0]["compared"], 20);
        let found = cloud.found("different", "table_partition").len();
        assert!(
            cloud
                .found("different", "table_partition")
                .iter()
                .all(|id| falsified.contains(&id.as_str()))
        );
        assert_eq!(ran.code, Some(if found > 0 { 4 } else { 0 }), "{summary}");
        runs += usize::from(found > 0);
        times += found;
    }
    // 20 of 40 are taken: each is found in half of the runs, one of three in 1 - (20*19*18)/(40*39*38) = 88 %. The
    // seeds are the same in every test, so these numbers are, too.
    assert!((17..=24).contains(&runs), "{runs} of 24 runs");
    assert!((26..=46).contains(&times), "{times} of 72");
}

#[test]
fn changes_of_a_table_in_windows_are_found_even_where_a_backup_does_not_see_them() {
    let cloud = Cloud::new(RedisOptions::default(), &format!("{ROUTE}watermark = \"ts\"\n"));
    cloud.table("{}");
    cloud.insert(1, 0..300);
    cloud.insert(0, 500..510);
    cloud.backup(&[]).expect(0);
    cloud.verify_full(0);
    cloud.sql("UPDATE d.t SET name = 'changed' WHERE id = 5");
    let summary = cloud.verify_full(0);
    let parts = summary["tables"][0]["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 1, "{summary}");
    assert_eq!(parts[0]["state"], "changed");
    assert!(parts[0]["reason"].as_str().unwrap().contains("a backup does not see this change"));
    assert_eq!(parts[0]["hint"], "rekindle backup bigquery --route logs --full");
    cloud.sql("DELETE FROM d.t WHERE id = 500");
    assert_eq!(part(&cloud.verify_full(4), "__NULL__")["state"], "lost");
    // Past the time travel, nobody can tell the change from damage.
    cloud.insert(0, 500..501);
    cloud.post("stand-in/clock", &json!({"let_pass_micros": 8_i64 * 86_400_000_000}));
    let summary = cloud.verify_full(4);
    assert_eq!(summary["verdict"], "inconclusive", "{summary}");
}

#[test]
fn rows_of_the_streaming_buffer_are_followed() {
    // By a column: rows of the buffer belong to the table partition they will be sorted into.
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    cloud.table(DAY_PARTITIONED);
    cloud.insert(1, 0..30);
    cloud.hold_buffer(true);
    cloud.stream(1, 100..120, 1);
    cloud.stream(2, 200..210, 1);
    cloud.backup(&[]).expect(0);
    cloud.verify_full(0);
    cloud.stream(1, 300..307, 1);
    cloud.stream(3, 400..403, 1);
    let summary = cloud.verify_full(0);
    assert_eq!(part(&summary, "20251101")["state"], "changed", "{summary}");
    assert_eq!(part(&summary, "20251103")["state"], "new");
    cloud.hold_buffer(false);
    cloud.verify_full(0);
    cloud.verify(&["--tier", "count"]).expect(0);
    cloud.falsify("20251102", |rows| changed(rows, &[], &[], &[203]));
    assert_eq!(part(&cloud.verify_full(4), "20251102")["state"], "different");

    // By ingestion time: they have none yet, and move.
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    cloud.table(r#"{"timePartitioning": {"type": "DAY"}}"#);
    cloud.table_named("source", "{}");
    cloud.append_to("20251101", 0..40);
    cloud.hold_buffer(true);
    cloud.stream(1, 100..120, 1);
    cloud.backup(&[]).expect(0);
    cloud.verify_full(0);
    cloud.hold_buffer(false);
    let summary = cloud.verify_full(0);
    assert_eq!(part(&summary, "__UNPARTITIONED__")["state"], "changed", "{summary}");
    cloud.backup(&[]).expect(0);
    cloud.verify_full(0);
}

/// Hashes or JSON values of the table's rows, verified whole.
fn kept(layout: &str) -> Logs {
    let logs = Logs::plain(&HASHES.replace("hash", layout));
    logs.cloud.insert(1, 0..600);
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    let summary = logs.cloud.verify_full(0);
    assert_eq!(summary["tables"][0]["rows_compared"], 600, "{summary}");
    logs
}

/// Gives a row another name, or what cannot be read back.
fn spoil(connection: &mut redis::Connection, layout: &str, key: &str, value: &str) {
    if layout == "hash" {
        let field = if value == "another" { "name" } else { "ts" };
        let _: () = connection.hset(key, field, value).unwrap();
        return;
    }
    let text: String = connection.get(key).unwrap();
    let named = text.replace("name ", "another ");
    let text = if value == "another" { &named } else { &text[1..] };
    let _: () = connection.set(key, text).unwrap();
}

#[test]
fn every_row_of_an_application_that_differs_is_named() {
    for layout in ["hash", "json"] {
        let logs = kept(layout);
        let cloud = &logs.cloud;
        let mut connection = cloud.connection();
        let mut numbers = Numbers(3);
        for count in [1, 2, 50] {
            let keys: Vec<String> =
                numbers.some(3 * count, 600).iter().map(|id| format!("log:{id}")).collect();
            let (gone, rest) = keys.split_at(count);
            let (other, broken) = rest.split_at(count);
            for key in gone {
                let _: () = connection.del(key).unwrap();
            }
            for key in other {
                spoil(&mut connection, layout, key, "another");
            }
            for key in broken {
                spoil(&mut connection, layout, key, "\u{1}");
            }
            let more: Vec<String> = (0..count).map(|id| format!("log:{}", 9_000 + id)).collect();
            for key in &more {
                let ts = "2025-11-01T00:00:00Z";
                if layout == "hash" {
                    let _: () =
                        connection.hset_multiple(key, &[("name", "x"), ("ts", ts)]).unwrap();
                } else {
                    let _: () =
                        connection.set(key, json!({"name": "x", "ts": ts}).to_string()).unwrap();
                }
            }
            let summary = cloud.verify_full(4);
            let named = |what: &str| cloud.found(what, "key");
            let set = |keys: &[String]| keys.iter().cloned().collect::<BTreeSet<_>>();
            assert_eq!(named("unreadable"), set(broken), "{summary}");
            assert_eq!(named("different"), set(other));
            // What cannot be read back lacks in Redis, too.
            assert_eq!(named("missing_in_redis"), set(&[gone, broken].concat()));
            assert_eq!(named("missing_in_bigquery"), set(&more));
            assert!(!summary.to_string().contains("another"), "a value is shown: {summary}");
            let ran =
                cloud.verify(&["--tier", "full", "--repair", "--dry-run"]).expect(4).summary();
            assert!(
                ran["repair"]["left"].to_string().contains("its rows are the application's"),
                "{ran}"
            );
            let _: () = connection.del(&more).unwrap();
            logs.rebuild().expect(0);
            cloud.verify_full(0);
        }
    }
}

#[test]
fn samples_of_rows_are_shares_that_together_are_all() {
    let logs = kept("hash");
    let mut connection = logs.cloud.connection();
    for id in 0..30 {
        let _: () = connection.hset(format!("log:{}", id * 19), "name", "other").unwrap();
    }
    let (mut found, mut compared) = (BTreeSet::new(), 0);
    for seed in 0..6 {
        let seed = seed.to_string();
        let summary = logs.cloud.verify(&["--sample", "100", "--seed", &seed]).summary();
        compared += summary["tables"][0]["rows_compared"].as_u64().unwrap();
        let some = logs.cloud.found("different", "key");
        assert!(some.len() < 20, "seed {seed}: {some:?}");
        found.extend(some);
    }
    assert_eq!((found.len(), compared), (30, 600));
    logs.cloud.verify(&["--tier", "count"]).expect(0);
}

#[test]
fn entries_of_streams_are_compared_as_many_times_as_they_are_there() {
    let logs = Logs::plain(STREAM);
    let cloud = &logs.cloud;
    for ids in [0..300, 5..6, 5..6] {
        cloud.insert(1, ids.clone());
        logs.append("log:stream", ids);
    }
    cloud.backup(&[]).expect(0);
    let summary = cloud.verify_full(0);
    assert_eq!(summary["tables"][0]["rows_compared"], 302, "{summary}");
    logs.append("log:stream", 5..7);
    let rows =
        |summary: &Value, sort: &str| summary["tables"][0]["rows"]["rows"][sort]["rows"].clone();
    let summary = cloud.verify_full(4);
    assert_eq!(rows(&summary, "missing_in_bigquery"), 2, "{summary}");
    cloud.insert(1, 5..7);
    cloud.verify_full(0);
    let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(&["log:stream", "-", "+", "COUNT", "3"])
        .query(&mut cloud.connection())
        .unwrap();
    for (id, _) in entries {
        let deleted: u64 =
            redis::cmd("XDEL").arg("log:stream").arg(id).query(&mut cloud.connection()).unwrap();
        assert_eq!(deleted, 1);
    }
    let summary = cloud.verify_full(4);
    assert_eq!(rows(&summary, "missing_in_redis"), 3, "{summary}");
    cloud.verify(&["--tier", "count"]).expect(4);
}

#[test]
fn an_application_that_writes_meanwhile_is_not_called_different() {
    let logs = kept("hash");
    let cloud = &logs.cloud;
    let mut connection = cloud.connection();
    for _ in 0..3 {
        let mut child = cloud
            .command(&["verify", "bigquery", "--json", "--progress", "none", "--tier", "full"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut turn = 0;
        while child.try_wait().unwrap().is_none() {
            turn += 1;
            let (id, name) = (turn * 7 % 600, format!("turn {turn}"));
            cloud.sql(&format!("UPDATE d.t SET name = '{name}' WHERE id = {id}"));
            let _: () = connection.hset(format!("log:{id}"), "name", &name).unwrap();
            cloud.sql(&format!(
                "INSERT INTO d.t (id, name, ts) VALUES ({}, 'x', NULL)",
                10_000 + turn
            ));
            let _: () = connection.hset(format!("log:{}", 10_000 + turn), "name", "x").unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "after {turn} turns: {text}");
        cloud.sql("DELETE FROM d.t WHERE id >= 10000");
        let keys: Vec<String> = connection.keys("log:10???").unwrap();
        if !keys.is_empty() {
            let _: () = connection.del(&keys).unwrap();
        }
    }
}

#[test]
fn rows_that_have_expired_are_not_expected() {
    let logs = Logs::plain(&format!("{HASHES}ttl = \"3650d\"\nttl_from = \"ts\"\n"));
    logs.cloud.insert(1, 0..20);
    logs.cloud.sql(
        "INSERT INTO d.t (id, name, ts) VALUES (77, 'old', TIMESTAMP '2001-01-01 00:00:00+00:00')",
    );
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    logs.cloud.verify_full(0);
    let _: () = logs.cloud.connection().del("log:7").unwrap();
    logs.cloud.verify_full(4);
    assert_eq!(logs.cloud.found("missing_in_redis", "key"), ["log:7".to_owned()].into());
}
