//! The journal when its process is killed in the middle of a commit, its disk is full, its file is damaged, or another
//! version or another process has it.
//!
//! Invariant: whatever happened, a run either goes on and is complete, or stops with the documented code and leaves
//! journal and Redis as they were.

use crate::items::{ROWS, assert_complete, filled, held, killed, resumed, signal, standing};
use crate::world::{Ran, World};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Output};

const REBUILD: [&str; 4] = ["rebuild", "redis", "--progress", "none"];

/// Runs a rebuild that can write no file beyond this size, and is killed by it, or told, as `on_limit` says.
fn limited(world: &World, kib: u64, on_limit: &str) -> Output {
    let script = format!("{on_limit} ulimit -c 0; ulimit -f {kib}; exec \"$0\" \"$@\"");
    let binary = world.command(&[]);
    let mut command = Command::new("bash");
    command.args(["-c", script.as_str()]).arg(binary.get_program());
    command.args([
        "rebuild",
        "redis",
        "--json",
        "--progress",
        "none",
        "--retry-for",
        "2s",
        "--lanes",
        "2",
    ]);
    command.current_dir(world.folder.path()).env_clear();
    for (name, value) in binary.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.output().unwrap()
}

/// Few rows in many routes: the journal grows faster than everything else that a run writes.
fn small() -> World {
    let world = World::new();
    world.sql(
        "create table items (id bigint primary key, a text not null); \
         insert into items select i, repeat('x', 300) from generate_series(1, 4000) i",
    );
    let route = |n: u32| {
        format!(
            "[[route]]\nname = \"items{n}\"\ntable = \"alloydb:public.items\"\nwhere = \"id % 40 = {n}\"\n\
             key = \"item{n}:{{id}}\"\ntype = \"hash\"\n"
        )
    };
    world.plan(&(0..40).map(route).collect::<String>());
    world
}

/// Starts the run again and asserts that nothing is lost.
fn goes_on(world: &World) {
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["status"], &summary["resumed"]), (&"done".into(), &1.into()));
    assert_eq!(world.redis(&["DBSIZE"]), "4000");
    world.run(&["verify", "redis", "--tier", "full"]).expect(0);
}

fn journal(world: &World) -> PathBuf {
    world.state().join("journal.sqlite")
}

#[test]
fn killed_in_the_middle_of_a_commit_the_journal_holds_what_came_before_and_the_run_goes_on() {
    // While it cuts tables, and while it carries rows.
    for kib in [300, 850] {
        // GIVEN a run that the kernel kills while it writes its journal
        let world = small();
        let output = limited(&world, kib, "");
        assert_eq!(output.status.signal(), Some(25), "{}", Ran::of(&output).stderr);
        let log = fs::metadata(world.state().join("journal.sqlite-wal")).unwrap().len();
        assert_eq!(log, kib * 1024, "it was not the journal that reached the limit");
        // WHEN it is started again THEN it goes on from what was committed
        goes_on(&world);
    }
}

#[test]
fn a_journal_that_cannot_grow_stops_the_run_and_the_next_one_goes_on() {
    // GIVEN a disk on which no file grows beyond a size, which the process is told
    let world = small();
    let ran = Ran::of(&limited(&world, 850, "trap '' XFSZ;")).expect(1);
    // THEN it says so, and what to do
    ran.says(&["journal.sqlite", "disk I/O error", "free space", "it resumes"]);
    goes_on(&world);
}

#[test]
fn a_journal_that_cannot_be_used_is_refused_and_left_alone_and_then_goes_on() {
    // GIVEN the journal of a killed run, its log folded in
    let world = filled();
    killed(&world, 40);
    sql(&world, "PRAGMA wal_checkpoint(TRUNCATE)");
    let good = fs::read(journal(&world)).unwrap();
    let keys = world.redis(&["DBSIZE"]);
    damaged_anywhere_it_is_refused(&world, &good);
    written_by_a_newer_version_it_is_refused(&world, &good);
    in_a_folder_of_somebody_else_it_can_be_looked_at(&world);
    assert_eq!(world.redis(&["DBSIZE"]), keys);
    // WHEN it is one that an earlier version wrote, which knew no restores
    sql(
        &world,
        "UPDATE format SET written_by = '0.0.1'; DROP TABLE restore_job; DROP TABLE restore_stream; \
         DROP TABLE restore_table",
    );
    let exported = world.run(&["state", "export"]).expect(0).stdout;
    let first: serde_json::Value = serde_json::from_str(exported.lines().next().unwrap()).unwrap();
    assert_eq!((&first["table"], &first["written_by"]), (&"format".into(), &"0.0.1".into()));
    // THEN it is read, and the run goes on
    resumed(&world);
}

