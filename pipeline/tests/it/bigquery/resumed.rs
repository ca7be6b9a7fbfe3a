//! Runs of BigQuery routes that are killed and resumed: the job of a query, a state that is gone, damaged messages.
//!
//! Invariant: a query is billed once for a run, and its result does not outlive a run that is done and proven.

use super::{DAYS, Logs};
use crate::world::wait_until;
use serde_json::{Value, json};

const BY_DAY: &str = r#"
[[route]]
name = "by-day"
query = "SELECT DATE(ts) AS day, COUNT(*) AS n FROM logs.days WHERE ts IS NOT NULL GROUP BY day"
from = "bigquery"
key = "day:{day}"
type = "hash"
on_collision = "error"
"#;

impl Logs {
    /// Jobs that write into the staging dataset.
    fn staging_jobs(&self) -> Vec<Value> {
        let path = "bigquery/v2/projects/p/jobs?projection=full&maxResults=1000";
        let jobs = self.get(path)["jobs"].as_array().cloned().unwrap_or_default();
        let destination = "/configuration/query/destinationTable/datasetId";
        jobs.into_iter().filter(|job| job.pointer(destination) == Some(&json!("staging"))).collect()
    }

    /// Names of the tables in the staging dataset.
    fn staged(&self) -> Vec<String> {
        let listed = self.get("bigquery/v2/projects/p/datasets/staging/tables");
        let tables = listed["tables"].as_array().cloned().unwrap_or_default();
        let name = |table: &Value| table["tableReference"]["tableId"].as_str().unwrap().to_owned();
        tables.iter().map(name).collect()
    }

    fn kill_when(&self, what: &str, holds: impl FnMut() -> bool) {
        let mut child = self.start_rebuild(&["--lanes", "1"]);
        wait_until(what, holds);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(super) fn no_faults(&self) {
        let url = format!("{}/stand-in/faults", self.bigquery.rest_url());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { reqwest::Client::new().delete(url).send().await.unwrap() });
    }
}

#[test]
fn a_query_is_billed_once_although_its_run_is_killed_while_it_runs_and_while_it_is_read() {
    let logs = Logs::new();
    logs.days(2, 100);
    logs.plan(BY_DAY);
    // GIVEN a run that is killed while the job of its query runs
    logs.fault("job", "delay_ms:3000", 1, 1_000);
    logs.kill_when("the job", || {
        logs.staging_jobs().iter().any(|job| job["status"]["state"] == "RUNNING")
    });
    logs.no_faults();
    // AND again while its result is read
    logs.fault("ReadRows", "delay_ms:3000", 0, 1_000);
    logs.kill_when("a read", || {
        logs.get("stand-in/calls")["ReadRows"]["calls"].as_u64() >= Some(1)
    });
    logs.no_faults();
    let staged = logs.staged();
    assert_eq!(staged.len(), 1, "{staged:?}");
    // WHEN it is resumed THEN the result is that of the one job, which was billed once
    let summary = logs.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["resumed"], &summary["rows"]), (&json!(2), &json!(2)), "{summary}");
    assert_eq!(logs.redis(&["HGETALL", "day:2026-11-02"]), "n\n100");
    let jobs = logs.staging_jobs();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(jobs[0]["jobReference"]["jobId"], json!(staged[0]));
    let billed = jobs[0]["statistics"]["query"]["totalBytesBilled"].as_str().unwrap();
    assert!(billed.parse::<u64>().unwrap() > 0, "{billed}");
    // AND it is gone, because the run is done and proven
    assert_eq!(logs.staged(), Vec::<String>::new());
    // A run that fails, or that nobody proved, keeps it until it expires.
    logs.rebuild(&["--no-verify"]).expect(0);
    let kept = logs.staged();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let path = format!("bigquery/v2/projects/p/datasets/staging/tables/{}", kept[0]);
    assert!(logs.get(&path)["expirationTime"].is_string());
}

