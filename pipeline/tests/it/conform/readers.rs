//! Everything that rows of an application are read from. A new way to keep rows in a Redis is one line of this list.
//!
//! Invariant: what a line has to read is written by the test itself, by a connection that shares no code with the product.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use fixtures::servers::Redis;
use rekindle::spool::{Cut, Facts, Looked, Pages, Search, cut};
use schemas::{Plan, ReverseRoute};
use serde_json::json;
use stages::connect::redis::Endpoint;
use stages::extract::bigquery::table_schema;
use stages::extract::redis_rows::{Held, RedisRows};
use stages::transform::redis_rows::{Reject, decode};
use stages::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Bytes of text of every row.
pub(super) const TEXT_BYTES: usize = 700;
/// How long an attempt to connect may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One way that rows are kept.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) held: Held,
    /// The command that reads a row of it.
    pub(super) command: &'static str,
    route: &'static str,
    put: fn(&mut redis::Pipeline, u64, &str),
}

/// The list.
pub(super) const READERS: [Line; 4] = [
    Line {
        name: "hashes",
        held: Held::Hashes,
        command: "hgetall",
        route: "type = \"hash\"\nkey = \"h:{id}\"",
        put: |pipe, id, text| {
            pipe.hset(format!("h:{id}"), "name", text);
        },
    },
    Line {
        name: "texts",
        held: Held::Texts,
        command: "get",
        route: "type = \"json\"\nkey = \"j:{id}\"",
        put: |pipe, id, text| {
            pipe.set(format!("j:{id}"), json!({"name": text}).to_string());
        },
    },
    Line {
        name: "one stream",
        held: Held::Streams,
        command: "xrange",
        route: "type = \"stream\"\nkey = \"x\"",
        put: |pipe, id, text| entry(pipe, "x", id, text),
    },
    Line {
        name: "many streams",
        held: Held::Streams,
        command: "xrange",
        route: "type = \"stream\"\nkey = \"s:{shard}\"",
        put: |pipe, id, text| entry(pipe, &format!("s:{}", id / 30), id, text),
    },
];

fn entry(pipe: &mut redis::Pipeline, key: &str, id: u64, text: &str) {
    let at = format!("{}-{}", 1 + id / 3, 1 + id % 3);
    pipe.cmd("XADD").arg(key).arg(at).arg("id").arg(id).arg("name").arg(text);
}

/// What one read of everything brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// The ids, sorted.
    pub(super) ids: Vec<i64>,
    /// The replies of every page, in order.
    pub(super) pages: Vec<Bytes>,
    pub(super) rejects: Vec<Reject>,
    pub(super) vanished: u64,
}

impl Line {
    /// Puts rows of these ids there.
    pub(super) fn put(&self, redis: &Redis, ids: std::ops::Range<u64>) {
        let client = redis::Client::open(redis.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let ids: Vec<u64> = ids.collect();
        for ids in ids.chunks(1_000) {
            let mut pipe = redis::pipe();
            for id in ids {
                (self.put)(&mut pipe, *id, &format!("{id} {}", "x".repeat(TEXT_BYTES)));
            }
            pipe.query::<()>(&mut connection).unwrap();
        }
    }

    /// A key of it.
    pub(super) fn key(&self) -> &'static str {
        match self.name {
            "hashes" => "h:7",
            "texts" => "j:7",
            "one stream" => "x",
            _ => "s:0",
        }
    }

    fn plan(&self) -> Plan {
        let text = format!(
            "[bigquery]\nproject = \"p\"\nstaging_dataset = \"s\"\n[redis]\nurl = \"redis://nowhere\"\n\
             [[route]]\nname = \"rows\"\ntable = \"bigquery:d.t\"\nuse = [\"backup\"]\n{}\n",
            self.route
        );
        Plan::parse(&text, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap()
    }

    /// Looks for its rows and writes their keys to a spool.
    pub(super) async fn look(
        &self,
        rows: &RedisRows,
        path: &Path,
        retry_for: Duration,
        cancel: &CancellationToken,
    ) -> Result<Looked> {
        let plan = self.plan();
        let (held, template) = (self.held, &plan.routes[0].key);
        Search { rows, held, template, retry_for, cancel }.collect(path).await
    }

    /// Reads everything that a spool names.
    pub(super) async fn read(
        &self,
        rows: &RedisRows,
        (path, facts): (&Path, &Facts),
        retry_for: Duration,
    ) -> Result<Read> {
        let mut read = Read::default();
        for part in cut(path, facts)? {
            self.read_part(rows, (path, part), retry_for, &mut read).await?;
        }
        read.ids.sort_unstable();
        Ok(read)
    }

    async fn read_part(
        &self,
        rows: &RedisRows,
        (path, part): (&Path, Cut),
        retry_for: Duration,
        read: &mut Read,
    ) -> Result<()> {
        let (reverse, schema) = self.shape();
        let mut pages = Pages::open(path, part, self.held, rows.reader(), retry_for)?;
        while let Some(page) = pages.next(|_| true).await? {
            let decoded = decode(&reverse, &schema, self.held, &page)?;
            let ids = decoded.rows.column(0).as_primitive::<Int64Type>();
            read.ids.extend(ids.values().iter());
            read.vanished += decoded.vanished;
            read.rejects.extend(decoded.rejects);
            read.pages.push(page.replies);
        }
        Ok(())
    }

    fn shape(&self) -> (ReverseRoute, SchemaRef) {
        let resource = json!({"schema": {"fields": [
            {"name": "id", "type": "INT64"}, {"name": "name", "type": "STRING"}, {"name": "shard", "type": "INT64"},
        ]}});
        let (schema, required) = table_schema("t", &resource).unwrap();
        let plan = self.plan();
        let reverse = ReverseRoute::bind_required(&plan.routes[0], schema, &required).unwrap();
        let whole = |name| Field::new(name, DataType::Int64, true);
        let fields = vec![whole("id"), Field::new("name", DataType::Utf8, true), whole("shard")];
        (reverse, Arc::new(Schema::new(fields)))
    }
}

/// A server by its port, with or without a proxy in front of it.
pub(super) fn endpoint(port: u16) -> Endpoint {
    Endpoint::parse(&format!("redis://127.0.0.1:{port}/0"), TIMEOUT).unwrap()
}

/// The same to look for rows in.
pub(super) fn rows_at(port: u16) -> RedisRows {
    RedisRows::new(endpoint(port)).unwrap()
}

/// The kind of a failure, told with its text.
pub(super) fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> stages::Kind {
    let error: Error = outcome.expect_err("it went well");
    println!("{error}");
    error.kind()
}
