//! What one row costs in the transform of keys of many rows: decoded, grouped, encoded and stitched.
//!
//! Invariant: the rows are made from their number alone, so every run measures the same bytes. Throughput is in rows per
//! second; `cargo bench -p rekindle-benches --bench many`.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use schemas::{BoundRoute, Column, ColumnType, Plan, TableSchema};
use stages::RawBatch;
use stages::transform::copy_binary::Lead;
use stages::transform::many_rows::ManyRows;
use stages::transform::{Attempt, Style, Transform};
use std::hint::black_box;
use std::sync::Arc;

const ROWS: u64 = 8_192;
/// Rows of a key.
const PER_KEY: u64 = 20;
/// The begin of 2024, in microseconds since 2000.
const FIRST_US: u64 = 757_382_400_000_000;

fn bound(layout: &str, more: &str) -> Arc<BoundRoute> {
    let text = format!(
        "[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"r\"\n\
         table = \"alloydb:builds\"\nkey = \"repo:{{repo}}:builds\"\ntype = \"{layout}\"\nmember = \"{{id}}\"\n{more}\n"
    );
    let plan = Plan::parse(&text, &|_| None, &|_| Err(std::io::Error::other("no file")));
    let plan = plan.expect("the plan is sound");
    let columns = [
        ("repo", ColumnType::Int8),
        ("id", ColumnType::Int8),
        ("started", ColumnType::TimestampTz),
    ];
    let columns = columns.map(|(name, column_type)| Column {
        name: name.into(),
        source_type: column_type.name(),
        column_type,
        as_text: false,
    });
    let unique_keys = vec![vec!["id".into()]];
    let schema = TableSchema { table: "builds".into(), columns: columns.into(), unique_keys };
    Arc::new(BoundRoute::bind(&plan.routes[0], schema).expect("the route fits the table"))
}

/// Rows behind the value that cuts them, in the order of their keys.
fn wire() -> Bytes {
    let mut bytes = Vec::new();
    for row in 0..ROWS {
        let repo = 1_000_000 + row / PER_KEY;
        let started = FIRST_US + row * 7_919_000_000;
        let fields = [repo.to_string().into_bytes(), repo.to_be_bytes().into()];
        let fields =
            fields.into_iter().chain([row.to_be_bytes().into(), started.to_be_bytes().into()]);
        bytes.extend_from_slice(&4_i16.to_be_bytes());
        for field in fields {
            bytes.extend_from_slice(&i32::try_from(field.len()).expect("short").to_be_bytes());
            bytes.extend_from_slice(&field);
        }
    }
    Bytes::from(bytes)
}

fn many(criterion: &mut Criterion) {
    let bytes = wire();
    let mut group = criterion.benchmark_group("many rows");
    group.throughput(Throughput::Elements(ROWS));
    for (name, bound, style) in [
        ("set, blank", bound("set", ""), Style::Blank),
        ("zset, blank", bound("zset", "score = \"started\""), Style::Blank),
        ("zset, exact", bound("zset", "score = \"started\""), Style::Exact),
        ("list, blank", bound("list", "order_by = \"started\""), Style::Blank),
        ("hash, blank", bound("hash", "columns = [\"started\"]"), Style::Blank),
    ] {
        let transform = ManyRows::new(bound, Lead::Key, style);
        let attempt = Attempt { name: "bench", number: 0 };
        let rows = usize::try_from(ROWS).expect("few rows");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let raw = RawBatch::new(bytes.clone(), rows, true);
                let open = transform.apply(black_box(raw), 0).expect("sound bytes").open;
                let mut stitcher = transform.stitcher(&attempt).expect("many rows");
                stitcher.take(open.expect("a batch open at its ends")).expect("sound keys")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, many);
criterion_main!(benches);
