//! `verify redis` of routes that read BigQuery: a table in table partitions, and a query whose result is staged.

use super::{DAYS, Logs};
use crate::world::Ran;
use serde_json::Value;

fn verify(logs: &Logs, more: &[&str]) -> Ran {
    let words = ["verify", "redis", "--json", "--progress", "none", "--settle", "20ms"];
    logs.run(&[&words[..], more].concat())
}

fn counts(summary: &Value) -> [u64; 4] {
    ["missing", "different_value", "unexplained", "rows"]
        .map(|name| summary[name].as_u64().unwrap_or(0))
}

const QUERY: &str = r#"
[[route]]
name = "per-day"
query = "SELECT id, line FROM logs.days WHERE id < 5"
from = "bigquery"
key = "few:{id}"
type = "json"
on_collision = "error"
"#;

#[test]
fn damage_of_keys_that_come_from_bigquery_is_found_and_mended() {
    let logs = Logs::new();
    logs.days(3, 200);
    logs.plan(&[DAYS, QUERY].concat());
    logs.rebuild(&[]).expect(0);
    for tier in ["count", "sample", "full"] {
        let summary = verify(&logs, &["--tier", tier]).expect(0).summary();
        assert_eq!(
            (&summary["status"], counts(&summary)),
            (&"pass".into(), [0, 0, 0, 608]),
            "{tier}"
        );
    }
    // GIVEN a flipped, a lost and an added key, and rows that changed since, one of them with its key
    logs.redis(&["HSET", "log:1", "line", "other"]);
    logs.redis(&["DEL", "few:2", "log:3"]);
    logs.redis(&["SET", "log:9999", "x"]);
    logs.query("UPDATE logs.days SET line = 'new' WHERE id IN (4, 5)");
    logs.redis(&["HSET", "log:4", "line", "new"]);
    // WHEN the rows are read again THEN what differs are six keys: the one in step is not among them
    let shown = verify(&logs, &["--tier", "full", "--repair", "--dry-run"]).expect(4).summary();
    assert_eq!(counts(&shown), [2, 3, 1, 608], "{shown:#}");
    let done = verify(&logs, &["--tier", "full", "--repair"]).expect(4).summary();
    assert_eq!(
        (counts(&done), &done["repair"]["written"]),
        ([0, 0, 1, 608], &5.into()),
        "{done:#}"
    );
    assert_eq!(logs.redis(&["HGET", "log:5", "line"]), "new");
    assert_eq!(logs.redis(&["GET", "few:4"]), r#"{"line":"new"}"#);
    assert_eq!(logs.redis(&["GET", "log:9999"]), "x");
    // Nothing that was made for a query stays.
    let staged = logs.get("bigquery/v2/projects/p/datasets/staging/tables");
    assert_eq!(staged["totalItems"].as_u64().unwrap_or(0), 0, "{staged}");
}
