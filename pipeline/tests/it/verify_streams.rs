//! `verify redis` of streams that a rebuild made: every damage to an entry is told by its stream and id.

use crate::streams::{ROUTE, filled, held};
use crate::verify::verify;
use crate::world::World;
use serde_json::Value;
use std::fs;

/// What the file of findings names: difference, key, entry.
fn named(summary: &Value, world: &World) -> Vec<(String, String, Option<String>)> {
    let Some(path) = summary["findings"].as_str() else { return Vec::new() };
    let text = fs::read_to_string(world.folder.path().join(path)).unwrap();
    let mut named: Vec<_> = text
        .lines()
        .map(|line| {
            let finding: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| finding[name].as_str().map(str::to_owned);
            (text("difference").unwrap(), text("key").unwrap(), text("entry"))
        })
        .collect();
    named.sort();
    named
}

fn finding(difference: &str, key: &str, entry: Option<&str>) -> (String, String, Option<String>) {
    (difference.to_owned(), key.to_owned(), entry.map(str::to_owned))
}

fn counts(summary: &Value) -> (u64, u64) {
    let of = |name: &str| summary[name].as_u64().unwrap();
    (of("missing"), of("unexplained"))
}

#[test]
fn every_tier_passes_after_a_rebuild_and_full_names_every_damage() {
    let world = filled();
    world.rebuild(&["--lanes", "3"]).expect(0);
    let streams = held(&world).len();
    // The table is cut otherwise now, which changes nothing.
    for tier in ["count", "sample", "full"] {
        let summary = verify(&world, &["--tier", tier, "--lanes", "1"]).expect(0).summary();
        assert_eq!(
            (&summary["rows"], &summary["keys"]),
            (&60_000.into(), &streams.into()),
            "{tier}"
        );
        assert_eq!((counts(&summary), &summary["settled"]), ((0, 0), &0.into()), "{tier}");
        let compared = summary["compared"].as_u64().unwrap();
        let wanted = match tier {
            "count" => 0..=0,
            "sample" => 5_000..=20_000,
            _ => 60_000..=60_000,
        };
        assert!(wanted.contains(&compared), "{tier}: {compared}");
    }
    let before = held(&world);
    // An entry that is gone, one that is new, one with another value, one with a field more, one twice.
    world.redis(&["XDEL", "ev:0", "5-0", "6-0", "7-0"]);
    world.redis(&["XDEL", "ev:0", "9-0"]);
    world.redis(&["XADD", "ev:1", "1700000000000-0", "mine", "1"]);
    let (last, fields) = before["ev:2"].last().unwrap().clone();
    world.redis(&["XDEL", "ev:2", &last]);
    let words: Vec<String> = fields
        .split('|')
        .flat_map(|field| {
            let (name, value) = field.split_once('=').unwrap();
            [name.to_owned(), value.to_owned()]
        })
        .collect();
    let mut altered: Vec<&str> = vec!["XADD", "ev:2", "1000000-0"];
    altered.extend(words.iter().map(String::as_str));
    altered.extend(["more", "1"]);
    world.redis(&altered);
    let summary = verify(&world, &["--tier", "full"]).expect(4).summary();
    assert_eq!(counts(&summary), (5, 2), "{summary}");
    let named_now = named(&summary, &world);
    for wanted in [
        finding("missing", "ev:0", Some("5-0 to 7-0")),
        finding("missing", "ev:0", Some("9-0")),
        finding("unexplained", "ev:1", Some("1700000000000-0")),
        finding("unexplained", "ev:2", Some("1000000-0")),
    ] {
        assert!(named_now.contains(&wanted), "{wanted:?} in {named_now:?}");
    }
    // Values are nowhere.
    assert!(!summary.to_string().contains("mine"), "{summary}");
    // The numbers alone tell a part of it at the other tiers.
    let summary = verify(&world, &["--tier", "count"]).expect(4).summary();
    assert_eq!(counts(&summary), (3, 0), "{summary}");
    let summary = verify(&world, &["--tier", "sample", "--sample", "100"]).expect(4).summary();
    assert!(counts(&summary).0 >= 3, "{summary}");
    // A whole stream, and streams of nobody.
    world.redis(&["DEL", "ev:1"]);
    world.redis(&["XADD", "ev:400", "1-0", "mine", "1"]);
    let summary = verify(&world, &["--tier", "full"]).expect(4).summary();
    let gone = before["ev:1"].len() as u64;
    assert_eq!(counts(&summary), (5 + gone, 2), "{summary}");
    let named_now = named(&summary, &world);
    assert!(named_now.contains(&finding("missing", "ev:1", None)), "{named_now:?}");
    assert!(named_now.contains(&finding("unexplained", "ev:400", Some("1-0"))), "{named_now:?}");
    // A repair is a rebuild's business, and that mends it.
    for words in [&["--repair", "--dry-run"][..], &["--repair"]] {
        verify(&world, words).expect(2).says(&[
            "route events: --repair does not write streams",
            "rekindle rebuild redis --route events",
        ]);
    }
    world.rebuild(&[]).expect(0);
    verify(&world, &["--tier", "full"]).expect(0);
}

#[test]
fn rows_that_changed_since_are_told_beside_routes_of_other_layouts() {
    let world = filled();
    world.sql("create table t (id int primary key, a text); insert into t select i, 'x' from generate_series(1, 500) i");
    let hash =
        "[[route]]\nname = \"t\"\ntable = \"alloydb:t\"\nkey = \"t:{id}\"\ntype = \"hash\"\n";
    world.plan(&format!("{hash}{ROUTE}"));
    world.rebuild(&[]).expect(0);
    let summary = verify(&world, &["--tier", "full"]).expect(0).summary();
    assert_eq!(summary["rows"], 60_500, "{summary}");
    world.sql("update events set b = -1 where id = 7; delete from t where id = 9");
    let summary = verify(&world, &["--tier", "full"]).expect(4).summary();
    // Two rows have the number 7.
    assert_eq!(counts(&summary), (2, 3), "{summary}");
    let named_now = named(&summary, &world);
    assert!(named_now.contains(&finding("missing", "ev:*", None)), "{named_now:?}");
    assert!(named_now.contains(&finding("unexplained", "t:9", None)), "{named_now:?}");
    // A key of another type under the name of a stream is no entry; a stream that is gone is missed.
    let (key, entries) = held_streams(&world).into_iter().next_back().unwrap();
    world.redis(&["DEL", &key]);
    world.redis(&["SET", &key, "x"]);
    let summary = verify(&world, &["--tier", "count", "--route", "events"]).expect(4).summary();
    assert_eq!(counts(&summary).0, entries, "{summary}");
}

/// Streams and how many entries they have.
fn held_streams(world: &World) -> Vec<(String, u64)> {
    let keys = world.redis(&["--scan", "--pattern", "ev:*"]);
    let mut found: Vec<(String, u64)> = keys
        .lines()
        .map(|key| (key.to_owned(), world.redis(&["XLEN", key]).parse().unwrap()))
        .collect();
    found.sort();
    found
}
