//! The codecs of the duplicate by themselves: log rows into blocks and out again, and out of hashes, stream entries and
//! JSON values, on one core.
//!
//! Invariant: rows carry as much that cannot be guessed as a real log line does; their size is printed beside the bytes
//! a block takes.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rekindle_benches::builds::table;
use rekindle_benches::measures::header;
use schemas::block::{self, Header};
use schemas::layout::{HashFields, RowValues};
use schemas::plan::{
    Backup, Layout, NullPolicy, OnConflict, Origin, RejectsMax, Route, System, Uses,
};
use schemas::{
    BoundRoute, ColumnType, EncryptKey, KeyTemplate, ReverseRoute, RowDecoder, Seals, TableSchema,
};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

const ROWS: usize = 24_000;
const WORDS: [&str; 24] = [
    "compiling",
    "linking",
    "warning",
    "unused",
    "variable",
    "artifact",
    "upload",
    "cache",
    "miss",
    "hit",
    "worker",
    "retry",
    "timeout",
    "module",
    "package",
    "resolved",
    "version",
    "target",
    "release",
    "debug",
    "fetch",
    "queue",
    "finished",
    "started",
];

/// Reproducible numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }
}

/// Log rows of seven columns, and the length of each as JSON on average.
fn log_rows() -> (RecordBatch, f64) {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut columns: [Vec<String>; 5] = Default::default();
    let (mut ids, mut times) = (Vec::new(), Vec::new());
    let mut json = 0;
    for row in 0..ROWS {
        let mut message = String::new();
        for _ in 0..11 {
            message.push_str(WORDS[random.below(WORDS.len())]);
            message.push(' ');
        }
        write!(message, "{:08}", random.below(100_000_000)).expect("a string takes everything");
        let row_id = i64::try_from(row).unwrap_or(0);
        ids.push(9_000_000_000 + row_id);
        times.push(
            1_790_000_000_000_000
                + row_id * 37_000
                + i64::try_from(random.below(30_000)).unwrap_or(0),
        );
        let values = [
            format!("build-{}", 100_000 + random.below(400)),
            format!("step-{}", random.below(24)),
            ["info", "info", "info", "warn", "error"][random.below(5)].to_owned(),
            format!("runner-{:03}", random.below(200)),
            message,
        ];
        json += 60 + 31 + values.iter().map(String::len).sum::<usize>();
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
    let text =
        |column: &Vec<String>| -> ArrayRef { Arc::new(StringArray::from_iter_values(column)) };
    let batch = RecordBatch::try_from_iter([
        ("log_id", Arc::new(Int64Array::from(ids)) as ArrayRef),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef),
        ("build", text(&columns[0])),
        ("step", text(&columns[1])),
        ("level", text(&columns[2])),
        ("runner", text(&columns[3])),
        ("message", text(&columns[4])),
    ])
    .expect("the columns have one length");
    (batch, json as f64 / ROWS as f64)
}

fn blocks(criterion: &mut Criterion) {
    let (rows, json_bytes) = log_rows();
    let batches = [rows];
    let bodies = block::encode(&batches).expect("log rows can be encoded");
    let stored: usize = bodies.iter().map(|body| body.bytes.len()).sum();
    #[expect(clippy::print_stderr, reason = "the sizes are a result, beside the times")]
    {
        eprintln!(
            "{json_bytes:.0} B per row as JSON, {:.1} B per row in {} blocks of {:.2} MiB",
            stored as f64 / ROWS as f64,
            bodies.len(),
            stored as f64 / bodies.len() as f64 / f64::from(1 << 20)
        );
    }
    let values: Vec<Vec<u8>> =
        bodies.iter().map(|body| [header(body).to_bytes(), body.bytes.clone()].concat()).collect();
    let mut group = criterion.benchmark_group("blocks");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("encode_with_digest", |bencher| {
        bencher.iter(|| block::encode(black_box(&batches)).expect("log rows can be encoded"));
    });
    group.bench_function("digest", |bencher| {
        bencher.iter(|| block::digest(black_box(&batches[0])).expect("log rows have hashes"));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            for value in &values {
                let (header, body) = block::open(black_box(value)).expect("a block is whole");
                black_box(block::decode(&header, body).expect("a block is whole"));
            }
        });
    });
    group.finish();
    sealed(criterion, &batches, &bodies);
}

