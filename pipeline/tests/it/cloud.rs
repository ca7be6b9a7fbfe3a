//! A BigQuery stand-in, a Redis, a plan and a state folder of one test, and a reader that knows only the layout of the
//! duplicate.
//!
//! Invariant: everything is gone when the cloud is dropped; the reader checks every block against its manifest.

use crate::world::{Ran, wait_until};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use fixtures::servers::{BigQueryOptions, BigQueryServer, Redis, RedisOptions};
use redis::Commands;
use schemas::block;
use schemas::manifest::{Keys, Manifest, Run, TableRecord};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub(crate) const ROUTE: &str =
    "[[route]]\nname = \"logs\"\ntable = \"bigquery:d.t\"\ntype = \"blocks\"\nkey = \"log\"\n";
pub(crate) const DAY_PARTITIONED: &str = r#"{"timePartitioning": {"type": "DAY", "field": "ts"}}"#;

/// A BigQuery, a Redis, a plan and a state folder.
pub(crate) struct Cloud {
    pub(crate) bigquery: BigQueryServer,
    pub(crate) redis: Redis,
    pub(crate) folder: TempDir,
    http: reqwest::Client,
    pub(crate) tokio: tokio::runtime::Runtime,
}

impl Cloud {
    pub(crate) fn new(redis: RedisOptions, more: &str) -> Self {
        Self::with(BigQueryOptions::default(), redis, more)
    }

    /// One whose BigQuery can be stopped and started again with all that it holds, except for read sessions.
    pub(crate) fn new_kept(redis: RedisOptions, more: &str) -> Self {
        Self::with(BigQueryOptions { keeps_data: true, program: None }, redis, more)
    }

    fn with(bigquery: BigQueryOptions, redis: RedisOptions, more: &str) -> Self {
        let cloud = Self {
            bigquery: BigQueryServer::start(bigquery).unwrap(),
            redis: Redis::start(redis).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            http: reqwest::Client::new(),
            tokio: tokio::runtime::Runtime::new().unwrap(),
        };
        cloud.plan(more);
        for id in ["d", "staging"] {
            let dataset = json!({"datasetReference": {"datasetId": id}, "location": "us-central1"});
            cloud.post("bigquery/v2/projects/p/datasets", &dataset);
        }
        cloud
    }

    pub(crate) fn plan(&self, more: &str) {
        let text = format!(
            "[bigquery]\nproject = \"p\"\nlocation = \"us-central1\"\nstaging_dataset = \"staging\"\nendpoint = \"{}\"\ngrpc_endpoint = \"{}\"\n\
             [redis]\nurl = \"{}\"\n[redis.duplicate]\nurl = \"{}\"\n{more}",
            self.bigquery.rest_url(),
            self.bigquery.grpc_url(),
            self.redis.url(),
            self.redis.url()
        );
        fs::write(self.folder.path().join("rekindle.toml"), text).unwrap();
    }

    pub(crate) fn call(&self, request: reqwest::RequestBuilder) -> Value {
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
        self.call(self.http.post(url).json(body))
    }

    pub(crate) fn table(&self, more: &str) {
        self.table_named("t", more);
    }

    pub(crate) fn table_named(&self, name: &str, more: &str) {
        let mut body: Value = serde_json::from_str(more).unwrap();
        body["tableReference"] = json!({"tableId": name});
        body["schema"] = json!({"fields": [
            {"name": "id", "type": "INT64"}, {"name": "name", "type": "STRING", "description": "who"},
            {"name": "ts", "type": "TIMESTAMP"},
        ]});
        self.post("bigquery/v2/projects/p/datasets/d/tables", &body);
    }

    pub(crate) fn add_column(&self) {
        let url =
            format!("{}/bigquery/v2/projects/p/datasets/d/tables/t", self.bigquery.rest_url());
        let mut schema = self.call(self.http.get(&url))["schema"].clone();
        let extra = json!({"name": "extra", "type": "STRING", "mode": "NULLABLE"});
        schema["fields"].as_array_mut().unwrap().push(extra);
        self.call(self.http.patch(&url).json(&json!({"schema": schema})));
    }

