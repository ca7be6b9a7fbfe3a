//! A sealed duplicate: nothing of it can be read without its key, everything comes back with it, and keys are rotated.
//!
//! Invariant: what is readable is looked for by a reader that knows the layout of the duplicate and has no key.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE, plain};
use crate::world::Ran;
use fixtures::servers::RedisOptions;
use redis::Commands;
use schemas::block::{self, Header};
use schemas::{EncryptKey, Seals, zstd_frame};
use serde_json::{Value, json};
use std::fs;

/// A value of a row, and the description of a column, that nobody may read.
const PLANTED: &str = "4711 Rosebud of Xanadu";
const DESCRIBED: &str = "\"description\":\"who\"";

/// A key of the same digit throughout.
fn key(digit: &str) -> EncryptKey {
    EncryptKey::parse(&digit.repeat(64)).unwrap()
}

/// Writes the plan with these keys, the one that seals first; with none of them where there is none.
fn plan(cloud: &Cloud, digits: &[&str]) {
    let mut quoted = Vec::new();
    for digit in digits {
        let path = cloud.folder.path().join(format!("key-{digit}"));
        fs::write(&path, format!("{}\n", digit.repeat(64))).unwrap();
        quoted.push(format!("\"${{file:{}}}\"", path.display()));
    }
    let keys = match &quoted[..] {
        [] => String::new(),
        [current] => format!("encrypt_key = {current}\n"),
        [current, old @ ..] => {
            format!("encrypt_key = {current}\nold_keys = [{}]\n", old.join(", "))
        }
    };
    cloud.plan(&format!("{keys}{ROUTE}"));
}

/// A table of three days with a planted row, and a plan with these keys.
fn cloud(digits: &[&str]) -> Cloud {
    let cloud = Cloud::new(RedisOptions::default(), ROUTE);
    plan(&cloud, digits);
    cloud.table(DAY_PARTITIONED);
    fill(&cloud);
    cloud
}

fn fill(cloud: &Cloud) {
    for day in 1..=3 {
        cloud.insert(day, 0..40);
    }
    cloud.sql(&format!(
        "INSERT INTO d.t (id, name, ts) VALUES (900, '{PLANTED}', TIMESTAMP '2025-11-02 00:00:00+00:00')"
    ));
}

fn run(cloud: &Cloud, words: &[&str]) -> Ran {
    Ran::of(&cloud.command(words).output().unwrap())
}

fn restore(cloud: &Cloud, more: &[&str]) -> Ran {
    let words =
        ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "2s", "--fresh"];
    run(cloud, &[&words[..], more].concat())
}

/// Deletes the table, restores it, and asserts that it has the rows that it had.
#[track_caller]
fn assert_comes_back(cloud: &Cloud) {
    let lines = cloud.source("id, name, ts");
    cloud.delete_table();
    restore(cloud, &[]).expect(0);
    assert!(cloud.source("id, name, ts") == lines, "the restored rows differ");
}

/// Keys whose values show a text to somebody who can undo everything but a seal.
fn showing(cloud: &Cloud, text: &str) -> Vec<String> {
    let mut connection = cloud.connection();
    let mut keys: Vec<String> = connection.keys("*").unwrap();
    keys.sort();
    let has = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    keys.retain(|key| {
        let dumped: Vec<u8> = redis::cmd("DUMP").arg(key).query(&mut connection).unwrap();
        let kind: String = redis::cmd("TYPE").arg(key).query(&mut connection).unwrap();
        let value: Vec<u8> =
            if kind == "string" { connection.get(key).unwrap() } else { Vec::new() };
        let body = Header::parse(&value).ok().and_then(|(header, from)| {
            let raw_bytes = usize::try_from(header.raw_bytes).unwrap();
            zstd_frame::decompress(&value[from..], raw_bytes).ok()
        });
        has(&dumped) || has(&value) || body.is_some_and(|body| has(&body))
    });
    keys
}

fn control(cloud: &Cloud, code: i32) -> Value {
    let report = run(cloud, &["check", "--json"]).expect(code).summary();
    let controls = report["controls"].as_array().unwrap();
    let found = controls.iter().find(|control| control["control"] == "duplicate of d.t");
    found.unwrap_or_else(|| panic!("{report}")).clone()
}

fn sealing(cloud: &Cloud) -> Value {
    let status = run(cloud, &["status", "--json"]).expect(0).summary();
    status["duplicates"][0]["sealing"].clone()
}

