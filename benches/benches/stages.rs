//! What one row costs in each CPU stage: decode, row hash, key, and the encode of each layout.
//!
//! Invariant: the rows are made from their number alone, so every run measures the same bytes. Throughput
//! is in rows per second; `cargo bench -p rekindle-benches --bench stages`.

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rekindle_benches::builds::{bound, plan, schema, wire};
use schemas::SlotCut;
use schemas::digest::RowHasher;
use stages::RawBatch;
use stages::transform::Transform;
use stages::transform::copy_binary::{Lead, decode};
use stages::transform::redis_command::{FileForm, ListpackLimits, RedisCommands, Style, Way};
use stages::transform::stream_rows::StreamRows;
use std::hint::black_box;
use std::sync::Arc;

const ROWS: usize = 8_192;
/// Long after every row.
const EXPIRY: &str = "ttl = \"3650d\"\nttl_from = \"finished_at\"";

fn applied(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    transform: &dyn Transform,
    bytes: &Bytes,
) {
    group.bench_function(format!("decode and encode, {name}"), |bencher| {
        bencher.iter(|| {
            let raw = RawBatch::new(bytes.clone(), ROWS, false);
            transform.apply(black_box(raw), 0).expect("sound bytes")
        });
    });
}

fn stages(criterion: &mut Criterion) {
    let bytes = wire(0, ROWS);
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    let table = schema();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode(black_box(&bytes), Lead::Ctid, &table).expect("sound bytes"));
    });
    let hash = bound(&plan("hash", ""));
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
    for (name, layout, more, style, way) in [
        ("hash, command", "hash", "", Style::Blank, command),
        ("hash, command, expiry, exact", "hash", EXPIRY, Style::Exact, command),
        ("hash, keep", "hash", "on_conflict = \"keep\"", Style::Keep, command),
        ("hash, restore", "hash", "", Style::Blank, restore),
        ("hash, restore, expiry", "hash", EXPIRY, Style::Exact, restore),
        ("string", "string", "columns = [\"commit_sha\"]", Style::Exact, command),
        ("json", "json", "", Style::Exact, command),
        ("json, expiry", "json", EXPIRY, Style::Exact, command),
        ("redisjson", "redisjson", "", Style::Blank, command),
    ] {
        let transform = RedisCommands::new(bound(&plan(layout, more)), Lead::Ctid, style, way);
        applied(&mut group, name, &transform, &bytes);
    }
    for nodes in [1, 3] {
        let cut = Arc::new(SlotCut::even(nodes));
        let form = FileForm { limits: ListpackLimits::default(), cut };
        let transform = RedisCommands::into_files(bound(&plan("hash", "")), Lead::Ctid, &form);
        applied(&mut group, &format!("hash, rdb files: {nodes}"), &transform, &bytes);
    }
    let stream = bound(&plan("stream", "use = [\"rebuild\"]"));
    applied(&mut group, "stream", &StreamRows::new(stream, Lead::Ctid), &bytes);
    let bytes = vec![0x5a; 1 << 20];
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("crc64 of 1 MiB", |bencher| {
        bencher.iter(|| stages::crc64::checksum(black_box(&bytes)));
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
