//! What a duplicate in Redis holds: blocks, manifests, the record of a backup, recorded tables, and names of keys.
//!
//! Half of the altered inputs get checks that fit again, as a program that writes nonsense would give them: what lies
//! behind the checks has to stand on its own.

use super::{fuzz, fuzz_bytes};
use crate::block::{self, BlockError, Header};
use crate::digest::DIGEST_VERSION;
use crate::manifest::{FORMAT, Keys, Manifest, Run, TableRecord, xxh3_hex};
use crate::type_map::ColumnType;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    ListArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::record_batch::RecordBatch;
use fixtures::fuzz::{Dice, Told};
use serde_json::{Value, json};
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

pub(super) fn rows(count: i64) -> RecordBatch {
    let numbers = || (0..count).map(|n| (n % 3 > 0).then_some(n));
    let text = |n: i64| format!("line {n} of a log");
    let member = Arc::new(Field::new("n", DataType::Int64, true));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..count))),
        ("text", Arc::new(numbers().map(|n| n.map(text)).collect::<StringArray>())),
        ("bytes", Arc::new(numbers().map(|n| n.map(i64::to_le_bytes)).collect::<BinaryArray>())),
        ("ok", Arc::new(numbers().map(|n| n.map(|n| n % 2 == 0)).collect::<BooleanArray>())),
        ("cost", Arc::new((0..count).map(|n| n as f64 / 7.0).collect::<Float64Array>())),
        ("day", Arc::new(numbers().map(|_| Some(20_000)).collect::<Date32Array>())),
        ("at", Arc::new(numbers().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
        (
            "price",
            Arc::new(
                Decimal128Array::from_iter_values((0..count).map(i128::from))
                    .with_precision_and_scale(38, 9)
                    .unwrap(),
            ),
        ),
        (
            "many",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
                (0..count).map(|n| Some((0..n % 4).map(Some))),
            )),
        ),
        (
            "parts",
            Arc::new(StructArray::from(vec![(
                member,
                Arc::new(numbers().collect::<Int64Array>()) as ArrayRef,
            )])),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

pub(super) fn header(body: &block::Body) -> Header {
    Header {
        codec: block::CODEC_ZSTD_ARROW,
        is_last: true,
        rows: body.rows,
        ordinal: 0,
        generation: 3,
        snapshot_us: 5,
        last_modified_us: 4,
        expires_us: None,
        table_created_ms: 1,
        digest: body.digest,
        digest_version: DIGEST_VERSION,
        schema_hash: 7,
        raw_bytes: body.raw_bytes,
        body_bytes: body.bytes.len() as u64,
        body_xxh3: body.xxh3,
        key_id: None,
        table: "logs.build_logs".into(),
        table_id: "p:logs.build_logs".into(),
        table_partition: "20261101".into(),
    }
}

fn stored(count: i64) -> Vec<u8> {
    let bodies = block::encode(&[rows(count)]).unwrap();
    [header(&bodies[0]).to_bytes(), bodies[0].bytes.clone()].concat()
}

/// Makes the checks fit what is there.
fn resealed(input: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut value = input.to_vec();
    let Some(total) = value.get(12..16).map(|four| u32::from_le_bytes(four.try_into().unwrap()))
    else {
        return value;
    };
    let total = total as usize;
    if (144..=value.len()).contains(&total) {
        if dice.below(4) > 0 {
            let (length, check) = ((value.len() - total) as u64, xxh3_64(&value[total..]));
            value[120..128].copy_from_slice(&length.to_le_bytes());
            value[128..136].copy_from_slice(&check.to_le_bytes());
        }
        let check = xxh3_64(&value[..total - 8]);
        value[total - 8..total].copy_from_slice(&check.to_le_bytes());
    }
    value
}

/// The same with an uncompressed stream that was altered before it was put into its frame.
fn rewritten(input: &[u8], raw: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    // What the mutation did to the value tells what is done to the stream.
    let mut raw = raw.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(raw.len());
        let with = *dice.one_of(input);
        match dice.below(3) {
            0 => raw[at] = with,
            1 => raw.truncate(at.max(8)),
            _ => raw[at..].iter_mut().take(8).for_each(|byte| *byte = with),
        }
    }
    let bytes = zstd::bulk::compress(&raw, 1).ok()?;
    let header = Header {
        rows: 40,
        raw_bytes: raw.len() as u64,
        body_bytes: bytes.len() as u64,
        body_xxh3: xxh3_64(&bytes),
        ..header(&block::encode(&[rows(1)]).unwrap()[0])
    };
    Some([header.to_bytes(), bytes].concat())
}

