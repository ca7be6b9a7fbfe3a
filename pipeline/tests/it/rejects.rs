//! Rejected rows: kept, listed, sent through their routes again, and deleted when their time has passed.
//!
//! Invariant: what a replay leaves in Redis is what the source holds now, never the row that was rejected.

use crate::bad_input::files;
use crate::items::calls;
use crate::world::{Ran, World, wait_until};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

/// The same table twice: as it is, and beside an application that writes newer versions.
const ROUTES: &str = r#"
[[route]]
name = "users"
table = "alloydb:public.users"
key = "user:{id}"
type = "hash"
null = "error"
columns = ["name", "email"]
[[route]]
name = "live"
table = "alloydb:public.users"
key = "live:{id}"
type = "json"
null = "error"
columns = ["name", "v"]
on_conflict = "newest"
version_by = "v"
"#;

/// Users 3 to 6 have no name.
fn world(routes: &str) -> World {
    let world = World::new();
    world.sql(
        "create table users (id bigint primary key, name text, email text, v bigint not null default 1, code text unique); \
         insert into users select i, 'n' || i, 'secret' || i, 1, 'c' || i from generate_series(1, 50) i; \
         update users set name = null where id between 3 and 6",
    );
    world.plan(routes);
    world
}

fn replay(world: &World, more: &[&str]) -> Ran {
    world.run(&[&["rejects", "replay", "--json", "--settle", "10ms"], more].concat())
}

fn list(world: &World) -> Value {
    let ran = world.run(&["rejects", "list", "--json"]).expect(0);
    assert!(!ran.stdout.contains("secret"), "a value: {}", ran.stdout);
    ran.summary()["runs"].clone()
}

#[track_caller]
fn assert_counts(report: &Value, expected: &[(&str, u64)]) {
    let all =
        ["written", "agreed", "expired", "gone", "rejected", "unidentified", "moving", "differing"];
    for name in all {
        let wanted = expected.iter().find(|(of, _)| *of == name).map_or(0, |(_, rows)| *rows);
        assert_eq!(report[name], wanted, "{name} in {report:#}");
    }
}

