//! RDB files: what the encoder writes is what the reader reads, and bytes of anybody.
//!
//! Invariant: encoder and reader share nothing, so that each proves the other.

use super::{fuzz, route};
use crate::batch::{Encoded, RawBatch};
use crate::crc64::checksum;
use crate::error::{Kind, Result};
use crate::extract::rdb_entries::{FileBytes, ValueHasher};
use crate::transform::Transform;
use crate::transform::copy_binary::Lead;
use crate::transform::copy_binary::tests::tuple;
use crate::transform::redis_command::{FileForm, ListpackLimits, RedisCommands};
use bytes::Bytes;
use fixtures::fuzz::Told;
use proptest::prelude::*;
use schemas::{BoundRoute, SlotCut};
use std::sync::Arc;

/// 2026-01-01 in milliseconds since 1970; times on the wire are microseconds since 2000.
const NOW_MS: i64 = 1_767_225_600_000;
const SINCE_2000_US: i64 = 946_684_800_000_000;

fn bound(layout: &str) -> Arc<BoundRoute> {
    route(
        layout,
        "key = \"k:{id}\"\nexpire_at = \"at\"\ncolumns = [\"name\", { field = \"v\", value = \"7\" }]",
    )
}

/// A row: its id, a text, and an expiry in seconds from now on.
type Row = (i64, Option<String>, Option<i64>);

fn encode(bound: &Arc<BoundRoute>, nodes: u16, rows: &[Row]) -> Encoded {
    let wire: Vec<Vec<u8>> = rows
        .iter()
        .map(|(id, name, expiry)| {
            let at =
                expiry.map(|s| ((NOW_MS * 1_000 - SINCE_2000_US) + s * 1_000_000).to_be_bytes());
            let name = name.as_ref().map(String::as_bytes);
            tuple(&[Some(&id.to_be_bytes()), name, at.as_ref().map(|at| &at[..])])
        })
        .collect();
    let form = FileForm { limits: ListpackLimits::default(), cut: Arc::new(SlotCut::even(nodes)) };
    let raw = RawBatch::new(Bytes::from(wire.concat()), rows.len(), true);
    RedisCommands::into_files(Arc::clone(bound), Lead::None, &form).apply(raw, NOW_MS).unwrap()
}

/// Reads every part and compares it with the entries of the batch; returns how many were read.
fn assert_read(bound: &BoundRoute, nodes: u16, encoded: &Encoded) -> usize {
    let cut = SlotCut::even(nodes);
    let mut hasher = ValueHasher::new(bound);
    let mut rest = &encoded.payload[..];
    let mut read = 0;
    for part in &encoded.parts {
        let (bytes, behind) = rest.split_at(usize::try_from(part.bytes).unwrap());
        assert_eq!(part.crc, checksum(bytes));
        let mut entries = FileBytes::new(bytes);
        let mut expiring = 0;
        let of_node = encoded.keyed().filter(|(key, _)| cut.node_of(key) == usize::from(part.node));
        for (key, wanted) in of_node {
            let entry = entries.entry().unwrap().unwrap();
            assert_eq!((entry.key, entry.expires_ms), (key, wanted.expires_ms));
            assert_eq!(hasher.hash(entry.value).unwrap(), Some(wanted.value_hash));
            expiring += u32::from(entry.expires_ms != 0);
            read += 1;
        }
        assert_eq!((entries.entry().unwrap(), expiring), (None, part.expiring));
        rest = behind;
    }
    assert!(rest.is_empty());
    assert_eq!((read as u64, read), (encoded.carried, encoded.entries.len()));
    read
}

#[test]
fn every_length_and_integer_is_read_back() {
    let lengths = [0, 1, 63, 64, 65, 127, 128, 4_095, 4_096, 16_383, 16_384, 70_000];
    let numbers = [
        "0",
        "127",
        "128",
        "-1",
        "4095",
        "-4096",
        "4096",
        "-32768",
        "32768",
        "-8388608",
        "8388608",
        "2147483647",
        "-2147483649",
        "9223372036854775807",
        "-9223372036854775808",
        "-0",
        "007",
        "1e3",
    ];
    let texts = lengths.iter().map(|length| "ż".repeat(*length)).chain(numbers.map(str::to_owned));
    let mut rows: Vec<Row> = (0..).zip(texts).map(|(id, text)| (id, Some(text), None)).collect();
    rows.push((-1, None, Some(60)));
    rows.push((-2, Some("expired".into()), Some(-60)));
    for layout in ["hash", "string", "json"] {
        let bound = match layout {
            "string" => route(
                layout,
                "key = \"k:{id}\"\nexpire_at = \"at\"\ncolumns = [\"name\"]\nnull = \"empty\"",
            ),
            layout => bound(layout),
        };
        for nodes in [1, 3, 100] {
            let encoded = encode(&bound, nodes, &rows);
            let read = assert_read(&bound, nodes, &encoded);
            assert_eq!((read, encoded.expired), (rows.len() - 1, 1), "{layout}");
        }
    }
}

proptest! {
    #[test]
    fn rows_of_anybody_are_read_back(
        rows in proptest::collection::vec((any::<i64>(), any::<Option<String>>(), any::<Option<u16>>()), 0..50),
        nodes in 1_u16..20,
    ) {
        let rows: Vec<Row> =
            rows.into_iter().map(|(id, name, s)| (id, name.map(|n| n.replace('\0', "")), s.map(|s| i64::from(s) + 1))).collect();
        let bound = bound("hash");
        assert_read(&bound, nodes, &encode(&bound, nodes, &rows));
    }
}

/// A whole file: head, entries of both layouts, end.
fn file() -> Vec<u8> {
    let rows: Vec<Row> = vec![
        (1, Some("x".into()), None),
        (2, None, Some(60)),
        (3, Some("ż".repeat(100)), Some(60)),
        (4, Some("-70000".into()), None),
    ];
    let mut bytes = b"REDIS0010\xfa\x05ctime\x0a1767225600\xfe\x00\xfb\x08\x04".to_vec();
    for layout in ["hash", "json"] {
        bytes.extend_from_slice(&encode(&bound(layout), 1, &rows).payload);
    }
    bytes
}

fn read(bound: &BoundRoute, input: &[u8]) -> Result<u64> {
    let mut bytes = FileBytes::new(input);
    let mut hasher = ValueHasher::new(bound);
    let head = bytes.head()?;
    let mut sum = head.keys;
    while let Some(entry) = bytes.entry()? {
        sum = sum.wrapping_add(hasher.hash(entry.value)?.unwrap_or(1));
    }
    assert_eq!(bytes.at(), input.len());
    Ok(sum)
}

#[test]
fn rdb_files_of_anybody() {
    let bound = bound("hash");
    assert!(read(&bound, &file()).is_ok());
    let words = ["\u{1}", "REDIS0010", "\0\0\0\0", "\u{7f}"];
    fuzz("rdb", vec![file()]).words(&words).run(|input, _| {
        let read = read(&bound, input);
        if let Err(error) = &read {
            assert_eq!(error.kind(), Kind::Difference);
        }
        Told::from(&read)
    });
}
