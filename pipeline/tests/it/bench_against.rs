//! `rekindle bench --against`: the plan's own Redis as what is written to.
//!
//! Invariant: whatever became of a bench, what applications hold there is as it was, and no key of the bench is left.

use crate::items::{HASH, Wire, fill_with, filled};
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{PostgresOptions, RedisOptions};
use std::process::Stdio;

/// Debian's, where `./test` puts it.
const SERVER: &str = "/usr/bin/redis-server";

fn words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "--json", "--against", "--repeats", "1"][..], more].concat()
}

fn bench(world: &World, more: &[&str]) -> Ran {
    world.run(&words(more))
}

/// A table of so many rows, and a Redis with 3 MB at most.
fn narrow(rows: u64) -> World {
    let redis = RedisOptions {
        maxmemory: Some("3mb".into()),
        maxmemory_policy: Some("noeviction".into()),
        ..RedisOptions::default()
    };
    let world = World::with(PostgresOptions::default(), redis);
    fill_with(&world, rows);
    world.plan(HASH);
    world
}

#[test]
fn a_redis_in_use_is_measured_and_left_as_it_was() {
    // GIVEN a Redis in which an application holds a key of the route, and one of its own
    let world = World::new();
    fill_with(&world, 2_000);
    world.plan(HASH);
    world.redis(&["HSET", "item:1", "a", "of an application"]);
    world.redis(&["SET", "other", "1"]);
    // WHEN three sizes are measured in it
    let found = bench(&world, &["--rows", "500,1000,2000"]).expect(0).summary();
    // THEN every row was a key of the bench, and all of them were removed
    let samples = found["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 3, "{found}");
    let rows: u64 = samples.iter().map(|sample| sample["rows"].as_u64().unwrap()).sum();
    assert_eq!(found["against"]["removed_keys"].as_u64(), Some(rows), "{found}");
    let prefix = found["against"]["prefix"].as_str().unwrap();
    assert!(prefix.starts_with("rekindle:bench:") && prefix.len() > 40, "{prefix}");
    // AND what was there is there, and nothing else
    assert_eq!(world.redis(&["HGETALL", "item:1"]), "a\nof an application");
    assert_eq!(
        (world.redis(&["GET", "other"]), world.redis(&["DBSIZE"])),
        ("1".into(), "2".into())
    );
    assert!(!world.state().join("bench").exists() && !world.state().join("bench.keys").exists());
    world.run(&["report"]).expect(0).shows(&["the plan's own redis at ", "keys, all removed"]);
    // AND plan says what kind of runs it was fitted to, before those into a throwaway server
    world.run(&["bench", "--redis-server", SERVER, "--rows", "2000", "--repeats", "1"]).expect(0);
    world
        .run(&["plan"])
        .expect(0)
        .shows(&["fitted to 3 benches into the plan's own redis, of 2,000 rows"]);
}

#[test]
fn a_killed_bench_leaves_keys_that_the_next_one_removes() {
    let world = filled();
    world.redis(&["SET", "other", "1"]);
    let mut child =
        world.command(&words(&[])).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut wire = Wire::open(&world);
    wait_until("keys of the bench", || wire.count_named("rekindle:bench:*") > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    // Also one that writes elsewhere.
    let next = ["bench", "--redis-server", SERVER, "--rows", "2000", "--repeats", "1"];
    world.run(&next).expect(0);
    assert_eq!(
        (world.redis(&["GET", "other"]), world.redis(&["DBSIZE"])),
        ("1".into(), "1".into())
    );
    assert!(!world.state().join("bench.keys").exists());
    // A rebuild finds the server free.
    world.rebuild(&[]).expect(0);
}

#[test]
fn a_redis_without_room_or_of_another_run_is_left_alone() {
    // GIVEN a table that needs more than the Redis may take
    let world = narrow(40_000);
    // WHEN all of it is measured there THEN that is refused before anything is written
    bench(&world, &["--rows", "40000"])
        .expect(5)
        .says(&["it leaves a fifth of a redis in use free", "--rows"]);
    assert_eq!(world.redis(&["DBSIZE"]), "0");
    // AND measured elsewhere, the limit binds, and the answer says so
    let elsewhere =
        ["bench", "--json", "--redis-server", SERVER, "--rows", "40000", "--repeats", "1"];
    let found = world.run(&elsewhere).expect(6).summary();
    let memory = &found["quotas"][0];
    assert_eq!(
        (memory["name"].as_str(), memory["binds"].as_bool(), found["within_rto"].as_bool()),
        (Some("memory of redis"), Some(true), Some(false)),
        "{found}"
    );
    assert!(found["warnings"].to_string().contains("a limit binds: memory of redis"), "{found}");
    assert!(found["advice"].as_str().unwrap().ends_with("more of: memory of redis"), "{found}");
    // AND a part that fits is refused while another run holds the server, whose mark stays
    world.redis(&["SET", "rekindle:run", "0198 host=a pid=1"]);
    bench(&world, &["--rows", "1000"]).expect(8);
    assert_eq!(
        (world.redis(&["GET", "rekindle:run"]), world.redis(&["DBSIZE"])),
        ("0198 host=a pid=1".into(), "1".into())
    );
    assert!(!world.state().join("bench.keys").exists());
    // AND both kinds of targets at once are refused, as it is for BigQuery
    bench(&world, &["--redis-server", SERVER]).expect(2);
    world.run(&["bench", "bigquery", "--against"]).expect(2).says(&["--against is for rebuilds"]);
}
