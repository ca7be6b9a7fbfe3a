//! Servers that are there and cannot serve: loading, without their primary, ending sessions one after the other.
//!
//! Invariant: a run waits as long as it was told to, ends with 3 and names what the server said, and the same command
//! completes it once the server serves again.

use crate::items::{self, Wire, assert_complete};
use crate::net::spawn;
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{PostgresOptions, RedisOptions};
use std::process::Child;

/// A rebuild that takes some seconds, started and left running.
fn paced(world: &World) -> Child {
    let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
    command.args(["--retry-for", "2s", "--lanes", "2", "--max-rows-per-second", "60000"]);
    spawn(command)
}

#[test]
fn a_postgres_that_ends_every_session_again_and_again_loses_nothing() {
    let world = items::filled();
    let mut child = paced(&world);
    let mut wire = Wire::open(&world);
    let (mut ended, mut before) = (0_u64, 5_000);
    for _ in 0..8 {
        wait_until("more rows", || wire.dbsize() > before || child.try_wait().unwrap().is_some());
        before = wire.dbsize() + 10_000;
        ended += world
            .sql("select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'rekindle'")
            .parse::<u64>()
            .unwrap();
    }
    let ran = Ran::of(&child.wait_with_output().unwrap());
    println!("{ended} sessions were ended");
    assert!(ended >= 8, "{ended}");
    if ran.code != Some(0) {
        ran.expect(3).says(&["alloydb", "hint: "]);
        world.rebuild(&[]).expect(0);
    }
    assert_complete(&world);
}

#[test]
fn a_redis_that_loads_its_data_is_waited_for_or_named_with_3() {
    // GIVEN a Redis that takes some seconds to load what it has saved
    let redis = RedisOptions {
        args: ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"]
            .map(String::from)
            .to_vec(),
        ..RedisOptions::default()
    };
    let mut world = World::with(PostgresOptions::default(), redis);
    items::fill(&world);
    world.plan(items::HASH);
    let keys = "for i = 1, 8000 do redis.call('SET', 'other:' .. i, i) end return 1";
    world.redis(&["EVAL", keys, "0"]);
    world.redis(&["SAVE"]);
    world.redis.kill().unwrap();
    world.redis.start_again().unwrap();
    assert!(world.redis(&["INFO", "persistence"]).contains("loading:1"));
    // WHEN a run has less patience than that THEN it ends with 3 and says why
    let mut impatient = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
    impatient.args(["--retry-for", "1s"]);
    Ran::of(&impatient.output().unwrap()).expect(3).says(&["LOADING", "hint: "]);
    // AND one that has more waits
    let mut patient = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
    patient.args(["--retry-for", "1m"]);
    Ran::of(&patient.output().unwrap()).expect(0);
    let others = world.redis(&["EVAL", "return #redis.call('KEYS', 'other:*')", "0"]);
    assert_eq!(others, "8000");
    world.redis(&["EVAL", "for i = 1, 8000 do redis.call('DEL', 'other:' .. i) end return 1", "0"]);
    assert_complete(&world);
}

#[test]
fn a_redis_that_becomes_a_replica_without_a_primary_in_mid_run_exits_with_3_until_it_is_one() {
    let world = items::filled();
    let child = paced(&world);
    let mut wire = Wire::open(&world);
    wait_until("some rows", || wire.dbsize() > 20_000);
    // Nobody listens on the port of discard.
    world.redis(&["REPLICAOF", "127.0.0.1", "9"]);
    let ran = Ran::of(&child.wait_with_output().unwrap()).expect(3);
    ran.says(&["READONLY", "redis at 127.0.0.1:", "hint: "]);
    // AND so it is where it says nothing of what it holds.
    world.redis(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let ran = Ran::of(&paced(&world).wait_with_output().unwrap()).expect(3);
    ran.says(&["MASTERDOWN", "redis at 127.0.0.1:", "hint: "]);
    world.redis(&["REPLICAOF", "NO", "ONE"]);
    world.rebuild(&[]).expect(0);
    assert_complete(&world);
}