#[test]
fn a_block_of_anybody() {
    let valid = stored(40);
    let (header, body) = block::open(&valid).unwrap();
    let raw = zstd::bulk::decompress(body, usize::try_from(header.raw_bytes).unwrap()).unwrap();
    let corpus = vec![valid, stored(1), stored(0)];
    let take = |value: &[u8]| -> Result<(), BlockError> {
        let (header, body) = block::open(value)?;
        let rows = block::decode(&header, body)?;
        assert_eq!(rows.num_rows(), header.rows as usize);
        block::digest(&rows).map(drop)
    };
    fuzz_bytes("a block", corpus).heap(64 << 20, 512).run(|input, dice| {
        let changed = match dice.below(4) {
            0 => resealed(input, dice),
            1 if !input.is_empty() => rewritten(input, &raw, dice).unwrap_or_default(),
            _ => input.to_vec(),
        };
        let said = take(input);
        if let (Err(error), true) = (take(&changed), said.is_err()) {
            assert!(!error.to_string().is_empty());
        }
        Told::from(&said)
    });
}

fn manifest() -> Value {
    json!({
        "format": FORMAT, "table": "logs.t", "table_id": "p:logs.t", "table_partition": "20261101",
        "versions": [{
            "generation": 4, "snapshot_us": 9, "last_modified_us": 7, "table_created_ms": 3, "expires_us": null,
            "rows": 30, "source_bytes": 5000, "stored_bytes": 300, "digest": "000000000000000000000000000000ff",
            "digest_version": DIGEST_VERSION, "schema_hash": "0123456789abcdef0123456789abcdef",
            "blocks": [[200, 20, "00"], [100, 10, "ff"]],
        }],
        "retired": [[1, 2]], "check": "",
    })
}

fn run() -> Value {
    json!({
        "format": FORMAT, "run_id": "r", "table": "logs.t", "table_id": "p:logs.t", "table_created_ms": 3,
        "snapshot_us": 9, "completed_us": 10, "schema_hash": "ab", "watermark": null,
        "table_partitions": [{"table_partition": "20261101", "generation": 4, "rows": 30, "version_xxh3": "00"}],
        "held": [{"table_partition": "20261030", "good_until_us": 5}],
        "census": {"rows": 9, "distinct_keys": null, "keys": 8, "entries": 7, "key_bytes": 1, "unfit_keys": 0,
            "complete_us": 3},
        "check": "",
    })
}

/// The same document with a check that fits, if it is one at all.
fn with_check(input: &[u8]) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(input).ok()?;
    let check = document.get_mut("check")?;
    *check = Value::String(String::new());
    let check = xxh3_hex(&serde_json::to_vec(&document).ok()?);
    document["check"] = Value::String(check);
    serde_json::to_vec(&document).ok()
}

fn sealed(document: &Value) -> Vec<u8> {
    with_check(&serde_json::to_vec(document).unwrap()).unwrap()
}

const WORDS: [&str; 8] = [
    "\"format\":2",
    "\"versions\":[]",
    "[[[[[[[[",
    "{\"a\":",
    "null",
    "18446744073709551615",
    "\"\"",
    ",",
];

#[test]
fn a_manifest_of_anybody() {
    fuzz_bytes("a manifest", vec![sealed(&manifest())]).words(&WORDS).heap(1 << 20, 256).run(
        |input, _| {
            let resealed = with_check(input).unwrap_or_else(|| input.to_vec());
            let parsed = Manifest::parse(&resealed, "20261101");
            if let Ok(manifest) = &parsed {
                assert!(manifest.newest().is_some());
                assert_eq!(manifest.to_json(), resealed);
                let _digest = manifest.newest().unwrap().digest();
                let _version = manifest.as_of(9);
            }
            assert!(Manifest::parse(input, "20261101").is_err() || parsed.is_ok());
            Told::from(&parsed)
        },
    );
}

