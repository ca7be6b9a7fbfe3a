//! The command line as it is typed: help texts, refusals, exit codes, and `check` and `status` against real servers.

use clap::CommandFactory;
use fixtures::servers::{Postgres, PostgresOptions, Redis, RedisOptions};
use rekindle::cli::args::Cli;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const PLAN: &str = r#"
[alloydb]
url = "${env:ALLOYDB_URL}"
[redis]
url = "${env:REDIS_URL}"
[[route]]
name = "builds"
table = "alloydb:public.builds"
key = "build:{id}"
type = "hash"
"#;

/// Returns the long help of the command at `path`, at a fixed width.
fn help(path: &[&str]) -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut found = &mut command;
    for name in path {
        found = found.find_subcommand_mut(name).unwrap();
    }
    found.render_long_help().to_string()
}

/// Runs the program in `folder` with nothing of this process's environment that could steer it.
fn rekindle(folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .args(words)
        .current_dir(folder)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn code_and_stderr(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn folder_with(plan: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rekindle.toml"), plan).unwrap();
    folder
}

#[test]
fn help_of_the_program() {
    insta::assert_snapshot!(help(&[]));
}

#[test]
fn help_of_check() {
    insta::assert_snapshot!(help(&["check"]));
}

#[test]
fn help_of_plan() {
    insta::assert_snapshot!(help(&["plan"]));
}

#[test]
fn help_of_rebuild_redis() {
    insta::assert_snapshot!(help(&["rebuild", "redis"]));
}

#[test]
fn help_of_backup_bigquery() {
    insta::assert_snapshot!(help(&["backup", "bigquery"]));
}

#[test]
fn help_of_restore_bigquery() {
    insta::assert_snapshot!(help(&["restore", "bigquery"]));
}

#[test]
fn help_of_verify_bigquery() {
    insta::assert_snapshot!(help(&["verify", "bigquery"]));
}

#[test]
fn help_of_verify_redis() {
    insta::assert_snapshot!(help(&["verify", "redis"]));
}

#[test]
fn help_of_init() {
    insta::assert_snapshot!(help(&["init"]));
}

#[test]
fn help_of_status() {
    insta::assert_snapshot!(help(&["status"]));
}

#[test]
fn help_of_rejects_replay() {
    insta::assert_snapshot!(help(&["rejects", "replay"]));
}

#[test]
fn help_of_state_export() {
    insta::assert_snapshot!(help(&["state", "export"]));
}

#[test]
fn help_of_state_reset() {
    insta::assert_snapshot!(help(&["state", "reset"]));
}

#[test]
fn help_of_report() {
    insta::assert_snapshot!(help(&["report"]));
}

#[test]
fn help_of_log_review() {
    insta::assert_snapshot!(help(&["log", "review"]));
}

#[test]
fn help_of_log_close() {
    insta::assert_snapshot!(help(&["log", "close"]));
}

#[test]
fn help_of_bench() {
    insta::assert_snapshot!(help(&["bench"]));
}

#[test]
fn help_of_drill() {
    insta::assert_snapshot!(help(&["drill"]));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for words in [&["demo"][..], &["demo", "redis", "--tier", "count"], &["demo", "--help"]] {
        let output = rekindle(folder.path(), words, &[]);
        let (code, text) = code_and_stderr(&output);
        let expected =
            format!("error: `rekindle {}` is not built yet\nhint: rekindle --help\n", words[0]);
        assert_eq!((code, text, stdout(&output)), (Some(2), expected, String::new()));
    }
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for words in
        [&[][..], &["rebuild"], &["rebuild", "bigquery"], &["plan", "--lanes", "65"], &["--fresh"]]
    {
        assert_eq!(rekindle(folder.path(), words, &[]).status.code(), Some(2), "{words:?}");
    }
    for words in [&["--help"][..], &["--version"], &["rebuild", "redis", "-h"]] {
        assert_eq!(rekindle(folder.path(), words, &[]).status.code(), Some(0), "{words:?}");
    }
}

#[test]
fn a_missing_plan_says_what_to_type_and_makes_no_state() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["plan"][..], &["rebuild", "redis"]] {
        let (code, text) = code_and_stderr(&rekindle(folder.path(), command, &[]));
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.starts_with("error: cannot read the plan rekindle.toml\ncaused by: "),
            "{text}"
        );
        assert!(text.ends_with("hint: name the plan file: rekindle plan --plan FILE\n"), "{text}");
    }
    assert!(!folder.path().join(".rekindle").exists());
}

