//! Problems of made-up runs, and what becomes of them when somebody closes them or alters a record.

use super::*;
use crate::evidence::{History, PlanUsed, Ran};
use schemas::plan::Objective as Aim;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

fn evidence_of(summary: Value, exit: Exit, errors: &[&str]) -> Evidence {
    let day = Duration::from_hours(24);
    let ran = Ran {
        plan: PlanUsed { path: "rekindle.toml".into(), sha256: None },
        objectives: &[("redis", Aim { rto: day, rpo: day })],
        alloydb_rpo: None,
        exit,
        errors: errors.iter().map(ToString::to_string).collect(),
        history: History::default(),
        now_ms: now_ms(),
    };
    Evidence::of(summary, ran)
}

fn summary(run_id: &str) -> Value {
    json!({"command": "rebuild redis", "run_id": run_id, "status": "done", "rejects": 0,
        "seconds_since_loss": 60.0, "clock_from": "start"})
}

/// Identity and exit code of each problem of one piece of evidence.
fn found(summary: Value, exit: Exit, errors: &[&str]) -> Vec<(String, u8)> {
    let evidence = [(7, evidence_of(summary, exit, errors))];
    problems_of(&evidence).into_iter().map(|problem| (problem.id, problem.exit_code)).collect()
}

fn named(problems: &[(&str, u8)]) -> Vec<(String, u8)> {
    problems.iter().map(|(id, code)| ((*id).to_owned(), *code)).collect()
}

#[test]
fn what_is_a_problem_is_told_by_the_end_and_the_figures_of_a_run() {
    assert_eq!(found(summary("r"), Exit::Done, &[]), []);
    assert_eq!(found(summary("r"), Exit::Unreachable, &["away"]), named(&[("7.failed", 3)]));
    let mut late = summary("r");
    late["seconds_since_loss"] = json!(90_000.0);
    assert_eq!(found(late.clone(), Exit::Objective, &[]), named(&[("7.missed", 6)]));
    late["rejects"] = json!(3);
    let both = found(late, Exit::Rejects, &[]);
    assert_eq!(both, named(&[("7.missed", 6), ("7.rejects", 7)]));
    let mut held = summary("r");
    held["tables"] = json!([{"table": "d.t", "held": ["20251101", "20251103"]}]);
    let problems = problems_of(&[(7, evidence_of(held, Exit::Difference, &["lost"]))]);
    assert_eq!(problems[0].id, "7.held");
    assert!(problems[0].what.ends_with("d.t$20251101, d.t$20251103"), "{}", problems[0].what);
    assert_eq!(found(summary("r"), Exit::Difference, &["differs"]), named(&[("7.held", 4)]));
}

#[test]
fn a_run_that_was_stopped_is_a_problem_until_it_goes_on() {
    let stopped = evidence_of(summary("r"), Exit::Terminated, &[]);
    let other = evidence_of(summary("s"), Exit::Done, &[]);
    let ids = |evidence: &[(u64, Evidence)]| -> Vec<String> {
        problems_of(evidence).into_iter().map(|problem| problem.id).collect()
    };
    assert_eq!(ids(&[(1, stopped.clone()), (2, other)]), ["1.failed"]);
    let resumed = evidence_of(summary("r"), Exit::Done, &[]);
    assert_eq!(ids(&[(1, stopped), (2, resumed)]), Vec::<String>::new());
}

/// A state folder with a failed run, one that was late, and one that is done.
fn state() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let mut late = summary("late");
    late["seconds_since_loss"] = json!(90_000.0);
    for (summary, exit, errors) in [
        (late, Exit::Objective, &[][..]),
        (summary("failed"), Exit::Unreachable, &["away"][..]),
        (summary("done"), Exit::Done, &[][..]),
    ] {
        Chain::of_state(state.path()).add(&evidence_of(summary, exit, errors)).unwrap();
    }
    state
}

fn ids(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.id.as_str()).collect()
}

