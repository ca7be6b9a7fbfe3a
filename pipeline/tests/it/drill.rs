//! `rekindle drill` in scratch systems: of Redis, of BigQuery and of both, what it proves, and what it leaves behind.
//!
//! Invariant: whatever a drill does, what serves is untouched; that is asked of the servers themselves.

use crate::world::Ran;
use fixtures::servers::{
    BigQueryOptions, BigQueryServer, Postgres, PostgresOptions, Redis, RedisOptions,
};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Rows of the table of PostgreSQL, and of the one of BigQuery.
pub(crate) const USERS: u64 = 200;
pub(crate) const LINES: u64 = 120;
const DATASETS: &str = "bigquery/v2/projects/p/datasets";

const ROUTES: &str = r#"
[[route]]
name = "users"
table = "alloydb:public.users"
key = "user:{id}"
type = "hash"
[[route]]
name = "lines"
table = "bigquery:logs.lines"
key = "line:{id}"
type = "hash"
on_collision = "error"
[[route]]
name = "copy"
table = "bigquery:logs.lines"
key = "dup:lines"
type = "blocks"
"#;

/// Both sources, the cache and the duplicate that serve, a scratch, a plan and a state folder.
pub(crate) struct Town {
    pub(crate) bigquery: BigQueryServer,
    pub(crate) postgres: Postgres,
    pub(crate) cache: Redis,
    pub(crate) duplicate: Redis,
    pub(crate) scratch: Redis,
    pub(crate) folder: TempDir,
    tokio: tokio::runtime::Runtime,
}

impl Town {
    /// Filled and backed up; the cache holds one key of an application.
    pub(crate) fn new() -> Self {
        let redis = || Redis::start(RedisOptions::default()).unwrap();
        let town = Self {
            bigquery: BigQueryServer::start(BigQueryOptions::default()).unwrap(),
            postgres: Postgres::start(PostgresOptions::default()).unwrap(),
            cache: redis(),
            duplicate: redis(),
            scratch: redis(),
            folder: tempfile::tempdir().unwrap(),
            tokio: tokio::runtime::Runtime::new().unwrap(),
        };
        town.postgres
            .psql(&format!(
                "create table users (id bigint primary key, name text not null);
                 insert into users select i, 'user ' || i from generate_series(1, {USERS}) i;
                 vacuum analyze users;"
            ))
            .unwrap();
        for dataset in ["logs", "staging"] {
            town.make_dataset(dataset);
        }
        town.make_lines("logs");
        let row = |id: u64| {
            format!("({id}, 'line {id}', TIMESTAMP '2025-11-0{} 00:00:00+00:00')", 1 + id % 3)
        };
        let rows: Vec<String> = (0..LINES).map(row).collect();
        town.sql(&format!("INSERT INTO logs.lines (id, name, ts) VALUES {}", rows.join(", ")));
        town.plan(&town.both(), ROUTES);
        town.cache.cli(&["SET", "of an application", "1"]).unwrap();
        let words = ["backup", "bigquery", "--json", "--progress", "none"];
        Ran::of(&town.command(&words).output().unwrap()).expect(0);
        town
    }

    /// A `[drill]` section with both scratch targets.
    pub(crate) fn both(&self) -> String {
        drill_section(&self.scratch.url(), "rekindle_drill")
    }

    pub(crate) fn make_dataset(&self, id: &str) {
        let body = json!({"datasetReference": {"datasetId": id}, "location": "us-central1"});
        self.post(DATASETS, &body);
    }

    pub(crate) fn make_lines(&self, dataset: &str) {
        let body = json!({
            "tableReference": {"tableId": "lines"},
            "timePartitioning": {"type": "DAY", "field": "ts"},
            "schema": {"fields": [
                {"name": "id", "type": "INT64", "mode": "REQUIRED"},
                {"name": "name", "type": "STRING"},
                {"name": "ts", "type": "TIMESTAMP"},
            ]},
        });
        self.post(&format!("{DATASETS}/{dataset}/tables"), &body);
    }

