//! `verify redis --repair`: it writes what a dry run has shown and nothing else, and refuses everything it was not shown.

use crate::verify::{connection, counts, damage, dumped, findings, rebuilt, verify};
use crate::world::World;
use redis::Commands;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

pub(crate) const DRY: [&str; 4] = ["--tier", "full", "--repair", "--dry-run"];
pub(crate) const REPAIR: [&str; 3] = ["--tier", "full", "--repair"];

pub(crate) type Dumped = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

/// Keys that are not the same in both.
pub(crate) fn changed(before: &Dumped, after: &Dumped) -> BTreeSet<String> {
    let keys = before.keys().chain(after.keys());
    let differing = keys.filter(|key| before.get(*key) != after.get(*key));
    differing.map(|key| String::from_utf8(key.clone()).unwrap()).collect()
}

#[test]
fn a_repair_leaves_no_difference_and_touches_no_other_key() {
    let world = rebuilt();
    let mut connection = connection(&world);
    let whole = dumped(&mut connection);
    let expected = damage(&mut connection, 11, 300);
    let damaged = dumped(&mut connection);
    let remove = ["--remove-unexplained", "build:*"];

    // WHEN only shown: nothing is written, and it says what it would do.
    let shown = verify(&world, &[&DRY[..], &remove].concat()).expect(4).summary();
    assert_eq!(findings(&shown, &world), expected);
    assert_eq!(dumped(&mut connection), damaged);
    let is_removed = |key: &str, what: &str| what == "unexplained" && key.starts_with("build:");
    let (remove_count, unexplained) = expected.iter().fold((0, 0), |(named, all), (key, what)| {
        (named + u64::from(is_removed(key, what)), all + u64::from(what == "unexplained"))
    });
    let to_write = expected.len() as u64 - unexplained;
    let repair = &shown["repair"];
    assert_eq!(
        (&repair["to_write"], &repair["to_remove"]),
        (&to_write.into(), &remove_count.into())
    );
    assert_eq!(
        (&repair["left"], &repair["written"]),
        (&(unexplained - remove_count).into(), &0.into())
    );

    // WHEN repaired: what is left are the unexplained keys that nobody named.
    let repaired = verify(&world, &[&REPAIR[..], &remove].concat()).expect(4).summary();
    assert_eq!(repaired["repair"]["written"], to_write);
    assert_eq!(repaired["repair"]["removed"], remove_count);
    assert_eq!(counts(&repaired), [0, 0, 0, unexplained - remove_count]);
    let after = dumped(&mut connection);
    let allowed: BTreeSet<String> = expected
        .iter()
        .filter(|(key, what)| *what != "unexplained" || is_removed(key, what))
        .map(|(key, _)| key.clone())
        .collect();
    assert_eq!(changed(&damaged, &after), allowed);

    // WHEN the rest is named too: the keys are again those of the rebuild, byte by byte.
    let remove = ["--remove-unexplained", "session:*"];
    verify(&world, &[&DRY[..], &remove].concat()).expect(4);
    let repaired = verify(&world, &[&REPAIR[..], &remove].concat()).expect(0).summary();
    assert_eq!((&repaired["status"], counts(&repaired)), (&"pass".into(), [0; 4]));
    let after = dumped(&mut connection);
    assert!(!after.contains_key(&b"rekindle:run"[..]), "the mark stays behind");
    // A dump tells how a hash is encoded, and HSET may encode it otherwise than RESTORE: the values decide.
    assert_eq!(after.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    verify(&world, &["--tier", "full"]).expect(0);
}

#[test]
fn what_a_dry_run_has_not_shown_is_refused_and_nothing_is_written() {
    let world = rebuilt();
    let mut connection = connection(&world);
    let _: u64 = connection.del("build:7").unwrap();
    let before = dumped(&mut connection);
    let refuse = |more: &[&str], says: &str| {
        let dry = "hint: rekindle verify redis --tier full --repair --dry-run";
        verify(&world, more).expect(2).says(&[says, dry]);
    };
    refuse(&REPAIR, "--repair writes only what a dry run has shown, and there was none");
    verify(&world, &DRY).expect(4);
    refuse(
        &["--tier", "full", "--repair", "--remove-unexplained", "build:1"],
        "the last dry run was asked for something else: --remove-unexplained",
    );
    refuse(&["--tier", "full", "--repair", "--route", "builds"], "something else: --route");
    verify(&world, &["--tier", "count", "--repair"]).expect(2).says(&[
        "something else: --tier",
        "hint: rekindle verify redis --tier count --repair --dry-run",
    ]);
    // A plain verification in between does not void it, another list does.
    verify(&world, &["--tier", "full"]).expect(4);
    let list = world.state().join("verify").join("dry-run.jsonl");
    let shown = fs::read_to_string(&list).unwrap();
    fs::write(&list, shown.replace("build:7", "build:8")).unwrap();
    refuse(&REPAIR, "is not what the dry run has left");
    fs::write(&list, shown).unwrap();
    assert_eq!(dumped(&mut connection), before);

    verify(&world, &REPAIR).expect(0);
    assert!(connection.exists::<_, bool>("build:7").unwrap());
    // It counts once.
    refuse(&REPAIR, "there was none");
}

#[test]
fn a_repair_looks_again_before_it_writes() {
    let world = rebuilt();
    let mut connection = connection(&world);
    let _: u64 = connection.del(&["build:1", "build:2", "build:3"]).unwrap();
    let _: u64 = connection.hset("build:4", "status", "wrong").unwrap();
    let _: () = connection.set("build:x", "1").unwrap();
    let remove = ["--remove-unexplained", "build:x"];
    verify(&world, &[&DRY[..], &remove].concat()).expect(4);
    // Meanwhile the application mended one key, changed a row and its key, and deleted a row; one is still missing.
    let _: u64 = connection.hset("build:4", "status", "ok").unwrap();
    world.sql("update builds set status = 'new' where id = 2; delete from builds where id = 3; insert into users values ('x', 'y')");
    world.sql("create table x_builds as select * from builds limit 0");
    let repaired = verify(&world, &[&REPAIR[..], &remove].concat()).expect(4).summary();
    let repair = &repaired["repair"];
    assert_eq!(
        (&repair["written"], &repair["removed"], &repair["settled"]),
        (&2.into(), &1.into(), &2.into()),
        "{repair:#}"
    );
    let status: String = connection.hget("build:2", "status").unwrap();
    assert_eq!(status, "new");
    assert!(!connection.exists::<_, bool>("build:3").unwrap());
    // The row that came meanwhile was in no dry run: found, named, and left for the next one.
    assert_eq!(counts(&repaired), [1, 0, 0, 0]);
    assert!(!connection.exists::<_, bool>("user:x").unwrap());
}

#[test]
fn a_redis_that_lost_everything_is_filled_again() {
    let world = rebuilt();
    let mut connection = connection(&world);
    let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    let shown = verify(&world, &DRY).expect(4).summary();
    assert_eq!((counts(&shown), &shown["settled"]), ([9_000, 0, 0, 0], &0.into()));
    assert_eq!(findings(&shown, &world).len(), 9_000);
    assert_eq!(shown["routes"][0]["examples"].as_array().unwrap().len(), 5);
    let done = verify(&world, &REPAIR).expect(0).summary();
    assert_eq!((&done["repair"]["written"], counts(&done)), (&9_000.into(), [0; 4]));
}

#[test]
fn a_key_that_outlives_its_row_is_removed_by_a_repair() {
    let world = rebuilt();
    let mut connection = connection(&world);
    let id = world.sql("select id from sessions where until is not null order by id limit 1");
    let key = format!("session:{id}");
    let _: bool = connection.persist(&key).unwrap();
    world
        .sql(&format!("update sessions set until = now() - interval '1 minute' where id = '{id}'"));
    let shown = verify(&world, &DRY).expect(4).summary();
    assert_eq!(findings(&shown, &world), [(key.clone(), "expiry".to_owned())].into());
    let repaired = verify(&world, &REPAIR).expect(0).summary();
    assert_eq!((&repaired["repair"]["removed"], &repaired["expired"]), (&1.into(), &1.into()));
    assert!(!connection.exists::<_, bool>(&key).unwrap());
}

#[test]
fn a_run_that_writes_to_the_target_is_not_disturbed() {
    let world = World::new();
    world.sql("create table t (id int primary key, v text); insert into t values (1, 'a')");
    world.plan(
        "[[route]]\nname = \"t\"\ntable = \"alloydb:t\"\nkey = \"t:{id}\"\ntype = \"hash\"\n",
    );
    world.redis(&["SET", "rekindle:run", "0198-dead host=b pid=7"]);
    verify(&world, &["--tier", "full"]).expect(8).says(&[
        "is being written by another run: 0198-dead host=b pid=7",
        "rekindle verify redis --take-over 0198-dead",
    ]);
    let taken = verify(&world, &["--tier", "full", "--take-over", "0198-dead"]);
    assert_eq!(counts(&taken.expect(4).summary()), [1, 0, 0, 0]);
    assert_eq!(world.redis(&["EXISTS", "rekindle:run"]), "0");
}
