//! One run in this process, over decorated sources and a decorated sink: set up, loaded, looked at, proven.
//!
//! Invariant: everything between the decorators is the product, journal and ledger included.

use super::script::Script;
use super::sink::ScriptedSink;
use super::source::ScriptedSource;
use crate::conform::read_alone;
use crate::systems::{Systems, Wired};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use rekindle::checkpoint::Status;
use rekindle::engine::{Engine, order};
use rekindle::guard::Limits;
use rekindle::journal::{Journal, PartitionRecord};
use rekindle::prepare;
use rekindle::readback::{Tier, read_back};
use rekindle::rebuild::{Options, assemble};
use rekindle::tuning::Lanes;
use stages::Error;
use stages::load::Sink;
use stages::load::redis::WayChoice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A run that is set up.
pub(super) struct Bench {
    pub(super) engine: Arc<Engine>,
    pub(super) reads: Arc<Script>,
    pub(super) writes: Arc<Script>,
    pub(super) cancel: CancellationToken,
    /// The same routes, without a script.
    plain: Wired,
}

/// How a run is made.
pub(super) struct Setting<'a> {
    pub(super) systems: &'a Systems,
    pub(super) routes: &'a str,
    pub(super) way: WayChoice,
    pub(super) lanes: Lanes,
}

fn options(state: &Path, lanes: Lanes, way: WayChoice, cancel: CancellationToken) -> Options {
    Options {
        state: state.to_owned(),
        lanes,
        routes: Vec::new(),
        deadline: None,
        lost_at_ms: None,
        fresh: false,
        verify: true,
        retry_for: Duration::from_secs(30),
        outage: Some(Duration::from_secs(30)),
        take_over: None,
        way,
        cut_over: None,
        from_archive: false,
        to_rdb: None,
        share: None,
        limits: Limits::default(),
        cancel,
    }
}

