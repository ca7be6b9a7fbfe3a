//! Keys of many rows: every layout equals what SQL says of the same table.
//!
//! Invariant: the expectation shares no code with the product: SQL on one side, raw RESP on the other.

use crate::carried::of_route;
use crate::items::{PIPELINE, Reply, Wire};
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;

/// Key to its elements: `member|score` or `field|value` or the member alone; sorted, except those of a list.
pub(crate) type Held = BTreeMap<String, Vec<String>>;

/// Builds of repositories: half of them of the first, the rest spread thinly. `w1` and `W1` compare as equal.
pub(crate) const BUILDS: &str = "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
     create table builds (id bigint primary key, repo bigint not null, author text collate ci, \
     status text not null, minutes numeric, started timestamptz not null, until timestamptz); \
     create index on builds (repo); \
     insert into builds select i, case when i % 2 = 0 then 1 else 2 + i / 2 % 3000 end, (array['w', 'W'])[1 + i % 2] || (i * 7919 % 1013), \
     (array['ok', 'failed', 'größe \"q\" 🚀'])[1 + i % 3], (i % 1000) / 4.0, \
     timestamptz '2024-02-28 22:59:58Z' + (i * 7919 % 90001) * interval '61.000001 seconds' \
     from generate_series(1, 60000) i; vacuum analyze builds";

pub(crate) fn route(name: &str, layout: &str, key: &str, member: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\ntable = \"alloydb:builds\"\nkey = \"{key}\"\ntype = \"{layout}\"\n\
         member = \"{member}\"\n{more}\n"
    )
}

/// One route of every layout.
pub(crate) fn every_layout() -> String {
    [
        route("authors", "set", "authors:{repo}", "{author}", ""),
        route("by-repo", "zset", "repo:{repo}:builds", "{id}", "score = \"started\""),
        route("latest", "list", "latest:{repo}", "{id}:{status}", "order_by = \"started|desc\""),
        route("statuses", "hash", "statuses:{repo}", "{id}", "columns = [\"status\"]"),
        route(
            "by-author",
            "list",
            "author:{author}",
            "{id}",
            "order_by = \"id\"\nwhere = \"author is not null\"",
        ),
        route("all", "set", "{{all}}:authors", "{author}", ""),
    ]
    .concat()
}

/// What Redis must hold of `every_layout`.
pub(crate) fn wanted(world: &World) -> Held {
    let mut wanted = Held::new();
    collect(
        world,
        &mut wanted,
        "select distinct 'authors:' || repo, author collate \"C\" from builds where author is not null",
    );
    collect(
        world,
        &mut wanted,
        "select 'repo:' || repo || ':builds', id || '|' || extract(epoch from started)::float8 from builds",
    );
    collect(world, &mut wanted, "select 'statuses:' || repo, id || '|' || status from builds");
    collect(
        world,
        &mut wanted,
        "select distinct '{all}:authors', author collate \"C\" from builds where author is not null",
    );
    for elements in wanted.values_mut() {
        elements.sort();
    }
    collect(
        world,
        &mut wanted,
        "select 'latest:' || repo, id || ':' || status from builds order by repo, started desc, id::text collate \"C\"",
    );
    let by_author =
        "select 'author:' || author, id from builds where author is not null order by id";
    collect(world, &mut wanted, by_author);
    wanted
}

fn collect(world: &World, wanted: &mut Held, sql: &str) {
    for line in world.sql(&format!("set timezone = 'UTC'; {sql}")).lines() {
        let Some((key, element)) = line.split_once('|') else { continue };
        wanted.entry(key.to_owned()).or_default().push(element.to_owned());
    }
}

/// Everything that Redis holds.
pub(crate) fn held(world: &World) -> Held {
    let mut wire = Wire::open(world);
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
    for keys in keys.chunks(PIPELINE) {
        let asks: Vec<Vec<String>> =
            keys.iter().map(|key| vec!["TYPE".to_owned(), key.clone()]).collect();
        let kinds: Vec<String> =
            wire.pipeline(&asks).into_iter().map(|kind| kind.text().unwrap()).collect();
        let reads: Vec<Vec<String>> =
            keys.iter().zip(&kinds).map(|(key, kind)| read(kind, key)).collect();
        for ((key, kind), value) in keys.iter().zip(&kinds).zip(wire.pipeline(&reads)) {
            held.insert(key.clone(), elements(kind, value));
        }
    }
    held
}

