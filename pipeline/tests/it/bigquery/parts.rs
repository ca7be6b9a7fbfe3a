//! Parts of JSON columns of BigQuery, and rows of BigQuery beside keys that an application wrote.
//!
//! Invariant: what must be in Redis is written by hand.

use super::Logs;
use serde_json::{Value, json};

const PATHS: &str = "columns = [{ field = \"ref\", column = \"meta\", path = \"$.git.ref\" }, \
    { field = \"n\", column = \"meta\", path = '$[\"git\"].n' }, { field = \"tag\", column = \"meta\", path = \"$.tags[1]\" }, \
    { field = \"all\", column = \"meta\", path = \"$\" }, { field = \"v\", value = \"1\" }]\n";

fn route(name: &str, layout: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\ntable = \"bigquery:logs.docs\"\nkey = \"{name}:{{id}}\"\n\
         type = \"{layout}\"\non_collision = \"error\"\n{more}"
    )
}

/// Four documents: nested, with JSON's null, without anything, and of another shape.
fn documents() -> Logs {
    let logs = Logs::new();
    let fields = json!([{"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
        {"name": "meta", "type": "JSON"}, {"name": "plain", "type": "STRING"}]);
    logs.table("docs", &fields, &json!({}));
    let row =
        |id: u32, meta: Option<&str>| json!({"id": id.to_string(), "meta": meta, "plain": "x"});
    logs.insert(
        "docs",
        vec![
            row(1, Some(r#"{"git":{"n":1.5,"ref":"maïn \"x\""},"tags":["a",{"k":[1,null]}]}"#)),
            row(2, Some(r#"{"git":{"ref":null}}"#)),
            row(3, None),
            row(4, Some(r#"{"git":"ref","tags":{}}"#)),
        ],
    );
    logs
}

fn hash(logs: &Logs, key: &str) -> Value {
    serde_json::from_str(&logs.redis(&["--json", "HGETALL", key])).unwrap()
}

#[test]
fn a_field_may_be_a_part_of_a_json_column() {
    let logs = documents();
    let with_null = |null: &str| format!("null = \"{null}\"\nrejects_max = 4\n{PATHS}");
    logs.plan(
        &[
            route("h", "hash", PATHS),
            route("j", "json", PATHS),
            route("he", "hash", &with_null("empty")),
            route("je", "json", &with_null("empty")),
            route("no", "hash", &with_null("error")),
        ]
        .concat(),
    );
    let summary = logs.rebuild(&[]).expect(0).summary();
    let first = r#"{"git":{"n":1.5,"ref":"maïn \"x\""},"tags":["a",{"k":[1,null]}]}"#;
    let fields = json!({"all": first, "n": "1.5", "ref": "maïn \"x\"", "tag": r#"{"k":[1,null]}"#, "v": "1"});
    for name in ["h", "he", "no"] {
        assert_eq!(hash(&logs, &format!("{name}:1")), fields);
    }
    let object =
        format!(r#"{{"ref":"maïn \"x\"","n":1.5,"tag":{{"k":[1,null]}},"all":{first},"v":"1"}}"#);
    for name in ["j", "je"] {
        assert_eq!(logs.redis(&["GET", &format!("{name}:1")]), object);
    }
    // An absent path and JSON's null are the same: nothing, an empty text, null, or no row.
    assert_eq!(hash(&logs, "h:2"), json!({"all": r#"{"git":{"ref":null}}"#, "v": "1"}));
    assert_eq!(hash(&logs, "h:3"), json!({"v": "1"}));
    assert_eq!(hash(&logs, "h:4"), json!({"all": r#"{"git":"ref","tags":{}}"#, "v": "1"}));
    assert_eq!(logs.redis(&["GET", "j:3"]), r#"{"v":"1"}"#);
    let empty = json!({"ref": "", "n": "", "tag": "", "all": "", "v": "1"});
    assert_eq!(hash(&logs, "he:3"), empty);
    let nulls = r#"{"ref":null,"n":null,"tag":null,"all":null,"v":"1"}"#;
    assert_eq!(logs.redis(&["GET", "je:3"]), nulls);
    assert_eq!(
        logs.redis(&["GET", "je:2"]),
        r#"{"ref":null,"n":null,"tag":null,"all":{"git":{"ref":null}},"v":"1"}"#
    );
    let rejects: Vec<&Value> =
        summary["routes"].as_array().unwrap().iter().map(|route| &route["rejects"]).collect();
    assert_eq!(rejects, [0, 0, 0, 0, 3]);
    assert_eq!(logs.entries(), 4 * 4 + 1);
    // A verification reads the same parts.
    logs.run(&[
        "verify",
        "redis",
        "--tier",
        "full",
        "--progress",
        "none",
        "--route",
        "h",
        "--route",
        "j",
    ])
    .expect(0);
    logs.plan(&route("h", "hash", &PATHS.replace("\"meta\"", "\"plain\"")));
    logs.rebuild(&["--fresh"])
        .expect(2)
        .says(&["column plain has type STRING", "a path goes with"]);
}

#[test]
fn a_key_that_an_application_wrote_newer_stays() {
    let logs = Logs::new();
    let fields = json!([{"name": "id", "type": "INTEGER", "mode": "REQUIRED"}, {"name": "seq", "type": "INTEGER"},
        {"name": "at", "type": "TIMESTAMP"}, {"name": "line", "type": "STRING"}]);
    logs.table("docs", &fields, &json!({}));
    let row = |id: u64| {
        let at =
            (!id.is_multiple_of(9)).then(|| format!("2026-11-01T00:00:{:02}.000001Z", id % 60));
        json!({"id": id.to_string(), "seq": "9007199254740993", "at": at, "line": format!("row {id}")})
    };
    logs.insert("docs", (0..200).map(row).collect());
    let newest = |column: &str| format!("on_conflict = \"newest\"\nversion_by = \"{column}\"\n");
    logs.plan(&[route("seq", "hash", &newest("seq")), route("at", "json", &newest("at"))].concat());
    // GIVEN keys of an application: newer by one, older by one, the same, and without a version
    for (id, seq) in [(1, "9007199254740994"), (2, "9007199254740992"), (3, "9007199254740993")] {
        logs.redis(&["HSET", &format!("seq:{id}"), "seq", seq, "line", "mine", "stale", "1"]);
    }
    logs.redis(&["HSET", "seq:4", "line", "mine"]);
    for (id, at) in [
        (1, "2026-11-01T00:00:01.000002Z"),
        (2, "2026-11-01T00:00:02Z"),
        (3, "2026-11-01T00:00:03.000001Z"),
        (9, "1970-01-01T00:00:00Z"),
    ] {
        logs.redis(&[
            "SET",
            &format!("at:{id}"),
            &format!("{{\"line\":\"mine\",\"at\":\"{at}\"}}"),
        ]);
    }
    // WHEN it is rebuilt, twice
    for _ in 0..2 {
        let summary = logs.rebuild(&[]).expect(0).summary();
        // THEN the newer ones stay, those beside a row without a version too, and everything else is the row's
        let kept: Vec<&Value> =
            summary["routes"].as_array().unwrap().iter().map(|route| &route["kept"]).collect();
        assert_eq!(kept, [1, 2], "{summary}");
        assert_eq!(hash(&logs, "seq:1")["line"], "mine");
        for id in [2, 3, 4, 5] {
            let found = hash(&logs, &format!("seq:{id}"));
            assert_eq!(
                (&found["line"], &found["stale"]),
                (&json!(format!("row {id}")), &Value::Null)
            );
        }
        let line = |id: u64| -> Value {
            serde_json::from_str(&logs.redis(&["GET", &format!("at:{id}")])).unwrap()
        };
        for (id, text) in [(1, "mine"), (2, "row 2"), (3, "row 3"), (9, "mine"), (18, "row 18")] {
            assert_eq!(line(id)["line"], text, "{id}");
        }
        assert_eq!(logs.entries(), 400);
    }
    // AND a verification takes the newer ones for no difference
    logs.run(&["verify", "redis", "--tier", "full", "--progress", "none"]).expect(0);
}
