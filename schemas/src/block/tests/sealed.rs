//! Sealed blocks: bit-exact there and back under their own key and place, and nothing else opens.

use super::*;
use crate::{EncryptKey, Seals};

const KEY: &str = "log:b:20261101:5:3";

fn seals(current: &str, old: &[&str]) -> Seals {
    let key = |digit: &str| EncryptKey::parse(&digit.repeat(64)).unwrap();
    let old: Vec<EncryptKey> = old.iter().map(|digit| key(digit)).collect();
    Seals::new(Some(&key(current)), &old)
}

fn sealed(seals: &Seals, body: &Body) -> Vec<u8> {
    let header = Header { key_id: seals.key_id(), ..header(body) };
    stored(seals, KEY, &header, &body.bytes).unwrap()
}

fn body() -> Body {
    encode(&[Random(11).batch(20)]).unwrap().remove(0)
}

#[test]
fn a_sealed_block_is_read_back_and_its_header_stays_readable() {
    let (seals, body) = (seals("1", &[]), body());
    let value = sealed(&seals, &body);
    let (head, head_bytes) = Header::parse(&value).unwrap();
    assert_eq!(head, Header { key_id: seals.key_id(), ..header(&body) });
    assert_eq!(value.len(), head_bytes + body.bytes.len() + crate::seal::BODY_BYTES_MORE);
    let (read, opened) = open_with(&seals, KEY, &value).unwrap();
    assert_eq!((&read, &opened[..]), (&head, &body.bytes[..]));
    assert_eq!(digest(&decode(&read, &opened).unwrap()).unwrap(), body.digest);
    // A block that is not sealed stays readable with a key, and is stored as ever without one.
    let plain = self::value(&body);
    assert_eq!(open_with(&seals, KEY, &plain).unwrap().1, &body.bytes[..]);
    let none = Seals::default();
    assert_eq!(stored(&none, KEY, &header(&body), &body.bytes).unwrap(), plain);
}

#[test]
fn every_altered_byte_of_a_sealed_block_is_noticed() {
    let seals = seals("1", &[]);
    let value = sealed(&seals, &body());
    for at in 0..value.len() {
        let mut altered = value.clone();
        altered[at] ^= 1;
        assert!(open_with(&seals, KEY, &altered).is_err(), "byte {at} went unnoticed");
        assert!(open_with(&seals, KEY, &value[..at]).is_err(), "{at} bytes went unnoticed");
    }
}

#[test]
fn a_header_that_was_changed_with_its_check_does_not_open() {
    let (seals, body) = (seals("1", &[]), body());
    let value = sealed(&seals, &body);
    let (head, head_bytes) = Header::parse(&value).unwrap();
    let changed = [
        Header { snapshot_us: 0, ..head.clone() },
        Header { is_last: false, ..head.clone() },
        Header { table_partition: "20261102".into(), ..head },
    ];
    for changed in changed {
        let forged = [&changed.to_bytes()[..], &value[head_bytes..]].concat();
        assert_eq!(open_with(&seals, KEY, &forged), Err(BlockError::BodyAltered));
    }
    // Nor does the block under the key of another one.
    assert_eq!(open_with(&seals, "log:b:20261101:5:4", &value), Err(BlockError::BodyAltered));
}

#[test]
fn a_sealed_block_without_its_key_is_called_that() {
    let body = body();
    let value = sealed(&seals("1", &[]), &body);
    let is_no_key = |error: &BlockError| matches!(error, BlockError::Seal(SealError::NoKey { .. }));
    assert!(is_no_key(&open(&value).unwrap_err()));
    assert!(is_no_key(&open_with(&Seals::default(), KEY, &value).unwrap_err()));
    let wrong = open_with(&seals("2", &[]), KEY, &value).unwrap_err();
    assert!(matches!(wrong, BlockError::Seal(SealError::WrongKey { .. })), "{wrong}");
    let rotated = seals("2", &["1"]);
    assert_eq!(open_with(&rotated, KEY, &value).unwrap().1, &body.bytes[..]);
}
