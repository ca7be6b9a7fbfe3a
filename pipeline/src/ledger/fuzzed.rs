//! Ledger files after a power loss, or changed by somebody. Some of the headers get a check that fits again.

use super::frame::{Frame, FrameReader};
use crate::fuzzed::fuzz_bytes;
use fixtures::fuzz::{Dice, Told};
use stages::Kind;
use std::fs;
use xxhash_rust::xxh3::xxh3_64;

fn frames() -> Vec<u8> {
    let mut plain = Frame::default();
    let mut versioned = Frame::default();
    for row in 0..100_u64 {
        plain.push(format!("build:{row}").as_bytes(), row * 7, 0);
        versioned.push_version(format!("log:{row}").as_bytes(), row, 5, i64::MIN);
    }
    [plain.take_encoded().unwrap(), versioned.take_encoded().unwrap()].concat()
}

fn resealed(input: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if bytes.len() >= 28 && dice.below(2) == 0 {
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        if let Some(body) = bytes.get(28..28_usize.saturating_add(length)) {
            let check = xxh3_64(body);
            bytes[20..28].copy_from_slice(&check.to_le_bytes());
        }
        let check = xxh3_64(&bytes[..16]);
        bytes[16..20].copy_from_slice(&check.to_le_bytes()[..4]);
    }
    bytes
}

#[test]
fn a_ledger_of_anybody() {
    let folder = fixtures::fuzz::folder();
    let path = folder.path().join("a.ledger");
    fuzz_bytes("a ledger", vec![frames()])
        .words(&["RKL1", "RKL2"])
        .heap(4 << 20, 1024)
        .longest(8 << 10)
        .run(|input, dice| {
            fs::write(&path, resealed(input, dice)).unwrap();
            let mut reader = FrameReader::open(&path).unwrap();
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => assert_eq!(frame.iter().count(), frame.len()),
                    Ok(None) => return Told::Taken,
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Internal);
                        return Told::Refused;
                    }
                }
            }
        });
}
