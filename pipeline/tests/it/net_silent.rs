//! A peer that says nothing any more, or no longer hears: noticed in time, named, and no run hangs on it.
//!
//! Invariant: the peer falls silent in mid-run, when connections are open and in use, and stays so.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::items::{self, Wire, assert_complete};
use crate::net::{lead, port_of, spawn};
use crate::restore::lost;
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{Direction, Proxy, RedisOptions, Toxic};
use serde_json::json;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a run may go on after its peer fell silent: an answer may stay away for 5 s with this patience, the server is
/// asked for as long again, and the rest is what a busy machine takes.
const NOTICED_WITHIN: Duration = Duration::from_secs(50);

/// Lets a peer fall silent and waits for the end of the run.
fn silenced(child: Child, proxy: &Proxy, toxic: Toxic) -> Ran {
    let started = Instant::now();
    proxy.set(toxic, Direction::Both);
    let ran = Ran::of(&child.wait_with_output().unwrap());
    println!("{}: {:?} after {:?}", toxic.name(), ran.code, started.elapsed());
    assert!(started.elapsed() < NOTICED_WITHIN, "{:?}", started.elapsed());
    assert!(proxy.hits()[toxic.name()] > 0, "{:?}", proxy.hits());
    ran
}

/// The system and the address that an error has to name.
fn named(system: &str, proxy: &Proxy) -> [String; 2] {
    [system.to_owned(), format!("127.0.0.1:{}", proxy.port())]
}

fn silent_in_a_rebuild(toxic: Toxic, is_source: bool) {
    let world = items::filled();
    let server = if is_source { world.postgres.port() } else { world.redis.port() };
    let proxy = Proxy::start(server).unwrap();
    let child = {
        let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
        command.args(["--retry-for", "2s", "--max-rows-per-second", "50000", "--lanes", "2"]);
        let (name, url) = if is_source {
            ("ALLOYDB_URL", world.postgres.url())
        } else {
            ("REDIS_URL", world.redis.url())
        };
        let led = url.replace(&server.to_string(), &proxy.port().to_string());
        command.env(name, led);
        spawn(command)
    };
    let mut wire = Wire::open(&world);
    wait_until("some rows", || wire.dbsize() > 20_000);
    let ran = silenced(child, &proxy, toxic).expect(3);
    let [system, address] = named(if is_source { "alloydb" } else { "redis" }, &proxy);
    let ran = ran.says(&[&system, &address, "hint: "]);
    assert_eq!(ran.summary()["status"], "failed");
    world.rebuild(&[]).expect(0);
    assert_complete(&world);
}

fn silent_in_a_backup(toxic: Toxic, is_grpc: bool) {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    cloud.table(DAY_PARTITIONED);
    for day in 1..=6 {
        cloud.insert(day, day * 1_000..day * 1_000 + 300);
    }
    let server = if is_grpc { cloud.bigquery.grpc_url() } else { cloud.bigquery.rest_url() };
    let proxy = Proxy::start(port_of(&server)).unwrap();
    lead(cloud.folder.path(), port_of(&server), &proxy);
    if is_grpc {
        cloud.fault("ReadRows", "delay_ms:300", 0, 1_000);
    } else {
        cloud.fault("rest:tables.get", "delay_ms:2000", 0, 1);
    }
    let child = spawn(cloud.command(&Cloud::words(&["--lanes", "1"])));
    wait_until("a connection", || proxy.open() > 0);
    if is_grpc {
        wait_until("a published table partition", || {
            let mut wire = Wire::to(cloud.redis.port());
            wire.count_named("log:m:*") > 0
        });
    }
    let ran = silenced(child, &proxy, toxic).expect(3);
    let [system, address] = named("bigquery", &proxy);
    ran.says(&[&system, &address, "hint: "]);
    proxy.clear();
    cloud.no_faults();
    Ran::of(&spawn(cloud.command(&Cloud::words(&[]))).wait_with_output().unwrap()).expect(0);
    cloud.assert_same("id, name, ts");
}

/// The peer of a restore that falls silent.
#[derive(Clone, Copy)]
enum Peer {
    Rest,
    Grpc,
    Redis,
}

fn silent_in_a_restore(toxic: Toxic, peer: Peer) {
    let (lost, _) = lost(4_000, false);
    let server = match peer {
        Peer::Rest => port_of(&lost.bigquery.rest_url()),
        Peer::Grpc => port_of(&lost.bigquery.grpc_url()),
        Peer::Redis => lost.redis.port(),
    };
    let proxy = Proxy::start(server).unwrap();
    lead(lost.folder.path(), server, &proxy);
    let delay = |method: &str, ms: u32| {
        let fault = json!({"method": method, "kind": format!("delay_ms:{ms}"), "times": 1_000});
        lost.rest("POST", "stand-in/faults", Some(fault));
    };
    delay("AppendRows", 500);
    if matches!(peer, Peer::Rest) {
        delay("rest:tables.get", 2_000);
    }
    let words = ["restore", "bigquery", "--json", "--progress", "none", "--lanes", "1"];
    let command = || lost.rekindle(&[&words[..], &["--retry-for", "2s"]].concat());
    let child = spawn(command());
    wait_until("a connection", || proxy.open() > 0);
    if !matches!(peer, Peer::Rest) {
        wait_until("rows", || {
            lost.rest("GET", "stand-in/calls", None)["AppendRows"]["calls"].as_u64() > Some(0)
        });
    }
    let ran = silenced(child, &proxy, toxic).expect(3);
    let [system, address] =
        named(if matches!(peer, Peer::Redis) { "redis" } else { "bigquery" }, &proxy);
    ran.says(&[&system, &address, "hint: "]);
    proxy.clear();
    lost.rest("DELETE", "stand-in/faults", None);
    Ran::of(&command().output().unwrap()).expect(0);
    lost.assert_restored();
}

