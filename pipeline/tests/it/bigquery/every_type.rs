//! Every type of BigQuery in a hash and in JSON.
//!
//! Invariant: what Redis must hold is written by hand.

use super::Logs;
use fixtures::servers::RedisOptions;
use serde_json::{Value, json};

fn every_type_fields() -> Value {
    json!([
        {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
        {"name": "s", "type": "STRING"},
        {"name": "by", "type": "BYTES"},
        {"name": "f", "type": "FLOAT"},
        {"name": "n", "type": "NUMERIC"},
        {"name": "bn", "type": "BIGNUMERIC"},
        {"name": "b", "type": "BOOLEAN"},
        {"name": "d", "type": "DATE"},
        {"name": "t", "type": "TIME"},
        {"name": "dt", "type": "DATETIME"},
        {"name": "ts", "type": "TIMESTAMP"},
        {"name": "j", "type": "JSON"},
        {"name": "g", "type": "GEOGRAPHY"},
        {"name": "labels", "type": "RECORD", "mode": "REPEATED", "fields": [
            {"name": "k", "type": "STRING"},
            {"name": "v", "type": "INTEGER", "mode": "REPEATED"},
        ]},
        {"name": "r", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
    ])
}

fn every_type_row() -> Value {
    json!({
        "id": "1", "s": "grüße \"q\"", "by": "AP8Q", "f": -0.5, "n": "-12.500000001",
        "bn": "0.00000000000000000000000000000000000001", "b": true, "d": "2026-11-03",
        "t": "04:05:06.789", "dt": "2026-11-03T04:05:06", "ts": "2026-11-03T04:05:06.000007Z",
        "j": "{\"a\":[1,null]}", "g": "POINT(1 2)",
        "labels": [{"k": "x", "v": ["1", "2"]}, {"k": null, "v": []}],
        "r": "[2026-01-01, UNBOUNDED)",
    })
}

/// What the row is in a hash, by hand.
const EVERY_TYPE: [(&str, &str); 14] = [
    ("s", "grüße \"q\""),
    ("by", "AP8Q"),
    ("f", "-0.5"),
    ("n", "-12.500000001"),
    ("bn", "0.00000000000000000000000000000000000001"),
    ("b", "true"),
    ("d", "2026-11-03"),
    ("t", "04:05:06.789000"),
    ("dt", "2026-11-03T04:05:06"),
    ("ts", "2026-11-03T04:05:06.000007Z"),
    ("j", "{\"a\":[1,null]}"),
    ("g", "POINT(1 2)"),
    ("labels", "[{\"k\":\"x\",\"v\":[1,2]},{\"k\":null,\"v\":[]}]"),
    ("r", "[2026-01-01, UNBOUNDED)"),
];

#[test]
fn every_type_arrives_in_hashes_and_json() {
    // GIVEN a row of every type that streaming inserts take, and a row of nulls
    let logs = Logs::new();
    logs.table("all", &every_type_fields(), &json!({}));
    logs.insert("all", vec![every_type_row(), json!({"id": "2"})]);
    let route = |layout: &str| {
        format!(
            "[[route]]\nname = \"{layout}\"\ntable = \"bigquery:logs.all\"\nkey = \"{layout}:{{id}}\"\n\
             type = \"{layout}\"\non_collision = \"error\"\n"
        )
    };
    logs.plan(&[route("hash"), route("json")].concat());
    // WHEN both layouts are rebuilt
    let summary = logs.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["rows"], 4, "{summary}");
    // THEN every value has its documented form
    for (field, value) in EVERY_TYPE {
        assert_eq!(logs.redis(&["HGET", "hash:1", field]), value, "{field}");
    }
    // An array is never null in BigQuery, so it is all that a row of nulls carries.
    assert_eq!(logs.redis(&["HGETALL", "hash:2"]), "labels\n[]");
    let object: Value = serde_json::from_str(&logs.redis(&["GET", "json:1"])).unwrap();
    assert_eq!(object["labels"], json!([{"k": "x", "v": [1, 2]}, {"k": null, "v": []}]));
    assert_eq!((&object["j"], &object["b"]), (&json!({"a": [1, null]}), &json!(true)));
    assert_eq!(
        (&object["by"], &object["ts"]),
        (&json!("AP8Q"), &json!("2026-11-03T04:05:06.000007Z"))
    );
}

#[test]
fn every_type_arrives_in_documents() {
    // GIVEN the same row, and one whose numbers no document holds
    let logs = Logs::with(RedisOptions { json_module: true, ..RedisOptions::default() });
    logs.table("all", &every_type_fields(), &json!({}));
    let mut held = every_type_row();
    held["bn"] = json!("-1234567.00000001");
    let mut other = every_type_row();
    (other["id"], other["f"]) = (json!("2"), json!(0.123_456_789_012_345_67));
    logs.insert("all", vec![held, other, json!({"id": "3"})]);
    logs.plan(
        "[[route]]\nname = \"all\"\ntable = \"bigquery:logs.all\"\nkey = \"all:{id}\"\n\
         type = \"redisjson\"\nnull = \"empty\"\non_collision = \"error\"\nrejects_max = 1\n",
    );
    // WHEN it is rebuilt THEN that row is a reject and the others are documents
    let summary = logs.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["written"], &summary["rejects"]), (&json!(2), &json!(1)), "{summary}");
    let read =
        |key: &str| -> Value { serde_json::from_str(&logs.redis(&["JSON.GET", key])).unwrap() };
    assert_eq!(
        read("all:1"),
        json!({
            "s": "grüße \"q\"", "by": "AP8Q", "f": -0.5, "n": -12.500_000_001, "bn": -1_234_567.000_000_01, "b": true,
            "d": "2026-11-03", "t": "04:05:06.789000", "dt": "2026-11-03T04:05:06",
            "ts": "2026-11-03T04:05:06.000007Z", "j": {"a": [1, null]}, "g": "POINT(1 2)",
            "labels": [{"k": "x", "v": [1, 2]}, {"k": null, "v": []}], "r": "[2026-01-01, UNBOUNDED)",
        })
    );
    let nulls = read("all:3");
    assert_eq!((&nulls["f"], &nulls["labels"]), (&Value::Null, &json!([])));
    assert_eq!(nulls.as_object().unwrap().len(), 14);
    logs.run(&["verify", "redis", "--tier", "full", "--progress", "none"]).expect(0);
}
