//! Row routes, there and back: what an application keeps in Redis row by row restores its BigQuery table.
//!
//! Invariant: whatever happened, a restore that ends 0 leaves the rows that were in Redis, each once; one that does not
//! publishes nothing.

use crate::app_logs::{HASHES, Logs, STREAM, every_type};
use fixtures::servers::RedisOptions;
use redis::Commands;
use serde_json::json;

#[test]
fn hashes_and_json_restore_every_type() {
    for layout in ["hash", "json"] {
        let logs = Logs::new(RedisOptions::default(), &HASHES.replace("hash", layout));
        let (fields, rows) = every_type();
        let table = json!({"tableReference": {"tableId": "t"}, "schema": {"fields": fields}});
        logs.cloud.post("bigquery/v2/projects/p/datasets/d/tables", &table);
        logs.cloud.post("bigquery/v2/projects/p/datasets/d/tables/t/insertAll", &rows);
        logs.rebuild().expect(0);
        let summary = logs.cloud.backup(&[]).expect(0).summary();
        assert_eq!(summary["tables"][0]["census"]["keys"], 2, "{summary}");
        assert_eq!(summary["tables"][0]["census"]["distinct_keys"], 2);
        let original = logs.rows();
        assert_eq!(original.len(), 2);
        logs.lose();
        let summary = logs.restore(&[]).expect(0).summary();
        logs.assert_restored(&original);
        assert_eq!((&summary["rows"], &summary["rejects"]), (&json!(2), &json!(0)));
        assert_eq!(summary["verified"]["tier"], "full");
    }
}

#[test]
fn a_table_that_asks_for_a_partition_filter_is_counted_all_the_same() {
    let logs = Logs::new(RedisOptions::default(), HASHES);
    let partitioning = json!({"type": "DAY", "field": "ts"});
    let shape = json!({"timePartitioning": partitioning, "requirePartitionFilter": true});
    logs.cloud.table(&shape.to_string());
    logs.cloud.insert(1, 0..50);
    logs.rebuild().expect(0);
    let summary = logs.cloud.backup(&[]).expect(0).summary();
    let census = &summary["tables"][0]["census"];
    assert_eq!((&census["rows"], &census["distinct_keys"]), (&json!(50), &json!(50)), "{summary}");
    let original = logs.rows();
    logs.lose();
    logs.restore(&[]).expect(0);
    logs.assert_restored(&original);
}

#[test]
fn hashes_restore_whole_filled_and_replaced() {
    let logs = Logs::plain(&format!("{HASHES}row_key = \"id\"\n"));
    logs.cloud.insert(1, 0..3_000);
    logs.rebuild().expect(0);
    let plan = logs.run(&["plan"]).expect(0);
    assert!(plan.stdout.contains("unknown until the first backup"), "{}", plan.stdout);
    logs.cloud.backup(&[]).expect(0);
    let plan = logs.run(&["plan", "--json"]).expect(0).summary();
    let spool = plan["backups"][0]["spool_bytes"].as_u64().unwrap();
    // 40 bytes around 3,000 keys of 5 to 8 bytes with a length of 4 each.
    assert_eq!(spool, 40 + 3_000 * 8 + 10 + 90 * 2 + 900 * 3 + 2_000 * 4, "{plan}");
    let original = logs.rows();
    logs.lose();
    logs.restore(&[]).expect(0);
    logs.assert_restored(&original);
    // A table with rows is refused, filled, or replaced.
    logs.restore(&[]).expect(2).says(&["--fill", "--replace"]);
    logs.cloud.sql("DELETE FROM d.t WHERE id < 1000");
    let filled = logs.restore(&["--fill"]).expect(0).summary();
    assert_eq!((&filled["written"], &filled["kept"]), (&json!(1_000), &json!(2_000)));
    logs.assert_restored(&original);
    logs.cloud.insert(2, 9_000..9_010);
    logs.restore(&["--replace"]).expect(0);
    logs.assert_restored(&original);
    let status = logs.run(&["status"]).expect(0);
    assert!(status.stdout.contains("within the RPO"), "{}", status.stdout);
    logs.plan(HASHES);
    logs.restore(&["--fill"]).expect(2).says(&["no row_key"]);
}

#[test]
fn streams_restore_identical_rows_and_what_was_there_when_they_were_looked_for() {
    let routes = STREAM
        .replace("log:stream", "log:{name}")
        .replace("type", "columns = [\"id\", \"name\", \"ts\"]\ntype");
    for (routes, keys) in [(STREAM, &["log:stream"][..]), (&routes, &["log:name 1", "log:name 2"])]
    {
        let logs = Logs::plain(routes);
        let ids: &[u32] = if keys.len() == 1 { &[5, 6, 6, 6] } else { &[1, 8, 8, 2] };
        for id in ids {
            logs.cloud.insert(1, *id..*id + 1);
            let key = if keys.len() == 1 { keys[0] } else { keys[(id % 7) as usize - 1] };
            logs.append(key, *id..*id + 1);
        }
        let summary = logs.cloud.backup(&[]).expect(0).summary();
        let census = &summary["tables"][0]["census"];
        assert_eq!((&census["entries"], &census["keys"]), (&json!(4), &json!(keys.len())));
        let original = logs.rows();
        logs.lose();
        logs.restore(&[]).expect(0);
        logs.assert_restored(&original);
    }
}