/// Runs one after the other would only wait: they wait beside each other.
fn beside_each_other(tests: Vec<Box<dyn FnOnce() + Send>>) {
    let running: Vec<_> = tests.into_iter().map(std::thread::spawn).collect();
    let failed = running.into_iter().filter_map(|test| test.join().err()).count();
    assert_eq!(failed, 0, "see above");
}

#[test]
fn a_postgres_or_redis_that_falls_silent_is_noticed_named_and_waited_for() {
    let mut tests: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for toxic in [Toxic::BlackHole, Toxic::HalfOpen] {
        for is_source in [true, false] {
            tests.push(Box::new(move || silent_in_a_rebuild(toxic, is_source)));
        }
    }
    beside_each_other(tests);
}

/// A lock on the table that a session of its own holds until it is dropped.
fn locked(world: &World) -> Child {
    let mut locker = Command::new("psql");
    let mut locker =
        locker.args(world.postgres.superuser_args()).stdin(Stdio::piped()).spawn().unwrap();
    let sql = b"begin; lock table items in access exclusive mode;\n";
    locker.stdin.as_mut().unwrap().write_all(sql).unwrap();
    let held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted \
                and relation = 'items'::regclass";
    wait_until("a lock", || world.sql(held) == "1");
    locker
}

/// A rebuild whose way to PostgreSQL is this proxy.
fn rebuilding(world: &World, proxy: &Proxy, more: &[&str]) -> Child {
    let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
    let url = world.postgres.url();
    let led = url.replace(&world.postgres.port().to_string(), &proxy.port().to_string());
    command.args(["--retry-for", "10s"]).args(more).env("ALLOYDB_URL", led);
    spawn(command)
}

/// Makes the server forget every query that waits for the lock, while the product's ends of the connections stay as they
/// are and new ones are welcome; then the lock is gone.
fn forget_who_waits(world: &World, proxy: &Proxy, mut locker: Child) {
    let waiting =
        "from pg_stat_activity where application_name = 'rekindle' and wait_event_type = 'Lock'";
    wait_until("a query that waits", || world.sql(&format!("select count(*) {waiting}")) != "0");
    proxy.set(Toxic::HalfOpen, Direction::Both);
    // Each is struck by itself, and one that was not yet would be told that its query is ended.
    let struck = || proxy.hits().get("half-open").copied().unwrap_or_default();
    wait_until("connections without a server", || struck() > 0 && struck() >= proxy.open());
    proxy.clear();
    world.sql(&format!("select pg_terminate_backend(pid) {waiting}"));
    drop(locker.stdin.take());
    locker.wait().unwrap();
}

#[test]
fn a_query_that_the_server_has_forgotten_is_given_up_before_anything_was_recorded() {
    let world = items::filled();
    let proxy = Proxy::start(world.postgres.port()).unwrap();
    let locker = locked(&world);
    let child = rebuilding(&world, &proxy, &[]);
    forget_who_waits(&world, &proxy, locker);
    let started = Instant::now();
    let ran = Ran::of(&child.wait_with_output().unwrap());
    assert!(started.elapsed() < NOTICED_WITHIN, "{:?}", started.elapsed());
    ran.expect(3).says(&["fell silent", "no session of ours is at work there", "hint: "]);
    world.rebuild(&[]).expect(0);
    assert_complete(&world);
}

#[test]
fn a_read_that_the_server_has_forgotten_before_its_first_row_is_begun_again() {
    let world = items::filled();
    let proxy = Proxy::start(world.postgres.port()).unwrap();
    let child = rebuilding(&world, &proxy, &["--max-rows-per-second", "50000", "--lanes", "2"]);
    let mut wire = Wire::open(&world);
    wait_until("some rows", || wire.dbsize() > 20_000);
    // It is granted between two partitions, and the next ones wait for it before they read.
    let locker = locked(&world);
    forget_who_waits(&world, &proxy, locker);
    let started = Instant::now();
    let ran = Ran::of(&child.wait_with_output().unwrap());
    assert!(started.elapsed() < NOTICED_WITHIN, "{:?}", started.elapsed());
    ran.expect(0).says(&["fell silent"]);
    assert_complete(&world);
}

#[test]
fn a_bigquery_that_falls_silent_is_noticed_named_and_waited_for() {
    let mut tests: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for toxic in [Toxic::BlackHole, Toxic::HalfOpen] {
        for is_grpc in [true, false] {
            tests.push(Box::new(move || silent_in_a_backup(toxic, is_grpc)));
        }
    }
    beside_each_other(tests);
}

#[test]
fn a_peer_of_a_restore_that_falls_silent_is_noticed_named_and_waited_for() {
    let mut tests: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for toxic in [Toxic::BlackHole, Toxic::HalfOpen] {
        for peer in [Peer::Rest, Peer::Grpc, Peer::Redis] {
            tests.push(Box::new(move || silent_in_a_restore(toxic, peer)));
        }
    }
    beside_each_other(tests);
}
