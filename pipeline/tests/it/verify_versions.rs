//! `verify redis` of routes that compare versions: a newer key is no difference and is never replaced; every other is
//! named as it stands.

use crate::carried::route;
use crate::verify::{dumped, findings, verify};
use crate::world::World;
use std::collections::BTreeMap;

const NEWEST: &str = "on_conflict = \"newest\"\nversion_by = \"c\"\nexpire_at = \"at\"\n";
const TEN: &str = "create table ten (id bigint primary key, a text, c timestamptz, at timestamptz); \
    insert into ten select i, 'a' || i, '2024-05-05T00:00:00Z', null from generate_series(1, 10) i";
const LAYOUTS: [&str; 2] = ["hash", "json"];

fn put(world: &World, id: u32, a: &str, c: &str) {
    world.redis(&["DEL", &format!("ten-hash:{id}")]);
    world.redis(&["HSET", &format!("ten-hash:{id}"), "a", a, "c", c]);
    let json = format!("{{\"a\":\"{a}\",\"c\":\"{c}\"}}");
    world.redis(&["SET", &format!("ten-json:{id}"), &json]);
}

/// Rebuilt, then written by an application: keys that are newer (1), older (2), equal and different (3), unreadable (4),
/// of another type (5), without a version (6), gone (7), about to expire (8).
fn written() -> World {
    let world = World::new();
    world.sql(TEN);
    let more = format!("{NEWEST}columns = [\"a\", \"c\"]\n");
    world.plan(&LAYOUTS.map(|layout| route("ten", layout, &more)).concat());
    world.rebuild(&[]).expect(0);
    put(&world, 1, "newer", "2024-05-05T00:00:00.000001Z");
    put(&world, 2, "older", "2024-05-04T23:59:59.999999Z");
    put(&world, 3, "equal", "2024-05-05T00:00:00Z");
    put(&world, 4, "unreadable", "yesterday");
    for layout in LAYOUTS {
        let key = |id: u32| format!("ten-{layout}:{id}");
        world.redis(&["DEL", &key(5), &key(6), &key(7)]);
        world.redis(&["RPUSH", &key(5), "x"]);
        world.redis(&["EXPIRE", &key(8), "1000"]);
    }
    world.redis(&["HSET", "ten-hash:6", "a", "without"]);
    world.redis(&["SET", "ten-json:6", "{\"a\":\"without\"}"]);
    world
}

fn named(of: &[(u32, &str)]) -> BTreeMap<String, String> {
    let keys = |(id, what): &(u32, &str)| {
        let what = (*what).to_owned();
        LAYOUTS.map(|layout| (format!("ten-{layout}:{id}"), what.clone()))
    };
    of.iter().flat_map(keys).collect()
}

#[test]
fn newer_keys_are_counted_apart_and_all_others_are_named_at_every_tier() {
    let world = written();
    let expected = named(&[
        (2, "value"),
        (3, "value"),
        (4, "unreadable"),
        (5, "value"),
        (6, "value"),
        (7, "missing"),
        (8, "expiry"),
    ]);
    // The version is in the value, so every tier reads the values.
    for tier in ["count", "sample", "full"] {
        let summary = verify(&world, &["--tier", tier]).expect(4).summary();
        assert_eq!(findings(&summary, &world), expected, "{tier}");
        let counts = ["keys", "compared", "newer", "unreadable", "kept"].map(|name| &summary[name]);
        assert_eq!(counts, [20, 20, 2, 2, 0], "{tier}");
    }
}

#[test]
fn a_repair_replaces_neither_a_newer_key_nor_one_that_may_be() {
    let world = written();
    let mut connection = crate::verify::connection(&world);
    let before = dumped(&mut connection);
    verify(&world, &["--tier", "full", "--repair", "--dry-run"]).expect(4);
    // GIVEN a key that the dry run named and that an application writes newer before the repair
    put(&world, 2, "newest", "2024-05-06T00:00:00Z");
    let ran = verify(&world, &["--tier", "full", "--repair"]).expect(4);
    let summary = ran.summary();
    let repair = &summary["repair"];
    assert_eq!((&repair["written"], &repair["settled"]), (&10.into(), &2.into()), "{repair}");
    assert_eq!(findings(&summary, &world), named(&[(4, "unreadable")]));
    assert_eq!(summary["newer"], 4);
    let after = dumped(&mut connection);
    for layout in LAYOUTS {
        for id in [1, 4] {
            let key = format!("ten-{layout}:{id}").into_bytes();
            assert_eq!(after[&key], before[&key], "{layout} {id}");
        }
    }
    assert_eq!(world.redis(&["HGET", "ten-hash:2", "a"]), "newest");
    assert_eq!(world.redis(&["HGET", "ten-hash:3", "a"]), "a3");
    assert_eq!(world.redis(&["TTL", "ten-json:8"]), "-1");
    world.redis(&["DEL", "ten-hash:4", "ten-json:4"]);
    verify(&world, &["--tier", "full", "--repair", "--dry-run"]).expect(4);
    verify(&world, &["--tier", "full", "--repair"]).expect(0);
}

#[test]
fn a_key_that_outlives_its_row_is_removed_unless_it_is_newer() {
    let world = World::new();
    world.sql(TEN);
    let more = format!("{NEWEST}columns = [\"a\", \"c\"]\n");
    world.plan(&LAYOUTS.map(|layout| route("ten", layout, &more)).concat());
    world.rebuild(&[]).expect(0);
    world.sql("update ten set at = '2024-06-01Z' where id in (1, 2)");
    put(&world, 1, "newer", "2024-05-05T00:00:00.000001Z");
    let summary = verify(&world, &["--tier", "full", "--repair", "--dry-run"]).expect(4).summary();
    assert_eq!(findings(&summary, &world), named(&[(2, "expiry")]));
    let summary = verify(&world, &["--tier", "full", "--repair"]).expect(0).summary();
    assert_eq!((&summary["repair"]["removed"], &summary["newer"]), (&2.into(), &2.into()));
    assert_eq!(world.redis(&["EXISTS", "ten-hash:2", "ten-json:2"]), "0");
    assert_eq!(world.redis(&["HGET", "ten-hash:1", "a"]), "newer");
}