#[test]
fn an_unsealed_duplicate_stays_readable_with_a_key_and_check_says_so() {
    // GIVEN a duplicate that was not sealed: its reader finds what is planted
    let cloud = cloud(&[]);
    cloud.backup(&[]).expect(0);
    assert!(showing(&cloud, PLANTED).iter().any(|key| key.starts_with("log:b:20251102:")));
    assert!(showing(&cloud, DESCRIBED).iter().any(|key| key.starts_with("log:s:")));
    assert_eq!(sealing(&cloud), Value::Null);
    assert_eq!(control(&cloud, 0)["verdict"], "OK");
    // WHEN the plan gets a key THEN check says that it is not sealed, and it stays readable
    plan(&cloud, &["1"]);
    let id = key("1").id_text();
    let told = control(&cloud, 2);
    assert_eq!(told["verdict"], "FAILED", "{told}");
    let detail = told["detail"].as_str().unwrap();
    let words = format!("0 of 3 newest versions sealed with key {id}, 3 not sealed");
    assert!(detail.contains(&words), "{detail}");
    assert!(told["fix"].as_str().unwrap().contains("rekindle backup bigquery --full"), "{told}");
    cloud.verify_full(0);
    assert_comes_back(&cloud);
}

#[test]
fn a_sealed_duplicate_shows_nothing_and_comes_back_whole() {
    let cloud = cloud(&["1"]);
    cloud.backup(&[]).expect(0);
    assert_eq!(showing(&cloud, PLANTED), Vec::<String>::new());
    assert_eq!(showing(&cloud, DESCRIBED), Vec::<String>::new());
    let id = key("1").id_text();
    let told = sealing(&cloud);
    let counts = ["versions", "current", "old", "unsealed", "older_versions"];
    let counts = counts.map(|name| told[name].as_u64().unwrap());
    assert_eq!((counts, told["key_id"].as_str()), ([3, 3, 0, 0, 0], Some(id.as_str())));
    let words = format!("3 of 3 newest versions sealed with key {id}");
    run(&cloud, &["status"]).expect(0).shows(&[&words]);
    let checked = control(&cloud, 0);
    assert_eq!((&checked["verdict"], checked.get("fix")), (&json!("OK"), None), "{checked}");
    // AND every reader opens it: nothing changed means nothing is read again
    let summary = cloud.backup(&[]).expect(0).summary();
    assert_eq!(summary["tables"][0]["kept"], 3);
    let summary = cloud.verify_full(0);
    assert_eq!(summary["tables"][0]["rows_compared"], 121);
    run(&cloud, &["plan"]).shows(&["restore of d.t: 3 table partitions, 121 rows as of "]);
    assert_comes_back(&cloud);
    // AND so it does where only the headers of blocks tell what there was
    let mut connection = cloud.connection();
    let documents: Vec<String> = connection.keys("log:m:*").unwrap();
    let _: () = connection.del(documents).unwrap();
    let _: () = connection.del("log:run").unwrap();
    let lines = cloud.source("id, name, ts");
    cloud.delete_table();
    restore(&cloud, &["--from-scan"]).expect(0);
    assert!(cloud.source("id, name, ts") == lines, "the restored rows differ");
}

#[test]
fn a_key_that_is_missing_or_wrong_is_named_and_nothing_is_changed() {
    let cloud = cloud(&["1"]);
    cloud.backup(&[]).expect(0);
    let (right, wrong) = (key("1").id_text(), key("2").id_text());
    let image = cloud.image();
    let no_key = [right.as_str(), "encrypt_key"];
    let wrong_key = [right.as_str(), wrong.as_str(), "old_keys"];
    for (digits, says) in [(&[][..], &no_key[..]), (&["2"][..], &wrong_key[..])] {
        plan(&cloud, digits);
        for more in [&[] as &[&str], &["--full"]] {
            cloud.backup(more).expect(2).says(says);
        }
        restore(&cloud, &["--replace"]).expect(2).says(says);
        cloud.verify(&["--tier", "full"]).expect(2).says(says);
        let told = control(&cloud, 2);
        assert_eq!(told["verdict"], "FAILED", "{told}");
        assert!(says.iter().all(|text| told.to_string().contains(text)), "{told}");
        run(&cloud, &["status"]).expect(0).shows(&[&right]);
        assert!(cloud.image() == image, "something was written with {digits:?}");
    }
    // AND the blocks tell it themselves where their documents can be opened
    plan(&cloud, &["1"]);
    assert_comes_back(&cloud);
}

