//! What one row costs in each CPU stage: decode, row hash, key, and the encode of hashes and JSON.
//!
//! Invariant: the rows are made from their number alone, so every run measures the same bytes. Throughput
//! is in rows per second; `cargo bench -p rekindle-benches --bench stages`.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use schemas::digest::RowHasher;
use schemas::plan::{
    Backup, Expiry, Layout, NullPolicy, OnConflict, Origin, RejectsMax, Route, System, Uses,
};
use schemas::{BoundRoute, Column, ColumnType, KeyTemplate, SlotCut, TableSchema};
use stages::RawBatch;
use stages::transform::Transform;
use stages::transform::copy_binary::{Lead, decode};
use stages::transform::redis_command::{FileForm, ListpackLimits, RedisCommands, Style, Way};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const ROWS: usize = 8_192;
/// Between the first and the last row of 2024, in microseconds since 2000.
const FIRST_US: i64 = 757_382_400_000_000;

fn schema() -> TableSchema {
    let columns = [
        ("id", ColumnType::Int8),
        ("repo_id", ColumnType::Int4),
        ("status", ColumnType::Text),
        ("commit_sha", ColumnType::Text),
        ("is_tagged", ColumnType::Bool),
        ("duration_seconds", ColumnType::Float8),
        ("finished_at", ColumnType::TimestampTz),
    ];
    let columns = columns.map(|(name, column_type)| Column {
        name: name.into(),
        source_type: column_type.name(),
        column_type,
        as_text: false,
    });
    TableSchema {
        table: "public.builds".into(),
        columns: columns.into(),
        unique_keys: vec![vec!["id".into()]],
    }
}

fn bound(layout: Layout, has_expiry: bool) -> Arc<BoundRoute> {
    let route = Route {
        name: "builds".into(),
        origin: Origin::Table {
            system: System::AlloyDb,
            schema: "public".into(),
            table: "builds".into(),
        },
        split_by: None,
        filter: None,
        key: KeyTemplate::parse("build:{id}").expect("the template is sound"),
        layout,
        columns: None,
        many: None,
        as_text: Vec::new(),
        expiry: has_expiry
            .then(|| Expiry::After { column: "finished_at".into(), ttl: Duration::from_hours(24) }),
        null: NullPolicy::Omit,
        on_collision: None,
        on_conflict: OnConflict::Replace,
        version_by: None,
        catch_up: None,
        priority: 100,
        newest_by: None,
        rejects_max: RejectsMax::Rows(0),
        on_drift: schemas::drift::OnDrift::Fail,
        rejects_keep: None,
        uses: Uses { rebuild: true, backup: false },
        backup: Backup::default(),
    };
    Arc::new(BoundRoute::bind(&route, schema()).expect("the route fits the table"))
}

/// Rows behind a ctid, as the extract delivers them.
fn wire() -> Bytes {
    let mut bytes = Vec::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for row in 0..ROWS as u64 {
        // xorshift64, Marsaglia 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let statuses = ["succeeded", "failed", "cancelled", "running"];
        let status = statuses[usize::try_from(random % 4).expect("below 4")];
        let sha = format!("{random:016x}{:016x}{:08x}", random.rotate_left(17), row);
        let seconds = (random % 3_600_000) as f64 / 1000.0;
        let finished = FIRST_US + i64::try_from(random % 31_536_000_000_000).expect("a year");
        let mut ctid = [0; 6];
        ctid[..4].copy_from_slice(&u32::try_from(row / 50).expect("few blocks").to_be_bytes());
        ctid[5] = u8::try_from(row % 50 + 1).expect("at most 50");
        let (seconds, finished) = (seconds.to_be_bytes(), finished.to_be_bytes());
        let is_null = random.is_multiple_of(20);
        let fields: [Option<&[u8]>; 8] = [
            Some(&ctid),
            Some(&(10_000_000 + row).to_be_bytes()),
            Some(&u32::try_from(random % 100_000).expect("small").to_be_bytes()),
            Some(status.as_bytes()),
            Some(sha.as_bytes()),
            Some(&[u8::from(random & 64 != 0)]),
            (!is_null).then_some(&seconds),
            (!is_null).then_some(&finished),
        ];
        bytes.extend_from_slice(&8_i16.to_be_bytes());
        for field in fields {
            let length = field.map_or(-1, |field| i32::try_from(field.len()).expect("short"));
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(field.unwrap_or_default());
        }
    }
    Bytes::from(bytes)
}

fn stages(criterion: &mut Criterion) {
    let bytes = wire();
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
            "decode and encode, hash with expiry, exact",
            bound(Layout::Hash, true),
            Style::Exact,
            command,
        ),
        ("decode and encode, json, exact", bound(Layout::Json, false), Style::Exact, command),
    ];
    let transforms = transforms.map(|(name, bound, style, way)| {
        (name.to_owned(), RedisCommands::new(bound, Lead::Ctid, style, way))
    });
    let files = [1, 3].map(|nodes| {
        let cut = Arc::new(SlotCut::even(nodes));
        let form = FileForm { limits: ListpackLimits::default(), cut };
        let transform = RedisCommands::into_files(bound(Layout::Hash, false), Lead::Ctid, &form);
        (format!("decode and encode, hash, rdb files: {nodes}"), transform)
    });
    for (name, transform) in transforms.into_iter().chain(files) {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let raw = RawBatch::new(bytes.clone(), ROWS, false);
                transform.apply(black_box(raw), 0).expect("sound bytes")
            });
        });
    }
    let bytes = vec![0x5a; 1 << 20];
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("crc64 of 1 MiB", |bencher| {
        bencher.iter(|| stages::crc64::checksum(black_box(&bytes)));
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
