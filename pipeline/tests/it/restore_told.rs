//! What `plan` and `status` tell of restores, and what a restore says before it publishes.
//!
//! Invariant: both only read; neither needs BigQuery nor Redis to answer.

use crate::lost::{Lost, PREFIX};
use crate::restore::{SNAPSHOT_US, count, lost};
use crate::restore_faults::refuse_jobs;
use crate::world::Ran;
use redis::Commands;
use serde_json::{Value, json};

fn run(lost: &Lost, words: &[&str]) -> Ran {
    Ran::of(&lost.rekindle(words).output().unwrap())
}

/// The restore that `plan --json` tells of.
fn planned(lost: &Lost) -> Value {
    run(lost, &["plan", "--json"]).expect(0).summary()["restores"][0].clone()
}

/// Lines that are the same on every machine; what is measured is left out.
fn steady(text: &str, from: &str, left_out: &[(&str, &str)]) -> String {
    let mut text = text[text.find(from).unwrap()..].to_owned();
    for (what, name) in left_out {
        text = text.replace(what, name);
    }
    let measured = [
        "  memory bound",
        "  time travel",
        "  limit",
        "job ",
        "attempts",
        "clock",
        "checkpoint",
        "status",
        "duplicate of",
    ];
    let is_steady = |line: &&str| !measured.iter().any(|start| line.starts_with(start));
    text.lines().filter(is_steady).collect::<Vec<_>>().join("\n")
}

fn policy() -> Value {
    json!([{"rowAccessPolicyReference": {"policyId": "only_eu"}, "filterPredicate": "log_id LIKE 'eu%'"}])
}

/// A lost table that had a row access policy.
fn lost_with_policy() -> Lost {
    let mut lost = Lost::new(false);
    lost.policies = Some(policy());
    let days = lost.days(500);
    lost.append("original", &days);
    lost.back_up(&days, 1, SNAPSHOT_US, None);
    lost
}

#[test]
fn plan_tells_what_a_restore_would_do() {
    let (lost, days) = lost(2_500, false);
    let text = run(&lost, &["plan"]).expect(0).stdout;
    insta::assert_snapshot!(steady(&text, "restore of", &[]));
    let restore = planned(&lost);
    assert_eq!(restore["state"], "ready", "{restore}");
    assert_eq!(restore["rows"].as_u64(), Some(count(&days)));
    assert_eq!(restore["table_partitions"], 4);
    assert!(restore["time_travel"].as_str().unwrap().contains("may still have"), "{restore}");
    assert!(!lost.state().exists(), "plan made a state folder");
    // WHEN it is done THEN the bound held
    let summary = lost.restore(&[]).expect(0).summary();
    let peak = summary["peak_rss_bytes"].as_u64().unwrap();
    let bound = restore["memory_bound_bytes"].as_u64().unwrap();
    assert!(peak <= bound, "{peak} of {bound}");
    assert_eq!(summary["bytes"], restore["stored_bytes"]);
    // AND then it would be refused, with the flags that name what may happen
    let restore = planned(&lost);
    assert_eq!(restore["state"], "refused", "{restore}");
    assert!(restore["reason"].as_str().unwrap().contains("--fill"), "{restore}");
    assert!(restore["publishing"].as_str().unwrap().contains("with --replace"), "{restore}");
}

#[test]
fn plan_names_what_is_damaged_and_what_is_unknown() {
    let (lost, _) = lost(500, false);
    let mut redis = lost.connection();
    let block = format!("{PREFIX}:b:20261101:1:0");
    let stored: Vec<u8> = redis.get(&block).unwrap();
    let _: () = redis.del(&block).unwrap();
    let restore = planned(&lost);
    assert_eq!(restore["state"], "damaged", "{restore}");
    assert!(restore["reason"].as_str().unwrap().contains(&block), "{restore}");
    let _: () = redis.set(&block, stored).unwrap();
    let keys: Vec<String> = redis.keys(format!("{PREFIX}:s:*")).unwrap();
    let _: () = redis.del(keys).unwrap();
    assert_eq!(planned(&lost)["recorded_table"], "missing or altered");
    // AND without BigQuery the duplicate is told all the same
    let path = lost.folder.path().join("rekindle.toml");
    let plan = std::fs::read_to_string(&path).unwrap();
    let away = plan.replace(&lost.bigquery.rest_url(), "http://127.0.0.1:9");
    std::fs::write(&path, away).unwrap();
    let ran = run(&lost, &["plan", "--json"]).expect(3);
    let restore = &ran.summary()["restores"][0];
    assert_eq!((&restore["destination"], &restore["time_travel"]), (&Value::Null, &Value::Null));
    assert_eq!(restore["table_partitions"], 4, "{restore}");
    // AND without Redis what BigQuery has
    std::fs::write(&path, plan.replace(&lost.redis.url(), "redis://127.0.0.1:9/0")).unwrap();
    let ran = run(&lost, &["plan", "--json"]).expect(3);
    let restore = &ran.summary()["restores"][0];
    assert_eq!((&restore["state"], &restore["rows"]), (&json!("unknown"), &Value::Null));
    assert_eq!(restore["destination"], "no such table");
}