    pub(crate) fn delete_table(&self) {
        let path = "bigquery/v2/projects/p/datasets/d/tables/t";
        self.call(self.http.delete(format!("{}/{path}", self.bigquery.rest_url())));
    }

    /// Runs SQL and returns the rows as `a|b|c`.
    pub(crate) fn sql(&self, sql: &str) -> Vec<String> {
        let body = json!({"query": sql, "useLegacySql": false, "location": "us-central1",
            "formatOptions": {"useInt64Timestamp": true}});
        let mut reply = self.post("bigquery/v2/projects/p/queries", &body);
        let id = reply["jobReference"]["jobId"].as_str().unwrap_or_default().to_owned();
        let mut rows = Vec::new();
        loop {
            rows.extend(reply["rows"].as_array().cloned().unwrap_or_default());
            let Some(token) = reply["pageToken"].as_str() else { break };
            reply = self.get(&format!(
                "bigquery/v2/projects/p/queries/{id}?location=us-central1&formatOptions.useInt64Timestamp=true&pageToken={token}"
            ));
        }
        let cell = |cell: &Value| cell["v"].as_str().unwrap_or("NULL").to_owned();
        rows.iter()
            .map(|row| row["f"].as_array().unwrap().iter().map(cell).collect::<Vec<_>>().join("|"))
            .collect()
    }

    /// Inserts rows `from..to` on a day of November 2025, `00` for rows without a time.
    pub(crate) fn insert(&self, day: u32, ids: std::ops::Range<u32>) {
        let rows: Vec<String> = ids
            .map(|id| {
                let ts = match day {
                    0 => "NULL".to_owned(),
                    _ => format!(
                        "TIMESTAMP '2025-11-{day:02} 00:{:02}:{:02}+00:00'",
                        id / 60 % 60,
                        id % 60
                    ),
                };
                format!("({id}, 'name {}', {ts})", id % 7)
            })
            .collect();
        for rows in rows.chunks(500) {
            self.sql(&format!("INSERT INTO d.t (id, name, ts) VALUES {}", rows.join(", ")));
        }
    }

    /// Streams rows `ids` of a day of November 2025, `00` for rows without a time, each with so many bytes of text.
    pub(crate) fn stream(&self, day: u32, ids: std::ops::Range<u32>, bytes: usize) {
        let row = |id: u32| {
            let ts = (day > 0).then(|| {
                format!("2025-11-{day:02}T{:02}:{:02}:{:02}Z", id / 3600, id / 60 % 60, id % 60)
            });
            json!({"json": {"id": id.to_string(), "name": format!("{id} {}", "x".repeat(bytes)), "ts": ts}})
        };
        let rows: Vec<Value> = ids.map(row).collect();
        let path = "bigquery/v2/projects/p/datasets/d/tables/t/insertAll";
        let reply = self.post(path, &json!({"rows": rows}));
        assert!(reply.get("insertErrors").is_none(), "{reply}");
    }

    /// Whether what is streamed stays in the streaming buffer.
    pub(crate) fn hold_buffer(&self, hold: bool) {
        self.post("stand-in/streaming-buffer", &json!({"hold": hold}));
    }

