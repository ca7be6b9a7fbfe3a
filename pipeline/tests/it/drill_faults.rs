//! Drills that are refused, killed, late, or find something: what is said, and that nothing which serves is touched.
//!
//! Invariant: a refusal comes before anything was changed, in the scratch too.

use crate::drill::{LINES, Town, USERS, drill_section};
use crate::items::{signal, wait_for_stop};
use crate::net::spawn;
use crate::world::Ran;
use fixtures::servers::Proxy;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use stages::failpoint::{Point, VARIABLE};
use std::os::unix::process::ExitStatusExt;

const USERS_ROUTE: &str = "[[route]]\nname = \"users\"\ntable = \"alloydb:public.users\"\nkey = \"user:{id}\"\ntype = \"hash\"\n";
const COPY_ROUTE: &str = "[[route]]\nname = \"copy\"\ntable = \"bigquery:logs.lines\"\nkey = \"dup:lines\"\ntype = \"blocks\"\n";

/// Refused with these words, before anything was changed.
#[track_caller]
fn refused(town: &Town, (lose, more): (&str, &[&str]), told: &[&str]) {
    let before = (town.scratch.dbsize().unwrap(), town.has_dataset("rekindle_drill"));
    let ran = town.drill(lose, more).expect(2);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    ran.says(told).says(&["error: ", "hint: "]);
    let after = (town.scratch.dbsize().unwrap(), town.has_dataset("rekindle_drill"));
    assert_eq!(before, after);
    assert!(!town.state().join("drill").exists());
    town.assert_untouched();
}

#[test]
fn what_serves_is_no_scratch() {
    let town = Town::new();
    let routes = format!("{USERS_ROUTE}{COPY_ROUTE}");
    // A server of the plan, by its address, by another name of it, or as another of its databases.
    let alias = Proxy::start(town.cache.port()).unwrap();
    let named = format!("redis://127.0.0.1:{}", alias.port());
    let other = format!("{}/3", town.cache.url());
    for (url, section) in [
        (town.cache.url(), "[redis]"),
        (other, "[redis]"),
        (named, "[redis]"),
        (town.duplicate.url(), "[redis.duplicate]"),
    ] {
        town.plan(&drill_section(&url, "rekindle_drill"), &routes);
        for lose in ["redis", "both"] {
            refused(&town, (lose, &[]), &["of [drill] is the server of", section]);
        }
    }
    // A dataset that a route reads, or that other commands write to.
    for dataset in ["logs", "LOGS", "staging"] {
        town.plan(&drill_section(&town.scratch.url(), dataset), &routes);
        refused(&town, ("bigquery", &[]), &["dataset", "of [drill] is", "a drill empties it"]);
    }
}

#[test]
fn a_scratch_that_holds_what_no_drill_left_is_refused() {
    let town = Town::new();
    town.scratch.cli(&["SET", "somebody's", "1"]).unwrap();
    refused(&town, ("redis", &[]), &["holds 1 keys", "no drill left them there"]);
    assert_eq!(town.scratch.cli(&["GET", "somebody's"]).unwrap(), "1");
    town.make_dataset("rekindle_drill");
    town.make_lines("rekindle_drill");
    refused(&town, ("bigquery", &[]), &["holds 1 tables (lines)", "no drill left them there"]);
    assert_eq!(town.sql("SELECT COUNT(*) FROM rekindle_drill.lines"), ["0"]);
}

