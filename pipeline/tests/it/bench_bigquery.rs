//! `rekindle bench bigquery` against the stand-in: what it measures, what it leaves, and what it refuses.
//!
//! Invariant: whatever became of a bench, production is as it was, and no table of the bench is left.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE, plain};
use crate::world::Ran;
use fixtures::servers::RedisOptions;
use serde_json::{Value, json};
use std::fs;

/// Debian's, where `./test` puts it.
const SERVER: &str = "/usr/bin/redis-server";
/// Rows of each of the eight days.
const DAY: u32 = 300;

fn bench(cloud: &Cloud, more: &[&str]) -> Ran {
    let words = ["bench", "bigquery", "--json", "--redis-server", SERVER];
    Ran::of(&cloud.command(&[&words[..], more].concat()).output().unwrap())
}

fn run(cloud: &Cloud, words: &[&str]) -> Ran {
    Ran::of(&cloud.command(words).output().unwrap())
}

/// A table of eight days.
fn days() -> Cloud {
    let cloud = plain();
    for day in 1..=8 {
        cloud.insert(day, 0..DAY);
    }
    cloud
}

fn tables(cloud: &Cloud, dataset: &str) -> Vec<String> {
    let listed = cloud.get(&format!("bigquery/v2/projects/p/datasets/{dataset}/tables"));
    let name = |table: &Value| table["tableReference"]["tableId"].as_str().unwrap().to_owned();
    listed["tables"].as_array().into_iter().flatten().map(name).collect()
}

fn keys(cloud: &Cloud) -> u64 {
    redis::cmd("DBSIZE").query(&mut cloud.connection()).unwrap()
}

#[test]
fn parts_of_a_table_are_backed_up_and_restored_and_the_whole_is_predicted() {
    // GIVEN a table of 2,400 rows
    let cloud = days();
    let before = cloud.source("id, name, ts");
    // WHEN a quarter, a half and all of it are measured
    let ran = bench(&cloud, &["--rows", "600,1200,2400", "--repeats", "1"]).expect(0);
    // THEN each is backed up and restored, by whole table partitions
    let found = ran.summary();
    let samples = found["samples"].as_array().unwrap();
    let told: Vec<(&str, u64)> = samples
        .iter()
        .map(|sample| (sample["kind"].as_str().unwrap(), sample["rows"].as_u64().unwrap()))
        .collect();
    let expected = [600, 1_200, 2_400].map(|rows| [("backup", rows), ("restore", rows)]).concat();
    assert_eq!(told, expected, "{found}");
    assert!(ran.stderr.contains(" 3 of 3: ") && ran.stderr.contains("; restore of logs"));
    // AND the table is predicted by its own rows, each kind from its own runs
    let table = &found["tables"][0];
    assert_eq!(
        (table["table"].as_str(), table["rows"].as_u64(), found["rows"].as_u64()),
        (Some("d.t"), Some(2_400), Some(2_400))
    );
    for (kind, fitted_to) in [("backup", "benched_backups"), ("restore", "benched_restores")] {
        let predicted = &table[kind];
        assert_eq!(
            (predicted["fitted_to"].as_str(), predicted["runs"].as_u64()),
            (Some(fitted_to), Some(3)),
            "{predicted}"
        );
        assert!(predicted["seconds"].as_f64().unwrap() > 0.0 && predicted["is_within"] == true);
        assert_eq!(found[kind]["seconds"], predicted["seconds"]);
    }
    // AND limits are named with their figures
    let quotas = found["quotas"].as_array().unwrap();
    let appended =
        quotas.iter().find(|quota| quota["name"] == "rows appended by a project").unwrap();
    assert_eq!((appended["limit"].as_f64(), &appended["binds"]), (Some(300e6), &json!(false)));
    assert_eq!(found["within_rto"], true);
    // AND production is as it was, and nothing of the bench is left but evidence
    assert_eq!(cloud.source("id, name, ts"), before);
    assert_eq!((keys(&cloud), tables(&cloud, "d")), (0, vec!["t".to_owned()]));
    assert!(tables(&cloud, "staging").is_empty());
    let state = cloud.folder.path().join(".rekindle");
    assert!(!state.join("bench").exists() && !state.join("bench.tables").exists());
    run(&cloud, &["report"]).expect(0).shows(&[
        "# bench",
        "restore of all tables",
        "rows appended by a project: 300.0 MB/s",
        "only blocks were measured",
    ]);
    // AND the same is written for people
    let words = ["bench", "bigquery", "--redis-server", SERVER, "--rows", "600", "--repeats", "1"];
    run(&cloud, &words).expect(0).shows(&[
        "measured    ",
        "table       d.t, 2,400 rows",
        "production  2,400 rows in 1 table: backup ",
        "rto         24:00:00: met by prediction",
        "limits      rows appended by a project",
    ]);
}

