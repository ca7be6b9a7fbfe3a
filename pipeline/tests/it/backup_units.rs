//! What a backup takes as a unit: table partitions by ingestion time, and rows that are still in the streaming buffer.
//!
//! Invariant: no row is lost and none is doubled between a backup that meets it in the buffer and the next one.

use crate::cloud::{Cloud, ROUTE, plain};
use crate::world::wait_until;
use arrow::record_batch::RecordBatch;
use fixtures::servers::RedisOptions;
use redis::Commands;
use schemas::manifest::Manifest;
use serde_json::json;

const COLUMNS: &str = "id, name, ts";
const BUFFER: &str = "__UNPARTITIONED__";

/// Names of the table partitions of the last complete backup, with their rows.
fn units(cloud: &Cloud) -> Vec<(String, u64)> {
    let recorded = cloud.recorded().table_partitions;
    recorded.into_iter().map(|part| (part.table_partition, part.rows)).collect()
}

fn rows_of(cloud: &Cloud, unit: &str) -> Option<u64> {
    units(cloud).into_iter().find(|(name, _)| name == unit).map(|(_, rows)| rows)
}

#[test]
fn rows_in_the_streaming_buffer_are_copied_with_the_day_of_their_column() {
    let cloud = plain();
    cloud.insert(1, 0..50);
    cloud.insert(2, 0..50);
    cloud.backup(&[]).expect(0);
    // GIVEN rows in the buffer: of a day that is there, of one that is not, and of none
    cloud.hold_buffer(true);
    cloud.stream(1, 100..120, 1);
    cloud.stream(7, 0..30, 1);
    cloud.stream(0, 0..5, 1);
    let summary = cloud.backup(&[]).expect(0).summary();
    cloud.assert_same(COLUMNS);
    assert_eq!(summary["tables"][0]["kept"], 1, "{summary}");
    let expected = [("20251101", 70), ("20251102", 50), ("20251107", 30), ("__NULL__", 5)];
    let expected = expected.map(|(name, rows)| (name.to_owned(), rows));
    assert_eq!(units(&cloud), expected);
    // WHEN more come, and when all have left the buffer, THEN each row is there once
    cloud.stream(7, 30..40, 1);
    cloud.backup(&[]).expect(0);
    cloud.assert_same(COLUMNS);
    cloud.hold_buffer(false);
    cloud.backup(&[]).expect(0);
    cloud.assert_same(COLUMNS);
    let summary = cloud.backup(&[]).expect(0).summary();
    assert_eq!(summary["tables"][0]["kept"], 4, "{summary}");
    assert_eq!(cloud.strays(), Vec::<String>::new());
}

#[test]
fn every_partitioning_takes_the_buffer_in_by_the_condition_that_reads_it() {
    for partitioning in [
        r#"{"timePartitioning": {"type": "HOUR", "field": "ts"}}"#,
        r#"{"timePartitioning": {"type": "MONTH", "field": "ts"}}"#,
        r#"{"rangePartitioning": {"field": "id", "range": {"start": "0", "end": "100", "interval": "10"}}}"#,
        "{}",
    ] {
        let cloud = Cloud::new(RedisOptions::default(), ROUTE);
        cloud.table(partitioning);
        cloud.insert(1, 0..25);
        cloud.insert(1, 200..205);
        cloud.backup(&[]).expect(0);
        cloud.hold_buffer(true);
        cloud.stream(1, 20..40, 1);
        cloud.stream(1, 300..303, 1);
        cloud.backup(&[]).expect(0);
        cloud.assert_same(COLUMNS);
        cloud.hold_buffer(false);
        cloud.backup(&[]).expect(0);
        cloud.assert_same(COLUMNS);
        let summary = cloud.backup(&[]).expect(0).summary();
        assert_eq!(summary["rows"], 0, "{summary}");
    }
}

#[test]
fn days_and_months_of_other_types_are_counted_by_their_own_names() {
    for (kind, unit, value, name) in [
        ("DATE", "DAY", "2025-11-01", "20251101"),
        ("DATE", "MONTH", "2025-11-30", "202511"),
        ("DATETIME", "DAY", "2025-11-01T23:59:59.999999", "20251101"),
        ("DATETIME", "YEAR", "2025-11-01T00:00:00", "2025"),
    ] {
        let cloud = Cloud::new(RedisOptions::default(), ROUTE);
        let table = json!({
            "tableReference": {"tableId": "t"}, "requirePartitionFilter": true,
            "timePartitioning": {"type": unit, "field": "at"},
            "schema": {"fields": [{"name": "id", "type": "INT64"}, {"name": "at", "type": kind}]},
        });
        cloud.post("bigquery/v2/projects/p/datasets/d/tables", &table);
        cloud.hold_buffer(true);
        let rows = json!({"rows": [{"json": {"id": 1, "at": value}}, {"json": {"id": 2}}]});
        cloud.post("bigquery/v2/projects/p/datasets/d/tables/t/insertAll", &rows);
        cloud.backup(&[]).expect(0);
        let expected = [(name.to_owned(), 1), ("__NULL__".to_owned(), 1)];
        assert_eq!(units(&cloud), expected, "{kind} {unit}");
        let sent: usize = cloud.duplicate().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(sent, 2);
    }
}

