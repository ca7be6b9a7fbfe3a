//! The plan file from the outside: what parses, what is shown of it, and that nothing secret is.

mod archive;
mod drill;
mod duplicate;
mod json_schema;
mod many;
mod mistakes;
mod streams;
mod unrouted;

use super::*;
use proptest::prelude::*;
use std::io::{Error, ErrorKind};

const SECRET: &str = "hunter2 top:secret@";

const MINIMAL: &str = r#"
[alloydb]
url = "postgres://h/d"
[redis]
url = "redis://h"
[[route]]
name = "builds"
table = "alloydb:builds"
key = "build:{id}"
type = "hash"
"#;

fn parse(text: &str) -> Result<Plan, PlanErrors> {
    let lookup = |name: &str| match name {
        "ALLOYDB_URL" => Some("postgres://app:pw@db:5432/app".to_owned()),
        "SECRET" => Some(SECRET.to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let read_file = |path: &str| match path {
        "/run/redis" => Ok("rediss://app:pw@cache:6380/1\n".to_owned()),
        _ => Err(Error::from(ErrorKind::NotFound)),
    };
    Plan::parse(text, &lookup, &read_file)
}

/// The mistakes of a text, one a line.
fn mistakes(text: &str) -> String {
    parse(text).expect_err("the text has mistakes").to_string()
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

#[test]
fn a_minimal_plan_gets_the_defaults() {
    let plan = parse(MINIMAL).unwrap();
    let day = Objective { rto: hours(24), rpo: hours(24) };
    assert_eq!((plan.redis_objective, plan.bigquery_objective), (day, day));
    assert_eq!(plan.alloydb.as_ref().unwrap().snapshot_max, hours(1));
    let route = &plan.routes[0];
    assert_eq!(
        route,
        &Route {
            name: "builds".into(),
            origin: Origin::Table {
                system: System::AlloyDb,
                schema: "public".into(),
                table: "builds".into()
            },
            split_by: None,
            filter: None,
            key: KeyTemplate::parse("build:{id}").unwrap(),
            layout: Layout::Hash,
            columns: None,
            many: None,
            as_text: vec![],
            expiry: None,
            null: NullPolicy::Omit,
            on_collision: None,
            on_conflict: OnConflict::Replace,
            version_by: None,
            catch_up: None,
            priority: 100,
            newest_by: None,
            rejects_max: RejectsMax::Rows(0),
            on_drift: crate::drift::OnDrift::Fail,
            rejects_keep: None,
            uses: Uses { rebuild: true, backup: false },
            backup: Backup::default(),
        }
    );
}

const FULL: &str = r#"
[objectives]
redis = { rto = "90m", rpo = "30s" }
bigquery = { rpo = "7d" }
alloydb = { rto = "1h" }
[alloydb]
url = "${env:ALLOYDB_URL}"
snapshot_max = "2h"
backups = "projects/p/locations/l/clusters/c"
backups_endpoint = "http://127.0.0.1:1/"
[redis]
url = "${file:/run/redis}"
[[route]]
name = "builds"
table = 'alloydb:"My Schema"."My.Table"'
split_by = "id"
where = "status <> 'a;b'"
key = "build:{id}"
type = "json"
columns = ["repo_id", { field = "who", column = "author" }, { field = "v", value = "" }]
as_text = ["geom", "area"]
ttl = "30d"
ttl_from = "finished_at"
null = "empty"
on_collision = "last"
order_by = "updated_at"
on_conflict = "keep"
priority = 1
newest_by = "finished_at"
on_drift = "warn"
use = ["rebuild"]
rejects_max = "0.1%"
rejects_keep = "30d"
[[route]]
name = "users"
query = "SELECT id, name FROM users"
from = "alloydb"
key = "user:$${{{id}}}"
type = "string"
columns = ["name"]
expire_at = "expires_at"
on_collision = "error"
rejects_max = 5
"#;

#[test]
fn a_full_plan_parses() {
    let plan = parse(FULL).unwrap();
    assert_eq!(
        plan.redis_objective,
        Objective { rto: hours(1) + hours(1) / 2, rpo: hours(1) / 120 }
    );
    assert_eq!(plan.bigquery_objective, Objective { rto: hours(24), rpo: hours(168) });
    assert_eq!(plan.alloydb_objective, Objective { rto: hours(1), rpo: hours(24) });
    let alloydb = plan.alloydb.as_ref().unwrap();
    let cluster = alloydb.backups.as_ref().unwrap();
    assert_eq!(
        (cluster.path().as_str(), cluster.endpoint.as_deref()),
        ("projects/p/locations/l/clusters/c", Some("http://127.0.0.1:1"))
    );
    assert_eq!(
        (alloydb.url.0.as_str(), alloydb.snapshot_max),
        ("postgres://app:pw@db:5432/app", hours(2))
    );
    assert_eq!(plan.redis.as_ref().unwrap().0, "rediss://app:pw@cache:6380/1");
    let [builds, users] = &plan.routes[..] else { panic!("two routes") };
    let column = |field: &str, column: &str| FieldSpec::Column {
        field: field.into(),
        column: column.into(),
    };
    assert_eq!(
        builds,
        &Route {
            name: "builds".into(),
            origin: Origin::Table {
                system: System::AlloyDb,
                schema: "My Schema".into(),
                table: "My.Table".into()
            },
            split_by: Some("id".into()),
            filter: Some("status <> 'a;b'".into()),
            key: KeyTemplate::parse("build:{id}").unwrap(),
            layout: Layout::Json,
            columns: Some(vec![
                column("repo_id", "repo_id"),
                column("who", "author"),
                FieldSpec::Constant { field: "v".into(), value: String::new() },
            ]),
            many: None,
            as_text: vec!["geom".into(), "area".into()],
            expiry: Some(Expiry::After { column: "finished_at".into(), ttl: hours(720) }),
            null: NullPolicy::Empty,
            on_collision: Some(OnCollision::Last { order_by: "updated_at".into() }),
            on_conflict: OnConflict::Keep,
            version_by: None,
            catch_up: None,
            priority: 1,
            newest_by: Some("finished_at".into()),
            rejects_max: RejectsMax::Percent(0.1),
            on_drift: crate::drift::OnDrift::Warn,
            rejects_keep: Some(hours(30 * 24)),
            uses: Uses { rebuild: true, backup: false },
            backup: Backup::default(),
        }
    );
    assert_eq!(
        users.origin,
        Origin::Query { system: System::AlloyDb, sql: "SELECT id, name FROM users".into() }
    );
    assert_eq!(users.key.text(), "user:${{{id}}}");
    assert_eq!(users.columns, Some(vec![column("name", "name")]));
    assert_eq!(users.expiry, Some(Expiry::At { column: "expires_at".into() }));
    assert_eq!(users.on_collision, Some(OnCollision::Error));
    assert_eq!(users.rejects_max, RejectsMax::Rows(5));
}

#[test]
fn a_plan_for_bigquery_parses() {
    let text = r#"
[bigquery]
project = "town"
location = "us-central1"
staging_dataset = "staging"
max_bytes_billed = 1_000_000
endpoint = "http://127.0.0.1:9050/"
grpc_endpoint = "http://127.0.0.1:9060"
[redis]
url = "redis://h"
duplicate = { url = "redis://d/1", allow_eviction = true }
[[route]]
name = "usage"
table = "bigquery:logs.usage_daily"
key = "usage:{day}"
type = "hash"
[[route]]
name = "logs"
table = "bigquery:logs.build_logs"
key = "log:build_logs"
type = "blocks"
watermark = "ts"
keep_versions = 5
row_key = "log_id"
"#;
    let plan = parse(text).unwrap();
    assert_eq!(
        plan.bigquery.unwrap(),
        BigQuery {
            project: "town".into(),
            location: Some("us-central1".into()),
            staging_dataset: Some("staging".into()),
            max_bytes_billed: Some(1_000_000),
            endpoint: Some("http://127.0.0.1:9050".into()),
            grpc_endpoint: Some("http://127.0.0.1:9060".into()),
        }
    );
    let duplicate = plan.duplicate.unwrap();
    assert_eq!((duplicate.url.0.as_str(), duplicate.allow_eviction), ("redis://d/1", true));
    let [usage, logs] = &plan.routes[..] else { panic!("two routes") };
    assert_eq!(usage.uses, Uses { rebuild: true, backup: false });
    assert_eq!((logs.layout, logs.uses), (Layout::Blocks, Uses { rebuild: false, backup: true }));
    assert_eq!(
        logs.backup,
        Backup { watermark: Some("ts".into()), keep_versions: 5, row_key: Some("log_id".into()) }
    );
    assert_eq!(
        logs.origin,
        Origin::Table {
            system: System::BigQuery,
            schema: "logs".into(),
            table: "build_logs".into()
        }
    );
}

#[test]
fn substituted_values_are_never_shown() {
    // GIVEN every string field of a plan holding a secret, one at a time
    for line in FULL.lines().filter(|line| line.contains(" = ")) {
        let (field, _) = line.split_once(" = ").unwrap();
        for value in [
            "\"${env:SECRET}\"",
            "[\"${env:SECRET}\", \"${env:SECRET}\"]",
            "{ field = \"${env:SECRET}\" }",
        ] {
            let text = FULL.replace(line, &format!("{field} = {value}"));
            // WHEN the plan is refused THEN no form of the errors shows it
            if let Err(errors) = parse(&text) {
                let shown = format!("{errors} {errors:?}");
                assert!(!shown.contains("hunter2") && !shown.contains("top"), "{text}\n{shown}");
            }
        }
    }
    // GIVEN a plan that is accepted WHEN it is shown THEN its URLs are not
    let plan = parse(FULL).unwrap();
    assert!(!format!("{plan:?}").contains("pw"));
    let url = plan.redis.unwrap();
    assert_eq!((format!("{url:?}"), url.to_string()), ("Secret(..)".into(), "(secret)".into()));
    assert_eq!(Plan::redacted_url(&url), "rediss://app:***@cache:6380/1");
    let empty = MINIMAL.replace("redis://h", "${env:EMPTY}");
    assert_eq!(mistakes(&empty), "line 5: redis.url: must not be empty");
}

#[test]
fn a_definition_holds_what_is_written_and_nothing_else() {
    let plan = parse(FULL).unwrap();
    assert_eq!(
        plan.routes[0].definition(),
        r#"name = "builds"
origin = table "My Schema"."My.Table"
split_by = "id"
where = "status <> 'a;b'"
key = "build:{id}"
type = json
columns = "repo_id" from column "repo_id", "who" from column "author", "v" is ""
as_text = "area", "geom"
expiry = 30d after "finished_at"
null = empty
on_collision = last by "updated_at"
on_conflict = keep
"#
    );
    assert!(
        plan.routes[1].definition().contains("origin = query \"SELECT id, name FROM users\"\n")
    );
}

#[test]
fn the_fingerprint_changes_with_what_is_written_only() {
    let fingerprint = |text: &str| parse(text).unwrap().fingerprint();
    let same = fingerprint(FULL);
    assert_eq!(same.len(), 32);
    for (from, to) in [
        ("${env:ALLOYDB_URL}", "postgres://other/db"),
        ("priority = 1\n", ""),
        ("newest_by = \"finished_at\"\n", ""),
        ("rejects_max = 5\n", ""),
        ("\"geom\", \"area\"", "\"area\", \"geom\""),
        ("\"2h\"", "\"3h\""),
    ] {
        assert_eq!(fingerprint(&FULL.replace(from, to)), same, "{from}");
    }
    for (from, to) in [
        ("\"users\"", "\"people\""),
        ("split_by = \"id\"\n", ""),
        ("status <>", "state <>"),
        ("\"build:{id}\"", "\"b:{id}\""),
        ("\"json\"", "\"hash\""),
        ("value = \"\"", "value = \"1\""),
        ("\"30d\"", "\"31d\""),
        ("null = \"empty\"\n", ""),
        ("\"keep\"", "\"replace\""),
    ] {
        assert_ne!(fingerprint(&FULL.replace(from, to)), same, "{from}");
    }
    let newest = |more: &str| fingerprint(&format!("{MINIMAL}on_conflict = \"newest\"\n{more}"));
    let by_a = newest("version_by = \"a\"\n");
    assert_eq!(newest("version_by = \"a\"\ncatch_up = \"30s\"\n"), by_a);
    assert_ne!(newest("version_by = \"b\"\n"), by_a);
    // A path counts by what it means.
    let with_path = |path: &str| {
        let (from, to) = ("value = \"\"", format!("column = \"meta\", path = '{path}'"));
        fingerprint(&FULL.replace(from, &to))
    };
    assert_eq!(with_path("$.git.ref"), with_path("$[\"git\"][\"ref\"]"));
    assert_ne!(with_path("$.git.ref"), with_path("$.git"));
    let (head, routes) = FULL.split_once("[[route]]").unwrap();
    let (first, second) = routes.split_once("[[route]]").unwrap();
    assert_eq!(fingerprint(&format!("{head}[[route]]{second}[[route]]{first}")), same);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_parsing_panic(text in "\\PC*|[\\[\\]{}=\"'.,#a-z0-9 \n\r\t${}:-]{0,200}") {
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.0.is_empty());
        }
    }

    #[test]
    fn no_plan_with_damaged_lines_makes_parsing_panic(
        dropped in prop::collection::vec(prop::bool::weighted(0.08), 60),
        (at, length) in (0_usize..1000, 0_usize..20),
        put_in in "[\\[\\]{}=\"'.,#a-z0-9 \né${}:;-]{0,12}",
    ) {
        let kept = FULL.lines().zip(dropped).filter(|(_, dropped)| !dropped);
        let mut text = kept.map(|(line, _)| line).collect::<Vec<_>>().join("\n");
        let at = at.min(text.len());
        text.replace_range(at..(at + length).min(text.len()), &put_in);
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.0.is_empty());
            prop_assert!(errors.0.iter().all(|e| e.line >= 1 && e.column >= 1 && !e.message.contains("pw")));
        }
    }
}
