//! `verify bigquery --repair`: damage that a dry run has shown is copied again from BigQuery, and nothing else is done.
//!
//! Invariant: BigQuery never changes; keys of table partitions that were whole are the same bytes afterwards.

use crate::cloud::{Cloud, plain};
use crate::verified::{Image, part};
use redis::Commands;
use serde_json::json;

const FULL: [&str; 2] = ["--tier", "full"];
const SHOWN: [&str; 4] = ["--tier", "full", "--repair", "--dry-run"];
const REPAIR: [&str; 3] = ["--tier", "full", "--repair"];

/// What belongs to other table partitions than these.
fn others(image: &Image, ids: &[&str]) -> Image {
    let is_theirs = |key: &str| ids.iter().any(|id| key.contains(id)) || key == "log:run";
    image
        .iter()
        .filter(|(key, _)| !is_theirs(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn filled() -> Cloud {
    let cloud = plain();
    for day in 1..=6 {
        cloud.insert(day, 0..40);
    }
    cloud.backup(&[]).expect(0);
    cloud.sql(
        "INSERT INTO d.t (id, name, ts) VALUES (99, 'x', TIMESTAMP '2025-11-03 00:00:00+00:00')",
    );
    cloud.backup(&[]).expect(0);
    cloud
}

#[test]
fn what_a_dry_run_has_shown_is_repaired_and_no_other_key_is_touched() {
    let cloud = filled();
    let mut connection = cloud.connection();
    let rows = cloud.source("id, name, ts");
    cloud.verify(&REPAIR).expect(2).says(&["there was none", "--repair --dry-run"]);
    // A block that is gone, one that is altered, a manifest that is gone, and an older version.
    let _: () = connection.del("log:b:20251101:1:0").unwrap();
    let mut value = cloud.value("log:b:20251102:1:0");
    let at = value.len() - 1;
    value[at] ^= 1;
    cloud.put("log:b:20251102:1:0", &value);
    let _: () = connection.del("log:m:20251104").unwrap();
    let _: () = connection.del("log:b:20251103:1:0").unwrap();
    let before = cloud.image();
    let summary = cloud.verify(&SHOWN).expect(4).summary();
    assert!(cloud.image() == before, "a dry run wrote");
    let ids = ["20251101", "20251102", "20251103", "20251104"];
    let named: Vec<String> = ids.iter().map(|id| format!("d.t${id}")).collect();
    assert_eq!(summary["repair"]["copied_again"], json!(named), "{summary}");
    // Damage that came later, and that no length shows, was not shown and is left.
    let mut value = cloud.value("log:b:20251105:1:0");
    let at = value.len() / 2;
    value[at] ^= 4;
    cloud.put("log:b:20251105:1:0", &value);
    let before = cloud.image();
    let summary = cloud.verify(&REPAIR).expect(4).summary();
    assert_eq!(summary["repair"]["copied_again"], json!(named), "{summary}");
    assert!(summary["repair"]["left"].to_string().contains("the last dry run has not shown it"));
    let parts = summary["tables"][0]["parts"].as_array().unwrap();
    assert!(parts.iter().all(|part| part["table_partition"] == "20251105"), "{summary}");
    assert!(others(&cloud.image(), &ids) == others(&before, &ids), "another key was written");
    cloud.verify(&SHOWN).expect(4);
    cloud.verify(&REPAIR).expect(0);
    assert_eq!(cloud.source("id, name, ts"), rows);
    cloud.assert_same("id, name, ts");
    assert_eq!(cloud.strays(), Vec::<String>::new());
    cloud.verify_full(0);
}

#[test]
fn a_repair_never_overwrites_a_copy_with_less_and_leaves_what_a_person_decides() {
    let cloud = filled();
    let mut connection = cloud.connection();
    let _: () = connection.del("log:b:20251101:1:0").unwrap();
    cloud.sql("DELETE FROM d.t WHERE id < 5 AND ts < TIMESTAMP '2025-11-03 00:00:00+00:00'");
    let before = cloud.image();
    let before = cloud.image();
    let summary = cloud.verify(&SHOWN).expect(4).summary();
    assert_eq!(summary["repair"]["copied_again"], json!([]), "{summary}");
    let left = summary["repair"]["left"].to_string();
    assert!(left.contains("d.t$20251101: bigquery has fewer rows than its copy"), "{left}");
    assert!(
        left.contains("d.t$20251102: which side is right has to be decided by a person"),
        "{left}"
    );
    let summary = cloud.verify(&REPAIR).expect(4).summary();
    assert_eq!(part(&summary, "20251101")["state"], "damaged", "{summary}");
    assert!(cloud.image() == before, "a copy was overwritten");
    cloud.verify(&[&FULL[..], &["--dry-run"]].concat()).expect(2);
}