#[test]
fn what_cannot_be_drilled_is_refused_by_name() {
    let town = Town::new();
    let (redis, routes) = (town.scratch.url(), format!("{USERS_ROUTE}{COPY_ROUTE}"));
    // Without targets.
    town.plan("", &routes);
    refused(&town, ("redis", &[]), &["the plan has no [drill] section"]);
    town.plan("[drill]\ndataset = \"rekindle_drill\"\n", &routes);
    refused(&town, ("both", &[]), &["the plan has no redis in [drill]"]);
    town.plan(&format!("[drill]\nredis = \"{redis}\"\n"), &routes);
    refused(&town, ("bigquery", &[]), &["the plan has no dataset in [drill]"]);
    // Without a backup, and without a duplicate that outlives Redis.
    let other = COPY_ROUTE.replace("dup:lines", "dup:others");
    town.plan(&town.both(), &format!("{USERS_ROUTE}{other}"));
    refused(
        &town,
        ("bigquery", &[]),
        &["route copy has no complete backup", "rekindle backup bigquery"],
    );
    town.plan_with("", &town.both(), &routes);
    refused(&town, ("both", &[]), &["with redis the duplicate of bigquery is lost"]);
    // Keys of a table that nothing restores.
    let counts = "[[route]]\nname = \"counts\"\nquery = \"SELECT id, name FROM logs.lines\"\nfrom = \"bigquery\"\nkey = \"c:{id}\"\ntype = \"hash\"\non_collision = \"error\"\n";
    town.plan(&town.both(), &format!("{routes}{counts}"));
    refused(&town, ("both", &[]), &["route counts is a query"]);
    // Flags that mean nothing here.
    town.plan(&town.both(), &routes);
    refused(
        &town,
        ("redis", &["--route", "copy"]),
        &["--route copy: it has no part in a loss of redis"],
    );
    refused(
        &town,
        ("redis", &["--lost-at", "2026-01-01T00:00:00Z"]),
        &["a drill declares the loss itself"],
    );
    refused(
        &town,
        ("redis", &["--mark", "grants=3"]),
        &["--mark grants: a loss of redis has no such step"],
    );
    town.drill("redis", &["--mark", "repiont=3"]).expect(2).says(&["the steps are declare"]);
    town.drill("alloydb", &[]).expect(2);
}

#[test]
fn production_is_lost_only_where_it_was_confirmed_twice() {
    let town = Town::new();
    town.plan(&drill_section(&town.cache.url(), "rekindle_drill"), USERS_ROUTE);
    let address = format!("127.0.0.1:{}/0", town.cache.port());
    refused(&town, ("redis", &["--in-production"]), &["needs a second confirmation"]);
    refused(&town, ("redis", &["--confirm", &address]), &["--confirm goes with --in-production"]);
    let almost = address.trim_end_matches("/0");
    let words = ["--in-production", "--confirm", almost];
    refused(&town, ("redis", &words), &["--confirm does not name the redis", &address]);
    let words = ["--in-production", "--confirm", &address];
    refused(&town, ("both", &words), &["losing a dataset of production is not built"]);
    // What an application alone keeps there, or the duplicate, would be gone for good.
    town.plan_with(
        "",
        &drill_section(&town.cache.url(), "d"),
        &format!("{USERS_ROUTE}{COPY_ROUTE}"),
    );
    refused(&town, ("redis", &words), &["the duplicate of bigquery lives in that redis"]);
    // A scratch needs no confirmation, and is not taken for production.
    town.plan(&town.both(), USERS_ROUTE);
    refused(&town, ("redis", &words), &["is not that of [redis]"]);

    // WHEN it is confirmed THEN it is emptied, rebuilt, and stays
    town.plan(&drill_section(&town.cache.url(), "rekindle_drill"), USERS_ROUTE);
    let summary = town.drill("redis", &words).expect(0).summary();
    assert_eq!(town.cache.dbsize().unwrap(), USERS, "{summary}");
    assert_eq!(town.cache.cli(&["EXISTS", "of an application", "rekindle:drill"]).unwrap(), "0");
    assert!(summary["torn_down"].to_string().contains("serves; only the mark was removed"));
}

/// Starts a drill that stops at a point, does something, lets it go on, and returns how it ended.
fn held(town: &Town, lose: &str, point: Point, then: impl FnOnce()) -> Ran {
    let mut command = town.command(&Town::words(lose, &[]));
    command.env(VARIABLE, format!("{}:1:hold", point.name()));
    let child = spawn(command);
    wait_for_stop(&child);
    then();
    signal(&child, Signal::SIGCONT);
    Ran::of(&child.wait_with_output().unwrap())
}

