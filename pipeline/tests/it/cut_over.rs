//! `rebuild redis --cut-over DB`: built beside, proven, swapped once, and back again.

use crate::items::{ROWS, Wire, assert_complete, filled, held, settle};
use crate::live;
use crate::world::{Ran, World, wait_until};
use std::fs;
use std::os::unix::process::ExitStatusExt;

/// A world whose Redis serves some keys already.
fn serving() -> World {
    let world = filled();
    world.redis(&["MSET", "item:1", "old", "session:1", "x"]);
    world
}

fn size(world: &World, database: &str) -> String {
    world.redis(&["-n", database, "DBSIZE"])
}

/// Asserts that database 0 serves the table and database 3 holds what served before.
#[track_caller]
fn assert_swapped(world: &World) {
    assert_complete(world);
    assert_eq!(size(world, "3"), "2");
    assert_eq!(world.redis(&["-n", "3", "GET", "session:1"]), "x");
}

#[test]
fn what_was_built_serves_and_the_way_back_is_told_and_works() {
    let world = serving();
    // GIVEN a plan that tells what would happen
    let told = world.run(&["plan", "--cut-over", "3"]).expect(0).stdout;
    assert!(told.contains("it is built in database 3") && told.contains("SWAPDB 0 3"), "{told}");
    assert!(told.contains("/3, 0 keys"), "{told}");
    // WHEN it is built THEN it serves, and nothing of the run is left
    let ran = world.rebuild(&["--cut-over", "3"]).expect(0);
    let cut_over = &ran.summary()["cut_over"];
    let expected = serde_json::json!({
        "serving_db": 0, "build_db": 3, "is_swapped": true, "way_back": "redis-cli SWAPDB 0 3",
    });
    assert_eq!(*cut_over, expected);
    assert_swapped(&world);
    // WHEN the way back is taken THEN what served before serves again
    assert_eq!(world.redis(&["SWAPDB", "0", "3"]), "OK");
    assert_eq!((size(&world, "0"), world.redis(&["GET", "item:1"])), ("2".into(), "old".into()));
    // AND the database that was built is not built into again, nor is one that the server lacks
    world.rebuild(&["--cut-over", "3"]).expect(2).says(&[
        &format!("database 3 is not empty, it holds {ROWS} keys"),
        "redis-cli -n 3 FLUSHDB",
    ]);
    world.rebuild(&["--cut-over", "99"]).expect(2).says(&["the server has no such database"]);
    world.rebuild(&["--cut-over", "0"]).expect(2).says(&["the database of [redis] itself"]);
    world.rebuild(&["--cut-over", "4", "--no-verify"]).expect(2);
    let told = world.run(&["plan", "--cut-over", "3"]).expect(0).stdout;
    assert!(told.contains(&format!("database 3 holds {ROWS} keys")), "{told}");
    // AND people are told the same
    world.redis(&["-n", "3", "FLUSHDB"]);
    let text =
        world.run(&["rebuild", "redis", "--progress", "none", "--cut-over", "3"]).expect(0).stdout;
    assert!(text.contains("\ncut-over  database 0 serves what was built in 3\n"), "{text}");
    assert!(text.contains("\nway back  redis-cli SWAPDB 0 3; "), "{text}");
}

#[test]
fn a_run_killed_before_the_swap_goes_on_in_its_database_and_nowhere_else() {
    let world = serving();
    let mut child = world.start_rebuild(&["--cut-over", "3", "--lanes", "2"]);
    wait_until("progress", || size(&world, "3").parse::<u64>().unwrap() > ROWS / 2);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    settle(&world);
    assert_eq!((size(&world, "0"), world.redis(&["GET", "item:1"])), ("2".into(), "old".into()));
    // WHEN it is resumed elsewhere THEN that is refused
    for words in [&["--cut-over", "4"][..], &[]] {
        world.rebuild(words).expect(2).says(&["builds in database 3", "--cut-over 3"]);
    }
    // WHEN it is resumed THEN it ends
    let summary = world.rebuild(&["--cut-over", "3"]).expect(0).summary();
    assert_eq!(summary["resumed"], 1, "{summary}");
    assert_swapped(&world);
    // AND the other way around
    world.redis(&["-n", "3", "FLUSHDB"]);
    world.redis(&["FLUSHDB"]);
    fs::remove_dir_all(world.state()).unwrap();
    let mut child = held(&world, 30);
    child.kill().unwrap();
    child.wait().unwrap();
    settle(&world);
    world.rebuild(&["--cut-over", "3"]).expect(2).says(&["builds in the database of [redis]"]);
    world.rebuild(&[]).expect(0);
    assert_complete(&world);
}

