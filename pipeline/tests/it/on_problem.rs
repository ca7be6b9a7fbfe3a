//! `--on-problem`: run once after a problem, told what it was, and without a say in how the command ends.
//!
//! Invariant: the file that the command appends to is all that it leaves.

use crate::items::{HASH, fill_with};
use crate::world::{Ran, World};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Appends what it was told as one line.
const TELL: &str = "printf '%s|%s|%s|%s\\n' \"$REKINDLE_EXIT\" \"$REKINDLE_COMMAND\" \"$REKINDLE_RUN_ID\" \"$REKINDLE_PROBLEM\" >> told";

fn world() -> World {
    let world = World::new();
    fill_with(&world, 100);
    world.plan(HASH);
    world
}

fn told(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn it_runs_once_after_a_problem_and_not_after_success() {
    let world = world();
    let folder = world.folder.path();
    world.rebuild(&["--on-problem", TELL]).expect(0);
    assert_eq!(told(folder), Vec::<String>::new());
    // WHEN the objective is missed THEN it hears of that run
    let late = ["--fresh", "--lost-at", "2020-01-01T00:00:00Z", "--on-problem", TELL];
    let run_id = world.rebuild(&late).expect(6).summary()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(told(folder), [format!("6|rebuild redis|{run_id}|RTO of redis missed")]);
    // WHEN a run is refused THEN it hears what was wrong, and which evidence says so
    world.rebuild(&["--route", "nothing", "--on-problem", TELL]).expect(2);
    let lines = told(folder);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let parts: Vec<&str> = lines[1].splitn(4, '|').collect();
    assert_eq!((parts[0], parts[1], parts[2].len()), ("2", "rebuild redis", 36), "{lines:?}");
    assert!(parts[3].contains("has no route \"nothing\""), "{lines:?}");
    world.run(&["report", parts[2]]).expect(0).shows(&["has no route"]);
}

#[test]
fn it_changes_neither_the_exit_code_nor_stdout() {
    let world = world();
    let late = |command: &str| {
        world.rebuild(&["--fresh", "--lost-at", "2020-01-01T00:00:00Z", "--on-problem", command])
    };
    let noisy = late("echo noise; exit 9")
        .expect(6)
        .says(&["noise\n", "warning: --on-problem ended with exit status: 9"]);
    assert_eq!(noisy.summary()["within_rto"], false);
    late("/nowhere/program").expect(6).says(&["warning: --on-problem ended with exit status: 127"]);
    late("true").expect(6);
}

#[test]
fn commands_that_only_look_tell_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(words).args(["--on-problem", TELL]).current_dir(folder.path()).env_clear();
        Ran::of(&command.output().unwrap())
    };
    run(&["status"]).expect(0);
    run(&["check"]).expect(2);
    let lines = told(folder.path());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("2|check||plan: cannot read the plan rekindle.toml"), "{lines:?}");
}
