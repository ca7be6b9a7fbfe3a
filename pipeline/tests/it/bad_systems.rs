//! Systems that refuse, fill up or run out of room: the right exit code, and a way on.

use crate::bad_input::{REBUILD, USERS, assert_refused, assert_untouched, rebuild_with, world};
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{PostgresOptions, Redis, RedisOptions};
use std::process::Command;

#[test]
fn a_replica_exits_with_3() {
    let primary = Redis::start(RedisOptions::default()).unwrap();
    let world = world();
    for words in [&["HSET", "user:1", "old", "field"][..], &["SET", "session:1", "alive"]] {
        primary.cli(words).unwrap();
    }
    world.redis(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    wait_until("the replica's link", || {
        world.redis(&["INFO", "replication"]).contains("master_link_status:up")
    });
    assert_refused(world.rebuild(&[]), 3, &["READONLY", "primary"]);
    assert_untouched(&world);
}

#[test]
fn a_redis_in_cluster_mode_is_refused_by_name() {
    let args = ["--cluster-enabled", "yes"].map(String::from).to_vec();
    let world =
        World::with(PostgresOptions::default(), RedisOptions { args, ..RedisOptions::default() });
    world.sql("create table users (id bigint primary key, name text)");
    world.plan(USERS);
    assert_refused(world.rebuild(&[]), 2, &["cluster mode (cluster_enabled)"]);
    assert_eq!(world.redis(&["DBSIZE"]), "0");
}

#[test]
fn a_user_without_rights_exits_with_2() {
    let world = world();
    let url = format!("redis://app:secret@127.0.0.1:{}", world.redis.port());
    let acl = |rights: &[&str]| {
        let words = ["ACL", "SETUSER", "app", "reset", "on", ">secret"];
        world.redis(&[&words[..], rights].concat());
    };
    // GIVEN a user without the sentinel's key.
    acl(&["~user:*", "+@all"]);
    assert_refused(rebuild_with(&world, &[("REDIS_URL", &url)]), 2, &["NOPERM", "ACL"]);
    assert_untouched(&world);
    // GIVEN one that may not write hashes.
    acl(&["~*", "+@all", "-hset"]);
    assert_refused(rebuild_with(&world, &[("REDIS_URL", &url)]), 2, &["NOPERM", "ACL"]);
    assert_eq!(world.redis(&["HGETALL", "user:1"]), "old\nfield");
    assert_eq!(world.redis(&["DEL", "rekindle:run"]), "1");
    assert_untouched(&world);
    // GIVEN one that may.
    acl(&["~*", "+@all"]);
    rebuild_with(&world, &[("REDIS_URL", &url)]).expect(0);
    assert_eq!(world.redis(&["DBSIZE"]), "51");
}

#[test]
fn a_state_folder_without_room_exits_with_1_and_the_same_command_resumes_once_there_is_room() {
    let world = world();
    world.sql("insert into users select i, md5(i::text), 'e' from generate_series(51, 150000) i");
    // No file may grow beyond 400 KiB; the journal fits, the ledger does not.
    let limited = || {
        let command = world.command(&REBUILD);
        let mut shell = Command::new("bash");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.current_dir(world.folder.path()).env_clear();
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ran::of(&shell.output().unwrap())
    };
    assert_refused(limited(), 1, &["cannot ", ".rekindle", "--state"]);
    assert_eq!(world.redis(&["GET", "session:1"]), "alive");

    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["resumed"], &summary["status"]), (&1.into(), &"done".into()));
    assert_eq!(world.redis(&["DBSIZE"]), "150001");
}

#[test]
fn a_state_folder_that_is_a_file_exits_with_1() {
    let world = world();
    std::fs::write(world.state(), "not a folder").unwrap();
    assert_refused(world.rebuild(&[]), 1, &[".rekindle"]);
    assert_untouched(&world);
}
