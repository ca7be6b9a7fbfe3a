//! A Redis that fails over to a replica which lacks what its primary had acknowledged last, in mid-run.
//!
//! Invariant: primary and replica are real, and the replica lacks what a proxy held back from it.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::items::{self, Wire, assert_complete};
use crate::net::{lead, spawn};
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{Direction, Proxy, Redis, RedisOptions, Toxic};
use std::mem::replace;
use std::process::Command;

/// A replica, and the network between it and its primary.
struct Pair {
    replica: Redis,
    link: Proxy,
}

impl Pair {
    /// Starts a replica and waits until it follows.
    fn of(primary: &Redis) -> Self {
        primary.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).unwrap();
        let replica = Redis::start(RedisOptions::default()).unwrap();
        let link = Proxy::start(primary.port()).unwrap();
        replica.cli(&["REPLICAOF", "127.0.0.1", &link.port().to_string()]).unwrap();
        wait_until("the replication", || {
            replica.cli(&["INFO", "replication"]).unwrap().contains("master_link_status:up")
        });
        Self { replica, link }
    }

    /// From now on nothing more arrives at the replica. Returns how many keys it holds.
    fn hold_back(&self) -> u64 {
        self.link.set(Toxic::BlackHole, Direction::Both);
        let mut before = u64::MAX;
        // What had arrived is carried out first.
        wait_until("the replica to stand still", || {
            let now = self.replica.dbsize().unwrap();
            replace(&mut before, now) == now
        });
        before
    }

    /// Makes the replica a primary with what it holds, to which new connections lead.
    fn fail_over(&self, to_clients: &Proxy) {
        self.link.set(Toxic::Reset, Direction::Both);
        self.replica.cli(&["REPLICAOF", "NO", "ONE"]).unwrap();
        to_clients.point_to(self.replica.port());
    }
}

fn rebuild(world: &World, proxy: &Proxy) -> Command {
    let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
    let url = world.redis.url().replace(&world.redis.port().to_string(), &proxy.port().to_string());
    command
        .args(["--retry-for", "10s", "--lanes", "2", "--max-rows-per-second", "100000"])
        .env("REDIS_URL", url);
    command
}

#[test]
fn a_rebuild_leaves_no_hole_in_a_replica_that_takes_over_in_mid_run() {
    // Where it lives on, the old primary still answers on the connections that are there.
    for is_primary_dead in [true, false] {
        let mut world = items::filled();
        let proxy = Proxy::start(world.redis.port()).unwrap();
        let pair = Pair::of(&world.redis);
        // GIVEN a run whose mark and first rows are on the replica, and whose next rows are not
        let child = spawn(rebuild(&world, &proxy));
        wait_until("rows on the replica", || pair.replica.dbsize().unwrap() > 10_000);
        let held = pair.hold_back();
        let mut wire = Wire::open(&world);
        wait_until("rows that it lacks", || wire.dbsize() > held + 20_000);
        println!("the primary had {} keys, the replica {held}", wire.dbsize());
        // WHEN the replica takes over THEN it has everything in the end
        pair.fail_over(&proxy);
        if is_primary_dead {
            world.redis.kill().unwrap();
        }
        let ran = Ran::of(&child.wait_with_output().unwrap()).expect(0);
        world.redis = pair.replica;
        assert_complete(&world);
        let warnings = ran.summary()["warnings"].to_string();
        let said = "started over: redis was restarted or failed over in mid-run";
        assert!(warnings.contains(said), "{warnings}");
        assert!(warnings.contains("that another server had acknowledged"), "{warnings}");
    }
}

#[test]
fn values_that_a_fail_over_took_back_are_found_even_where_every_key_is_there() {
    // GIVEN a cache that is full and replicated, and a few rows that change
    let mut world = items::filled();
    let proxy = Proxy::start(world.redis.port()).unwrap();
    Ran::of(&rebuild(&world, &proxy).output().unwrap()).expect(0);
    let pair = Pair::of(&world.redis);
    wait_until("the copy", || pair.replica.dbsize().unwrap() == items::ROWS);
    world.sql("update items set b = -1 where id % 5000 = 0");
    // WHEN the next rebuild writes them, and the replica that takes over has its mark and not them
    let child = spawn(rebuild(&world, &proxy));
    let mut marked = Wire::to(pair.replica.port());
    wait_until("the mark", || marked.count_named("rekindle:run") == 1);
    pair.hold_back();
    pair.fail_over(&proxy);
    let ran = Ran::of(&child.wait_with_output().unwrap()).expect(0);
    // THEN they are there in the end
    world.redis = pair.replica;
    assert_complete(&world);
    println!("{}", ran.summary()["warnings"]);
}

#[test]
fn a_backup_is_not_complete_on_a_replica_that_lacks_a_part_of_it() {
    for is_primary_dead in [true, false] {
        let mut cloud = Cloud::new(RedisOptions::default(), ROUTE);
        cloud.table(DAY_PARTITIONED);
        for day in 1..=6 {
            cloud.insert(day, day * 1_000..day * 1_000 + 300);
        }
        let proxy = Proxy::start(cloud.redis.port()).unwrap();
        lead(cloud.folder.path(), cloud.redis.port(), &proxy);
        let pair = Pair::of(&cloud.redis);
        cloud.fault("ReadRows", "delay_ms:500", 0, 1_000);
        // GIVEN a backup whose first table partitions are on the replica, and whose next is not
        let child = spawn(cloud.command(&Cloud::words(&["--lanes", "1"])));
        let mut replica = Wire::to(pair.replica.port());
        wait_until("a table partition", || replica.count_named("log:m:*") > 0);
        pair.hold_back();
        let held = replica.count_named("log:m:*");
        let mut primary = Wire::to(cloud.redis.port());
        wait_until("another one", || primary.count_named("log:m:*") > held);
        // WHEN the replica takes over THEN the backup is not called complete
        pair.fail_over(&proxy);
        if is_primary_dead {
            cloud.redis.kill().unwrap();
        }
        let ran = Ran::of(&child.wait_with_output().unwrap()).expect(3);
        ran.says(&["failed over since this backup began", "run the same command again"]);
        cloud.redis = pair.replica;
        assert_eq!(replica.count_named("log:run"), 0);
        // AND the same command completes it
        cloud.no_faults();
        Ran::of(&cloud.command(&Cloud::words(&[])).output().unwrap()).expect(0);
        cloud.assert_same("id, name, ts");
        assert_eq!(cloud.strays(), Vec::<String>::new());
    }
}
