//! Everything that can be wrong with a PostgreSQL, a Redis and a state folder, told by every command.

use crate::world::{Ran, World, wait_until};
use fixtures::servers::{PostgresOptions, Redis, RedisOptions};
use std::fs;

pub(super) const CHECK: &[&str] = &["check"];
pub(super) const PLAN: &[&str] = &["plan", "--retry-for", "1s"];
pub(super) const STATUS: &[&str] = &["status"];
const REBUILD: &[&str] = &["rebuild", "redis", "--progress", "none", "--retry-for", "1s"];
const VERIFY: &[&str] = &["verify", "redis", "--progress", "none", "--retry-for", "1s"];
pub(super) const REPLAY: &[&str] =
    &["rejects", "replay", "--progress", "none", "--retry-for", "1s"];
const ROUTE: &str = "\n[[route]]\nname = \"users\"\ntable = \"alloydb:public.users\"\nkey = \"user:{k}\"\n\
                     type = \"hash\"\nrejects_max = 5\n";
const NOWHERE: &str = "redis://127.0.0.1:1";

/// A world whose 200 rows were carried but for one, which is rejected because its key is null.
pub(super) fn world() -> World {
    let world = World::with(PostgresOptions::default(), RedisOptions::default());
    world.sql(
        "create table users (id bigint primary key, k text unique, name text); \
         insert into users select i, nullif(i, 200), 'n' || i from generate_series(1, 200) i; analyze users",
    );
    world.plan(ROUTE);
    world.run(REBUILD).expect(0);
    world
}

fn with(world: &World, name: &str, value: &str, words: &[&str]) -> Ran {
    Ran::of(&world.command(words).env(name, value).output().unwrap())
}

/// Everything of Redis but what the server counts for itself.
fn keys(world: &World) -> String {
    world.redis(&[
        "EVAL",
        "local k = redis.call('KEYS', '*') table.sort(k) return table.concat(k, ' ')",
        "0",
    ])
}

#[test]
fn a_source_that_is_away() {
    let world = world();
    let before = keys(&world);
    let run = |words| with(&world, "ALLOYDB_URL", "postgres://127.0.0.1:1/app", words);
    run(CHECK).expect(3).shows(&["FAILED   alloydb: cannot connect to alloydb"]);
    for words in [PLAN, REBUILD, VERIFY, REPLAY] {
        run(words).expect(3).says(&["cannot connect to alloydb", "hint: "]);
    }
    run(STATUS).expect(0).shows(&["rebuild redis"]);
    assert_eq!(keys(&world), before);
}

#[test]
fn a_source_that_denies() {
    let world = world();
    world.sql("create role reader login password 'x'");
    let url = world.postgres.url();
    let url = format!(
        "postgres://reader:x@{}",
        url.rsplit_once('@').map_or(&url[11..], |(_, rest)| rest)
    );
    let run = |words| with(&world, "ALLOYDB_URL", &url, words);
    run(CHECK).expect(2).shows(&["FAILED   route users: "]);
    for words in [PLAN, REBUILD, VERIFY, REPLAY] {
        run(words).expect(2).says(&["public.users", "grant select"]);
    }
    run(STATUS).expect(0).shows(&["rebuild redis"]);
}

#[test]
fn a_source_that_changed_its_schema_or_lost_its_rows() {
    let world = world();
    world.sql("alter table users rename column k to other");
    world.run(CHECK).expect(2).shows(&["FAILED   route users: unknown column k"]);
    for words in [PLAN, REBUILD, VERIFY, REPLAY] {
        world.run(words).expect(2).says(&["unknown column k", "hint: "]);
    }
    world.run(STATUS).expect(0).shows(&["rebuild redis"]);
    // GIVEN a table that was emptied: a difference, until somebody rebuilds from it what it has, which is nothing.
    world.sql("alter table users rename column other to k; delete from users; analyze users");
    world.run(CHECK).expect(0).shows(&["0 FAILED"]);
    world.run(PLAN).expect(0).shows(&["users"]);
    world.run(&[VERIFY, &["--tier", "full"]].concat()).expect(4).shows(&["unexplained"]);
    world.run(REPLAY).expect(0).shows(&["gone"]);
    world.run(REBUILD).expect(0).shows(&["0 read = 0 written"]);
}

#[test]
fn a_target_that_is_away() {
    let world = world();
    let run = |words| with(&world, "REDIS_URL", NOWHERE, words);
    run(CHECK).expect(3).shows(&["FAILED   redis: cannot connect to redis"]);
    for words in [PLAN, REBUILD, VERIFY, REPLAY] {
        run(words).expect(3).says(&["cannot connect to redis", "hint: "]);
    }
    run(STATUS).expect(0).shows(&["rebuild redis"]);
}

#[test]
fn a_target_that_denies() {
    let world = world();
    world.redis(&["ACL", "SETUSER", "app", "reset", "on", ">secret", "~x:*", "+@all"]);
    let url = format!("redis://app:secret@127.0.0.1:{}", world.redis.port());
    let run = |words| with(&world, "REDIS_URL", &url, words);
    run(CHECK).expect(2).shows(&["FAILED   redis access: user app may not run"]);
    run(PLAN).expect(0).shows(&["users"]);
    for words in [REBUILD, VERIFY, REPLAY] {
        run(words).expect(2).says(&["NOPERM", "ACL", "hint: "]);
    }
    run(STATUS).expect(0).shows(&["rebuild redis"]);
}

