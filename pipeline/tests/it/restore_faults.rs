//! `restore bigquery` when answers get lost, call by call, and beside a writer that does not stop.
//!
//! Invariant: the calls that lose their answers are those that the stand-in counted, so a new call cannot be forgotten.

use crate::lost::{Days, Lost};
use crate::restore::{count, lost};
use crate::world::Ran;
use arrow::array::StringArray;
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Ways that an answer gets lost.
const KINDS: [&str; 3] = ["drop_after_apply", "drop_before_apply", "throttle"];

/// The methods that were called since this was asked the last time.
pub(crate) fn called(lost: &Lost) -> BTreeSet<String> {
    let calls = lost.rest("GET", "stand-in/calls", None);
    lost.rest("DELETE", "stand-in/calls", None);
    let is_of_bigquery = |name: &&String| name.as_str() != "stand-in";
    calls.as_object().unwrap().keys().filter(is_of_bigquery).cloned().collect()
}

/// Restores without a fault, and returns what was called for it.
fn calls_of(lost: &Lost, words: &[&str]) -> BTreeSet<String> {
    called(lost);
    lost.restore(words).expect(0);
    let methods = called(lost);
    lost.assert_restored();
    methods
}

/// Restores once for each method and kind, each time without the answers to its first two calls.
pub(crate) fn lose_each(
    lost: &Lost,
    methods: &BTreeSet<String>,
    words: &[&str],
    kinds: &[&str],
    damage: &dyn Fn(&Lost),
    check: &dyn Fn(&Lost),
) {
    for method in methods {
        for kind in kinds {
            damage(lost);
            lost.fault(method, kind, 0);
            lost.fault(method, kind, 1);
            let ran = lost.restore(words);
            lost.rest("DELETE", "stand-in/faults", None);
            assert_eq!(ran.code, Some(0), "{method} {kind}: {}", ran.stderr);
            check(lost);
        }
    }
}

/// Has BigQuery refuse every job, until the faults are deleted.
pub(crate) fn refuse_jobs(lost: &Lost) {
    let fault = json!({"method": "rest:jobs.insert", "kind": "unavailable", "times": 1_000_000});
    lost.rest("POST", "stand-in/faults", Some(fault));
}

pub(crate) fn forget(lost: &Lost) {
    lost.runtime.block_on(lost.client.delete_table("logs", "builds$20261101")).unwrap();
    if lost.state().exists() {
        std::fs::remove_dir_all(lost.state()).unwrap();
    }
}

#[test]
fn a_lost_answer_of_any_call_changes_nothing() {
    let (lost, _) = lost(2_500, false);
    let methods = calls_of(&lost, &[]);
    println!("{methods:?}");
    assert!(methods.contains("AppendRows") && methods.contains("rest:jobs.insert"), "{methods:?}");
    assert!(methods.contains("rest:tables.setIamPolicy"), "{methods:?}");
    lose_each(&lost, &methods, &[], &KINDS, &Lost::lose_again, &Lost::assert_restored);
    // AND so it is with the calls that only another way makes: one table partition after the other
    forget(&lost);
    let words = ["--partitions", "20261101"];
    let more: BTreeSet<String> = &calls_of(&lost, &words) - &methods;
    println!("{more:?}");
    lose_each(&lost, &more, &words, &KINDS, &forget, &Lost::assert_restored);
    // AND a run that was given up before it published leaves nothing behind, neither a setting nor its lack
    lost.lose_again();
    refuse_jobs(&lost);
    lost.restore(&["--retry-for", "1s"]).expect(3);
    lost.rest("DELETE", "stand-in/faults", None);
    lost.restore(&["--fresh"]).expect(0);
    lost.assert_restored();
    // AND a job that fails in BigQuery is asked for under another id
    for kind in ["unavailable", "throttle"] {
        lost.lose_again();
        lost.fault("job", kind, 0);
        lost.restore(&[]).expect(0);
        lost.assert_restored();
    }
}

#[test]
fn a_lost_answer_while_filling_by_key_changes_nothing() {
    let (lost, _) = lost(2_500, true);
    lost.restore(&[]).expect(0);
    forget(&lost);
    let methods = calls_of(&lost, &["--fill"]);
    println!("{methods:?}");
    assert!(methods.contains("rest:jobs.insert"), "{methods:?}");
    lose_each(&lost, &methods, &["--fill"], &KINDS, &forget, &Lost::assert_restored);
}

