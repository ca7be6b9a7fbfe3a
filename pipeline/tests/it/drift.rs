//! Tables that change their shape between two runs, between a killed run and the one that continues it, and during one.
//!
//! Invariant: whatever is refused leaves Redis and the journal as they were; rows of two shapes never meet in one run.

use crate::items::{ROWS, Wire, calls, held, killed, signal, standing};
use crate::world::{Ran, World};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The route over the columns `a` and `b`, with more fields.
fn reads(more: &str) -> String {
    format!(
        "[[route]]\nname = \"items\"\ntable = \"alloydb:public.items\"\nkey = \"item:{{id}}\"\ntype = \"hash\"\n\
         columns = [\"a\", \"b\"]\n{more}"
    )
}

/// What changes, how it is taken back, the words of the diff, and whether the route still writes what it wrote.
struct Change {
    sql: &'static str,
    back: &'static str,
    says: &'static str,
    is_harmless: bool,
}

const fn change(
    sql: &'static str,
    back: &'static str,
    says: &'static str,
    is_harmless: bool,
) -> Change {
    Change { sql, back, says, is_harmless }
}

/// Changes of a table `items (id bigint primary key, a text not null, b int, c varchar(10))`.
const CHANGES: [Change; 12] = [
    change(
        "alter table items add extra text",
        "alter table items drop extra",
        "column extra was added (text)",
        true,
    ),
    change(
        "alter table items alter c type varchar(20)",
        "alter table items alter c type varchar(10)",
        "column c has another type: character varying(10) -> character varying(20)",
        true,
    ),
    change(
        "alter table items rename c to d",
        "alter table items rename d to c",
        "column c was renamed to d",
        true,
    ),
    change(
        "alter table items alter a drop not null",
        "alter table items alter a set not null",
        "column a may be null now",
        true,
    ),
    change(
        "alter table items alter b type bigint",
        "alter table items alter b type int",
        "column b has another type: integer -> bigint",
        true,
    ),
    change(
        "alter table items alter b type text",
        "alter table items alter b type int using b::int",
        "column b has another type: integer -> text",
        false,
    ),
    change(
        "alter table items rename b to n",
        "alter table items rename n to b",
        "column b was renamed to n",
        false,
    ),
    change(
        "alter table items rename a to x; alter table items rename c to a; alter table items rename x to c",
        "alter table items rename a to x; alter table items rename c to a; alter table items rename x to c",
        "column a was renamed to c",
        false,
    ),
    change(
        "alter table items drop constraint items_pkey",
        "alter table items add primary key (id)",
        "no primary key or unique index proves id unique any more",
        false,
    ),
    change(
        "alter table items rename id to no",
        "alter table items rename no to id",
        "column id was renamed to no",
        false,
    ),
    change("alter table items drop c", "", "column c was dropped (character varying(10))", true),
    change(
        "alter table items drop b; alter table items add b real default 1",
        "",
        "column b was dropped and added again: integer -> real",
        false,
    ),
];

fn small() -> World {
    let world = World::new();
    world.sql(
        "create table items (id bigint primary key, a text not null, b int, c varchar(10));
         insert into items select i, 'a' || i, i, 'c' || i from generate_series(1, 50) i;
         vacuum analyze items",
    );
    world.plan(&reads(""));
    world
}

/// What Redis and the journal hold, to see that neither was changed.
fn stored(world: &World) -> (Vec<String>, Value) {
    let mut everything: Vec<String> =
        Wire::open(world).everything().iter().map(|entry| format!("{entry:?}")).collect();
    everything.sort();
    (everything, standing(world))
}

fn drift_of(summary: &Value) -> Vec<String> {
    let entries = summary["drift"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| format!("{} {}", entry["column"], entry["change"])).collect()
}

#[test]
fn a_new_run_tells_what_changed_since_the_last_one_and_refuses_what_changes_values() {
    // GIVEN a run that is done
    let world = small();
    world.rebuild(&[]).expect(0);
    for Change { sql, back, says, is_harmless } in CHANGES {
        let before = stored(&world);
        let warns = format!("warns {sql}");
        world.sql(sql);
        // WHEN the table changed THEN what writes other values is refused and stores nothing
        if is_harmless {
            let ran = world.rebuild(&[]).expect(0).says(&[says, "writes what it wrote before"]);
            assert_eq!(drift_of(&ran.summary()).len(), 1, "{sql}: {}", ran.summary());
            assert_eq!(stored(&world).0, before.0, "{sql}");
        } else {
            world.rebuild(&[]).expect(2).says(&["route items, public.items: ", says, "--fresh"]);
            assert_eq!(stored(&world), before, "{sql}");
        }
        if back.is_empty() {
            continue;
        }
        world.sql(back);
        // AND a change that is taken back is none, or is told again
        let ran = world.run(&["rebuild", "redis", "--json", "--progress", "none", "--fresh"]);
        assert_eq!(drift_of(&ran.expect(0).summary()), [String::new(); 0], "{warns}");
    }
}

