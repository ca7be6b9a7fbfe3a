//! Servers that are there and cannot serve: starting up, loading, without their primary, ending sessions one after the
//! other.
//!
//! Invariant: a run waits as long as it was told to, ends with 3 and names what the server said, and the same command
//! completes it once the server serves again.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::items::{self, Wire, assert_complete};
use crate::net::spawn;
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{PostgresOptions, RedisOptions};
use std::fs;
use std::path::PathBuf;
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
        // On a slow machine it may be between two sessions.
        wait_until("an ended session", || {
            let now = items::end_sessions(&world);
            ended += now;
            now > 0 || child.try_wait().unwrap().is_some()
        });
    }
    let ran = Ran::of(&child.wait_with_output().unwrap());
    println!("{ended} sessions were ended");
    // A run that gave up in between met fewer.
    assert!(ended >= 8 || ended > 0 && ran.code == Some(3), "{ended}: {}", ran.stderr);
    if ran.code != Some(0) {
        ran.expect(3).says(&["alloydb", "hint: "]);
        world.rebuild(&[]).expect(0);
    }
    assert_complete(&world);
}

#[test]
fn a_redis_that_ends_every_connection_again_and_again_loses_nothing_of_a_rebuild() {
    let world = World::new();
    items::fill_with(&world, 60_000);
    world.plan(items::HASH);
    let mut child = paced(&world);
    let mut wire = Wire::open(&world);
    let (mut ended, mut before) = (0, 3_000);
    for _ in 0..12 {
        wait_until("more rows", || wire.dbsize() > before || child.try_wait().unwrap().is_some());
        before = wire.dbsize() + 3_000;
        ended += wire.kill_others();
    }
    println!("{ended} connections were ended");
    assert!(ended >= 12, "{ended}");
    Ran::of(&child.wait_with_output().unwrap()).expect(0);
    assert_complete(&world);
}

#[test]
fn a_redis_that_ends_every_connection_again_and_again_loses_nothing_of_a_backup() {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    cloud.table(DAY_PARTITIONED);
    for day in 1..=12 {
        cloud.insert(day, day * 1_000..day * 1_000 + 100);
    }
    cloud.fault("ReadRows", "delay_ms:100", 0, 1_000);
    let mut child = spawn(cloud.command(&Cloud::words(&["--lanes", "1"])));
    let mut wire = Wire::to(cloud.redis.port());
    let mut ended = 0;
    for published in 1..=10 {
        wait_until("a published table partition", || {
            wire.count_named("log:m:*") >= published || child.try_wait().unwrap().is_some()
        });
        ended += wire.kill_others();
    }
    println!("{ended} connections were ended");
    assert!(ended >= 10, "{ended}");
    Ran::of(&child.wait_with_output().unwrap()).expect(0);
    cloud.assert_same("id, name, ts");
    assert_eq!(cloud.strays(), Vec::<String>::new());
}

/// A PostgreSQL whose recovery asks for its log first and gets no answer while a file is there.
struct Recovering {
    world: World,
}

impl Recovering {
    fn new() -> Self {
        let command = "while [ -e held ]; do sleep 0.05; done; false";
        let settings = [("wal_level", "replica"), ("restore_command", command)];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let postgres = PostgresOptions { settings, ..PostgresOptions::default() };
        let world = World::with(postgres, RedisOptions::default());
        items::fill_with(&world, 20_000);
        world.sql("checkpoint");
        world.plan(items::HASH);
        Self { world }
    }

    fn held(&self) -> PathBuf {
        self.world.postgres.data_dir().join("held")
    }

    /// Kills it and starts it again.
    fn begin(&mut self) {
        self.world.postgres.kill().unwrap();
        for name in ["held", "recovery.signal"] {
            fs::write(self.world.postgres.data_dir().join(name), "").unwrap();
        }
        self.world.postgres.begin_again().unwrap();
    }

    /// How many connections it refused, which only the product asks for.
    fn refused(&self) -> usize {
        fs::read_to_string(self.world.postgres.log())
            .unwrap()
            .matches("FATAL:  the database system is starting up")
            .count()
    }

    /// Lets it recover once it has refused the run three times more, and returns how the run ended.
    fn end(&self, child: Child) -> Ran {
        let before = self.refused();
        wait_until("refusals", || self.refused() >= before + 3);
        fs::remove_file(self.held()).unwrap();
        Ran::of(&child.wait_with_output().unwrap())
    }
}

#[test]
fn a_postgres_that_starts_up_is_waited_for_or_named_with_3() {
    let mut recovering = Recovering::new();
    let rebuild = |world: &World, patience: &str| {
        let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
        command.args(["--lanes", "2", "--max-rows-per-second", "20000", "--retry-for", patience]);
        spawn(command)
    };
    recovering.begin();
    // WHEN a run has less patience than that takes THEN it ends with 3 and says why
    let impatient = rebuild(&recovering.world, "1s").wait_with_output().unwrap();
    Ran::of(&impatient).expect(3).says(&["the database system is starting up", "hint: "]);
    assert_eq!(recovering.world.redis(&["DBSIZE"]), "0");
    // AND one that has more waits
    let patient = rebuild(&recovering.world, "1m");
    recovering.end(patient).expect(0);
    assert_complete(&recovering.world);
    // AND so does one that was at work when it went down
    recovering.world.redis(&["FLUSHALL"]);
    let at_work = rebuild(&recovering.world, "1m");
    let mut wire = Wire::open(&recovering.world);
    wait_until("some rows", || wire.dbsize() > 5_000);
    recovering.begin();
    recovering.end(at_work).expect(0);
    assert_complete(&recovering.world);
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
