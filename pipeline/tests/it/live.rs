//! Routes that compare versions: what stays, what gives way, and what becomes of rows that change meanwhile.

use crate::carried::{hash, of_route, pairs, route};
use crate::items::{ROWS, assert_complete, existing, held, signal, standing};
use crate::world::{Ran, World, wait_until};
use nix::sys::signal::Signal;

const NEWEST: &str = "on_conflict = \"newest\"\nversion_by = \"c\"\n";

/// The table of `items`, each row with a version; the plan compares them and follows the source.
pub(crate) fn fill(world: &World, layout: &str, rows: u64, more: &str) {
    world.sql(&format!(
        "create table items (id bigint primary key, a text not null, b int, c timestamptz);
         insert into items select i, repeat(md5(i::text), 1 + i % 3),
             case when i % 13 <> 0 then i * 7 % 100003 end,
             timestamptz '2024-02-28 22:59:58Z' + i * interval '61.5 seconds'
             from generate_series(1, {rows}) i;
         vacuum analyze items;"
    ));
    plan(world, layout, more);
}

pub(crate) fn plan(world: &World, layout: &str, more: &str) {
    world.plan(&format!(
        "[[route]]\nname = \"items\"\ntable = \"alloydb:public.items\"\nkey = \"item:{{id}}\"\n\
         type = \"{layout}\"\n{NEWEST}{more}\n"
    ));
}

/// Ten rows of version 2024-05-05, but for the last, which has none.
const TEN: &str = "create table ten (id bigint primary key, a text, c timestamptz); \
    insert into ten select i, 'a' || i, '2024-05-05T00:00:00Z' from generate_series(1, 10) i; \
    update ten set c = null where id > 8";

#[test]
fn newer_keys_stay_and_every_other_gives_way() {
    let world = World::new();
    world.sql(TEN);
    let key = |layout: &str, id: u32| format!("ten-{layout}:{id}");
    let put = |id: u32, a: &str, c: &str| {
        world.redis(&["HSET", &key("hash", id), "a", a, "c", c, "stale", "1"]);
        let json = format!("{{\"c\":\"{c}\",\"a\":\"{a}\",\"stale\":1}}");
        world.redis(&["SET", &key("json", id), &json]);
    };
    put(1, "newer", "2024-05-05 00:00:00.000001+00");
    put(2, "older", "2024-05-04T23:59:59.999999Z");
    world.redis(&["EXPIRE", &key("hash", 2), "1000"]);
    world.redis(&["EXPIRE", &key("json", 2), "1000"]);
    put(3, "equal", "2024-05-05T00:00:00Z");
    put(4, "unreadable", "yesterday");
    for layout in ["hash", "json"] {
        world.redis(&["RPUSH", &key(layout, 5), "x"]);
    }
    world.redis(&["HSET", &key("hash", 6), "a", "without"]);
    world.redis(&["SET", &key("json", 6), "{\"a\":\"without\"}"]);
    put(9, "newer than nothing", "0044-03-15T00:00:00Z BC");
    world.plan(&[route("ten", "hash", NEWEST), route("ten", "json", NEWEST)].concat());
    // WHEN it is rebuilt THEN nothing tells whether the unreadable one is newer: it stays, and is named
    let summary = world
        .rebuild(&[])
        .expect(4)
        .says(&["ten-hash:4 (a version that cannot be read)", "ten-json:4"])
        .summary();
    for name in ["ten-hash", "ten-json"] {
        let counts = of_route(&summary, name);
        assert_eq!((&counts["written"], &counts["kept"]), (&7.into(), &3.into()), "{name}");
    }
    assert_eq!(summary["verified"]["newer"], 4, "{summary}");
    for id in [1, 9] {
        assert_eq!(hash(&world, &key("hash", id))["stale"], "1");
        assert!(world.redis(&["GET", &key("json", id)]).contains("newer"));
    }
    assert_eq!(hash(&world, &key("hash", 4))["a"], "unreadable");
    assert!(world.redis(&["GET", &key("json", 4)]).contains("unreadable"));
    let row = |id: u32| pairs(&[("a", &format!("a{id}")), ("c", "2024-05-05T00:00:00Z")]);
    for id in [2, 3, 5, 6, 7, 8] {
        assert_eq!(hash(&world, &key("hash", id)), row(id), "{id}");
        let json = format!("{{\"a\":\"a{id}\",\"c\":\"2024-05-05T00:00:00Z\"}}");
        assert_eq!(world.redis(&["GET", &key("json", id)]), json);
        assert_eq!(world.redis(&["TTL", &key("hash", id)]), "-1");
        assert_eq!(world.redis(&["TTL", &key("json", id)]), "-1");
    }
    assert_eq!(hash(&world, &key("hash", 10)), pairs(&[("a", "a10")]));
    // WHEN the unreadable ones are gone THEN the next attempt ends well, and leaves the newer ones again
    world.redis(&["DEL", &key("hash", 4), &key("json", 4)]);
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["verified"]["newer"], 4, "{summary}");
    assert_eq!(hash(&world, &key("hash", 4)), row(4));
    assert_eq!(hash(&world, &key("hash", 1))["a"], "newer");
}

