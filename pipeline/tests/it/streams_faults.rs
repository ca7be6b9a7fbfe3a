//! Streams under kills and lost connections: no entry is lost or doubled, and nobody sees a part of a stream.

use crate::items::{Wire, calls, random, settle, signal};
use crate::net::{led, spawn};
use crate::streams::{Held, ROWS, assert_streams, filled, held, wanted};
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{Direction, Proxy, Toxic};
use nix::sys::signal::Signal;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

fn rounds() -> u64 {
    if std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1") { 30 } else { 4 }
}

/// Waits until a run has sent so many entries more, or has ended.
fn wait_for(world: &World, child: &mut Child, before: u64, entries: u64) {
    wait_until("the entries", || {
        calls(world, "xadd") >= before + entries || child.try_wait().unwrap().is_some()
    });
}

/// Starts a rebuild and kills it once it has sent about so many entries. Returns whether it was still at work.
fn killed(world: &World, entries: u64) -> bool {
    let before = calls(world, "xadd");
    let mut child = world.start_rebuild(&["--lanes", "2"]);
    wait_for(world, &mut child, before, entries);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    settle(world);
    if output.status.signal() == Some(9) {
        return true;
    }
    Ran::of(&output).expect(0);
    false
}

/// What is under the names of streams: each is whole, or not there.
fn seen(world: &World) -> Held {
    let mut held = held_streams(world);
    held.retain(|key, _| !key.starts_with("rekindle:"));
    for (key, entries) in &held {
        for (number, (id, _)) in entries.iter().enumerate() {
            assert_eq!(*id, format!("{}-0", number + 1), "{key}");
        }
    }
    held
}

/// As `held`, with the mark of a run left out, which is no stream.
fn held_streams(world: &World) -> Held {
    let mark = world.redis(&["GET", "rekindle:run"]);
    world.redis(&["DEL", "rekindle:run"]);
    let held = held(world);
    if !mark.is_empty() {
        world.redis(&["SET", "rekindle:run", &mark]);
    }
    held
}

#[test]
fn killed_at_random_instants_and_changed_in_between_nothing_is_lost_or_doubled() {
    let first = RandomState::new().hash_one(());
    println!("seed {first}");
    let mut seed = first;
    let mut kills = 0;
    for round in 0..rounds() {
        // GIVEN a table and an empty Redis, or one that holds an older state in another cut
        let world = filled();
        if round % 2 == 1 {
            world.rebuild(&["--lanes", "5"]).expect(0);
        }
        // WHEN runs of it are killed, once to three times, and rows change, move and vanish in between
        for kill in 0..=random(&mut seed, 3) {
            let entries = 1 + random(&mut seed, ROWS);
            kills += u64::from(killed(&world, entries));
            let whole = seen(&world);
            assert!(whole.values().all(|entries| !entries.is_empty()));
            world.sql(&format!(
                "delete from events where id % 11 = {kill}; update events set b = {kill} where id % 13 = {kill}; \
                 insert into events select 100000 + i, 'late', {kill} from generate_series(1, 700) i"
            ));
        }
        // THEN the next one leaves exactly the rows as they are now
        world.rebuild(&["--lanes", "3"]).expect(0);
        assert_streams(&held(&world), "ev:", &wanted(&world));
    }
    assert!(kills > 0, "no run was killed at work");
}

