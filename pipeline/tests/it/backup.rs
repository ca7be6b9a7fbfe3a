//! `backup bigquery` against the BigQuery stand-in and a real Redis: only what changed, killed, damaged, refused.
//!
//! Invariant: whatever happened to the backup or the source, what the duplicate publishes decodes to exactly the rows
//! that the source had.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE, kill_midway, plain};
use crate::world::Ran;
use fixtures::servers::RedisOptions;
use redis::Commands;
use serde_json::{Value, json};

#[test]
fn six_backups_follow_every_kind_of_change_and_read_only_what_changed() {
    let cloud = plain();
    for day in 1..=4 {
        cloud.insert(day, 0..400);
    }
    cloud.insert(0, 0..30);
    kill_midway(&cloud, 2);
    let first = cloud.backup(&[]).expect(0).summary();
    cloud.assert_same("id, name, ts");
    assert_eq!(first["tables"][0]["rows"], 1_630);
    assert_eq!(cloud.strays(), Vec::<String>::new());
    cloud.rows_read();

    // Nothing changed: nothing is read.
    let second = cloud.backup(&[]).expect(0).summary();
    assert_eq!((cloud.rows_read(), &second["tables"][0]["kept"]), (0, &json!(5)));

    // A new day, late rows of an old one, legitimately identical rows.
    cloud.insert(5, 0..400);
    cloud.insert(2, 1_000..1_050);
    cloud.insert(2, 1_000..1_050);
    cloud.backup(&[]).expect(0);
    cloud.assert_same("id, name, ts");
    let read = cloud.rows_read();
    assert!(read <= (400 + 500) * 12 / 10, "{read} rows were read");

    // An update in place, and a new column; the older table partitions keep their schema.
    cloud.sql("UPDATE d.t SET name = 'changed' WHERE id = 7 AND ts < TIMESTAMP '2025-11-02 00:00:00+00:00'");
    cloud.add_column();
    cloud.sql("INSERT INTO d.t (id, name, ts, extra) VALUES (1, 'x', TIMESTAMP '2025-11-06 00:00:00+00:00', 'more')");
    kill_midway(&cloud, 1);
    let told =
        cloud.backup(&[]).expect(0).says(&["d.t: column extra was added (STRING)"]).summary();
    assert_eq!(
        (&told["drift"][0]["change"], &told["drift"][0]["changes_values"]),
        (&json!("added"), &json!(false))
    );
    cloud.assert_same("id, name, ts, extra");
    assert_eq!(cloud.strays(), Vec::<String>::new());
    cloud.rows_read();

    // Deleted rows are a loss until somebody says that they are not.
    cloud.sql("DELETE FROM d.t WHERE id < 10 AND ts < TIMESTAMP '2025-11-02 00:00:00+00:00'");
    cloud.sql("DELETE FROM d.t WHERE ts >= TIMESTAMP '2025-11-03 00:00:00+00:00' AND ts < TIMESTAMP '2025-11-04 00:00:00+00:00'");
    let before = cloud.lines();
    cloud.backup(&[]).expect(4).says(&[
        "d.t$20251101 has fewer rows",
        "20251103",
        "--accept-loss d.t",
    ]);
    assert_eq!(cloud.lines(), before);
    assert_eq!(cloud.recorded().held.len(), 2);
    cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    cloud.assert_same("id, name, ts, extra");
    assert!(cloud.recorded().held.is_empty());
    assert_eq!(cloud.strays(), Vec::<String>::new());
    let status =
        Ran::of(&cloud.command(&["status", "--json"]).output().unwrap()).expect(0).summary();
    assert_eq!(status["run"]["command"], "backup bigquery");
}

