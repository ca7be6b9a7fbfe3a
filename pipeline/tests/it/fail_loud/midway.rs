//! A system that goes away for good, and a signal, while a command is at work.

use super::alloydb::{self, REPLAY};
use super::bigquery::{BACKUP, REBUILD, RESTORE, VERIFY, cloud, run};
use crate::cloud::Cloud;
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{PostgresOptions, RedisOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Stdio};

const SLOWLY: &[&str] = &["--max-rows-per-second", "10000", "--lanes", "1", "--way", "command"];
const ROUTE: &str = "\n[[route]]\nname = \"users\"\ntable = \"alloydb:public.users\"\nkey = \"user:{id}\"\ntype = \"hash\"\n";

fn end(child: Child) -> Ran {
    Ran::of(&child.wait_with_output().unwrap())
}

fn terminate(child: &Child) {
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
}

/// A rebuild of half a minute that has written its first rows.
fn at_work(world: &World) -> Child {
    let words = [REBUILD, &["--fresh"], SLOWLY].concat();
    let child =
        world.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the first rows", || world.redis(&["DBSIZE"]).parse::<u32>().unwrap() > 2);
    child
}

fn world(rows: u32) -> World {
    let world = World::with(PostgresOptions::default(), RedisOptions::default());
    world.sql(&format!(
        "create table users (id bigint primary key, name text); \
         insert into users select i, repeat(md5(i::text), 4) from generate_series(1, {rows}) i; \
         analyze users"
    ));
    world.plan(ROUTE);
    world
}

#[test]
fn a_rebuild_that_loses_an_end_or_is_stopped() {
    let mut world = world(300_000);
    let child = at_work(&world);
    terminate(&child);
    end(child).expect(143).shows(&["interrupted"]);
    world.redis(&["FLUSHALL"]);
    let child = at_work(&world);
    world.redis.kill().unwrap();
    end(child).expect(3).says(&["redis", "hint: "]);
    world.redis.start_again().unwrap();
    world.redis(&["FLUSHALL"]);
    let child = at_work(&world);
    world.postgres.kill().unwrap();
    end(child).expect(3).says(&["alloydb", "hint: "]);
}

/// A verification that found something and lets an application settle before it looks again.
fn verifying(world: &World, settle: &str) -> Child {
    let words = ["verify", "redis", "--tier", "full", "--settle", settle, "--retry-for", "1s"];
    let mut command = world.command(&[&words[..], &["--json", "--progress", "none"]].concat());
    let list = world.state().join("verify").join("findings.jsonl.new");
    drop(fs::remove_file(&list));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the second look", || list.exists());
    child
}

#[test]
fn a_verification_that_is_stopped_or_loses_its_source() {
    let mut world = world(1_000);
    world.rebuild(&[]).expect(0);
    world.redis(&["DEL", "user:1"]);
    let child = verifying(&world, "10m");
    terminate(&child);
    end(child).expect(143).shows(&["inconclusive"]);
    let child = verifying(&world, "2s");
    world.postgres.kill().unwrap();
    end(child).expect(3).shows(&["inconclusive"]);
}

/// A replay of rejected rows that has marked Redis as its own and looks for the second time after a second.
fn replaying(world: &World) -> Child {
    let mut command = world.command(&[REPLAY, &["--settle", "1s"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the mark", || world.redis(&["EXISTS", "rekindle:run"]) == "1");
    child
}

#[test]
fn a_replay_that_is_stopped_or_loses_an_end() {
    let mut world = alloydb::world();
    let child = replaying(&world);
    terminate(&child);
    end(child).expect(143).says(&["asked to stop"]);
    assert_eq!(world.redis(&["EXISTS", "rekindle:run"]), "0");
    let child = replaying(&world);
    world.redis.kill().unwrap();
    end(child).expect(3).says(&["redis at ", "hint: "]);
    world.redis.start_again().unwrap();
    let child = replaying(&world);
    world.postgres.kill().unwrap();
    end(child).expect(3).says(&["alloydb", "hint: "]);
    // What was rejected waits for the next replay.
    world.postgres.start_again().unwrap();
    assert_eq!(world.sql("select count(*), count(k) from users"), "200|199");
    world.run(REPLAY).expect(7).shows(&["1 row stay"]);
}

/// A command that has begun to read or to append, and waits.
fn waiting(cloud: &Cloud, words: &[&str]) -> Child {
    for method in ["ReadRows", "AppendRows"] {
        cloud.fault(method, "delay_ms:1000", 0, 1000);
    }
    cloud.sent();
    let child = cloud.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("a call that waits", || {
        let calls = cloud.get("stand-in/calls");
        ["ReadRows", "AppendRows"].iter().any(|method| calls[method]["calls"].as_u64() > Some(0))
    });
    child
}

/// The commands that read or write BigQuery, each with something to do.
fn each(cloud: &Cloud, mut take: impl FnMut(&Cloud, &[&str])) {
    take(cloud, &[REBUILD, &["--fresh"]].concat());
    cloud.no_faults();
    take(cloud, &[BACKUP, &["--full", "--fresh"]].concat());
    cloud.no_faults();
    take(cloud, &[VERIFY, &["--tier", "full"]].concat());
    cloud.no_faults();
    cloud.delete_table();
    take(cloud, &[RESTORE, &["--fresh"]].concat());
    cloud.no_faults();
    run(cloud, RESTORE).expect(0);
}

#[test]
fn a_command_on_bigquery_that_is_stopped() {
    each(&cloud(), |cloud, words| {
        let child = waiting(cloud, words);
        terminate(&child);
        end(child).expect(143).shows(if words.starts_with(VERIFY) {
            &["inconclusive"]
        } else {
            &["interrupted"]
        });
    });
}

#[test]
fn a_command_on_bigquery_that_loses_it() {
    for words in [
        &[REBUILD, &["--fresh"]].concat(),
        &[BACKUP, &["--full"]].concat(),
        &[VERIFY, &["--tier", "full"]].concat(),
    ] {
        let mut cloud = cloud();
        let child = waiting(&cloud, words);
        cloud.bigquery.kill().unwrap();
        end(child).expect(3).says(&["bigquery", "hint: "]);
    }
    let mut cloud = cloud();
    cloud.delete_table();
    let child = waiting(&cloud, RESTORE);
    cloud.bigquery.kill().unwrap();
    end(child).expect(3).says(&["bigquery", "hint: "]);
}

#[test]
fn a_command_on_bigquery_that_loses_redis() {
    for words in [
        &[REBUILD, &["--fresh"]].concat(),
        &[BACKUP, &["--full"]].concat(),
        &[VERIFY, &["--tier", "full"]].concat(),
    ] {
        let mut cloud = cloud();
        let child = waiting(&cloud, words);
        cloud.redis.kill().unwrap();
        end(child).expect(3).says(&["redis", "hint: "]);
    }
}
