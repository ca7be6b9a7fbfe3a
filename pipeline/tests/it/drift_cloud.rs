//! BigQuery tables that change their shape between two backups, two rebuilds, and a backup and a verification.
//!
//! Invariant: whatever is refused leaves the duplicate and the keys of a rebuild as they were.

use crate::app_logs::{HASHES, Logs, STREAM};
use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::world::Ran;
use fixtures::servers::RedisOptions;
use redis::Commands as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The route of a rebuild over the column `name`.
fn keys(more: &str) -> String {
    format!(
        "[[route]]\nname = \"names\"\ntable = \"bigquery:d.t\"\nkey = \"name:{{id}}\"\ntype = \"hash\"\n\
         columns = [\"name\"]\nuse = [\"rebuild\"]\non_collision = \"error\"\n{more}"
    )
}

fn made_anew(cloud: &Cloud, columns: &[(&str, &str)], values: impl Fn(u32) -> String) {
    cloud.delete_table();
    made(cloud, columns, values);
}

/// Makes the table with these columns and 30 rows of each of two days.
fn made(cloud: &Cloud, columns: &[(&str, &str)], values: impl Fn(u32) -> String) {
    let mut table: Value = serde_json::from_str(DAY_PARTITIONED).unwrap();
    table["tableReference"] = json!({"tableId": "t"});
    let fields = columns.iter().map(|(name, kind)| json!({"name": name, "type": kind}));
    table["schema"] = json!({"fields": fields.collect::<Vec<_>>()});
    cloud.post("bigquery/v2/projects/p/datasets/d/tables", &table);
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let row = |id: u32| {
        let day = 1 + id / 30;
        format!("({id}, TIMESTAMP '2025-11-{day:02} 00:00:00+00:00'{})", values(id))
    };
    let rows: Vec<String> = (0..60).map(row).collect();
    cloud.sql(&format!("INSERT INTO d.t ({}) VALUES {}", names.join(", "), rows.join(", ")));
}

/// Name and type.
type Column = (&'static str, &'static str);

/// What a row has beside its number and its time, with a comma before it.
type Values = fn(u32) -> String;

const AS_IT_WAS: [Column; 3] = [("id", "INT64"), ("ts", "TIMESTAMP"), ("name", "STRING")];

fn named(id: u32) -> String {
    format!(", 'name {id}'")
}

/// Every key of a prefix with its value as Redis dumps it.
fn held(cloud: &Cloud, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let mut connection = cloud.connection();
    let names: Vec<String> = connection.keys(format!("{prefix}*")).unwrap();
    let dump = |name: String| {
        let dumped = redis::cmd("DUMP").arg(&name).query(&mut cloud.connection()).unwrap();
        (name, dumped)
    };
    names.into_iter().map(dump).collect()
}

fn drift_of(ran: &Ran) -> Vec<String> {
    let summary = ran.summary();
    let entries = summary["drift"].as_array().cloned().unwrap_or_default();
    let told = |entry: &Value| format!("{} {}", entry["column"], entry["change"]).replace('"', "");
    entries.iter().map(told).collect()
}

