//! `rekindle state`: what is in the folder, the journal as lines, and forgetting a run.
//!
//! Invariant: forgetting a run changes nothing in Redis.

use crate::items::{filled, killed, standing};
use serde_json::Value;
use std::fs;

#[test]
fn state_is_shown_and_exported_and_a_run_is_forgotten_only_when_asked_for_by_name() {
    // GIVEN a killed run
    let world = filled();
    let nothing = world.run(&["state", "show"]).expect(0).stdout;
    assert!(nothing.contains("no run yet"), "{nothing}");
    assert_eq!(world.run(&["state", "export"]).expect(0).stdout, "");
    world.run(&["state", "reset", "--run", "x", "--yes-forget"]).expect(2).says(&["no such run"]);
    assert!(!world.state().exists(), "looking made a folder");
    killed(&world, 30);
    let run = standing(&world)["run_id"].as_str().unwrap().to_owned();
    // THEN it is shown with its sizes
    let shown = world.run(&["state", "show", "--json"]).expect(0).summary();
    let of_run = &shown["runs"][0];
    assert_eq!((&of_run["run_id"], &of_run["is_resumable"]), (&run.as_str().into(), &true.into()));
    assert_eq!(of_run["routes"][0]["name"], "items");
    assert!(of_run["ledger_bytes"].as_u64() > Some(0) && shown["journal_bytes"].as_u64() > Some(0));
    assert!(world.run(&["state", "show"]).expect(0).stdout.contains(&run));
    // AND every row of the journal is a line
    let exported = world.run(&["state", "export"]).expect(0).stdout;
    let lines: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |table: &str| lines.iter().filter(|line| line["table"] == table).count() as u64;
    assert_eq!((of("format"), of("run"), of("route")), (1, 1, 1));
    assert_eq!(Some(of("partition")), of_run["routes"][0]["partitions"].as_u64());
    let partition = lines.iter().find(|line| line["table"] == "partition").unwrap();
    assert!(partition["bounds"].is_object() && partition["digest_sum"].is_string(), "{partition}");

    // WHEN forgetting it is asked for without saying so THEN it is told what would go, and nothing does
    let journal = fs::read(world.state().join("journal.sqlite")).unwrap();
    world
        .run(&["state", "reset", "--run", &run])
        .expect(2)
        .says(&["would be forgotten", "--yes-forget"]);
    assert_eq!(standing(&world)["run_id"].as_str(), Some(run.as_str()));
    assert!(!journal.is_empty());
    // WHEN it is asked for THEN the run and its ledgers go, and Redis is as it was
    let keys = world.redis(&["DBSIZE"]);
    let text = world.run(&["state", "reset", "--run", &run, "--yes-forget"]).expect(0).stdout;
    assert!(text.contains(&format!("rebuild redis --take-over {run}")), "{text}");
    assert!(!world.state().join("runs").join(&run).exists());
    assert_eq!(world.redis(&["DBSIZE"]), keys);
    assert_eq!(
        world.run(&["state", "show", "--json"]).expect(0).summary()["runs"],
        Value::Array(Vec::new())
    );
    world.run(&["state", "reset", "--run", &run, "--yes-forget"]).expect(2).says(&["no such run"]);
    // AND its mark is still in the way, as the text said
    world.rebuild(&[]).expect(8);
    world.rebuild(&["--take-over", &run]).expect(0);
}
