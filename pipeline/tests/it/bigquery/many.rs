//! Keys of many rows from BigQuery, whose rows come in no order: sorted on disk, grouped, verified and repaired.
//!
//! Invariant: what Redis must hold is made here from the numbers that the rows are made from.

use super::{Logs, REBUILD};
use crate::items::{Reply, Wire};
use crate::world::wait_until;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Rows of the table: with what pads them they are more than is sorted in memory at once.
const ROWS: u64 = 24_000;
/// Bytes that pad a row.
const PAD: usize = 1_800;

/// Key to its elements: in order where it is a list, else sorted.
type Held = BTreeMap<String, Vec<String>>;

/// Half of the rows belong to one repository.
fn repo(n: u64) -> u64 {
    if n.is_multiple_of(2) { 0 } else { n % 301 }
}

/// Every tenth row has no branch; the empty one is one of them.
fn branch(n: u64) -> Option<String> {
    (n % 10 != 3).then(|| if n % 10 == 5 { String::new() } else { format!("größe {}", n % 7) })
}

fn started(n: u64) -> u64 {
    1_700_000_000 + n * 7_919 % 5_000
}

fn filled() -> Logs {
    let logs = Logs::new();
    let fields = json!([{"name": "id", "type": "INTEGER"}, {"name": "repo", "type": "INTEGER"},
        {"name": "branch", "type": "STRING"}, {"name": "started", "type": "TIMESTAMP"},
        {"name": "day", "type": "DATE"}, {"name": "pad", "type": "STRING"}]);
    let by_day = json!({"timePartitioning": {"type": "DAY", "field": "day"}});
    logs.table("builds", &fields, &by_day);
    let pad = "x".repeat(PAD);
    for chunk in 0..ROWS / 2_000 {
        let row = |n: u64| {
            json!({"id": n.to_string(), "repo": repo(n).to_string(), "branch": branch(n), "started": started(n),
                "day": format!("2026-11-{:02}", 1 + n % 5), "pad": format!("{pad}{}", n % 4)})
        };
        logs.insert("builds", (chunk * 2_000..(chunk + 1) * 2_000).map(row).collect());
    }
    logs
}

const ROUTES: &str = r#"
[[route]]
name = "by-repo"
table = "bigquery:logs.builds"
key = "repo:{repo}"
type = "zset"
member = "{id}"
score = "started"
[[route]]
name = "branches"
table = "bigquery:logs.builds"
key = "branches:{repo}"
type = "set"
member = "{branch}"
null = "empty"
[[route]]
name = "latest"
table = "bigquery:logs.builds"
where = "id < 20000"
key = "latest:{repo}"
type = "list"
member = "{id}"
order_by = "started|desc"
[[route]]
name = "padded"
query = "SELECT repo, branch, id, pad FROM logs.builds"
from = "bigquery"
key = "pad:{repo}"
type = "hash"
member = "{branch}"
columns = ["pad"]
on_collision = "last"
order_by = "id"
"#;

fn wanted() -> Held {
    let mut held = Held::new();
    let mut lists: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    let mut last: BTreeMap<(u64, String), u64> = BTreeMap::new();
    for n in 0..ROWS {
        held.entry(format!("repo:{}", repo(n))).or_default().push(format!("{n}|{}", started(n)));
        held.entry(format!("branches:{}", repo(n)))
            .or_default()
            .push(branch(n).unwrap_or_default());
        if n < 20_000 {
            lists.entry(repo(n)).or_default().push((started(n), n));
        }
        if let Some(branch) = branch(n) {
            last.insert((repo(n), branch), n);
        }
    }
    for ((repo, branch), n) in last {
        let of_repo = held.entry(format!("pad:{repo}")).or_default();
        of_repo.push(format!("{branch}|{}{}", "x".repeat(PAD), n % 4));
    }
    for elements in held.values_mut() {
        elements.sort();
        elements.dedup();
    }
    for (repo, mut rows) in lists {
        // The newest first; of one second in the order of the numbers.
        rows.sort_by_key(|(started, n)| (std::cmp::Reverse(*started), *n));
        held.insert(format!("latest:{repo}"), rows.iter().map(|(_, n)| n.to_string()).collect());
    }
    held
}