#[tokio::test]
async fn problems_come_first_stay_open_until_closed_and_reviews_are_remembered() {
    let state = state();
    let first = review(state.path(), Some("anna")).await.unwrap();
    assert_eq!((first.last_review, first.runs.len()), (None, 3));
    assert_eq!(ids(&first.problems), ["2.failed", "1.missed"]);
    let recorded = first.recorded.unwrap();
    assert_eq!((recorded.by.as_str(), recorded.evidence_through, recorded.runs), ("anna", 3, 3));
    assert_eq!(recorded.open, ["2.failed", "1.missed"]);
    // The next review has no new runs, and the problems are as they were.
    let second = review(state.path(), None).await.unwrap();
    assert_eq!((second.runs.len(), second.recorded), (0, None));
    assert_eq!(second.last_review.as_ref().map(|review| review.by.as_str()), Some("anna"));
    assert_eq!(ids(&second.problems), ["2.failed", "1.missed"]);
    // One is closed by its name, one by its run.
    close(state.path(), "2.failed", "ben", "the network was down").await.unwrap();
    let third = review(state.path(), None).await.unwrap();
    assert_eq!((ids(&third.problems), ids(&third.closed)), (vec!["1.missed"], vec!["2.failed"]));
    let text = third.render(state.path());
    assert!(
        text.contains("closed by ben at ") && text.contains(": the network was down"),
        "{text}"
    );
    assert!(text.find("1.missed") < text.find("2.failed"), "{text}");
    assert!(
        text.ends_with("to close one: rekindle log close 1.missed --by NAME --note TEXT\n"),
        "{text}"
    );
    assert_eq!(third.worst(), Exit::Objective);
    close(state.path(), "late", "ben", "known").await.unwrap();
    assert_eq!(review(state.path(), None).await.unwrap().worst(), Exit::Done);
    // What is closed cannot be closed again, nor what never was.
    let error = close(state.path(), "2.failed", "eve", "x").await.unwrap_err();
    assert!(error.to_string().contains("2.failed was closed by ben at "), "{error}");
    let error = close(state.path(), "9.failed", "eve", "x").await.unwrap_err();
    assert!(error.to_string().starts_with("there is no problem 9.failed in "), "{error}");
}

#[tokio::test]
async fn an_altered_review_and_evidence_that_is_gone_are_found_out() {
    let state = state();
    close(state.path(), "2.failed", "ben", "the network was down").await.unwrap();
    review(state.path(), Some("anna")).await.unwrap();
    // WHEN a closing is altered THEN nothing is told, and the file is named
    let path = state.path().join("reviews/000001-close.json");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("ben", "eve")).unwrap();
    let error = review(state.path(), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Difference);
    assert!(
        error.to_string().contains("000001-close.json is not what its manifest seals"),
        "{error}"
    );
    assert!(close(state.path(), "1.missed", "eve", "x").await.is_err());
    fs::write(&path, good).unwrap();
    assert!(review(state.path(), None).await.is_ok());
    // WHEN the end of the evidence is cut off THEN the review still knows that it was there
    let last = Chain::of_state(state.path()).list().unwrap().pop().unwrap().path;
    let seal = last.with_extension("sha256");
    let [evidence, manifest] = [&last, &seal].map(|path| fs::read(path).unwrap());
    fs::remove_file(&last).unwrap();
    fs::remove_file(&seal).unwrap();
    assert_eq!(Chain::of_state(state.path()).faults().unwrap(), []);
    let error = review(state.path(), None).await.unwrap_err().to_string();
    assert!(
        error.contains("evidence 3, which anna reviewed at ") && error.ends_with("is gone"),
        "{error}"
    );
    // WHEN another one takes its place THEN that is found out as well
    Chain::of_state(state.path()).add(&evidence_of(summary("other"), Exit::Done, &[])).unwrap();
    let error = review(state.path(), None).await.unwrap_err().to_string();
    assert!(error.ends_with("is another one now"), "{error}");
    let other = Chain::of_state(state.path()).list().unwrap().pop().unwrap().path;
    fs::remove_file(other.with_extension("sha256")).unwrap();
    fs::remove_file(other).unwrap();
    fs::write(&seal, manifest).unwrap();
    fs::write(&last, evidence).unwrap();
    assert!(review(state.path(), None).await.is_ok());
}
