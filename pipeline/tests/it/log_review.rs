//! The review of what runs left, by the real binary.
//!
//! Invariant: a problem is listed until it is closed, and nothing is told once a record was altered.

use crate::bad_input::rebuild_with;
use crate::items::{HASH, fill_with, filled, killed, resumed};
use crate::world::{Ran, World};
use serde_json::Value;
use std::fs;

fn world() -> World {
    let world = World::new();
    fill_with(&world, 100);
    world.plan(HASH);
    world
}

fn review(world: &World, more: &[&str]) -> Ran {
    world.run(&[&["log", "review"], more].concat())
}

fn reviewed(world: &World, more: &[&str]) -> Value {
    review(world, &[&["--json"], more].concat()).expect(0).summary()
}

fn ids(problems: &Value) -> Vec<&str> {
    problems.as_array().unwrap().iter().map(|problem| problem["id"].as_str().unwrap()).collect()
}

/// A world with a run that is done, one that was late, and one that was refused.
fn with_problems() -> World {
    let world = world();
    world.rebuild(&[]).expect(0);
    world.rebuild(&["--fresh", "--lost-at", "2020-01-01T00:00:00Z"]).expect(6);
    rebuild_with(&world, &[("ALLOYDB_URL", "postgres://app:wr0ng@127.0.0.1:1/app")]).expect(3);
    world
}

#[test]
fn problems_come_first_and_stay_open_until_somebody_closes_them() {
    // GIVEN no run THEN there is nothing to review
    let world = World::new();
    review(&world, &[]).expect(0).shows(&[
        "last review: never",
        "open: 0 problems",
        "since then: 0 runs",
    ]);
    let world = with_problems();
    // WHEN it is reviewed THEN the worst comes first, and every run is there
    let first = reviewed(&world, &[]);
    assert_eq!(
        (ids(&first["problems"]), first["runs"].as_array().unwrap().len()),
        (vec!["3.failed", "2.missed"], 3)
    );
    assert_eq!((&first["last_review"], &first["recorded"]), (&Value::Null, &Value::Null));
    assert!(!first.to_string().contains("wr0ng"), "{first}");
    let text =
        review(&world, &[]).expect(0).shows(&["open: 2 problems", "missed: RTO of redis"]).stdout;
    assert!(text.find("3.failed") < text.find("2.missed"), "{text}");
    review(&world, &["--strict"]).expect(3);
    // WHEN one is closed and the log is signed THEN it says who did what
    world
        .run(&["log", "close", "3.failed", "--by", "anna", "--note", "the database was down"])
        .expect(0)
        .shows(&["3.failed", "closed by anna at ", ": the database was down"]);
    review(&world, &["--strict"]).expect(6);
    let signed = reviewed(&world, &["--by", "ben"]);
    assert_eq!(
        (ids(&signed["problems"]), ids(&signed["closed"])),
        (vec!["2.missed"], vec!["3.failed"])
    );
    assert_eq!(signed["closed"][0]["closed"]["by"], "anna");
    assert_eq!(
        (&signed["recorded"]["by"], &signed["recorded"]["runs"]),
        (&"ben".into(), &3.into())
    );
    assert!(signed["path"].as_str().unwrap().ends_with("reviews/000002-review.json"), "{signed}");
    // THEN the next one lists what came since, and what is still open
    world.rebuild(&["--fresh"]).expect(0);
    let next = reviewed(&world, &[]);
    assert_eq!(next["last_review"]["by"], "ben");
    let runs = next["runs"].as_array().unwrap();
    assert_eq!((runs.len(), &runs[0]["evidence"]), (1, &4.into()), "{next}");
    assert_eq!((ids(&next["problems"]), ids(&next["closed"])), (vec!["2.missed"], vec![]));
    // AND the other one is closed by the id of its run
    let run_id = next["problems"][0]["run_id"].as_str().unwrap().to_owned();
    world.run(&["log", "close", &run_id, "--by", "ben", "--note", "a test"]).expect(0);
    review(&world, &["--strict"]).expect(0).shows(&["open: 0 problems"]);
}

