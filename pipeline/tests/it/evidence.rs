//! Evidence that runs leave, and the reports made of it.
//!
//! Invariant: `sha256sum`, which shares nothing with the product, checks the same seals.

use crate::items::{ROWS, filled, killed, resumed};
use crate::world::{Ran, World};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn folder(world: &World) -> PathBuf {
    world.state().join("evidence")
}

/// What `sha256sum --check` says of every manifest.
fn sha256sum(world: &World) -> Result<String, String> {
    let mut manifests: Vec<PathBuf> =
        fs::read_dir(folder(world)).unwrap().map(|entry| entry.unwrap().path()).collect();
    manifests.retain(|path| path.extension().is_some_and(|kind| kind == "sha256"));
    manifests.sort();
    let output = Command::new("sha256sum")
        .args(["--check", "--strict"])
        .args(manifests)
        .current_dir(folder(world))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(told) } else { Err(told) }
}

fn report(world: &World, words: &[&str]) -> Ran {
    world.run(&[&["report"], words].concat())
}

#[test]
fn every_run_leaves_sealed_evidence_and_a_report_of_it() {
    // GIVEN a run that was killed, the one that completed it, and a verification
    let world = filled();
    killed(&world, 50);
    let summary = resumed(&world);
    world.run(&["verify", "redis", "--tier", "full", "--json", "--progress", "none"]).expect(0);

    // WHEN they are listed THEN the killed one left none, the others one each
    let listed = report(&world, &["--list", "--json"]).expect(0).summary();
    let told: Vec<(&str, u64)> = listed["evidence"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["command"].as_str().unwrap(), one["exit_code"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("rebuild redis", 0), ("verify redis", 0)]);
    report(&world, &["--list"]).expect(0).shows(&[
        "     1  ",
        "rebuild redis",
        "done, exit 0",
        "verify redis",
        "pass, exit 0",
    ]);

    // AND the evidence holds the summary as it was printed, the objectives, and both processes of the run
    let run_id = summary["run_id"].as_str().unwrap();
    let evidence = report(&world, &[run_id, "--json"]).expect(0).summary();
    assert_eq!(evidence["summary"], summary);
    let rto = &evidence["objectives"][0];
    assert_eq!(
        (rto["system"].as_str(), rto["name"].as_str(), rto["verdict"].as_str()),
        (Some("redis"), Some("RTO"), Some("met"))
    );
    assert_eq!(rto["measured_seconds"], summary["seconds_since_loss"]);
    let processes = evidence["throughput"].as_array().unwrap();
    assert_eq!(processes.len(), 2, "{processes:?}");
    let last = processes[1].as_array().unwrap().last().unwrap();
    assert_eq!(last["rows"].as_u64(), Some(ROWS));
    let timeline = evidence["timeline"].to_string();
    assert!(timeline.contains("process 2 went on from"), "{timeline}");

    // AND sha256sum agrees with every seal
    let checked = sha256sum(&world).unwrap();
    assert_eq!(checked.lines().filter(|line| line.ends_with(": OK")).count(), 3, "{checked}");

    // AND reports of it are made in both forms, over nothing that is there
    report(&world, &["1"]).expect(0).shows(&[
        "# rebuild redis",
        "| redis | RTO | 24:00:00 |",
        "What this does not show",
    ]);
    report(&world, &[]).expect(0).shows(&["# verify redis", "compared at tier"]);
    report(&world, &["1", "--format", "html", "--out", "report.html"])
        .expect(0)
        .says(&["wrote report.html"]);
    let page = fs::read_to_string(world.folder.path().join("report.html")).unwrap();
    assert!(page.contains(run_id) && page.ends_with("</html>\n"));
    report(&world, &["1", "--out", "report.html"])
        .expect(2)
        .says(&["report.html exists, and is not overwritten"]);
    assert_eq!(fs::read_to_string(world.folder.path().join("report.html")).unwrap(), page);
}

#[test]
fn altered_evidence_ends_with_four_and_is_named() {
    // GIVEN the evidence of two runs
    let world = filled();
    world.rebuild(&[]).expect(0);
    world.rebuild(&["--fresh"]).expect(0);
    report(&world, &[]).expect(0);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder(&world)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    files.sort();
    // WHEN a figure of the first one is made nicer THEN no report is made of either, and both tools name it
    let text = fs::read_to_string(&files[0]).unwrap();
    fs::write(&files[0], text.replacen("\"rejects\":0", "\"rejects\":1", 1)).unwrap();
    let name = files[0].file_name().unwrap().to_str().unwrap();
    for words in [&[][..], &["1"], &["--list"], &["--json"]] {
        let told = report(&world, words).expect(4);
        assert!(
            told.stderr.contains(name) && told.stderr.contains("is not what its manifest seals"),
            "{}",
            told.stderr
        );
    }
    assert!(sha256sum(&world).unwrap_err().contains(&format!("{name}: FAILED")));
    // AND once it is brought back, everything is as before
    fs::write(&files[0], text).unwrap();
    report(&world, &["2"]).expect(0).shows(&["# rebuild redis"]);
}

#[test]
fn runs_that_fail_leave_evidence_too_and_what_is_not_there_is_said() {
    // GIVEN no run yet
    let world = filled();
    report(&world, &["--list"]).expect(0).shows(&["no evidence yet"]);
    report(&world, &[]).expect(2).says(&["there is no evidence in", "yet"]);
    // WHEN a run ends late
    world.rebuild(&["--lost-at", "2020-01-01T00:00:00Z"]).expect(6);
    // THEN its evidence says so
    let evidence = report(&world, &["--json"]).expect(0).summary();
    assert_eq!(evidence["ended"]["exit_code"], 6);
    assert_eq!(evidence["objectives"][0]["verdict"], "missed");
    let text = report(&world, &[]).expect(0).shows(&["MISSED: RTO of redis", "declared lost"]);
    assert!(text.stdout.contains("2020-01-01T00:00:00Z"), "{}", text.stdout);
    // AND evidence nobody has is named
    report(&world, &["7"]).expect(2).says(&["there is no evidence 7"]);
    report(&world, &["rebuild"]).expect(2).says(&["there is no evidence rebuild"]);
    // AND where none can be kept, the run ends as it would have, and says so
    let before: Vec<Value> = evidence["findings"].as_array().unwrap().clone();
    assert!(before.is_empty(), "{before:?}");
    fs::remove_dir_all(folder(&world)).unwrap();
    fs::write(folder(&world), "in the way").unwrap();
    world.rebuild(&["--fresh"]).expect(0).says(&["warning: no evidence of this run was kept"]);
}