/// Starts a rebuild and kills it while the server keeps it waiting for the swap, which is never carried out.
///
/// Its route compares versions, so the read-back of every value comes between the last row and the swap.
fn killed_at_the_swap(world: &World) {
    let mut child = world.start_rebuild(&["--cut-over", "3"]);
    let mut wire = Wire::open(world);
    wire.ask(&["SELECT", "3"]);
    wait_until("the last row", || wire.dbsize() > ROWS);
    // Writes wait from here on; what is left of the run reads, until it swaps.
    wire.ask(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    wait_until("the swap", || {
        let clients = wire.ask(&["CLIENT", "LIST"]).text().unwrap();
        clients.lines().any(|client| client.contains(" cmd=eval ") && client.contains(" db=3 "))
            || child.try_wait().unwrap().is_some()
    });
    child.kill().unwrap();
    let killed = Ran::of(&child.wait_with_output().unwrap());
    assert_eq!(killed.code, None, "it ended first: {}", killed.stderr);
    drop(wire);
    settle(world);
    world.redis(&["CLIENT", "UNPAUSE"]);
    assert_eq!(size(world, "3"), (ROWS + 1).to_string());
}

#[test]
fn a_run_killed_at_the_swap_swaps_once_whether_the_server_did_or_not() {
    for was_swapped in [false, true] {
        // GIVEN a run that asked for the swap and was killed before it heard the answer
        let world = World::new();
        live::fill(&world, "hash", ROWS, "");
        world.redis(&["MSET", "item:1", "old", "session:1", "x"]);
        killed_at_the_swap(&world);
        if was_swapped {
            world.redis(&["SWAPDB", "0", "3"]);
        }
        // WHEN it is resumed THEN it ends with what was built in its place
        let summary = world.rebuild(&["--cut-over", "3"]).expect(0).summary();
        assert_eq!((&summary["status"], &summary["resumed"]), (&"done".into(), &1.into()));
        assert_eq!(summary["cut_over"]["is_swapped"], true);
        assert_eq!(summary["verified"]["keys_counted"].as_u64(), Some(ROWS), "{summary}");
        assert_swapped(&world);
        // AND nothing is left to be resumed, nor is the target held
        world.redis(&["-n", "3", "FLUSHDB"]);
        world.rebuild(&["--cut-over", "3"]).expect(0);
    }
}

#[test]
fn without_the_right_to_swap_nothing_is_begun() {
    let world = serving();
    world.redis(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-swapdb"]);
    let url = format!("redis://app:pw@127.0.0.1:{}/0", world.redis.port());
    let run = |words: &[&str]| {
        let output = world.command(words).env("REDIS_URL", &url).output().unwrap();
        Ran::of(&output)
    };
    let told = run(&["check"]).expect(0).stdout;
    assert!(told.contains("user app may not run SWAPDB"), "{told}");
    run(&["rebuild", "redis", "--cut-over", "3", "--progress", "none"])
        .expect(2)
        .says(&["SWAPDB is not to be had", "ACL SETUSER"]);
    assert_eq!((size(&world, "0"), size(&world, "3")), ("2".into(), "0".into()));
    assert!(
        world.run(&["status"]).stdout.contains("no run") || !world.state().join("runs").exists()
    );
    let told = world.run(&["check"]).expect(0).stdout;
    assert!(told.contains("may build in an empty database beside this one"), "{told}");
}

#[test]
fn what_has_too_many_rejects_is_not_swapped_in() {
    let world = World::new();
    world.sql("create table ten (id bigint primary key, a text); insert into ten select i, 'a' from generate_series(1, 10) i; update ten set a = null where id = 3");
    world.redis(&["SET", "old", "1"]);
    world.plan(&crate::carried::route("ten", "hash", "null = \"error\""));
    let summary = world.rebuild(&["--cut-over", "3"]).expect(7).summary();
    assert_eq!(summary["cut_over"]["is_swapped"], false, "{summary}");
    assert!(summary["warnings"].to_string().contains("SWAPDB 0 3"), "{summary}");
    assert_eq!((size(&world, "0"), size(&world, "3")), ("1".into(), "9".into()));
}