fn read(kind: &str, key: &str) -> Vec<String> {
    let words: &[&str] = match kind {
        "set" => &["SMEMBERS", key],
        "zset" => &["ZRANGE", key, "0", "-1", "WITHSCORES"],
        "list" => &["LRANGE", key, "0", "-1"],
        "hash" => &["HGETALL", key],
        "string" => &["GET", key],
        other => panic!("{key} is of type {other}"),
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn elements(kind: &str, value: Reply) -> Vec<String> {
    if kind == "string" {
        return vec![value.text().unwrap()];
    }
    let words: Vec<String> = value.list().into_iter().map(|word| word.text().unwrap()).collect();
    let mut elements: Vec<String> = match kind {
        // Redis prints 17 digits, PostgreSQL the shortest: compared as numbers.
        "zset" => words
            .chunks(2)
            .map(|pair| format!("{}|{}", pair[0], pair[1].parse::<f64>().unwrap()))
            .collect(),
        "hash" => words.chunks(2).map(|pair| pair.join("|")).collect(),
        _ => words,
    };
    if kind != "list" {
        elements.sort();
    }
    elements
}

/// Asserts equality without printing thousands of keys.
#[track_caller]
pub(crate) fn assert_held(world: &World, wanted: &Held) {
    let found = held(world);
    let missing: Vec<_> = wanted.keys().filter(|key| !found.contains_key(*key)).take(3).collect();
    let extra: Vec<_> = found.keys().filter(|key| !wanted.contains_key(*key)).take(3).collect();
    let different: Vec<_> = wanted
        .iter()
        .filter_map(|(key, elements)| Some((key, elements, found.get(key)?)))
        .filter(|(_, wanted, found)| wanted != found)
        .map(|(key, wanted, found)| {
            let at = wanted.iter().zip(found).position(|(a, b)| a != b);
            let at = at.unwrap_or(wanted.len().min(found.len()));
            (key, wanted.len(), found.len(), at, wanted.get(at), found.get(at))
        })
        .take(3)
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty() && different.is_empty(),
        "{} wanted, {} found; missing {missing:?}; extra {extra:?}; different {different:?}",
        wanted.len(),
        found.len()
    );
}

#[track_caller]
fn assert_adds_up(summary: &Value, name: &str, rows: u64) {
    let counts = of_route(summary, name);
    let of = |field: &str| counts[field].as_u64().unwrap();
    assert_eq!(of("rows"), rows, "{name}: {counts}");
    assert_eq!(
        of("written") + of("kept") + of("expired") + of("rejects"),
        rows,
        "{name}: {counts}"
    );
}

#[test]
fn every_layout_holds_what_sql_says_and_repeating_changes_nothing() {
    // GIVEN a table of 60 000 builds, half of them of one repository
    let world = World::new();
    world.sql(BUILDS);
    world.plan(&every_layout());
    // WHEN it is rebuilt into an empty Redis
    let summary = world.rebuild(&["--lanes", "4"]).expect(0).summary();
    // THEN every key holds what SQL says
    let wanted = wanted(&world);
    assert_held(&world, &wanted);
    for name in ["authors", "by-repo", "latest", "statuses"] {
        assert_adds_up(&summary, name, 60_000);
        let partitions = of_route(&summary, name)["partitions"].as_u64().unwrap();
        assert!(partitions > 3, "{name} has {partitions} partitions");
    }
    // AND once more, over what is there, nothing is doubled
    let again = world.rebuild(&["--lanes", "2"]).expect(0).summary();
    assert_held(&world, &wanted);
    for name in ["authors", "by-repo", "latest", "statuses"] {
        assert_eq!(of_route(&again, name)["digest"], of_route(&summary, name)["digest"], "{name}");
    }
    // AND stale members, foreign types and expiries give way to the rows
    world.redis(&["SADD", "authors:1", "stale"]);
    world.redis(&["ZADD", "repo:7:builds", "1", "stale"]);
    world.redis(&["RPUSH", "latest:1", "stale"]);
    world.redis(&["HSET", "statuses:7", "stale", "1"]);
    world.redis(&["DEL", "statuses:8"]);
    world.redis(&["SET", "statuses:8", "of another type"]);
    world.redis(&["EXPIRE", "latest:1", "1000"]);
    world.redis(&["EXPIRE", "latest:7", "1000"]);
    world.rebuild(&[]).expect(0);
    assert_held(&world, &wanted);
    assert_eq!(world.redis(&["TTL", "latest:1"]), "-1");
    assert_eq!(world.redis(&["TTL", "latest:7"]), "-1");
}

#[test]
fn keep_leaves_a_key_alone_whole_be_it_small_or_large() {
    // GIVEN keys of the application under the names of a small and of the large key
    let world = World::new();
    world.sql(BUILDS);
    let keep = every_layout().replace("type = ", "on_conflict = \"keep\"\ntype = ");
    world.plan(&keep);
    world.redis(&["SADD", "authors:1", "mine"]);
    world.redis(&["RPUSH", "latest:7", "mine"]);
    world.redis(&["SET", "statuses:1", "mine"]);
    // WHEN it is rebuilt THEN they are as they were, and everything else is there
    let summary = world.rebuild(&[]).expect(0).summary();
    let mut wanted = wanted(&world);
    for key in ["authors:1", "latest:7", "statuses:1"] {
        wanted.insert(key.to_owned(), vec!["mine".to_owned()]);
    }
    assert_held(&world, &wanted);
    assert_eq!(of_route(&summary, "authors")["kept"], 30_000);
    assert_eq!(of_route(&summary, "latest")["kept"], 10);
    assert_eq!(of_route(&summary, "by-repo")["kept"], 0);
    assert_adds_up(&summary, "statuses", 60_000);
}

#[test]
fn one_key_of_300_000_elements_beside_thousands_of_small_ones_takes_bounded_memory() {
    // GIVEN a key that no batch and no memory of a lane holds
    let world = World::new();
    world.sql(
        "create table builds (id bigint primary key, repo bigint not null, started timestamptz not null); \
         create index on builds (repo); \
         insert into builds select i, case when i % 60 <> 0 then 5 else 10 + i end, \
         timestamptz '2024-01-01Z' + (i::bigint * 7919 % 305001) * interval '1 second' \
         from generate_series(1, 305084) i; vacuum analyze builds",
    );
    assert_eq!(world.sql("select count(*) from builds where repo = 5"), "300000");
    let padded = "padding-padding-padding-padding-padding-padding-{id}";
    let routes = [
        route("list", "list", "list:{repo}", padded, "order_by = \"started\""),
        route("zset", "zset", "zset:{repo}", padded, "score = \"started|ms\""),
    ];
    world.plan(&routes.concat());
    let bound = world.run(&["plan", "--json"]).expect(0).summary()["memory_bound_bytes"].clone();
    let summary = world.rebuild(&["--lanes", "2"]).expect(0).summary();
    // THEN it is whole and in order
    let mut wanted = Held::new();
    collect(
        &world,
        &mut wanted,
        &format!(
            "select 'zset:' || repo, '{}' || id || '|' || extract(epoch from started)::bigint * 1000 from builds",
            &padded[..48]
        ),
    );
    for elements in wanted.values_mut() {
        elements.sort();
    }
    collect(
        &world,
        &mut wanted,
        &format!(
            "select 'list:' || repo, '{}' || id from builds order by repo, started, id",
            &padded[..48]
        ),
    );
    assert_eq!(wanted["list:5"].len(), 300_000);
    assert_held(&world, &wanted);
    // AND the process took what the plan said, which does not depend on the key
    let peak = summary["peak_rss_bytes"].as_u64().unwrap();
    println!("peak {peak}, bound {bound}");
    assert!(peak <= bound.as_u64().unwrap(), "{peak} > {bound}");
}

#[test]
fn keys_expire_with_their_last_row_and_expired_rows_are_no_elements() {
    let world = World::new();
    world.sql(BUILDS);
    world.sql(
        "delete from builds where repo > 4; \
         update builds set until = '2090-01-01 00:00:00.0019+00'::timestamptz + id * interval '1 ms' where repo <= 3; \
         update builds set until = '2020-01-01Z' where id % 10 = 0; \
         update builds set until = '2020-01-01Z' where repo = 4",
    );
    world.plan(&every_layout().replace("member = ", "expire_at = \"until\"\nmember = "));
    world.sql("create view living as select * from builds where until is null or until > now()");
    // Once into an empty Redis, once over what is there.
    for _ in 0..2 {
        let summary = world.rebuild(&[]).expect(0).summary();
        let expired: u64 =
            world.sql("select count(*) from builds where until < now()").parse().unwrap();
        assert_eq!(of_route(&summary, "latest")["expired"], expired);
        for key in ["authors", "statuses", "latest"] {
            let until = "select floor(extract(epoch from max(until)) * 1000)::bigint from living where repo = ";
            for repo in ["1", "2"] {
                let key = format!("{key}:{repo}");
                assert_eq!(
                    world.redis(&["PEXPIRETIME", &key]),
                    world.sql(&format!("{until}{repo}")),
                    "{key}"
                );
            }
            assert_eq!(world.redis(&["EXISTS", &format!("{key}:4")]), "0");
        }
        assert_eq!(
            world.redis(&["LLEN", "latest:1"]),
            world.sql("select count(*) from living where repo = 1")
        );
    }
    // One row that never expires keeps its key for good.
    world.sql(
        "update builds set until = null where id = (select min(id) from living where repo = 1)",
    );
    world.rebuild(&[]).expect(0);
    assert_eq!(world.redis(&["PEXPIRETIME", "latest:1"]), "-1");
    assert_ne!(world.redis(&["PEXPIRETIME", "latest:2"]), "-1");
}

#[test]
fn all_rows_may_share_one_key() {
    let world = World::new();
    world.sql(BUILDS);
    world.plan(&route("all", "zset", "{{all}}:builds", "{id}", "score = \"minutes\""));
    let summary = world.rebuild(&["--lanes", "4"]).expect(0).summary();
    assert_eq!(of_route(&summary, "all")["partitions"], 1);
    let mut wanted = Held::new();
    collect(&world, &mut wanted, "select '{all}:builds', id || '|' || minutes::float8 from builds");
    for elements in wanted.values_mut() {
        elements.sort();
    }
    assert_held(&world, &wanted);
}
