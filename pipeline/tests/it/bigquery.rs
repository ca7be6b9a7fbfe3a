//! Redis rebuilt from BigQuery, alone and beside AlloyDB; BigQuery is the stand-in over its real protocols.
//!
//! Invariant: what must be in Redis is written by hand here, or asked of the stand-in by a query.

mod crash;
mod every_type;
mod many;
mod parts;
mod resumed;
mod streams;
mod verified;

use crate::world::{Ran, wait_until};
use fixtures::servers::{
    BigQueryOptions, BigQueryServer, Postgres, PostgresOptions, Redis, RedisOptions,
};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// One test's systems and files.
struct Logs {
    bigquery: BigQueryServer,
    redis: Redis,
    postgres: Option<Postgres>,
    folder: TempDir,
}

impl Logs {
    fn new() -> Self {
        Self::with(RedisOptions::default())
    }

    fn with(redis: RedisOptions) -> Self {
        let logs = Self {
            bigquery: BigQueryServer::start(BigQueryOptions::default()).unwrap(),
            redis: Redis::start(redis).unwrap(),
            postgres: None,
            folder: tempfile::tempdir().unwrap(),
        };
        for dataset in ["logs", "staging"] {
            let body =
                json!({"datasetReference": {"datasetId": dataset}, "location": "us-central1"});
            logs.post("bigquery/v2/projects/p/datasets", &body);
        }
        logs
    }