    /// Writes a plan with a `[drill]` section, and a duplicate on an instance of its own.
    pub(crate) fn plan(&self, drill: &str, routes: &str) {
        let duplicate = format!("[redis.duplicate]\nurl = \"{}\"\n", self.duplicate.url());
        self.plan_with(&duplicate, drill, routes);
    }

    pub(crate) fn plan_with(&self, duplicate: &str, drill: &str, routes: &str) {
        let text = format!(
            "[alloydb]\nurl = \"${{env:ALLOYDB_URL}}\"\n\
             [bigquery]\nproject = \"p\"\nlocation = \"us-central1\"\nstaging_dataset = \"staging\"\n\
             endpoint = \"{}\"\ngrpc_endpoint = \"{}\"\n[redis]\nurl = \"{}\"\n{duplicate}{drill}{routes}",
            self.bigquery.rest_url(),
            self.bigquery.grpc_url(),
            self.cache.url(),
        );
        fs::write(self.folder.path().join("rekindle.toml"), text).unwrap();
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(words).current_dir(self.folder.path()).env_clear();
        command.env("ALLOYDB_URL", self.postgres.url()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        Ran::of(&self.command(words).output().unwrap())
    }

    /// The words of a drill.
    pub(crate) fn words<'a>(lose: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["drill", "--lose", lose, "--json", "--settle", "20ms", "--retry-for", "2s"];
        [&words[..], more].concat()
    }

    pub(crate) fn drill(&self, lose: &str, more: &[&str]) -> Ran {
        self.run(&Self::words(lose, more))
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join(".rekindle")
    }

    fn call(&self, request: reqwest::RequestBuilder) -> Value {
        self.tokio.block_on(async {
            let response = request.send().await.unwrap();
            let code = response.status();
            let text = response.text().await.unwrap();
            assert!(code.is_success(), "{code}: {text}");
            serde_json::from_str(&text).unwrap_or_default()
        })
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/{path}", self.bigquery.rest_url());
        self.call(reqwest::Client::new().post(url).json(body))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.call(reqwest::Client::new().get(format!("{}/{path}", self.bigquery.rest_url())))
    }

    /// Runs SQL; returns the cells of the first row.
    pub(crate) fn sql(&self, sql: &str) -> Vec<String> {
        let body = json!({"query": sql, "useLegacySql": false, "location": "us-central1"});
        let reply = self.post("bigquery/v2/projects/p/queries", &body);
        let cells = reply.pointer("/rows/0/f").and_then(Value::as_array).cloned();
        let text = |cell: &Value| cell["v"].as_str().unwrap_or("NULL").to_owned();
        cells.unwrap_or_default().iter().map(text).collect()
    }

    /// Whether there is a dataset of this name.
    pub(crate) fn has_dataset(&self, name: &str) -> bool {
        let listed = self.get(DATASETS);
        let names = listed["datasets"].as_array().cloned().unwrap_or_default();
        names.iter().any(|dataset| dataset["datasetReference"]["datasetId"] == name)
    }

    /// Asserts that nothing which serves was changed.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(self.cache.dbsize().unwrap(), 1);
        assert_eq!(self.cache.cli(&["GET", "of an application"]).unwrap(), "1");
        assert_eq!(self.sql("SELECT COUNT(*) FROM logs.lines"), [LINES.to_string()]);
        assert!(self.has_dataset("staging") && self.has_dataset("logs"));
        let keys: Vec<String> =
            self.duplicate.cli(&["KEYS", "*"]).unwrap().lines().map(str::to_owned).collect();
        assert!(keys.len() > 3 && keys.iter().all(|key| key.starts_with("dup:lines")), "{keys:?}");
    }

    /// Asserts that nothing is left in the scratch targets.
    #[track_caller]
    pub(crate) fn assert_torn_down(&self) {
        assert_eq!(self.scratch.dbsize().unwrap(), 0);
        assert!(!self.has_dataset("rekindle_drill"));
    }
}

pub(crate) fn drill_section(redis: &str, dataset: &str) -> String {
    format!("[drill]\nredis = \"{redis}\"\ndataset = \"{dataset}\"\n")
}

fn names<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|one| one[field].as_str().unwrap()).collect()
}

