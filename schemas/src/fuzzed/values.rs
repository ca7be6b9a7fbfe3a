//! Texts inside of values: documents of the JSON module, versions, digests.

use super::fuzz;
use crate::digest::Digest;
use crate::layout::DocumentHasher;
use crate::version::{Stored, VersionKind};
use fixtures::fuzz::Told;

#[test]
fn a_document_of_anybody() {
    let corpus = [
        "{\"a\":[1,2.5,-1e300,true,false,null],\"b\":{\"c\":\"\\u00e9\\ud83d\\ude80\"}}",
        "[]",
        "\"x\"",
        "0.1",
        "[[[[[[[[1]]]]]]]]",
    ];
    let words =
        ["[", "]", "{\"a\":", "}", "\\ud800", "\\u0000", "1e999999999999", "0.00000001", ",", ":"];
    let mut hasher = DocumentHasher::default();
    // A member is hashed by its name, so members are collected.
    fuzz("a document", &corpus).words(&words).run(|input, _| {
        let hash = hasher.hash(input);
        // An error in one document leaves nothing behind for the next.
        assert_eq!(hasher.hash(b"{\"a\":1}"), DocumentHasher::default().hash(b"{\"a\":1}"));
        assert_eq!(hasher.hash(input), hash);
        if hash.is_some() { Told::Taken } else { Told::Refused }
    });
}

#[test]
fn a_version_of_anybody() {
    let corpus = [
        "0",
        "-1",
        "9223372036854775807",
        "2026-01-31T04:05:06.5Z",
        "2026-01-31",
        "infinity",
        "-infinity",
        "0044-03-15 BC",
        "294276-12-31T23:59:59.999999Z",
    ];
    let words = ["-", ":", "Z", "+00", " BC", "T", ".", "999999", "infinity"];
    let kinds =
        [VersionKind::Integer, VersionKind::Date, VersionKind::Timestamp, VersionKind::TimestampTz];
    fuzz("a version", &corpus).words(&words).heap(16_384, 8).run(|input, _| {
        let read = kinds.map(|kind| Stored::of(kind, input));
        let is_version = read.iter().any(|stored| matches!(stored, Stored::At(_)));
        if is_version { Told::Taken } else { Told::Refused }
    });
}

#[test]
fn a_digest_of_anybody() {
    let corpus = ["000000000000000000000000000000ff", "ffffffffffffffffffffffffffffffff"];
    fuzz("a digest", &corpus).words(&["+", "-", "0x", "f"]).heap(4096, 16).run(|input, _| {
        let text = String::from_utf8_lossy(input);
        match Digest::from_hex(&text, 7) {
            Some(digest) => {
                assert_eq!(format!("{:032x}", digest.sum), text.to_lowercase());
                Told::Taken
            }
            None => Told::Refused,
        }
    });
}
