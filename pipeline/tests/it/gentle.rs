//! Systems in use: the run pauses while they are pressed, and goes on by itself.

use crate::net::{led, spawn};
use crate::room::{ITEMS, wait_for_line, world_of};
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{Direction, Postgres, PostgresOptions, Proxy, RedisOptions, Toxic};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};

/// The words of a rebuild, for a command with an environment of its own.
const REBUILD: [&str; 5] = ["rebuild", "redis", "--json", "--progress", "none"];

fn paused(summary: &Value, reason: &str) -> f64 {
    assert!(summary["pauses"][reason]["count"].as_u64().unwrap_or(0) > 0, "{}", summary["pauses"]);
    summary["pauses"][reason]["seconds"].as_f64().unwrap()
}

#[test]
fn a_run_pauses_while_others_are_at_work_on_the_source() {
    let world = world_of(2_000, "0", "noeviction");
    world.sql("grant pg_monitor to rekindle");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Ended by force below, or by itself where the test fails.
            scope.spawn(|| world.postgres.psql("select pg_sleep(30)"));
        }
        let sleeping = "select count(*) from pg_stat_activity where query = 'select pg_sleep(30)'";
        wait_until("four queries at work", || world.sql(sleeping) == "4");
        let mut run = world.start_rebuild(&["--pause-above-source-active", "3"]);
        wait_for_line(&mut run, "source_active");
        assert!(world.redis(&["KEYS", "item:*"]).is_empty(), "it wrote before it looked");
        world.sql("select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(30)'");
        let done = Ran::of(&run.wait_with_output().unwrap()).expect(0).summary();
        assert!(paused(&done, "source_active") > 0.0);
        assert_eq!(
            (&done["status"], world.redis(&["DBSIZE"])),
            (&"done".into(), "2000".to_owned())
        );
    });
}

#[test]
fn a_user_who_cannot_see_the_sessions_of_others_is_refused() {
    let world = world_of(10, "0", "noeviction");
    let ran = world.rebuild(&["--pause-above-source-lag", "10s"]);
    ran.expect(2).says(&["sessions of others", "pg_monitor"]);
}

#[test]
fn a_run_pauses_while_redis_answers_slowly() {
    let args = ["--enable-debug-command", "yes"].map(String::from).to_vec();
    let redis = RedisOptions { args, ..RedisOptions::default() };
    let world = World::with(PostgresOptions::default(), redis);
    world.sql(
        "create table items (id bigint primary key, body text); \
         insert into items select i, 'x' from generate_series(1, 2000) i",
    );
    world.plan(ITEMS);
    let is_slow = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Not for ever, where the test fails.
            let mut naps = (0..1_500).take_while(|_| is_slow.load(Ordering::Relaxed));
            while naps.next().is_some() {
                world.redis(&["DEBUG", "SLEEP", "0.1"]);
            }
        });
        let mut run = world.start_rebuild(&["--pause-above-redis-latency", "20ms"]);
        wait_for_line(&mut run, "redis_latency");
        is_slow.store(false, Ordering::Relaxed);
        let done = Ran::of(&run.wait_with_output().unwrap()).expect(0).summary();
        assert!(paused(&done, "redis_latency") > 0.0);
        assert_eq!(world.redis(&["DBSIZE"]), "2000");
    });
}

#[test]
fn rates_and_connections_are_kept() {
    let world = world_of(20_000, "0", "noeviction");
    let words = ["--max-rows-per-second", "20000", "--source-connections", "4", "--lanes", "8"];
    let done = world.rebuild(&words).expect(0).summary();
    // One lane: its batches wait one after the other, all but the first ones.
    assert!(paused(&done, "max_rows_per_second") > 0.0);
    assert_eq!(world.redis(&["DBSIZE"]), "20000");
    let done = world.rebuild(&["--max-bytes-per-second", "12mb"]).expect(0).summary();
    assert!(paused(&done, "max_bytes_per_second") > 0.0);
    let planned = world.run(&[&["plan", "--json"], &words[2..]].concat()).expect(0).summary();
    assert_eq!(planned["lanes"], 1);
}

#[test]
fn a_run_pauses_while_the_source_answers_slowly() {
    let world = world_of(2_000, "0", "noeviction");
    world.sql("grant pg_monitor to rekindle");
    let proxy = Proxy::start(world.postgres.port()).unwrap();
    proxy.set(Toxic::Latency { ms: 60, jitter_ms: 0 }, Direction::Down);
    let mut command = world.command(&REBUILD);
    command
        .args(["--pause-above-source-latency", "20ms"])
        .env("ALLOYDB_URL", led(&world.postgres.url(), world.postgres.port(), &proxy));
    let mut run = spawn(command);
    wait_for_line(&mut run, "source_latency");
    assert!(world.redis(&["KEYS", "item:*"]).is_empty(), "it wrote before it looked");
    proxy.clear();
    let done = Ran::of(&run.wait_with_output().unwrap()).expect(0).summary();
    assert!(paused(&done, "source_latency") > 0.0);
    assert_eq!(world.redis(&["DBSIZE"]), "2000");
}

/// Writes on a server that is replicated until its replica is seen to be behind by two seconds.
fn leave_behind(world: &World, replica: &Postgres) {
    replica.psql("select pg_wal_replay_pause()").unwrap();
    wait_until("the replica to be behind", || {
        world.sql("insert into noise values (1)");
        let lag = "select count(*) from pg_stat_replication where replay_lag > interval '2 s'";
        world.sql(lag) == "1"
    });
}

#[test]
fn a_run_pauses_while_a_replica_of_the_source_is_behind() {
    let world = World::with(PostgresOptions::replicated(), RedisOptions::default());
    world.sql(
        "create table noise (id int); create table items (id bigint primary key, body text); \
         insert into items select i, 'x' from generate_series(1, 2000) i; \
         grant pg_monitor to rekindle",
    );
    world.plan(ITEMS);
    let replica = world.postgres.start_replica().unwrap();
    // Read from the server that the replica follows, and from the replica itself.
    for url in [world.postgres.url(), replica.url()] {
        world.redis(&["FLUSHALL"]);
        leave_behind(&world, &replica);
        let mut command = world.command(&REBUILD);
        command.args(["--pause-above-source-lag", "1s"]).env("ALLOYDB_URL", &url);
        let mut run = spawn(command);
        wait_for_line(&mut run, "source_replica_lag");
        assert!(world.redis(&["KEYS", "item:*"]).is_empty(), "it wrote before it looked");
        replica.psql("select pg_wal_replay_resume()").unwrap();
        let done = Ran::of(&run.wait_with_output().unwrap()).expect(0).summary();
        assert!(paused(&done, "source_replica_lag") > 0.0);
        assert_eq!(world.redis(&["DBSIZE"]), "2000");
    }
}
