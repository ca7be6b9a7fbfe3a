//! `check` asks for every right that `verify` needs: where it says OK a verification works, and where it says FAILED
//! one does not.
//!
//! Invariant: rights are those of a real user of Redis, and refusals those of the stand-in.

use crate::app_logs::HASHES;
use crate::carried::route;
use crate::cloud::{Cloud, ROUTE};
use crate::many;
use crate::world::{Ran, World};
use fixtures::servers::{Redis, RedisOptions};
use std::fs;

/// Makes user `app`, who may connect, ask for rights, run these commands, and touch these keys.
fn user(redis: &Redis, commands: &[&str], keys: &[&str]) {
    let mut words = ["ACL", "SETUSER", "app", "reset", "on", ">secret", "+@connection"].to_vec();
    words.extend(["+acl|whoami", "+acl|dryrun"]);
    let granted: Vec<String> = commands.iter().map(|command| format!("+{command}")).collect();
    let patterns: Vec<String> = keys.iter().map(|key| format!("~{key}")).collect();
    words.extend(granted.iter().chain(&patterns).map(String::as_str));
    redis.cli(&words).unwrap();
}

fn line(check: &Ran, control: &str) -> String {
    let found = check.stdout.lines().find(|line| line.contains(&format!("  {control}: ")));
    found.unwrap_or_else(|| panic!("no {control} in {}", check.stdout)).to_owned()
}

#[test]
fn check_asks_for_what_verify_redis_needs() {
    let world = World::new();
    world.sql(
        "create table users (id bigint primary key, name text, team int not null); \
         insert into users select i, 'n' || i, i % 7 from generate_series(1, 50) i",
    );
    let plan = [
        route("users", "hash", ""),
        route("users", "json", ""),
        "[[route]]\nname = \"stream\"\ntable = \"alloydb:users\"\nkey = \"users-stream\"\ntype = \"stream\"\n\
         use = [\"rebuild\"]\n".to_owned(),
        many::route("teams", "set", "by-team:{team}", "{id}", "").replace("builds", "users"),
    ];
    world.plan(&plan.concat());
    world.rebuild(&[]).expect(0);
    let url = format!("redis://app:secret@127.0.0.1:{}", world.redis.port());
    let run =
        |words: &[&str]| Ran::of(&world.command(words).env("REDIS_URL", &url).output().unwrap());
    let verify = || run(&["verify", "redis", "--tier", "full", "--progress", "none"]);
    // GIVEN a user who may read and nothing else
    let all = [
        "info", "dbsize", "scan", "time", "get", "pttl", "hgetall", "scard", "smembers", "sscan",
        "type", "xinfo", "xrange",
    ];
    let keys = ["users*", "by-team:*", "rekindle:run"];
    user(&world.redis, &all, &keys);
    // THEN nothing may be rebuilt and everything be verified
    let check = run(&["check"]).expect(2);
    assert!(line(&check, "redis access").starts_with("FAILED"), "{}", check.stdout);
    let told = line(&check, "redis verify");
    assert_eq!(told, "OK       redis verify: user app may run every command verify redis needs");
    verify().expect(0);
    for command in all {
        // GIVEN one right less THEN both say so, but of the command that only very large sets need
        let others: Vec<&str> = all.into_iter().filter(|other| *other != command).collect();
        user(&world.redis, &others, &keys);
        let check = run(&["check"]).expect(2);
        if ["info", "dbsize"].contains(&command) {
            // Without them nothing can be told of the server at all.
            assert!(line(&check, "redis").starts_with("FAILED"), "{}", check.stdout);
        } else {
            let told = line(&check, "redis verify");
            let denied = format!("user app may not run {}", command.to_uppercase());
            assert!(told.starts_with("FAILED") && told.contains(&denied), "{told}");
        }
        if command != "sscan" {
            verify().expect(2).says(&["NOPERM"]);
        }
    }
    // GIVEN a user who may not read the keys of one route
    user(&world.redis, &all, &["users-*", "rekindle:run"]);
    let told = line(&run(&["check"]), "redis verify");
    assert!(told.contains("may not run PTTL on by-team:0, SCARD on by-team:0"), "{told}");
    verify().expect(2).says(&["NOPERM"]);
}

#[test]
fn check_asks_for_what_verify_bigquery_needs() {
    let rows = HASHES.replace("log:{id}", "row:{id}");
    let routes = format!("{ROUTE}{rows}");
    let cloud = Cloud::new(RedisOptions::default(), &routes);
    cloud.table("{}");
    cloud.insert(1, 0..50);
    let run = |words: &[&str]| Ran::of(&cloud.command(words).output().unwrap());
    let verify = |tier: &str| run(&["verify", "bigquery", "--tier", tier, "--progress", "none"]);
    run(&["rebuild", "redis", "--progress", "none"]).expect(0);
    cloud.backup(&[]).expect(0);
    // GIVEN a user of Redis who may read and nothing else
    let file = cloud.folder.path().join("rekindle.toml");
    let plan = fs::read_to_string(&file).unwrap();
    fs::write(&file, plan.replace("redis://", "redis://app:secret@")).unwrap();
    let all = ["info", "dbsize", "scan", "get", "strlen", "getrange", "pttl", "hgetall"];
    let keys = ["log:*", "row:*", "rekindle:*"];
    user(&cloud.redis, &all, &keys);
    let check = run(&["check"]);
    for control in ["duplicate verify", "rows verify", "bigquery verify of d.t"] {
        assert!(line(&check, control).starts_with("OK "), "{}", check.stdout);
    }
    verify("full").expect(0);
    verify("count").expect(0);
    for (command, control, tier) in [
        ("scan", "duplicate verify", "full"),
        ("get", "duplicate verify", "count"),
        ("strlen", "duplicate verify", "count"),
        ("pttl", "duplicate verify", "count"),
        ("hgetall", "rows verify", "full"),
    ] {
        let others: Vec<&str> = all.into_iter().filter(|other| *other != command).collect();
        user(&cloud.redis, &others, &keys);
        let told = line(&run(&["check"]), control);
        let denied = format!("user app may not run {}", command.to_uppercase());
        assert!(told.starts_with("FAILED") && told.contains(&denied), "{told}");
        verify(tier).expect(2).says(&["NOPERM"]);
    }
    // GIVEN an account that may not read rows, or not run jobs
    user(&cloud.redis, &all, &keys);
    for method in ["CreateReadSession", "rest:jobs.query"] {
        cloud.fault(method, "deny", 0, 1_000);
        let check = run(&["check"]).expect(2);
        let told = check.stdout.lines().filter(|line| line.contains("bigquery verify"));
        let told: Vec<&str> = told.collect();
        assert!(!told.is_empty() && told.iter().all(|line| line.starts_with("FAILED")), "{told:?}");
        assert!(told[0].contains("Access Denied"), "{told:?}");
        verify("full").expect(2).says(&["Access Denied"]);
        cloud.no_faults();
    }
    verify("full").expect(0);
}