#[test]
fn every_mistake_of_a_plan_is_told_and_once_more_for_machines() {
    let folder = folder_with("[redis]\nurl = 5\n[alloydb]\nurk = \"postgres://u:secret@h/d\"\n");
    let output = rekindle(folder.path(), &["rebuild", "redis", "--json"], &[]);
    let (code, text) = code_and_stderr(&output);
    assert_eq!((code, stdout(&output)), (Some(2), String::new()), "{text}");
    let (objects, lines): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with('{'));
    let told = lines.iter().filter(|line| line.starts_with("error: rekindle.toml line ")).count();
    assert!(told >= 2 && told == objects.len(), "{text}");
    for object in objects {
        let object: serde_json::Value = serde_json::from_str(object).unwrap();
        assert_eq!((&object["message_type"], &object["code"]), (&"error".into(), &2.into()));
    }
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn status_without_a_journal_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let output = rekindle(folder.path(), &["status"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "no run yet in .rekindle; start one: rekindle rebuild redis\n");
    let output = rekindle(folder.path(), &["status", "--json"], &[("REKINDLE_STATE", "elsewhere")]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        object,
        serde_json::json!({ "command": "status", "state": "elsewhere", "run": null })
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn check_of_systems_that_are_away_exits_with_3() {
    let folder = folder_with(PLAN);
    // Ports of which nobody can be the server: they are privileged and unassigned.
    let variables = [
        ("ALLOYDB_URL", "postgres://app:secret@127.0.0.1:1/app"),
        ("REDIS_URL", "redis://:secret@127.0.0.1:1"),
    ];
    let output = rekindle(folder.path(), &["check"], &variables);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("FAILED   alloydb: ") && text.contains("FAILED   redis: "), "{text}");
    assert!(text.contains("UNKNOWN  routes: ") && text.contains("OK       plan: "), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn check_looks_at_every_control() {
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let folder = folder_with(PLAN);
    let (alloydb_url, redis_url) = (postgres.url(), redis.url());
    let variables = [("ALLOYDB_URL", alloydb_url.as_str()), ("REDIS_URL", redis_url.as_str())];
    let run = |words: &[&str]| rekindle(folder.path(), words, &variables);

    // GIVEN no table: the route fails, with what there is instead of it.
    let output = run(&["check"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("FAILED   route builds: table public.builds does not exist"), "{text}");

    // GIVEN a table that was never analysed: unknown is no failure, unless asked to be one.
    postgres.psql("create table builds (id bigint primary key, status text)").unwrap();
    let output = run(&["check"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("UNKNOWN  route builds: rows: public.builds was never analysed"),
        "{text}"
    );
    assert!(text.contains("OK       redis access: user default may run every command"), "{text}");
    assert!(code_and_stderr(&output).1.contains("warning: "));
    assert_eq!(run(&["check", "--strict"]).status.code(), Some(2));

    // GIVEN an analysed one: nothing fails, and nothing was left behind anywhere.
    postgres.psql("insert into builds values (1, 'ok'); analyze builds").unwrap();
    let output = run(&["check", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&object["failed"], &object["code"]), (&0.into(), &0.into()), "{object:#}");
    assert_eq!(redis.dbsize().unwrap(), 0);
    assert!(!folder.path().join(".rekindle").exists());
}

#[test]
fn check_fails_by_the_rights_the_room_and_the_owner_of_redis() {
    let redis = Redis::start(RedisOptions {
        maxmemory: Some("100mb".into()),
        maxmemory_policy: Some("allkeys-lru".into()),
        ..RedisOptions::default()
    })
    .unwrap();
    redis
        .cli(&[
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">secret",
            "~build:*",
            "~rekindle:*",
            "+@all",
            "-eval",
        ])
        .unwrap();
    redis.cli(&["SET", "rekindle:run", "0198 host b at 04:05"]).unwrap();
    let folder = folder_with(PLAN);
    let url = format!("redis://app:secret@127.0.0.1:{}", redis.port());
    let variables = [("ALLOYDB_URL", "postgres://127.0.0.1:1/app"), ("REDIS_URL", url.as_str())];
    let text = stdout(&rekindle(folder.path(), &["check"], &variables));
    assert!(text.contains("FAILED   redis access: user app may not run EVAL on build:0"), "{text}");
    assert!(text.contains("warning: at the limit this server evicts"), "{text}");
    assert!(
        text.contains("FAILED   redis owner: another run is filling it: 0198 host b at 04:05"),
        "{text}"
    );
    assert!(text.contains("--take-over 0198"), "{text}");

    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let text = stdout(&rekindle(folder.path(), &["check"], &variables));
    assert!(text.contains("FAILED   redis memory: "), "{text}");
}

#[test]
fn a_loss_is_answered_without_any_system_and_for_the_whole_plan_only() {
    let folder = folder_with(PLAN);
    // Nothing listens there.
    let away =
        [("ALLOYDB_URL", "postgres://u:p@127.0.0.1:1/d"), ("REDIS_URL", "redis://127.0.0.1:1")];
    let answered = rekindle(folder.path(), &["plan", "--lost", "redis"], &away);
    assert_eq!(answered.status.code(), Some(0), "{}", code_and_stderr(&answered).1);
    assert!(
        stdout(&answered).contains("rekindle rebuild redis --route builds"),
        "{}",
        stdout(&answered)
    );
    let words = ["plan", "--lost", "redis", "--route", "builds"];
    let (code, told) = code_and_stderr(&rekindle(folder.path(), &words, &away));
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.contains("--lost looks at the whole plan") && told.contains("leave --route out"),
        "{told}"
    );
}