    /// Appends rows to a table partition by its name, as a copy job does.
    pub(crate) fn append_to(&self, table_partition: &str, ids: std::ops::Range<u32>) {
        let rows: Vec<String> = ids.map(|id| format!("({id}, 'name {id}')")).collect();
        self.sql(&format!("INSERT INTO d.source (id, name) VALUES {}", rows.join(", ")));
        let table = |name: &str| json!({"projectId": "p", "datasetId": "d", "tableId": name});
        let job = json!({"jobReference": {"location": "us-central1"}, "configuration": {"copy": {
            "sourceTable": table("source"), "destinationTable": table(&format!("t${table_partition}")),
            "writeDisposition": "WRITE_APPEND",
        }}});
        let mut job = self.post("bigquery/v2/projects/p/jobs", &job);
        let id = job["jobReference"]["jobId"].as_str().unwrap().to_owned();
        wait_until("a copy job", || {
            job = self.get(&format!("bigquery/v2/projects/p/jobs/{id}?location=us-central1"));
            job["status"]["state"] == "DONE"
        });
        assert!(job["status"].get("errorResult").is_none(), "{job}");
        self.sql("DELETE FROM d.source WHERE TRUE");
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.call(self.http.get(format!("{}/{path}", self.bigquery.rest_url())))
    }

    /// What reads sent since the last time this was asked: blocks, rows and bytes on the wire.
    pub(crate) fn sent(&self) -> (u64, u64, u64) {
        let calls = self.get("stand-in/calls");
        self.call(self.http.delete(format!("{}/stand-in/calls", self.bigquery.rest_url())));
        let count = |what: &str| calls["ReadRows"][what].as_u64().unwrap_or(0);
        (count("messages"), count("rows"), count("bytes_out"))
    }

    /// Messages of a streaming method since counting began anew.
    pub(crate) fn messages(&self, method: &str) -> u64 {
        self.get("stand-in/calls")[method]["messages"].as_u64().unwrap_or(0)
    }

    pub(crate) fn no_faults(&self) {
        self.call(self.http.delete(format!("{}/stand-in/faults", self.bigquery.rest_url())));
    }

    pub(crate) fn fault(&self, method: &str, kind: &str, after: u64, times: u64) {
        let fault = json!({"method": method, "kind": kind, "after": after, "times": times});
        self.post("stand-in/faults", &fault);
    }

    /// Rows that reads sent since the last time this was asked.
    pub(crate) fn rows_read(&self) -> u64 {
        self.sent().1
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(words).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command
    }

