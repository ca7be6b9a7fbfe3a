//! The keys of the duplicate in a plan: read, refused with their place, and never shown.

use super::json_schema::Validator;
use super::{MINIMAL, Plan};
use crate::EncryptKey;
use crate::seal::id_text;
use std::io::{Error, ErrorKind};

fn parse(duplicate: &str) -> Result<Plan, String> {
    let read_file = |path: &str| match path {
        "/one" => Ok(format!("{}\n", "1a".repeat(32))),
        "/two" => Ok("2b".repeat(32)),
        "/short" => Ok("5ec7e7".to_owned()),
        _ => Err(Error::from(ErrorKind::NotFound)),
    };
    let text = format!("{MINIMAL}[redis.duplicate]\nurl = \"redis://d\"\n{duplicate}\n");
    Plan::parse(&text, &|_| None, &read_file).map_err(|mistakes| mistakes.to_string())
}

fn key(pair: &str) -> EncryptKey {
    EncryptKey::parse(&pair.repeat(32)).unwrap()
}

#[test]
fn keys_come_from_files_and_seal_and_open() {
    let plan = parse("encrypt_key = \"${file:/two}\"\nold_keys = [\"${file:/one}\"]").unwrap();
    let section = plan.duplicate.as_ref().unwrap();
    assert_eq!(section.encrypt_key, Some(key("2b")));
    assert_eq!(section.old_keys, [key("1a")]);
    assert_eq!(plan.seals().key_id().map(id_text), Some(key("2b").id_text()));
    let shown = format!("{plan:?}");
    assert!(!shown.contains("2b2b") && !shown.contains("1a1a"), "{shown}");
    assert_eq!(parse("").unwrap().seals().key_id(), None);
    // Neither the key nor its rotation is another plan.
    assert_eq!(plan.fingerprint(), parse("").unwrap().fingerprint());
}

#[test]
fn a_key_that_is_none_is_refused_without_being_shown() {
    for (lines, said) in [
        ("encrypt_key = \"${file:/short}\"", "encrypt_key: must be 64 hexadecimal digits"),
        ("encrypt_key = \"${file:/none}\"", "encrypt_key: cannot read file \"/none\""),
        ("encrypt_key = 5", "encrypt_key: expected a string"),
        ("old_keys = [\"${file:/one}\"]", "\"old_keys\" needs \"encrypt_key\""),
        (
            "encrypt_key = \"${file:/one}\"\nold_keys = \"${file:/two}\"",
            "old_keys: expected an array of keys",
        ),
        (
            "encrypt_key = \"${file:/one}\"\nold_keys = [\"${file:/short}\"]",
            "old_keys[0]: must be 64 hexadecimal digits",
        ),
        (
            "encrypt_key = \"${file:/one}\"\nold_keys = [\"${file:/two}\", \"${file:/one}\"]",
            "old_keys[1]: is the key of encrypt_key",
        ),
    ] {
        let told = parse(lines).unwrap_err();
        assert!(told.contains(said), "{lines}: {told}");
        assert!(!told.contains("5ec7e7") && !told.contains("1a1a"), "{told}");
    }
}

#[test]
fn the_json_schema_knows_the_keys() {
    let validator = Validator::new();
    let check = |lines: &str| {
        let duplicate = format!("[redis.duplicate]\nurl = \"redis://d\"\n{lines}\n");
        validator.check(&format!("{MINIMAL}{duplicate}"))
    };
    let written = format!("encrypt_key = \"{}\"\n", "1A".repeat(32));
    for right in [
        "encrypt_key = \"${file:/one}\"",
        "encrypt_key = \"${env:KEY}\"\nold_keys = [\"${file:/one}\", \"${file:/two}\"]",
        written.as_str(),
    ] {
        assert_eq!(check(right), Ok(()), "{right}");
    }
    for wrong in ["encrypt_key = 5", "encrypt_key = \"1a\"", "old_keys = [\"${file:/one}\"]"] {
        assert!(check(wrong).is_err(), "{wrong}");
    }
}
