//! Logs that an application keeps in Redis: a BigQuery stand-in, a Redis, a plan with row routes, and both ways.
//!
//! Invariant: tables are compared by what the stand-in's REST shows of them, as multisets.

use crate::cloud::Cloud;
use crate::world::Ran;
use fixtures::servers::RedisOptions;
use serde_json::{Value, json};
use std::fs;
use std::process::{Child, Stdio};

pub(crate) const HASHES: &str = "[[route]]\nname = \"rows\"\ntable = \"bigquery:d.t\"\ntype = \"hash\"\nkey = \"log:{id}\"\n\
     use = [\"rebuild\", \"backup\"]\non_collision = \"error\"\n";
pub(crate) const STREAM: &str = "[[route]]\nname = \"rows\"\ntable = \"bigquery:d.t\"\ntype = \"stream\"\nkey = \"log:stream\"\n";

/// One test's systems and files.
pub(crate) struct Logs {
    pub(crate) cloud: Cloud,
}

impl Logs {
    /// Starts the servers; `routes` is the rest of the plan.
    pub(crate) fn new(redis: RedisOptions, routes: &str) -> Self {
        let logs = Self { cloud: Cloud::new(redis, "") };
        logs.plan(routes);
        logs
    }

    /// With a table `d.t` of id, name and ts, without table partitions.
    pub(crate) fn plain(routes: &str) -> Self {
        let logs = Self::new(RedisOptions::default(), routes);
        logs.cloud.table("{}");
        logs
    }

    pub(crate) fn plan(&self, routes: &str) {
        let (rest, grpc) = (self.cloud.bigquery.rest_url(), self.cloud.bigquery.grpc_url());
        let redis = self.cloud.redis.url();
        let text = format!(
            "[objectives]\nbigquery = {{ rto = \"24h\", rpo = \"24h\" }}\n\
             [bigquery]\nproject = \"p\"\nlocation = \"us-central1\"\nstaging_dataset = \"staging\"\n\
             endpoint = \"{rest}\"\ngrpc_endpoint = \"{grpc}\"\n[redis]\nurl = \"{redis}\"\n\
             [redis.duplicate]\nurl = \"{redis}\"\n{routes}"
        );
        fs::write(self.cloud.folder.path().join("rekindle.toml"), text).unwrap();
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        Ran::of(&self.cloud.command(words).output().unwrap())
    }

