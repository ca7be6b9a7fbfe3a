//! Row routes against trouble: kills, lost answers, lost spools, losses on either side, a server that evicts.
//!
//! Invariant: whatever happened, a restore that ends 0 leaves the rows that were in Redis, each once.

use crate::app_logs::{HASHES, Logs, STREAM};
use crate::world::wait_until;
use fixtures::servers::RedisOptions;
use redis::Commands;
use serde_json::json;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

fn is_soak() -> bool {
    std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1")
}

#[test]
fn killed_at_random_instants_the_resumed_restore_has_every_row_once() {
    for (routes, is_stream) in [(HASHES, false), (STREAM, true)] {
        let logs = Logs::plain(routes);
        logs.cloud.insert(1, 0..6_000);
        if is_stream {
            logs.append("log:stream", 0..6_000);
        } else {
            logs.rebuild().expect(0);
        }
        logs.cloud.backup(&[]).expect(0);
        let original = logs.rows();
        logs.lose();
        let started = Instant::now();
        logs.restore(&[]).expect(0);
        let whole = started.elapsed();
        let mut seed = RandomState::new().hash_one(());
        println!("seed {seed}, a whole restore takes {whole:?}");
        for round in 0..if is_soak() { 20 } else { 3 } {
            logs.lose();
            fs::remove_dir_all(logs.state()).unwrap();
            let mut kills = 0;
            for _ in 0..=round % 3 {
                let mut child = logs.start_restore(&[]);
                let part = crate::items::random(&mut seed, 100);
                std::thread::sleep(whole.mul_f64(part as f64 / 100.0));
                child.kill().unwrap();
                kills += u32::from(!child.wait().unwrap().success());
            }
            let ran = logs.restore(&[]);
            // Where the last kill came too late the table is there, which the next run refuses.
            if ran.code == Some(2) {
                assert!(ran.stderr.contains("has 6000 rows"), "{kills}: {}", ran.stderr);
            } else {
                ran.expect(0);
            }
            logs.assert_restored(&original);
        }
    }
}

#[test]
fn a_lost_answer_of_any_call_changes_nothing() {
    let logs = Logs::plain(HASHES);
    logs.cloud.insert(1, 0..1_000);
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    let original = logs.rows();
    for method in
        ["CreateWriteStream", "AppendRows", "FinalizeWriteStream", "BatchCommitWriteStreams"]
    {
        for kind in ["drop_after_apply", "drop_before_apply", "throttle"] {
            logs.lose();
            logs.cloud.fault(method, kind, 0, 1);
            logs.cloud.fault(method, kind, 1, 1);
            let ran = logs.restore(&[]);
            assert_eq!(ran.code, Some(0), "{method} {kind}: {}", ran.stderr);
            logs.assert_restored(&original);
            logs.forget_faults();
        }
    }
}

#[test]
fn a_spool_that_is_gone_or_altered_is_noticed_and_the_table_starts_over() {
    let logs = Logs::plain(HASHES);
    logs.cloud.insert(1, 0..500);
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    let original = logs.rows();
    for is_altered in [false, true] {
        logs.lose();
        logs.cloud.fault("AppendRows", "unavailable", 0, 50);
        logs.run(&["restore", "bigquery", "--progress", "none", "--retry-for", "1s"]).expect(3);
        logs.forget_faults();
        let spools = logs.spools();
        assert_eq!(spools.len(), 1, "{spools:?}");
        if is_altered {
            let mut bytes = fs::read(&spools[0]).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&spools[0], bytes).unwrap();
        } else {
            fs::remove_file(&spools[0]).unwrap();
        }
        let summary = logs.restore(&[]).expect(0).summary();
        logs.assert_restored(&original);
        let problem = if is_altered { "it is altered" } else { "it is gone" };
        let warnings = summary["warnings"].to_string();
        assert!(warnings.contains(problem) && warnings.contains("started over"), "{warnings}");
        assert_eq!(summary["resumed"], 1);
    }
}

#[test]
fn keys_that_vanish_before_they_are_read_are_counted_and_told() {
    let logs = Logs::plain(HASHES);
    logs.cloud.insert(1, 0..500);
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    let original = logs.rows();
    logs.lose();
    // The search is over when a write stream is asked for; the rows are read after it was made.
    logs.cloud.fault("CreateWriteStream", "delay_ms:2000", 0, 1);
    let mut child = logs.cloud.command(&["restore", "bigquery", "--json", "--progress", "none"]);
    let child = child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let child = child.spawn().unwrap();
    wait_until("a staging table", || !logs.staging().is_empty());
    let gone: Vec<String> = (100..120).map(|id| format!("log:{id}")).collect();
    let _: () = logs.cloud.connection().del(gone).unwrap();
    let ran = crate::world::Ran::of(&child.wait_with_output().unwrap()).expect(0);
    let summary = ran.summary();
    assert_eq!(summary["rows"], 480, "{summary}");
    assert!(summary["warnings"].to_string().contains("20 rows of d.t were in redis"), "{summary}");
    let found = logs.rows();
    assert_eq!(found.len(), 480);
    assert!(found.iter().all(|row| original.contains(row)));
}

