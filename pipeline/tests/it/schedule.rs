//! Schedules of backups: the line for the crontab, and runs that did not happen.
//!
//! Invariant: cron is played by running the very line that was printed; time is shifted by records that are older.

use crate::cloud::{Cloud, plain};
use crate::world::Ran;
use jiff::Timestamp;
use rekindle::evidence::Chain;
use rekindle::schedule::Record;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A schedule as it would have been recorded so many minutes ago.
fn recorded(state: &Path, cron: &str, minutes: i64) {
    let record = Record {
        format: 1,
        command: "backup bigquery".into(),
        cron: Some(cron.into()),
        time_zone: Some("UTC".into()),
        line: None,
        recorded_at: (Timestamp::now() - jiff::SignedDuration::from_mins(minutes)).to_string(),
        run_by: "tester".into(),
    };
    Chain::of_records(state, "schedules").seal("backup-bigquery", &record).unwrap();
}

fn run(cloud: &Cloud, words: &[&str]) -> Ran {
    Ran::of(&cloud.command(words).env("TZ", "UTC").output().unwrap())
}

fn state(cloud: &Cloud) -> std::path::PathBuf {
    cloud.folder.path().join(".rekindle")
}

#[test]
fn the_line_for_the_crontab_runs_the_backup() {
    let cloud = plain();
    cloud.insert(1, 0..50);
    // WHEN a schedule is asked for THEN a line is printed, and nothing is backed up
    let told = run(&cloud, &["backup", "bigquery", "--schedule", "0  3 * * *"]).expect(0).says(&[
        "schedules/000001-backup-bigquery.json",
        "crontab -e",
        "empty environment",
    ]);
    let line = told.stdout.strip_suffix('\n').unwrap();
    assert!(line.starts_with("0 3 * * * /") && !line.contains('\n'), "{line}");
    let folder = cloud.folder.path().canonicalize().unwrap();
    for word in
        [" backup bigquery --plan ", "/rekindle.toml --state ", "/.rekindle --log-level warn"]
    {
        assert!(line.contains(word), "{word} is not in {line}");
    }
    assert_eq!(cloud.redis.cli(&["DBSIZE"]).unwrap().trim(), "0");
    // AND the line works from anywhere, with the environment of cron
    let command = line.strip_prefix("0 3 * * * ").unwrap();
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir("/")
        .env_clear()
        .output()
        .unwrap();
    Ran::of(&output).expect(0);
    cloud.assert_same("id, name, ts");
    assert!(folder.join(".rekindle/journal.sqlite").exists());
    // AND status and check know the schedule
    let status = run(&cloud, &["status", "--json"]).expect(0).summary();
    let schedule = &status["schedules"][0];
    assert_eq!((&schedule["cron"], &schedule["time_zone"]), (&"0 3 * * *".into(), &"UTC".into()));
    assert!(schedule["next_at"].as_str().unwrap().ends_with("T03:00:00Z"), "{schedule}");
    assert_eq!(
        (schedule["missed"].as_array().unwrap().len(), &schedule["is_behind"]),
        (0, &false.into())
    );
    run(&cloud, &["check"])
        .expect(0)
        .shows(&["OK       schedule of backup bigquery: \"0 3 * * *\" (UTC)"]);
    // AND it can be taken back
    let off = run(&cloud, &["backup", "bigquery", "--schedule", "off"]).expect(0);
    assert_eq!(off.stdout, "");
    assert!(off.stderr.contains("no backup is expected any more"), "{}", off.stderr);
    let status = run(&cloud, &["status", "--json"]).expect(0).summary();
    assert_eq!(status.get("schedules"), None, "{status}");
}

