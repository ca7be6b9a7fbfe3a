//! A lost BigQuery table: the stand-in, a Redis with its duplicate, a plan, and what the table was.
//!
//! Invariant: the duplicate is not written by the product's backup; tables are compared by what the stand-in shows.

use crate::lost_rows::rows_of;
use crate::world::Ran;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use fixtures::servers::{BigQueryOptions, BigQueryServer, Redis, RedisOptions};
use redis::Commands;
use schemas::block::{self, CODEC_ZSTD_ARROW, Header};
use schemas::digest::DIGEST_VERSION;
use schemas::manifest::{
    self, BlockEntry, Keys, Manifest, Run, RunPartition, TableRecord, Version,
};
use serde_json::{Value, json};
use stages::connect::bigquery::BigQuery as Client;
use stages::load::bigquery::{ReadBack, ReadOptions, WriteTable};
use stages::transform::arrow_rows;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const PREFIX: &str = "log:builds";

/// One test's systems and files.
pub(crate) struct Lost {
    pub(crate) bigquery: BigQueryServer,
    pub(crate) redis: Redis,
    pub(crate) folder: TempDir,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) client: Client,
    pub(crate) schema: SchemaRef,
    pub(crate) resource: Value,
    /// Row access policies that the table had.
    pub(crate) policies: Option<Value>,
    row_key: bool,
}

/// Rows of one table partition.
#[derive(Clone)]
pub(crate) struct Days {
    pub(crate) name: String,
    pub(crate) rows: RecordBatch,
}

/// Who may read the table.
fn readers() -> Value {
    json!([{"role": "roles/bigquery.dataViewer", "members": ["group:town@example.com"]}])
}

