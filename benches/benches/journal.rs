//! What one checkpoint costs: the ledger's frame of a batch, its append and sync, and the commit of a position that waits
//! for the disk.
//!
//! Invariant: every commit moves its partition on, as the journal insists. `cargo bench -p rekindle-benches --bench journal`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pipeline::checkpoint::Counts;
use pipeline::journal::Delta;
use pipeline::ledger::encode_frame;
use rekindle_benches::builds::{bound, plan, wire};
use rekindle_benches::by_hand::{ready, restored};
use rekindle_benches::null_sink::NullSink;
use rekindle_benches::replay::Replay;
use schemas::Position;
use stages::RawBatch;
use stages::extract::Source as _;
use stages::transform::Transform as _;
use stages::transform::copy_binary::Lead;
use stages::transform::redis_command::{ListpackLimits, RedisCommands, Style, Way};
use std::hint::black_box;
use std::sync::Arc;
use tokio::runtime::Runtime;

const ROWS: usize = 2_048;

fn journal(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let plan = plan("hash", "");
    let hash = bound(&plan);
    let source: Arc<Replay> = Arc::new(Replay::new(1, 1, ROWS));
    let state = tempfile::tempdir().expect("there is room for a journal");
    let route = restored(Arc::clone(&hash), Arc::clone(&source) as _);
    let run = ready(&plan, state.path(), Arc::new(NullSink), vec![route]);
    let run = runtime.block_on(run).expect("a run can be prepared");
    let (shared, partition) = (&run.engine.shared, &run.partitions[0].partition.id);
    let begun = runtime.block_on(async {
        let session = source.open().await?;
        let snapshot = shared.snapshots.record(session.snapshot()).await?;
        let begun = shared.journal.begin(&shared.run_id, partition, snapshot).await;
        begun.map_err(pipeline::outcome::from_journal)
    });
    let begun = begun.expect("a partition can be begun");
    let way = Way::Restore(ListpackLimits::default());
    let transform = RedisCommands::new(hash, Lead::Ctid, Style::Blank, way);
    let raw = RawBatch::new(wire(0, ROWS), ROWS, false);
    let encoded = transform.apply(raw, 0).expect("sound bytes");
    let frame = encode_frame(&encoded).expect("a frame of few rows");

    let mut group = criterion.benchmark_group("checkpoint");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("frame of the ledger", |bencher| {
        bencher.iter(|| encode_frame(black_box(&encoded)));
    });
    let empty = || {
        shared.ledger.forget(partition).expect("the file can be removed");
        shared.ledger.begin(partition, 0).expect("a ledger can be begun")
    };
    group.bench_function("append", |bencher| {
        // Into an empty file each time, which else would grow beyond the disk.
        bencher.iter_batched(
            empty,
            |_| shared.ledger.append(partition, &frame).expect("the disk has room"),
            BatchSize::PerIteration,
        );
    });
    empty();
    let (mut block, mut from, mut ledger_bytes) = (0, Position::Start, 0);
    // One batch at a time: group commit shares one sync among all lanes of an interval.
    group.sample_size(20).bench_function("append, commit and flush", |bencher| {
        bencher.iter(|| {
            block += 1;
            ledger_bytes += frame.len() as u64;
            shared.ledger.append(partition, &frame).expect("the disk has room");
            let to = Position::Ctid { block, offset: 1 };
            let counts = Counts { rows: ROWS as u64, written: ROWS as u64, ..Counts::default() };
            let (partition, from) = (partition.clone(), std::mem::replace(&mut from, to.clone()));
            let delta = Delta { partition, epoch: begun.epoch, from, to, counts, ledger_bytes };
            let committed = runtime.block_on(async {
                shared.commits.commit(delta).await?;
                shared.commits.flush().await
            });
            committed.expect("the journal takes it");
        });
    });
    group.finish();
}

criterion_group!(benches, journal);
criterion_main!(benches);
