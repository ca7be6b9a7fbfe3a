//! RDB files of runs that were killed, lost power, met a full disk or a flipped bit, and were resumed.
//!
//! Invariant: a name never holds anything but the whole table; what a file holds is told by a real server.

use crate::carried::route;
use crate::items::{Wire, signal, wait_for_stop};
use crate::rdb::{NOWHERE, command, folder, killed, loaded, names, to_files};
use crate::world::{Ran, World};
use nix::sys::signal::Signal;
use stages::failpoint::{Point, VARIABLE};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// Rows in many batches.
fn filled() -> World {
    let world = World::new();
    world.sql(
        "create table items (id bigint primary key, a text not null, b int) with (fillfactor = 90); \
         insert into items select i, repeat(md5(i::text), 4), i from generate_series(1, 80000) i; \
         vacuum analyze items",
    );
    world.plan(&route("items", "hash", ""));
    world
}

/// Asserts that a file holds the rows as they are now.
fn assert_rows(world: &World) {
    let redis = loaded(&folder(world).join("dump.rdb"), &[]);
    let script = "local r = {} for _, k in ipairs(redis.call('KEYS', '*')) do local f = redis.call('HMGET', k, 'a', 'b') \
        r[#r + 1] = k .. ' ' .. f[1] .. ' ' .. f[2] end table.sort(r) \
        return #r .. ' ' .. redis.sha1hex(table.concat(r, ','))";
    let lines = world.sql("select 'items-hash:' || id || ' ' || a || ' ' || b from items");
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    // The same digest, by a server that holds nothing of the run.
    let joined = lines.join(",");
    let mut wire = Wire::to(world.redis.port());
    wire.ask(&["SET", "joined", &joined]);
    let digest = world.redis(&["EVAL", "return redis.sha1hex(redis.call('GET', 'joined'))", "0"]);
    assert_eq!(redis.cli(&["EVAL", script, "0"]).unwrap(), format!("{} {digest}", lines.len()));
}

#[test]
fn a_killed_run_goes_on_with_what_did_not_change() {
    let world = filled();
    // GIVEN a run that was killed on its way
    killed(&world, Point::PartitionFinished, 2, &["--lanes", "2"]);
    let hidden: Vec<String> = names(&world);
    assert!(hidden.len() == 1 && hidden[0].starts_with(".rekindle-"), "{hidden:?}");
    // WHEN it goes on THEN it keeps the partitions that are whole
    let ran = to_files(&world, &["--lanes", "2", "--log-level", "info"]).expect(0);
    let ran = ran.says(&["partitions are as they were read"]);
    assert_eq!((&ran.summary()["resumed"], &ran.summary()["rows"]), (&1.into(), &80_000.into()));
    assert_rows(&world);
    assert_eq!(names(&world), ["dump.rdb"]);

    // GIVEN one that was killed at the end, and rows that changed, moved and vanished since
    fs::remove_file(folder(&world).join("dump.rdb")).unwrap();
    killed(&world, Point::FilesFinished, 1, &[]);
    world.sql(
        "update items set b = -id where id < 3000; delete from items where id between 4000 and 4010; \
         insert into items select i, 'new', 7 from generate_series(100001, 100100) i",
    );
    // WHEN it goes on THEN the file is the table as it is now.
    let summary = to_files(&world, &[]).expect(0).summary();
    assert_eq!((&summary["resumed"], &summary["verified"]["differences"]), (&1.into(), &0.into()));
    assert_rows(&world);
    let facts = fs::metadata(folder(&world).join("dump.rdb")).unwrap();
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);

    // GIVEN one that was killed when the file had its name already, and whose table is another one
    fs::remove_file(folder(&world).join("dump.rdb")).unwrap();
    let mut command = command(&world, &[]);
    let output = command.env(VARIABLE, Point::FilesPublished.name()).output().unwrap();
    assert_eq!(output.status.signal(), Some(9));
    assert!(folder(&world).join("dump.rdb").exists());
    world.sql("delete from items where id > 79000; vacuum full items");
    to_files(&world, &[]).expect(0);
    assert_rows(&world);
    assert_eq!(names(&world), ["dump.rdb"]);
}

#[test]
fn what_a_loss_of_power_took_is_written_again() {
    let world = filled();
    killed(&world, Point::ReadBack, 1, &[]);
    // GIVEN a machine that was started anew, and bytes that never reached its disk
    let hidden = folder(&world).join(&names(&world)[0]);
    fs::write(hidden.join("boot"), "another one").unwrap();
    let file = hidden.join("dump.rdb.0");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0);
    fs::write(&file, bytes).unwrap();
    // WHEN the run goes on THEN nothing of it is believed.
    let ran = to_files(&world, &[]).expect(0);
    assert_rows(&world);
    ran.says(&["the rdb files lack some of what was committed"]);

    // GIVEN one whose files were removed altogether
    fs::remove_file(folder(&world).join("dump.rdb")).unwrap();
    killed(&world, Point::ReadBack, 1, &[]);
    fs::remove_dir_all(folder(&world)).unwrap();
    to_files(&world, &[]).expect(0).says(&["the rdb files of this run are not there"]);
    assert_rows(&world);
}

#[test]
fn a_file_that_was_altered_never_gets_its_name() {
    let world = filled();
    let stopped = format!("{}:1:hold", Point::FilesFinished.name());
    let mut held = command(&world, &[]);
    held.env(VARIABLE, stopped).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = held.spawn().unwrap();
    wait_for_stop(&child);
    // GIVEN a bit that flips between writing and reading back
    let file = folder(&world).join(&names(&world)[0]).join("dump.rdb.0");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    signal(&child, Signal::SIGCONT);
    // THEN it is noticed, and no file is left that looks complete
    let ran = Ran::of(&child.wait_with_output().unwrap()).expect(4);
    ran.says(&["was altered behind byte"]);
    assert!(!folder(&world).join("dump.rdb").exists());
    // AND the same command writes it again.
    to_files(&world, &[]).expect(0);
    assert_rows(&world);
}

#[test]
fn a_disk_that_fills_up_leaves_no_file_and_a_run_that_goes_on() {
    let world = filled();
    // GIVEN files that may not grow beyond 2 MB, as on a disk that is full
    let program = env!("CARGO_BIN_EXE_rekindle");
    let script = format!(
        "trap '' XFSZ; ulimit -f 4000; exec {program} rebuild redis --json --progress none --to-rdb files"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(world.folder.path());
    shell.env("ALLOYDB_URL", world.postgres.url()).env("REDIS_URL", NOWHERE);
    let ran = Ran::of(&shell.output().unwrap()).expect(1);
    ran.says(&["cannot write", "dump.rdb"]);
    assert!(!folder(&world).join("dump.rdb").exists());
    // WHEN there is room THEN the same command goes on.
    let summary = to_files(&world, &[]).expect(0).summary();
    assert_eq!(summary["resumed"], 1);
    assert_rows(&world);
}
