//! What one row costs in the lanes of a run between a source that has its rows in memory and a target that keeps none:
//! transform, ledger and journal, and the same without ledger and journal.
//!
//! Invariant: the run is prepared outside the time. Throughput is in rows per second;
//! `cargo bench -p rekindle-benches --bench lane`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rekindle_benches::builds::{bound, plan};
use rekindle_benches::by_hand::{Ready, bare, loaded, ready, restored};
use rekindle_benches::null_sink::NullSink;
use rekindle_benches::replay::Replay;
use schemas::Plan;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PARTITIONS: usize = 8;
const BATCHES: usize = 16;
const ROWS: usize = 2_048;

fn prepared(runtime: &Runtime, plan: &Plan, source: &Arc<Replay>) -> (TempDir, Ready) {
    let state = tempfile::tempdir().expect("there is room for a journal");
    let route = restored(bound(plan), Arc::clone(source) as _);
    let ready = ready(plan, state.path(), Arc::new(NullSink), vec![route]);
    let ready = runtime.block_on(ready).expect("a run can be prepared");
    (state, ready)
}

/// Carries what was prepared, with ledger and journal or bare.
fn carried(runtime: &Runtime, ready: Ready, is_bare: bool) -> stages::Result<u64> {
    if is_bare { runtime.block_on(bare(ready)) } else { runtime.block_on(loaded(ready)) }
}

fn lanes(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let plan = plan("hash", "");
    let source = Arc::new(Replay::new(PARTITIONS, BATCHES, ROWS));
    let mut group = criterion.benchmark_group("lanes");
    group.throughput(Throughput::Elements(source.rows())).sample_size(20);
    for (name, is_bare) in [("with ledger and journal", false), ("without", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || prepared(&runtime, &plan, &source),
                |(state, ready)| {
                    let rows = carried(&runtime, ready, is_bare);
                    assert_eq!(rows.expect("nothing fails here"), source.rows());
                    state
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, lanes);
criterion_main!(benches);