#[test]
fn what_was_asked_for_beside_it_is_in_the_line() {
    let cloud = plain();
    let words = ["backup", "bigquery", "--schedule", "*/30 * * * *", "--full", "--route", "logs"];
    let more = ["--log-level", "info", "--on-problem", "mail -s '%' ops", "--json"];
    let told = run(&cloud, &[&words[..], &more].concat()).expect(0).summary();
    let line = told["line"].as_str().unwrap();
    for part in [
        "--log-level info --progress none --route logs --full --retry-for 2m",
        r"--on-problem 'mail -s '\''\%'\'' ops'",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(told["next_at"].is_string() && told["schedule"] == "*/30 * * * *", "{told}");
}

#[test]
fn a_schedule_that_is_none_is_refused_and_nothing_is_recorded() {
    let cloud = plain();
    for (bad, told) in [
        ("@daily", "this has 1"),
        ("0 3 * * * root", "this has 6"),
        ("0 25 * * *", "field hour (\"25\"): \"25\" is no number from 0 to 23"),
        ("0 3 30 2 *", "names no day that there is"),
    ] {
        run(&cloud, &["backup", "bigquery", "--schedule", bad]).expect(2).says(&[told]);
    }
    run(&cloud, &["backup", "bigquery", "--schedule", "0 3 * * *", "--fresh"]).expect(2);
    cloud.plan("[[route]]\nname = \"r\"\ntable = \"bigquery:d.t\"\nkey = \"r:{id}\"\ntype = \"hash\"\non_collision = \"error\"\n");
    run(&cloud, &["backup", "bigquery", "--schedule", "0 3 * * *"])
        .expect(2)
        .says(&["has no backup route"]);
    assert!(!state(&cloud).exists());
}

#[test]
fn a_run_that_did_not_happen_is_listed_as_missed_until_it_is_closed() {
    let cloud = plain();
    cloud.insert(1, 0..50);
    // GIVEN an hourly schedule since half a day, and one backup, just now
    recorded(&state(&cloud), "0 * * * *", 12 * 60);
    cloud.backup(&[]).expect(0);
    // THEN the hours before are MISSED, in one piece, and nothing is behind
    let status = || run(&cloud, &["status", "--json"]).expect(0).summary();
    let missed = status()["schedules"][0]["missed"].clone();
    assert_eq!(missed.as_array().unwrap().len(), 1, "{missed}");
    assert!(missed[0]["times"].as_u64().unwrap() >= 10, "{missed}");
    let id = missed[0]["id"].as_str().unwrap().to_owned();
    run(&cloud, &["status"])
        .expect(0)
        .shows(&["schedule of backup bigquery: \"0 * * * *\" (UTC)", "MISSED 1"]);
    run(&cloud, &["check"])
        .expect(0)
        .shows(&["OK       schedule of backup bigquery: ", "MISSED 1"]);
    // AND the log lists them as a problem
    let review = run(&cloud, &["log", "review", "--json"]).expect(0).summary();
    let problem = &review["problems"][0];
    assert_eq!(
        (&problem["id"], &problem["kind"]),
        (&Value::from(id.as_str()), &"schedule".into()),
        "{review}"
    );
    run(&cloud, &["log", "review", "--strict"])
        .expect(6)
        .shows(&["MISSED ", "times: no run from "]);
    // WHEN they are closed THEN they are told no more, but who closed them is
    run(&cloud, &["log", "close", &id, "--by", "anna", "--note", "the machine was off"]).expect(0);
    assert_eq!(status()["schedules"][0]["missed"], Value::Array(Vec::new()));
    let review = run(&cloud, &["log", "review", "--json"]).expect(0).summary();
    assert_eq!(review["problems"], Value::Array(Vec::new()), "{review}");
    assert_eq!(
        (&review["closed"][0]["id"], &review["closed"][0]["closed"]["by"]),
        (&Value::from(id.as_str()), &"anna".into())
    );
    run(&cloud, &["log", "review", "--strict"]).expect(0);
}

#[test]
fn a_schedule_that_is_behind_ends_status_with_6_and_an_altered_one_is_unknown() {
    // GIVEN a state folder with a schedule, and nothing else
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join(".rekindle");
    recorded(&state, "0 * * * *", 12 * 60);
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        Ran::of(&command.args(words).current_dir(folder.path()).env_clear().output().unwrap())
    };
    run(&["status"]).expect(6).shows(&["no run yet", "schedule of backup bigquery: ", "MISSED 1"]);
    assert_eq!(run(&["status", "--json"]).expect(6).summary()["schedules"][0]["is_behind"], true);
    run(&["log", "review", "--strict"]).expect(6);
    // WHEN the record is altered THEN nothing is told of it but that
    let path = state.join("schedules/000001-backup-bigquery.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("0 * * * *", "0 0 1 1 *")).unwrap();
    run(&["status"])
        .expect(0)
        .shows(&["UNKNOWN: schedules: ", "000001-backup-bigquery.json is not what"]);
    run(&["log", "review"]).expect(4).says(&["000001-backup-bigquery.json"]);
}