    pub(crate) fn rebuild(&self) -> Ran {
        self.run(&["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "5s"])
    }

    fn restore_words<'a>(more: &[&'a str]) -> Vec<&'a str> {
        let words = ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "10s"];
        [&words[..], more].concat()
    }

    pub(crate) fn restore(&self, more: &[&str]) -> Ran {
        self.run(&Self::restore_words(more))
    }

    pub(crate) fn start_restore(&self, more: &[&str]) -> Child {
        let mut command = self.cloud.command(&Self::restore_words(more));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Drops the table and every staging table.
    pub(crate) fn lose(&self) {
        self.cloud.delete_table();
    }

    /// Whether the table is there.
    pub(crate) fn stands(&self) -> bool {
        let tables = self.get("bigquery/v2/projects/p/datasets/d/tables");
        tables["tables"].as_array().is_some_and(|tables| !tables.is_empty())
    }

    /// Names of the staging tables.
    pub(crate) fn staging(&self) -> Vec<String> {
        let tables = self.get("bigquery/v2/projects/p/datasets/staging/tables");
        let tables = tables["tables"].as_array().cloned().unwrap_or_default();
        tables.iter().map(|table| table["tableReference"]["tableId"].to_string()).collect()
    }

    /// Takes back every fault that did not happen yet.
    pub(crate) fn forget_faults(&self) {
        let url = format!("{}/stand-in/faults", self.cloud.bigquery.rest_url());
        self.cloud.call(reqwest::Client::new().delete(url));
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let url = format!("{}/{path}", self.cloud.bigquery.rest_url());
        self.cloud.tokio.block_on(async {
            let text = reqwest::get(url).await.unwrap().text().await.unwrap();
            serde_json::from_str(&text).unwrap_or_default()
        })
    }

    /// All rows as REST shows them, sorted.
    pub(crate) fn rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.get(&format!(
                "bigquery/v2/projects/p/datasets/d/tables/t/data?maxResults=50000&pageToken={token}"
            ));
            rows.extend(page["rows"].as_array().into_iter().flatten().map(Value::to_string));
            match page["pageToken"].as_str() {
                Some(next) if !next.is_empty() => next.clone_into(&mut token),
                _ => break,
            }
        }
        rows.sort_unstable();
        rows
    }

    /// Asserts that the table has exactly these rows, and that nothing of the restore is left.
    #[track_caller]
    pub(crate) fn assert_restored(&self, original: &[String]) {
        let found = self.rows();
        assert_eq!(found.len(), original.len());
        assert!(found == original, "the rows differ");
        assert_eq!(self.staging(), Vec::<String>::new());
        assert_eq!(self.spools(), Vec::<String>::new());
    }

    /// Files of spools that are there.
    pub(crate) fn spools(&self) -> Vec<String> {
        let folder = self.state().join("spool");
        let runs = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = runs.flat_map(|run| fs::read_dir(run.path()).into_iter().flatten().flatten());
        files.map(|file| file.path().to_string_lossy().into_owned()).collect()
    }

    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.cloud.folder.path().join(".rekindle")
    }

    /// Appends rows of the table to a stream, as the application would: `id`, `name` and `ts` as texts.
    pub(crate) fn append(&self, key: &str, ids: std::ops::Range<u32>) {
        let mut connection = self.cloud.connection();
        for ids in ids.collect::<Vec<_>>().chunks(500) {
            let mut pipeline = redis::pipe();
            for id in ids {
                let ts = format!("2025-11-01T00:{:02}:{:02}Z", id / 60 % 60, id % 60);
                pipeline
                    .cmd("XADD")
                    .arg(key)
                    .arg("*")
                    .arg(&["id", &id.to_string(), "name", &format!("name {}", id % 7), "ts", &ts])
                    .ignore();
            }
            let _: () = pipeline.query(&mut connection).unwrap();
        }
    }
}

/// A table of every type, nested ones too, with a row of values and one of nulls beside its key.
pub(crate) fn every_type() -> (Value, Value) {
    let scalars = [
        ("STRING", json!("ä\u{1} \"quoted\"")),
        ("BYTES", json!("AP8=")),
        ("INT64", json!("-9223372036854775808")),
        ("FLOAT64", json!("NaN")),
        ("NUMERIC", json!("-1.5")),
        ("BIGNUMERIC", json!("0.00000000000000000000000000000000000001")),
        ("BOOL", json!(true)),
        ("DATE", json!("2025-11-01")),
        ("TIME", json!("23:59:59.999999")),
        ("DATETIME", json!("2025-11-01T00:00:00.000001")),
        ("TIMESTAMP", json!("2025-11-01 00:00:00.000001 UTC")),
        ("JSON", json!("{\"a\": [1]}")),
        ("GEOGRAPHY", json!("POINT(1 2)")),
        ("INTERVAL", json!("1-2 3 4:5:6")),
    ];
    let mut fields = vec![json!({"name": "id", "type": "INT64"})];
    let named = |(name, _): &(&str, Value)| json!({"name": format!("c_{name}"), "type": name});
    fields.extend(scalars.iter().map(named));
    fields.extend([
        json!({"name": "c_range", "type": "RANGE", "rangeElementType": {"type": "DATE"}}),
        json!({"name": "c_list", "type": "INT64", "mode": "REPEATED"}),
        json!({"name": "c_deep", "type": "RECORD", "mode": "REPEATED", "fields": [
            {"name": "k", "type": "STRING"},
            {"name": "v", "type": "RECORD", "fields": [
                {"name": "n", "type": "NUMERIC"}, {"name": "l", "type": "STRING", "mode": "REPEATED"},
            ]},
        ]}),
    ]);
    let mut row = json!({
        "id": "1", "c_range": "[2025-11-01, UNBOUNDED)", "c_list": ["1", "2"],
        "c_deep": [{"k": "x", "v": {"n": "2", "l": ["a", ""]}}, {"k": null, "v": null}],
    });
    for (name, value) in scalars {
        row[format!("c_{name}")] = value;
    }
    (json!(fields), json!({"rows": [{"json": row}, {"json": {"id": "2", "c_STRING": ""}}]}))
}