#[test]
fn a_record_of_a_backup_of_anybody() {
    fuzz_bytes("a record of a backup", vec![sealed(&run())]).words(&WORDS).heap(1 << 20, 256).run(
        |input, _| {
            let parsed = Run::parse(&with_check(input).unwrap_or_else(|| input.to_vec()));
            if let Ok(run) = &parsed {
                assert!(run.data_as_of_us() <= run.snapshot_us);
                let _complete = run.complete_us();
                let _lacking = run.census.as_ref().map(crate::manifest::Census::lacking);
            }
            Told::from(&parsed)
        },
    );
}

fn resource() -> Value {
    json!({
        "id": "p:logs.t", "creationTime": "1767225600000", "location": "us", "numRows": "7", "etag": "x",
        "encryptionConfiguration": {"kmsKeyName": "k"}, "timePartitioning": {"type": "DAY", "field": "ts"},
        "schema": {"fields": [
            {"name": "id", "type": "INT64", "mode": "REQUIRED"}, {"name": "ts", "type": "TIMESTAMP", "timestampPrecision": "6"},
            {"name": "tags", "type": "STRING", "mode": "REPEATED"}, {"name": "r", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
            {"name": "s", "type": "RECORD", "fields": [{"name": "n", "type": "NUMERIC"}, {"name": "t", "type": "STRUCT", "fields": []}]},
        ]},
    })
}

#[test]
fn a_recorded_table_of_anybody() {
    let record = TableRecord::new("logs", "t", &resource()).unwrap().to_json().0;
    fuzz_bytes("a recorded table", vec![record]).words(&WORDS).heap(1 << 20, 512).run(
        |input, _| {
            let parsed = TableRecord::parse(input, &format!("{:032x}", xxh3_128(input)));
            if let Ok(record) = &parsed {
                assert!(!record.to_json().0.is_empty());
            }
            Told::from(&parsed)
        },
    );
}

/// A table as REST describes it: what a backup records of it, and the types of its columns.
#[test]
fn a_table_resource_of_anybody() {
    let corpus = vec![serde_json::to_vec(&resource()).unwrap()];
    let words = [
        "\"STRUCT\"",
        "\"fields\":[{\"type\":\"RECORD\",\"fields\":[",
        "REPEATED",
        "\"mode\":",
        "[",
        "{\"type\":",
    ];
    fuzz_bytes("a table resource", corpus).words(&words).heap(1 << 20, 1024).run(|input, _| {
        let Ok(resource) = serde_json::from_slice::<Value>(input) else { return Told::Refused };
        let record = TableRecord::new("logs", "t", &resource);
        let fields = resource.pointer("/schema/fields").and_then(Value::as_array);
        let types: Option<Vec<_>> =
            fields.map(|fields| fields.iter().map(ColumnType::of_bigquery).collect());
        let types =
            types.and_then(|types: Vec<_>| types.into_iter().collect::<Result<Vec<_>, _>>().ok());
        for column_type in types.iter().flatten() {
            assert!(!column_type.name().is_empty());
            let _arrow = column_type.arrow();
        }
        if record.is_some() && types.is_some() { Told::Taken } else { Told::Refused }
    });
}

#[test]
fn a_key_of_a_block_of_anybody() {
    let keys = Keys::new("log");
    let corpus =
        ["log:b:20261101:3:0", "log:b:w:1..2:18446744073709551615:4294967295", "log:b::0:1"];
    fuzz("a key of a block", &corpus).words(&[":", "log:b:", "+1", "-0"]).heap(4096, 8).run(
        |input, _| {
            let Ok(key) = std::str::from_utf8(input) else { return Told::Refused };
            match keys.parse_block(key) {
                Some(found) => {
                    let again = keys.block(&found.table_partition, found.generation, found.ordinal);
                    assert_eq!(again, key, "another key says the same");
                    Told::Taken
                }
                None => Told::Refused,
            }
        },
    );
}
