//! Everything that can be wrong with a BigQuery, a Redis with its duplicate and a state folder, told by every command.

use super::alloydb::{CHECK, PLAN, STATUS};
use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::world::{Ran, wait_until};
use fixtures::servers::{Redis, RedisOptions};
use std::fs;
use std::path::PathBuf;

pub(super) const REBUILD: &[&str] =
    &["rebuild", "redis", "--progress", "none", "--retry-for", "1s"];
pub(super) const BACKUP: &[&str] =
    &["backup", "bigquery", "--progress", "none", "--retry-for", "1s"];
pub(super) const RESTORE: &[&str] =
    &["restore", "bigquery", "--progress", "none", "--retry-for", "1s"];
pub(super) const VERIFY: &[&str] =
    &["verify", "bigquery", "--progress", "none", "--retry-for", "1s"];
const HOT: &str = "[[route]]\nname = \"hot\"\ntable = \"bigquery:d.t\"\nkey = \"hot:{id}\"\ntype = \"hash\"\n\
                   on_collision = \"error\"\n";

/// A table of 500 rows in two days, rebuilt and backed up.
pub(super) fn cloud() -> Cloud {
    let cloud = Cloud::new(RedisOptions::default(), &format!("{ROUTE}{HOT}"));
    cloud.table(DAY_PARTITIONED);
    cloud.insert(1, 0..300);
    cloud.insert(2, 300..500);
    run(&cloud, REBUILD).expect(0);
    run(&cloud, BACKUP).expect(0);
    cloud
}

pub(super) fn run(cloud: &Cloud, words: &[&str]) -> Ran {
    Ran::of(&cloud.command(words).output().unwrap())
}

fn plan_file(cloud: &Cloud) -> PathBuf {
    cloud.folder.path().join("rekindle.toml")
}

/// Writes the plan with something else in the place of a text of it.
fn with_plan(cloud: &Cloud, changes: &[(&str, &str)]) {
    let mut text = fs::read_to_string(plan_file(cloud)).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in the plan");
        text = text.replace(from, to);
    }
    fs::write(plan_file(cloud), text).unwrap();
}

fn redis(cloud: &Cloud, words: &[&str]) -> String {
    cloud.redis.cli(words).unwrap().trim().to_owned()
}

#[test]
fn a_bigquery_that_is_away() {
    let cloud = cloud();
    let (rest, grpc) = (cloud.bigquery.rest_url(), cloud.bigquery.grpc_url());
    with_plan(&cloud, &[(&rest, "http://127.0.0.1:1"), (&grpc, "http://127.0.0.1:1")]);
    run(&cloud, CHECK).expect(3).shows(&["FAILED   bigquery: ", "error sending request"]);
    for words in [PLAN, REBUILD, BACKUP, RESTORE, VERIFY] {
        run(&cloud, words).expect(3).says(&["error sending request", "hint: "]);
    }
    run(&cloud, STATUS).expect(0).shows(&["run "]);
}

#[test]
fn a_duplicate_that_is_away() {
    let cloud = cloud();
    let url = cloud.redis.url();
    with_plan(&cloud, &[(&url, "redis://127.0.0.1:1")]);
    run(&cloud, CHECK).expect(3).shows(&["FAILED   duplicate: cannot connect to redis"]);
    for words in [PLAN, REBUILD, BACKUP, RESTORE, VERIFY] {
        run(&cloud, words).expect(3).says(&[
            " redis at 127.0.0.1:1",
            "Connection refused",
            "hint: ",
        ]);
    }
    run(&cloud, STATUS).expect(0).shows(&["run "]);
}

#[test]
fn a_bigquery_that_denies_or_has_no_quota() {
    let cloud = cloud();
    cloud.fault("rest:tables.get", "deny", 0, 1000);
    run(&cloud, CHECK).expect(2).shows(&["FAILED   route hot: ", "Access Denied"]);
    for words in [PLAN, REBUILD, BACKUP, RESTORE, VERIFY] {
        run(&cloud, words).expect(2).says(&["Access Denied", "hint: give the account"]);
    }
    run(&cloud, STATUS).expect(0).shows(&["run "]);
    // GIVEN a quota that does not come back in time
    cloud.no_faults();
    cloud.delete_table();
    cloud.fault("CreateWriteStream", "throttle", 0, 1000);
    run(&cloud, RESTORE).expect(3).says(&["cannot make a write stream of bigquery", "hint: "]);
}