#[test]
fn a_result_that_cannot_be_dropped_is_named_and_the_run_is_done() {
    let logs = Logs::new();
    logs.days(1, 10);
    logs.plan(BY_DAY);
    logs.fault("rest:tables.delete", "unavailable", 0, 1_000);
    let summary = logs.rebuild(&["--retry-for", "1s"]).expect(0).summary();
    assert_eq!(summary["status"], "done");
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("the result of its query expires by itself"), "{summary}");
    assert_eq!(logs.staged().len(), 1);
}

#[test]
fn past_time_travel_the_routes_start_over_with_the_state_of_now() {
    // GIVEN a run that is killed with some of its partitions written
    let logs = Logs::new();
    logs.days(4, 5_000);
    logs.plan(&[DAYS, BY_DAY].concat());
    logs.fault("ReadRows", "delay_ms:150", 0, 1_000);
    logs.kill_when("a partition", || logs.entries() > 7_000);
    logs.no_faults();
    // WHEN eight days pass, in which rows are changed, removed and added
    logs.query("UPDATE logs.days SET line = 'changed' WHERE id < 20000");
    logs.query("DELETE FROM logs.days WHERE id < 100 OR id >= 1000000");
    logs.insert("days", vec![json!({"id": "30000", "ts": "2026-11-09T00:00:00Z", "line": "late"})]);
    logs.post("stand-in/clock", &json!({"let_pass_micros": 8 * 24 * 3_600_000_000_u64}));
    // THEN the resume says so and brings the table as it is now, without the rows that are gone
    let ran = logs
        .rebuild(&["--lanes", "1"])
        .expect(0)
        .says(&["no longer has the state that the run began to read", "the route starts over"]);
    let summary = ran.summary();
    assert_eq!(summary["resumed"], 1, "{summary}");
    let days = logs.redis(&["--scan", "--pattern", "log:*"]);
    assert_eq!(days.lines().count(), 20_000 - 100 + 1, "{summary}");
    for id in ["100", "9999", "19999"] {
        assert_eq!(logs.redis(&["HGET", &format!("log:{id}"), "line"]), "changed", "{id}");
    }
    assert_eq!(logs.redis(&["HGET", "log:30000", "line"]), "late");
    assert_eq!(logs.redis(&["EXISTS", "log:5"]), "0");
    assert_eq!(logs.redis(&["HGET", "day:2026-11-01", "n"]), "4900");
}

#[test]
fn rows_that_cannot_be_decoded_are_read_again_and_never_written() {
    let logs = Logs::new();
    logs.days(1, 1_000);
    logs.plan(DAYS);
    logs.fault("ReadRows", "corrupt_block", 0, 1_000_000);
    let ran = logs.rebuild(&["--retry-for", "1s"]).expect(3);
    ran.says(&["bigquery sent rows that cannot be decoded", "hint: "]);
    assert_eq!(logs.redis(&["--scan", "--pattern", "log:*"]), "");
    logs.no_faults();
    // The first pass reads keys alone, the second one all: one damaged message in each.
    logs.fault("ReadRows", "corrupt_block", 0, 1);
    logs.fault("ReadRows", "corrupt_block", 3, 1);
    let summary = logs.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["rows"], logs.entries()), (&json!(1_003), 1_003), "{summary}");
}

#[test]
fn a_type_that_cannot_be_carried_is_refused_by_name_before_anything_is_written() {
    let logs = Logs::new();
    let fields = json!([
        {"name": "id", "type": "INTEGER"},
        {"name": "at", "type": "TIMESTAMP", "timestampPrecision": "12"},
    ]);
    logs.table("fine", &fields, &json!({}));
    let route = "[[route]]\nname = \"fine\"\ntable = \"bigquery:logs.fine\"\nkey = \"fine:{id}\"\ntype = \"hash\"\non_collision = \"error\"\n";
    logs.plan(route);
    for words in [&["plan"][..], &["rebuild", "redis", "--json", "--progress", "none"]] {
        logs.run(words).expect(2).says(&["column at has type TIMESTAMP(12)", "columns"]);
    }
    assert_eq!(logs.entries(), 0);
    // Left out, as the message says, it is no hindrance.
    logs.plan(&format!("{route}columns = [{{ field = \"v\", value = \"1\" }}]\n"));
    logs.run(&["plan"]).expect(0);
    logs.rebuild(&[]).expect(0);
}