fn held(logs: &Logs) -> Held {
    let mut wire = Wire::to(logs.redis.port());
    let keys: Vec<String> =
        wire.ask(&["KEYS", "*"]).list().into_iter().map(|key| key.text().unwrap()).collect();
    let read = |key: &String| -> Vec<String> {
        let words: &[&str] = match key.split(':').next().unwrap() {
            "repo" => &["ZRANGE", key, "0", "-1", "WITHSCORES"],
            "branches" => &["SMEMBERS", key],
            "latest" => &["LRANGE", key, "0", "-1"],
            "pad" => &["HGETALL", key],
            other => panic!("{other} is of no route"),
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    };
    let mut found = Held::new();
    for keys in keys.chunks(100) {
        let asks: Vec<Vec<String>> = keys.iter().map(read).collect();
        for (key, value) in keys.iter().zip(wire.pipeline(&asks)) {
            let words: Vec<String> =
                value.list().into_iter().map(|word| word.text().unwrap()).collect();
            let mut elements: Vec<String> = if key.starts_with("repo:") || key.starts_with("pad:") {
                words.chunks(2).map(|pair| pair.join("|")).collect()
            } else {
                words
            };
            if !key.starts_with("latest:") {
                elements.sort();
            }
            found.insert(key.clone(), elements);
        }
    }
    found
}

/// Asserts equality without printing megabytes.
#[track_caller]
fn assert_held(logs: &Logs, wanted: &Held) {
    let found = held(logs);
    let keys = wanted.keys().chain(found.keys());
    let differing: Vec<&String> =
        keys.filter(|key| wanted.get(*key) != found.get(*key)).take(4).collect();
    assert!(differing.is_empty(), "{differing:?} of {} and {}", wanted.len(), found.len());
}

fn of_route<'a>(summary: &'a Value, name: &str) -> &'a Value {
    crate::carried::of_route(summary, name)
}

#[test]
fn rows_without_an_order_become_whole_keys_are_verified_and_repaired() {
    let logs = filled();
    logs.plan(ROUTES);
    let plan = logs.run(&["plan", "--json"]).expect(0).summary();
    assert_eq!(plan["routes"][0]["cut"], "whole, sorted here", "{plan}");
    let sample = logs.run(&["plan", "--sample", "1"]).expect(0);
    assert!(sample.stdout.contains("ZADD repo:"), "{}", sample.stdout);
    // WHEN it is rebuilt THEN keys hold what their rows say, lists in order, in bounded memory
    let summary = logs.rebuild(&["--lanes", "2"]).expect(0).summary();
    let wanted = wanted();
    assert_held(&logs, &wanted);
    for (name, rows) in
        [("by-repo", ROWS), ("branches", ROWS), ("latest", 20_000), ("padded", ROWS)]
    {
        let counts = of_route(&summary, name);
        assert_eq!((&counts["rows"], &counts["written"]), (&rows.into(), &rows.into()), "{counts}");
    }
    let members: u64 = wanted
        .iter()
        .filter(|(key, _)| key.starts_with("branches:"))
        .map(|(_, all)| all.len() as u64)
        .sum();
    assert_eq!(of_route(&summary, "branches")["folded"], ROWS - members);
    let peak = summary["peak_rss_bytes"].as_u64().unwrap();
    let bound = plan["memory_bound_bytes"].as_u64().unwrap();
    println!("peak {peak}, bound {bound}");
    assert!(peak <= bound, "{peak} > {bound}");
    // AND nothing that was sorted stays, and once more is the same
    let sorted = logs.folder.path().join(".rekindle/sorted");
    assert!(!sorted.exists() || std::fs::read_dir(sorted).unwrap().next().is_none());
    let again = logs.rebuild(&[]).expect(0).summary();
    assert_eq!(of_route(&again, "padded")["digest"], of_route(&summary, "padded")["digest"]);
    assert_held(&logs, &wanted);
    // WHEN keys are damaged THEN they are named and written again, and no other
    logs.redis(&["ZREM", "repo:0", "2"]);
    logs.redis(&["LTRIM", "latest:0", "1", "-1"]);
    logs.redis(&["DEL", "branches:7", "pad:9"]);
    let verify = |more: &[&str]| {
        let words = [
            "verify",
            "redis",
            "--json",
            "--progress",
            "none",
            "--settle",
            "20ms",
            "--tier",
            "full",
        ];
        logs.run(&[&words[..], more].concat())
    };
    let shown = verify(&["--repair", "--dry-run"]).expect(4).summary();
    let of = |name: &str| shown[name].as_u64().unwrap();
    assert_eq!([of("missing"), of("different_value"), of("unexplained")], [2, 2, 0], "{shown:#}");
    let done = verify(&["--repair"]).expect(0).summary();
    assert_eq!(done["repair"]["written"], 4, "{done:#}");
    assert_held(&logs, &wanted);
}

