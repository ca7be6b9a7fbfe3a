//! Redis rebuilt from the archive: with Redis and BigQuery both lost, its keys come back without waiting for BigQuery.
//!
//! Invariant: what must be in Redis is what a rebuild from BigQuery left there before both were lost; BigQuery is not
//! there while the archive is read.

use crate::archive::{backup, files, in_folder, run, section};
use crate::cloud::Cloud;
use crate::crash::{Held, assert_held, held};
use crate::lost::{Lost, table};
use crate::world::Ran;
use fixtures::servers::{Postgres, PostgresOptions};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A hash per row, a set of many rows, and a stream, all of one table.
pub(crate) const ROUTES: &str = r#"
[[route]]
name = "hot"
table = "bigquery:d.t"
key = "hot:{id}"
type = "hash"
on_collision = "error"
[[route]]
name = "by-name"
table = "bigquery:d.t"
key = "by:{name}"
type = "set"
member = "{id}"
[[route]]
name = "events"
table = "bigquery:d.t"
key = "ev"
type = "stream"
use = ["rebuild"]
columns = ["id"]
"#;
pub(crate) const WORDS: [&str; 7] =
    ["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "2s"];
pub(crate) const FROM_ARCHIVE: [&str; 2] = ["--from", "archive"];

/// A table with rows of three days and some without a time, its archive, and a plan with more text in it.
pub(crate) fn archived(more: &str) -> (Cloud, PathBuf) {
    let (cloud, folder) = in_folder("");
    plan(&cloud, &folder, more);
    for day in 1..=3 {
        cloud.insert(day, 1_000 * day..1_000 * day + 150);
    }
    cloud.insert(0, 0..20);
    backup(&cloud, &[]).expect(0);
    (cloud, folder)
}

fn plan(cloud: &Cloud, folder: &Path, more: &str) {
    cloud.plan(&format!("{}{more}", section(folder, "")));
}

pub(crate) fn rebuild(cloud: &Cloud, more: &[&str]) -> Ran {
    run(cloud, &[&WORDS[..], more].concat())
}

/// Rebuilds from the archive.
pub(crate) fn rebuild_archived(cloud: &Cloud, more: &[&str]) -> Ran {
    rebuild(cloud, &[&FROM_ARCHIVE[..], more].concat())
}

pub(crate) fn in_redis(cloud: &Cloud) -> Held {
    held(cloud.redis.port(), "0", "ev:")
}

pub(crate) fn keys(cloud: &Cloud) -> u64 {
    cloud.redis.cli(&["DBSIZE"]).unwrap().trim().parse().unwrap()
}

pub(crate) fn flush(cloud: &Cloud) {
    cloud.redis.cli(&["FLUSHALL"]).unwrap();
}

/// Lets nothing answer where BigQuery was.
pub(crate) fn lose_bigquery(cloud: &Cloud) {
    let path = cloud.folder.path().join("rekindle.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(&cloud.bigquery.rest_url(), "http://127.0.0.1:1");
    fs::write(&path, text.replace(&cloud.bigquery.grpc_url(), "http://127.0.0.1:1")).unwrap();
}

/// The digests of all routes.
fn digests(summary: &Value) -> Vec<(String, String)> {
    let routes = summary["routes"].as_array().unwrap();
    let digest = |route: &Value| {
        let text = |field: &str| route[field].as_str().unwrap().to_owned();
        (text("name"), text("digest"))
    };
    routes.iter().map(digest).collect()
}

/// The files of one day.
fn files_of(folder: &Path, day: &str) -> Vec<PathBuf> {
    let found = files(&folder.join("log/b").join(day));
    assert!(!found.is_empty(), "no file of {day}");
    found
}

#[test]
fn redis_and_bigquery_are_lost_and_redis_is_what_it_was_from_the_archive_alone() {
    // GIVEN a Redis that was built from AlloyDB and BigQuery, an archive of BigQuery, and the loss of both
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    postgres.psql("create table builds (id int primary key, who text)").unwrap();
    postgres
        .psql("insert into builds select n, 'who ' || n from generate_series(1, 50) n")
        .unwrap();
    let alloydb = format!(
        "[[route]]\nname = \"builds\"\ntable = \"alloydb:public.builds\"\nkey = \"build:{{id}}\"\ntype = \"hash\"\n\
         [alloydb]\nurl = \"{}\"\n",
        postgres.url()
    );
    let (cloud, folder) = archived(&format!("{ROUTES}{alloydb}"));
    let built = rebuild(&cloud, &[]).expect(0).summary();
    assert_eq!(built.get("archive"), None, "{built}");
    let before = in_redis(&cloud);
    assert!(
        before.contains_key("hot:1007") && before.contains_key("build:50"),
        "{:?}",
        before.len()
    );
    flush(&cloud);
    lose_bigquery(&cloud);
    rebuild(&cloud, &[]).expect(3);
    // WHEN Redis is rebuilt from the archive
    let summary = rebuild_archived(&cloud, &[]).expect(0).summary();
    // THEN it holds what it held, row by row, and says where from
    assert_held(&in_redis(&cloud), &before);
    assert_eq!(digests(&summary), digests(&built));
    assert_eq!(summary["status"], "done");
    let reads = summary["archive"].as_array().unwrap();
    let names: Vec<&str> = reads.iter().map(|read| read["route"].as_str().unwrap()).collect();
    assert_eq!(names, ["hot", "by-name", "events"]);
    assert_eq!(reads[0]["archive"], format!("the archive file://{}", folder.display()));
    // AND the age of the archive is that of the data
    let route = summary["routes"].as_array().unwrap().iter().find(|route| route["name"] == "hot");
    assert_eq!(route.unwrap()["data_as_of"], reads[0]["data_as_of"]);
    run(&cloud, &["report"]).expect(0).shows(&["read in place of bigquery", "route hot read d.t"]);
    // AND a plan tells it beforehand, also without BigQuery
    let told = run(&cloud, &["plan", "--from", "archive", "--json"]).expect(0).summary();
    assert_eq!(
        (&told["routes"][0]["cut"], &told["routes"][0]["rows_estimate"]),
        (&json!("files of the archive"), &json!(470))
    );
    run(&cloud, &["plan", "--from", "archive"]).expect(0).shows(&["source   archive file://"]);
}

#[test]
fn every_type_is_in_redis_as_bigquery_would_have_given_it() {
    let lost = Lost::new(true);
    let days = lost.days(400);
    lost.runtime.block_on(lost.client.insert_table("logs", "builds", &table())).unwrap();
    lost.append("builds", &days);
    let folder = lost.folder.path().join("archive");
    fs::create_dir(&folder).unwrap();
    let path = lost.folder.path().join("rekindle.toml");
    let route = "[[route]]\nname = \"every\"\ntable = \"bigquery:logs.builds\"\nkey = \"every:{log_id}\"\ntype = \"json\"\non_collision = \"error\"\n";
    let written = fs::read_to_string(&path).unwrap();
    let archive = format!("[archive]\nurl = \"file://{}\"\n", folder.display());
    fs::write(&path, format!("{written}{route}{archive}")).unwrap();
    let run = |words: &[&str]| {
        let shared = ["--json", "--progress", "none", "--retry-for", "20s"];
        Ran::of(&lost.rekindle(&[words, &shared[..]].concat()).output().unwrap())
    };
    run(&["backup", "bigquery", "--to", "archive"]).expect(0);
    let built = run(&["rebuild", "redis"]).expect(0).summary();
    let before = held(lost.redis.port(), "0", "none:");
    assert!(before.len() > 400, "{}", before.len());
    lost.redis.cli(&["FLUSHALL"]).unwrap();
    let summary = run(&["rebuild", "redis", "--from", "archive"]).expect(0).summary();
    assert_held(&held(lost.redis.port(), "0", "none:"), &before);
    assert_eq!(digests(&summary), digests(&built));
}

#[test]
fn a_column_that_came_later_is_null_in_the_files_from_before() {
    let (cloud, _) = archived(ROUTES);
    cloud.add_column();
    cloud.sql("INSERT INTO d.t (id, name, ts, extra) VALUES (9000, 'new', TIMESTAMP '2025-11-04 00:00:00+00:00', 'more')");
    backup(&cloud, &[]).expect(0);
    rebuild(&cloud, &[]).expect(0);
    let before = in_redis(&cloud);
    assert!(before["hot:9000"].contains(&"extra=more".to_owned()), "{:?}", before["hot:9000"]);
    flush(&cloud);
    rebuild_archived(&cloud, &[]).expect(0);
    assert_held(&in_redis(&cloud), &before);
}

#[test]
fn what_an_archive_cannot_stand_in_for_is_refused_by_name_before_anything_is_written() {
    let (cloud, folder) = in_folder("");
    let refused = |more: &str, texts: &[&str]| {
        plan(&cloud, &folder, more);
        rebuild_archived(&cloud, &[]).expect(2).says(texts);
        assert_eq!(keys(&cloud), 0);
    };
    // No backup was ever complete; then a table that no route archives.
    refused(ROUTES, &["does not hold bigquery:d.t", "rekindle backup bigquery --to archive"]);
    let other = ROUTES.replace("bigquery:d.t", "bigquery:d.other");
    refused(
        &other,
        &["route hot", "archives bigquery:d.other", "rekindle backup bigquery --to archive"],
    );
    // What only BigQuery can evaluate.
    let filtered = ROUTES.replacen("type = \"hash\"", "type = \"hash\"\nwhere = \"id > 3\"", 1);
    refused(&filtered, &["route hot has a where", "rekindle restore bigquery --from archive"]);
    let query = ROUTES.replacen(
        "table = \"bigquery:d.t\"",
        "query = \"SELECT id, name FROM d.t\"\nfrom = \"bigquery\"",
        1,
    );
    refused(&query, &["route hot reads a query of bigquery"]);
    // Both are told at once.
    let mut renamed = other.clone();
    for (from, to) in [
        ("\"hot\"", "\"other\""),
        ("hot:", "o:"),
        ("\"by-name\"", "\"other-by\""),
        ("by:", "ob:"),
        ("\"events\"", "\"other-events\""),
        ("\"ev\"", "\"oev\""),
    ] {
        renamed = renamed.replace(from, to);
    }
    refused(&format!("{filtered}{renamed}"), &["route hot has a where", "route other:"]);
    // No archive, and no route that reads BigQuery.
    cloud.plan(&[crate::cloud::ROUTE, ROUTES].concat());
    rebuild_archived(&cloud, &[]).expect(2).says(&["the plan has no [archive] section"]);
    let alloydb = "[[route]]\nname = \"builds\"\ntable = \"alloydb:public.builds\"\nkey = \"build:{id}\"\ntype = \"hash\"\n\
        [alloydb]\nurl = \"postgres://nobody@127.0.0.1:1/none\"\n";
    refused(alloydb, &["no route that is rebuilt reads bigquery"]);
    assert_eq!(keys(&cloud), 0);
}

#[test]
fn a_route_with_a_where_does_not_keep_the_others_from_being_rebuilt() {
    let filtered = ROUTES.replacen("type = \"hash\"", "type = \"hash\"\nwhere = \"id > 3\"", 1);
    let (cloud, _) = archived(&filtered);
    lose_bigquery(&cloud);
    rebuild_archived(&cloud, &["--route", "by-name"]).expect(0);
    let by_name = in_redis(&cloud);
    assert_eq!(by_name.len(), 7, "{by_name:?}");
    assert_eq!(by_name.values().map(Vec::len).sum::<usize>(), 470);
}

#[test]
fn files_that_are_missing_altered_or_of_another_day_are_never_written_from() {
    let (cloud, folder) = archived(ROUTES);
    rebuild(&cloud, &[]).expect(0);
    let before = in_redis(&cloud);
    flush(&cloud);
    let file = files_of(&folder, "20251102").remove(0);
    let stored = fs::read(&file).unwrap();
    let hot = |more: &[&str]| rebuild_archived(&cloud, &[&["--route", "hot"], more].concat());
    // A file that is gone, or has another length, is told before a row is written.
    fs::remove_file(&file).unwrap();
    hot(&[]).expect(4).says(&[
        "log:b:20251102:1:0",
        "missing",
        "rekindle backup bigquery --to archive",
    ]);
    fs::write(&file, &stored[1..]).unwrap();
    hot(&[]).expect(4).says(&["log:b:20251102:1:0", "bytes where its manifest says"]);
    assert_eq!(keys(&cloud), 0);
    // One of the right length is found out when it is read, and gives no row; what came from others is not called done.
    let mut altered = stored.clone();
    altered[stored.len() / 2] ^= 1;
    let status = |ran: &Ran| ran.summary()["status"].clone();
    for other in [altered, padded(&files_of(&folder, "20251103")[0], stored.len())] {
        fs::write(&file, other).unwrap();
        let ran = hot(&["--fresh"]).expect(4).says(&["log:b:20251102:1:0", "altered"]);
        assert_eq!(status(&ran), "failed");
        assert!(
            !in_redis(&cloud).keys().any(|key| key.starts_with("hot:20")),
            "rows of an altered file"
        );
    }
    // WHEN the file is back THEN the same command resumes and completes it
    fs::write(&file, &stored).unwrap();
    let summary = hot(&[]).expect(0).summary();
    assert!(summary["resumed"].as_u64() > Some(0), "{summary}");
    let hashes = before.into_iter().filter(|(key, _)| key.starts_with("hot:"));
    assert_held(&in_redis(&cloud), &hashes.collect());
    // Documents are checked as well.
    let manifest = files(&folder.join("log/m/20251103")).remove(0);
    let text = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    hot(&["--fresh"]).expect(4).says(&["log:m:20251103", "missing"]);
    let changed =
        String::from_utf8(text.clone()).unwrap().replacen("\"rows\":150", "\"rows\":151", 1);
    fs::write(&manifest, changed).unwrap();
    hot(&["--fresh"]).expect(4).says(&["20251103", "altered"]);
}

/// A file cut or filled up to a length.
fn padded(file: &Path, length: usize) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    bytes.resize(length, 0);
    bytes
}

#[test]
fn without_the_key_of_its_files_nothing_is_rebuilt() {
    let (cloud, folder) = in_folder("");
    let key = |digit: &str| {
        let path = cloud.folder.path().join(format!("key-{digit}"));
        fs::write(&path, format!("{}\n", digit.repeat(64))).unwrap();
        format!("encrypt_key = \"${{file:{}}}\"\n", path.display())
    };
    let with = |line: &str| cloud.plan(&format!("{}{ROUTES}", section(&folder, line)));
    with(&key("a"));
    cloud.insert(1, 0..100);
    backup(&cloud, &[]).expect(0);
    rebuild(&cloud, &[]).expect(0);
    let before = in_redis(&cloud);
    flush(&cloud);
    with("");
    rebuild_archived(&cloud, &[]).expect(2).says(&["has no encrypt_key"]);
    with(&key("b"));
    let ran = rebuild_archived(&cloud, &[]).expect(2).says(&["encrypted with the key of id"]);
    assert!(!ran.stderr.contains(&"a".repeat(64)) && !ran.stderr.contains(&"b".repeat(64)));
    assert_eq!(keys(&cloud), 0);
    with(&key("a"));
    rebuild_archived(&cloud, &[]).expect(0);
    assert_held(&in_redis(&cloud), &before);
}
