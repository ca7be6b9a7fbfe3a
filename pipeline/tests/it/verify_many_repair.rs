//! `verify redis --repair` of keys that many rows make: those that differ are written whole, in one step, and no other.

use crate::items::{Reply, Wire};
use crate::many::{BUILDS, assert_held, every_layout, held, route, wanted};
use crate::verify::{connection, counts, dumped, findings, verify, verify_words};
use crate::verify_repair::{DRY, REPAIR, changed};
use crate::world::{Ran, World};
use std::collections::BTreeSet;
use std::process::Stdio;

#[test]
fn a_repair_writes_keys_whole_in_one_step_and_touches_no_other() {
    let world = World::new();
    world.sql(BUILDS);
    world.plan(&every_layout());
    world.rebuild(&[]).expect(0);
    // GIVEN damage of every kind, in keys of 30,000 rows and in small ones, one of them in a collation of its own
    let first = |key: &str| held(&world)[key][0].clone();
    let field = |key: &str| first(key).split('|').next().unwrap().to_owned();
    world.redis(&["SREM", "authors:1", &first("authors:1")]);
    world.redis(&["SADD", "{all}:authors", "nobody"]);
    world.redis(&["ZINCRBY", "repo:1:builds", "0.5", &field("repo:1:builds")]);
    world.redis(&["ZREM", "repo:9:builds", &field("repo:9:builds")]);
    world.redis(&["HSET", "statuses:1", &field("statuses:1"), "another"]);
    world.redis(&["LTRIM", "latest:1", "0", "9"]);
    world.redis(&["LMOVE", "latest:5", "latest:5", "LEFT", "RIGHT"]);
    world.redis(&["RPUSH", "author:w7", "x"]);
    world.redis(&["DEL", "latest:3"]);
    world.redis(&["DEL", "authors:7"]);
    world.redis(&["SET", "authors:7", "x"]);
    world.redis(&["EXPIRE", "statuses:4", "1000"]);
    world.redis(&["SADD", "authors:999999", "nobody"]);
    let mut connection = connection(&world);
    let damaged = dumped(&mut connection);
    // WHEN only shown THEN nothing is written
    let shown = verify(&world, &DRY).expect(4).summary();
    assert_eq!(dumped(&mut connection), damaged);
    assert_eq!((&shown["repair"]["to_write"], &shown["repair"]["left"]), (&11.into(), &1.into()));
    let named: BTreeSet<String> = findings(&shown, &world).into_keys().collect();
    // WHEN repaired, with somebody looking at a large key all the time
    let mut child = world
        .command(&verify_words(&REPAIR))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut wire = Wire::open(&world);
    let mut lengths = BTreeSet::new();
    while child.try_wait().unwrap().is_none() {
        match wire.ask(&["LLEN", "latest:1"]) {
            Reply::Number(length) => lengths.insert(length),
            other => panic!("{other:?}"),
        };
    }
    let repaired = Ran::of(&child.wait_with_output().unwrap()).expect(4).summary();
    assert_eq!(lengths, [10, 30_000].into());
    // THEN nothing differs but the key that nobody named, and no other key was touched
    assert_eq!((&repaired["repair"]["written"], counts(&repaired)), (&11.into(), [0, 0, 0, 1]));
    let mut allowed = named;
    assert!(allowed.remove("authors:999999"));
    assert_eq!(changed(&damaged, &dumped(&mut connection)), allowed);
    let mut wanted = wanted(&world);
    wanted.insert("authors:999999".to_owned(), vec!["nobody".to_owned()]);
    assert_held(&world, &wanted);
    assert_eq!(world.redis(&["TTL", "statuses:4"]), "-1");
    // WHEN it is named too, it goes
    let remove = ["--remove-unexplained", "authors:999999"];
    verify(&world, &[&DRY[..], &remove].concat()).expect(4);
    verify(&world, &[&REPAIR[..], &remove].concat()).expect(0);
    assert_eq!(world.redis(&["EXISTS", "authors:999999"]), "0");
}

#[test]
fn a_repair_of_many_rows_looks_again_keeps_what_is_kept_and_sets_expiries() {
    // GIVEN keys that cannot be found by value, one of which spans batches, and a route that keeps keys
    let world = World::new();
    world.sql(
        "create table t (day date, k int, m text, until timestamptz, primary key (day, m)); \
         insert into t select date '2024-01-01' + (case when n % 2 = 0 then 0 else n % 50 end), n % 50, 'padding-padding-padding-padding-' || n, \
         timestamptz '2090-01-01Z' + n % 50 * interval '1 hour' from generate_series(1, 20000) n; \
         update t set until = '2020-01-01Z' where day = '2024-01-10'",
    );
    let of_table = |text: String| text.replace("alloydb:builds", "alloydb:t");
    world.plan(&of_table(
        [
            route("days", "set", "day:{day}", "{m}", "expire_at = \"until\""),
            route("kept", "list", "kept:{k}", "{m}", "order_by = \"m\"\non_conflict = \"keep\""),
        ]
        .concat(),
    ));
    world.redis(&["SET", "kept:7", "the application's"]);
    world.rebuild(&[]).expect(0);
    let whole = held(&world);
    let due = world.redis(&["PEXPIRETIME", "day:2024-01-01"]);
    // WHEN keys are lost, or live too long
    for key in ["day:2024-01-01", "day:2024-01-04", "kept:8", "kept:9"] {
        world.redis(&["DEL", key]);
    }
    world.redis(&["PERSIST", "day:2024-01-06"]);
    world.redis(&["SADD", "day:2024-01-10", "of rows that have expired"]);
    let shown = verify(&world, &DRY).expect(4).summary();
    assert_eq!((&shown["repair"]["to_write"], &shown["repair"]["left"]), (&5.into(), &1.into()));
    // AND before the repair, a row changes, a whole key vanishes, and the application writes one that is kept
    world.sql("update t set m = 'new' where m = (select min(m) from t where day = '2024-01-06')");
    world.sql("delete from t where day = '2024-01-04'");
    world.redis(&["RPUSH", "kept:9", "the application's"]);
    let repaired = verify(&world, &REPAIR).expect(4).summary();
    // THEN what still differs holds its rows of now, with their expiry; the rest is as it was
    let done = &repaired["repair"];
    assert_eq!((&done["written"], &done["settled"]), (&3.into(), &2.into()), "{done}");
    let mut wanted = whole;
    wanted.remove("day:2024-01-04");
    wanted.insert("kept:9".to_owned(), vec!["the application's".to_owned()]);
    wanted.insert("day:2024-01-10".to_owned(), vec!["of rows that have expired".to_owned()]);
    let mut members: Vec<String> =
        world.sql("select m from t where day = '2024-01-06'").lines().map(str::to_owned).collect();
    members.sort();
    assert!(members.contains(&"new".to_owned()));
    wanted.insert("day:2024-01-06".to_owned(), members);
    // The row that changed is an element of a key that is kept, which keeps its older one.
    assert_held(&world, &wanted);
    assert_eq!(world.redis(&["PEXPIRETIME", "day:2024-01-01"]), due);
    assert_ne!(world.redis(&["PEXPIRETIME", "day:2024-01-06"]), "-1");
    // The key of expired rows, and that of kept:3, whose rows were those of the day that vanished.
    assert_eq!(counts(&repaired), [0, 0, 0, 2]);
}
