//! What an unfinished backup leaves when the plan changes in between, and messages that cannot be decoded.
//!
//! Invariant: what was begun and never published goes, or is named with its key prefix and the way to remove it.

use crate::cloud::{Cloud, ROUTE, plain};
use crate::items::{signal, wait_for_stop};
use crate::net::lead;
use crate::world::{Ran, wait_until};
use fixtures::servers::{Direction, Proxy, Toxic};
use nix::sys::signal::Signal;
use redis::Commands;
use serde_json::json;
use std::process::Stdio;

/// Keys of blocks under the prefix of the route.
fn blocks(cloud: &Cloud) -> Vec<String> {
    let mut keys: Vec<String> = cloud.connection().keys("log:b:*").unwrap();
    keys.sort();
    keys
}

/// A backup that wrote blocks and may neither publish nor remove them.
fn unpublished() -> Cloud {
    let cloud = plain();
    for day in 1..=3 {
        cloud.insert(day, 0..100);
    }
    let allowed = "%R~* ~log:b:* ~log:s:* ~log:run ~rekindle*";
    let words: Vec<&str> = ["ACL", "SETUSER", "default", "resetkeys"]
        .into_iter()
        .chain(allowed.split(' '))
        .chain(["-unlink"])
        .collect();
    cloud.redis.cli(&words).unwrap();
    cloud.backup(&[]).expect(2).says(&["log:m:"]);
    cloud.redis.cli(&["ACL", "SETUSER", "default", "~*", "+@all"]).unwrap();
    let mut strays = cloud.strays();
    strays.sort();
    assert_eq!(strays, blocks(&cloud));
    assert_eq!(blocks(&cloud).len(), 3);
    cloud
}

#[test]
fn blocks_of_an_abandoned_backup_go_when_the_plan_has_their_prefix() {
    let cloud = unpublished();
    // GIVEN that the route has another name since WHEN it is backed up THEN nothing unpublished stays
    cloud.plan(&ROUTE.replace("\"logs\"", "\"renamed\""));
    let summary = cloud.backup(&[]).expect(0).summary();
    assert!(!summary["warnings"].to_string().contains("unpublished"), "{summary}");
    cloud.assert_same("id, name, ts");
    assert_eq!((cloud.strays(), blocks(&cloud).len()), (Vec::new(), 3));
}

#[test]
fn blocks_under_a_prefix_that_the_plan_has_no_longer_are_named_until_they_are_removed() {
    let cloud = unpublished();
    let left = blocks(&cloud);
    cloud.plan(&ROUTE.replace("\"log\"", "\"elsewhere\""));
    for _ in 0..2 {
        let summary = cloud.backup(&[]).expect(0).summary();
        let warnings = summary["warnings"].to_string();
        assert!(warnings.contains("3 unpublished copies"), "{summary}");
        assert!(warnings.contains("log:b:*"), "{summary}");
        assert!(warnings.contains("rekindle backup bigquery --fresh"), "{summary}");
        assert_eq!(blocks(&cloud).len(), left.len());
    }
    let summary = cloud.backup(&["--fresh"]).expect(0).summary();
    assert!(!summary["warnings"].to_string().contains("unpublished"), "{summary}");
    assert_eq!(blocks(&cloud), Vec::<String>::new());
    let published: Vec<String> = cloud.connection().keys("elsewhere:m:*").unwrap();
    assert_eq!(published.len(), 3);
}

#[test]
fn fresh_gives_an_unfinished_backup_up_instead_of_resuming_it() {
    let cloud = unpublished();
    let status = || Ran::of(&cloud.command(&["status", "--json"]).output().unwrap()).summary();
    let unfinished = status()["run"]["run_id"].clone();
    let summary = cloud.backup(&["--fresh"]).expect(0).summary();
    assert_ne!(summary["run_id"], unfinished);
    assert_eq!((&summary["resumed"], &summary["rows"]), (&json!(0), &json!(300)), "{summary}");
    cloud.assert_same("id, name, ts");
    assert_eq!((cloud.strays(), blocks(&cloud).len()), (Vec::new(), 3));
}

#[test]
fn rows_that_cannot_be_decoded_are_asked_for_again_and_never_published() {
    let cloud = plain();
    cloud.insert(1, 0..100);
    cloud.insert(2, 0..100);
    // Every message is damaged: nothing is published, and the run ends as one of a system that cannot serve.
    cloud.fault("ReadRows", "corrupt_block", 0, 1_000_000);
    cloud.backup(&[]).expect(3).says(&["bigquery sent rows that cannot be decoded", "hint: "]);
    assert_eq!(cloud.redis.cli(&["KEYS", "log:[bm]:*"]).unwrap().trim(), "");
    assert_eq!(cloud.redis.cli(&["EXISTS", "log:run"]).unwrap().trim(), "0");
    // One message is damaged: it is asked for again.
    cloud.no_faults();
    cloud.fault("ReadRows", "corrupt_block", 1, 1);
    let summary = cloud.backup(&[]).expect(0).summary();
    assert_eq!(summary["rows"], 200, "{summary}");
    cloud.assert_same("id, name, ts");
    assert_eq!(cloud.strays(), Vec::<String>::new());
}

/// A backup that is held when its first attempt has written blocks and not yet published them.
fn held(cloud: &Cloud) -> std::process::Child {
    let words = ["backup", "bigquery", "--json", "--progress", "none", "--retry-for", "30s"];
    let mut command = cloud.command(&[&words[..], &["--lanes", "1"]].concat());
    command.env("REKINDLE_FAILPOINT", "blocks-proven:1:hold");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_stop(&child);
    child
}

fn ended(child: std::process::Child) -> Ran {
    Ran::of(&child.wait_with_output().unwrap())
}

/// A backup whose first attempt could neither publish its blocks nor remove them, because redis was away; with the key of
/// the block that it wrote.
fn repeated() -> (Cloud, String) {
    let cloud = plain();
    cloud.insert(1, 0..100);
    let proxy = Proxy::start(cloud.redis.port()).unwrap();
    lead(cloud.folder.path(), cloud.redis.port(), &proxy);
    let child = held(&cloud);
    let [left] = <[String; 1]>::try_from(blocks(&cloud)).unwrap();
    proxy.set(Toxic::Reset, Direction::Both);
    let accepted = proxy.accepted();
    signal(&child, Signal::SIGCONT);
    // The first ones are those of the removal, the others those of further attempts.
    wait_until("the removal and another attempt", || proxy.accepted() >= accepted + 4);
    assert_eq!(blocks(&cloud), std::slice::from_ref(&left));
    proxy.clear();
    ended(child).expect(0);
    // The proxy ends with this function.
    cloud.plan(ROUTE);
    (cloud, left)
}

#[test]
fn what_an_attempt_could_not_remove_goes_when_its_table_is_complete() {
    let (cloud, left) = repeated();
    assert_eq!((cloud.strays(), blocks(&cloud).len()), (Vec::new(), 1));
    assert!(!blocks(&cloud).contains(&left));
    cloud.assert_same("id, name, ts");
}

#[test]
fn what_comes_after_the_end_of_a_backup_goes_with_the_next_one() {
    // GIVEN a block of the first attempt that arrives after the end of the second one
    let (cloud, left) = repeated();
    let published = blocks(&cloud);
    cloud.redis.cli(&["SET", &left, "late"]).unwrap();
    assert_eq!(cloud.strays(), [left]);
    // WHEN there is nothing to copy THEN it goes all the same
    cloud.backup(&[]).expect(0);
    assert_eq!((cloud.strays(), blocks(&cloud)), (Vec::new(), published));
    cloud.assert_same("id, name, ts");
}
