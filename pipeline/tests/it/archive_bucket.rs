//! The archive in a bucket: away, cut off, altered, in use by others.
//!
//! Invariant: no object is ever overwritten, and a restore that cannot be right leaves the destination as it was.

use crate::archive::{backup, restore, tables};
use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use fixtures::servers::{Bucket, RedisOptions};

/// A cloud whose plan has an archive in a bucket.
fn in_bucket() -> (Cloud, Bucket) {
    let bucket = Bucket::start("town-copies").unwrap();
    let section = format!(
        "[archive]\nurl = \"gs://{}/bq/prod\"\nendpoint = \"{}\"\n{ROUTE}",
        bucket.name(),
        bucket.url()
    );
    let cloud = Cloud::new(RedisOptions::default(), &section);
    cloud.table(DAY_PARTITIONED);
    (cloud, bucket)
}

fn rows_of(bucket: &Bucket) -> Vec<String> {
    bucket.names().into_iter().filter(|name| name.ends_with(".parquet")).collect()
}

#[test]
fn a_table_comes_back_from_a_bucket_that_is_away_now_and_then() {
    let (cloud, bucket) = in_bucket();
    for day in 1..=5 {
        cloud.insert(day, 0..200);
    }
    cloud.insert(0, 0..30);
    let before = cloud.source("id, name, ts");
    // GIVEN refusals and answers that get lost WHEN the table is archived
    bucket.refuse(3);
    backup(&cloud, &[]).expect(0);
    cloud.insert(5, 300..310);
    bucket.lose_answers(2);
    backup(&cloud, &[]).expect(0);
    let after = cloud.source("id, name, ts");
    assert_eq!(after.len(), before.len() + 10);
    assert_eq!(bucket.faults(), 5);
    // WHEN Redis and BigQuery are lost, and bodies are cut off on the way back
    redis::cmd("FLUSHALL").query::<()>(&mut cloud.connection()).unwrap();
    cloud.delete_table();
    bucket.refuse(2);
    bucket.cut(2);
    let summary = restore(&cloud, &[]).expect(0).summary();
    // THEN every row is back
    assert_eq!(cloud.source("id, name, ts"), after);
    assert_eq!(summary["verified"]["tier"], "full");
    assert_eq!(bucket.faults(), 9);
}

#[test]
fn a_bucket_that_stays_away_is_exit_3() {
    let (cloud, bucket) = in_bucket();
    cloud.insert(1, 0..5);
    bucket.refuse(1_000_000);
    backup(&cloud, &[]).expect(3).says(&["of the archive gs://town-copies/bq/prod"]);
    bucket.refuse(0);
    backup(&cloud, &[]).expect(0);
}

#[test]
fn what_is_missing_or_altered_is_named_and_nothing_is_published() {
    let (cloud, bucket) = in_bucket();
    for day in 1..=3 {
        cloud.insert(day, 0..100);
    }
    backup(&cloud, &[]).expect(0);
    let before = cloud.source("id, name, ts");
    cloud.delete_table();
    let block = rows_of(&bucket).remove(1);
    let named = |part: &str| {
        let found = bucket.names().into_iter().find(|name| name.contains(part));
        found.unwrap_or_else(|| panic!("no {part} in {:?}", bucket.names()))
    };
    let (manifest, run) = (named("/m/20251103/"), named("/log/run/"));
    for (object, key) in
        [(&block, "log:b:20251102:1:0"), (&manifest, "log:m:20251103"), (&run, "log:run")]
    {
        let stored = bucket.object(object).unwrap();
        bucket.lose(object);
        restore(&cloud, &["--fresh"]).expect(4).says(&[key, "missing"]);
        let mut altered = stored.clone();
        altered[stored.len() / 2] ^= 1;
        bucket.place(object, altered);
        restore(&cloud, &["--fresh"]).expect(4).says(&[key, "altered"]);
        bucket.place(object, stored);
        assert_eq!(tables(&cloud), Vec::<String>::new());
    }
    // A file of another table partition in its place has the right form and the wrong rows.
    let own = bucket.object(&block).unwrap();
    bucket.place(&block, bucket.object(&rows_of(&bucket)[0]).unwrap());
    restore(&cloud, &["--fresh"]).expect(4).says(&["log:b:20251102:1:0"]);
    assert_eq!(tables(&cloud), Vec::<String>::new());
    bucket.place(&block, own);
    restore(&cloud, &["--fresh"]).expect(0);
    assert_eq!(cloud.source("id, name, ts"), before);
}

#[test]
fn a_backup_mends_what_is_missing_as_long_as_the_source_has_it() {
    let (cloud, bucket) = in_bucket();
    cloud.insert(1, 0..100);
    cloud.insert(2, 0..100);
    backup(&cloud, &[]).expect(0);
    bucket.lose(&rows_of(&bucket)[0]);
    let summary = backup(&cloud, &[]).expect(4).says(&["20251101", "missing or altered"]).summary();
    assert_eq!(summary["tables"][0]["mended"], 1);
    backup(&cloud, &[]).expect(0);
    let before = cloud.source("id, name, ts");
    cloud.delete_table();
    restore(&cloud, &[]).expect(0);
    assert_eq!(cloud.source("id, name, ts"), before);
}

#[test]
fn an_object_that_is_there_is_not_overwritten() {
    let (cloud, bucket) = in_bucket();
    cloud.insert(1, 0..20);
    let theirs = "bq/prod/log/b/20251101/00000000000000000007/0000000000.parquet";
    bucket.place(theirs, b"theirs".to_vec());
    backup(&cloud, &[]).expect(0);
    assert_eq!(bucket.object(theirs).as_deref(), Some(&b"theirs"[..]));
    assert!(rows_of(&bucket).iter().any(|name| name.contains("/00000000000000000008/")));
    let before = cloud.source("id, name, ts");
    cloud.delete_table();
    restore(&cloud, &[]).expect(0);
    assert_eq!(cloud.source("id, name, ts"), before);
}

#[test]
fn two_backups_do_not_write_one_archive_at_a_time() {
    let (cloud, bucket) = in_bucket();
    cloud.insert(1, 0..20);
    let mark = "bq/prod/rekindle-backup";
    bucket.place(mark, b"another-run pid=1".to_vec());
    backup(&cloud, &[]).expect(8).says(&[
        "the archive gs://town-copies/bq/prod is being written by another backup",
        "rekindle backup bigquery --to archive --take-over another-run",
    ]);
    assert_eq!(rows_of(&bucket), Vec::<String>::new());
    assert_eq!(bucket.object(mark).as_deref(), Some(&b"another-run pid=1"[..]));
    backup(&cloud, &["--take-over", "another-run"]).expect(0);
    assert_eq!(bucket.object(mark), None);
}
