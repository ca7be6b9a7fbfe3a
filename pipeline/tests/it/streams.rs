//! Streams that a rebuild makes: every row is one entry, numbered within its partition, whatever was there before.
//!
//! Invariant: the expectation shares no code with the product: SQL on one side, raw RESP on the other.

use crate::carried::of_route;
use crate::items::{PIPELINE, Reply, Wire, calls};
use crate::world::World;
use std::collections::BTreeMap;

/// Rows of the table.
pub(crate) const ROWS: u64 = 60_000;
/// Key to its entries: the id, and the fields as `name=value` joined by `|`.
pub(crate) type Held = BTreeMap<String, Vec<(String, String)>>;

pub(crate) const ROUTE: &str = "[[route]]\nname = \"events\"\ntable = \"alloydb:events\"\nkey = \"ev\"\n\
    type = \"stream\"\nuse = [\"rebuild\"]\ncolumns = [\"id\", \"a\", { field = \"größe\", column = \"b\" }]\n";

/// Rows of which some are equal and some have nulls; no key tells them apart. Pages are nearly empty, for many partitions.
pub(crate) fn fill(world: &World) {
    world.sql(&format!(
        "create table events (id bigint not null, a text not null, b int) with (fillfactor = 10); \
         insert into events select i / 2, repeat(md5((i / 2)::text), 1 + i / 2 % 3), case when i / 2 % 5 > 0 then i / 2 end \
         from generate_series(0, {}) i; vacuum analyze events",
        ROWS - 1
    ));
}

pub(crate) fn filled() -> World {
    let world = World::new();
    fill(&world);
    world.plan(ROUTE);
    world
}

/// Every row of the table as its entry, sorted.
pub(crate) fn wanted(world: &World) -> Vec<String> {
    let sql = "select 'id=' || id || '|a=' || a || case when b is null then '' else '|größe=' || b end from events";
    let mut rows: Vec<String> = world.sql(sql).lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

/// Everything that the Redis on this port holds; only streams may be there.
pub(crate) fn held_at(port: u16) -> Held {
    let mut wire = Wire::to(port);
    let mut keys = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut page = wire.ask(&["SCAN", &cursor, "COUNT", "5000"]).list();
        keys.extend(page.pop().unwrap().list().into_iter().map(|key| key.text().unwrap()));
        cursor = page.pop().unwrap().text().unwrap();
        if cursor == "0" {
            break;
        }
    }
    let mut held = Held::new();
    for key in keys {
        // A run that is killed while it measures leaves a key that expires within a minute.
        if key.starts_with("rekindle:tmp:sample") {
            assert!(!matches!(wire.ask(&["PTTL", &key]), Reply::Number(-1)), "{key}");
            continue;
        }
        let mut entries: Vec<(String, String)> = Vec::new();
        loop {
            let from = entries.last().map_or("-".to_owned(), |(id, _)| format!("({id}"));
            let count = PIPELINE.to_string();
            let page = wire.ask(&["XRANGE", &key, &from, "+", "COUNT", &count]).list();
            let is_last = page.len() < PIPELINE;
            entries.extend(page.into_iter().map(entry));
            if is_last {
                break;
            }
        }
        held.insert(key, entries);
    }
    held
}

fn entry(reply: Reply) -> (String, String) {
    let mut parts = reply.list().into_iter();
    let id = parts.next().unwrap().text().unwrap();
    let words = parts.next().unwrap().list().into_iter().map(|word| word.text().unwrap());
    let words: Vec<String> = words.collect();
    let fields: Vec<String> = words.chunks(2).map(|pair| pair.join("=")).collect();
    (id, fields.join("|"))
}

pub(crate) fn held(world: &World) -> Held {
    held_at(world.redis.port())
}