/// A table with every type, partitioned by day.
pub(crate) fn table() -> Value {
    json!({
        "schema": {"fields": [
            {"name": "ts", "type": "TIMESTAMP", "description": "when"},
            {"name": "log_id", "type": "STRING", "mode": "REQUIRED"},
            {"name": "raw", "type": "BYTES"}, {"name": "n", "type": "INT64"},
            {"name": "f", "type": "FLOAT64"}, {"name": "num", "type": "NUMERIC"},
            {"name": "big", "type": "BIGNUMERIC"}, {"name": "ok", "type": "BOOL"},
            {"name": "d", "type": "DATE"}, {"name": "t", "type": "TIME"}, {"name": "dt", "type": "DATETIME"},
            {"name": "geo", "type": "GEOGRAPHY"}, {"name": "js", "type": "JSON"},
            {"name": "iv", "type": "INTERVAL"},
            {"name": "rg", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
            {"name": "tags", "type": "RECORD", "mode": "REPEATED", "fields": [
                {"name": "k", "type": "STRING"}, {"name": "v", "type": "FLOAT64"}]},
            {"name": "rec", "type": "RECORD", "fields": [
                {"name": "a", "type": "INT64"}, {"name": "b", "type": "STRING", "mode": "REPEATED"}]},
        ]},
        "timePartitioning": {"type": "DAY", "field": "ts"}, "clustering": {"fields": ["log_id"]},
        "labels": {"team": "town"}, "description": "what the builds said", "requirePartitionFilter": true,
    })
}

impl Lost {
    /// Starts the servers; the dataset `logs` has a table `original` of the same shape, and none called `builds`.
    pub(crate) fn new(row_key: bool) -> Self {
        let bigquery = BigQueryServer::start(BigQueryOptions::default()).unwrap();
        let redis = Redis::start(RedisOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let plan = plan(&bigquery, &redis, row_key);
        fs::write(folder.path().join("rekindle.toml"), &plan).unwrap();
        let parsed = schemas::Plan::parse(&plan, &|_| None, &|_| Ok(String::new())).unwrap();
        let section = parsed.bigquery.unwrap();
        let (client, schema, resource) = runtime.block_on(async {
            let client =
                stages::connect::bigquery::connect(&section, Duration::from_secs(5)).await.unwrap();
            client.ensure_dataset("logs", "us-central1").await.unwrap();
            client.insert_table("logs", "original", &table()).await.unwrap();
            let open = json!({"requirePartitionFilter": false});
            client.patch_table("logs", "original", &open).await.unwrap();
            let options = ReadOptions { streams: 1, ..ReadOptions::default() };
            let session = ReadBack::open(&client, "logs", "original", &options).await.unwrap();
            client.insert_table("logs", "builds", &table()).await.unwrap();
            let resource = client.table("logs", "builds").await.unwrap().unwrap();
            client.delete_table("logs", "builds").await.unwrap();
            (client, arrow_rows::read_schema(&session.schema).unwrap(), resource)
        });
        let policies = None;
        Self { bigquery, redis, folder, runtime, client, schema, resource, policies, row_key }
    }

    /// Some days of rows, skewed, with rows without a day, nulls and identical rows.
    pub(crate) fn days(&self, rows: usize) -> Vec<Days> {
        let day = |day: Option<i64>, count: usize| {
            let name = day.map_or("__NULL__".to_owned(), |day| format!("202611{:02}", day + 1));
            Days { rows: rows_of(&self.schema, day, count, &name), name }
        };
        let mut days =
            vec![day(Some(0), rows), day(Some(1), rows / 4), day(Some(4), 1), day(None, rows / 8)];
        // Legitimately identical rows, unless rows are told apart by their key.
        if !self.row_key {
            let twice = days[1].rows.slice(0, 10);
            let parts = [&days[1].rows, &twice];
            days[1].rows = arrow::compute::concat_batches(&self.schema, parts).unwrap();
        }
        days.sort_by(|a, b| a.name.cmp(&b.name));
        days
    }

    /// Appends rows to a table of `logs`, or to `dataset.table`, through a committed stream.
    pub(crate) fn append(&self, table: &str, days: &[Days]) {
        let (dataset, table) = table.split_once('.').unwrap_or(("logs", table));
        self.runtime.block_on(async {
            let write = WriteTable::new(&self.client, dataset, table);
            let stream = write.create_stream().await.unwrap();
            let schema = arrow_rows::schema_message(&self.schema).unwrap();
            let mut appender = write.append(&stream, schema);
            let mut offset = 0;
            for day in days {
                for message in arrow_rows::cut(&day.rows, 1 << 20).unwrap() {
                    let rows = message.rows as u64;
                    let piece =
                        stages::load::bigquery::Piece { offset, rows, message: message.bytes };
                    appender.push(piece).await.map_err(|_| "append").unwrap();
                    offset += rows;
                }
            }
            appender.finish().await.map_err(|_| "finish").unwrap();
            assert_eq!(write.finalize(&stream).await.unwrap(), Some(offset));
            write.commit(&[stream]).await.unwrap();
        });
    }

    /// Writes one more version of these days into the duplicate, and the record of a complete backup.
    pub(crate) fn back_up(
        &self,
        days: &[Days],
        generation: u64,
        snapshot_us: i64,
        created_ms: Option<i64>,
    ) {
        let mut redis = self.connection();
        let keys = Keys::new(PREFIX);
        let mut resource = self.resource.clone();
        if let Some(ms) = created_ms {
            resource["creationTime"] = json!(ms.to_string());
        }
        let mut record = TableRecord::new("logs", "builds", &resource).unwrap();
        record.iam_policy = Some(json!({ "bindings": readers() }));
        record.row_access_policies.clone_from(&self.policies);
        let (text, hash) = record.to_json();
        let schema_hash = format!("{hash:032x}");
        let _: () = redis.set(keys.schema(&schema_hash), text).unwrap();
        let mut entries = Vec::new();
        for day in days {
            let bodies: Vec<block::Body> = (0..day.rows.num_rows())
                .step_by(1000)
                .flat_map(|from| {
                    let rows = day.rows.slice(from, 1000.min(day.rows.num_rows() - from));
                    block::encode(&[rows]).unwrap()
                })
                .collect();
            let mut version = Version {
                generation,
                snapshot_us,
                last_modified_us: snapshot_us - 1,
                table_created_ms: record.table_created_ms,
                expires_us: None,
                rows: day.rows.num_rows() as u64,
                source_bytes: 0,
                stored_bytes: 0,
                digest: block::digest(&day.rows).unwrap().hex(),
                digest_version: DIGEST_VERSION,
                schema_hash: schema_hash.clone(),
                key_id: None,
                blocks: Vec::new(),
            };
            Self::write_blocks(&mut redis, &record, &day.name, &bodies, &mut version);
            entries.push(Self::publish(&mut redis, &day.name, version));
        }
        let run = Run {
            format: manifest::FORMAT,
            run_id: format!("backup-{generation}"),
            table: "logs.builds".into(),
            table_id: record.table_id.clone(),
            // A table that was created anew after the last complete backup is not the one of its record.
            table_created_ms: self.created_ms(),
            snapshot_us,
            completed_us: snapshot_us,
            schema_hash,
            watermark: None,
            table_partitions: entries,
            held: Vec::new(),
            census: None,
            check: String::new(),
        };
        let _: () = redis.set(keys.run(), run.to_json()).unwrap();
    }

    /// Writes the blocks of one version and notes them in it.
    fn write_blocks(
        redis: &mut redis::Connection,
        record: &TableRecord,
        table_partition: &str,
        bodies: &[block::Body],
        version: &mut Version,
    ) {
        let (_, schema_hash) = record.to_json();
        for (ordinal, body) in (0..).zip(bodies) {
            let header = Header {
                codec: CODEC_ZSTD_ARROW,
                is_last: ordinal as usize + 1 == bodies.len(),
                rows: body.rows,
                ordinal,
                generation: version.generation,
                snapshot_us: version.snapshot_us,
                last_modified_us: version.last_modified_us,
                expires_us: None,
                table_created_ms: record.table_created_ms,
                digest: body.digest,
                digest_version: DIGEST_VERSION,
                schema_hash,
                raw_bytes: body.raw_bytes,
                body_bytes: body.bytes.len() as u64,
                body_xxh3: body.xxh3,
                key_id: None,
                table: "logs.builds".into(),
                table_id: record.table_id.clone(),
                table_partition: table_partition.to_owned(),
            };
            let head = header.to_bytes();
            version.blocks.push(BlockEntry::of(body, head.len()));
            version.stored_bytes += (head.len() + body.bytes.len()) as u64;
            let key = Keys::new(PREFIX).block(table_partition, version.generation, ordinal);
            let _: () = redis.set(key, [head, body.bytes.clone()].concat()).unwrap();
        }
    }

    fn created_ms(&self) -> i64 {
        self.resource["creationTime"].as_str().unwrap().parse().unwrap()
    }

    fn publish(redis: &mut redis::Connection, name: &str, version: Version) -> RunPartition {
        let key = Keys::new(PREFIX).manifest(name);
        let stored: Option<Vec<u8>> = redis.get(&key).unwrap();
        let mut versions = vec![version];
        if let Some(text) = stored {
            versions.extend(Manifest::parse(&text, name).unwrap().versions);
        }
        let manifest = Manifest {
            format: manifest::FORMAT,
            table: "logs.builds".into(),
            table_id: "code-town:logs.builds".into(),
            table_partition: name.to_owned(),
            versions,
            retired: Vec::new(),
            check: String::new(),
        };
        let _: () = redis.set(&key, manifest.to_json()).unwrap();
        RunPartition::of(&manifest).unwrap()
    }

    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.redis.url()).unwrap().get_connection().unwrap()
    }

    /// All rows of a table as REST shows them, sorted.
    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        self.rows_of(&format!("datasets/logs/tables/{table}"))
    }

    fn rows_of(&self, path: &str) -> Vec<String> {
        let mut rows = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.rest(
                "GET",
                &format!(
                    "bigquery/v2/projects/code-town/{path}/data?maxResults=50000&pageToken={token}"
                ),
                None,
            );
            rows.extend(page["rows"].as_array().into_iter().flatten().map(Value::to_string));
            match page["pageToken"].as_str() {
                Some(next) if !next.is_empty() => next.clone_into(&mut token),
                _ => break,
            }
        }
        rows.sort_unstable();
        rows
    }

    /// Calls the stand-in.
    pub(crate) fn rest(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/{path}", self.bigquery.rest_url());
        self.runtime.block_on(async {
            let mut request = reqwest::Client::new().request(method.parse().unwrap(), url);
            if let Some(body) = body {
                request = request.json(&body);
            }
            let text = request.send().await.unwrap().text().await.unwrap();
            serde_json::from_str(&text).unwrap_or(Value::Null)
        })
    }

    /// Plans a fault.
    pub(crate) fn fault(&self, method: &str, kind: &str, after: u64) {
        let fault = json!({"method": method, "kind": kind, "after": after, "times": 1});
        self.rest("POST", "stand-in/faults", Some(fault));
    }

    /// `restore bigquery --json` and more words, to its end.
    pub(crate) fn restore(&self, more: &[&str]) -> Ran {
        Ran::of(&self.command(more).output().unwrap())
    }

    /// The same, started and left running.
    pub(crate) fn start(&self, more: &[&str]) -> Child {
        self.command(more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = self.rekindle(&["restore", "bigquery", "--json", "--progress", "none"]);
        command
            .args(if more.contains(&"--retry-for") { &[][..] } else { &["--retry-for", "20s"] })
            .args(more);
        command
    }

    /// The binary, ready to run in this folder.
    pub(crate) fn rekindle(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(words).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command
    }

    /// Asserts that the table holds exactly these rows, that its metadata is back and staging is gone.
    #[track_caller]
    pub(crate) fn assert_restored(&self) {
        assert!(
            self.rows("builds") == self.rows("original"),
            "the restored table differs from the original"
        );
        let found = self.runtime.block_on(self.client.table("logs", "builds")).unwrap().unwrap();
        for field in ["schema", "clustering", "labels", "description", "requirePartitionFilter"] {
            assert_eq!(found[field], self.resource[field], "{field}");
        }
        assert_eq!(found["timePartitioning"]["field"], "ts");
        let policy = self.runtime.block_on(self.client.table_iam_policy("logs", "builds")).unwrap();
        assert_eq!(policy["bindings"], readers());
        let staging = self.runtime.block_on(self.client.tables("staging")).unwrap();
        assert!(staging.is_empty(), "{staging:?}");
    }

    /// Forgets the state of all runs, and loses the table.
    pub(crate) fn lose_again(&self) {
        if self.state().exists() {
            fs::remove_dir_all(self.state()).unwrap();
        }
        self.runtime.block_on(self.client.delete_table("logs", "builds")).unwrap();
        for table in self.runtime.block_on(self.client.tables("staging")).unwrap_or_default() {
            let name = table["tableReference"]["tableId"].as_str().unwrap().to_owned();
            self.runtime.block_on(self.client.delete_table("staging", &name)).unwrap();
        }
    }

    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.folder.path().join(".rekindle")
    }
}

fn plan(bigquery: &BigQueryServer, redis: &Redis, row_key: bool) -> String {
    let key = if row_key { "row_key = \"log_id\"\n" } else { "" };
    format!(
        "[objectives]\nbigquery = {{ rto = \"24h\", rpo = \"3650d\" }}\n\
         [bigquery]\nproject = \"code-town\"\nlocation = \"us-central1\"\nstaging_dataset = \"staging\"\n\
         endpoint = \"{}\"\ngrpc_endpoint = \"{}\"\n[redis]\nurl = \"{}\"\n\
         [[route]]\nname = \"builds\"\ntable = \"bigquery:logs.builds\"\ntype = \"blocks\"\nkey = \"{PREFIX}\"\n{key}",
        bigquery.rest_url(),
        bigquery.grpc_url(),
        redis.url()
    )
}