#[test]
fn a_duplicate_that_denies() {
    let cloud = cloud();
    redis(&cloud, &["ACL", "SETUSER", "app", "reset", "on", ">secret", "~x:*", "+@all"]);
    with_plan(&cloud, &[("redis://", "redis://app:secret@")]);
    run(&cloud, CHECK).expect(2).shows(&["FAILED   redis access: user app may not run"]);
    for words in [PLAN, REBUILD, BACKUP, VERIFY] {
        run(&cloud, words).expect(2).says(&["NOPERM", "ACL", "hint: "]);
    }
    cloud.delete_table();
    run(&cloud, RESTORE).expect(2).says(&["NOPERM", "ACL", "hint: "]);
    run(&cloud, STATUS).expect(0).shows(&["run "]);
}

#[test]
fn a_duplicate_that_is_full_or_evicts() {
    let cloud = cloud();
    redis(&cloud, &["CONFIG", "SET", "maxmemory", "1mb"]);
    run(&cloud, CHECK).expect(5).shows(&["FAILED   redis memory: "]);
    run(&cloud, PLAN).expect(0).shows(&["hot"]);
    run(&cloud, REBUILD).expect(5).says(&["has no room for this run", "hint: "]);
    run(&cloud, BACKUP).expect(5).says(&["OOM", "hint: give the instance more memory"]);
    // What only reads goes on.
    run(&cloud, VERIFY).expect(0).shows(&["verify bigquery: pass"]);
    cloud.delete_table();
    run(&cloud, RESTORE).expect(0).shows(&["done"]);
    redis(&cloud, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    run(&cloud, CHECK).expect(5).shows(&["FAILED   redis memory: "]);
    run(&cloud, REBUILD).expect(5).says(&["has no room for this run", "hint: "]);
    run(&cloud, BACKUP).expect(5).says(&["may evict the duplicate", "hint: set maxmemory-policy"]);
    // What was evicted is missing.
    run(&cloud, VERIFY).expect(4).shows(&["verify bigquery: fail"]);
    cloud.delete_table();
    run(&cloud, RESTORE).expect(4).says(&["is missing in redis", "hint: "]);
}

#[test]
fn a_duplicate_on_a_replica() {
    let cloud = cloud();
    let primary = Redis::start(RedisOptions::default()).unwrap();
    redis(&cloud, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    wait_until("the replica's link", || {
        redis(&cloud, &["INFO", "replication"]).contains("master_link_status:up")
    });
    run(&cloud, CHECK).expect(2).shows(&["FAILED   redis role: it is a slave"]);
    run(&cloud, PLAN).expect(0).shows(&["hot"]);
    for words in [REBUILD, BACKUP] {
        run(&cloud, words).expect(3).says(&["READONLY", "primary", "hint: "]);
    }
    // What a replica has can be read; this one follows an empty server.
    run(&cloud, VERIFY).expect(4).shows(&["verify bigquery: fail"]);
    cloud.delete_table();
    run(&cloud, RESTORE).expect(4).says(&["there is no record of a complete backup", "hint: "]);
}

#[test]
fn a_target_of_another_run_or_with_rows() {
    let cloud = cloud();
    redis(&cloud, &["SET", "rekindle:run", "0198 host b at 04:05"]);
    redis(&cloud, &["SET", "rekindle:backup", "0198 host b at 04:05"]);
    run(&cloud, CHECK).expect(2).shows(&["FAILED   redis owner: another run is filling it"]);
    run(&cloud, PLAN).expect(0).shows(&["hot"]);
    run(&cloud, REBUILD).expect(8).says(&["another run: 0198 host b", "--take-over 0198"]);
    run(&cloud, BACKUP).expect(8).says(&["another backup: 0198 host b", "--take-over 0198"]);
    run(&cloud, RESTORE).expect(2).says(&["table d.t has 500 rows", "--replace"]);
    run(&cloud, VERIFY).expect(0).shows(&["verify bigquery: pass"]);
}

#[test]
fn a_state_folder_in_use_or_of_no_use() {
    let cloud = cloud();
    let state = cloud.folder.path().join(".rekindle");
    let lock = fs::File::open(state.join("lock")).unwrap();
    lock.lock().unwrap();
    for words in [REBUILD, BACKUP, RESTORE] {
        run(&cloud, words).expect(8).says(&["is in use by process", "hint: "]);
    }
    run(&cloud, VERIFY).expect(0).shows(&["verify bigquery: pass"]);
    drop(lock);
    fs::write(state.join("journal.sqlite"), "no journal").unwrap();
    for words in [REBUILD, BACKUP, RESTORE, STATUS] {
        run(&cloud, words).expect(1).says(&["is damaged", "hint: "]);
    }
    run(&cloud, VERIFY).expect(0).shows(&["verify bigquery: pass"]);
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "no folder").unwrap();
    for words in [REBUILD, BACKUP, RESTORE, VERIFY, STATUS] {
        run(&cloud, words).expect(1).says(&["error: cannot ", ".rekindle", "hint: "]);
    }
}

#[test]
fn blocks_that_are_altered_and_a_table_that_was_emptied() {
    let cloud = cloud();
    cloud.sql("DELETE FROM d.t WHERE TRUE");
    run(&cloud, CHECK).expect(0).shows(&["0 FAILED"]);
    run(&cloud, PLAN).expect(0).shows(&["hot"]);
    run(&cloud, BACKUP)
        .expect(4)
        .says(&["is gone; its duplicate stays as it is", "--accept-loss d.t"]);
    run(&cloud, VERIFY).expect(4).shows(&["verify bigquery: fail"]);
    run(&cloud, REBUILD).expect(0).shows(&["hot"]);
    // An empty table is what a restore is for; but not from blocks that are altered.
    let keys = redis(&cloud, &["KEYS", "log:b:*"]);
    redis(&cloud, &["SET", keys.lines().next().unwrap(), "nonsense"]);
    run(&cloud, PLAN).expect(0).shows(&["damaged"]);
    run(&cloud, RESTORE).expect(4).says(&["8 bytes where its manifest says", "hint: "]);
    run(&cloud, VERIFY).expect(4).shows(&["verify bigquery: fail"]);
    run(&cloud, BACKUP).expect(4).says(&["altered", "hint: "]);
}

#[test]
fn credentials_that_are_missing_and_an_objective_that_is_missed() {
    let cloud = cloud();
    let lost = ["--lost-at", "2026-01-01T00:00:00Z"];
    run(&cloud, &[REBUILD, &lost, &["--fresh"]].concat()).expect(6).shows(&["MISSED"]);
    cloud.delete_table();
    run(&cloud, &[RESTORE, &lost].concat()).expect(6).shows(&["MISSED"]);
    let (rest, grpc) = (cloud.bigquery.rest_url(), cloud.bigquery.grpc_url());
    let [rest, grpc] = [("endpoint", rest), ("grpc_endpoint", grpc)]
        .map(|(name, url)| format!("\n{name} = \"{url}\""));
    with_plan(&cloud, &[(&rest, ""), (&grpc, "")]);
    let run = |words| {
        let mut command = cloud.command(words);
        command.env("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json");
        Ran::of(&command.output().unwrap())
    };
    run(CHECK).expect(2).shows(&["FAILED   bigquery: ", "GOOGLE_APPLICATION_CREDENTIALS"]);
    for words in [PLAN, REBUILD, BACKUP, RESTORE, VERIFY] {
        run(words).expect(2).says(&["GOOGLE_APPLICATION_CREDENTIALS", "hint: "]);
    }
    run(STATUS).expect(0).shows(&["run "]);
}

#[test]
fn a_row_without_a_key() {
    let cloud = cloud();
    cloud.sql("INSERT INTO d.t (id, name) VALUES (NULL, 'x')");
    let ran = run(&cloud, &[REBUILD, &["--fresh"]].concat());
    ran.expect(7).says(&["1 of 501 rows were rejected", "hint: "]);
}