    /// Sends a call to the stand-in and returns its answer.
    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/{path}", self.bigquery.rest_url());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (code, text) = runtime.block_on(async {
            let reply = reqwest::Client::new().post(url).json(body).send().await.unwrap();
            (reply.status().as_u16(), reply.text().await.unwrap())
        });
        assert_eq!(code, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Asks the stand-in for something.
    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let url = format!("{}/{path}", self.bigquery.rest_url());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (code, text) = runtime.block_on(async {
            let reply = reqwest::get(url).await.unwrap();
            (reply.status().as_u16(), reply.text().await.unwrap())
        });
        assert_eq!(code, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    #[track_caller]
    fn table(&self, table: &str, fields: &Value, more: &Value) {
        let mut body = json!({"tableReference": {"tableId": table}, "schema": {"fields": fields}});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.post("bigquery/v2/projects/p/datasets/logs/tables", &body);
    }

    #[track_caller]
    fn insert(&self, table: &str, rows: Vec<Value>) {
        let rows: Vec<Value> = rows.into_iter().map(|row| json!({"json": row})).collect();
        let path = format!("bigquery/v2/projects/p/datasets/logs/tables/{table}/insertAll");
        let reply = self.post(&path, &json!({"rows": rows}));
        assert!(reply.get("insertErrors").is_none(), "{reply}");
    }

    #[track_caller]
    fn query(&self, sql: &str) -> Value {
        let body = json!({"query": sql, "useLegacySql": false, "location": "us-central1"});
        self.post("bigquery/v2/projects/p/queries", &body)
    }

    #[track_caller]
    fn fault(&self, method: &str, kind: &str, after: u64, times: u64) {
        let fault = json!({"method": method, "kind": kind, "after": after, "times": times});
        self.post("stand-in/faults", &fault);
    }

    fn plan(&self, routes: &str) {
        let alloydb = self.postgres.as_ref().map(|_| "[alloydb]\nurl = \"${env:ALLOYDB_URL}\"\n");
        let text = format!(
            "{}[bigquery]\nproject = \"p\"\nstaging_dataset = \"staging\"\nendpoint = \"{}\"\n\
             grpc_endpoint = \"{}\"\n[redis]\nurl = \"${{env:REDIS_URL}}\"\n{routes}",
            alloydb.unwrap_or_default(),
            self.bigquery.rest_url(),
            self.bigquery.grpc_url(),
        );
        std::fs::write(self.folder.path().join("rekindle.toml"), text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(words).current_dir(self.folder.path()).env_clear();
        command.env("REDIS_URL", self.redis.url()).stdin(Stdio::null());
        if let Some(postgres) = &self.postgres {
            command.env("ALLOYDB_URL", postgres.url());
        }
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        Ran::of(&self.command(words).output().unwrap())
    }

    fn rebuild(&self, more: &[&str]) -> Ran {
        self.run(&[&REBUILD[..], more].concat())
    }

    fn start_rebuild(&self, more: &[&str]) -> Child {
        let mut command = self.command(&[&REBUILD[..], more].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[track_caller]
    fn redis(&self, words: &[&str]) -> String {
        self.redis.cli(words).unwrap().trim().to_owned()
    }

    fn entries(&self) -> u64 {
        self.redis(&["DBSIZE"]).parse().unwrap()
    }

    /// Days of 2026-11 with `rows` rows of about a kilobyte each, and three without a time.
    fn days(&self, days: u64, rows: u64) {
        let fields = json!([
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "ts", "type": "TIMESTAMP"},
            {"name": "line", "type": "STRING"},
        ]);
        self.table("days", &fields, &json!({"timePartitioning": {"type": "DAY", "field": "ts"}}));
        let pad = "x".repeat(1_000);
        for day in 0..days {
            let row = |n: u64| {
                let ts = format!("2026-11-{:02}T{:02}:00:00Z", day + 1, n % 24);
                json!({"id": (day * rows + n).to_string(), "ts": ts, "line": format!("{n} {pad}")})
            };
            self.insert("days", (0..rows).map(row).collect());
        }
        let row = |n: u64| json!({"id": (1_000_000 + n).to_string(), "ts": null, "line": "none"});
        self.insert("days", (0..3).map(row).collect());
    }
}

const REBUILD: [&str; 5] = ["rebuild", "redis", "--json", "--progress", "none"];
const DAYS: &str = r#"
[[route]]
name = "days"
table = "bigquery:logs.days"
key = "log:{id}"
type = "hash"
on_collision = "error"
newest_by = "ts"
"#;

#[test]
fn a_partitioned_table_is_cut_and_nulls_and_filters_are_kept() {
    // GIVEN three days of 5 MB each and rows without a day
    let logs = Logs::new();
    logs.days(3, 5_000);
    let filtered = r#"
[[route]]
name = "some"
table = "bigquery:logs.days"
where = "id < 10 OR ts IS NULL"
key = "some:{id}"
type = "string"
columns = ["line"]
on_collision = "error"
"#;
    logs.plan(&[DAYS, filtered].concat());
    let plan = logs.run(&["plan", "--json"]).expect(0).summary();
    assert_eq!(plan["routes"][0]["cut"], "table partitions", "{plan}");
    assert!(plan["routes"][0]["partitions"].as_u64() >= Some(3), "{plan}");
    assert!(plan["routes"][0]["bytes_billed"].as_u64() > Some(10_000_000), "{plan}");
    logs.run(&["check"]).expect(0);
    // WHEN it is rebuilt
    let summary = logs.rebuild(&[]).expect(0).summary();
    // THEN every row came once, those without a day too, and the filter held
    assert_eq!(summary["routes"][0]["rows"], 15_003, "{summary}");
    assert_eq!(summary["routes"][1]["rows"], 13, "{summary}");
    assert_eq!(logs.entries(), 15_016);
    assert_eq!(logs.redis(&["HGET", "log:1000002", "line"]), "none");
    assert_eq!(logs.redis(&["HGET", "log:5000", "ts"]), "2026-11-02T00:00:00Z");
}

#[test]
fn a_large_day_that_is_sorted_by_its_time_is_cut_into_hours() {
    let logs = Logs::new();
    let fields = json!([{"name": "id", "type": "INTEGER"}, {"name": "ts", "type": "TIMESTAMP"},
        {"name": "line", "type": "STRING"}]);
    let by_day = json!({"timePartitioning": {"type": "DAY", "field": "ts"}, "clustering": {"fields": ["ts"]}});
    logs.table("days", &fields, &by_day);
    // GIVEN one day of 18 MB, on the hour and a microsecond before it, and rows of other days beside it
    for chunk in 0..6_u64 {
        let row = |n: u64| {
            let (hour, id) = (n % 24, chunk * 3_000 + n);
            let ts = match n % 3 {
                0 => format!("2026-11-03T{hour:02}:00:00Z"),
                1 => format!("2026-11-03T{hour:02}:59:59.999999Z"),
                _ => format!("2026-11-{:02}T23:59:59.999999Z", 2 + n % 2 * 2),
            };
            json!({"id": id.to_string(), "ts": ts, "line": "x".repeat(1_500)})
        };
        logs.insert("days", (0..3_000).map(row).collect());
    }
    logs.plan(DAYS);
    let plan = logs.run(&["plan", "--json"]).expect(0).summary();
    // Three days and the rows without one would be four.
    assert!(plan["routes"][0]["partitions"].as_u64() >= Some(6), "{plan}");
    // WHEN it is rebuilt THEN every row came once
    let summary = logs.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["rows"], logs.entries()), (&json!(18_000), 18_000), "{summary}");
    assert_eq!(summary["routes"][0]["partitions"], plan["routes"][0]["partitions"]);
}

#[test]
fn a_resumed_run_reads_the_same_snapshot_although_rows_changed_since() {
    // GIVEN a run that is killed with some of its partitions written
    let logs = Logs::new();
    logs.days(4, 5_000);
    logs.plan(DAYS);
    logs.fault("ReadRows", "delay_ms:150", 0, 1_000);
    let mut child = logs.start_rebuild(&["--lanes", "1"]);
    wait_until("a partition", || logs.entries() > 7_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(logs.entries() < 20_003);
    // WHEN rows are changed, removed and added before the resume
    logs.query("UPDATE logs.days SET line = 'changed' WHERE id < 20000");
    logs.query("DELETE FROM logs.days WHERE id >= 1000000");
    logs.insert("days", vec![json!({"id": "5", "ts": "2026-11-09T00:00:00Z", "line": "late"})]);
    let ran = logs.rebuild(&["--lanes", "1"]).expect(0);
    let summary = ran.summary();
    // THEN Redis holds the table as it was, whole
    assert_eq!(summary["resumed"], 1, "{summary}");
    assert_eq!((&summary["rows"], logs.entries()), (&json!(20_003), 20_003), "{summary}");
    for id in ["0", "5", "9999", "19999"] {
        assert!(logs.redis(&["HGET", &format!("log:{id}"), "line"]).ends_with("xx"), "{id}");
    }
    assert_eq!(logs.redis(&["HGET", "log:1000001", "line"]), "none");
}

#[test]
fn a_service_that_misbehaves_is_survived() {
    // GIVEN throttling, lost connections and a session that ends in the middle
    let logs = Logs::new();
    logs.days(3, 5_000);
    logs.plan(DAYS);
    for (method, kind, after) in [
        ("rest:tables.get", "unavailable", 0),
        ("rest:jobs.query", "throttle", 0),
        ("CreateReadSession", "throttle", 0),
        ("CreateReadSession", "unavailable", 5),
        ("ReadRows", "throttle", 4),
        ("ReadRows", "unavailable", 12),
        ("ReadRows", "expire_session", 24),
    ] {
        logs.fault(method, kind, after, 1);
    }
    // WHEN the table is rebuilt THEN it is complete
    let ran = logs.rebuild(&["--lanes", "2"]).expect(0);
    let summary = ran.summary();
    assert_eq!(
        (&summary["rows"], logs.entries()),
        (&json!(15_003), 15_003),
        "{summary}\n{}",
        ran.stderr
    );
}

#[test]
fn a_query_is_written_once_and_its_result_is_read() {
    let logs = Logs::new();
    logs.days(2, 100);
    logs.plan(
        r#"
[[route]]
name = "by-day"
query = "SELECT DATE(ts) AS day, COUNT(*) AS n FROM logs.days WHERE ts IS NOT NULL GROUP BY day"
from = "bigquery"
key = "day:{day}"
type = "hash"
on_collision = "error"
"#,
    );
    logs.run(&["plan"]).expect(0);
    let summary = logs.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["rows"], 2, "{summary}");
    assert_eq!(logs.redis(&["HGETALL", "day:2026-11-02"]), "n\n100");
}

#[test]
fn one_run_reads_both_systems() {
    let mut logs = Logs::new();
    logs.days(1, 50);
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    postgres.psql("create table users (id bigint primary key, name text); insert into users select i, 'n' || i from generate_series(1, 20) i").unwrap();
    logs.postgres = Some(postgres);
    let users = "[[route]]\nname = \"users\"\ntable = \"alloydb:public.users\"\nkey = \"user:{id}\"\ntype = \"hash\"\n";
    let blocks = "[[route]]\nname = \"copy\"\ntable = \"bigquery:logs.days\"\nkey = \"copy:days\"\ntype = \"blocks\"\n";
    logs.plan(&[users, DAYS, blocks].concat());
    let summary = logs.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["rows"], logs.entries()), (&json!(73), 73), "{summary}");
    // A backup is no rebuild, and asking for it as one says so.
    logs.rebuild(&["--route", "copy"]).expect(2).says(&["it is a backup", "hint: "]);
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let logs = Logs::new();
    logs.days(1, 10);
    let route = |name: &str, table: &str, more: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\ntable = \"bigquery:{table}\"\nkey = \"k:{{id}}\"\ntype = \"hash\"\n{more}\n"
        )
    };
    let checked = "on_collision = \"error\"";
    for (routes, text) in [
        (route("a", "logs.nothing", checked), "table logs.nothing does not exist"),
        (route("a", "nowhere.t", checked), "dataset nowhere does not exist"),
        (
            route("a", "logs.days", &format!("{checked}\ncolumns = [\"lines\"]")),
            "did you mean line?",
        ),
        (route("a", "logs.days", ""), "bigquery enforces no key"),
        (
            route("a", "logs.days", &format!("{checked}\nsplit_by = \"id\"")),
            "split_by id is not built",
        ),
        (
            route("a", "logs.days", "on_collision = \"last\"\norder_by = \"ts\""),
            "\"last\" is not built",
        ),
        (route("a", "logs.days", &format!("{checked}\nwhere = \"nope = 1\"")), "nope"),
    ] {
        logs.plan(&routes);
        logs.rebuild(&[]).expect(2).says(&[text, "hint: "]);
    }
    assert_eq!(logs.entries(), 0);
}

#[test]
fn colliding_keys_stop_the_run_before_the_first_write() {
    let logs = Logs::new();
    logs.days(1, 10);
    logs.insert("days", vec![json!({"id": "3", "ts": null, "line": "twice"})]);
    logs.plan(DAYS);
    let ran = logs.rebuild(&[]).expect(2);
    ran.says(&["1 rows render to a key that another row has too", "log:3"]);
    assert_eq!(logs.entries(), 0);
}

#[test]
fn a_service_that_is_away_is_exit_3() {
    let mut logs = Logs::new();
    logs.days(1, 10);
    logs.plan(DAYS);
    logs.bigquery.kill().unwrap();
    logs.rebuild(&["--retry-for", "1s"]).expect(3).says(&["error: ", "hint: "]);
}