/// The evidence and the report name what differs.
#[track_caller]
fn assert_told(town: &Town, summary: &Value, differs: &str) {
    assert_eq!(summary["status"], "failed", "{summary}");
    assert!(summary["differences"].to_string().contains(differs), "{summary}");
    assert!(summary["verdict"].as_str().unwrap().contains("nothing is proven"), "{summary}");
    assert!(summary["within_rto"].is_null(), "{summary}");
    let evidence = town.run(&["report", "--json"]).expect(0).summary();
    assert_eq!(evidence["ended"]["exit_code"], 4);
    assert!(evidence["findings"].to_string().contains(differs), "{evidence}");
    town.run(&["report"]).expect(0).shows(&[differs, "nothing is proven"]);
    town.assert_torn_down();
    town.assert_untouched();
}

#[test]
fn a_key_that_is_altered_after_the_rebuild_is_named() {
    let town = Town::new();
    // Everything of the rebuild is read back by then.
    let ran = held(&town, "redis", Point::MarkReleased, || {
        town.scratch.cli(&["HSET", "user:7", "name", "planted"]).unwrap();
    });
    let summary = ran.expect(4).summary();
    assert_told(&town, &summary, "route users: key user:7: ");
    // AND nothing serves that was not proven
    let phases: Vec<(&str, &str)> = summary["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| (phase["name"].as_str().unwrap(), phase["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(phases[1..3], [("rebuild redis", "done"), ("verify redis", "failed")]);
    assert_eq!(phases.len(), 4, "{phases:?}");
}

#[test]
fn a_row_that_is_altered_after_the_restore_is_found() {
    let town = Town::new();
    // The restore has read all of it back by then.
    let ran = held(&town, "bigquery", Point::DestinationProven, || {
        town.sql("UPDATE rekindle_drill.lines SET name = 'planted' WHERE id = 7");
    });
    let summary = ran.expect(4).summary();
    let told = format!("route copy: table rekindle_drill.lines holds {LINES} rows with digest ");
    assert_told(&town, &summary, &told);
}

#[test]
fn a_drill_that_was_killed_anywhere_is_started_over_by_the_same_command() {
    let town = Town::new();
    for point in
        [Point::StagingProven, Point::DestinationProven, Point::PartitionFinished, Point::ReadBack]
    {
        let mut command = town.command(&Town::words("both", &[]));
        let output = command.env(VARIABLE, point.name()).output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "{point:?}: {}", Ran::of(&output).stderr);
        // What a dead process had sent may still arrive.
        crate::crash::settle(town.scratch.port());
        town.assert_untouched();
    }
    let summary = town.drill("both", &[]).expect(0).summary();
    assert_eq!((&summary["resumed"], &summary["rows"]), (&json!(0), &json!(2 * LINES + USERS)));
    town.assert_torn_down();
    town.assert_untouched();
}

#[test]
fn steps_that_take_too_long_miss_the_objective() {
    let town = Town::new();
    let words = ["--deadline", "10m", "--mark", "create-instance=11"];
    let summary = town.drill("redis", &words).expect(6).summary();
    assert_eq!((&summary["status"], &summary["within_rto"]), (&json!("done"), &json!(false)));
    assert_eq!(summary["verdict"], "the data is right, and the RTO was missed");
    assert_eq!(summary["objectives"][0]["verdict"], "missed");
    assert_eq!(summary["rto_seconds"], 600);
    town.run(&["report"]).expect(0).shows(&["MISSED: RTO of redis", "| create-instance | "]);
    town.assert_torn_down();
}

#[test]
fn a_target_or_a_server_that_is_away_is_exit_3() {
    let mut town = Town::new();
    town.scratch.kill().unwrap();
    town.drill("redis", &[]).expect(3).says(&["error: ", "hint: "]);
    town.scratch.start_again().unwrap();
    // Without the server that serves nobody knows that the scratch is another one.
    town.cache.kill().unwrap();
    town.drill("redis", &[]).expect(3).says(&["error: ", "hint: "]);
    assert_eq!(town.scratch.dbsize().unwrap(), 0);
}
