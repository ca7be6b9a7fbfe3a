//! BigQuery tables that change their shape between two backups, two rebuilds, and a backup and a verification.
//!
//! Invariant: whatever is refused leaves the duplicate and the keys of a rebuild as they were.

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
        assert_ne!(verified.summary()["verdict"], "pass");
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