#[test]
fn a_kill_while_rows_are_sorted_or_written_leaves_whole_keys_after_the_resume() {
    let logs = filled();
    logs.plan(&ROUTES.replace(
        "on_collision = \"last\"\norder_by = \"id\"\n",
        "on_collision = \"last\"\norder_by = \"id\"\npriority = 1\n",
    ));
    let sorted = logs.folder.path().join(".rekindle/sorted");
    let files = || std::fs::read_dir(&sorted).map_or(0, Iterator::count);
    let mut wire = Wire::to(logs.redis.port());
    // GIVEN a run that dies while it sorts, and one that dies while it writes
    for is_sorting in [true, false] {
        let mut child = logs.command(&[&REBUILD[..], &["--lanes", "1"]].concat()).spawn().unwrap();
        wait_until("the moment", || {
            let is_there = if is_sorting {
                files() > 0
            } else {
                matches!(wire.ask(&["DBSIZE"]), Reply::Number(size) if size > 50)
            };
            is_there || child.try_wait().unwrap().is_some()
        });
        assert!(child.try_wait().unwrap().is_none(), "it ended first");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // WHEN a row changes and the run is resumed THEN every key is whole, as of the time that the run began to read
    logs.query("DELETE FROM logs.builds WHERE id = 2");
    let summary = logs.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["resumed"], 2, "{summary}");
    assert_held(&logs, &wanted());
}

#[test]
fn members_with_two_scores_end_the_run_by_the_name_of_their_key() {
    let logs = Logs::new();
    let fields = json!([{"name": "k", "type": "INTEGER"}, {"name": "m", "type": "STRING"}, {"name": "v", "type": "NUMERIC"}]);
    logs.table("t", &fields, &json!({}));
    logs.insert(
        "t",
        (0..9_u64).map(|n| json!({"k": n % 2, "m": "m", "v": (n % 2).to_string()})).collect(),
    );
    let route = "[[route]]\nname = \"t\"\ntable = \"bigquery:logs.t\"\nkey = \"t:{k}\"\ntype = \"zset\"\nmember = \"{m}\"\nscore = \"v\"\n";
    logs.plan(route);
    logs.rebuild(&[]).expect(0);
    assert_eq!(logs.redis(&["ZSCORE", "t:1", "m"]), "1");
    logs.insert("t", vec![json!({"k": 1, "m": "m", "v": "7.25"})]);
    logs.rebuild(&[])
        .expect(2)
        .says(&["route t: key t:1 has a member with two scores", "on_collision = \"last\""]);
    assert_eq!(logs.redis(&["ZSCORE", "t:1", "m"]), "1");
}