#[test]
fn a_closing_needs_a_problem_that_is_open_a_name_and_a_note() {
    let world = with_problems();
    let close = |words: &[&str]| world.run(&[&["log", "close"], words].concat());
    close(&["9.failed", "--by", "anna", "--note", "x"])
        .expect(2)
        .says(&["there is no problem 9.failed", "hint: rekindle log review"]);
    close(&["3.failed", "--by", "anna"]).expect(2);
    close(&["3.failed", "--by", " ", "--note", "x"]).expect(2).says(&["must be one line of text"]);
    assert!(!world.state().join("reviews").exists());
    close(&["3.failed", "--by", "anna", "--note", "x"]).expect(0);
    close(&["3.failed", "--by", "ben", "--note", "x"]).expect(2).says(&["was closed by anna at "]);
}

#[test]
fn what_was_altered_ends_with_4_and_is_named() {
    let world = with_problems();
    world.run(&["log", "close", "3.failed", "--by", "anna", "--note", "fine"]).expect(0);
    review(&world, &["--by", "ben"]).expect(0);
    // WHEN a closing is altered
    let path = world.state().join("reviews/000001-close.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("anna", "eve")).unwrap();
    review(&world, &[]).expect(4).says(&["000001-close.json is not what its manifest seals"]);
    fs::write(&path, &text).unwrap();
    review(&world, &[]).expect(0);
    // WHEN the newest evidence is taken away with its seal, which the chain of evidence cannot tell
    let newest = world.run(&["report", "--list", "--json"]).expect(0).summary();
    let newest = world.folder.path().join(newest["evidence"][2]["path"].as_str().unwrap());
    fs::remove_file(newest.with_extension("sha256")).unwrap();
    fs::remove_file(&newest).unwrap();
    world.run(&["report", "--list"]).expect(0);
    review(&world, &[]).expect(4).says(&["evidence 3, which ben reviewed at ", "is gone"]);
}

#[test]
fn a_refused_run_leaves_evidence_where_there_is_a_state_folder() {
    let world = world();
    // GIVEN no state folder THEN a refusal makes none
    fs::rename(world.folder.path().join("rekindle.toml"), world.folder.path().join("away"))
        .unwrap();
    world.rebuild(&[]).expect(2);
    assert!(!world.state().exists());
    // GIVEN one THEN the refusal is in the log, with what was wrong
    fs::rename(world.folder.path().join("away"), world.folder.path().join("rekindle.toml"))
        .unwrap();
    world.rebuild(&[]).expect(0);
    world.rebuild(&["--route", "nothing"]).expect(2);
    let told = reviewed(&world, &[]);
    assert_eq!(ids(&told["problems"]), ["2.failed"]);
    let what = told["problems"][0]["what"].as_str().unwrap();
    assert!(
        what.starts_with("exit code 2: ") && what.contains("has no route \"nothing\""),
        "{what}"
    );
    world.run(&["report", "2"]).expect(0).shows(&["The run ended as refused (exit code 2)"]);
    world.run(&["report", "1"]).expect(0);
}

#[test]
fn a_run_that_was_killed_is_a_problem_until_it_is_resumed() {
    let world = filled();
    killed(&world, 40);
    let told = reviewed(&world, &[]);
    let problem = &told["problems"][0];
    let id = problem["id"].as_str().unwrap().to_owned();
    assert!(id.ends_with(".killed") && told["problems"].as_array().unwrap().len() == 1, "{told}");
    assert!(
        problem["what"].as_str().unwrap().ends_with("rekindle rebuild redis resumes it"),
        "{told}"
    );
    review(&world, &["--strict"]).expect(6);
    // Closed, it stays closed, also once it is no problem any more.
    world.run(&["log", "close", &id, "--by", "anna", "--note", "the power failed"]).expect(0);
    resumed(&world);
    let told = reviewed(&world, &[]);
    assert_eq!((ids(&told["problems"]), ids(&told["closed"])), (vec![], vec![id.as_str()]));
}
