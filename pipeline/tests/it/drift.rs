//! Tables that change their shape between two runs, between a killed run and the one that continues it, and during one.
//!
//! Invariant: whatever is refused leaves Redis and the journal as they were; rows of two shapes never meet in one run.

use crate::items::{ROWS, Wire, calls, held_with, killed, signal, standing};
use crate::world::{Ran, World, wait_until};
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

/// What the journal says of the last run.
fn journaled(world: &World) -> [Value; 4] {
    let standing = standing(world);
    ["run_id", "status", "attempts", "rows"].map(|field| standing[field].clone())
}

/// What Redis and the journal hold, to see that neither was changed.
fn stored(world: &World) -> (Vec<String>, [Value; 4]) {
    let mut everything: Vec<String> =
        Wire::open(world).everything().iter().map(|entry| format!("{entry:?}")).collect();
    everything.sort();
    (everything, journaled(world))
}

fn drift_of(summary: &Value) -> Vec<String> {
    let entries = summary["drift"].as_array().cloned().unwrap_or_default();
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    entries.iter().map(|entry| [word(entry, "column"), word(entry, "change")].join(" ")).collect()
}

#[test]
fn a_new_run_tells_what_changed_since_the_last_one_and_refuses_what_changes_values() {
    // GIVEN a run that is done
    let world = small();
    world.rebuild(&[]).expect(0);
    for Change { sql, back, says, is_harmless } in CHANGES {
        let before = stored(&world);
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
        // AND whoever starts over takes the table as it is
        let ran = world.run(&["rebuild", "redis", "--json", "--progress", "none", "--fresh"]);
        assert!(drift_of(&ran.expect(0).summary()).is_empty(), "{sql}");
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

/// A table of as many rows as it takes to change it while a run reads them, and what was done to it since.
fn filled(then: &str) -> World {
    let world = World::new();
    world.sql(&format!(
        "create table items (id bigint primary key, a text not null, b int, c varchar(10));
         insert into items select i, repeat(md5(i::text), 1 + i % 3), i, 'c' || i from generate_series(1, {ROWS}) i"
    ));
    world.sql("vacuum analyze items");
    if !then.is_empty() {
        world.sql(then);
    }
    world.plan(&reads(""));
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
    let world = filled("");
    killed(&world, 40);
    let mut wire = Wire::open(&world);
    let before = (journaled(&world), wire.dbsize(), writes(&world));
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
            assert_eq!((journaled(&world), wire.dbsize(), writes(&world)), before, "{sql}");
        }
        world.sql(back);
    }
    // AND with warn it goes on where the route writes what it wrote before
    world.sql("alter table items add extra text; alter table items alter c type varchar(20)");
    world.sql("alter table items alter b type bigint");
    world.plan(&reads("on_drift = \"warn\"\n"));
    let summary = world.rebuild(&[]).expect(0).says(&["column extra was added"]).summary();
    assert_eq!(summary["resumed"], 1, "{summary}");
    let expected = ["b retyped", "c retyped", "extra added"];
    assert_eq!(drift_of(&summary), expected, "{summary}");
    assert_rows(&world);
}

/// Changes the table while a run stands still, or as soon as its reads let go of it, lets the run go on, and returns
/// how it ended.
fn changed_in_mid_run(world: &World, sql: &str) -> Ran {
    // Slow enough that the change always comes in the middle.
    let child = held_with(world, 10, &["--max-rows-per-second", "40000"]);
    std::thread::scope(|scope| {
        let change = scope.spawn(|| world.sql(sql));
        let waits =
            "select count(*) from pg_locks where not granted and relation = 'items'::regclass";
        wait_until("the change", || change.is_finished() || world.sql(waits) != "0");
        signal(&child, Signal::SIGCONT);
    });
    Ran::of(&child.wait_with_output().unwrap())
}

#[test]
fn a_column_added_in_mid_run_stops_it_or_is_told_and_a_retyped_one_always_stops_it() {
    let world = filled("");
    // GIVEN a run that warns WHEN a column is added THEN it is told, and every row is there
    world.plan(&reads("on_drift = \"warn\"\n"));
    let ran = changed_in_mid_run(&world, "alter table items add extra text default 'e'");
    let summary = ran.expect(0).says(&["column extra was added (text)"]).summary();
    assert_eq!(drift_of(&summary), ["extra added"], "{summary}");
    assert_rows(&world);
    // GIVEN one that does not WHEN another is added THEN it stops, and goes on where it stood once it may
    world.redis(&["FLUSHALL"]);
    world.plan(&reads(""));
    changed_in_mid_run(&world, "alter table items add other text").expect(2).says(&[
        "the schema of the source changed during the run",
        "route items, public.items: column other was added (text)",
        "on_drift = \"warn\"",
    ]);
    world.plan(&reads("on_drift = \"warn\"\n"));
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["resumed"], drift_of(&summary)), (&1.into(), vec!["other added".into()]));
    assert_rows(&world);
    // WHEN a column that it reads gets a wider type THEN it stops: rows arrive otherwise than it began to read them
    world.redis(&["FLUSHALL"]);
    changed_in_mid_run(&world, "alter table items alter b type bigint").expect(2).says(&[
        "the schema of the source changed during the run",
        "column b has another type: integer -> bigint",
    ]);
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["resumed"], drift_of(&summary)), (&1.into(), vec!["b retyped".into()]));
    assert_rows(&world);
}

#[test]
fn a_table_rewritten_in_mid_run_is_read_from_its_start() {
    // GIVEN a table that a rewrite would make smaller
    let world = filled("delete from items where id % 10 = 0");
    // WHEN every row moves while a run reads them THEN the run starts the route over, and misses none
    let ran = changed_in_mid_run(&world, "vacuum full items").expect(0);
    let summary = ran.summary();
    let warning = summary["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("was rewritten or made anew while it was read"), "{summary}");
    assert_rows(&world);
    // AND so it is when all rows are others, which look like none to the snapshot that it reads in
    world.redis(&["FLUSHALL"]);
    let ran = changed_in_mid_run(
        &world,
        "begin; truncate items; insert into items select i, 'new', i, null from generate_series(1, 90000) i; commit",
    );
    ran.expect(0);
    assert_rows(&world);
    assert_eq!(world.redis(&["HGET", "item:3", "a"]), "new");
}