#[test]
fn with_warn_a_new_run_goes_on_with_other_values_and_the_next_one_knows_them() {
    // GIVEN a run that is done, and a plan that warns
    let world = small();
    world.plan(&reads("on_drift = \"warn\"\n"));
    world.rebuild(&[]).expect(0);
    // WHEN a column that the route reads has another type THEN it is told, and written
    world.sql("alter table items alter b type text using 'b' || b");
    let ran = world.rebuild(&[]).expect(0).says(&["integer -> text", "written otherwise"]);
    let summary = ran.summary();
    assert_eq!(summary["drift"][0]["changes_values"], true, "{summary}");
    assert_eq!(world.redis(&["HGET", "item:7", "b"]), "b7");
    // AND it is told once
    let summary = world.rebuild(&[]).expect(0).summary();
    assert!(drift_of(&summary).is_empty(), "{summary}");
    // AND a route that was changed in the plan is not compared
    world.sql("alter table items add extra text default 'e'");
    world.plan(&reads("").replace("\"b\"]", "\"b\", \"extra\"]"));
    let summary = world.rebuild(&[]).expect(0).summary();
    assert!(drift_of(&summary).is_empty(), "{summary}");
    assert_eq!(world.redis(&["HGET", "item:7", "extra"]), "e");
}

/// A killed run of a table of as many rows as a kill needs.
fn interrupted() -> World {
    let world = World::new();
    world.sql(&format!(
        "create table items (id bigint primary key, a text not null, b int, c varchar(10));
         insert into items select i, repeat(md5(i::text), 1 + i % 3), i, 'c' || i from generate_series(1, {ROWS}) i;
         vacuum analyze items"
    ));
    world.plan(&reads(""));
    killed(&world, 40);
    world
}

/// Commands that wrote hashes.
fn writes(world: &World) -> u64 {
    calls(world, "hset") + calls(world, "restore")
}

/// Asserts that every row is there as SQL reads it, with the field `b`.
#[track_caller]
fn assert_rows(world: &World) {
    let rows = world.sql("select count(*), sum(b::int8) from items");
    let found = Wire::open(world).everything();
    let sum: i64 = found.values().filter_map(|fields| fields.get("b")?.parse::<i64>().ok()).sum();
    assert_eq!(rows, format!("{}|{sum}", found.len()));
}

#[test]
fn a_resumed_run_refuses_every_change_and_with_warn_only_what_changes_values() {
    // GIVEN a killed run
    let world = interrupted();
    let mut wire = Wire::open(&world);
    let before = (standing(&world), wire.dbsize(), writes(&world));
    // WHEN the table changes THEN it is refused, and stays as it was, until the change is taken back
    for Change { sql, back, says, is_harmless } in
        CHANGES.into_iter().filter(|c| !c.back.is_empty())
    {
        world.sql(sql);
        for on_drift in ["", "on_drift = \"warn\"\n"] {
            if is_harmless && !on_drift.is_empty() {
                continue;
            }
            world.plan(&reads(on_drift));
            let hint = if is_harmless { "on_drift = \"warn\"" } else { "--fresh" };
            world.rebuild(&[]).expect(2).says(&["route items, public.items: ", says, hint]);
            assert_eq!((standing(&world), wire.dbsize(), writes(&world)), before, "{sql}");
        }
        world.sql(back);
    }
    // AND with warn it goes on where the route writes what it wrote before
    world.sql("alter table items add extra text; alter table items alter c type varchar(20)");
    world.sql("alter table items alter b type bigint");
    world.plan(&reads("on_drift = \"warn\"\n"));
    let summary = world.rebuild(&[]).expect(0).says(&["column extra was added"]).summary();
    assert_eq!(summary["resumed"], 1, "{summary}");
    let expected = ["\"b\" \"retyped\"", "\"c\" \"retyped\"", "\"extra\" \"added\""];
    assert_eq!(drift_of(&summary), expected, "{summary}");
    assert_rows(&world);
}
