//! Streams rebuilt from BigQuery: one of each table partition, continued at the same time after a kill.
//!
//! Invariant: what must be in Redis is asked of the stand-in by a query.

use super::Logs;
use crate::streams::{assert_streams, held_at};
use crate::world::wait_until;
use serde_json::json;

const ROUTE: &str = "[[route]]\nname = \"days\"\ntable = \"bigquery:logs.days\"\nkey = \"day\"\ntype = \"stream\"\n\
    use = [\"rebuild\"]\ncolumns = [\"id\"]\n";

impl Logs {
    /// Every row as its entry, sorted.
    fn wanted(&self) -> Vec<String> {
        let sql = "SELECT id FROM logs.days";
        let body = json!({"query": sql, "useLegacySql": false, "location": "us-central1", "maxResults": 100_000});
        let reply = self.post("bigquery/v2/projects/p/queries", &body);
        let rows = reply["rows"].as_array().unwrap();
        assert_eq!(reply["totalRows"], rows.len().to_string(), "a page is missing");
        let text = |row: &serde_json::Value| format!("id={}", row["f"][0]["v"].as_str().unwrap());
        let mut rows: Vec<String> = rows.iter().map(text).collect();
        rows.sort();
        rows
    }
}

#[test]
fn each_table_partition_makes_a_stream_and_a_killed_run_goes_on_with_those_that_are_left() {
    // GIVEN three days and rows without one, and streams of an earlier run that had more
    let logs = Logs::new();
    logs.days(3, 4_000);
    logs.plan(ROUTE);
    for number in 0..9 {
        logs.redis(&["XADD", &format!("day:{number}"), "1-0", "stale", "1"]);
    }
    // WHEN a run is killed with some of its streams whole
    logs.fault("ReadRows", "delay_ms:200", 0, 1_000);
    let mut child = logs.start_rebuild(&["--lanes", "1"]);
    let whole = || {
        let keys = logs.redis(&["--scan", "--pattern", "day:*"]);
        let length = |key: &str| logs.redis(&["XLEN", key]).parse::<u64>().unwrap();
        keys.lines().filter(|key| length(key) > 1).count()
    };
    wait_until("a stream", || whole() >= 1);
    child.kill().unwrap();
    child.wait().unwrap();
    logs.no_faults();
    // THEN it goes on, reads no finished table partition again, and every row is there once
    let before = held_at_streams(&logs);
    let summary = logs.rebuild(&["--lanes", "2"]).expect(0).summary();
    assert_eq!((&summary["resumed"], &summary["rows"]), (&json!(1), &json!(12_003)), "{summary}");
    let held = held_at(logs.redis.port());
    let wanted = logs.wanted();
    assert_streams(&held, "day:", &wanted);
    assert!(held.len() >= 4, "{} streams", held.len());
    assert!(!before.is_empty() && before.iter().all(|(key, entries)| held[key] == *entries));
    // AND both ends agree
    let verify =
        ["verify", "redis", "--json", "--progress", "none", "--settle", "20ms", "--tier", "full"];
    let told = logs.run(&verify).expect(0).summary();
    assert_eq!(told["compared"], 12_003, "{told}");
    logs.redis(&["XDEL", "day:1", "3-0"]);
    let told = logs.run(&verify).expect(4).summary();
    assert_eq!((&told["missing"], &told["unexplained"]), (&json!(1), &json!(0)), "{told}");
    assert_eq!(told["routes"][0]["examples"][0]["entry"], "3-0", "{told}");
    // AND a table that changed since is read anew
    logs.query("DELETE FROM logs.days WHERE id >= 8000 AND id < 12000");
    logs.rebuild(&[]).expect(0);
    assert_streams(&held_at(logs.redis.port()), "day:", &logs.wanted());
}

/// The streams that are whole, without the mark of the run.
fn held_at_streams(logs: &Logs) -> Vec<(String, Vec<(String, String)>)> {
    let keys = logs.redis(&["--scan", "--pattern", "day:*"]);
    let mark = logs.redis(&["GETDEL", "rekindle:run"]);
    let held = held_at(logs.redis.port());
    logs.redis(&["SET", "rekindle:run", &mark]);
    held.into_iter().filter(|(key, _)| keys.lines().any(|found| found == key)).collect()
}