#[test]
fn a_redis_that_loses_its_connections_or_restarts_in_mid_run_gets_whole_streams() {
    for is_restart in [false, true] {
        // GIVEN a run at work
        let mut seed = RandomState::new().hash_one(());
        println!("seed {seed}");
        let mut world = filled();
        let mut child = world.start_rebuild(&["--lanes", "2"]);
        // WHEN its connections break at several points, or Redis comes back empty
        for _ in 0..6 {
            let before = calls(&world, "xadd");
            wait_for(&world, &mut child, before, 1 + random(&mut seed, ROWS / 8));
            if !is_restart {
                world.redis(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
        }
        if is_restart {
            world.redis.kill().unwrap();
            world.redis.start_again().unwrap();
        }
        let ran = Ran::of(&child.wait_with_output().unwrap());
        // THEN nothing is missing or doubled in the end
        if ran.code != Some(0) {
            println!("the run ended first: {:?} {}", ran.code, ran.stderr);
            ran.expect(3);
            world.rebuild(&[]).expect(0);
        }
        assert_streams(&held(&world), "ev:", &wanted(&world));
    }
}

/// Names of temporary keys, and whether Redis would keep one of them for good. Asked in one step.
fn temporary(wire: &mut Wire) -> (Vec<String>, Vec<String>) {
    let script = "local found, kept = {}, {} for _, key in ipairs(redis.call('KEYS', 'rekindle:tmp:*')) do \
                  found[#found + 1] = key if redis.call('PTTL', key) == -1 then kept[#kept + 1] = key end end \
                  return {found, kept}";
    let mut lists = wire.ask(&["EVAL", script, "0"]).list().into_iter().map(|list| {
        list.list().into_iter().map(|key| key.text().unwrap()).collect::<Vec<String>>()
    });
    (lists.next().unwrap(), lists.next().unwrap())
}

#[test]
fn no_temporary_key_is_ever_without_an_expiry() {
    // GIVEN a network so slow that what is sent at once arrives in many pieces, where a kill may part them
    let world = filled();
    let proxy = Proxy::start(world.redis.port()).unwrap();
    proxy.set(Toxic::Bandwidth { bytes_per_second: 60_000 }, Direction::Up);
    let mut child = spawn({
        let words = ["rebuild", "redis", "--progress", "none", "--lanes", "2"];
        let mut command = world.command(&words);
        command.env("REDIS_URL", led(&world.redis.url(), world.redis.port(), &proxy));
        command
    });
    // WHEN the keys that it measures and the streams that it builds are looked at meanwhile
    let mut wire = Wire::open(&world);
    let (mut has_sample, mut has_stream) = (false, false);
    wait_until("a sample and a stream", || {
        let (found, kept) = temporary(&mut wire);
        assert!(kept.is_empty(), "{kept:?}");
        let (samples, streams): (Vec<_>, Vec<_>) =
            found.iter().partition(|key| key.starts_with("rekindle:tmp:sample"));
        has_sample |= !samples.is_empty();
        has_stream |= !streams.is_empty();
        assert!(child.try_wait().unwrap().is_none(), "sample {has_sample}, stream {has_stream}");
        has_sample && has_stream
    });
    // THEN each of them goes away by itself, whenever the run is killed
    child.kill().unwrap();
    child.wait().unwrap();
    proxy.clear();
    drop(wire);
    settle(&world);
    assert!(temporary(&mut Wire::open(&world)).1.is_empty());
    // AND the next run leaves none
    world.rebuild(&["--lanes", "3"]).expect(0);
    assert_streams(&held(&world), "ev:", &wanted(&world));
}

#[test]
fn a_stopped_run_leaves_no_temporary_key_and_is_resumable() {
    let world = filled();
    let mut child = world.start_rebuild(&["--lanes", "2"]);
    wait_for(&world, &mut child, 0, ROWS / 4);
    signal(&child, Signal::SIGTERM);
    let ran = Ran::of(&child.wait_with_output().unwrap());
    assert!(matches!(ran.code, Some(0 | 143)), "{:?} {}", ran.code, ran.stderr);
    let mut wire = Wire::open(&world);
    let left = wire.ask(&["KEYS", "rekindle:tmp:*"]).list();
    assert!(left.is_empty(), "{left:?}");
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["status"], "done");
    assert_streams(&held(&world), "ev:", &wanted(&world));
}

#[test]
fn a_source_whose_snapshot_ends_in_mid_run_is_read_under_one() {
    let mut world = filled();
    let mut child = world.start_rebuild(&["--lanes", "2"]);
    wait_for(&world, &mut child, 0, ROWS / 4);
    world.postgres.stop(fixtures::servers::StopMode::Immediate).unwrap();
    world.postgres.start_again().unwrap();
    let ran = Ran::of(&child.wait_with_output().unwrap());
    if ran.code != Some(0) {
        println!("the run ended first: {:?} {}", ran.code, ran.stderr);
        ran.expect(3);
        world.rebuild(&[]).expect(0);
    }
    assert_streams(&held(&world), "ev:", &wanted(&world));
}

#[test]
fn damage_after_the_load_is_found_by_the_read_back() {
    // GIVEN a run that stands still at its first entries, and a stream that somebody adds meanwhile
    let world = filled();
    world.redis(&["SET", "other", "x"]);
    let mut child = world.start_rebuild(&["--lanes", "1"]);
    wait_for(&world, &mut child, 0, 1_000);
    world.redis(&["XADD", "ev:500", "1-0", "mine", "1"]);
    let ran = Ran::of(&child.wait_with_output().unwrap());
    // THEN it is told and not called done
    ran.expect(4).says(&["ev:500 (a stream of no partition)"]);
    // AND the next run removes it, and says so
    let summary = world.rebuild(&[]).expect(0).summary();
    assert!(summary["warnings"].to_string().contains("were removed"), "{summary}");
    world.redis(&["DEL", "other"]);
    assert_streams(&held(&world), "ev:", &wanted(&world));
}
