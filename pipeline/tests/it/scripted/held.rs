//! What is held: nothing piles up behind it, nobody else waits for it, and a run that is asked to stop does.
//!
//! Invariant: what is waited for are events of the run itself, never a length of time.

use super::bench::{Bench, Setting};
use super::script::{Fault, Script};
use super::{LOGS, ROWS, WAYS, filled, route};
use crate::systems::Systems;
use rekindle::lane::BATCHES_ALIVE;
use rekindle::tuning::WRITES_AT_FIRST as WRITES;
use stages::Kind;
use std::path::Path;
use std::sync::Arc;

const LANES: usize = 2;

async fn open(
    systems: &Systems,
    way: usize,
    state: &Path,
    reads: &[(u64, Fault)],
    writes: &[(u64, Fault)],
) -> Bench {
    systems.cloud.redis.cli(&["flushall"]).unwrap();
    again(systems, way, state, reads, writes).await
}

async fn again(
    systems: &Systems,
    way: usize,
    state: &Path,
    reads: &[(u64, Fault)],
    writes: &[(u64, Fault)],
) -> Bench {
    let routes = route(&WAYS[way]);
    let setting = Setting { systems, routes: &routes, way: WAYS[way].choice, lanes: LANES };
    Bench::open(&setting, state, Script::of(reads), Script::of(writes)).await
}

/// The ways that are held: hashes of PostgreSQL, and of BigQuery.
const HELD: [(usize, u64); 2] = [(0, ROWS), (5, LOGS)];

#[test]
fn a_target_that_answers_nothing_stops_the_reading() {
    let systems = filled();
    systems.cloud.tokio.block_on(async {
        for (way, rows) in HELD {
            let folder = tempfile::tempdir().unwrap();
            let every: Vec<(u64, Fault)> = (1..1_000).map(|batch| (batch, Fault::Hold)).collect();
            let bench = open(&systems, way, folder.path(), &[], &every).await;
            let (reads, writes) = (Arc::clone(&bench.reads), Arc::clone(&bench.writes));
            let holding = async {
                // Each lane has as many writes on their way as it may.
                writes.until_held((LANES * WRITES) as u64).await;
                // The journal is asked as often as it takes for a lane without a bound to read on.
                for _ in 0..200 {
                    assert_eq!(bench.done().await, 0);
                }
                // The decorator has one batch in its hands and one in its channel.
                let most = (LANES * (BATCHES_ALIVE + 2)) as u64;
                assert!(reads.batches() <= most, "{} batches were read", reads.batches());
                assert!(reads.bytes() <= LANES as u64 * bench.lane_bytes(), "{}", reads.bytes());
                assert_eq!((writes.batches(), bench.carried()), ((LANES * WRITES) as u64, 0));
                writes.release();
            };
            let (failures, ()) = tokio::join!(bench.load(), holding);
            assert!(failures.is_empty(), "{failures:?}");
            bench.is_whole(rows, rows).await;
        }
    });
}

#[test]
fn a_lane_that_is_held_holds_nobody_else() {
    let systems = filled();
    let held = [(2, Fault::Hold)];
    systems.cloud.tokio.block_on(async {
        for (way, rows) in HELD {
            for (reads, writes) in [(&held[..], &[][..]), (&[], &held)] {
                let folder = tempfile::tempdir().unwrap();
                let bench = open(&systems, way, folder.path(), reads, writes).await;
                let all = bench.partitions().await.len();
                let script = if reads.is_empty() { &bench.writes } else { &bench.reads };
                let others = async {
                    script.until_held(1).await;
                    bench.until_done(all - 1).await;
                    script.release();
                };
                let (failures, ()) = tokio::join!(bench.load(), others);
                assert!(failures.is_empty(), "{failures:?}");
                bench.is_whole(rows, rows).await;
            }
        }
    });
}

#[test]
fn a_run_that_is_held_can_be_stopped_and_resumed() {
    let systems = filled();
    let held = [(3, Fault::Hold)];
    systems.cloud.tokio.block_on(async {
        // A write that nobody answers is given up after a while; so only once.
        for (way, rows, reads, writes) in
            [(0, ROWS, &held[..], &[][..]), (0, ROWS, &[], &held), (5, LOGS, &held, &[])]
        {
            let folder = tempfile::tempdir().unwrap();
            let bench = open(&systems, way, folder.path(), reads, writes).await;
            let script = if reads.is_empty() { &bench.writes } else { &bench.reads };
            let stopping = async {
                script.until_held(1).await;
                bench.cancel.cancel();
            };
            let (failures, ()) = tokio::join!(bench.load(), stopping);
            assert!(failures.iter().all(|error| error.kind() == Kind::Cancelled), "{failures:?}");
            bench.committed_rows_are_there().await;
            drop(bench);
            let bench = again(&systems, way, folder.path(), &[], &[]).await;
            let failures = bench.load().await;
            assert!(failures.is_empty(), "{failures:?}");
            bench.is_whole(rows, rows).await;
        }
    });
}
