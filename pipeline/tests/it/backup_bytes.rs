//! Six backups in a row: what is restored is what was there, and what is read is what has changed.
//!
//! Invariant: bytes are counted where they are sent, by the stand-in, those of killed backups included; what a read of
//! exactly the changed table partitions sends is the measure.

use crate::cloud::{Cloud, plain};
use crate::world::{Ran, wait_until};
use serde_json::json;
use stages::extract::table_rows::{Reading, open};

/// Rows of a day; in answers of two blocks.
const ROWS: u32 = 1_200;
const TEXT: usize = 900;
const COLUMNS: &str = "id, name, ts";

/// Reads these days (0: rows without one) as the table is now and returns the bytes that were sent for it.
fn measure(cloud: &Cloud, days: &[u32]) -> u64 {
    let section = schemas::plan::BigQuery {
        project: "p".into(),
        location: None,
        staging_dataset: None,
        max_bytes_billed: None,
        endpoint: Some(cloud.bigquery.rest_url()),
        grpc_endpoint: Some(cloud.bigquery.grpc_url()),
    };
    let snapshot_us = cloud.get("stand-in/clock")["micros"].as_i64().unwrap();
    cloud.sent();
    cloud.tokio.block_on(async {
        let timeout = std::time::Duration::from_secs(5);
        let bigquery = stages::connect::bigquery::connect(&section, timeout).await.unwrap();
        for day in days {
            let of_day = |day: u32| format!("TIMESTAMP '2025-11-{day:02} 00:00:00+00:00'");
            let filter = match day {
                0 => "ts IS NULL".to_owned(),
                day => format!("ts >= {} AND ts < {}", of_day(*day), of_day(day + 1)),
            };
            let reading = Reading {
                dataset: "d".into(),
                table: "t".into(),
                filter: Some(filter),
                snapshot_us,
                streams: 1,
            };
            let mut session = open(&bigquery, &reading).await.unwrap();
            while let Some(rows) = futures::StreamExt::next(&mut session.rows).await {
                rows.unwrap();
            }
        }
    });
    cloud.sent().2
}

/// Asserts that a backup, with its killed starts, read these days and hardly more.
#[track_caller]
fn assert_read(cloud: &Cloud, ran: &Ran, is_whole: bool, measured: u64) {
    let (_, _, sent) = cloud.sent();
    println!("{sent} bytes were sent where a read of what changed takes {measured}");
    assert!(sent * 10 <= measured * 12, "{sent} bytes were sent for {measured}");
    assert!(sent >= measured, "{sent} bytes were sent for {measured}");
    let told = ran.summary()["bytes"].as_u64().unwrap();
    assert!(told <= sent, "{told} bytes were told where {sent} were sent");
    // The rest is framing, and what killed starts have read.
    assert!(!is_whole || told * 100 >= sent * 90, "{told} bytes were told where {sent} were sent");
}

/// Kills a backup when it has got so many blocks, the last of them in the middle of a table partition.
fn kill_after(cloud: &Cloud, blocks: u64) {
    cloud.fault("ReadRows", "delay_ms:3000", blocks, 1);
    let mut child = cloud.start(&["--lanes", "1"]);
    let got = || cloud.get("stand-in/calls")["ReadRows"]["messages"].as_u64() >= Some(blocks);
    wait_until("blocks", got);
    child.kill().unwrap();
    child.wait().unwrap();
    cloud.no_faults();
}

#[test]
fn six_backups_read_what_changed_and_restore_to_the_source() {
    let cloud = plain();
    for day in 1..=8 {
        cloud.stream(day, 0..ROWS, TEXT);
    }
    cloud.stream(0, 0..30, TEXT);
    // 1. Everything, killed in the middle of the fourth table partition.
    let measured = measure(&cloud, &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    kill_after(&cloud, 7);
    let ran = cloud.backup(&["--lanes", "1"]).expect(0);
    assert_read(&cloud, &ran, false, measured);
    cloud.assert_same(COLUMNS);

    // 2. Nothing.
    let ran = cloud.backup(&[]).expect(0);
    assert_read(&cloud, &ran, true, 0);

    // 3. A new day, late rows and legitimately identical ones of an old day, an update in place.
    cloud.stream(9, 0..ROWS, TEXT);
    cloud.stream(2, 5_000..5_050, TEXT);
    cloud.stream(2, 5_000..5_050, TEXT);
    cloud.sql("UPDATE d.t SET name = 'changed' WHERE id < 7 AND ts < TIMESTAMP '2025-11-02 00:00:00+00:00'");
    let measured = measure(&cloud, &[1, 2, 9]);
    let ran = cloud.backup(&[]).expect(0);
    assert_read(&cloud, &ran, true, measured);
    cloud.assert_same(COLUMNS);

    // 4. A new column, which is set in most days; killed in the middle of the fourth of them.
    cloud.add_column();
    cloud.sql("UPDATE d.t SET extra = 'more' WHERE id < 600 AND ts >= TIMESTAMP '2025-11-03 00:00:00+00:00' AND ts < TIMESTAMP '2025-11-09 00:00:00+00:00'");
    let measured = measure(&cloud, &[3, 4, 5, 6, 7, 8]);
    kill_after(&cloud, 7);
    let ran = cloud.backup(&["--lanes", "1"]).expect(0);
    assert_read(&cloud, &ran, false, measured);
    cloud.assert_same("id, name, ts, extra");

    // 5. Deleted rows and a dropped table partition are held; only what else changed is read.
    cloud.sql("DELETE FROM d.t WHERE id < 10 AND ts >= TIMESTAMP '2025-11-05 00:00:00+00:00' AND ts < TIMESTAMP '2025-11-06 00:00:00+00:00'");
    cloud.sql("DELETE FROM d.t WHERE ts >= TIMESTAMP '2025-11-06 00:00:00+00:00' AND ts < TIMESTAMP '2025-11-07 00:00:00+00:00'");
    cloud.stream(10, 0..ROWS, TEXT);
    let measured = measure(&cloud, &[10]);
    let ran = cloud.backup(&[]).expect(4).says(&["d.t$20251105 has fewer rows", "d.t$20251106"]);
    assert_read(&cloud, &ran, true, measured);

    // 6. Their loss is accepted.
    let measured = measure(&cloud, &[5]);
    let ran = cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    assert_read(&cloud, &ran, true, measured);
    cloud.assert_same("id, name, ts, extra");
    assert_eq!(cloud.strays(), Vec::<String>::new());

    // THEN the lost table comes back with every row as often as it was there.
    let lines = cloud.source("id, name, ts, extra");
    let twice = lines.iter().filter(|line| line.starts_with("5000|")).count();
    assert_eq!((lines.len(), twice), (9 * 1_200 + 30 + 100 - 10, 2));
    cloud.delete_table();
    let words = ["restore", "bigquery", "--json", "--progress", "none"];
    let ran = Ran::of(&cloud.command(&words).output().unwrap()).expect(0);
    assert_eq!(ran.summary()["rows"], json!(lines.len()));
    assert!(cloud.source("id, name, ts, extra") == lines, "the restored rows differ");
}