#[test]
fn a_read_session_that_ends_in_the_middle_is_made_again() {
    let cloud = plain();
    for day in 1..=4 {
        cloud.insert(day, 0..50);
    }
    let ended = ["the read session ended", "trying again"];
    cloud.fault("ReadRows", "expire_session", 1, 2);
    cloud.backup(&[]).expect(0).says(&ended);
    cloud.assert_same("id, name, ts");
    assert_eq!(cloud.strays(), Vec::<String>::new());
    cloud.fault("ReadRows", "expire_session", 1, 2);
    cloud.verify_full(0);
}

#[test]
fn a_damaged_source_never_overwrites_the_good_copy() {
    let cloud = plain();
    cloud.insert(1, 0..50);
    cloud.insert(2, 0..50);
    cloud.backup(&[]).expect(0);
    let good = cloud.lines();
    cloud.sql("DELETE FROM d.t WHERE id < 5");
    for _ in 0..2 {
        let lost = ["d.t$20251101 has fewer rows than its copy", "its duplicate stays as it is"];
        cloud.backup(&[]).expect(4).says(&lost);
        assert_eq!(cloud.lines(), good);
    }
    cloud.sql("TRUNCATE TABLE d.t");
    for _ in 0..2 {
        cloud.backup(&[]).expect(4).says(&["its duplicate stays as it is", "d.t$20251101"]);
        assert_eq!(cloud.lines(), good);
    }
    cloud.delete_table();
    cloud.backup(&[]).expect(4).says(&["table d.t is missing in bigquery"]);
    cloud.table(DAY_PARTITIONED);
    cloud.insert(1, 0..80);
    for _ in 0..2 {
        cloud.backup(&[]).expect(4).says(&["table d.t was made anew in bigquery"]);
        assert_eq!(cloud.lines(), good);
    }
    cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    cloud.assert_same("id, name, ts");
}

#[test]
fn missing_and_altered_parts_of_the_duplicate_are_named_and_mended() {
    let cloud = plain();
    cloud.insert(1, 0..50);
    cloud.insert(2, 0..50);
    cloud.backup(&[]).expect(0);
    let mut connection = cloud.connection();
    let blocks: Vec<String> = connection.keys("log:b:20251101:*").unwrap();
    let _: () = connection.del(&blocks[0]).unwrap();
    cloud
        .backup(&[])
        .expect(4)
        .says(&["blocks of table partition 20251101 are missing or altered"]);
    cloud.assert_same("id, name, ts");
    let _: () = connection.append("log:m:20251102", " ").unwrap();
    cloud.backup(&[]).expect(4).says(&["the manifest of table partition 20251102 is altered"]);
    cloud.assert_same("id, name, ts");
    let _: () = connection.del("log:m:20251102").unwrap();
    cloud.backup(&[]).expect(4).says(&["the manifest of table partition 20251102 is missing"]);
    cloud.assert_same("id, name, ts");
    let _: () = connection.del("log:run").unwrap();
    cloud.backup(&[]).expect(4).says(&["the record of the last complete backup is missing"]);
    cloud.backup(&[]).expect(0);
}

#[test]
fn a_server_that_could_drop_the_duplicate_or_has_no_room_is_refused() {
    let options = RedisOptions {
        maxmemory: Some("100mb".into()),
        maxmemory_policy: Some("allkeys-lru".into()),
        ..RedisOptions::default()
    };
    let cloud = Cloud::new(options, ROUTE);
    cloud.table(DAY_PARTITIONED);
    cloud.insert(1, 0..50);
    cloud.backup(&[]).expect(5).says(&["may evict the duplicate", "allow_eviction"]);
    assert_eq!(cloud.redis.cli(&["DBSIZE"]).unwrap(), "0");
    cloud.plan(&format!("allow_eviction = true\n{ROUTE}"));
    let summary = cloud.backup(&[]).expect(0).summary();
    assert!(summary["warnings"][0].as_str().unwrap().contains("may evict"), "{summary}");
    cloud.redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    let info = cloud.redis.cli(&["INFO", "memory"]).unwrap();
    let used = info.lines().find_map(|line| line.trim().strip_prefix("used_memory:")).unwrap();
    let limit = (used.parse::<u64>().unwrap() + 50_000).to_string();
    cloud.redis.cli(&["CONFIG", "SET", "maxmemory", &limit]).unwrap();
    cloud.insert(2, 0..50);
    cloud.backup(&[]).expect(5).says(&["bytes in use", "keep_versions"]);
    cloud.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    cloud.backup(&[]).expect(0);
    cloud.assert_same("id, name, ts");
}

