//! `init`, `plan --sample` and `schema`: what a person meets before the first run.
//!
//! Invariant: a sample shows what a run then writes, and a plan that `init` wrote runs as it is.

use crate::bad_input::{USERS, world};
use crate::world::{Ran, World};
use fixtures::servers::{BigQueryOptions, BigQueryServer, PostgresOptions, RedisOptions};
use serde_json::{Value, json};
use std::fs;

const ENV: [&str; 4] = ["--alloydb", "${env:ALLOYDB_URL}", "--redis", "${env:REDIS_URL}"];

fn init(world: &World, more: &[&str]) -> Ran {
    world.run(&[&["init"][..], &ENV, more].concat())
}

#[test]
fn a_plan_is_written_from_the_tables_and_runs_as_it_is() {
    // GIVEN tables of every kind that a plan has to decide about
    let world = World::with(PostgresOptions::default(), RedisOptions::default());
    world.sql(
        "create schema shop; create type mood as enum ('sad', 'happy'); create type spot as (x int, y int); \
         create table users (id bigint primary key, name text, joined timestamptz, place spot, mood mood); \
         insert into users values (1, 'ann', '2026-01-31Z', '(1,2)', 'sad'), (2, 'bob', null, null, null); \
         create table shop.users (code text, \"Odd Name\" date, n int, primary key (code, \"Odd Name\")); \
         insert into shop.users values ('a:b', '2026-01-31', 7); \
         create table links (a int, b int, primary key (b, a)); insert into links values (1, 2); \
         create table measured (at float8 primary key, v int); \
         create table plain (a int); create view seen as select * from users; \
         create table parted (id int, at date, primary key (id, at)) partition by range (at); \
         create table parted_1 partition of parted for values from ('2026-01-01') to ('2027-01-01'); \
         insert into parted values (5, '2026-05-05')",
    );
    // WHEN a plan is written
    let told = init(&world, &[]).expect(0).stdout;
    assert!(told.starts_with("wrote rekindle.toml: 4 routes, 3 tables left out"), "{told}");
    let text = fs::read_to_string(world.folder.path().join("rekindle.toml")).unwrap();
    // THEN secrets stay outside, and what cannot be carried says why
    assert!(text.contains("url = \"${env:ALLOYDB_URL}\"") && !text.contains("127.0.0.1"), "{text}");
    for part in [
        "# No route for public.plain: no primary key",
        "# No route for public.seen: a view",
        "# route measured: key column at has type float8",
        "as_text = [\"place\"]",
        "# expire_at, ttl_from and newest_by can be: joined",
        "key = \"shop:users:{code|urlencode}:{Odd Name}\"",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    // AND every command takes it as it is
    world.run(&["plan"]).expect(0);
    world.rebuild(&[]).expect(0);
    assert_eq!(world.redis(&["HGET", "users:1", "place"]), "(1,2)");
    assert_eq!(world.redis(&["HGET", "shop:users:a%3Ab:2026-01-31", "n"]), "7");
    assert_eq!(world.redis(&["HGETALL", "links:2:1"]), "a\n1\nb\n2");
    assert_eq!(world.redis(&["HGET", "parted:5:2026-05-05", "id"]), "5");

    // AND it is never overwritten
    init(&world, &[]).expect(2).says(&["rekindle.toml is there already; it is not overwritten"]);
    assert_eq!(fs::read_to_string(world.folder.path().join("rekindle.toml")).unwrap(), text);
    let object = init(&world, &["--plan", "other.toml", "--json"]).expect(0).summary();
    assert_eq!(
        object,
        json!({"command": "init", "plan": "other.toml", "routes": 4, "commented_out": 3})
    );
}

#[test]
fn init_says_what_it_lacks() {
    let world = World::with(PostgresOptions::default(), RedisOptions::default());
    init(&world, &[]).expect(2).says(&["no table was found", "hint: "]);
    world.run(&["init", "--redis", "redis://h"]).expect(2);
    let ran = world.run(&["init", "--redis", "http://h", "--alloydb", "${env:ALLOYDB_URL}"]);
    ran.expect(2).says(&["redis.url: must start with redis:// or rediss://"]);
    let ran = world.run(&["init", "--redis", "redis://h", "--alloydb", "${env:NOPE}"]);
    ran.expect(2).says(&["environment variable \"NOPE\" is not set"]);
    assert!(!world.folder.path().join("rekindle.toml").exists());
}

/// A stand-in of BigQuery with table `logs.lines` of two days, three rows each, and what reads it.
struct Lines {
    bigquery: BigQueryServer,
    world: World,
}

impl Lines {
    fn new() -> Self {
        let lines = Self {
            bigquery: BigQueryServer::start(BigQueryOptions::default()).unwrap(),
            world: world(),
        };
        for dataset in ["logs", "staging"] {
            lines.post(
                "datasets",
                &json!({"datasetReference": {"datasetId": dataset}, "location": "US"}),
            );
        }
        let fields = json!([
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "ts", "type": "TIMESTAMP"},
            {"name": "words", "type": "STRING", "mode": "REPEATED"},
        ]);
        for (table, partitioning) in
            [("lines", json!({"type": "DAY", "field": "ts"})), ("plain", Value::Null)]
        {
            let mut body =
                json!({"tableReference": {"tableId": table}, "schema": {"fields": fields}});
            if !partitioning.is_null() {
                body["timePartitioning"] = partitioning;
            }
            lines.post("datasets/logs/tables", &body);
        }
        let row = |n: u32| {
            let ts = format!("2026-11-{:02}T04:05:06Z", n / 3 + 1);
            json!({"json": {"id": n.to_string(), "ts": ts, "words": ["a", format!("w{n}")]}})
        };
        let rows: Vec<Value> = (0..6).map(row).collect();
        lines.post("datasets/logs/tables/lines/insertAll", &json!({"rows": rows}));
        lines
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) {
        let url = format!("{}/bigquery/v2/projects/p/{path}", self.bigquery.rest_url());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let code = runtime.block_on(async {
            reqwest::Client::new().post(url).json(body).send().await.unwrap().status().as_u16()
        });
        assert_eq!(code, 200, "{path}");
    }

    /// The tables of the dataset for results of queries.
    fn staged(&self) -> Value {
        let url =
            format!("{}/bigquery/v2/projects/p/datasets/staging/tables", self.bigquery.rest_url());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let text =
            runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() });
        let list: Value = serde_json::from_str(&text).unwrap();
        list["tables"].as_array().map(Vec::len).unwrap_or_default().into()
    }

    fn section(&self) -> String {
        format!(
            "[bigquery]\nproject = \"p\"\nstaging_dataset = \"staging\"\nendpoint = \"{}\"\ngrpc_endpoint = \"{}\"\n",
            self.bigquery.rest_url(),
            self.bigquery.grpc_url()
        )
    }
}

