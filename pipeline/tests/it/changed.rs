//! Sources that change between a killed run and the one that continues it.
//!
//! Invariant: the resumed run leaves the source as it is now: nothing stale, nothing missing, nothing left over.

use crate::carried::route;
use crate::items::{HASH, ROWS, assert_complete, existing, filled, held, killed, resumed, signal};
use crate::world::{Ran, World};
use nix::sys::signal::Signal;
use stages::failpoint::{Point, VARIABLE};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;

/// Changes a tenth of the rows, adds some and deletes some; the ids that are deleted all hold `id % 50 = 1`.
const CHANGES: &str = "update items set a = 'changed ' || id, b = null, c = null where id % 10 = 3;
    delete from items where id % 50 = 1;
    insert into items select i, 'new', i, null from generate_series(1000001, 1000500) i;";

/// Keys of `ids` that Redis holds.
fn written(world: &World, ids: &str) -> BTreeSet<String> {
    let keys: Vec<String> = world.sql(ids).lines().map(|id| format!("item:{id}")).collect();
    existing(world, &keys)
}

/// Resumes, and asserts that keys that were written and are gone were counted and named.
fn resumed_without(world: &World, gone: &BTreeSet<String>) {
    let summary = resumed(world);
    let dropped = summary["dropped_keys"].as_u64().unwrap();
    assert!(!gone.is_empty() && dropped >= gone.len() as u64, "{} gone, {summary}", gone.len());
    let warning = summary["warnings"][0].as_str().unwrap();
    assert!(warning.contains(&format!("{dropped} keys")), "{warning}");
    let path = world.folder.path().join(warning.rsplit("named in ").next().unwrap());
    let named = fs::read_to_string(&path).unwrap();
    let named: BTreeSet<String> = named.lines().map(str::to_owned).collect();
    assert_eq!(named.len() as u64, dropped, "{}", path.display());
    assert!(gone.is_subset(&named), "{:?}", gone.difference(&named).take(3).collect::<Vec<_>>());
}

#[test]
fn rows_changed_between_kill_and_resume_end_as_the_source_is() {
    // GIVEN a killed run
    let world = filled();
    killed(&world, 60);
    let gone = written(&world, "select id from items where id % 50 = 1");
    // WHEN rows change while no run is there THEN the resumed one goes on in the same cut, and ends right
    world.sql(CHANGES);
    resumed_without(&world, &gone);
}

#[test]
fn rows_changed_and_a_table_rewritten_between_kill_and_resume_end_as_the_source_is() {
    // GIVEN a killed run
    let world = filled();
    killed(&world, 60);
    let gone = written(&world, "select id from items where id % 50 = 1");
    // WHEN rows change and every row moves THEN the resumed run ends right
    world.sql(CHANGES);
    world.sql("vacuum full items");
    resumed_without(&world, &gone);
}

#[test]
fn rows_that_get_another_key_between_kill_and_resume_leave_no_old_key() {
    // GIVEN a killed run
    let world = filled();
    killed(&world, 60);
    let gone = written(&world, "select id from items where id % 20 = 0");
    // WHEN rows get another key THEN the old key is gone and the new one is there
    world.sql(&format!("update items set id = id + {} where id % 20 = 0", ROWS * 2));
    resumed_without(&world, &gone);
}

#[test]
fn rows_deleted_and_vacuumed_whose_places_are_taken_by_others_end_as_the_source_is() {
    // GIVEN a killed run
    let world = filled();
    killed(&world, 60);
    let gone = written(&world, "select id from items where id % 4 = 1");
    // WHEN new rows move into the places of deleted ones, in ranges that were read and in others
    world.sql("delete from items where id % 4 = 1");
    world.sql("vacuum items");
    world.sql("insert into items select i, md5(i::text), i, null from generate_series(1000001, 1040000) i");
    // THEN both are noticed
    resumed_without(&world, &gone);
}

#[test]
fn rows_that_change_back_and_forth_over_several_kills_end_as_the_source_is() {
    // GIVEN a run killed twice, with changes after each
    let world = filled();
    killed(&world, 10);
    world.sql("update items set b = null where id % 10 = 3; delete from items where id % 50 = 1");
    killed(&world, 70);
    world.sql("update items set c = null where id % 10 = 4; insert into items values (1, 'back', 1, now())");
    // WHEN it is resumed THEN it ends as the source is
    world.plan(HASH);
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["resumed"], 2, "{summary}");
    assert!(summary["dropped_keys"].as_u64() > Some(0), "{summary}");
    assert_complete(&world);
}

#[test]
fn rows_deleted_after_a_read_back_found_a_difference_leave_no_key_behind() {
    // GIVEN a run whose read-back misses a key that somebody removed while it was at work
    let world = filled();
    let child = held(&world, 60);
    let written_keys = written(&world, "select id from items where id % 50 = 1");
    let removed = written_keys.first().expect("a key at 60 %").clone();
    assert_eq!(world.redis(&["DEL", &removed]), "1");
    signal(&child, Signal::SIGCONT);
    let ran = Ran::of(&child.wait_with_output().unwrap()).expect(4).says(&[&removed]);
    assert_eq!(ran.summary()["status"], "failed");
    // WHEN rows are deleted before it is resumed
    let gone = written(&world, "select id from items where id % 50 = 1");
    assert!(gone.len() as u64 >= ROWS / 50 - 1, "{}", gone.len());
    world.sql("delete from items where id % 50 = 1");
    // THEN the resumed run writes what was missing and removes what has no row any more.
    resumed_without(&world, &gone);
}

#[test]
fn a_key_that_was_listed_and_never_sent_is_not_missed_when_its_row_becomes_a_reject() {
    let world = World::new();
    world.sql(
        "create table notes (id bigint primary key, body text); \
         insert into notes select i, 'note' from generate_series(1, 100) i",
    );
    world.plan(&route("notes", "hash", "null = \"error\"\nrejects_max = \"100%\""));
    // GIVEN a run that died when its keys were in the ledger, and none of them in Redis
    let words = ["rebuild", "redis", "--progress", "none"];
    let died = world.command(&words).env(VARIABLE, Point::KeysListed.name()).output().unwrap();
    assert_eq!(died.status.signal(), Some(9), "{died:?}");
    assert!(existing(&world, &["notes-hash:7".to_owned()]).is_empty());
    // WHEN one of the rows becomes a reject, and another one is deleted
    world.sql("update notes set body = null where id = 7; delete from notes where id = 8");
    // THEN nothing is missing
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["status"], "done", "{summary}");
    // The changed row may be read once more behind the partitions.
    assert!(summary["rejects"].as_u64().is_some_and(|rejects| rejects >= 1), "{summary}");
    assert_eq!(world.redis(&["DBSIZE"]), "98");
}