#[test]
fn rejected_rows_are_listed_and_replayed_as_the_source_has_them_now() {
    // GIVEN four rows that neither route can carry
    let world = world(ROUTES);
    let summary = world.rebuild(&[]).expect(7).summary();
    assert_eq!((&summary["rejects"], &summary["written"]), (&8.into(), &92.into()));
    let runs = list(&world);
    let (run, routes) = (&runs[0], &runs[0]["routes"]);
    assert_eq!((&run["run_id"], &run["rows"]), (&summary["run_id"], &8.into()), "{run:#}");
    assert_eq!(run["command"], "rebuild redis");
    assert_eq!((&routes[0]["name"], &routes[1]["name"]), (&"live".into(), &"users".into()));
    assert_eq!(routes[1]["reasons"], json!([{"reason": "column name is null", "rows": 4}]));
    let text = world.run(&["rejects", "list"]).expect(0).stdout;
    assert!(text.contains("users: 4 rows") && text.contains(".parquet"), "{text}");
    for path in files(&world.state().join("rejects")) {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // WHEN two rows are mended, of which an application wrote one and a newer version of the other, and one is deleted
    world.sql("update users set name = 'mended' || id, v = 5 where id in (3, 4); delete from users where id = 5");
    world.redis(&["SET", "live:3", r#"{"name":"newer","v":9}"#]);
    world.redis(&["HSET", "user:4", "name", "mended4", "email", "secret4"]);
    let ran = replay(&world, &[]).expect(7);
    // THEN the mended rows are there as they are now, and what is newer stays
    let report = ran.summary();
    assert_counts(&report, &[("written", 2), ("agreed", 2), ("gone", 2), ("rejected", 2)]);
    assert_eq!((&report["status"], &report["is_plan_changed"]), (&"rejects".into(), &false.into()));
    assert_eq!(world.redis(&["HGET", "user:3", "name"]), "mended3");
    assert_eq!(world.redis(&["GET", "live:3"]), r#"{"name":"newer","v":9}"#);
    assert_eq!(world.redis(&["GET", "live:4"]), r#"{"name":"mended4","v":5}"#);
    assert_eq!(world.redis(&["EXISTS", "user:5", "user:6", "rekindle:run"]), "0");
    let run = &list(&world)[0];
    assert_eq!((&run["rows"], &run["rows_done"]), (&2.into(), &8.into()), "{run:#}");

    // WHEN the plan is mended instead of the row
    world.plan(&ROUTES.replace("null = \"error\"", "null = \"empty\""));
    let report = replay(&world, &[]).expect(0).summary();
    // THEN the last one is carried by the plan of now
    assert_counts(&report, &[("written", 2)]);
    assert_eq!((&report["status"], &report["is_plan_changed"]), (&"done".into(), &true.into()));
    assert_eq!(world.redis(&["HGET", "user:6", "email"]), "secret6");
    // AND another replay finds nothing
    let report = replay(&world, &[]).expect(0).summary();
    assert_eq!((&report["run_id"], &report["rows"]), (&Value::Null, &0.into()));
    world.run(&["verify", "redis", "--tier", "full"]).expect(0);
}

#[test]
fn a_key_that_is_being_written_is_left_alone_and_stays_rejected() {
    // GIVEN one mended row, and a replay between its two looks
    let world = world(ROUTES);
    world.rebuild(&["--route", "users"]).expect(7);
    world
        .sql("delete from users where id in (4, 5, 6); update users set name = 'old' where id = 3");
    let before = calls(&world, "hgetall");
    let words = ["rejects", "replay", "--json", "--settle", "3s"];
    let replaying = world.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the first look", || calls(&world, "hgetall") > before);
    // WHEN an application writes its key
    world.redis(&["HSET", "user:3", "name", "of the application"]);
    let ran = Ran::of(&replaying.wait_with_output().unwrap()).expect(7);
    // THEN what it wrote stays, and the next replay sees a key that stands still
    assert_counts(&ran.summary(), &[("moving", 1), ("gone", 3)]);
    assert_eq!(world.redis(&["HGETALL", "user:3"]), "name\nof the application");
    assert_counts(&replay(&world, &[]).expect(0).summary(), &[("written", 1)]);
    assert_eq!(world.redis(&["HGET", "user:3", "name"]), "old");
}

#[test]
fn a_row_without_a_key_is_found_by_its_primary_key_and_one_without_either_stays() {
    // GIVEN a row whose key is null, in a route that reads the primary key and in one that does not
    let route = |name: &str, columns: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\ntable = \"alloydb:public.users\"\nkey = \"{name}:{{code}}\"\n\
             type = \"hash\"\ncolumns = [{columns}]\nrejects_max = 1\n"
        )
    };
    let world =
        world(&format!("{}{}", route("by", "\"id\", \"email\""), route("alone", "\"email\"")));
    world.sql("update users set code = null where id = 9");
    world.rebuild(&[]).expect(0);
    // WHEN it gets its key back
    world.sql("update users set code = 'new' where id = 9");
    let report = replay(&world, &[]).expect(7).summary();
    // THEN it is written where something else tells it from the others
    assert_counts(&report, &[("written", 1), ("unidentified", 1)]);
    assert_eq!(world.redis(&["HGET", "by:new", "id"]), "9");
    assert_eq!(world.redis(&["EXISTS", "alone:new"]), "0");
}

/// The reject files of the only run.
fn reject_files(world: &World) -> Vec<PathBuf> {
    files(&world.state().join("rejects"))
}

#[test]
fn what_cannot_be_replayed_is_refused_before_anything_is_written() {
    let world =
        world(&ROUTES.replace(
            "null = \"error\"\ncolumns = [\"name\", \"v\"]",
            "columns = [\"name\", \"v\"]",
        ));
    world.rebuild(&[]).expect(7);
    world.sql("update users set name = 'mended' || id");
    let untouched = |world: &World| assert_eq!(world.redis(&["EXISTS", "user:3"]), "0");
    // A file that is none of ours, and one of ours that was cut.
    let good = reject_files(&world).remove(0);
    let folder = good.parent().unwrap().to_owned();
    let bytes = fs::read(&good).unwrap();
    for (name, content, said) in [
        ("notes.txt", &b"x"[..], "notes.txt"),
        ("users@9-1-0.parquet", &b"PAR1"[..], "users@9-1-0.parquet is damaged"),
        ("users@9-1-0.parquet", &bytes[..bytes.len() / 2], "users@9-1-0.parquet is damaged"),
    ] {
        fs::write(folder.join(name), content).unwrap();
        replay(&world, &[]).expect(1).says(&[said, "nothing was written"]);
        world.run(&["rejects", "list"]).expect(1).says(&[said]);
        fs::remove_file(folder.join(name)).unwrap();
    }
    let mut altered = bytes.clone();
    for byte in &mut altered[8..80] {
        *byte ^= 0x55;
    }
    fs::write(&good, &altered).unwrap();
    replay(&world, &[]).expect(1).says(&["is damaged"]);
    fs::write(&good, &bytes).unwrap();
    untouched(&world);
    // A run that there is none of, a route that the plan lacks, another process, another run's mark.
    replay(&world, &["--run", "other"]).expect(2).says(&["--run other", "rekindle rejects list"]);
    let plan = fs::read_to_string(world.folder.path().join("rekindle.toml")).unwrap();
    fs::write(world.folder.path().join("rekindle.toml"), plan.replace("\"users\"", "\"people\""))
        .unwrap();
    replay(&world, &[]).expect(2).says(&["the plan has no such route"]);
    fs::write(world.folder.path().join("rekindle.toml"), plan).unwrap();
    let lock = File::options().write(true).open(world.state().join("lock")).unwrap();
    let held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    replay(&world, &[]).expect(8).says(&["in use by"]);
    drop(held);
    world.redis(&["SET", "rekindle:run", "0198 host=a pid=1"]);
    replay(&world, &[]).expect(8);
    world.redis(&["DEL", "rekindle:run"]);
    untouched(&world);
    assert_eq!(reject_files(&world), [good]);
    assert_counts(&replay(&world, &[]).expect(0).summary(), &[("written", 4)]);
}

#[test]
fn rejects_are_deleted_by_a_later_run_after_rejects_keep() {
    // GIVEN an old file of a run that is over, and one of a route that keeps its own for good
    let world = world(ROUTES);
    world.rebuild(&[]).expect(7);
    let old = reject_files(&world);
    for path in &old {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(49)).unwrap();
    }
    let is_of = |path: &PathBuf, route: &str| {
        path.file_name().unwrap().to_string_lossy().starts_with(route)
    };
    // WHEN a run begins under a plan that keeps them longer THEN all stay
    world.plan(&ROUTES.replacen("null =", "rejects_keep = \"3d\"\nnull =", 1));
    world.rebuild(&[]).expect(7);
    assert!(old.iter().all(|path| path.exists()));
    // WHEN it keeps them two days THEN those of the route go, the others and the new ones stay
    world.plan(&ROUTES.replacen("null =", "rejects_keep = \"2d\"\nnull =", 1));
    world.rebuild(&[]).expect(7).says(&["older than rejects_keep were deleted", "users"]);
    assert!(old.iter().all(|path| path.exists() != is_of(path, "users@")));
    assert_eq!(list(&world).as_array().unwrap().len(), 3);
}

#[test]
fn every_reject_is_kept_however_many_of_them_one_batch_has() {
    // GIVEN thousands of rows that cannot be carried, in few batches, and a budget for more of them
    let routes = ROUTES.replace("null =", "rejects_max = \"60%\"\nnull =");
    let world = world(&routes);
    world.sql(
        "insert into users select i, case when i % 2 = 0 then 'n' end, 'secret', 1, 'c' || i \
         from generate_series(51, 9050) i",
    );
    // WHEN they are rejected THEN every one is in a file, and none of those that fit is missing
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["rejects"], &summary["written"]), (&9_008.into(), &9_092.into()));
    let (run, routes) = (&list(&world)[0], &list(&world)[0]["routes"]);
    assert_eq!((&run["rows"], &routes[1]["rows"]), (&9_008.into(), &4_504.into()), "{run:#}");
}