/// The same blocks with their seal, to be compared with those without.
fn sealed(criterion: &mut Criterion, batches: &[RecordBatch], bodies: &[block::Body]) {
    const KEY: &str = "log:build_logs:b:20261101:1:0";
    let key = EncryptKey::parse(&"5a".repeat(32)).expect("64 digits are a key");
    let seals = Seals::new(Some(&key), &[]);
    let store = |body: &block::Body| {
        let header = Header { key_id: seals.key_id(), ..header(body) };
        block::stored(&seals, KEY, &header, &body.bytes).expect("a block can be sealed")
    };
    let values: Vec<Vec<u8>> = bodies.iter().map(store).collect();
    let mut group = criterion.benchmark_group("blocks");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("encode_sealed", |bencher| {
        bencher.iter(|| {
            let bodies = block::encode(black_box(batches)).expect("log rows can be encoded");
            bodies.iter().map(store).collect::<Vec<_>>()
        });
    });
    group.bench_function("decode_sealed", |bencher| {
        bencher.iter(|| {
            for value in &values {
                let opened = block::open_with(&seals, KEY, black_box(value));
                let (header, body) = opened.expect("a block is whole");
                black_box(block::decode(&header, &body).expect("a block is whole"));
            }
        });
    });
    group.finish();
}

fn log_table() -> TableSchema {
    let columns = [
        ("log_id", ColumnType::Int8),
        ("ts", ColumnType::TimestampTz),
        ("build", ColumnType::Text),
        ("step", ColumnType::Text),
        ("level", ColumnType::Text),
        ("runner", ColumnType::Text),
        ("message", ColumnType::Text),
    ];
    table("logs.build_logs", &columns, Vec::new())
}

fn log_route(layout: Layout) -> Route {
    Route {
        name: "build-logs".into(),
        origin: Origin::Table {
            system: System::BigQuery,
            schema: "logs".into(),
            table: "build_logs".into(),
        },
        split_by: None,
        filter: None,
        key: KeyTemplate::parse("log:{log_id}").expect("the template is sound"),
        layout,
        columns: None,
        many: None,
        as_text: Vec::new(),
        expiry: None,
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
        uses: Uses { rebuild: true, backup: true },
        backup: Backup::default(),
    }
}

/// A key and what is under it: names and values of the fields, and the JSON of the same row.
type Stored = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>);

fn stored(rows: &RecordBatch) -> Vec<Stored> {
    let bound = |layout| BoundRoute::bind(&log_route(layout), log_table()).expect("it fits");
    let (hash, json) = (bound(Layout::Hash), bound(Layout::Json));
    let keys = hash.key.renderer(rows).expect("typed rows");
    let of_hash = RowValues::new(rows, &hash).expect("typed rows");
    let of_json = RowValues::new(rows, &json).expect("typed rows");
    let mut fields = HashFields::default();
    (0..rows.num_rows())
        .map(|row| {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            keys.render(row, &mut key).expect("no null");
            of_hash.hash_fields(row, &mut fields).expect("no null");
            of_json.json(row, &mut value).expect("no null");
            let name = |field: usize| hash.fields[field].name.clone().into_bytes();
            let pairs = fields.iter().map(|(field, value)| (name(field), value.to_vec()));
            (key, pairs.collect(), value)
        })
        .collect()
}

fn rows_back(criterion: &mut Criterion) {
    let (rows, _) = log_rows();
    let stored = stored(&rows);
    let decoder = |layout| {
        let route = ReverseRoute::bind(&log_route(layout), log_table()).expect("it fits");
        RowDecoder::new(&route, log_table().arrow(), ROWS).expect("typed rows")
    };
    let mut group = criterion.benchmark_group("rows back");
    group.throughput(Throughput::Elements(ROWS as u64));
    for layout in [Layout::Hash, Layout::Stream] {
        let mut decoder = decoder(layout);
        group.bench_function(layout.word(), |bencher| {
            bencher.iter(|| {
                for (key, pairs, _) in black_box(&stored) {
                    let pairs = pairs.iter().map(|(name, value)| (&name[..], &value[..]));
                    decoder.pairs(key, pairs).expect("a row comes back");
                }
                decoder.finish()
            });
        });
    }
    let mut decoder = decoder(Layout::Json);
    group.bench_function("json", |bencher| {
        bencher.iter(|| {
            for (key, _, value) in black_box(&stored) {
                decoder.json(key, value).expect("a row comes back");
            }
            decoder.finish()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = blocks, rows_back
}
criterion_main!(benches);