#[test]
fn a_target_that_is_full_or_evicts() {
    for policy in ["noeviction", "allkeys-lru"] {
        let world = world();
        world.redis(&["CONFIG", "SET", "maxmemory-policy", policy]);
        world.redis(&["CONFIG", "SET", "maxmemory", "1mb"]);
        world.run(CHECK).expect(5).shows(&["FAILED   redis memory: "]);
        world.run(PLAN).expect(0).shows(&["users"]);
        if policy == "noeviction" {
            world.run(VERIFY).expect(0).shows(&["verify redis: pass"]);
        } else {
            // What was evicted is missing.
            world.run(VERIFY).expect(4).shows(&["verify redis: fail"]);
        }
        world.run(REPLAY).expect(5).says(&["OOM", "hint: "]);
        world.run(REBUILD).expect(5).says(&["has no room for this run", "hint: "]);
        world.run(STATUS).expect(0).shows(&["rebuild redis"]);
    }
}

#[test]
fn a_target_that_is_a_replica() {
    let world = world();
    let primary = Redis::start(RedisOptions::default()).unwrap();
    world.redis(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    wait_until("the replica's link", || {
        world.redis(&["INFO", "replication"]).contains("master_link_status:up")
    });
    world.run(CHECK).expect(2).shows(&["FAILED   redis role: it is a slave"]);
    world.run(PLAN).expect(0).shows(&["users"]);
    for words in [REBUILD, REPLAY] {
        world.run(words).expect(3).says(&["READONLY", "primary", "hint: "]);
    }
    // What a replica has can be read; this one follows an empty server.
    world.run(VERIFY).expect(4).shows(&["missing"]);
    world.run(STATUS).expect(0).shows(&["rebuild redis"]);
}

#[test]
fn a_target_of_another_run() {
    let world = world();
    world.redis(&["SET", "rekindle:run", "0198 host b at 04:05"]);
    world.run(CHECK).expect(2).shows(&["FAILED   redis owner: another run is filling it"]);
    world.run(PLAN).expect(0).shows(&["users"]);
    for words in [REBUILD, VERIFY, REPLAY] {
        world.run(words).expect(8).says(&["another run: 0198 host b", "--take-over 0198"]);
    }
    world.run(STATUS).expect(0).shows(&["rebuild redis"]);
    assert_eq!(world.redis(&["GET", "rekindle:run"]), "0198 host b at 04:05");
}

#[test]
fn a_state_folder_in_use() {
    let world = world();
    let lock = fs::File::open(world.state().join("lock")).unwrap();
    lock.lock().unwrap();
    world.run(CHECK).expect(0).shows(&["0 FAILED"]);
    world.run(PLAN).expect(0).shows(&["users"]);
    world.run(VERIFY).expect(0).shows(&["verify redis: pass"]);
    for words in [REBUILD, REPLAY] {
        world.run(words).expect(8).says(&["is in use by process", "hint: "]);
    }
    world.run(STATUS).expect(0).shows(&["rebuild redis"]);
}

#[test]
fn a_state_folder_that_cannot_be_used() {
    let world = world();
    fs::write(world.state().join("journal.sqlite"), "no journal").unwrap();
    world.run(CHECK).expect(2).shows(&["FAILED   journal: "]);
    world.run(PLAN).expect(0).shows(&["users"]);
    world.run(VERIFY).expect(0).shows(&["verify redis: pass"]);
    for words in [REBUILD, REPLAY, STATUS] {
        world.run(words).expect(1).says(&["is damaged", "hint: "]);
    }
    // GIVEN a file in its place, as a full disk or a wrong path leaves it
    fs::remove_dir_all(world.state()).unwrap();
    fs::write(world.state(), "no folder").unwrap();
    world.run(CHECK).expect(2).shows(&["FAILED   state folder: "]);
    world.run(PLAN).expect(0).shows(&["users"]);
    for words in [REBUILD, VERIFY, REPLAY, STATUS] {
        world.run(words).expect(1).says(&["error: cannot ", ".rekindle", "hint: "]);
    }
}

#[test]
fn a_variable_that_is_missing_and_an_objective_that_is_missed() {
    let world = world();
    let run = |words| with(&world, "ALLOYDB_URL", "", words);
    run(CHECK).expect(2).shows(&["alloydb.url: must not be empty"]);
    for words in [PLAN, REBUILD, VERIFY, REPLAY] {
        run(words).expect(2).says(&["alloydb.url: must not be empty"]);
    }
    run(STATUS).expect(0).shows(&["rebuild redis"]);
    let lost = ["--lost-at", "2026-01-01T00:00:00Z"];
    world.run(&[PLAN, &lost].concat()).expect(6).says(&["no run can meet it"]);
    world.run(&[REBUILD, &lost, &["--fresh"]].concat()).expect(6).shows(&["MISSED"]);
    world.run(STATUS).expect(0).shows(&["rebuild redis"]);
}

#[test]
fn more_rejects_than_the_plan_allows() {
    let world = world();
    world.plan(&ROUTE.replace("rejects_max = 5", "rejects_max = 0"));
    world.run(&[REBUILD, &["--fresh"]].concat()).expect(7).shows(&["reject"]);
    world.run(CHECK).expect(0).shows(&["0 FAILED"]);
    world.run(PLAN).expect(0).shows(&["users"]);
    world.run(VERIFY).expect(7).says(&["more than rejects_max allows"]);
    world.run(REPLAY).expect(7).shows(&["reject"]);
    world.run(STATUS).expect(0).shows(&["rebuild redis"]);
}