#[test]
fn status_tells_how_a_restore_stands() {
    let (lost, _) = lost(2_500, false);
    refuse_jobs(&lost);
    lost.restore(&["--retry-for", "1s"]).expect(3);
    let report = run(&lost, &["status", "--json"]).expect(0).summary();
    let restore = &report["restore"];
    assert_eq!((&report["run"], &restore["status"]), (&Value::Null, &json!("failed")));
    let table = &restore["tables"][0];
    assert_eq!((&table["stage"], &table["streams"]["committed"]), (&json!("proven"), &json!(4)));
    assert_eq!((&table["acknowledged"], &table["written"]), (&table["rows"], &json!(0)));
    assert_eq!(
        (&table["jobs"][0]["purpose"], &table["jobs"][0]["status"]),
        (&json!("publish"), &json!("asked"))
    );
    let id = restore["run_id"].as_str().unwrap().to_owned();
    let staging = id.replace('-', "");
    let text = run(&lost, &["status"]).expect(0).stdout;
    assert!(text.contains("\njob         publish: asked, attempt 1, rekindle_"), "{text}");
    insta::assert_snapshot!(
        "a_restore_that_stopped",
        steady(&text, "run ", &[(id.as_str(), "RUN"), (staging.as_str(), "RUN")])
    );
    // WHEN it is resumed THEN status says that it is done
    lost.rest("DELETE", "stand-in/faults", None);
    lost.restore(&[]).expect(0);
    let restore = run(&lost, &["status", "--json"]).expect(0).summary()["restore"].clone();
    assert_eq!((&restore["status"], &restore["is_resumable"]), (&json!("done"), &json!(false)));
    let table = &restore["tables"][0];
    assert_eq!((&table["stage"], &table["written"]), (&json!("complete"), &table["rows"]));
    assert_eq!(table["jobs"][0]["status"], "done");
}

#[test]
fn row_access_policies_are_lost_only_for_a_table_that_is_named_and_said_before_publishing() {
    let lost = lost_with_policy();
    let ran = run(&lost, &["plan", "--json"]).expect(0).summary();
    let restore = &ran["restores"][0];
    assert_eq!(restore["state"], "refused", "{restore}");
    assert!(
        restore["notes"].to_string().contains("CREATE ROW ACCESS POLICY `only_eu`"),
        "{restore}"
    );
    // WHEN it is not named THEN nothing was written
    lost.restore(&[]).expect(2).says(&["only_eu", "--accept-no-row-policies logs.builds"]);
    assert_eq!(lost.runtime.block_on(lost.client.table("logs", "builds")).unwrap(), None);
    // WHEN it is named and no job can publish THEN the policy was named, and no row is to be seen
    refuse_jobs(&lost);
    let words = ["--accept-no-row-policies", "logs.builds"];
    lost.restore(&[&words[..], &["--retry-for", "1s"]].concat()).expect(3).says(&[
        "not put back on logs.builds: row access policy only_eu",
        "FILTER USING (log_id LIKE 'eu%')",
    ]);
    assert_eq!(lost.rows("builds"), Vec::<String>::new());
    lost.rest("DELETE", "stand-in/faults", None);
    let summary = lost.restore(&words).expect(0).summary();
    assert!(summary["warnings"].to_string().contains("only_eu"), "{summary}");
    lost.assert_restored();
}
