//! How old the copies are: AlloyDB's own backups, as its Admin API tells, and the duplicate of BigQuery.
//!
//! Invariant: the stand-in answers as the API is documented; what it does not answer is UNKNOWN, never OK.

use crate::cloud::{Cloud, ROUTE, plain};
use crate::world::{Ran, World};
use fixtures::servers::AlloyDbAdmin;
use redis::Commands as _;
use serde_json::Value;
use std::fs;
use std::time::Duration;

const BUILDS: &str = "[[route]]\nname = \"builds\"\ntable = \"alloydb:public.builds\"\nkey = \"build:{id}\"\n\
                      type = \"hash\"\n";

/// A world that is ready for a rebuild, and the Admin API of its source.
struct Backed {
    world: World,
    admin: AlloyDbAdmin,
}

impl Backed {
    fn new() -> Self {
        let world = World::new();
        world.sql("create table builds (id bigint primary key, status text)");
        world.sql("insert into builds values (1, 'ok')");
        world.sql("analyze builds");
        let backed = Self { world, admin: AlloyDbAdmin::start().unwrap() };
        backed.plan(&backed.admin.url());
        backed
    }

    fn plan(&self, endpoint: &str) {
        let text = format!(
            "[alloydb]\nurl = \"${{env:ALLOYDB_URL}}\"\nbackups = \"{}\"\nbackups_endpoint = \"{endpoint}\"\n\
             [redis]\nurl = \"${{env:REDIS_URL}}\"\n{BUILDS}",
            self.admin.cluster()
        );
        fs::write(self.world.folder.path().join("rekindle.toml"), text).unwrap();
    }

    /// What `status` says of the backups, once it has ended so.
    fn status(&self, code: i32) -> Value {
        self.world.run(&["status", "--json"]).expect(code).summary()["alloydb_backups"].clone()
    }