/// Asserts that Redis holds these rows in streams of this prefix, numbered from 0, with entries numbered from 1, and
/// nothing else.
#[track_caller]
pub(crate) fn assert_streams(held: &Held, prefix: &str, wanted: &[String]) {
    let numbers: Vec<&str> = held
        .keys()
        .map(|key| key.strip_prefix(prefix).unwrap_or_else(|| panic!("{key}")))
        .collect();
    let mut numbers: Vec<u64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for (key, entries) in held {
        for (number, (id, fields)) in entries.iter().enumerate() {
            assert_eq!(*id, format!("{}-0", number + 1), "{key}");
            found.push(fields.clone());
        }
    }
    found.sort();
    let lost: Vec<&String> =
        wanted.iter().filter(|row| found.binary_search(row).is_err()).collect();
    let more: Vec<&String> =
        found.iter().filter(|row| wanted.binary_search(row).is_err()).collect();
    assert!(
        found == wanted,
        "{} wanted, {} found; lost {:?}; more {:?}",
        wanted.len(),
        found.len(),
        lost.iter().take(3).collect::<Vec<_>>(),
        more.iter().take(3).collect::<Vec<_>>()
    );
    assert!(numbers.iter().zip(0..).all(|(number, place)| *number == place), "{numbers:?}");
}

#[test]
fn every_row_is_one_entry_and_rebuilding_leaves_nothing_of_another_cut() {
    // GIVEN a table without a key, with equal rows
    let world = filled();
    let plan = world.run(&["plan", "--json", "--lanes", "4"]).expect(0).summary();
    assert_eq!(plan["routes"][0]["layout"], "stream", "{plan}");
    let told = plan["routes"][0]["uniqueness"].as_str().unwrap();
    assert!(told.contains("one stream, from ev:0 on"), "{told}");
    world.run(&["check"]).expect(0);
    // WHEN it is rebuilt into an empty Redis
    let summary = world.rebuild(&["--lanes", "4"]).expect(0).summary();
    // THEN every row is there once, one stream of each partition
    let wanted = wanted(&world);
    let first = held(&world);
    assert_streams(&first, "ev:", &wanted);
    let counts = of_route(&summary, "events");
    assert_eq!((&counts["rows"], &counts["written"]), (&ROWS.into(), &ROWS.into()), "{counts}");
    assert_eq!(counts["partitions"], first.len(), "{counts}");
    assert!(first.len() > 3, "{} streams", first.len());
    assert!(summary["warnings"].to_string().find("streams").is_none(), "{summary}");
    // AND again, with the same cut, the very same is there
    let again = world.rebuild(&["--lanes", "4"]).expect(0).summary();
    assert_eq!(held(&world), first);
    assert_eq!(of_route(&again, "events")["digest"], counts["digest"]);
    let warnings = again["warnings"].to_string();
    assert!(
        warnings.contains(&format!("{} streams that were there before", first.len())),
        "{again}"
    );
    // AND with another cut, nothing of the first one stays; what is named otherwise is left alone
    world.redis(&["XADD", "ev:0", "900000-7", "stale", "1"]);
    world.redis(&["XADD", "ev:9999", "*", "stale", "1"]);
    for key in ["ev", "ev:x", "ev:00", "ev:0:y", "evening:3"] {
        world.redis(&["SET", key, "mine"]);
    }
    let other = world.rebuild(&["--lanes", "1"]).expect(0).summary();
    for key in ["ev", "ev:x", "ev:00", "ev:0:y", "evening:3"] {
        assert_eq!(world.redis(&["GETDEL", key]), "mine");
    }
    let second = held(&world);
    assert!(second.len() < first.len(), "{} and {} streams", second.len(), first.len());
    assert_streams(&second, "ev:", &wanted);
    assert_eq!(of_route(&other, "events")["digest"], counts["digest"]);
    // AND rows that changed are the only ones
    world.sql("delete from events where id % 3 = 0; update events set b = 7 where id % 7 = 0");
    world.rebuild(&["--lanes", "2", "--fresh"]).expect(0);
    assert_streams(&held(&world), "ev:", &self::wanted(&world));
}