#[test]
fn a_duplicate_stays_as_it_is_where_its_table_was_made_anew_with_other_columns() {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    made(&cloud, &AS_IT_WAS, named);
    cloud.backup(&[]).expect(0);
    let before = held(&cloud, "log:");
    let [id, ts, _] = AS_IT_WAS;
    let shapes: [(&[Column], Values); 3] = [
        (&[id, ts], |_| String::new()),
        (&[id, ts, ("title", "STRING")], named),
        (&[id, ts, ("name", "INT64")], |id| format!(", {id}")),
    ];
    for (columns, values) in shapes {
        // WHEN a column is gone, or holds something else THEN nothing of the duplicate changes
        made_anew(&cloud, columns, values);
        let says = ["d.t was made anew", "its duplicate stays as it is", "--accept-loss d.t"];
        cloud.backup(&[]).expect(4).says(&says);
        assert_eq!(held(&cloud, "log:"), before, "{columns:?}");
        let words = ["verify", "bigquery", "--json", "--progress", "none", "--tier", "full"];
        let verified = Ran::of(&cloud.command(&words).output().unwrap()).expect(4);
        let summary = verified.summary();
        assert_ne!(summary["verdict"], "pass");
        assert!(summary.to_string().contains("--route logs --accept-loss d.t"), "{summary}");
        assert_eq!(held(&cloud, "log:"), before, "{columns:?}");
    }
    // AND once it is accepted, the new rows are copied
    made_anew(&cloud, &AS_IT_WAS, |id| format!(", 'new {id}'"));
    cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    cloud.assert_same("id, name, ts");
    assert_eq!(drift_of(&cloud.backup(&[]).expect(0)), Vec::<String>::new());
}

