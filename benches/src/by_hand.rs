//! A run put together by hand: the product's engine, ready to load, and the same work without its record.
//!
//! Invariant: [`loaded`] is what `rekindle rebuild redis` does between its preparation and its proof; [`bare`] differs
//! from it in nothing but ledger, journal and what stands around them.

use futures::TryStreamExt;
use pipeline::catch_up::partitions_of;
use pipeline::engine::{Engine, order};
use pipeline::guard::Limits;
use pipeline::journal::{Journal, PartitionRecord};
use pipeline::lane::{TRANSFORMS, WRITES, now_ms};
use pipeline::outcome::from_journal;
use pipeline::rebuild::{Options, assemble};
use pipeline::route::RouteRun;
use pipeline::tuning::Lanes;
use pipeline::{prepare, wiring};
use schemas::{Plan, Position};
use stages::extract::{BatchStream, Columns};
use stages::load::Sink;
use stages::load::redis::{RedisSink, WayChoice};
use stages::transform::copy_binary::Lead;
use stages::transform::redis_command::{ListpackLimits, RedisCommands, Way};
use stages::transform::{Decoder, Transform};
use stages::{Error, Kind, RawBatch, Result};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Partitions at once, as by default.
pub const LANES: usize = 4;

/// A run that only has to be started.
pub struct Ready {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Partitions in the order of work.
    pub partitions: Vec<PartitionRecord>,
}

/// Reads a plan file.
pub fn plan(path: &Path) -> Result<Plan> {
    let failed = |why: String| Error::new(Kind::Config, format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let read = |file: &str| std::fs::read_to_string(file);
    Plan::parse(&text, &|name| std::env::var(name).ok(), &read)
        .map_err(|mistakes| failed(format!("{mistakes:?}")))
}

/// Connects to what the plan names and makes its routes, and a sink that writes hashes in this way.
pub async fn connect(
    plan: &Plan,
    way: WayChoice,
    lanes: usize,
) -> Result<(wiring::Sources, Arc<RedisSink>, Vec<RouteRun>)> {
    let sources = wiring::connect_sources(plan, &plan.routes, lanes).await?;
    let sink = wiring::make_sink(plan, way)?;
    let described = wiring::describe_routes(&sources, &plan.routes).await.map_err(first)?;
    let routes = wiring::run_routes(&sources, &sink, described)?;
    Ok((sources, sink, routes))
}

/// The route of builds over a source that has its rows, written by `RESTORE`.
pub fn restored(
    bound: Arc<schemas::BoundRoute>,
    source: Arc<dyn stages::extract::Source>,
) -> RouteRun {
    let encoded = Arc::clone(&bound);
    let transform = Box::new(move |_: &schemas::Bounds, style| -> Arc<dyn Transform> {
        let way = Way::Restore(ListpackLimits::default());
        Arc::new(RedisCommands::new(Arc::clone(&encoded), Lead::Ctid, style, way))
    });
    let decoder = Decoder::CopyBinary(Lead::Ctid);
    RouteRun::new(0, bound, source, transform, |_| Decoder::CopyBinary(Lead::Ctid), decoder)
}

/// Prepares a new run in an empty state folder: journal, cut, mark on the target.
pub async fn ready(
    plan: &Plan,
    state: &Path,
    sink: Arc<dyn Sink>,
    routes: Vec<RouteRun>,
) -> Result<Ready> {
    let options = options(state);
    let journal = Journal::open(state).await.map_err(from_journal)?;
    let opened = prepare::open_run(&journal, plan, &options, &routes, &*sink).await;
    let run = opened.map_err(first)?.record;
    let engine = assemble(plan, &options, &run, journal, (sink, None), routes).await?;
    prepare::inspect_target(&engine, false).await?;
    prepare::cut_routes(&engine).await?;
    prepare::load_counters(&engine, &engine.shared).await?;
    prepare::claim_target(&engine).await?;
    let mut partitions = Vec::new();
    for route in &engine.routes {
        partitions.extend(partitions_of(&engine, route.name()).await?);
    }
    order(&mut partitions, &engine.routes);
    Ok(Ready { engine, partitions })
}

/// Loads all partitions as a run does; returns the rows.
pub async fn loaded(ready: Ready) -> Result<u64> {
    let failures = ready.engine.run_round(ready.partitions).await;
    match failures.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(ready.engine.shared.counters.rows()),
    }
}

/// Loads all partitions with nothing but reading, transforming and writing; returns the rows.
pub async fn bare(ready: Ready) -> Result<u64> {
    let queue: VecDeque<_> = ready.partitions.into();
    let queue = Arc::new(Mutex::new(queue));
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let (engine, queue) = (Arc::clone(&ready.engine), Arc::clone(&queue));
        lanes.spawn(async move {
            let mut rows = 0;
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(record) = next else { return Ok(rows) };
                rows += one_bare(&engine, &record, lane).await?;
            }
        });
    }
    let mut rows = 0;
    while let Some(done) = lanes.join_next().await {
        let done = done.map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        rows += done?;
    }
    Ok(rows)
}

/// What a read sends, batch by batch.
pub fn batches(stream: BatchStream) -> impl futures::Stream<Item = Result<RawBatch>> {
    futures::stream::unfold(stream, |mut stream| async move {
        stream.next().await.map(|batch| (batch, stream))
    })
}

async fn one_bare(engine: &Engine, record: &PartitionRecord, lane: usize) -> Result<u64> {
    let (shared, partition) = (&engine.shared, &record.partition);
    let route = engine.routes.iter().find(|route| route.name() == partition.route);
    let route = route.ok_or_else(|| Error::new(Kind::Internal, "a partition of no route"))?;
    let transform = (route.transform)(&partition.bounds, route.style(&partition.bounds, true));
    let session = route.source.open().await?;
    let stream = session.read(partition, &Position::Start, Columns::All);
    let encoded = batches(stream).map_ok(|raw| {
        let transform = Arc::clone(&transform);
        shared.cpu.submit(move || transform.apply(raw, now_ms()))
    });
    let written = encoded.try_buffered(TRANSFORMS).map_ok(|encoded| async move {
        shared.sink.write(lane, &encoded).await.map(|written| written.written)
    });
    written.try_buffered(WRITES).try_fold(0, |sum, written| async move { Ok(sum + written) }).await
}

fn options(state: &Path) -> Options {
    Options {
        state: state.to_owned(),
        lanes: Lanes::fixed(LANES),
        routes: Vec::new(),
        deadline: None,
        lost_at_ms: None,
        fresh: false,
        verify: false,
        retry_for: Duration::from_secs(10),
        outage: None,
        take_over: None,
        way: WayChoice::Restore,
        cut_over: None,
        from_archive: false,
        to_rdb: None,
        share: None,
        limits: Limits::default(),
        cancel: CancellationToken::new(),
    }
}

fn first(errors: Vec<Error>) -> Error {
    let first = errors.into_iter().next();
    first.unwrap_or_else(|| Error::new(Kind::Internal, "it failed without an error"))
}