#[test]
fn an_expiry_goes_with_the_row_and_an_expired_row_leaves_a_key_alone() {
    let world = World::new();
    world.sql(
        "create table mortal (id bigint primary key, v bigint, at timestamptz); insert into mortal values \
         (1, 9007199254740993, '2090-01-01Z'), (2, 9007199254740993, '2090-01-01Z'), (3, 1, '2020-01-01Z')",
    );
    let more =
        "on_conflict = \"newest\"\nversion_by = \"v\"\ncolumns = [\"v\"]\nexpire_at = \"at\"\n";
    world.plan(&[route("mortal", "hash", more), route("mortal", "json", more)].concat());
    for (id, stored) in [(1, "9007199254740992"), (2, "9007199254740994"), (3, "0")] {
        world.redis(&["HSET", &format!("mortal-hash:{id}"), "v", stored]);
        world.redis(&["SET", &format!("mortal-json:{id}"), &format!("{{\"v\":{stored}}}")]);
    }
    let summary = world.rebuild(&[]).expect(0).summary();
    let counts = ["written", "kept", "expired"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counts, [2, 2, 2], "{summary}");
    for layout in ["hash", "json"] {
        let expiry = |id: u32| world.redis(&["PEXPIRETIME", &format!("mortal-{layout}:{id}")]);
        assert_eq!([expiry(1), expiry(2), expiry(3)], ["3786912000000", "-1", "-1"], "{layout}");
    }
    assert_eq!(hash(&world, "mortal-hash:2"), pairs(&[("v", "9007199254740994")]));
}

#[test]
fn what_cannot_be_compared_or_followed_is_refused_before_anything_is_written() {
    let world = World::new();
    world.sql(TEN);
    world.sql("create view seen as select * from ten");
    for (table, more, says) in [
        (
            "ten",
            "on_conflict = \"newest\"\nversion_by = \"c\"\ncolumns = [\"a\"]",
            "version_by column c is not in the value",
        ),
        (
            "ten",
            "on_conflict = \"newest\"\nversion_by = \"a\"",
            "version_by column a has type text",
        ),
        ("ten", "on_conflict = \"newest\"\nversion_by = \"d\"", "unknown column d"),
        (
            "seen",
            "on_conflict = \"newest\"\nversion_by = \"c\"\ncatch_up = \"30s\"\non_collision = \"error\"",
            "catch_up cannot be kept, because",
        ),
    ] {
        world.plan(&route(table, "hash", more));
        for ran in [world.run(&["plan"]), world.rebuild(&[])] {
            ran.expect(2).says(&[says]);
        }
    }
    assert_eq!(world.redis(&["DBSIZE"]), "0");
}

#[test]
fn a_lag_that_cannot_be_reached_is_an_objective_missed() {
    // GIVEN a source whose every read takes 0.6 s: a pass reads twice
    let world = World::new();
    let slow = "where = \"(select pg_sleep(0.6)) is not null\"\n";
    fill(&world, "hash", 100, &format!("{slow}catch_up = \"1s\"\n"));
    let ran = world.rebuild(&[]).expect(6);
    let summary = ran.summary();
    assert_eq!(summary["status"], "done", "{summary}");
    let route = of_route(&summary, "items");
    let lag = route["lag_seconds"].as_f64().unwrap();
    assert!(lag >= 1.2 && route["stale_seconds"].as_f64() >= Some(1.2), "{summary}");
    let warning = summary["warnings"].to_string();
    assert!(warning.contains("catch_up = \\\"1s\\\" was not reached in 5 passes"), "{warning}");
    assert_complete(&world);
    // WHEN the plan allows for it THEN one pass is enough
    plan(&world, "hash", &format!("{slow}catch_up = \"1h\"\n"));
    let summary = world.rebuild(&[]).expect(0).summary();
    let route = of_route(&summary, "items");
    assert!(route["lag_seconds"].as_f64().unwrap() >= 1.2, "{summary}");
    assert_eq!(route["partitions"], 2, "{summary}");
    let text = world.run(&["rebuild", "redis", "--progress", "none"]).expect(0).stdout;
    assert!(
        text.contains("\nnewest    window: ") && text.contains("(items, caught up to "),
        "{text}"
    );
    // AND without it, and without versions, only the window is told
    world.plan(crate::items::HASH);
    let text = world.run(&["rebuild", "redis", "--progress", "none"]).expect(0).stdout;
    assert!(text.contains("\nstale     window: ") && text.contains("(items)"), "{text}");
}

