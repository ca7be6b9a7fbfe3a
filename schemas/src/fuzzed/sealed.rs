//! What is sealed in a duplicate: the head of a document and the header of a block, and what opens behind them.
//!
//! Half of the altered inputs get checks that fit again: what is readable is taken then, and the seal has to tell by itself.

use super::duplicate::{header, rows};
use super::fuzz_bytes;
use crate::block::{self, BlockError, Header};
use crate::seal::{Head, SealError};
use crate::{EncryptKey, Seals};
use fixtures::fuzz::Told;
use xxhash_rust::xxh3::xxh3_64;

const DOCUMENT: &str = "log:m:20261101";
const BLOCK: &str = "log:b:20261101:3:0";
const TEXT: &[u8] = b"{\"format\":1,\"check\":\"\"}";

fn seals() -> Seals {
    Seals::new(Some(&EncryptKey::parse(&"5a".repeat(32)).unwrap()), &[])
}

/// Makes the check of a head fit what is there.
fn with_check(input: &[u8]) -> Vec<u8> {
    let mut value = input.to_vec();
    if value.len() >= 40 {
        let check = xxh3_64(&value[..32]);
        value[32..40].copy_from_slice(&check.to_le_bytes());
    }
    value
}

#[test]
fn a_sealed_document_of_anybody() {
    let seals = seals();
    let valid = seals.document_under([7; 12], DOCUMENT, TEXT).unwrap();
    fuzz_bytes("a sealed document", vec![valid.clone()]).run(|input, dice| {
        let is_checked = dice.below(2) == 0;
        let changed = if is_checked { with_check(input) } else { input.to_vec() };
        let opened = seals.open_document(DOCUMENT, &changed);
        match Head::parse(&changed) {
            // Nothing that says that it is sealed: whoever parses it judges it.
            None => assert_eq!(opened.as_deref(), Ok(&changed[..])),
            Some(Err(error)) => assert_eq!(opened, Err(error)),
            Some(Ok(_)) if changed == valid => assert_eq!(opened.as_deref(), Ok(TEXT)),
            Some(Ok(head)) if Some(head.key_id) == seals.key_id() => {
                assert_eq!(opened, Err(SealError::Altered));
                return Told::Taken;
            }
            Some(Ok(_)) => assert!(matches!(opened, Err(SealError::WrongKey { .. }))),
        }
        if changed == valid { Told::Taken } else { Told::Refused }
    });
}

/// The same of the header of a block.
fn with_header_check(input: &[u8]) -> Vec<u8> {
    let mut value = input.to_vec();
    let total = value.get(12..16).map(|four| u32::from_le_bytes(four.try_into().unwrap()) as usize);
    if let Some(total) = total.filter(|total| (152..=value.len()).contains(total)) {
        let check = xxh3_64(&value[..total - 8]);
        value[total - 8..total].copy_from_slice(&check.to_le_bytes());
    }
    value
}

#[test]
fn a_sealed_block_of_anybody() {
    let seals = seals();
    let body = block::encode(&[rows(40)]).unwrap().remove(0);
    let header = Header { key_id: seals.key_id(), ..header(&body) };
    let valid = seals.block_under([9; 12], BLOCK, &header.to_bytes(), &body.bytes).unwrap();
    assert!(block::open_with(&seals, BLOCK, &valid).is_ok());
    fuzz_bytes("a sealed block", vec![valid.clone()]).heap(1 << 20, 64).run(|input, dice| {
        let is_checked = dice.below(2) == 0;
        let changed = if is_checked { with_header_check(input) } else { input.to_vec() };
        let parsed = Header::parse(&changed);
        let opened = block::open_with(&seals, BLOCK, &changed);
        match &parsed {
            Err(error) => assert_eq!(opened.as_ref().err(), Some(error)),
            Ok((header, _)) if header.key_id == seals.key_id() && changed != valid => {
                assert_eq!(opened.as_ref().err(), Some(&BlockError::BodyAltered));
            }
            Ok(_) => {}
        }
        Told::from(&parsed)
    });
}
