//! `verify redis` and newer versions on documents: every planted damage is named and repaired, and what only looks
//! different is not.

use crate::carried::route;
use crate::documents::world;
use crate::verify::{connection, counts, findings, verify};
use crate::world::World;
use std::collections::BTreeMap;

const ROWS: &str = r"create table docs (id int primary key, n numeric, meta jsonb, until timestamptz);
    insert into docs select i, i / 100.0, jsonb_build_object('i', i, 'deep', jsonb_build_array(i, null, 'é' || i)),
        case when i % 2 = 0 then timestamptz '2090-01-01Z' end from generate_series(1, 400) i;";

fn rebuilt() -> World {
    let world = world();
    world.sql(ROWS);
    let more = "columns = [\"n\", \"meta\"]\nexpire_at = \"until\"\n";
    world.plan(&route("docs", "redisjson", more).replace("docs-redisjson", "doc"));
    world.rebuild(&[]).expect(0);
    world
}

/// Damages keys; returns what has to be named.
fn damaged(world: &World) -> BTreeMap<String, String> {
    let mut connection = connection(world);
    let mut named = BTreeMap::new();
    let mut run = |words: &[&str], finding: Option<&str>| {
        let mut command = redis::cmd(words[0]);
        let _: redis::Value = command.arg(&words[1..]).query(&mut connection).unwrap();
        if let Some(finding) = finding {
            named.insert(words[1].to_owned(), finding.to_owned());
        }
    };
    // What the module gives back in another form is the same document.
    run(
        &["JSON.SET", "doc:1", "$", r#"{"meta":{"deep":[1.0,null,"\u00e91"],"i":1},"n":1e-2}"#],
        None,
    );
    run(&["DEL", "doc:3"], Some("missing"));
    run(&["JSON.SET", "doc:5", "$.n", "0.06"], Some("value"));
    run(&["JSON.SET", "doc:7", "$.extra", "1"], Some("value"));
    run(&["JSON.DEL", "doc:9", "$.meta.i"], Some("value"));
    run(&["JSON.ARRINSERT", "doc:11", "$.meta.deep", "0", "null"], Some("value"));
    run(&["JSON.SET", "doc:13", "$.meta.deep[2]", "\"e13\""], Some("value"));
    run(&["SET", "doc:15", r#"{"n":0.15,"meta":{"i":15,"deep":[15,null,"é15"]}}"#], Some("value"));
    run(&["PERSIST", "doc:2"], Some("expiry"));
    run(&["EXPIRE", "doc:17", "100000"], Some("expiry"));
    run(&["PEXPIREAT", "doc:4", "3786912009000"], Some("expiry"));
    run(&["JSON.SET", "doc:x", "$", "{}"], Some("unexplained"));
    named
}

#[test]
fn planted_damage_is_named_at_every_tier_and_repaired() {
    let world = rebuilt();
    for tier in ["count", "sample", "full"] {
        verify(&world, &["--tier", tier]).expect(0);
    }
    let named = damaged(&world);
    let found = verify(&world, &["--tier", "full"]).expect(4).summary();
    assert_eq!(findings(&found, &world), named);
    assert_eq!(counts(&found), [1, 6, 3, 1]);
    assert_eq!(verify(&world, &["--tier", "count"]).expect(4).summary()["missing"], 1);
    let sampled = verify(&world, &["--tier", "sample", "--sample", "400"]).expect(4).summary();
    assert_eq!((&sampled["missing"], &sampled["different_value"]), (&1.into(), &6.into()));
    let to_write = named.len() - 1;
    // WHEN it is repaired THEN what it was not asked to remove is left, and nothing else
    let dry = ["--tier", "full", "--repair", "--dry-run", "--remove-unexplained", "doc:x"];
    verify(&world, &dry).expect(4);
    let repair = ["--tier", "full", "--repair", "--remove-unexplained", "doc:x"];
    let summary = verify(&world, &repair).expect(0).summary();
    assert_eq!(summary["repair"]["written"], to_write, "{summary}");
    assert_eq!(world.redis(&["JSON.GET", "doc:15", "$.meta.deep"]), "[[15,null,\"é15\"]]");
    assert_eq!(world.redis(&["PEXPIRETIME", "doc:4"]), "3786912000000");
    assert_eq!(world.redis(&["TTL", "doc:17"]), "-1");
}

#[test]
fn newer_documents_stay_and_every_other_gives_way() {
    let world = world();
    world.sql(
        "create table ten (id bigint primary key, a text, v bigint, until timestamptz); \
         insert into ten select i, 'a' || i, 9007199254740993, case when i = 7 then timestamptz '2090-01-01Z' end \
         from generate_series(1, 8) i",
    );
    let set =
        |id: u32, document: &str| world.redis(&["JSON.SET", &format!("ten:{id}"), "$", document]);
    set(1, r#"{"v":9007199254740994,"a":"newer"}"#);
    set(2, r#"{"v":9007199254740992,"stale":1}"#);
    world.redis(&["EXPIRE", "ten:2", "1000"]);
    set(3, r#"{"a":"x","v":"9007199254740994"}"#);
    set(4, r#"{"v":null}"#);
    set(5, "[1]");
    world.redis(&["RPUSH", "ten:6", "x"]);
    let more = "on_conflict = \"newest\"\nversion_by = \"v\"\ncolumns = [\"a\", \"v\"]\nexpire_at = \"until\"\n";
    world.plan(&route("ten", "redisjson", more).replace("ten-redisjson", "ten"));
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(
        (&summary["verified"]["newer"], &summary["kept"]),
        (&2.into(), &2.into()),
        "{summary}"
    );
    let get = |id: u32| world.redis(&["JSON.GET", &format!("ten:{id}")]);
    assert_eq!(get(1), r#"{"v":9007199254740994,"a":"newer"}"#);
    assert_eq!(get(3), r#"{"a":"x","v":"9007199254740994"}"#);
    for id in [2, 4, 5, 6, 7, 8] {
        assert_eq!(get(id), format!(r#"{{"a":"a{id}","v":9007199254740993}}"#));
    }
    assert_eq!(
        (world.redis(&["TTL", "ten:2"]), world.redis(&["PEXPIRETIME", "ten:7"])),
        ("-1".into(), "3786912000000".into())
    );
    verify(&world, &["--tier", "full"]).expect(0);
}