    pub(crate) fn words<'a>(more: &[&'a str]) -> Vec<&'a str> {
        let words = ["backup", "bigquery", "--json", "--progress", "none", "--retry-for", "2s"];
        [&words[..], more].concat()
    }

    pub(crate) fn backup(&self, more: &[&str]) -> Ran {
        Ran::of(&self.command(&Self::words(more)).output().unwrap())
    }

    pub(crate) fn start(&self, more: &[&str]) -> Child {
        let mut command = self.command(&Self::words(more));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.redis.url()).unwrap().get_connection().unwrap()
    }

    pub(crate) fn recorded(&self) -> Run {
        let text: Vec<u8> = self.connection().get("log:run").unwrap();
        Run::parse(&text).unwrap()
    }

    /// Decodes everything that is published, checking each block against its manifest.
    pub(crate) fn duplicate(&self) -> Vec<RecordBatch> {
        let keys = Keys::new("log");
        let mut connection = self.connection();
        let run = self.recorded();
        let mut batches = Vec::new();
        for partition in &run.table_partitions {
            let name = &partition.table_partition;
            let text: Vec<u8> = connection.get(keys.manifest(name)).unwrap();
            let manifest = Manifest::parse(&text, name).unwrap();
            assert!(partition.is_met_by(&manifest), "{name}");
            let newest = manifest.newest().unwrap();
            let mut digest = schemas::Digest::default();
            for (ordinal, entry) in (0..).zip(&newest.blocks) {
                let value: Vec<u8> =
                    connection.get(keys.block(name, newest.generation, ordinal)).unwrap();
                let (header, body) = block::open(&value).unwrap();
                assert_eq!(entry.xxh3(), Some(header.body_xxh3));
                assert_eq!((header.ordinal, header.generation), (ordinal, newest.generation));
                assert_eq!(header.is_last, ordinal as usize + 1 == newest.blocks.len());
                let rows = block::decode(&header, body).unwrap();
                digest += block::digest(&rows).unwrap();
                batches.push(rows);
            }
            assert_eq!(newest.digest(), Some(digest), "{name}");
            let record: Vec<u8> = connection.get(keys.schema(&newest.schema_hash)).unwrap();
            TableRecord::parse(&record, &newest.schema_hash).unwrap();
        }
        batches
    }

    /// The rows of the duplicate as sorted lines `id|name|ts[|extra]`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for rows in self.duplicate() {
            let text = |array: &dyn Array, row: usize, value: String| {
                if array.is_null(row) { "NULL".to_owned() } else { value }
            };
            let column = |name: &str| rows.column_by_name(name).unwrap();
            for row in 0..rows.num_rows() {
                let (id, name, ts) = (column("id"), column("name"), column("ts"));
                let mut cells = vec![
                    text(id, row, id.as_primitive::<Int64Type>().value(row).to_string()),
                    text(name, row, name.as_string::<i32>().value(row).to_owned()),
                    text(
                        ts,
                        row,
                        ts.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
                    ),
                ];
                if let Some(extra) =
                    rows.column_by_name("extra").filter(|extra| extra.is_valid(row))
                {
                    cells.push(extra.as_string::<i32>().value(row).to_owned());
                }
                lines.push(cells.join("|"));
            }
        }
        lines.sort();
        lines
    }

    /// The same of the source.
    pub(crate) fn source(&self, columns: &str) -> Vec<String> {
        let mut lines = self.sql(&format!("SELECT {columns} FROM d.t"));
        for line in &mut lines {
            if columns.contains("extra")
                && line.ends_with("|NULL")
                && line.matches('|').count() == 3
            {
                line.truncate(line.len() - "|NULL".len());
            }
        }
        lines.sort();
        lines
    }

    #[track_caller]
    pub(crate) fn assert_same(&self, columns: &str) {
        let (source, duplicate) = (self.source(columns), self.lines());
        assert_eq!(duplicate.len(), source.len());
        assert!(duplicate == source, "the rows differ");
    }

    /// Every key that is there and that no manifest accounts for.
    pub(crate) fn strays(&self) -> Vec<String> {
        let keys = Keys::new("log");
        let mut connection = self.connection();
        let all: Vec<String> = connection.keys("*").unwrap();
        let mut known: BTreeSet<String> = [keys.run()].into();
        for key in all.iter().filter(|key| key.starts_with("log:m:")) {
            let name = key.strip_prefix("log:m:").unwrap();
            let text: Vec<u8> = connection.get(key).unwrap();
            let manifest = Manifest::parse(&text, name).unwrap();
            known.insert(key.clone());
            for version in &manifest.versions {
                known.insert(keys.schema(&version.schema_hash));
                let ordinals = 0..u32::try_from(version.blocks.len()).unwrap();
                known.extend(ordinals.map(|ordinal| keys.block(name, version.generation, ordinal)));
            }
        }
        all.into_iter().filter(|key| !known.contains(key) && !key.starts_with("log:s:")).collect()
    }
}

pub(crate) fn plain() -> Cloud {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    cloud.table(DAY_PARTITIONED);
    cloud
}

/// Kills a backup while it reads, after `blocks` blocks came to be.
pub(crate) fn kill_midway(cloud: &Cloud, blocks: usize) {
    let count = |cloud: &Cloud| -> usize {
        let keys: Vec<String> = cloud.connection().keys("log:b:*").unwrap();
        keys.len()
    };
    let before = count(cloud);
    // Rows of the next table partition come only after a while, so the kill meets an unfinished one.
    cloud.fault("ReadRows", "delay_ms:3000", blocks as u64, 1);
    let mut child = cloud.start(&["--lanes", "1"]);
    wait_until("a block", || count(cloud) > before + blocks - 1);
    child.kill().unwrap();
    child.wait().unwrap();
    cloud.no_faults();
}