#[test]
fn plan_predicts_a_restore_from_a_bench_and_names_the_limits_of_each_command() {
    // GIVEN a bench of a table
    let cloud = days();
    bench(&cloud, &["--rows", "600,1200,2400", "--repeats", "1"]).expect(0);
    // WHEN nothing is backed up yet THEN there is nothing whose restore could be predicted
    let planned = run(&cloud, &["plan", "--json"]).expect(0).summary();
    assert_eq!(planned["backup_quotas"][0]["name"], "streams of a read session of a backup");
    assert!(planned["restores"][0]["state"] != "ready", "{planned}");
    assert!(planned["restores_foreseen"]["predicted"].is_null(), "{planned}");
    // WHEN it is THEN its restore is predicted, and its limits are told apart from those of a backup
    run(&cloud, &["backup", "bigquery"]).expect(0);
    let planned = run(&cloud, &["plan", "--json"]).expect(0).summary();
    let foreseen = &planned["restores_foreseen"];
    assert!(foreseen["predicted"]["seconds"].as_f64().unwrap() > 0.0, "{foreseen}");
    assert_eq!(
        (&foreseen["within_rto"], &foreseen["needed"]["is_met"], foreseen["rto_seconds"].as_u64()),
        (&json!(true), &json!(true), Some(86_400)),
        "{foreseen}"
    );
    let names: Vec<&str> = foreseen["quotas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|quota| quota["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"copy jobs of a project"), "{names:?}");
    assert!(!names.contains(&"streams of a read session of a backup"), "{names:?}");
    run(&cloud, &["plan"]).expect(0).shows(&[
        "restore of all predicted 00:00:0",
        "  needed",
        "  limit",
    ]);
}

#[test]
fn a_bench_that_fails_or_was_killed_leaves_no_table() {
    let cloud = days();
    // GIVEN tables of a bench that was killed, and one of somebody else
    let own = format!("rekindle_bench_{}_", "0".repeat(32));
    let (left, other) = (format!("{own}0_t"), "rekindle_bench_of_ours".to_owned());
    for name in [&left, &other] {
        let table = json!({"tableReference": {"tableId": name},
            "schema": {"fields": [{"name": "id", "type": "INT64"}]}});
        cloud.post("bigquery/v2/projects/p/datasets/staging/tables", &table);
    }
    let note = cloud.folder.path().join(".rekindle/bench.tables");
    fs::create_dir_all(note.parent().unwrap()).unwrap();
    let text = json!({"project": "p", "dataset": "staging", "prefix": own});
    fs::write(&note, text.to_string()).unwrap();
    // WHEN rows cannot be appended
    cloud.fault("AppendRows", "deny", 0, 1_000);
    let failed = bench(&cloud, &["--rows", "600", "--repeats", "1"]).expect(2).summary();
    cloud.no_faults();
    // THEN it measured nothing and says so, and neither its own tables nor those of the killed one are left
    assert_eq!(
        (failed["status"].as_str(), failed["system"].as_str(), failed["wanted"].as_u64()),
        (Some("failed"), Some("bigquery"), Some(2)),
        "{failed}"
    );
    assert_eq!(tables(&cloud, "staging"), [other]);
    assert!(!note.exists() && keys(&cloud) == 0);
    run(&cloud, &["report"]).expect(0).shows(&["so it predicts nothing"]);
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_made() {
    // A table that cannot be cut that small, and one without rows.
    let cloud = plain();
    bench(&cloud, &[]).expect(2).says(&["have no rows", "nothing to measure"]);
    cloud.insert(1, 0..500);
    bench(&cloud, &["--rows", "10"])
        .expect(2)
        .says(&["cannot be read in a part of 10 rows: its smallest part has 500", "--rows 500"]);
    // Flags of rebuilds, and a clock that nothing starts.
    bench(&cloud, &["--way", "command"]).expect(2).says(&["--way is for rebuilds"]);
    bench(&cloud, &["--max-rows-per-second", "5"]).expect(2).says(&["is for rebuilds"]);
    bench(&cloud, &["--lost-at", "2020-01-01T00:00:00Z"]).expect(2).says(&["--lost-at is not"]);
    bench(&cloud, &["--route", "other"]).expect(2).says(&["has no route \"other\""]);
    // A plan that has nowhere to make tables, and one without blocks.
    let path = cloud.folder.path().join("rekindle.toml");
    let plan = fs::read_to_string(&path).unwrap();
    fs::write(&path, plan.replace("staging_dataset = \"staging\"\n", "")).unwrap();
    bench(&cloud, &[]).expect(2).says(&["no staging_dataset in [bigquery]"]);
    let cloud = Cloud::new(
        RedisOptions::default(),
        &ROUTE.replace("type = \"blocks\"\nkey = \"log\"", "type = \"hash\"\nkey = \"log:{id}\""),
    );
    cloud.table(DAY_PARTITIONED);
    bench(&cloud, &[]).expect(2).says(&["no backup route of type blocks"]);
    assert!(tables(&cloud, "staging").is_empty());
}
