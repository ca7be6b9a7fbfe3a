//! The age of a duplicate against the recovery point objective, as `check` and `status` tell it.
//!
//! Invariant: the age is that of the data, and what is older than the objective is never called fine.

use crate::cloud::{Cloud, ROUTE, plain};
use crate::world::{Ran, wait_until};
use serde_json::Value;

fn run(cloud: &Cloud, words: &[&str]) -> Ran {
    Ran::of(&cloud.command(words).output().unwrap())
}

fn objective(rpo: &str) -> String {
    format!("[objectives]\nbigquery = {{ rto = \"24h\", rpo = \"{rpo}\" }}\n{ROUTE}")
}

fn control(report: &Value) -> &Value {
    let controls = report["controls"].as_array().unwrap();
    controls.iter().find(|control| control["control"] == "duplicate of d.t").unwrap()
}

#[test]
fn a_duplicate_older_than_the_objective_is_late() {
    let cloud = plain();
    cloud.insert(1, 0..50);
    // GIVEN no backup yet THEN the objective is missed, too
    let report = run(&cloud, &["check", "--json"]).expect(6).summary();
    assert_eq!(control(&report)["detail"], "no complete backup yet");
    cloud.backup(&[]).expect(0);
    let report = run(&cloud, &["check", "--json"]).expect(0).summary();
    assert_eq!(control(&report)["verdict"], "OK", "{report}");
    // WHEN its data gets older than the objective
    cloud.plan(&objective("1s"));
    let status = || run(&cloud, &["status", "--json"]).summary();
    wait_until("an age of a second", || {
        status()["duplicates"][0]["age_seconds"].as_f64() > Some(1.0)
    });
    // THEN check fails with its own exit code and says what to do, and status does the same
    let report = run(&cloud, &["check", "--json"]).expect(6).summary();
    assert_eq!(control(&report)["verdict"], "FAILED", "{report}");
    assert!(control(&report)["detail"].as_str().unwrap().contains("older than the RPO of 1 s"));
    assert_eq!(control(&report)["fix"], "rekindle backup bigquery");
    assert_eq!(status()["duplicates"][0]["within_rpo"], false);
    let text = run(&cloud, &["status"]).expect(6).stdout;
    assert!(text.contains("duplicate of d.t: data as of "), "{text}");
    assert!(text.contains("older than the RPO of 1 s"), "{text}");
    // AND a held table partition keeps its age: a new backup does not make the data younger
    cloud.plan(&objective("24h"));
    cloud.sql("DELETE FROM d.t WHERE TRUE");
    let before = status()["duplicates"][0]["data_as_of"].clone();
    cloud.backup(&[]).expect(4);
    assert_eq!(status()["duplicates"][0]["data_as_of"], before);
}