#[test]
fn a_key_of_another_type_under_a_streams_name_stops_the_run_before_anything_is_written() {
    let world = filled();
    world.rebuild(&["--lanes", "1"]).expect(0);
    let before = held(&world);
    world.sql("delete from events where id > 100");
    world.redis(&["SET", "ev:12345", "mine"]);
    let writes = |world: &World| ["xadd", "unlink", "del"].map(|command| calls(world, command));
    let written = writes(&world);
    world.rebuild(&[]).expect(2).says(&[
        "route events: 1 keys are named like its streams, ev:<number>, and are none: ev:12345 (string)",
        "hint: give the route a key prefix of its own",
    ]);
    assert_eq!(writes(&world), written);
    assert_eq!(world.redis(&["GETDEL", "ev:12345"]), "mine");
    assert_eq!(held(&world), before);
    // Nothing is in the way any more: the same command completes the run.
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["resumed"], 1, "{summary}");
    assert_streams(&held(&world), "ev:", &wanted(&world));
}

#[test]
fn what_a_stream_cannot_hold_is_rejected_and_its_policy_of_nulls_holds() {
    let world = World::new();
    world.sql("create table t (a text, b int); insert into t values ('x', 1), (null, null), ('', null), (null, 4)");
    let route = |null: &str| {
        format!(
            "[[route]]\nname = \"t\"\ntable = \"alloydb:t\"\nkey = \"{{{{tag}}}}:[s]*\"\ntype = \"stream\"\nuse = [\"rebuild\"]\n\
             null = \"{null}\"\nrejects_max = \"100%\"\n"
        )
    };
    for (null, wanted) in [
        ("omit", vec!["a=", "a=x|b=1", "b=4"]),
        ("empty", vec!["a=x|b=1", "a=|b=", "a=|b=", "a=|b=4"]),
        ("error", vec!["a=x|b=1"]),
    ] {
        world.plan(&route(null));
        let summary = world.rebuild(&[]).expect(0).summary();
        let rejects = 4 - wanted.len() as u64;
        assert_eq!(of_route(&summary, "t")["rejects"], rejects, "{summary}");
        let mut wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
        wanted.sort();
        // The prefix has signs that mean something in patterns, and a hash tag.
        assert_streams(&held(&world), "{tag}:[s]*:", &wanted);
    }
    // A table without rows leaves no stream, not even an old one.
    world.sql("truncate t");
    world.rebuild(&[]).expect(0);
    assert_eq!(held(&world).len(), 0);
}

#[test]
fn a_view_makes_one_stream_or_as_many_as_it_is_split_into() {
    let world = filled();
    world.sql("create view v as select * from events where id < 20000");
    let view = ROUTE.replace("alloydb:events", "alloydb:v");
    let wanted: Vec<String> = wanted(&world)
        .into_iter()
        .filter(|row| row[3..].split('|').next().unwrap().parse::<u64>().unwrap() < 20_000)
        .collect();
    world.plan(&view);
    world.rebuild(&[]).expect(0);
    let one = held(&world);
    assert_streams(&one, "ev:", &wanted);
    assert_eq!(one.len(), 1);
    world.plan(&format!("{view}split_by = \"id\"\n"));
    world.rebuild(&["--fresh"]).expect(0);
    let split = held(&world);
    assert_streams(&split, "ev:", &wanted);
    assert!(split.len() > 1, "{} streams", split.len());
}

#[test]
fn what_a_row_becomes_is_shown_and_what_explains_a_stream_is_known() {
    let world = filled();
    let sample = world.run(&["plan", "--sample", "2"]).expect(0);
    assert!(sample.stdout.contains("XADD ev:0 1-0 id "), "{}", sample.stdout);
    assert_eq!(world.redis(&["DBSIZE"]), "0");
    world.rebuild(&[]).expect(0);
    world.run(&["check", "--coverage"]).expect(0);
    world.redis(&["SET", "ev:7777", "x"]);
    world.run(&["check", "--coverage"]).expect(2);
    // A user who may not look for streams or write them is told beforehand.
    world.redis(&["ACL", "SETUSER", "default", "-xadd", "-xrange", "-scan"]);
    let check = world.run(&["check"]).expect(2);
    assert!(check.stdout.contains("SCAN, XADD on ev:0") || check.stdout.contains("XADD on ev:0"));
}
