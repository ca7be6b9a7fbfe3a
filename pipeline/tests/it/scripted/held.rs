//! What is held: nothing piles up behind it, nobody else waits for it, and a run that is asked to stop does.
//!
//! Invariant: what is waited for are events of the run itself, never a length of time.

use super::bench::{Bench, Setting};
use super::script::{Fault, Script};
use super::{WAYS, filled, route};
use crate::systems::Systems;
use rekindle::lane::BATCHES_ALIVE;
use rekindle::tuning::{Lanes, WRITES_AT_FIRST as WRITES};
use stages::{Error, Kind};
use std::path::Path;

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
    let lanes = Lanes::fixed(LANES);
    let setting = Setting { systems, routes: &routes, way: WAYS[way].choice, lanes };
    Bench::open(&setting, state, Script::of(reads), Script::of(writes)).await
}

/// The ways that are held: hashes of PostgreSQL, and of BigQuery.
const HELD: [usize; 2] = [0, 5];

/// What is held, and of what; the rest of its run goes on beside `beside`.
struct Held<'a> {
    systems: &'a Systems,
    way: usize,
    reads: &'a [(u64, Fault)],
    writes: &'a [(u64, Fault)],
}

impl Held<'_> {
    /// Loads into an empty target; returns the run and what failed of it.
    async fn load(&self, state: &Path, beside: impl AsyncFnOnce(&Bench)) -> (Bench, Vec<Error>) {
        let bench = open(self.systems, self.way, state, self.reads, self.writes).await;
        let (failures, ()) = tokio::join!(bench.load(), beside(&bench));
        (bench, failures)
    }

    /// The same, to a whole end.
    async fn load_whole(&self, beside: impl AsyncFnOnce(&Bench)) {
        let folder = tempfile::tempdir().unwrap();
        let (bench, failures) = self.load(folder.path(), beside).await;
        assert!(failures.is_empty(), "{failures:?}");
        self.is_whole(&bench).await;
    }

    async fn is_whole(&self, bench: &Bench) {
        bench.is_whole(WAYS[self.way].rows, WAYS[self.way].keys).await;
    }

    /// The script that holds.
    fn script<'b>(&self, bench: &'b Bench) -> &'b Script {
        if self.reads.is_empty() { &bench.writes } else { &bench.reads }
    }
}

#[test]
fn a_target_that_answers_nothing_stops_the_reading() {
    let systems = filled();
    let every: Vec<(u64, Fault)> = (1..1_000).map(|batch| (batch, Fault::Hold)).collect();
    systems.cloud.tokio.block_on(async {
        for way in HELD {
            let held = Held { systems: &systems, way, reads: &[], writes: &every };
            let bounded = async |bench: &Bench| {
                let (reads, writes) = (&bench.reads, &bench.writes);
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
            held.load_whole(bounded).await;
        }
    });
}

#[test]
fn a_lane_that_is_held_holds_nobody_else() {
    let systems = filled();
    let second = [(2, Fault::Hold)];
    systems.cloud.tokio.block_on(async {
        for way in HELD {
            for (reads, writes) in [(&second[..], &[][..]), (&[], &second)] {
                let held = Held { systems: &systems, way, reads, writes };
                let others = async |bench: &Bench| {
                    let script = held.script(bench);
                    script.until_held(1).await;
                    bench.until_done(bench.partitions().await.len() - 1).await;
                    script.release();
                };
                held.load_whole(others).await;
            }
        }
    });
}

#[test]
fn a_run_that_is_held_can_be_stopped_and_resumed() {
    let systems = filled();
    let third = [(3, Fault::Hold)];
    systems.cloud.tokio.block_on(async {
        // A write that nobody answers is given up after a while; so only once.
        for (way, reads, writes) in [(0, &third[..], &[][..]), (0, &[], &third), (5, &third, &[])] {
            let held = Held { systems: &systems, way, reads, writes };
            let folder = tempfile::tempdir().unwrap();
            let stopping = async |bench: &Bench| {
                held.script(bench).until_held(1).await;
                bench.cancel.cancel();
            };
            let (bench, failures) = held.load(folder.path(), stopping).await;
            assert!(failures.iter().all(|error| error.kind() == Kind::Cancelled), "{failures:?}");
            bench.committed_rows_are_there().await;
            drop(bench);
            let bench = again(&systems, way, folder.path(), &[], &[]).await;
            let failures = bench.load().await;
            assert!(failures.is_empty(), "{failures:?}");
            held.is_whole(&bench).await;
        }
    });
}

#[test]
fn a_lane_that_ends_by_a_defect_ends_the_round_and_is_told() {
    let systems = filled();
    systems.cloud.redis.cli(&["flushall"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let routes = route(&WAYS[0]);
    // One seat: the second lane waits for the first one to give it up, which it never does.
    let lanes = Lanes { start: 1, most: 2 };
    let setting = Setting { systems: &systems, routes: &routes, way: WAYS[0].choice, lanes };
    systems.cloud.tokio.block_on(async {
        let writes = Script::of(&[(2, Fault::Panic)]);
        let bench = Bench::open(&setting, folder.path(), Script::of(&[]), writes).await;
        let failures = bench.load().await;
        let told = failures.iter().find(|error| error.kind() == Kind::Internal);
        assert!(told.is_some_and(|e| e.to_string().contains("without a result")), "{failures:?}");
        bench.committed_rows_are_there().await;
        drop(bench);
        let bench = again(&systems, 0, folder.path(), &[], &[]).await;
        assert!(bench.load().await.is_empty());
        bench.is_whole(WAYS[0].rows, WAYS[0].keys).await;
    });
}
