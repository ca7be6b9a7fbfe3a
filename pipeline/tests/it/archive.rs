//! The archive in a folder: Redis and BigQuery both lost, what changed, what is left out, how old it is.
//!
//! Invariant: a table comes back from the files alone, row by row what it was, or nothing of it is touched.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::lost::{Lost, table};
use crate::world::{Ran, wait_until};
use fixtures::servers::RedisOptions;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn run(cloud: &Cloud, words: &[&str]) -> Ran {
    Ran::of(&cloud.command(words).output().unwrap())
}

/// Backs up into the archive.
pub(crate) fn backup(cloud: &Cloud, more: &[&str]) -> Ran {
    cloud.backup(&[&["--to", "archive"][..], more].concat())
}

/// Restores from the archive.
pub(crate) fn restore(cloud: &Cloud, more: &[&str]) -> Ran {
    let words = ["restore", "bigquery", "--from", "archive", "--json", "--progress", "none"];
    run(cloud, &[&words[..], &["--retry-for", "5s"], more].concat())
}

/// Names of the tables of the dataset.
pub(crate) fn tables(cloud: &Cloud) -> Vec<String> {
    let listed = cloud.get("bigquery/v2/projects/p/datasets/d/tables");
    let tables = listed["tables"].as_array().cloned().unwrap_or_default();
    let name = |table: &Value| table["tableReference"]["tableId"].as_str().unwrap().to_owned();
    tables.iter().map(name).collect()
}

/// Whether a writer that was killed has left this beside a file: `NAME#1`, which no reader of an archive sees.
fn is_staged(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.rsplit_once('#').is_some_and(|(_, number)| number.bytes().all(|of| of.is_ascii_digit()))
}

/// Every file in a folder and below.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !is_staged(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A cloud whose plan has an archive in a folder of its own, with more lines in its section.
pub(crate) fn in_folder(more: &str) -> (Cloud, PathBuf) {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    let folder = cloud.folder.path().join("archive");
    fs::create_dir(&folder).unwrap();
    cloud.plan(&section(&folder, more));
    cloud.table(DAY_PARTITIONED);
    (cloud, folder)
}

pub(crate) fn section(folder: &Path, more: &str) -> String {
    format!("[archive]\nurl = \"file://{}\"\n{more}{ROUTE}", folder.display())
}

#[test]
fn redis_and_bigquery_are_lost_and_every_type_comes_back_from_the_archive_alone() {
    let lost = Lost::new(false);
    let days = lost.days(2_500);
    lost.append("original", &days);
    lost.runtime.block_on(lost.client.insert_table("logs", "builds", &table())).unwrap();
    lost.append("builds", &days);
    let folder = lost.folder.path().join("archive");
    fs::create_dir(&folder).unwrap();
    let plan = lost.folder.path().join("rekindle.toml");
    let written = fs::read_to_string(&plan).unwrap();
    let archive = format!("{written}[archive]\nurl = \"file://{}\"\n", folder.display());
    fs::write(&plan, &archive).unwrap();
    let words = ["--json", "--progress", "none", "--retry-for", "20s"];
    let run = |command: &[&str]| {
        Ran::of(&lost.rekindle(&[command, &words[..]].concat()).output().unwrap())
    };
    let backed_up = run(&["backup", "bigquery", "--to", "archive"]).expect(0).summary();
    assert_eq!(backed_up["command"], "backup bigquery --to archive");
    assert_eq!(backed_up["tables"][0]["added"], days.len());
    // GIVEN that neither system is there any more: nothing listens where Redis was
    lost.lose_again();
    fs::write(&plan, archive.replace(&lost.redis.url(), "redis://127.0.0.1:1")).unwrap();
    // WHEN the table is restored
    let restored = run(&["restore", "bigquery", "--from", "archive"]).expect(0).summary();
    // THEN every row of every type is back, proven, and nobody has asked Redis
    assert!(lost.rows("builds") == lost.rows("original"), "the restored table differs");
    assert_eq!(restored["verified"]["tier"], "full");
    assert_eq!(restored["rows"], backed_up["rows"]);
    let table = lost.runtime.block_on(lost.client.table("logs", "builds")).unwrap().unwrap();
    for field in ["schema", "clustering", "labels", "description", "requirePartitionFilter"] {
        assert_eq!(table[field], lost.resource[field], "{field}");
    }
}

