//! Keys of many rows under kills: no element is lost or doubled, and no temporary key stays.

use crate::crash;
use crate::items::{
    PIPELINE, Reply, Wire, calls, partitions_done, random, settle, signal, standing,
};
use crate::many::{BUILDS, assert_held, every_layout, wanted};
use crate::world::{Ran, World, wait_until};
use fixtures::servers::StopMode;
use nix::sys::signal::Signal;
use stages::failpoint::Point;
use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;

fn rounds() -> u64 {
    if std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1") { 25 } else { 4 }
}

/// A world with a skewed table that a run takes about a second for.
fn filled(seed: &mut u64) -> World {
    let world = World::new();
    world.sql(BUILDS);
    let large = 1 + random(seed, 3);
    // Another share and place of the large key every time.
    world.sql(&format!(
        "update builds set repo = {} where id % 4 < {large}; vacuum analyze builds",
        random(seed, 3_002)
    ));
    world.plan(&every_layout());
    world
}

/// Keys that were made or replaced so far, about.
fn progress(world: &World, wire: &mut Wire) -> u64 {
    wire.dbsize() + calls(world, "unlink")
}

/// Starts a rebuild and kills it once it has written about so many keys. Returns whether it was still at work.
fn killed(world: &World, keys: u64) -> bool {
    let mut wire = Wire::open(world);
    let before = progress(world, &mut wire);
    let mut child = world.start_rebuild(&["--lanes", "2"]);
    wait_until("the keys", || {
        progress(world, &mut wire) >= before + keys || child.try_wait().unwrap().is_some()
    });
    drop(wire);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    settle(world);
    if output.status.signal() == Some(9) {
        return true;
    }
    Ran::of(&output).expect(0);
    false
}

#[test]
fn killed_at_random_instants_keys_are_whole_and_nothing_is_doubled() {
    let first = RandomState::new().hash_one(());
    println!("seed {first}");
    let mut seed = first;
    let mut kills = 0;
    for round in 0..rounds() {
        // GIVEN a table and an empty Redis, or one that holds an older state
        let world = filled(&mut seed);
        if round % 2 == 1 {
            world.rebuild(&[]).expect(0);
            world.sql("update builds set status = 'later', started = started - interval '1 day' where id % 5 = 0");
            world.sql("delete from builds where id % 7 = 0; update builds set author = 'new' where id % 11 = 0");
        }
        let wanted = wanted(&world);
        // WHEN runs of it are killed, once or twice
        for _ in 0..=random(&mut seed, 2) {
            let keys = 1 + random(&mut seed, wanted.len() as u64);
            kills += u64::from(killed(&world, keys));
        }
        // THEN the next one leaves exactly the rows; keys of an older run whose rows are gone are not this run's
        world.rebuild(&[]).expect(0);
        if round % 2 == 1 {
            let gone: Vec<String> = crate::many::held(&world)
                .into_keys()
                .filter(|key| !wanted.contains_key(key))
                .inspect(|key| assert!(!key.starts_with("rekindle:"), "{key}"))
                .collect();
            for key in gone {
                world.redis(&["DEL", &key]);
            }
        }
        assert_held(&world, &wanted);
    }
    assert!(kills > 0, "no run was killed at work");
}

#[test]
fn rows_that_change_and_vanish_between_kill_and_resume_leave_nothing_behind() {
    // GIVEN a killed run
    let mut seed = RandomState::new().hash_one(());
    println!("seed {seed}");
    let world = filled(&mut seed);
    while !killed(&world, 4_000) {
        world.redis(&["FLUSHALL"]);
    }
    // WHEN whole keys vanish, keys lose and gain members, and one moves
    world.sql(
        "delete from builds where repo % 10 = 3; delete from builds where id % 13 = 0; \
         update builds set author = null where repo % 10 = 4; update builds set repo = 5000 + repo where repo % 10 = 5; \
         insert into builds select 100000 + i, 1 + i % 40, 'late', 'late', 1, '2030-01-01Z' from generate_series(1, 500) i",
    );
    // THEN the resumed run holds what the table holds now
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["status"], &summary["resumed"]), (&"done".into(), &1.into()));
    assert_held(&world, &wanted(&world));
}