impl Bench {
    /// Sets a run up, or one that was left behind in this state folder.
    pub(super) fn open<'a>(
        setting: &'a Setting<'_>,
        state: &'a Path,
        reads: Arc<Script>,
        writes: Arc<Script>,
    ) -> LocalBoxFuture<'a, Self> {
        Self::set_up(setting, state, reads, writes).boxed_local()
    }

    async fn set_up(
        setting: &Setting<'_>,
        state: &Path,
        reads: Arc<Script>,
        writes: Arc<Script>,
    ) -> Self {
        let Setting { systems, routes, way, lanes } = *setting;
        let plain = systems.wire(routes, way, lanes.most).await;
        let Wired { plan, sink, mut routes, .. } = systems.wire(routes, way, lanes.most).await;
        for route in &mut routes {
            let inner = Arc::clone(&route.source);
            route.source = Arc::new(ScriptedSource { inner, script: Arc::clone(&reads) });
        }
        let sink: Arc<dyn Sink> =
            Arc::new(ScriptedSink { inner: sink, script: Arc::clone(&writes) });
        let cancel = CancellationToken::new();
        let options = options(state, lanes, way, cancel.clone());
        let journal = Journal::open(state).await.unwrap();
        let opened = prepare::open_run(&journal, &plan, &options, &routes, &*sink).await.unwrap();
        let (run, is_resumed) = (opened.record, opened.is_resumed);
        let engine = assemble(&plan, &options, &run, journal, (sink, None), routes).await.unwrap();
        prepare::inspect_target(&engine, is_resumed).await.unwrap();
        prepare::cut_routes(&engine).await.unwrap();
        prepare::load_counters(&engine, &engine.shared).await.unwrap();
        prepare::claim_target(&engine).await.unwrap();
        Self { engine, reads, writes, cancel, plain }
    }

    /// Every partition as the journal has it.
    pub(super) async fn partitions(&self) -> Vec<PartitionRecord> {
        let shared = &self.engine.shared;
        shared.journal.partitions(&shared.run_id).await.unwrap()
    }

    /// Carries what is not done yet. What the journal holds is compared with what was acknowledged all the while.
    pub(super) async fn load(&self) -> Vec<Error> {
        let mut pending = self.partitions().await;
        pending.retain(|record| record.status != Status::Done);
        order(&mut pending, &self.engine.routes);
        let before = self.committed().await;
        let watching = async {
            loop {
                self.is_behind_the_target(before).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let failures = tokio::select! {
            failures = self.engine.run_round(pending) => failures,
            () = watching => Vec::new(),
        };
        self.engine.shared.commits.flush().await.unwrap();
        self.is_behind_the_target(before).await;
        failures
    }

    /// Rows that the journal holds as committed.
    async fn committed(&self) -> u64 {
        self.partitions().await.iter().map(|record| record.counts.rows).sum()
    }

    /// No row is committed that was not acknowledged before.
    async fn is_behind_the_target(&self, before: u64) {
        let committed = self.committed().await - before;
        let acknowledged = self.writes.rows();
        assert!(committed <= acknowledged, "{committed} committed, {acknowledged} acknowledged");
    }

    /// Every row up to a committed position is in the target, whatever is behind it.
    pub(super) async fn committed_rows_are_there(&self) {
        for record in self.partitions().await {
            let route = self.plain.route(&record.partition.route);
            let rows = usize::try_from(record.counts.rows).unwrap();
            if rows == 0 || route.bound.is_many() || route.bound.is_stream() {
                continue;
            }
            let keys: Vec<Bytes> = read_alone(route, &record.partition).await;
            let there = self.plain.sink.count_existing(&keys[..rows]).await.unwrap();
            assert_eq!(there, rows as u64, "{}: committed and not there", record.partition.id);
        }
    }

    /// Every partition is done, has its rows once, and every value is what was sent; nothing else is there.
    pub(super) async fn is_whole(&self, rows: u64, keys: u64) {
        let records = self.partitions().await;
        for record in &records {
            assert_eq!(record.status, Status::Done, "{:?}", record.error);
        }
        assert_eq!(records.iter().map(|record| record.counts.rows).sum::<u64>(), rows);
        let shared = &self.engine.shared;
        for route in &self.engine.routes {
            let found = read_back(shared, route, Tier::Full).await.unwrap();
            // The ledger names again what was sent again.
            assert!(found.differences() == 0 && found.compared >= keys, "{found:?}");
        }
        let state = shared.sink.state().await.unwrap();
        let temporary = shared.ledger.temporary().unwrap();
        // What an attempt began that another one replaced is removed at the end of a run.
        shared.sink.unlink(&temporary).await.unwrap();
        let left = shared.sink.state().await.unwrap().entries;
        assert_eq!(left, keys + 1, "of {} entries, {} temporary", state.entries, temporary.len());
        assert!(!shared.stop.is_run_cancelled());
    }

    /// Partitions that are done.
    pub(super) async fn done(&self) -> usize {
        let records = self.partitions().await;
        records.iter().filter(|record| record.status == Status::Done).count()
    }

    /// Waits until so many are.
    pub(super) async fn until_done(&self, partitions: usize) {
        while self.done().await < partitions {
            tokio::task::yield_now().await;
        }
    }

    /// Bytes that may be on their way in one lane.
    pub(super) fn lane_bytes(&self) -> u64 {
        // One more is in the hands of the decorator, and one in its channel.
        let batches = rekindle::lane::BATCHES_ALIVE + 2;
        let largest = self.engine.routes.iter().map(|route| route.source.batch_bytes()).max();
        (batches * largest.unwrap() * 2) as u64
    }

    /// Rows that were carried, as the live counters tell.
    pub(super) fn carried(&self) -> u64 {
        let routes = &self.engine.shared.counters.routes;
        routes.iter().map(|route| route.rows.load(Ordering::Relaxed)).sum()
    }
}
