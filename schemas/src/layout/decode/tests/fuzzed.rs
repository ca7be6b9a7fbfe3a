//! Entries of anybody: hashes and entries of streams as pairs, JSON values, each under a key of anybody.
//!
//! Invariant: an entry that is refused leaves nothing behind, and the next one is decoded as if it had never been.

use super::{bigquery, decoder};
use crate::fuzzed::{fuzz, fuzz_bytes};
use crate::layout::RowDecoder;
use crate::plan::Layout;
use fixtures::fuzz::Told;

const WORDS: [&str; 16] = [
    "\0",
    "log:",
    "null",
    "\"",
    "\\ud800",
    "[{\"url\":",
    "[",
    "{",
    "UNBOUNDED",
    "infinity",
    "-",
    "1e400",
    "NaN",
    "9223372036854775808",
    "2026-01-01 00:00:00+00:00",
    "true",
];

/// What a valid entry and the one behind it make of a decoder.
fn check(decoder: &mut RowDecoder, is_taken: bool, next: impl Fn(&mut RowDecoder)) -> Told {
    assert_eq!(decoder.rows(), usize::from(is_taken));
    next(decoder);
    let rows = decoder.finish();
    assert_eq!((rows.num_rows(), decoder.rows()), (1 + usize::from(is_taken), 0));
    if is_taken { Told::Taken } else { Told::Refused }
}

fn pairs_of<'a>(parts: &[&'a [u8]]) -> Vec<(&'a [u8], &'a [u8])> {
    parts.chunks(2).map(|pair| (pair[0], pair.get(1).copied().unwrap_or_default())).collect()
}

#[test]
fn pairs_of_anybody() {
    let valid = "log:web:7\0meta\0{\"a\": 1.50}\0ok\0true\0cost\x001.10\0during\0[2026-01-01,UNBOUNDED)\0links\0\
                 [{\"at\":\"2026-01-01 00:00:00+00:00\",\"url\":\"h\\u00e9\"}, {\"tags\":[\"a\"]}]";
    let corpus = [
        valid,
        "log:a:-1\0ok\0false",
        "log::0\0ok\0true\0cost\0-99999999999999999999999999999.999999999",
    ];
    let mut decoder = decoder(&bigquery("log:{service}:{id}", Layout::Hash));
    let valid_pairs: Vec<&[u8]> = valid.as_bytes().split(|byte| *byte == 0).collect();
    fuzz("pairs of an entry", &corpus).words(&WORDS).run(|input, _| {
        let parts: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
        let outcome = decoder.pairs(parts[0], pairs_of(&parts[1..]));
        if let Err(fault) = &outcome {
            assert!(!fault.to_string().is_empty());
        }
        check(&mut decoder, outcome.is_ok(), |decoder| {
            decoder.pairs(valid_pairs[0], pairs_of(&valid_pairs[1..])).unwrap();
        })
    });
}

#[test]
fn json_of_anybody() {
    let valid = "log:web:7\0{\"meta\":{\"a\": 1.50},\"ok\":true,\"cost\":1.10,\"during\":\"[2026-01-01,UNBOUNDED)\",\
                 \"links\":[{\"at\":\"2026-01-01 00:00:00+00:00\",\"url\":\"h\\u00e9\"},{\"tags\":[\"a\"]}]}";
    let corpus = vec![valid.as_bytes().to_vec(), b"log:a:-1\0{\"ok\" : false }".to_vec()];
    let mut decoder = decoder(&bigquery("log:{service}:{id}", Layout::Json));
    let (valid_key, valid_value) = valid.split_once('\0').unwrap();
    fuzz_bytes("JSON of an entry", corpus).words(&WORDS).run(|input, _| {
        let at = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
        let value = input.get(at + 1..).unwrap_or_default();
        let outcome = decoder.json(&input[..at], value);
        check(&mut decoder, outcome.is_ok(), |decoder| {
            decoder.json(valid_key.as_bytes(), valid_value.as_bytes()).unwrap();
        })
    });
}