#[test]
fn a_redis_that_loses_its_connections_or_restarts_in_mid_run_gets_whole_keys() {
    for is_restart in [false, true] {
        // GIVEN a run at work
        let mut seed = RandomState::new().hash_one(());
        println!("seed {seed}");
        let mut world = filled(&mut seed);
        let mut child = world.start_rebuild(&["--lanes", "2"]);
        {
            let mut wire = Wire::open(&world);
            wait_until("the keys", || {
                wire.dbsize() >= 2_000 || child.try_wait().unwrap().is_some()
            });
        }
        // WHEN its connections break, or Redis comes back empty
        if is_restart {
            world.redis.kill().unwrap();
            world.redis.start_again().unwrap();
        } else {
            for _ in 0..5 {
                world.redis(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
        }
        let ran = Ran::of(&child.wait_with_output().unwrap());
        // THEN nothing is missing or doubled in the end
        if ran.code != Some(0) {
            println!("the run ended first: {:?} {}", ran.code, ran.stderr);
            ran.expect(3);
            world.rebuild(&[]).expect(0);
        }
        assert_held(&world, &wanted(&world));
    }
}

#[test]
fn a_stopped_run_leaves_no_temporary_key_and_is_resumable() {
    // GIVEN a run at work on a large key
    let mut seed = RandomState::new().hash_one(());
    let world = filled(&mut seed);
    world.sql("update builds set repo = 1");
    let mut child = world.start_rebuild(&["--lanes", "2"]);
    let mut wire = Wire::open(&world);
    wait_until("a key", || wire.dbsize() >= 2 || child.try_wait().unwrap().is_some());
    // WHEN it is asked to stop
    signal(&child, Signal::SIGTERM);
    let ran = Ran::of(&child.wait_with_output().unwrap());
    assert!(matches!(ran.code, Some(0 | 143)), "{:?} {}", ran.code, ran.stderr);
    // THEN what it had begun to build is gone
    let left = crate::many::held(&world).into_keys().filter(|key| key.starts_with("rekindle:tmp:"));
    assert_eq!(left.count(), 0);
    // AND the next run completes it
    world.rebuild(&[]).expect(0);
    assert_held(&world, &wanted(&world));
}

#[test]
fn a_postgres_that_restarts_in_mid_run_loses_and_doubles_nothing() {
    let mut seed = RandomState::new().hash_one(());
    println!("seed {seed}");
    let mut world = filled(&mut seed);
    let mut child = world.start_rebuild(&["--lanes", "2"]);
    let mut wire = Wire::open(&world);
    wait_until("the keys", || wire.dbsize() >= 2_000 || child.try_wait().unwrap().is_some());
    world.postgres.stop(StopMode::Immediate).unwrap();
    world.postgres.start_again().unwrap();
    let ran = Ran::of(&child.wait_with_output().unwrap());
    if ran.code != Some(0) {
        println!("the run ended first: {:?} {}", ran.code, ran.stderr);
        ran.expect(3);
        world.rebuild(&[]).expect(0);
    }
    assert_held(&world, &wanted(&world));
}

/// A run of one route that is killed with some of its partitions done, and a stray member put into every key it wrote.
fn killed_and_strayed(world: &World) -> Vec<String> {
    world.redis(&["FLUSHALL"]);
    if world.state().exists() {
        std::fs::remove_dir_all(world.state()).unwrap();
    }
    let mut child = world.start_rebuild(&["--lanes", "1"]);
    let mut wire = Wire::open(world);
    let mut keys = 1;
    loop {
        wait_until("the keys", || wire.dbsize() >= keys);
        signal(&child, Signal::SIGSTOP);
        let standing = standing(world);
        if partitions_done(&standing) >= 2 {
            break;
        }
        signal(&child, Signal::SIGCONT);
        assert!(child.try_wait().unwrap().is_none(), "it ended first: {standing}");
        keys = (keys + 100).min(2_900);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(wire);
    settle(world);
    let keys: Vec<String> =
        crate::many::held(world).into_keys().filter(|key| key.starts_with("authors:")).collect();
    of_each(world, "SADD", &keys);
    keys
}

/// Asks the same of the stray member of each key; returns how many answered with 1.
fn of_each(world: &World, command: &str, keys: &[String]) -> usize {
    let ask = |key: &String| vec![command.to_owned(), key.clone(), "stray".to_owned()];
    let mut wire = Wire::open(world);
    let answers = keys.chunks(PIPELINE).flat_map(|keys| {
        let asks: Vec<Vec<String>> = keys.iter().map(ask).collect();
        wire.pipeline(&asks)
    });
    answers.filter(|answer| matches!(answer, Reply::Number(1))).count()
}

#[test]
fn a_resume_keeps_partitions_only_where_they_have_the_very_rows_that_were_read() {
    let world = World::new();
    world.sql(BUILDS);
    world.plan(&crate::many::route("authors", "set", "authors:{repo}", "{author}", ""));
    // GIVEN a run that dies with partitions done, WHEN nothing changed
    let keys = killed_and_strayed(&world);
    let summary = world.rebuild(&["--no-verify"]).expect(0).summary();
    // THEN what was done is not read again
    let kept = of_each(&world, "SISMEMBER", &keys);
    println!("{kept} of {} keys are in kept partitions", keys.len());
    assert!(kept > 0, "{summary}");
    assert_eq!(summary["rows"], world.sql("select count(*) from builds").parse::<u64>().unwrap());
    of_each(&world, "SREM", &keys);
    let wanted = |world: &World| {
        wanted(world).into_iter().filter(|(key, _)| key.starts_with("authors:")).collect()
    };
    assert_held(&world, &wanted(&world));
    // WHEN every key lost a row, or one came for each that went, or every row is another version of itself
    for change in [
        "delete from builds where id in (select min(id) from builds group by repo)",
        "with gone as (delete from builds where id in (select max(id) from builds group by repo) returning *) \
         insert into builds select id + 1000000, repo, 'late', status, minutes, started, until from gone",
        "update builds set id = id",
    ] {
        let keys = killed_and_strayed(&world);
        world.sql(change);
        let summary = world.rebuild(&[]).expect(0).summary();
        // THEN everything is read again
        let kept = of_each(&world, "SISMEMBER", &keys);
        assert_eq!((kept, &summary["resumed"]), (0, &1.into()), "{change}");
        assert_held(&world, &wanted(&world));
    }
}

#[test]
fn keys_that_a_killed_run_had_removed_are_not_missed_by_the_next_one() {
    // GIVEN rows one by one and many to a key, of which a killed run has written some
    let world = World::new();
    world.sql(
        "create table items (id bigint primary key, a text not null, repo int not null); \
         insert into items select i, md5(i::text), i % 50 from generate_series(1, 5000) i; analyze items",
    );
    world.plan(
        "[[route]]\nname = \"items\"\ntable = \"alloydb:items\"\nkey = \"item:{id}\"\ntype = \"hash\"\n\
         [[route]]\nname = \"repos\"\ntable = \"alloydb:items\"\nkey = \"repo:{repo}\"\ntype = \"set\"\nmember = \"{id}\"\n",
    );
    let command =
        || world.command(&["rebuild", "redis", "--json", "--progress", "none", "--lanes", "1"]);
    let port = world.redis.port();
    crash::killed(command(), Point::ReadBack, port);
    assert_eq!(world.redis(&["DBSIZE"]), "5051");
    // WHEN rows go, and the next run is killed as well, after it has removed their keys
    world.sql("delete from items where id > 4000 or repo < 10");
    crash::killed(command(), Point::ReadBack, port);
    // THEN the next one misses none of them, and counts and names each once
    let summary = Ran::of(&command().output().unwrap()).expect(0).summary();
    assert_eq!((&summary["status"], &summary["resumed"]), (&"done".into(), &2.into()), "{summary}");
    assert_eq!(world.redis(&["DBSIZE"]), "3240");
    assert_eq!(world.redis(&["EXISTS", "item:4001", "item:9", "repo:9"]), "0");
    let run = world.state().join("runs").join(summary["run_id"].as_str().unwrap());
    let mut dropped = 0;
    for (route, count) in [("items", 1_800), ("repos", 10)] {
        let names = fs::read_to_string(run.join(format!("dropped-{route}.txt"))).unwrap();
        let each: BTreeSet<&str> = names.lines().collect();
        assert_eq!((names.lines().count(), each.len()), (count, count), "{route}");
        dropped += count as u64;
    }
    assert_eq!(summary["dropped_keys"].as_u64(), Some(dropped), "{summary}");
}