/// Calls that are made only to find out what became of another one, and that one.
#[test]
fn a_lost_answer_to_the_question_what_became_of_a_call_changes_nothing() {
    let (lost, _) = lost(2_500, false);
    let usual = calls_of(&lost, &[]);
    for asked in ["BatchCommitWriteStreams", "rest:jobs.insert", "FinalizeWriteStream"] {
        lost.lose_again();
        lost.fault(asked, "drop_after_apply", 0);
        let unusual: BTreeSet<String> = &calls_of(&lost, &[]) - &usual;
        println!("after a lost answer of {asked}: {unusual:?}");
        match asked {
            "BatchCommitWriteStreams" => assert!(unusual.contains("GetWriteStream")),
            "rest:jobs.insert" => assert!(unusual.contains("rest:jobs.get")),
            _ => {}
        }
        let damage = |lost: &Lost| {
            lost.lose_again();
            lost.fault(asked, "drop_after_apply", 0);
        };
        lose_each(&lost, &unusual, &[], &KINDS, &damage, &Lost::assert_restored);
    }
}

/// The stage of the restore that `status` tells of, where there is one at work.
fn stage(lost: &Lost) -> Option<String> {
    let status = Ran::of(&lost.rekindle(&["status", "--json"]).output().unwrap()).expect(0);
    let restore = &status.summary()["restore"];
    (restore["status"] == "running")
        .then(|| restore["tables"][0]["stage"].as_str().map(str::to_owned))
        .flatten()
}

#[test]
fn filling_keeps_what_a_writer_appends_throughout_and_doubles_nothing() {
    let (lost, days) = lost(6_000, true);
    lost.restore(&[]).expect(0);
    // GIVEN a table that lost a day, and a writer that goes on while every phase takes its time
    forget(&lost);
    for method in ["CreateReadSession", "rest:jobs.insert"] {
        let fault = json!({"method": method, "kind": "delay_ms:400", "times": 50});
        lost.rest("POST", "stand-in/faults", Some(fault));
    }
    let mut child = lost.start(&["--fill"]);
    let mut written = Vec::new();
    let mut phases = BTreeSet::new();
    while child.try_wait().unwrap().is_none() {
        let before = stage(&lost);
        let row = days[0].rows.slice(0, 1);
        let mut columns = row.columns().to_vec();
        columns[1] = Arc::new(StringArray::from(vec![format!("new-{}", written.len())]));
        let rows = RecordBatch::try_new(row.schema(), columns).unwrap();
        let day = Days { name: days[0].name.clone(), rows };
        lost.append("builds", std::slice::from_ref(&day));
        written.push(day);
        // The row came in this phase only if it still lasts.
        phases.extend(before.filter(|before| stage(&lost).as_ref() == Some(before)));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    lost.rest("DELETE", "stand-in/faults", None);
    println!("{} rows were written meanwhile, in {phases:?}", written.len());
    // THEN rows were written while staging was filled, while it was proven, while it was published and while that was
    for phase in ["staged", "loaded", "proven", "published"] {
        assert!(phases.contains(phase), "no row was written in {phase}: {phases:?}");
    }
    lost.append("original", &written);
    lost.assert_restored();
    // AND filling again adds nothing
    let summary = lost.restore(&["--fill"]).expect(0).summary();
    assert_eq!(
        (summary["written"].as_u64(), summary["kept"].as_u64()),
        (Some(0), Some(count(&days)))
    );
    lost.assert_restored();
}

#[test]
fn a_row_key_that_cannot_tell_rows_apart_is_refused_before_anything_is_written() {
    let (lost, _) = lost(100, true);
    let path = lost.folder.path().join("rekindle.toml");
    let plan = std::fs::read_to_string(&path).unwrap();
    for (key, why) in [("js", "of type JSON"), ("f", "of type FLOAT"), ("none", "no such column")] {
        let named = format!("row_key = \"{key}\"");
        std::fs::write(&path, plan.replace("row_key = \"log_id\"", &named)).unwrap();
        lost.restore(&["--fill"]).expect(2).says(&[why, "--replace"]);
    }
    let staging = lost.runtime.block_on(lost.client.tables("staging")).unwrap_or_default();
    assert_eq!(staging, Vec::<Value>::new());
}
