//! Documents in every style, byte for byte.

use super::*;
use schemas::layout::DocumentHasher;

fn encoded(style: Style, has_expiry: bool) -> Encoded {
    let case = Case { has_expiry, ..Case::new(Layout::RedisJson) };
    case.apply(style, &[row(1, Some("a"), Some(NOW_MS + 5)), row(2, None, None)])
}

#[test]
fn documents_into_an_empty_keyspace_are_set() {
    let plain = encoded(Style::Blank, false);
    let one = r#"JSON.SET k:1 $ {"name":"a","v":"1"}"#;
    let two = r#"JSON.SET k:2 $ {"v":"1"}"#;
    assert_eq!(payload(&plain), resp(&[one, two]));
    assert!(plain.units.is_empty());
    let expiring = encoded(Style::Blank, true);
    let expected = ["MULTI", one, "PEXPIREAT k:1 1000005", two, "EXEC"];
    assert_eq!(payload(&expiring), resp(&expected));
    assert_eq!(expiring.units, [Unit { rows: 2, folded: 0, replies: 5 }]);
}

#[test]
fn exact_documents_are_deleted_first_in_the_same_transaction() {
    let encoded = encoded(Style::Exact, true);
    let expected = [
        "MULTI",
        "DEL k:1",
        r#"JSON.SET k:1 $ {"name":"a","v":"1"}"#,
        "PEXPIREAT k:1 1000005",
        "DEL k:2",
        r#"JSON.SET k:2 $ {"v":"1"}"#,
        "EXEC",
    ];
    assert_eq!(payload(&encoded), resp(&expected));
    assert_eq!(encoded.units, [Unit { rows: 2, folded: 0, replies: 7 }]);
}

#[test]
fn kept_documents_go_through_the_script() {
    let encoded = encoded(Style::Keep, true);
    let expected = [
        format!(r#"EVALSHA {KEEP_DOCUMENT_SHA1} 1 k:1 1000005 {{"name":"a","v":"1"}}"#),
        format!(r#"EVALSHA {KEEP_DOCUMENT_SHA1} 1 k:2 0 {{"v":"1"}}"#),
    ];
    assert_eq!(payload(&encoded), resp(&[&expected[0], &expected[1]]));
    assert!(encoded.units.is_empty() && encoded.may_keep);
}

#[test]
fn the_hash_of_a_document_is_that_of_what_redis_gives_back() {
    let encoded = encoded(Style::Exact, false);
    let answer = DocumentHasher::default().hash(br#"{"v":"\u0031", "name":"a"}"#);
    assert_eq!(Some(encoded.entries[0].value_hash), answer);
    assert_ne!(encoded.entries[0].value_hash, encoded.entries[1].value_hash);
}