#[test]
fn tables_of_bigquery_become_duplicates_in_a_first_plan() {
    let lines = Lines::new();
    let (rest, grpc) = (lines.bigquery.rest_url(), lines.bigquery.grpc_url());
    let flags = [
        "--bigquery-project",
        "p",
        "--bigquery-endpoint",
        &rest,
        "--bigquery-grpc-endpoint",
        &grpc,
    ];
    let world = &lines.world;
    fs::remove_file(world.folder.path().join("rekindle.toml")).unwrap();
    let told = init(world, &flags).expect(0).stdout;
    assert!(told.starts_with("wrote rekindle.toml: 3 routes, 0 tables left out"), "{told}");
    let text = fs::read_to_string(world.folder.path().join("rekindle.toml")).unwrap();
    for part in [
        "key = \"dup:logs:lines\"  # a prefix",
        "# Partitioned by ts.",
        "unless watermark names one of: ts",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    world.run(&["plan"]).expect(0);
    let ran = world.run(&["backup", "bigquery", "--json", "--progress", "none"]).expect(0);
    assert_eq!(ran.summary()["tables"].as_array().map(Vec::len), Some(2), "{}", ran.stdout);
}

#[test]
fn a_sample_shows_rows_and_the_commands_that_a_run_sends() {
    // GIVEN rows that are written, expired and rejected, with bytes that need quotes
    let world = world();
    world.sql(
        "create table notes (id int primary key, body text, until timestamptz); \
         insert into notes values (1, E'say \"quux\"\\n', '2099-01-31Z'), (2, 'old', '2000-01-01Z'); \
         create table marks (id int primary key, v text); insert into marks values (1, null), (2, 'x')",
    );
    let notes = "[[route]]\nname = \"notes\"\ntable = \"alloydb:notes\"\nkey = \"note:{id}\"\ntype = \"hash\"\n\
        columns = [\"body\"]\nexpire_at = \"until\"\n";
    let marks = "[[route]]\nname = \"marks\"\ntable = \"alloydb:marks\"\nkey = \"mark:{id}\"\ntype = \"string\"\n\
        columns = [\"v\"]\nwhere = \"id < 3\"\non_conflict = \"keep\"\n";
    world.plan(&[USERS, notes, marks].concat());
    let before = world.redis(&["DBSIZE"]);

    // WHEN they are sampled
    let ran = world.run(&["plan", "--sample", "2", "--log-level", "trace"]).expect(0);

    // THEN rows and commands stand on stdout, and nothing of them in the log
    for line in [
        "\nsample of route users: 2 rows of public.users\n",
        "    id = 1\n    name = n1\n    email = e1\n  -> written\n    MULTI\n    DEL user:1\n    HSET user:1 name n1 email e1\n    EXEC\n",
        "    body = \"say \\\"quux\\\"\\n\"\n    until = 2099-01-31T00:00:00Z\n  -> written, expires at 2099-01-31T00:00:00Z\n",
        "    HSET note:1 body \"say \\\"quux\\\"\\n\"\n    PEXPIREAT note:1 4073500800000\n",
        "    body = old\n    until = 2000-01-01T00:00:00Z\n  -> expired: not written\n",
        "    v = null\n  -> rejected: column v is null",
        "    v = x\n  -> written\n    SET mark:2 x NX\n",
    ] {
        assert!(ran.stdout.contains(line), "{line:?} is not in {}", ran.stdout);
    }
    assert!(!ran.stderr.contains("quux"), "{}", ran.stderr);
    assert_eq!(world.redis(&["DBSIZE"]), before);
    assert!(!world.state().exists());

    // AND what a run writes is what was shown
    let object =
        world.run(&["plan", "--sample", "1", "--route", "notes", "--json"]).expect(0).summary();
    assert_eq!(object["samples"].as_array().map(Vec::len), Some(1));
    let shown = &object["samples"][0]["rows"][0];
    assert_eq!(shown["row"]["body"], "say \"quux\"\n");
    assert_eq!(shown["commands"][2], json!(["HSET", "note:1", "body", "say \"quux\"\n"]));
    world.rebuild(&["--route", "notes"]).expect(0);
    assert_eq!(world.redis(&["HGET", "note:1", "body"]), "say \"quux\"");
    assert_eq!(world.redis(&["PEXPIRETIME", "note:1"]), "4073500800000");
}

#[test]
fn a_sample_of_views_orders_and_empty_tables_is_as_small_as_asked() {
    let world = world();
    world.sql(
        "create view v as select id % 7 as k, name, id from users; create table nothing (id int primary key, v int)",
    );
    let view = "[[route]]\nname = \"v\"\ntable = \"alloydb:v\"\nkey = \"v:{k}\"\ntype = \"json\"\n\
        on_collision = \"last\"\norder_by = \"id\"\nsplit_by = \"k\"\n";
    let query = "[[route]]\nname = \"q\"\nquery = \"select id, name from users\"\nfrom = \"alloydb\"\n\
        key = \"q:{id}\"\ntype = \"json\"\non_collision = \"error\"\n";
    let nothing = USERS.replace("users", "nothing").replace("user:", "nothing:");
    world.plan(&[view, query, &nothing].concat());
    let object = world.run(&["plan", "--sample", "3", "--json"]).expect(0).summary();
    let rows = |index: usize| object["samples"][index]["rows"].as_array().unwrap().len();
    assert_eq!((rows(0), rows(1), rows(2)), (3, 3, 0), "{object:#}");
    assert_eq!(object["samples"][2]["notes"][0], "0 of 3 rows were found");
    assert_eq!(object["samples"][0]["rows"][0]["commands"][0][0], "MSET");
}

#[test]
fn a_sample_of_bigquery_reads_one_partition_and_leaves_nothing_behind() {
    let lines = Lines::new();
    let table = "[[route]]\nname = \"lines\"\ntable = \"bigquery:logs.lines\"\nkey = \"line:{id}\"\ntype = \"hash\"\n\
        on_collision = \"error\"\n";
    let query = "[[route]]\nname = \"late\"\nquery = \"SELECT id, words FROM logs.lines WHERE id > 2\"\nfrom = \"bigquery\"\n\
        key = \"late:{id}\"\ntype = \"json\"\non_collision = \"error\"\n";
    let blocks = "[[route]]\nname = \"copy\"\ntable = \"bigquery:logs.lines\"\nkey = \"dup\"\ntype = \"blocks\"\n";
    lines.world.plan(&[lines.section().as_str(), table, query, blocks].concat());
    let ran = lines.world.run(&["plan", "--sample", "2", "--json"]).expect(0);
    let ran = ran.says(&["a duplicate holds many rows per value; its routes are not sampled"]);
    let object = ran.summary();
    let of_table = object["samples"][0]["rows"].as_array().unwrap();
    assert_eq!(of_table.len(), 2, "{object:#}");
    for row in of_table {
        let id = row["row"]["id"].as_str().unwrap();
        assert_eq!(row["commands"][1], json!(["DEL", format!("line:{id}")]), "{row:#}");
        assert_eq!(row["commands"][2][0], "HSET");
        assert!(row["row"]["words"].as_str().unwrap().contains(&format!("w{id}")), "{row:#}");
    }
    let of_query = object["samples"][1]["rows"].as_array().unwrap();
    assert_eq!(of_query.len(), 2, "{object:#}");
    assert!(of_query.iter().all(|row| row["row"]["id"].as_str().unwrap() > "2"), "{object:#}");
    assert_eq!(lines.staged(), 0);
}

#[test]
fn the_schema_is_printed_without_a_plan() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rekindle"));
    let output = command.arg("schema").current_dir(folder.path()).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["properties"]["route"]["items"]["properties"]["key"].is_object());
}