#[test]
fn keys_of_deleted_rows_go_unless_an_application_wrote_them_anew() {
    // GIVEN a run held still while rows change, and an application that does this and that about their keys
    let world = World::new();
    fill(&world, "hash", ROWS, "catch_up = \"1h\"\n");
    let child = held(&world, 60);
    let keys = |condition: &str| -> Vec<String> {
        let ids = world.sql(&format!("select id from items where {condition} order by id"));
        let keys: Vec<String> = ids.lines().map(|id| format!("item:{id}")).collect();
        existing(&world, &keys).into_iter().take(40).collect()
    };
    let id_of = |key: &str| key.strip_prefix("item:").unwrap().to_owned();
    let left = keys("id % 50 = 1");
    let removed = keys("id % 50 = 2");
    let back = keys("id % 50 = 3");
    let ahead = keys("id % 50 = 4");
    assert!(left.len() == 40 && removed.len() == 40 && back.len() == 40 && ahead.len() == 40);
    for key in left.iter().chain(&removed).chain(&back).chain(&ahead) {
        world.sql(&format!("delete from items where id = {}", id_of(key)));
    }
    for key in &removed {
        world.redis(&["DEL", key]);
    }
    for key in &back {
        world.sql(&format!("insert into items values ({}, 'back', 1, '2060-01-01Z')", id_of(key)));
        world.redis(&["DEL", key]);
        world.redis(&["HSET", key, "a", "back", "b", "1", "c", "2060-01-01T00:00:00Z"]);
    }
    for key in &ahead {
        world.redis(&["HSET", key, "a", "ahead", "c", "2060-01-01T00:00:00Z"]);
    }
    signal(&child, Signal::SIGCONT);
    // WHEN it ends THEN keys without a row are gone, but for those that hold something newer
    let ran = Ran::of(&child.wait_with_output().unwrap()).expect(0);
    let summary = ran.summary();
    assert!(summary["dropped_keys"].as_u64() >= Some(40), "{summary}");
    let gone: Vec<String> = left.iter().chain(&removed).cloned().collect();
    assert!(existing(&world, &gone).is_empty());
    assert_eq!(existing(&world, &ahead).len(), 40);
    let mut words = vec!["DEL"];
    words.extend(ahead.iter().map(String::as_str));
    world.redis(&words);
    assert_complete(&world);
}

#[test]
fn scripts_that_the_server_was_made_to_forget_are_loaded_again() {
    let world = World::new();
    fill(&world, "json", ROWS, "");
    let child = held(&world, 30);
    world.redis(&["SCRIPT", "FLUSH"]);
    signal(&child, Signal::SIGCONT);
    Ran::of(&child.wait_with_output().unwrap()).expect(0);
    assert_complete(&world);
}

#[test]
fn a_run_killed_in_a_catch_up_pass_ends_right_when_it_is_resumed() {
    // GIVEN a source that takes its time, and changes after the load
    let world = World::new();
    let slow = "where = \"(select pg_sleep(0.3)) is not null\"\n";
    fill(&world, "hash", 2_000, &format!("{slow}catch_up = \"1h\"\n"));
    let mut child = world.start_rebuild(&[]);
    let mut wire = crate::items::Wire::open(&world);
    wait_until("the first keys", || wire.dbsize() > 1);
    world.sql("update items set a = 'changed', c = '2060-01-01Z' where id % 10 = 3; delete from items where id % 10 = 4");
    wait_until("a catch-up pass", || {
        let sql = "select count(*) from pg_stat_activity where query like 'copy%xmin%' and state = 'active'";
        world.sql(sql) != "0" || child.try_wait().unwrap().is_some()
    });
    child.kill().unwrap();
    let killed = Ran::of(&child.wait_with_output().unwrap());
    assert_eq!(killed.code, None, "it ended first: {}", killed.stderr);
    assert_eq!(standing(&world)["status"], "killed");
    // WHEN more changes before it is resumed THEN everything is as the source is
    world.sql("update items set a = 'later', c = '2061-01-01Z' where id % 10 = 5; delete from items where id % 10 = 6");
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["resumed"], 1);
    assert!(summary["dropped_keys"].as_u64() > Some(0), "{summary}");
    assert_complete(&world);
}