fn by_ingestion() -> Cloud {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    cloud.table(r#"{"timePartitioning": {"type": "DAY"}}"#);
    cloud.table_named("source", "{}");
    cloud
}

#[test]
fn a_table_partitioned_by_ingestion_time_is_copied_by_its_table_partitions() {
    let cloud = by_ingestion();
    cloud.append_to("20251101", 0..40);
    cloud.append_to("20251102", 40..60);
    cloud.backup(&[]).expect(0);
    cloud.assert_same(COLUMNS);
    let names = |cloud: &Cloud| units(cloud).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&cloud), ["20251101", "20251102"]);
    // The recorded table says how it is partitioned: that is what a restore makes it by.
    let run = cloud.recorded();
    let stored: Vec<u8> = cloud.connection().get(format!("log:s:{}", run.schema_hash)).unwrap();
    let record = schemas::manifest::TableRecord::parse(&stored, &run.schema_hash).unwrap();
    assert_eq!(record.resource["timePartitioning"], json!({"type": "DAY"}));
    cloud.rows_read();
    // Only what changed is read: late rows, an update, identical rows, a dropped table partition.
    cloud.append_to("20251102", 40..60);
    cloud.append_to("20251103", 0..10);
    cloud.backup(&[]).expect(0);
    cloud.assert_same(COLUMNS);
    assert_eq!(cloud.rows_read(), 50);
    cloud.sql("UPDATE d.t SET name = 'changed' WHERE id < 5 AND _PARTITIONTIME = TIMESTAMP '2025-11-01 00:00:00+00:00'");
    cloud.sql("DELETE FROM d.t WHERE _PARTITIONTIME = TIMESTAMP '2025-11-03 00:00:00+00:00'");
    cloud.backup(&[]).expect(4).says(&["d.t$20251103 is gone", "--accept-loss d.t"]);
    assert_eq!(cloud.rows_read(), 40);
    cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    cloud.assert_same(COLUMNS);
    assert_eq!(cloud.strays(), Vec::<String>::new());
}

#[test]
fn rows_that_leave_the_buffer_of_an_ingestion_time_table_move_and_are_not_doubled() {
    let cloud = by_ingestion();
    cloud.append_to("20251101", 0..40);
    cloud.hold_buffer(true);
    cloud.stream(1, 100..120, 1);
    cloud.backup(&[]).expect(0);
    cloud.assert_same(COLUMNS);
    assert_eq!(rows_of(&cloud, BUFFER), Some(20));
    // GIVEN a backup that is killed when it has copied the rows where they are now, and not yet emptied where they were
    cloud.hold_buffer(false);
    cloud.append_to("20991231", 0..10);
    let listed = cloud.sql("SELECT partition_id FROM d.INFORMATION_SCHEMA.PARTITIONS WHERE table_name = 't' ORDER BY 1");
    let [_, today, _] = listed.as_slice() else { panic!("{listed:?}") };
    cloud.fault("ReadRows", "delay_ms:3000", 1, 1);
    let mut child = cloud.start(&["--lanes", "1"]);
    wait_until("the copy of today", || {
        let stored: Option<Vec<u8>> = cloud.connection().get(format!("log:m:{today}")).unwrap();
        stored
            .is_some_and(|text| Manifest::parse(&text, today).unwrap().newest().unwrap().rows == 20)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    cloud.no_faults();
    // THEN what is recorded as complete has them in the buffer still, and the next backup has moved them
    assert_eq!((rows_of(&cloud, BUFFER), rows_of(&cloud, today)), (Some(20), None));
    cloud.backup(&[]).expect(0);
    cloud.assert_same(COLUMNS);
    assert_eq!((rows_of(&cloud, BUFFER), rows_of(&cloud, today)), (Some(0), Some(20)));
    assert_eq!(cloud.strays(), Vec::<String>::new());
    // AND rows that are in no other table partition are a loss
    cloud.hold_buffer(true);
    cloud.stream(1, 200..230, 1);
    cloud.backup(&[]).expect(0);
    let good = cloud.lines();
    cloud.hold_buffer(false);
    cloud.sql("DELETE FROM d.t WHERE id >= 210");
    cloud.backup(&[]).expect(4).says(&["d.t$__UNPARTITIONED__ is gone"]);
    let held: Vec<String> =
        cloud.recorded().held.into_iter().map(|held| held.table_partition).collect();
    assert_eq!(held, [BUFFER]);
    assert!(good.iter().all(|line| cloud.lines().contains(line)), "rows were lost");
    cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    cloud.assert_same(COLUMNS);
}