#[test]
fn an_application_that_goes_on_appending_doubles_and_loses_nothing() {
    let logs = Logs::plain(STREAM);
    logs.cloud.insert(1, 0..1_000);
    logs.append("log:stream", 0..1_000);
    logs.cloud.backup(&[]).expect(0);
    let original = logs.rows();
    logs.lose();
    let mut child = logs.start_restore(&[]);
    let mut next = 100_000;
    while child.try_wait().unwrap().is_none() || next == 100_000 {
        logs.append("log:stream", next..next + 20);
        next += 20;
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let found = logs.rows();
    // What was appended before the stream was looked at is there too, in the order it came.
    let lost: Vec<&String> =
        original.iter().filter(|row| found.binary_search(row).is_err()).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let appended = (found.len() - original.len()) as u64;
    let ids = logs.cloud.sql("SELECT COUNT(DISTINCT id), MAX(id) FROM d.t");
    assert_eq!(
        ids[0],
        format!("{},{}", found.len(), if appended > 0 { 99_999 + appended } else { 999 })
            .replace(',', "|")
    );
}

#[test]
fn rows_that_cannot_be_decoded_are_kept_and_nothing_is_published() {
    let logs = Logs::plain(HASHES);
    logs.cloud.insert(1, 0..200);
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    let original = logs.rows();
    let mut connection = logs.cloud.connection();
    let _: () = connection.hset("log:7", "ts", "secret value").unwrap();
    let _: () = connection.hset("log:8", "colour", "red").unwrap();
    let _: () = connection.hset("log:x9", "name", "no number").unwrap();
    logs.lose();
    let ran = logs.restore(&[]).expect(7).says(&["3 of 201 rows", "rejects_max", "rejects"]);
    assert!(!ran.stderr.contains("secret value"), "{}", ran.stderr);
    assert!(!logs.stands(), "something was published");
    let folder = logs.state().join("rejects");
    let run = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    let file = std::fs::read_dir(run.path()).unwrap().next().unwrap().unwrap();
    let file = std::fs::File::open(file.path()).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 10).unwrap();
    let rows: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 3);
    let names: Vec<String> =
        rows[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["_key", "_reason", "_route", "_partition", "_plan", "_raw"]);
    // Route, key and column of each: a value that does not parse, a field without a column, a key that is no number.
    let told = |name: &str| {
        let texts = |batch: &arrow::array::RecordBatch| format!("{:?}", batch.column_by_name(name));
        rows.iter().map(texts).collect::<String>()
    };
    for reason in ["column ts ", "the route has no field \\\"colour\\\"", "column id "] {
        assert!(told("_reason").contains(reason), "{reason} is not in {}", told("_reason"));
    }
    assert_eq!(told("_route").matches("\"rows\"").count(), 3, "{}", told("_route"));
    assert!(told("_key").contains(&format!("{:?}", b"log:7")), "{}", told("_key"));
    // The same again, until they are mended or allowed.
    logs.restore(&[]).expect(7);
    let _: () = connection.del(&["log:7", "log:8", "log:x9"]).unwrap();
    let summary = logs.restore(&["--fresh"]).expect(0).summary();
    assert_eq!(summary["rows"], 198);
    logs.lose();
    let _: () = connection.hset("log:7", "ts", "secret value").unwrap();
    logs.plan(&format!("{HASHES}rejects_max = 1\n"));
    let summary = logs.restore(&[]).expect(0).summary();
    assert_eq!((&summary["rows"], &summary["rejects"]), (&json!(198), &json!(1)));
    assert!(logs.rows().iter().all(|row| original.contains(row)));
}

#[test]
fn a_key_of_another_type_is_no_row_and_one_that_does_not_fit_is_told() {
    let logs = Logs::plain(&HASHES.replace("log:{id}", "log:{id}:row"));
    logs.cloud.insert(1, 0..10);
    logs.rebuild().expect(0);
    let mut connection = logs.cloud.connection();
    let _: () = connection.set("log:77:row", "text").unwrap();
    let _: () = connection.hset("log:else", "a", "b").unwrap();
    let summary = logs.cloud.backup(&[]).expect(0).summary();
    let census = &summary["tables"][0]["census"];
    assert_eq!((&census["keys"], &census["unfit_keys"]), (&json!(10), &json!(1)));
    let original = logs.rows();
    logs.lose();
    let summary = logs.restore(&[]).expect(0).summary();
    logs.assert_restored(&original);
    assert!(summary["warnings"].to_string().contains("do not fit it"), "{summary}");
}

#[test]
fn what_cannot_be_restored_is_refused_by_name() {
    let logs = Logs::plain(HASHES);
    logs.cloud.insert(1, 0..10);
    logs.cloud.insert(1, 3..4);
    let derived =
        HASHES.replace("key = \"log:{id}\"", "key = \"log:{name|lower}\"\ncolumns = [\"id\"]");
    logs.plan(&derived);
    logs.restore(&["--as-of", "2025-11-01T00:00:00Z", "--partitions", "20251101"])
        .expect(2)
        .says(&["route rows cannot be restored with --as-of", "with --partitions"]);
    logs.restore(&[]).expect(4).says(&["rekindle:rows:rows:run is missing"]);
    logs.restore(&["--from-scan"]).expect(2).says(&["is derived", "column name", "column ts"]);
    // Two rows under one key: the census says so, and a restore refuses.
    logs.plan(HASHES);
    logs.cloud.backup(&[]).expect(4).says(&[
        "the duplicate lacks 11 rows",
        "rekindle rebuild redis --route rows",
        "11 rows of table d.t have 10 keys",
    ]);
    logs.restore(&[]).expect(2).says(&["is derived", "11 rows of d.t had 10 keys"]);
}
