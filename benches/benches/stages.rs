//! What one row costs in each CPU stage: decode, row hash, key, and the encode of each layout.
//!
//! Invariant: the rows are made from their number alone, so every run measures the same bytes. Throughput
//! is in rows per second; `cargo bench -p rekindle-benches --bench stages`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rekindle_benches::builds::{bound, schema, wire};
use schemas::digest::RowHasher;
use schemas::plan::Layout;
use stages::RawBatch;
use stages::transform::Transform;
use stages::transform::copy_binary::{Lead, decode};
use stages::transform::redis_command::{ListpackLimits, RedisCommands, Style, Way};
use std::hint::black_box;

const ROWS: usize = 8_192;

fn stages(criterion: &mut Criterion) {
    let bytes = wire(0, ROWS);
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    let table = schema();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode(black_box(&bytes), Lead::Ctid, &table).expect("sound bytes"));
    });
    let hash = bound(Layout::Hash, false);
    let rows = decode(&bytes, Lead::Ctid, &table).expect("sound bytes").rows;
    group.bench_function("row hash", |bencher| {
        let mut hasher = RowHasher::new(&rows, &hash).expect("typed rows");
        bencher.iter(|| (0..ROWS).fold(0_u128, |sum, row| sum.wrapping_add(hasher.hash(row))));
    });
    group.bench_function("key", |bencher| {
        let renderer = hash.key.renderer(&rows).expect("typed rows");
        let mut keys = Vec::new();
        bencher.iter(|| {
            keys.clear();
            (0..ROWS).filter(|row| renderer.render(*row, &mut keys).is_ok()).count()
        });
    });
    let (command, restore) = (Way::Command, Way::Restore(ListpackLimits::default()));
    let transforms = [
        ("decode and encode, hash, blank", bound(Layout::Hash, false), Style::Blank, command),
        ("decode and encode, hash, restore", bound(Layout::Hash, false), Style::Blank, restore),
        (
            "decode and encode, hash, restore, expiry",
            bound(Layout::Hash, true),
            Style::Exact,
            restore,
        ),
        (
            "decode and encode, hash, expiry, exact",
            bound(Layout::Hash, true),
            Style::Exact,
            command,
        ),
        ("decode and encode, hash, keep", bound(Layout::Hash, false), Style::Keep, command),
        ("decode and encode, json, exact", bound(Layout::Json, false), Style::Exact, command),
        ("decode and encode, json, expiry", bound(Layout::Json, true), Style::Exact, command),
        ("decode and encode, redisjson", bound(Layout::RedisJson, false), Style::Blank, command),
    ];
    for (name, bound, style, way) in transforms {
        let transform = RedisCommands::new(bound, Lead::Ctid, style, way);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let raw = RawBatch::new(bytes.clone(), ROWS, false);
                transform.apply(black_box(raw), 0).expect("sound bytes")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
