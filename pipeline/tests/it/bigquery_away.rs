//! BigQuery that is stopped in the middle of a run and comes back, and one that refuses a share of all calls for a while.
//!
//! Invariant: a rebuild, a backup and a restore end as if nothing had been, nothing lost and nothing doubled.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::world::{Ran, wait_until};
use fixtures::servers::RedisOptions;
use serde_json::json;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

const HOT: &str = "[[route]]\nname = \"hot\"\ntable = \"bigquery:d.t\"\nkey = \"hot:{id}\"\ntype = \"hash\"\n\
                   on_collision = \"error\"\n";
const ROWS: u32 = 1_800;

/// A table of six days that both routes read.
fn cloud() -> Cloud {
    let cloud = Cloud::new_kept(RedisOptions::default(), &format!("{ROUTE}{HOT}"));
    cloud.table(DAY_PARTITIONED);
    for day in 1..=6 {
        cloud.insert(day, day * 1_000..day * 1_000 + ROWS / 6);
    }
    cloud
}

const FLOWS: [&[&str]; 3] =
    [&["rebuild", "redis"], &["backup", "bigquery"], &["restore", "bigquery"]];

/// Asserts that a flow has brought every row once.
fn assert_whole(cloud: &Cloud, flow: &[&str], rows: &[String]) {
    match flow[0] {
        "rebuild" => {
            let keys: Vec<String> =
                redis::Commands::keys(&mut cloud.connection(), "hot:*").unwrap();
            assert_eq!(keys.len(), ROWS as usize);
        }
        "backup" => {
            cloud.assert_same("id, name, ts");
            assert_eq!(cloud.strays().iter().filter(|key| key.starts_with("log:")).count(), 0);
        }
        _ => assert_eq!(cloud.source("id, name, ts"), rows),
    }
}

fn spawn(cloud: &Cloud, flow: &[&str]) -> std::process::Child {
    let more = ["--json", "--progress", "none", "--retry-for", "60s", "--lanes", "2"];
    let mut command = cloud.command(&[flow, &more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_bigquery_that_is_stopped_and_started_again_in_the_middle_of_a_run() {
    let mut cloud = cloud();
    let rows = cloud.source("id, name, ts");
    for (flow, method) in FLOWS.into_iter().zip(["ReadRows", "ReadRows", "AppendRows"]) {
        if flow[0] == "restore" {
            cloud.delete_table();
        }
        // GIVEN a run that has carried something, and whose next answer takes its time
        cloud.sent();
        cloud.fault(method, "delay_ms:20000", 2, 2);
        let child = spawn(&cloud, flow);
        wait_until("rows on their way", || cloud.messages(method) >= 2);
        // WHEN every connection ends and none is taken for a while
        cloud.bigquery.stop().unwrap();
        sleep(Duration::from_millis(700));
        cloud.bigquery.start_again().unwrap();
        // THEN it goes on, and ends well
        let ran = Ran::of(&child.wait_with_output().unwrap()).expect(0);
        assert_eq!(ran.summary()["status"], "done", "{flow:?}");
        assert_whole(&cloud, flow, &rows);
    }
}

#[test]
fn a_bigquery_that_refuses_a_share_of_all_calls_for_a_while() {
    let cloud = cloud();
    let rows = cloud.source("id, name, ts");
    for (seed, flow) in (1..).zip(FLOWS) {
        if flow[0] == "restore" {
            cloud.delete_table();
        }
        cloud.post("stand-in/storm", &json!({"percent": 35, "millis": 4_000, "seed": seed}));
        let ran = Ran::of(&spawn(&cloud, flow).wait_with_output().unwrap());
        let url = format!("{}/stand-in/storm", cloud.bigquery.rest_url());
        let refused = cloud.call(reqwest::Client::new().delete(url))["refused"].clone();
        assert!(refused.as_u64().unwrap() >= 3, "{flow:?}: {refused}");
        // A start that finds no answer in its few tries says so, and is to be repeated.
        let ran = match ran.code {
            Some(3) => {
                ran.says(&["hint: "]);
                Ran::of(&spawn(&cloud, flow).wait_with_output().unwrap())
            }
            _ => ran,
        };
        assert_eq!(ran.expect(0).summary()["status"], "done", "{flow:?}");
        assert_whole(&cloud, flow, &rows);
    }
}