#[test]
fn redis_is_lost_recovered_proven_and_the_scratch_is_gone() {
    let town = Town::new();
    let ran = town.drill("redis", &["--mark", "create-instance=12"]).expect(0);
    let summary = ran.summary();
    // THEN every phase was done, in order, and only what lies between loss and serving is on the clock
    assert_eq!(
        names(&summary["phases"], "name"),
        [
            "empty the scratch targets",
            "rebuild redis",
            "verify redis",
            "ask redis what is known",
            "take the scratch targets down",
        ]
    );
    for (phase, is_counted) in
        summary["phases"].as_array().unwrap().iter().zip([false, true, true, true, false])
    {
        assert_eq!(phase["outcome"], "done", "{phase}");
        assert_eq!(phase["since_loss"].is_number(), is_counted, "{phase}");
    }
    assert_eq!(names(&summary["parts"], "command"), ["rebuild redis", "verify redis"]);
    assert_eq!((&summary["rows"], &summary["status"]), (&json!(USERS + LINES), &json!("done")));
    assert_eq!(summary["verified"]["keys_compared"], USERS + LINES);
    // AND one key of each route answered as its row says
    assert_eq!(names(&summary["reads"], "route"), ["users", "lines"]);
    for read in summary["reads"].as_array().unwrap() {
        assert_eq!(read["is_as_known"], true, "{read}");
    }
    // AND the steps that nobody timed are unknown, so no RTO is called met
    assert_eq!(
        summary["unknown_steps"],
        json!(["declare", "stop-writers", "connect-redis", "repoint"])
    );
    let verdict = summary["verdict"].as_str().unwrap();
    assert!(verdict.contains("the measured part fits the RTO; 4 steps are UNKNOWN"), "{verdict}");
    assert_eq!(summary["objectives"][0]["verdict"], "unknown");
    assert!(summary["objectives"][0]["measured_seconds"].as_f64() >= Some(720.0));
    assert_eq!(summary["objectives"][1]["verdict"], "met");
    // AND nothing is left, nor was anything touched
    let address = format!("redis at 127.0.0.1:{}/0 holds 0 keys", town.scratch.port());
    assert_eq!(summary["torn_down"], json!([address]));
    town.assert_torn_down();
    town.assert_untouched();
    // AND a real run finds no run to resume
    town.run(&["rebuild", "redis", "--json", "--progress", "none"]).expect(0);
}

#[test]
fn bigquery_is_lost_restored_beside_itself_and_the_dataset_is_gone() {
    let town = Town::new();
    let summary = town.drill("bigquery", &[]).expect(0).summary();
    assert_eq!(
        names(&summary["phases"], "name"),
        [
            "empty the scratch targets",
            "restore bigquery",
            "verify bigquery",
            "ask bigquery what is known",
            "compare bigquery with its duplicate",
            "take the scratch targets down",
        ]
    );
    assert_eq!(names(&summary["parts"], "command"), ["restore bigquery", "verify bigquery"]);
    assert_eq!(summary["rows"], LINES);
    let read = &summary["reads"][0];
    assert_eq!(
        (&read["is_as_known"], &read["note"]),
        (&json!(true), &json!(format!("{LINES} rows, as the manifests say")))
    );
    assert!(read["asked"].as_str().unwrap().contains("`p.rekindle_drill.lines`"), "{read}");
    assert_eq!(summary["torn_down"], json!(["dataset rekindle_drill does not exist"]));
    // What serves was not made anew, so nobody is told to accept a loss.
    assert!(!summary["warnings"].to_string().contains("--accept-loss"), "{summary}");
    town.assert_torn_down();
    town.assert_untouched();
}

