//! Evidence of made-up runs, and chains that somebody altered.

use super::*;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;

const DAY: u64 = 86_400;

fn aims() -> [(&'static str, Aim); 2] {
    let day = Duration::from_secs(DAY);
    [("redis", Aim { rto: day, rpo: day }), ("bigquery", Aim { rto: day, rpo: day })]
}

fn ran<'a>(aims: &'a [(&'static str, Aim)], exit: Exit) -> Ran<'a> {
    Ran {
        plan: PlanUsed { path: "rekindle.toml".into(), sha256: Some(sha256(b"")) },
        objectives: aims,
        alloydb_rpo: None,
        exit,
        errors: Vec::new(),
        history: History::default(),
        now_ms: 1_790_000_000_000,
    }
}

fn summary() -> Value {
    json!({
        "command": "rebuild redis", "run_id": "r1", "status": "done", "clock_from": "loss",
        "lost_at": "2026-11-29T10:00:00Z", "started_at": "2026-11-29T11:00:00.5Z",
        "ended_at": "2026-11-29T12:00:00Z", "data_as_of": "2026-11-29T11:00:01Z",
        "seconds_since_loss": 7200.0, "rto_seconds": DAY, "rpo_seconds": 0.0, "rejects": 0,
        "priorities": [{"priority": 1, "seconds": 60.25}],
        "verified": {"tier": "sample", "differences": 0, "detects": "any missing key"},
        "warnings": ["a warning"],
    })
}

fn of(summary: Value, exit: Exit) -> Evidence {
    let aims = aims();
    Evidence::of(summary, ran(&aims, exit))
}

#[test]
fn the_backups_of_alloydb_are_an_objective_that_a_run_does_not_ask_for() {
    let aims = aims();
    let hours = Some(Duration::from_hours(2));
    let named = Evidence::of(summary(), Ran { alloydb_rpo: hours, ..ran(&aims, Exit::Done) });
    assert_eq!(named.objectives.len(), 5);
    let alloydb = serde_json::to_value(&named.objectives[4]).unwrap();
    assert_eq!(
        alloydb,
        json!({
            "system": "alloydb", "name": "RPO", "target_seconds": 7_200, "measured_seconds": null,
            "margin_seconds": null, "verdict": "unknown",
            "how": "not asked by a run; see `rekindle status`",
        })
    );
    // Where the plan names no cluster there is nothing to ask, and no such objective.
    assert_eq!(of(summary(), Exit::Done).objectives.len(), 4);
}

#[test]
fn objectives_are_met_missed_or_unknown_and_say_how() {
    let verdicts = |evidence: &Evidence| {
        evidence
            .objectives
            .iter()
            .map(|found| (found.system.clone(), found.name.clone(), found.verdict))
            .collect::<Vec<_>>()
    };
    let done = of(summary(), Exit::Done);
    let expected = |rto, rpo| {
        let row = |system: &str, name: &str, verdict| (system.to_owned(), name.to_owned(), verdict);
        vec![
            row("redis", "RTO", rto),
            row("redis", "RPO", rpo),
            row("bigquery", "RTO", Verdict::Unknown),
            row("bigquery", "RPO", Verdict::Unknown),
        ]
    };
    assert_eq!(verdicts(&done), expected(Verdict::Met, Verdict::Met));
    assert_eq!(done.objectives[0].margin_seconds, Some(79_200.0));
    assert!(done.objectives[0].how.starts_with("from the loss"), "{}", done.objectives[0].how);

    let mut late = summary();
    late["seconds_since_loss"] = json!(90_000.0);
    late["clock_from"] = json!("start");
    let late = of(late, Exit::Objective);
    assert_eq!(verdicts(&late), expected(Verdict::Missed, Verdict::Met));
    assert!(late.objectives[0].how.contains("not from the loss"));

    // What did not end as asked has met nothing, however fast it was.
    let failed = of(summary(), Exit::Unreachable);
    assert_eq!(verdicts(&failed), expected(Verdict::Unknown, Verdict::Unknown));
    assert!(failed.objectives[0].how.ends_with("did not end as done, so nothing is met"));
    // Nor has what was not read back, or left ranges out.
    for status in ["unverified", "partial"] {
        let mut other = summary();
        other["status"] = json!(status);
        assert_eq!(verdicts(&of(other, Exit::Done)), expected(Verdict::Unknown, Verdict::Unknown));
    }
    // A backup recovers nothing.
    let mut backup = summary();
    backup["command"] = json!("backup bigquery");
    let backup = of(backup, Exit::Done);
    assert_eq!(verdicts(&backup), expected(Verdict::Unknown, Verdict::Unknown));
}

#[test]
fn the_timeline_is_in_order_and_tells_of_every_process() {
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let point = |text: &str, rows| Point { at_ms: at(text), rows, bytes: 0 };
    let aims = aims();
    let mut ran = ran(&aims, Exit::Done);
    ran.history.processes = vec![
        vec![point("2026-11-29T11:00:01Z", 0), point("2026-11-29T11:10:00Z", 500)],
        vec![point("2026-11-29T11:20:00Z", 480), point("2026-11-29T12:00:00Z", 1_000)],
    ];
    let evidence = Evidence::of(summary(), ran);
    let told: Vec<&str> = evidence.timeline.iter().map(|event| event.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "declared lost",
            "run started",
            "oldest source state that is shown",
            "priority 1 complete",
            "process 1 was last seen, at 500 rows",
            "process 2 went on from 480 rows",
            "run ended",
        ]
    );
    assert_eq!(evidence.timeline[3].at, "2026-11-29T11:01:00.75Z");
}

#[test]
fn findings_and_gaps_are_listed() {
    let mut summary = summary();
    summary["rejects"] = json!(3);
    summary["verified"]["differences"] = json!(2);
    summary["drift"] = json!([{"table": "public.builds", "column": "who", "change": "dropped"}]);
    summary["files"] = json!([{"path": "dump.rdb"}]);
    let aims = aims();
    let mut ran = ran(&aims, Exit::Rejects);
    ran.errors = vec!["three rows".to_owned()];
    let evidence = Evidence::of(summary, ran);
    assert_eq!(
        evidence.findings,
        [
            "three rows",
            "3 rows were rejected; rekindle rejects list names them",
            "2 keys differed when they were read back",
            "public.builds: column who was dropped",
            "a warning",
        ]
    );
    let gaps = evidence.not_tested.join("\n");
    for gap in [
        "UNKNOWN",
        "no application read",
        "values outside the sample; it detects any missing key",
        "not loaded into a server",
    ] {
        assert!(gaps.contains(gap), "{gaps}");
    }
    let mut unverified = self::summary();
    unverified["verified"]["tier"] = json!("none");
    assert!(
        of(unverified, Exit::Done)
            .not_tested
            .iter()
            .any(|gap| gap == "what was written was not read back")
    );
}

#[test]
fn equal_values_have_equal_bytes() {
    let one = json!({"b": [1, {"z": 0.5, "a": null}], "a": "é\n"});
    let other: Value =
        serde_json::from_str(r#"{ "a": "\u00e9\n", "b": [1, {"a": null, "z": 0.5}] }"#).unwrap();
    assert_eq!(canonical(&one), canonical(&other));
    assert_eq!(canonical(&one), "{\"a\":\"é\\n\",\"b\":[1,{\"a\":null,\"z\":0.5}]}");
}

/// A chain of three, in a folder of its own.
fn chain() -> (tempfile::TempDir, Chain, Vec<std::path::PathBuf>) {
    let state = tempfile::tempdir().unwrap();
    let chain = Chain::of_state(state.path());
    assert_eq!((chain.list().unwrap().len(), chain.faults().unwrap()), (0, Vec::new()));
    let add = |number: u32| {
        let mut summary = summary();
        summary["run_id"] = json!(format!("r{number}"));
        chain.add(&of(summary, Exit::Done)).unwrap()
    };
    let paths = (1..=3).map(add).collect();
    assert_eq!(chain.faults().unwrap(), Vec::new());
    (state, chain, paths)
}

fn faults(chain: &Chain) -> Vec<(String, &'static str)> {
    chain.faults().unwrap().into_iter().map(|fault| (fault.file, fault.what)).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn evidence_is_numbered_sealed_and_read_back() {
    let (_state, chain, paths) = chain();
    assert_eq!(name(&paths[0]), "000001-rebuild-redis-r1.json");
    let entries = chain.list().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3]);
    let read = Chain::read(&entries[2]).unwrap();
    assert_eq!((read.run_id.as_str(), read.format), ("r3", FORMAT));
    // What `sha256sum` reads: its own line, then that of the manifest before.
    let manifest = fs::read_to_string(paths[1].with_extension("sha256")).unwrap();
    let names: Vec<&str> = manifest.lines().map(|line| line.split("  ").nth(1).unwrap()).collect();
    assert_eq!(names, ["000002-rebuild-redis-r2.json", "000001-rebuild-redis-r1.sha256"]);
}

#[test]
fn whatever_is_altered_is_told_by_name() {
    let altered = "is not what its manifest seals";
    let (_state, chain, paths) = chain();
    let good = fs::read(&paths[1]).unwrap();
    let mut bytes = good.clone();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&paths[1], &bytes).unwrap();
    assert_eq!(faults(&chain), [(name(&paths[1]), altered)]);

    // Sealing what was altered anew breaks the seal of the next one.
    let seal = paths[1].with_extension("sha256");
    let manifest = fs::read_to_string(&seal).unwrap();
    let resealed =
        format!("{}  {}\n{}\n", sha256(&bytes), name(&paths[1]), manifest.lines().nth(1).unwrap());
    fs::write(&seal, resealed).unwrap();
    assert_eq!(faults(&chain), [(name(&paths[2]), "does not seal the manifest before it")]);
    fs::write(&seal, &manifest).unwrap();
    fs::write(&paths[1], &good).unwrap();
    assert_eq!(faults(&chain), []);

    // A line too many is an alteration as well.
    fs::write(&seal, format!("{manifest}x\n")).unwrap();
    assert_eq!(faults(&chain)[0].0, name(&paths[1]));
    fs::write(&seal, &manifest).unwrap();

    fs::remove_file(&seal).unwrap();
    assert_eq!(faults(&chain)[0], (name(&paths[1]), "was never sealed, or its manifest is gone"));
    fs::write(&seal, &manifest).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    assert_eq!(faults(&chain), [(name(&seal), "its evidence is gone")]);
    fs::remove_file(&seal).unwrap();
    assert_eq!(faults(&chain), [(name(&paths[2]), "stands behind a number that is missing")]);
}

#[test]
fn a_program_that_is_killed_while_it_seals_leaves_evidence_or_none() {
    let (_state, chain, paths) = chain();
    let staged = |kind: &str| paths[2].with_extension(kind);
    // Killed between the two names: whoever looks next gives the evidence its own.
    fs::rename(&paths[2], staged("json.tmp")).unwrap();
    assert_eq!(faults(&chain), []);
    assert!(paths[2].exists() && !staged("json.tmp").exists());
    // Killed before: there is no third one yet, and the next one takes its number.
    fs::rename(&paths[2], staged("json.tmp")).unwrap();
    fs::rename(staged("sha256"), staged("sha256.tmp")).unwrap();
    assert_eq!((faults(&chain).len(), chain.list().unwrap().len()), (0, 2));
    let mut summary = summary();
    summary["run_id"] = json!("r3");
    assert_eq!(chain.add(&of(summary, Exit::Done)).unwrap(), paths[2]);
    assert_eq!((faults(&chain).len(), chain.list().unwrap().len()), (0, 3));
    assert!(!staged("json.tmp").exists() && !staged("sha256.tmp").exists());
}

#[test]
fn evidence_of_a_newer_program_is_refused() {
    let (_state, chain, paths) = chain();
    let text = fs::read_to_string(&paths[0]).unwrap();
    fs::write(&paths[0], text.replacen("\"format\":1", "\"format\":2", 1)).unwrap();
    let entry = &chain.list().unwrap()[0];
    let error = Chain::read(entry).unwrap_err().to_string();
    assert!(error.contains("format 2 is of a newer rekindle"), "{error}");
    fs::write(&paths[0], "{").unwrap();
    assert!(Chain::read(entry).is_err());
}

#[tokio::test]
async fn a_recording_has_a_list_of_points_per_process() {
    use crate::checkpoint::Counts;
    use crate::progress::Counters;
    use std::sync::Arc;

    let state = tempfile::tempdir().unwrap();
    let counters = Arc::new(Counters::new(&["a".to_owned()], 0, DAY));
    for process in 0..2_u64 {
        let recording = Recording::begin(state.path(), "r1", &counters).unwrap();
        counters.add(0, &Counts { rows: 10, bytes: 100, ..Counts::default() });
        drop(recording);
        let history = History::read(state.path(), "r1");
        let last = history.processes.last().unwrap().last().unwrap();
        assert_eq!((last.rows, last.bytes), ((process + 1) * 10, (process + 1) * 100));
        // The next process has another name, that of its start.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(History::read(state.path(), "r1").processes.len(), 2);
    assert_eq!(History::read(state.path(), "other"), History::default());
    // A line that a kill cut off is left out.
    let folder = state.path().join("runs/r1/history");
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}{{\"at_ms\":1,\"ro")).unwrap();
    assert_eq!(History::read(state.path(), "r1").processes.len(), 2);
}

#[test]
fn a_drill_tells_its_objectives_phases_and_differences_itself() {
    let objective = json!({
        "system": "redis", "name": "RTO", "target_seconds": 60, "measured_seconds": 5.0,
        "margin_seconds": 55.0, "verdict": "unknown", "how": "in a scratch",
    });
    let mut drill = summary();
    drill["command"] = json!("drill");
    drill["objectives"] = json!([objective]);
    drill["phases"] = json!([{
        "name": "rebuild redis", "started_at": "2026-11-29T11:30:00Z", "seconds": 1.0,
        "since_loss": 2.0, "outcome": "done",
    }]);
    drill["differences"] = json!(["route a: key a:1: missing"]);
    let evidence = of(drill, Exit::Difference);
    assert_eq!(serde_json::to_value(&evidence.objectives).unwrap(), json!([objective]));
    let told: Vec<&str> = evidence.timeline.iter().map(|event| event.what.as_str()).collect();
    assert!(told.contains(&"rebuild redis: done"), "{told:?}");
    assert_eq!(evidence.findings[0], "route a: key a:1: missing");
    // Nothing else may tell objectives of itself.
    let mut rebuild = summary();
    rebuild["objectives"] = json!([objective]);
    assert_eq!(of(rebuild, Exit::Done).objectives.len(), 4);
}