    /// Verdict and detail of the control, once `check` has ended so.
    fn check(&self, more: &[&str], code: i32) -> (String, String) {
        let words = [&["check", "--json"], more].concat();
        let report = self.world.run(&words).expect(code).summary();
        let controls = report["controls"].as_array().unwrap();
        let found =
            controls.iter().find(|control| control["control"] == "alloydb backups").unwrap();
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        (text("verdict"), text("detail"))
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

#[test]
fn a_backup_of_alloydb_older_than_the_objective_ends_with_6() {
    let backed = Backed::new();
    // GIVEN no backup at all THEN the objective is missed
    let age = backed.status(6);
    assert_eq!((&age["verdict"], &age["usable"]), (&"missed".into(), &0.into()), "{age}");
    assert_eq!(backed.check(&[], 6).0, "FAILED");
    // GIVEN one of an hour ago THEN it is met
    backed.admin.backup("young", "READY", hours(1));
    let age = backed.status(0);
    assert_eq!((&age["verdict"], &age["rpo_seconds"]), (&"met".into(), &86_400.into()), "{age}");
    assert!(age["newest"].as_str().unwrap().ends_with("/backups/young"), "{age}");
    let (verdict, detail) = backed.check(&[], 0);
    assert!(verdict == "OK" && detail.contains("within the RPO of 86400 s"), "{verdict} {detail}");
    // WHEN the newest one is 25 hours old THEN it is missed, however young one is that cannot be restored from
    backed.admin.no_backups();
    backed.admin.backup("old", "READY", hours(25));
    backed.admin.backup("begun", "CREATING", hours(1));
    backed.admin.backup("broken", "FAILED", hours(2));
    backed.admin.backup_of("other", "another uid", ("foreign", "READY"), hours(1));
    let age = backed.status(6);
    assert_eq!((&age["verdict"], &age["usable"]), (&"missed".into(), &1.into()), "{age}");
    let text = backed.world.run(&["status"]).expect(6).stdout;
    assert!(text.contains("alloydb backups: old of main, data as of "), "{text}");
    assert!(text.contains("25.0 h old, older than the RPO of 86400 s"), "{text}");
    let (verdict, detail) = backed.check(&[], 6);
    assert!(verdict == "FAILED" && detail.contains("older than"), "{verdict} {detail}");
}

#[test]
fn a_run_does_not_ask_for_the_backups_and_its_evidence_says_so() {
    // GIVEN a backup that is too old
    let backed = Backed::new();
    backed.admin.backup("old", "READY", hours(25));
    backed.admin.calls();
    // WHEN the cache is rebuilt THEN that ends well, and the service was not asked
    backed.world.rebuild(&[]).expect(0);
    assert_eq!(backed.admin.calls(), Vec::<String>::new());
    // AND the evidence holds the objective, and calls it unknown
    let evidence = backed.world.run(&["report", "--json"]).expect(0).summary();
    let found = evidence["objectives"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&found["system"], &found["name"], &found["verdict"], &found["target_seconds"]),
        (&"alloydb".into(), &"RPO".into(), &"unknown".into(), &86_400.into()),
        "{found}"
    );
    assert!(found["measured_seconds"].is_null(), "{found}");
    // AND so does the report
    let row = "| alloydb | RPO | 24:00:00 | not measured |  | UNKNOWN | not asked by a run; see `rekindle status` |";
    backed.world.run(&["report"]).expect(0).shows(&[row, "RPO of alloydb"]);
    backed
        .world
        .run(&["report", "--format", "html"])
        .expect(0)
        .shows(&["<td>not asked by a run; see `rekindle status`</td>"]);
}

#[test]
fn a_backup_of_an_earlier_cluster_counts_only_where_the_cluster_is_not_known() {
    let backed = Backed::new();
    backed.admin.backup_of("main", "the uid it had before", ("earlier", "READY"), hours(1));
    assert_eq!(backed.status(6)["verdict"], "missed");
    // A cluster that is lost cannot be asked for its uid, and its backups are what is left.
    backed.admin.lose_cluster();
    assert_eq!(backed.status(0)["verdict"], "met");
}

#[test]
fn every_page_is_read_and_the_window_of_continuous_backup_is_told() {
    let backed = Backed::new();
    backed.admin.page(2);
    for (name, age) in [("a", 90), ("b", 80), ("c", 70), ("d", 60), ("e", 3)] {
        backed.admin.backup(name, "READY", hours(age));
    }
    backed.admin.continuous(hours(14 * 24));
    let age = backed.status(0);
    assert_eq!((&age["verdict"], &age["usable"]), (&"met".into(), &5.into()), "{age}");
    assert!(age["newest"].as_str().unwrap().ends_with("/backups/e"), "{age}");
    assert!(age["continuous_from"].is_string(), "{age}");
    let calls = backed.admin.calls();
    let pages: Vec<&String> = calls.iter().filter(|call| call.contains("/backups?")).collect();
    assert_eq!(pages.len(), 3, "{calls:?}");
    assert!(pages[1].ends_with("pageToken=after-2") && pages[2].ends_with("pageToken=after-4"));
}

#[test]
fn what_cannot_be_asked_is_unknown_and_never_ok() {
    let backed = Backed::new();
    backed.admin.backup("young", "READY", hours(1));
    let unknown = |told: &str| {
        let age = backed.status(0);
        assert_eq!((&age["verdict"], &age["newest"]), (&"unknown".into(), &Value::Null), "{age}");
        assert!(age["detail"].as_str().unwrap().contains(told), "{age}");
        let text = backed.world.run(&["status"]).expect(0).stdout;
        assert!(text.contains("alloydb backups: UNKNOWN, "), "{text}");
        let (verdict, detail) = backed.check(&[], 0);
        assert!(verdict == "UNKNOWN" && detail.contains(told), "{verdict} {detail}");
        assert_eq!(backed.check(&["--strict"], 2).0, "UNKNOWN");
    };
    // A refusal, and a service that is unwell.
    backed.admin.refuse(Some(403));
    unknown("403 PERMISSION_DENIED");
    let fix = backed.status(0)["fix"].as_str().unwrap().to_owned();
    assert!(fix.contains("roles/alloydb.viewer"), "{fix}");
    backed.admin.refuse(Some(503));
    unknown("503 UNAVAILABLE");
    backed.admin.refuse(None);
    // Nobody listens there: the port is privileged and unassigned.
    backed.plan("http://127.0.0.1:1");
    unknown("127.0.0.1:1");
    // Over TLS credentials are shown, or nothing is asked at all.
    backed.plan("https://127.0.0.1:1");
    let mut command = backed.world.command(&["status", "--json"]);
    command.env("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json");
    let age = Ran::of(&command.output().unwrap()).expect(0).summary()["alloydb_backups"].clone();
    assert_eq!(age["verdict"], "unknown", "{age}");
    assert!(age["detail"].as_str().unwrap().contains("application default credentials"), "{age}");
}

#[test]
fn a_location_that_cannot_be_reached_is_unknown_unless_a_young_backup_is_known() {
    let backed = Backed::new();
    backed.admin.unreachable(&["projects/code-town/locations/us-central1"]);
    for add in [false, true] {
        if add {
            backed.admin.backup("old", "READY", hours(25));
        }
        let age = backed.status(0);
        assert_eq!(age["verdict"], "unknown", "{age}");
        assert_eq!(age["unreachable"][0], "projects/code-town/locations/us-central1", "{age}");
        assert_eq!(backed.check(&[], 0).0, "UNKNOWN");
    }
    backed.admin.backup("young", "READY", hours(1));
    let age = backed.status(0);
    assert_eq!(age["verdict"], "met", "{age}");
    // Once everything can be reached, what is known is all there is.
    backed.admin.no_backups();
    backed.admin.backup("old", "READY", hours(25));
    backed.admin.unreachable(&[]);
    assert_eq!(backed.status(6)["verdict"], "missed");
}

#[test]
fn a_duplicate_of_25_hours_ends_with_6() {
    let cloud = plain();
    let run = |words: &[&str]| Ran::of(&cloud.command(words).output().unwrap());
    cloud.insert(1, 0..50);
    // GIVEN no backup yet THEN there is nothing to go back to
    run(&["status"]).expect(6).shows(&["duplicate of d.t: no complete backup yet"]);
    cloud.backup(&[]).expect(0);
    run(&["status"]).expect(0).shows(&["within the RPO of 86400 s"]);
    // WHEN its data is 25 hours old THEN both say so
    let mut record = cloud.recorded();
    record.snapshot_us -= 25 * 3_600_000_000;
    let _: () = cloud.connection().set("log:run", record.to_json()).unwrap();
    run(&["status"]).expect(6).shows(&["25.0 h old, older than the RPO of 86400 s"]);
    run(&["check"]).expect(6).shows(&["FAILED   duplicate of d.t: ", "25.0 h old"]);
    cloud.backup(&[]).expect(0);
    run(&["status"]).expect(0);
    // WHEN redis does not answer THEN its age is unknown, which is said
    let plan = fs::read_to_string(cloud.folder.path().join("rekindle.toml")).unwrap();
    let away = plan.replace(&cloud.redis.url(), "redis://127.0.0.1:1");
    fs::write(cloud.folder.path().join("rekindle.toml"), away).unwrap();
    run(&["status"]).expect(0).shows(&["UNKNOWN: duplicates of bigquery: "]);
}

#[test]
fn both_copies_are_told_together() {
    let cloud = Cloud::new(fixtures::servers::RedisOptions::default(), "");
    let admin = AlloyDbAdmin::start().unwrap();
    cloud.plan(&format!(
        "{ROUTE}[alloydb]\nurl = \"postgres://127.0.0.1:1/d\"\nbackups = \"{}\"\nbackups_endpoint = \"{}\"\n\
         [objectives]\nalloydb = {{ rpo = \"2h\" }}\n",
        admin.cluster(),
        admin.url()
    ));
    cloud.table(crate::cloud::DAY_PARTITIONED);
    cloud.insert(1, 0..50);
    cloud.backup(&[]).expect(0);
    admin.backup("three-hours", "READY", hours(3));
    let status =
        Ran::of(&cloud.command(&["status", "--json"]).output().unwrap()).expect(6).summary();
    assert_eq!(status["alloydb_backups"]["rpo_seconds"], 7_200, "{status}");
    assert_eq!(status["alloydb_backups"]["verdict"], "missed", "{status}");
    assert_eq!(status["duplicates"][0]["within_rpo"], true, "{status}");
}

#[test]
fn an_rto_that_is_over_already_is_told_first_and_stops_no_recovery() {
    // GIVEN a loss of years ago
    let backed = Backed::new();
    let lost = ["--lost-at", "2020-01-01T00:00:00Z", "--deadline", "1h"];
    let told = "the RTO of redis, 1h, was over at 2020-01-01T01:00:00Z, ";
    let plan = backed.world.run(&[&["plan"], &lost[..]].concat());
    // THEN the plan says so, ends with 6, and wrote nothing
    plan.shows(&["rows in all"]).says(&[told, "recover all the same"]).expect(6);
    assert_eq!(backed.world.redis.dbsize().unwrap(), 0);
    // AND a rebuild says so before its summary, and brings the data back
    let ran = backed.world.rebuild(&lost).says(&[told, "the recovery goes on"]).expect(6);
    assert_eq!(ran.summary()["status"], "done");
    // AND where there is time left nobody is told anything
    let now = jiff::Timestamp::now().to_string();
    let ran = backed.world.run(&["plan", "--lost-at", &now, "--deadline", "1h"]).expect(0);
    assert!(!ran.stderr.contains("was over"), "{}", ran.stderr);
}