#[test]
fn both_are_lost_and_redis_is_rebuilt_from_the_restored_tables() {
    let town = Town::new();
    // GIVEN a row that BigQuery got after the backup: it is lost with it
    town.sql("INSERT INTO logs.lines (id, name, ts) VALUES (9999, 'late', TIMESTAMP '2025-11-01 00:00:00+00:00')");
    let marks = [
        "declare=1",
        "stop-writers=1",
        "time-travel=1",
        "create-instance=1",
        "connect-redis=1",
        "access-bigquery=1",
        "grants=1",
        "repoint=1",
    ];
    let marks: Vec<&str> = marks.iter().flat_map(|mark| ["--mark", mark]).collect();
    let summary = town.drill("both", &marks).expect(0).summary();
    // THEN Redis holds what was restored, not what serves
    let routes: Vec<(&str, u64)> = summary["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| (route["name"].as_str().unwrap(), route["rows"].as_u64().unwrap()))
        .collect();
    assert_eq!(routes, [("copy", LINES), ("users", USERS), ("lines", LINES)]);
    assert_eq!(
        names(&summary["parts"], "command"),
        ["restore bigquery", "rebuild redis", "verify redis", "verify bigquery"]
    );
    // AND with every step timed the whole recovery fits, and says so for both systems
    assert_eq!(summary["verdict"], "the data is right, and the whole recovery fits the RTO");
    let objectives = summary["objectives"].as_array().unwrap();
    assert_eq!(objectives.len(), 4);
    for objective in objectives {
        assert_eq!(objective["verdict"], "met", "{objective}");
    }
    town.assert_torn_down();
    assert_eq!(town.cache.dbsize().unwrap(), 1);
    assert_eq!(town.sql("SELECT COUNT(*) FROM logs.lines"), [(LINES + 1).to_string()]);
}

#[test]
fn a_drill_leaves_sealed_evidence_and_a_report_of_its_phases() {
    let town = Town::new();
    let summary = town.drill("redis", &["--mark", "repoint=3"]).expect(0).summary();
    let evidence = town.run(&["report", "--json"]).expect(0).summary();
    assert_eq!((&evidence["command"], &evidence["summary"]), (&json!("drill"), &summary));
    assert_eq!(evidence["objectives"], summary["objectives"]);
    let timeline = evidence["timeline"].to_string();
    for event in ["declared lost", "rebuild redis: done", "verify redis: done"] {
        assert!(timeline.contains(event), "{event}: {timeline}");
    }
    town.run(&["report"]).expect(0).shows(&[
        "# drill, ",
        "Time by phase",
        "| rebuild redis | ",
        "| repoint | ",
        " | 3 min |",
        "| declare | declare the loss | on call | UNKNOWN |",
        "The scratch targets afterwards",
        "holds 0 keys",
        "Reviewed by: ",
    ]);
    town.run(&["report", "--format", "html"]).expect(0).shows(&[
        "<svg",
        "the RTO (red, dashed)",
        "rebuild redis",
        "class=\"unknown\"",
    ]);
    // AND in words, for whoever ran it
    let text = town.run(&["drill", "--lose", "redis", "--settle", "20ms"]).expect(0);
    text.shows(&["loss of redis, done", "UNKNOWN", "afterwards: ", "verdict: the data is right"])
        .says(&["rebuild redis: done, "]);
}

#[test]
fn what_is_kept_is_there_and_the_next_drill_empties_it() {
    let town = Town::new();
    let summary = town.drill("both", &["--keep"]).expect(0).summary();
    assert!(summary["torn_down"].to_string().contains("kept, as asked"), "{summary}");
    // The keys, and the mark of the drill.
    assert_eq!(town.scratch.dbsize().unwrap(), USERS + LINES + 1);
    assert_eq!(town.scratch.cli(&["HGET", "line:7", "name"]).unwrap(), "line 7");
    assert_eq!(town.sql("SELECT COUNT(*) FROM rekindle_drill.lines"), [LINES.to_string()]);
    town.drill("both", &[]).expect(0);
    town.assert_torn_down();
    town.assert_untouched();
}

#[test]
fn a_dataset_that_was_there_before_stays_and_is_empty() {
    let town = Town::new();
    town.make_dataset("rekindle_drill");
    let summary = town.drill("bigquery", &[]).expect(0).summary();
    let told = "dataset rekindle_drill, which was there before, holds no table";
    assert_eq!(summary["torn_down"], json!([told]));
    assert!(town.has_dataset("rekindle_drill"));
    let tables = town.get(&format!("{DATASETS}/rekindle_drill/tables"));
    assert!(tables["tables"].as_array().is_none_or(Vec::is_empty), "{tables}");
}