#[test]
fn a_rebuild_refuses_a_table_whose_column_holds_something_else() {
    let cloud = Cloud::new(RedisOptions::default(), &keys(""));
    made(&cloud, &AS_IT_WAS, named);
    let rebuild = |more: &[&str]| {
        let words = ["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "2s"];
        Ran::of(&cloud.command(&[&words[..], more].concat()).output().unwrap())
    };
    rebuild(&[]).expect(0);
    let before = held(&cloud, "name:");
    assert_eq!(before.len(), 60);

    // A column that the route does not read is told, and goes on.
    let more = [AS_IT_WAS[0], AS_IT_WAS[1], AS_IT_WAS[2], ("extra", "STRING")];
    made_anew(&cloud, &more, |id| format!(", 'name {id}', 'x'"));
    let ran = rebuild(&[]).expect(0).says(&["column extra was added (STRING)"]);
    assert_eq!(drift_of(&ran), ["extra added"]);
    assert_eq!(held(&cloud, "name:"), before);

    // One that it reads and that holds something else, or that is gone, is not.
    made_anew(&cloud, &[AS_IT_WAS[0], AS_IT_WAS[1], ("name", "INT64")], |id| format!(", {id}"));
    rebuild(&[]).expect(2).says(&["route names, d.t: ", "STRING -> INT64", "--fresh"]);
    assert_eq!(held(&cloud, "name:"), before);
    made_anew(&cloud, &AS_IT_WAS[..2], |_| String::new());
    rebuild(&[]).expect(2).says(&["column name was dropped (STRING)", "unknown column name"]);
    assert_eq!(held(&cloud, "name:"), before);

    // With `warn` the new values are written, told as such.
    cloud.plan(&keys("on_drift = \"warn\"\n"));
    made_anew(&cloud, &[AS_IT_WAS[0], AS_IT_WAS[1], ("name", "INT64")], |id| format!(", {id}"));
    let ran = rebuild(&[]).expect(0).says(&["STRING -> INT64", "written otherwise"]);
    assert_eq!(ran.summary()["drift"].to_string().matches("\"changes_values\":true").count(), 1);
    let value: String = cloud.connection().hget("name:7", "name").unwrap();
    assert_eq!(value, "7");
}

/// The rows of the table as it is, and of its columns.
fn rows_of(cloud: &Cloud) -> Vec<String> {
    let mut rows = cloud.sql("SELECT * FROM d.t");
    rows.sort();
    rows
}

fn run(cloud: &Cloud, words: &[&str]) -> Ran {
    let more = ["--json", "--progress", "none", "--retry-for", "2s"];
    Ran::of(&cloud.command(&[words, &more].concat()).output().unwrap())
}

/// A table with a column of each kind that is altered below.
fn altered(more: &str) -> Cloud {
    let cloud = Cloud::new(RedisOptions::default(), &format!("{ROUTE}{more}"));
    let columns = [&AS_IT_WAS[..], &[("extra", "STRING"), ("n", "INT64")]].concat();
    made(&cloud, &columns, |id| format!(", 'name {id}', 'extra {id}', {id}"));
    cloud.backup(&[]).expect(0);
    cloud
}

/// Each way to alter a column so that older copies hold what newer ones would not, and what is told of it.
const ALTERED: [(&str, &str, &str); 3] = [
    ("DROP COLUMN extra", "column extra was dropped (STRING)", "extra dropped"),
    ("RENAME COLUMN name TO title", "column name was renamed to title", "name renamed"),
    (
        "ALTER COLUMN n SET DATA TYPE NUMERIC",
        "column n has another type: INT64 -> NUMERIC",
        "n retyped",
    ),
];

#[test]
fn an_altered_table_keeps_its_duplicate_until_the_change_is_accepted() {
    let cloud = altered("");
    for (alter, told, word) in ALTERED {
        let before = held(&cloud, "log:");
        cloud.sql(&format!("ALTER TABLE d.t {alter}"));
        // WHEN nobody has accepted it THEN nothing of the duplicate changes, and every command says which column it is
        let says = ["its duplicate stays as it is", told, "--accept-loss d.t"];
        cloud.backup(&[]).expect(2).says(&says);
        assert_eq!(held(&cloud, "log:"), before, "{alter}");
        let verified = run(&cloud, &["verify", "bigquery", "--tier", "full"]).expect(4);
        let summary = verified.summary();
        assert_eq!(summary["verdict"], "inconclusive", "{summary}");
        assert!(summary.to_string().contains(told), "{summary}");
        let hint = summary["tables"][0]["parts"][0]["hint"].as_str().unwrap();
        assert!(hint.contains("--route logs --accept-loss d.t, then verify again"), "{hint}");
        assert_eq!(held(&cloud, "log:"), before, "{alter}");

        // WHEN it is accepted THEN all table partitions are copied again, though BigQuery calls none of them changed
        assert_eq!(drift_of(&cloud.backup(&["--accept-loss", "d.t"]).expect(0)), [word]);
        assert_eq!(drift_of(&cloud.backup(&[]).expect(0)), Vec::<String>::new());
        run(&cloud, &["verify", "bigquery", "--tier", "full"]).expect(0);
        // AND a restore brings back every value under its present column
        let rows = rows_of(&cloud);
        cloud.delete_table();
        run(&cloud, &["restore", "bigquery"]).expect(0);
        assert_eq!(rows_of(&cloud), rows, "{alter}");
        cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    }
}

#[test]
fn an_altered_table_is_copied_as_it_is_where_the_plan_only_warns() {
    let cloud = altered("on_drift = \"warn\"\n");
    let first = rows_of(&cloud);
    let copied = cloud.recorded().snapshot_us;
    for (alter, told, word) in ALTERED {
        cloud.sql(&format!("ALTER TABLE d.t {alter}"));
        assert_eq!(drift_of(&cloud.backup(&[]).expect(0).says(&[told])), [word]);
        run(&cloud, &["verify", "bigquery", "--tier", "full"]).expect(0);
    }
    let rows = rows_of(&cloud);
    cloud.delete_table();
    run(&cloud, &["restore", "bigquery"]).expect(0);
    assert_eq!(rows_of(&cloud), rows);
    assert_ne!(rows, first);
    assert!(cloud.recorded().snapshot_us > copied);
}

#[test]
fn a_copy_that_stays_while_its_table_changes_is_told_when_it_is_restored() {
    let cloud = altered("on_drift = \"warn\"\n");
    // GIVEN a table partition whose copy stays, because BigQuery lost rows of it, and a table that was altered then
    cloud.sql("DELETE FROM d.t WHERE id < 5");
    cloud.sql("ALTER TABLE d.t RENAME COLUMN name TO title");
    cloud.backup(&[]).expect(4).says(&["has fewer rows than its copy"]);
    // THEN a restore says what of it has no column any more
    cloud.delete_table();
    let says = ["table partitions 20251101 of d.t", "column name was renamed to title", "--as-of"];
    run(&cloud, &["restore", "bigquery"]).expect(0).says(&says);
    assert_eq!(cloud.sql("SELECT COUNT(*) FROM d.t"), ["60"]);
}

#[test]
fn rows_are_not_added_to_a_table_of_other_columns() {
    let cloud = altered("");
    let rows = rows_of(&cloud);
    cloud.sql("DELETE FROM d.t WHERE id < 30");
    for (alter, told) in [
        ("ADD COLUMN more STRING", "column more was added (STRING)"),
        ("RENAME COLUMN name TO title", "column name was renamed to title"),
    ] {
        cloud.sql(&format!("ALTER TABLE d.t {alter}"));
        for words in [&["--partitions", "20251101"][..], &["--fill"]] {
            let words = [&["restore", "bigquery"][..], words].concat();
            let says = ["d.t has other columns than its duplicate", told, "--replace"];
            run(&cloud, &words).expect(2).says(&says);
            assert_eq!(cloud.sql("SELECT COUNT(*) FROM d.t"), ["30"], "{words:?}");
        }
    }
    run(&cloud, &["restore", "bigquery", "--replace"]).expect(0);
    assert_eq!(rows_of(&cloud), rows);
}

#[test]
fn what_changed_since_a_rebuild_is_told_by_a_verification_and_a_replay() {
    let cloud = Cloud::new(RedisOptions::default(), &keys("null = \"error\"\nrejects_max = 5\n"));
    made(&cloud, &AS_IT_WAS, |id| if id == 7 { ", NULL".to_owned() } else { named(id) });
    run(&cloud, &["rebuild", "redis"]).expect(0);
    let before = held(&cloud, "name:");
    assert_eq!(before.len(), 59);
    let verify = &["verify", "redis", "--settle", "100ms", "--tier", "full"][..];
    let replay = &["rejects", "replay", "--settle", "100ms"][..];
    run(&cloud, verify).expect(0);

    // A column that nobody reads is told, and changes nothing.
    cloud.sql("ALTER TABLE d.t ADD COLUMN more STRING");
    let verified = run(&cloud, verify).expect(0).summary();
    let warnings = verified["warnings"].to_string();
    assert!(warnings.contains("column more was added (STRING)"), "{verified}");
    run(&cloud, replay).expect(7).says(&["column more was added (STRING)"]);

    // One that is gone is named, before anything is read.
    cloud.sql("ALTER TABLE d.t RENAME COLUMN name TO title");
    for words in [verify, replay] {
        let says =
            ["column name was renamed to title", "unknown column name", "rebuild redis --fresh"];
        run(&cloud, words).expect(2).says(&says);
    }
    // One that holds something else makes keys differ: that is why, and nothing is written beside them.
    made_anew(&cloud, &[AS_IT_WAS[0], AS_IT_WAS[1], ("name", "INT64")], |id| format!(", {id}"));
    let verified = run(&cloud, verify).expect(4).summary();
    let warnings = verified["warnings"].to_string();
    assert!(warnings.contains("STRING -> INT64"), "{verified}");
    let says = ["since run", "STRING -> INT64", "rebuild redis --fresh"];
    run(&cloud, replay).expect(2).says(&says);
    assert_eq!(held(&cloud, "name:"), before);
}

/// Writes all rows as the application does that keeps them: with the columns that the table has now.
fn keep_rows(logs: &Logs, layout: &str, name: &str) {
    if layout != "stream" {
        run(&logs.cloud, &["rebuild", "redis", "--fresh"]).expect(0);
        return;
    }
    let mut pipeline = redis::pipe();
    pipeline.del("log:stream").ignore();
    for id in 0..60 {
        let ts = format!("2025-11-{:02}T00:00:00Z", 1 + id / 30);
        let (id, value, extra) = (id.to_string(), format!("name {id}"), format!("extra {id}"));
        let fields = ["id", &id, "ts", &ts, name, &value, "extra", &extra, "n", &id];
        pipeline.cmd("XADD").arg("log:stream").arg("*").arg(&fields).ignore();
    }
    let _: () = pipeline.query(&mut logs.cloud.connection()).unwrap();
}

#[test]
fn rows_of_an_application_are_compared_and_restored_under_the_columns_of_their_record() {
    for layout in ["hash", "json", "stream"] {
        let route = if layout == "stream" { STREAM } else { &HASHES.replace("hash", layout) };
        let logs = Logs::new(RedisOptions::default(), &format!("{route}row_key = \"id\"\n"));
        let cloud = &logs.cloud;
        let columns = [&AS_IT_WAS[..], &[("extra", "STRING"), ("n", "INT64")]].concat();
        made(cloud, &columns, |id| format!(", 'name {id}', 'extra {id}', {id}"));
        keep_rows(&logs, layout, "name");
        cloud.backup(&[]).expect(0);
        let rows = rows_of(cloud);
        let (record, kept) = (held(cloud, "rekindle:rows:"), held(cloud, "log:"));
        for (alter, told, _) in ALTERED {
            cloud.sql(&format!("ALTER TABLE d.t {alter}"));
            // WHEN nobody has accepted it THEN the record stays, and every command says which column it is
            let says = ["its duplicate stays as it is", told, "--accept-loss d.t"];
            cloud.backup(&[]).expect(2).says(&says);
            let summary = run(cloud, &["verify", "bigquery", "--tier", "full"]).expect(4).summary();
            assert_eq!(summary["verdict"], "inconclusive", "{summary}");
            let problem = &summary["tables"][0]["problems"][0];
            assert!(problem["what"].as_str().unwrap().contains(told), "{summary}");
            let hint = problem["hint"].as_str().unwrap();
            assert!(hint.contains("--route rows --accept-loss d.t") && hint.contains("--replace"));
            // AND rows are not added to a table that they do not fit, but the table comes back as it was
            cloud.sql("DELETE FROM d.t WHERE id < 30");
            let says = ["d.t has other columns than its duplicate", told, "--replace"];
            run(cloud, &["restore", "bigquery", "--fill"]).expect(2).says(&says);
            assert_eq!(cloud.sql("SELECT COUNT(*) FROM d.t"), ["30"], "{layout} {alter}");
            run(cloud, &["restore", "bigquery", "--replace"]).expect(0);
            assert_eq!(rows_of(cloud), rows, "{layout} {alter}");
            assert_eq!(
                (held(cloud, "rekindle:rows:"), held(cloud, "log:")),
                (record.clone(), kept.clone())
            );
            run(cloud, &["verify", "bigquery", "--tier", "full"]).expect(0);
        }
        // WHEN it is accepted before the rows have the new columns THEN none of them is guessed
        let (alter, _, word) = ALTERED[1];
        cloud.sql(&format!("ALTER TABLE d.t {alter}"));
        assert_eq!(drift_of(&cloud.backup(&["--accept-loss", "d.t"]).expect(0)), [word]);
        let says = ["60 of 60 rows of redis could not be decoded", "nothing was published"];
        run(cloud, &["restore", "bigquery", "--replace"]).expect(7).says(&says);
        assert_eq!(rows_of(cloud), rows);
        // AND with the new columns all of it comes back under them
        keep_rows(&logs, layout, "title");
        run(cloud, &["verify", "bigquery", "--tier", "full"]).expect(0);
        cloud.delete_table();
        run(cloud, &["restore", "bigquery", "--fresh"]).expect(0);
        assert_eq!(rows_of(cloud), rows);
        assert_eq!(cloud.sql("SELECT title FROM d.t WHERE id = 7"), ["name 7"]);
    }
}