fn damaged_anywhere_it_is_refused(world: &World, good: &[u8]) {
    let middle = good.len() / 2 / 4096 * 4096;
    for (what, damage) in [
        ("the header", 0..16),
        ("the page size", 16..18),
        ("the schema", 100..108),
        ("a page in the middle", middle..middle + 12),
        ("the last page", good.len() - 4096..good.len() - 4084),
        ("a whole page", middle..middle + 4096),
    ] {
        let mut bad = good.to_vec();
        bad[damage].fill(0xA5);
        fs::write(journal(world), &bad).unwrap();
        // WHEN anything opens it THEN it is refused, and nothing is touched
        for words in [&REBUILD[..], &["status"], &["state", "show"], &["state", "export"]] {
            let ran = world.run(words).expect(1);
            let is_told = ran.stderr.contains("is damaged") && ran.stderr.contains("hint: ");
            assert!(is_told, "{what}: {}", ran.stderr);
        }
        assert!(fs::read(journal(world)).unwrap() == bad, "{what}: it was changed");
    }
    fs::write(journal(world), good).unwrap();
}

fn written_by_a_newer_version_it_is_refused(world: &World, good: &[u8]) {
    sql(world, "UPDATE format SET format = 2, written_by = '9.9.9'");
    let newer = fs::read(journal(world)).unwrap();
    for words in [&REBUILD[..], &["rebuild", "redis", "--fresh"], &["status"]] {
        world.run(words).expect(1).says(&["has format 2", "9.9.9", "use the newer rekindle"]);
    }
    assert!(fs::read(journal(world)).unwrap() == newer, "it was changed");
    fs::write(journal(world), good).unwrap();
}

fn in_a_folder_of_somebody_else_it_can_be_looked_at(world: &World) {
    let set = |folder: u32, file: u32| {
        fs::set_permissions(world.state(), fs::Permissions::from_mode(folder)).unwrap();
        for name in ["journal.sqlite", "lock"] {
            fs::set_permissions(world.state().join(name), fs::Permissions::from_mode(file))
                .unwrap();
        }
    };
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Whoever has it open for writing last takes the empty log away that those who looked have left.
    sql(world, "PRAGMA wal_checkpoint(TRUNCATE)");
    set(0o555, 0o444);
    let run = |words: &[&str]| {
        let mut command = world.command(words);
        if Uid::current().is_root() {
            // Nothing is read-only for root.
            command.uid(65_534).gid(65_534);
        }
        Ran::of(&command.output().unwrap())
    };
    // WHEN a run is asked for THEN it is told where, and how to go on
    let said = ["cannot open", "Permission denied", "mend permissions under --state"];
    run(&REBUILD).expect(1).says(&said);
    // AND what is in it can be seen
    let shown = run(&["status", "--json"]).expect(0).summary();
    assert_eq!(shown["run"]["status"], "killed");
    set(0o700, 0o600);
}

#[test]
fn a_damaged_log_of_the_journal_costs_its_commits_and_nothing_else() {
    // GIVEN a killed run whose log is damaged in the middle
    let world = filled();
    killed(&world, 40);
    let log = world.state().join("journal.sqlite-wal");
    let mut bytes = fs::read(&log).unwrap();
    let place = bytes.len() * 3 / 4;
    bytes[place..place + 64].fill(0xA5);
    fs::write(&log, &bytes).unwrap();
    // WHEN it is resumed THEN it knows less, repeats it, and is complete
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["status"], &summary["rows"]), (&"done".into(), &ROWS.into()), "{summary}");
    assert_complete(&world);
}

fn sql(world: &World, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(journal(world));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn of_two_runs_one_is_told_who_works_and_the_other_ends_well() {
    // GIVEN a run at work
    let world = filled();
    let first = held(&world, 20);
    // WHEN others are started on the same folder THEN they are told, and change nothing
    let pid = format!("in use by process {}", first.id());
    for words in [
        &["rebuild", "redis", "--progress", "none"][..],
        &["rebuild", "redis", "--fresh", "--progress", "none"],
    ] {
        world.run(words).expect(8).says(&[&pid]);
    }
    let run = standing(&world)["run_id"].as_str().unwrap().to_owned();
    world.run(&["state", "reset", "--run", &run, "--yes-forget"]).expect(8).says(&[&pid]);
    assert_eq!(world.run(&["state", "show", "--json"]).expect(0).summary()["pid"], first.id());
    signal(&first, Signal::SIGCONT);
    let ended = Ran::of(&first.wait_with_output().unwrap()).expect(0);
    assert_eq!(ended.summary()["status"], "done");
    assert_complete(&world);
}
