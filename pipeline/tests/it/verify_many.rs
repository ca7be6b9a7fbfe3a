//! `verify redis` of keys that many rows make: every damage to an element is told by the name of its key, in keys of a
//! few rows and in keys that span batches.

use crate::many::{BUILDS, every_layout, held, route};
use crate::verify::{findings, verify};
use crate::world::World;
use std::collections::BTreeMap;

/// 60,000 rows in six routes of every layout, rebuilt.
fn rebuilt() -> World {
    let world = World::new();
    world.sql(BUILDS);
    world.plan(&every_layout());
    world.rebuild(&[]).expect(0);
    world
}

fn named(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, what)| ((*key).to_owned(), (*what).to_owned())).collect()
}

#[test]
fn every_tier_passes_after_a_rebuild_and_full_names_every_damage() {
    let world = rebuilt();
    let keys = held(&world).len();
    for tier in ["count", "sample", "full"] {
        let summary = verify(&world, &["--tier", tier]).expect(0).summary();
        assert_eq!((&summary["keys"], &summary["settled"]), (&keys.into(), &0.into()), "{tier}");
    }
    let first = |key: &str| held(&world)[key][0].clone();
    let field = |key: &str| first(key).split('|').next().unwrap().to_owned();
    let (author, of_all) = (first("authors:1"), first("{all}:authors"));
    // A member that is gone, one that is new, one that is another, in a key of 30,000 rows and in small ones.
    world.redis(&["SREM", "authors:1", &author]);
    world.redis(&["SADD", "authors:2", "nobody"]);
    world.redis(&["SREM", "{all}:authors", &of_all]);
    world.redis(&["SADD", "{all}:authors", "nobody"]);
    // Another score, and a member that is gone.
    world.redis(&["ZINCRBY", "repo:1:builds", "0.5", &field("repo:1:builds")]);
    world.redis(&["ZREM", "repo:9:builds", &field("repo:9:builds")]);
    // Another value of a field, and a field that is gone.
    world.redis(&["HSET", "statuses:1", &field("statuses:1"), "another"]);
    world.redis(&["HDEL", "statuses:6", &field("statuses:6")]);
    // The same elements in another order, one twice, one replaced.
    world.redis(&["LMOVE", "latest:1", "latest:1", "LEFT", "RIGHT"]);
    world.redis(&["RPUSH", "latest:5", &first("latest:5")]);
    world.redis(&["LSET", "latest:8", "0", "x"]);
    // A key that is gone, one too many, one of another type, and one that is about to expire.
    world.redis(&["DEL", "latest:3"]);
    world.redis(&["SADD", "authors:999999", "nobody"]);
    world.redis(&["DEL", "authors:7"]);
    world.redis(&["SET", "authors:7", "x"]);
    world.redis(&["EXPIRE", "statuses:4", "1000"]);
    let summary = verify(&world, &["--tier", "full"]).expect(4).summary();
    let mut expected = named(&[
        ("latest:3", "missing"),
        ("authors:999999", "unexplained"),
        ("statuses:4", "expiry"),
    ]);
    for key in [
        "authors:1",
        "authors:2",
        "authors:7",
        "{all}:authors",
        "repo:1:builds",
        "repo:9:builds",
        "statuses:1",
        "statuses:6",
        "latest:1",
        "latest:5",
        "latest:8",
    ] {
        expected.insert(key.to_owned(), "value".to_owned());
    }
    assert_eq!(findings(&summary, &world), expected);
    let summary = verify(&world, &["--tier", "count"]).expect(4).summary();
    let expected = named(&[("latest:3", "missing"), ("statuses:4", "expiry")]);
    assert_eq!(findings(&summary, &world), expected);
}

#[test]
fn a_row_that_changes_under_its_key_settles_or_is_told() {
    let world = World::new();
    world.sql(BUILDS);
    world.plan(&route("by-repo", "zset", "repo:{repo}:builds", "{id}", "score = \"minutes\""));
    world.rebuild(&[]).expect(0);
    // GIVEN a row that changed after the rebuild, and one that is gone together with its element
    world.sql("update builds set minutes = 7777 where id = 4; delete from builds where id = 6");
    world.redis(&["ZREM", "repo:1:builds", "6"]);
    let summary = verify(&world, &["--tier", "full"]).expect(4).summary();
    assert_eq!(findings(&summary, &world), named(&[("repo:1:builds", "value")]));
    world.redis(&["ZADD", "repo:1:builds", "7777", "4"]);
    verify(&world, &["--tier", "full"]).expect(0);
}

#[test]
fn kept_keys_are_no_difference_and_expired_rows_are_in_no_key() {
    let world = World::new();
    world.sql(
        "create table t (k int, m int, until timestamptz, primary key (k, m)); \
         insert into t select n / 10, n, now() + interval '1 day' from generate_series(1, 1000) n; \
         update t set until = now() - interval '1 day' where k = 3 or m % 10 = 5",
    );
    world.plan(
        "[[route]]\nname = \"t\"\ntable = \"alloydb:t\"\nkey = \"t:{k}\"\ntype = \"set\"\nmember = \"{m}\"\n\
         on_conflict = \"keep\"\nexpire_at = \"until\"\n",
    );
    world.redis(&["SADD", "t:7", "the application's"]);
    world.rebuild(&[]).expect(0);
    world.redis(&["DEL", "t:8"]);
    world.redis(&["SADD", "t:3", "35"]);
    let summary = verify(&world, &["--tier", "full"]).expect(4).summary();
    let expected = named(&[("t:8", "missing"), ("t:3", "unexplained")]);
    assert_eq!((findings(&summary, &world), &summary["kept"]), (expected, &1.into()));
}