#[test]
fn sealed_values_that_were_altered_or_swapped_are_named_as_ever() {
    let cloud = cloud(&["1"]);
    cloud.backup(&[]).expect(0);
    let blocks = cloud.block_keys();
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    let refused = |key: &str, value: &[u8]| {
        let before = cloud.value(key);
        cloud.put(key, value);
        let summary = cloud.verify_full(4).to_string();
        assert!(summary.contains(key) || summary.contains("is altered"), "{summary}");
        restore(&cloud, &["--replace"]).expect(4).says(&[key, "altered"]);
        cloud.put(key, &before);
        cloud.verify_full(0);
    };
    // A bit of a sealed body.
    let mut flipped = cloud.value(&blocks[0]);
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    refused(&blocks[0], &flipped);
    // The same rows without their seal are none of a version that is sealed.
    let sealed = cloud.value(&blocks[0]);
    let seals = Seals::new(Some(&key("1")), &[]);
    let (header, body) = block::open_with(&seals, &blocks[0], &sealed).unwrap();
    let header = Header { key_id: None, ..header };
    cloud.put(&blocks[0], &[&header.to_bytes()[..], &body].concat());
    let summary = cloud.verify_full(4).to_string();
    assert!(summary.contains("the key of its seal is not what its manifest says"), "{summary}");
    cloud.put(&blocks[0], &sealed);
    // A bit of a document; a whole document under the key of another one.
    let manifest = "log:m:20251101";
    let mut flipped = cloud.value(manifest);
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    refused(manifest, &flipped);
    refused(manifest, &cloud.value("log:m:20251103"));
    let mut flipped = cloud.value("log:run");
    flipped[60] ^= 1;
    refused("log:run", &flipped);
}

#[test]
fn a_key_is_rotated_and_the_former_one_can_go() {
    let cloud = cloud(&["1"]);
    cloud.backup(&[]).expect(0);
    let (one, two) = (key("1").id_text(), key("2").id_text());
    // WHEN the key is another one and the former one is kept THEN everything is readable as before
    plan(&cloud, &["2", "1"]);
    cloud.verify_full(0);
    assert_comes_back(&cloud);
    // A restore makes the table anew, so the loss of the former one is accepted; all of it is copied again.
    cloud.backup(&["--accept-loss", "d.t"]).expect(0);
    let told = sealing(&cloud);
    assert_eq!((&told["key_id"], &told["current"]), (&json!(two), &json!(3)), "{told}");
    // AND the versions before it still need the former key
    assert_eq!(told["older_versions"], 3, "{told}");
    let checked = control(&cloud, 0);
    assert!(checked["fix"].as_str().unwrap().contains("--full"), "{checked}");
    cloud.verify_full(0);
    plan(&cloud, &["2"]);
    cloud.verify(&["--tier", "full"]).expect(2).says(&[&one, &two]);
    let checked = control(&cloud, 0);
    let detail = checked["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("missing keys: {one}")), "{detail}");
    // WHEN everything is copied again THEN nothing needs it
    cloud.backup(&["--full"]).expect(0);
    let told = sealing(&cloud);
    assert_eq!((&told["current"], &told["older_versions"]), (&json!(3), &json!(0)), "{told}");
    let checked = control(&cloud, 0);
    assert_eq!(checked.get("fix"), None, "{checked}");
    cloud.verify_full(0);
    cloud.backup(&[]).expect(0);
    assert_comes_back(&cloud);
}

#[test]
fn an_unsealed_duplicate_is_sealed_whole_by_full_backups() {
    let cloud = plain();
    fill(&cloud);
    cloud.backup(&[]).expect(0);
    plan(&cloud, &["1"]);
    // Each of them replaces one version of every table partition; two are kept.
    cloud.backup(&["--full"]).expect(0);
    let told = sealing(&cloud);
    assert_eq!((&told["current"], &told["older_versions"]), (&json!(3), &json!(3)), "{told}");
    assert!(!showing(&cloud, PLANTED).is_empty());
    assert_eq!(showing(&cloud, DESCRIBED), Vec::<String>::new());
    cloud.backup(&["--full"]).expect(0);
    assert_eq!(showing(&cloud, PLANTED), Vec::<String>::new());
    assert_eq!(sealing(&cloud)["older_versions"], 0);
    cloud.verify_full(0);
    assert_comes_back(&cloud);
}
