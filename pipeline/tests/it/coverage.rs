//! `check --coverage` on a Redis in use, and what the summary of a rebuild says it does not bring back.
//!
//! Invariant: every key is counted once, no value is ever shown, and what nothing explains fails the check.

use crate::bad_input::{USERS, world, world_with};
use crate::world::World;
use fixtures::servers::RedisOptions;
use serde_json::Value;

const SESSIONS: &str = "[[unrouted]]\nprefix = \"session:\"\nowner = \"web team\"\ncomes_back = \"users log in again\"\n";

/// Makes keys `<prefix><n>` with a value that must not be shown.
fn strings(world: &World, prefix: &str, count: u32) {
    let script =
        "for n = 1, tonumber(ARGV[2]) do redis.call('SET', ARGV[1] .. n, 'not-to-be-shown') end";
    world.redis(&["EVAL", script, "0", prefix, &count.to_string()]);
}

fn pattern<'a>(coverage: &'a Value, by: &str, name: &str) -> &'a Value {
    let patterns = coverage["patterns"].as_array().unwrap();
    let found = patterns.iter().find(|pattern| pattern["by"] == by && pattern["name"] == name);
    found.unwrap_or_else(|| panic!("no {by} {name} in {coverage:#}"))
}

#[test]
fn every_key_is_a_routes_declared_or_unknown() {
    // GIVEN a rebuilt Redis in which others keep keys as well
    let world = world();
    world.plan(&[USERS, SESSIONS].concat());
    let summary = world.rebuild(&[]).expect(0).summary();
    let left_out = &summary["not_brought_back"];
    assert_eq!(left_out["declared"][0]["prefix"], "session:", "{summary:#}");
    assert!(left_out["coverage_note"].as_str().unwrap().starts_with("never checked"));
    strings(&world, "session:", 30);
    strings(&world, "cart:", 3_000);
    world.redis(&["SET", "user:lock", "not-to-be-shown"]);
    world.redis(&["HSET", "user:7:extra", "f", "not-to-be-shown"]);

    // WHEN it is scanned
    let ran = world.run(&["check", "--coverage", "--json", "--progress", "none"]).expect(2);
    let coverage = &ran.summary()["coverage"];

    // THEN every key is counted once, by what explains it
    let keys = |value: &Value| value["keys"].as_u64().unwrap();
    assert_eq!(keys(coverage).to_string(), world.redis(&["DBSIZE"]));
    assert_eq!(keys(&coverage["routes"]), 51);
    // `session:1` was there before.
    assert_eq!(keys(&coverage["unrouted"]), 30);
    assert_eq!(keys(&coverage["unknown"]), 3_001);
    let users = pattern(coverage, "route", "users");
    assert_eq!(
        (&users["shapes"]["user:<n>"], &users["shapes"]["user:<n>:extra"]),
        (&50.into(), &1.into())
    );
    let carts = pattern(coverage, "unknown", "cart:<n>");
    assert_eq!((keys(carts), &carts["bytes_sampled"]), (3_000, &200.into()));
    assert!(carts["bytes_estimate"].as_u64() > Some(3_000 * 30), "{carts}");
    assert!(carts["examples"][0].as_str().unwrap().starts_with("cart:"), "{carts}");
    let lock = pattern(coverage, "unknown", "user:lock");
    assert_eq!(lock["why"], "it is a string, and route users writes a hash there");
    // By construction: after every request the scan rests nine times as long.
    assert!(coverage["server_percent"].as_f64() <= Some(10.0), "{coverage:#}");
    assert!(!ran.stdout.contains("not-to-be-shown") && !ran.stderr.contains("not-to-be-shown"));

    // AND the next rebuild names what was unknown, also in words
    let text = world.run(&["rebuild", "redis", "--progress", "none"]).expect(0).stdout;
    for line in [
        "not back  keys session:*, owner web team, come back: users log in again\n",
        "coverage  checked at ",
        "unknown, and not brought back: 3001 keys, cart:<n>, user:lock\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
}

#[test]
fn what_is_declared_passes_and_is_told_line_by_line() {
    let world = world();
    strings(&world, "cart:", 20);
    let carts = "[[unrouted]]\nprefix = \"cart:\"\nowner = \"shop\"\ncomes_back = \"customers fill them\"\n";
    world.plan(&[USERS, SESSIONS, carts].concat());
    world.redis(&["SET", "rekindle:trial:1", "x"]);
    let text = world.run(&["check", "--coverage"]).expect(0).stdout;
    for line in [
        "OK       coverage: 23 keys at ",
        "OK       coverage of route users: 1 key (4.35 %), about ",
        "OK       coverage of rekindle's own keys: 1 key ",
        "OK       coverage of unrouted session:: 1 key (4.35 %), about ",
        "; not rebuilt, owner web team, comes back: users log in again\n",
        "OK       coverage of unrouted cart:: 20 keys (86.96 %), about ",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    assert!(world.state().join("coverage.json").exists());
    // Without the flag nothing is scanned.
    let text = world.run(&["check"]).expect(0).stdout;
    assert!(!text.contains("coverage"), "{text}");
}

#[test]
fn a_user_that_may_not_measure_still_counts() {
    let world = world_with(RedisOptions::default());
    world.redis(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-memory"]);
    let url = format!("redis://app:secret@127.0.0.1:{}", world.redis.port());
    let run = || {
        let mut command = world.command(&["check", "--coverage", "--json"]);
        let output = command.env("REDIS_URL", &url).output().unwrap();
        crate::world::Ran::of(&output)
    };
    world.plan(&[USERS, SESSIONS].concat());
    let coverage = &run().expect(0).summary()["coverage"];
    assert_eq!((&coverage["keys"], &coverage["bytes_estimate"]), (&2.into(), &Value::Null));
    let why = coverage["bytes_refused"].as_str().unwrap();
    assert!(why.starts_with("cannot measure keys of redis at") && why.contains("NOPERM"), "{why}");

    world.redis(&["ACL", "SETUSER", "app", "-scan"]);
    let text = run().expect(2).stdout;
    assert!(text.contains("cannot scan the keys of redis at"), "{text}");
}
