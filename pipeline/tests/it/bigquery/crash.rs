//! Rebuilds from BigQuery, killed at every boundary: rows, keys of many rows, a stream and the result of a query.
//!
//! Invariant: what Redis must hold is made here from the numbers that the rows are made from.

use super::{DAYS, Logs, REBUILD};
use crate::crash::{Flow, Held, Matrix, Scenario, State, assert_held, held, killed, size};
use serde_json::json;
use stages::failpoint::Point;

const ROUTES: &str = r#"
[[route]]
name = "by-day"
query = "SELECT DATE(ts) AS day, COUNT(*) AS n FROM logs.days WHERE ts IS NOT NULL GROUP BY day"
from = "bigquery"
key = "day:{day}"
type = "hash"
on_collision = "error"
[[route]]
name = "entries"
table = "bigquery:logs.days"
key = "ev"
type = "stream"
use = ["rebuild"]
columns = ["id"]
[[route]]
name = "by-repo"
table = "bigquery:logs.builds"
key = "repo:{repo}"
type = "zset"
member = "{id}"
score = "minutes"
[[route]]
name = "notes"
table = "bigquery:logs.builds"
key = "notes:{repo}"
type = "hash"
member = "{id}"
columns = ["note"]
on_collision = "last"
order_by = "id"
"#;

fn repo(n: u64) -> u64 {
    if n.is_multiple_of(4) { n % 12 } else { 1 }
}

fn wanted(days: u64, rows: u64, builds: u64) -> Held {
    let mut held = Held::new();
    let pad = "x".repeat(1_000);
    let mut entries: Vec<String> = Vec::new();
    for day in 0..days {
        for n in 0..rows {
            let id = day * rows + n;
            let ts = format!("2026-11-{:02}T{:02}:00:00Z", day + 1, n % 24);
            held.insert(format!("log:{id}"), vec![format!("line={n} {pad}"), format!("ts={ts}")]);
            entries.push(format!("id={id}"));
        }
        held.insert(format!("day:2026-11-{:02}", day + 1), vec![format!("n={rows}")]);
    }
    for n in 0..3 {
        held.insert(format!("log:{}", 1_000_000 + n), vec!["line=none".to_owned()]);
        entries.push(format!("id={}", 1_000_000 + n));
    }
    entries.sort();
    held.insert("ev:".to_owned(), entries);
    for n in 0..builds {
        held.entry(format!("repo:{}", repo(n))).or_default().push(format!("{n}={}", n % 90));
        held.entry(format!("notes:{}", repo(n)))
            .or_default()
            .push(format!("{n}={}{n}", "y".repeat(120)));
    }
    for elements in held.values_mut() {
        elements.sort();
    }
    held
}

#[test]
fn a_rebuild_from_bigquery_survives_a_crash_at_every_boundary() {
    let (logs, state) = (Logs::new(), State::new());
    let (days, rows) = (3, u64::from(size(150, 3_000)));
    let builds = u64::from(size(4_000, 30_000));
    logs.days(days, rows);
    let fields = json!([{"name": "id", "type": "INTEGER"}, {"name": "repo", "type": "INTEGER"},
        {"name": "minutes", "type": "INTEGER"}, {"name": "note", "type": "STRING"}]);
    logs.table("builds", &fields, &json!({}));
    let row = |n: u64| {
        json!({"id": n.to_string(), "repo": repo(n).to_string(), "minutes": (n % 90).to_string(),
            "note": format!("{}{n}", "y".repeat(120))})
    };
    for from in (0..builds).step_by(2_000) {
        logs.insert("builds", (from..builds.min(from + 2_000)).map(row).collect());
    }
    logs.plan(&[DAYS, ROUTES].concat());
    let wanted = wanted(days, rows, builds);
    let port = logs.redis.port();
    let mut matrix = Matrix::new(Flow::BigQuery);
    let empty = || {
        logs.redis(&["FLUSHALL"]);
        state.forget();
    };
    let command = || state.of(logs.command(&[&REBUILD[..], &["--lanes", "2"]].concat()));
    let check = || assert_held(&held(port, "0", "ev:"), &wanted);
    matrix.kill_everywhere(&Scenario {
        name: "rows",
        also: &[],
        reset: &empty,
        command: &command,
        redis_port: port,
        check: &check,
    });
    // A Redis that was emptied after a kill, but for streams that somebody else left there.
    matrix.kill_everywhere(&Scenario {
        name: "emptied redis",
        also: &[],
        reset: &|| {
            empty();
            killed(command(), Point::ReadBack, port);
            logs.redis(&["FLUSHALL"]);
            logs.redis(&["XADD", "ev:70", "1-0", "stale", "1"]);
        },
        command: &command,
        redis_port: port,
        check: &check,
    });
    matrix.assert_documented();
}
