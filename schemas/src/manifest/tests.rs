//! Documents of a duplicate: what is written is read back, what is altered is named.

use super::*;
use serde_json::json;

fn manifest() -> Manifest {
    let version = |generation: u64| Version {
        generation,
        snapshot_us: 1_000_000 * i64::try_from(generation).unwrap(),
        last_modified_us: 7,
        table_created_ms: 3,
        expires_us: None,
        rows: 30,
        source_bytes: 5_000,
        stored_bytes: 300,
        digest: "000000000000000000000000000000ff".into(),
        digest_version: DIGEST_VERSION,
        schema_hash: "0123456789abcdef0123456789abcdef".into(),
        key_id: None,
        blocks: vec![BlockEntry(200, 20, "00".into()), BlockEntry(100, 10, "ff".into())],
    };
    Manifest {
        format: FORMAT,
        table: "logs.build_logs".into(),
        table_id: "p:logs.build_logs".into(),
        table_partition: "20261101".into(),
        versions: vec![version(4), version(2)],
        retired: vec![(1, 2)],
        check: String::new(),
    }
}

#[test]
fn a_manifest_is_read_back_and_versions_are_found_by_time() {
    let stored = manifest().to_json();
    let read = Manifest::parse(&stored, "20261101").unwrap();
    assert_eq!(read.to_json(), stored);
    assert_eq!(read.newest().unwrap().generation, 4);
    assert_eq!(read.newest().unwrap().digest(), Some(Digest { sum: 255, count: 30 }));
    assert_eq!(read.as_of(3_999_999).unwrap().generation, 2);
    assert_eq!(read.as_of(1_999_999), None);
}

#[test]
fn every_altered_byte_of_a_manifest_is_noticed() {
    let stored = manifest().to_json();
    for at in 0..stored.len() {
        let mut altered = stored.clone();
        altered[at] ^= 1;
        assert!(Manifest::parse(&altered, "20261101").is_err(), "byte {at} went unnoticed");
        assert!(Manifest::parse(&stored[..at], "20261101").is_err(), "{at} bytes went unnoticed");
    }
}

#[test]
fn a_manifest_of_another_place_or_program_is_named() {
    let stored = manifest().to_json();
    let error = Manifest::parse(&stored, "20261102").unwrap_err().to_string();
    assert_eq!(
        error,
        "the manifest of table partition 20261102 is altered: it speaks of table partition 20261101"
    );
    let error = Manifest::parse(br#"{"format":9,"new":1}"#, "20261101").unwrap_err().to_string();
    assert_eq!(
        error,
        "the manifest of table partition 20261101 has format 9, this program knows 1"
    );
    let unsorted =
        Manifest { versions: manifest().versions.into_iter().rev().collect(), ..manifest() };
    assert!(Manifest::parse(&unsorted.to_json(), "20261101").is_err());
}

#[test]
fn a_recorded_table_keeps_what_a_restore_needs_and_nothing_that_moves() {
    let resource = json!({
        "id": "p:logs.t", "creationTime": "1700000000000", "numRows": "7", "etag": "x",
        "location": "US", "schema": {"fields": [{"name": "a", "type": "INT64", "policyTags": {"names": ["t"]}}]},
        "encryptionConfiguration": {"kmsKeyName": "k"}, "lastModifiedTime": "1",
        "streamingBuffer": {"estimatedRows": "3"}, "numActivePhysicalBytes": "5", "labels": {"a": "b"},
    });
    let record = TableRecord::new("logs", "t", &resource).unwrap();
    assert_eq!(record.table_created_ms, 1_700_000_000_000);
    assert_eq!(record.kms_key_name.as_deref(), Some("k"));
    let kept: Vec<&String> = record.resource.as_object().unwrap().keys().collect();
    assert_eq!(
        kept,
        ["id", "creationTime", "location", "schema", "encryptionConfiguration", "labels"]
    );
    let (stored, hash) = record.to_json();
    let hash = format!("{hash:032x}");
    assert_eq!(TableRecord::parse(&stored, &hash).unwrap(), record);
    let mut altered = stored;
    altered[40] ^= 1;
    assert!(TableRecord::parse(&altered, &hash).is_err());
}

#[test]
fn keys_are_read_from_their_right_end() {
    let keys = Keys::new("log:t");
    let key = keys.block("w:5..9", 3, 17);
    assert_eq!(key, "log:t:b:w:5..9:3:17");
    let read = keys.parse_block(&key).unwrap();
    assert_eq!((read.table_partition.as_str(), read.generation, read.ordinal), ("w:5..9", 3, 17));
    assert_eq!(keys.parse_block(&keys.manifest("20261101")), None);
    assert_eq!(keys.manifest("__NULL__"), "log:t:m:__NULL__");
    assert_eq!(keys.run(), "log:t:run");
}