#[test]
fn a_second_backup_copies_what_changed_and_keeps_as_many_versions_as_the_plan_says() {
    let (cloud, folder) = in_folder("");
    cloud.insert(1, 0..50);
    cloud.insert(2, 0..60);
    backup(&cloud, &[]).expect(0);
    cloud.rows_read();
    let again = backup(&cloud, &[]).expect(0).summary();
    assert_eq!((cloud.rows_read(), &again["tables"][0]["kept"]), (0, &json!(2)));
    // Versions of one table partition come and go, two of them are kept.
    for round in 1..=3 {
        cloud.insert(2, 100 * round..100 * round + 10);
        let summary = backup(&cloud, &[]).expect(0).summary();
        assert_eq!(
            (&summary["tables"][0]["kept"], &summary["tables"][0]["changed"]),
            (&json!(1), &json!(1))
        );
    }
    let generations = |day: &str| fs::read_dir(folder.join("log/b").join(day)).unwrap().count();
    assert_eq!((generations("20251101"), generations("20251102")), (1, 2));
    // The record and the manifests are one file each, and no mark is left.
    let documents = files(&folder.join("log/m")).len() + files(&folder.join("log/run")).len();
    assert_eq!(documents, 3, "{:?}", files(&folder));
    assert!(!folder.join("rekindle-backup").exists());
    // A loss in the source is held here as well, and the hint is the command of this place.
    cloud.sql("DELETE FROM d.t WHERE id < 10 AND ts < TIMESTAMP '2025-11-02 00:00:00+00:00'");
    backup(&cloud, &[]).expect(4).says(&[
        "d.t$20251101 has fewer rows",
        "rekindle backup bigquery --to archive --accept-loss d.t",
    ]);
    cloud.sql("DELETE FROM d.t WHERE TRUE");
    cloud.delete_table();
    assert_eq!(restore(&cloud, &[]).expect(0).summary()["rows"], 50 + 60 + 30);
}

#[test]
fn what_no_archive_is_named_by_is_refused_and_so_is_a_folder_that_is_not_there() {
    let (cloud, folder) = in_folder("");
    cloud.insert(1, 0..5);
    cloud.plan(ROUTE);
    let none = "the plan has no [archive] section";
    backup(&cloud, &[]).expect(2).says(&[none]);
    restore(&cloud, &[]).expect(2).says(&[none]);
    cloud.plan(&format!("[archive]\nurl = \"s3://bucket/x\"\n{ROUTE}"));
    backup(&cloud, &[]).expect(2).says(&["archive.url", "gs://BUCKET/PREFIX"]);
    cloud.plan(&section(&folder.join("disk"), ""));
    backup(&cloud, &[]).expect(2).says(&["is not there", "mkdir -p"]);
    restore(&cloud, &[]).expect(2).says(&["is not there", "mkdir -p"]);
    // An archive that nothing was written to holds nothing to restore.
    cloud.plan(&section(&folder, ""));
    restore(&cloud, &["--replace"]).expect(4).says(&["log:run", "no record of a complete backup"]);
    assert_eq!(cloud.sql("SELECT COUNT(*) FROM d.t"), ["5"]);
    restore(&cloud, &["--from-scan"]).expect(2);
}

#[test]
fn an_archive_older_than_the_objective_is_late_and_breaks_the_cycle_all_the_same() {
    let (cloud, folder) = in_folder("");
    cloud.insert(1, 0..50);
    let objective = |rpo: &str| {
        let section = section(&folder, "");
        format!("[objectives]\nbigquery = {{ rto = \"24h\", rpo = \"{rpo}\" }}\n{section}")
    };
    cloud.plan(&objective("25h"));
    cloud.backup(&[]).expect(0);
    let control = |report: &Value| {
        let controls = report["controls"].as_array().unwrap().clone();
        controls.into_iter().find(|one| one["control"] == "archive of d.t").unwrap()
    };
    // GIVEN a duplicate that is fresh, and no backup to the archive yet
    let report = run(&cloud, &["check", "--json"]).expect(6).summary();
    assert_eq!(control(&report)["detail"], "no complete backup yet");
    backup(&cloud, &[]).expect(0);
    let report = run(&cloud, &["check", "--json"]).expect(0).summary();
    assert_eq!(control(&report)["verdict"], "OK", "{report}");
    // WHEN its data gets older than the objective
    cloud.plan(&objective("1s"));
    let status = || run(&cloud, &["status", "--json"]).summary();
    wait_until("an age of a second", || {
        status()["archives"][0]["age_seconds"].as_f64() > Some(1.0)
    });
    // THEN check and status end with the code of a missed objective, and check says what to type
    let report = run(&cloud, &["check", "--json"]).expect(6).summary();
    assert_eq!(control(&report)["verdict"], "FAILED", "{report}");
    assert_eq!(control(&report)["fix"], "rekindle backup bigquery --to archive");
    assert_eq!(status()["archives"][0]["within_rpo"], false);
    let text = run(&cloud, &["status"]).expect(6).stdout;
    assert!(text.contains("archive of d.t: data as of "), "{text}");
    // AND it is named as what survives both losses, which nothing does without it
    let both = ["plan", "--lost", "redis,bigquery", "--json"];
    let report = run(&cloud, &both).expect(0).summary();
    let surviving = report["datasets"][0]["surviving"].to_string();
    assert!(surviving.contains("its archive in file://"), "{report}");
    cloud.plan(ROUTE);
    let report = run(&cloud, &both).expect(6).summary();
    assert_eq!(report["unrecoverable"][0], "bigquery:d.t");
}