#[test]
fn a_table_without_table_partitions_is_copied_whole_or_by_windows() {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    cloud.table("{}");
    cloud.insert(1, 0..50);
    cloud.backup(&[]).expect(0);
    cloud.insert(2, 0..50);
    cloud.backup(&[]).expect(0);
    cloud.assert_same("id, name, ts");

    let cloud = Cloud::new(RedisOptions::default(), &format!("{ROUTE}watermark = \"ts\"\n"));
    cloud.table("{}");
    cloud.insert(1, 0..50);
    cloud.insert(0, 0..5);
    cloud.backup(&[]).expect(0);
    cloud.assert_same("id, name, ts");
    cloud.rows_read();
    cloud.insert(2, 0..50);
    cloud.backup(&[]).expect(0);
    cloud.assert_same("id, name, ts");
    let names: Vec<String> =
        cloud.recorded().table_partitions.into_iter().map(|part| part.table_partition).collect();
    assert!(names.iter().any(|name| name.starts_with("w:..")), "{names:?}");
    assert!(names.contains(&"__NULL__".to_owned()), "{names:?}");
}

/// A table of every type, nested ones too, with a row of values and one of nulls.
fn every_type() -> (Value, Value) {
    let scalars = [
        ("STRING", json!("ä\u{0}")),
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
    let mut fields: Vec<Value> = scalars
        .iter()
        .map(|(name, _)| json!({"name": format!("c_{name}"), "type": name}))
        .collect();
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
        "c_range": "[2025-11-01, UNBOUNDED)", "c_list": ["1", "2"],
        "c_deep": [{"k": "x", "v": {"n": "2", "l": ["a", ""]}}, {"k": null, "v": null}],
    });
    for (name, value) in scalars {
        row[format!("c_{name}")] = value;
    }
    (json!(fields), json!({"rows": [{"json": row}, {"json": {}}]}))
}

#[test]
fn every_type_is_in_the_duplicate_as_bigquery_sends_it() {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    let (fields, rows) = every_type();
    let table = json!({"tableReference": {"tableId": "t"}, "schema": {"fields": fields}});
    cloud.post("bigquery/v2/projects/p/datasets/d/tables", &table);
    cloud.post("bigquery/v2/projects/p/datasets/d/tables/t/insertAll", &rows);
    cloud.backup(&[]).expect(0);
    let section = schemas::plan::BigQuery {
        project: "p".into(),
        location: None,
        staging_dataset: None,
        max_bytes_billed: None,
        endpoint: Some(cloud.bigquery.rest_url()),
        grpc_endpoint: Some(cloud.bigquery.grpc_url()),
    };
    let sent = cloud.tokio.block_on(async {
        let timeout = std::time::Duration::from_secs(5);
        let bigquery = stages::connect::bigquery::connect(&section, timeout).await.unwrap();
        let reading = stages::extract::table_rows::Reading {
            dataset: "d".into(),
            table: "t".into(),
            filter: None,
            snapshot_us: cloud.recorded().snapshot_us,
            streams: 1,
        };
        let mut session = stages::extract::table_rows::open(&bigquery, &reading).await.unwrap();
        let rows = futures::StreamExt::next(&mut session.rows).await.unwrap().unwrap();
        stages::transform::arrow_message::rows(&session.schema, &rows.message, rows.rows).unwrap()
    });
    assert_eq!((sent.num_rows(), sent.num_columns()), (2, 17));
    assert_eq!(cloud.duplicate(), [sent]);
}