#[test]
fn what_either_side_lost_is_named_by_the_backup() {
    let logs = Logs::plain(HASHES);
    logs.cloud.insert(1, 0..100);
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    let mut connection = logs.cloud.connection();
    let record = |connection: &mut redis::Connection| -> Vec<u8> {
        connection.get("rekindle:rows:rows:run").unwrap()
    };
    let _: () = connection.del(&["log:1", "log:2", "log:3"]).unwrap();
    logs.cloud
        .backup(&[])
        .expect(4)
        .says(&["the duplicate lacks 3 rows", "rekindle rebuild redis --route rows"]);
    let status = logs.run(&["status", "--json"]).expect(0).summary();
    assert_eq!(status["duplicates"][0]["lacking_rows"], 3, "{status}");
    assert!(status["duplicates"][0]["data_as_of"].is_string(), "{status}");
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    // A table that is missing or was made anew leaves the record as it is.
    let good = record(&mut connection);
    logs.lose();
    logs.cloud.backup(&[]).expect(4).says(&["table d.t is missing in bigquery", "--accept-loss"]);
    assert_eq!(record(&mut connection), good);
    logs.cloud.table("{}");
    logs.cloud.backup(&[]).expect(4).says(&["table d.t was made anew in bigquery"]);
    assert_eq!(record(&mut connection), good);
    logs.cloud.insert(1, 0..100);
    logs.cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    assert!(record(&mut connection) != good);
}

#[test]
fn only_rows_that_are_not_to_expire_are_expected() {
    let logs = Logs::plain(&format!("{HASHES}ttl = \"30d\"\nttl_from = \"ts\"\n"));
    logs.cloud.insert(1, 0..50);
    logs.cloud.sql(
        "INSERT INTO d.t (id, name, ts) VALUES (900, 'x', TIMESTAMP '2024-01-01 00:00:00+00:00')",
    );
    logs.cloud.sql("INSERT INTO d.t (id, name, ts) VALUES (901, 'x', NULL)");
    logs.cloud.sql(
        "INSERT INTO d.t (id, name, ts) VALUES (902, 'x', TIMESTAMP '2099-01-01 00:00:00+00:00')",
    );
    logs.rebuild().expect(0);
    let summary = logs.cloud.backup(&[]).expect(0).summary();
    let census = &summary["tables"][0]["census"];
    assert_eq!(census["rows"], census["keys"], "{summary}");
    assert!(census["rows"].as_u64().is_some_and(|rows| (2..53).contains(&rows)), "{summary}");
}

#[test]
fn a_server_that_may_evict_rows_is_refused() {
    let options = RedisOptions {
        maxmemory: Some("100mb".into()),
        maxmemory_policy: Some("allkeys-lru".into()),
        ..RedisOptions::default()
    };
    let logs = Logs::new(options, STREAM);
    logs.cloud.table("{}");
    logs.cloud.insert(1, 0..5);
    logs.append("log:stream", 0..5);
    logs.cloud.backup(&[]).expect(5).says(&["may evict", "allow_eviction"]);
    logs.run(&["check"]).expect(5);
    logs.plan(&format!("allow_eviction = true\n{STREAM}"));
    let summary = logs.cloud.backup(&[]).expect(0).summary();
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("may evict the rows of route rows"), "{warnings}");
    // Keys that expire are what a volatile policy drops.
    logs.cloud.redis.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).unwrap();
    logs.plan(STREAM);
    logs.cloud.backup(&[]).expect(0);
    logs.plan(&format!("{HASHES}expire_at = \"ts\"\n"));
    logs.cloud.backup(&[]).expect(5).says(&["may evict the rows of route rows"]);
}

#[test]
fn without_a_record_the_table_that_stands_tells_the_columns() {
    let logs = Logs::plain(STREAM);
    logs.cloud.insert(1, 0..300);
    logs.append("log:stream", 0..300);
    let original = logs.rows();
    logs.restore(&["--replace"])
        .expect(4)
        .says(&["rekindle:rows:rows:run is missing", "--from-scan"]);
    logs.cloud.sql("TRUNCATE TABLE d.t");
    let summary = logs.restore(&["--from-scan"]).expect(0).summary();
    logs.assert_restored(&original);
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("the recorded table is lost"), "{warnings}");
    assert_eq!(summary["data_as_of"], json!(null));
    logs.lose();
    logs.restore(&["--from-scan"]).expect(2).says(&["nobody knows its columns"]);
}
