//! What `measure` measures, each as one JSON object: rows, seconds of the wall, CPU time.
//!
//! Invariant: nothing is timed but the work that is named; connecting and preparing are not.

use crate::by_hand::{self, LANES, bare, connect, loaded, ready};
use crate::cpu_clock;
use arrow::ipc::reader::StreamReader;
use futures::TryStreamExt;
use pipeline::cpu::CpuPool;
use pipeline::lane::TRANSFORMS;
use pipeline::prepare::PARTITIONS_PER_LANE;
use pipeline::summarize::peak_rss_bytes;
use schemas::Position;
use schemas::block::{self, CODEC_ZSTD_ARROW, Header};
use schemas::digest::{DIGEST_VERSION, RowHasher};
use serde_json::{Value, json};
use stages::extract::Columns;
use stages::load::Sink as _;
use stages::load::redis::WayChoice;
use stages::transform::Style;
use stages::transform::copy_binary::{Decoded, Lead};
use stages::transform::redis_command::{ListpackLimits, RedisCommands, Way};
use stages::transform::{Decoder, Transform as _};
use stages::{Error, Kind, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Reads the table of a plan's only route in so many ranges at once, of as many as a rebuild with so many lanes cuts, decodes
/// it into typed arrow columns, and drops them.
pub async fn extract(plan: &Path, ranges: usize) -> Result<Value> {
    let plan = by_hand::plan(plan)?;
    let started = Instant::now();
    let (_sources, _sink, routes) = connect(&plan, WayChoice::Command, ranges).await?;
    let route = Arc::new(only(routes)?);
    let cpu = Arc::new(CpuPool::new()?);
    let partitions = route.source.partitions(ranges * PARTITIONS_PER_LANE, 0).await?;
    let cut = partitions.len();
    let mut reads = JoinSet::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(ranges));
    for partition in partitions {
        let (route, cpu, gate) = (Arc::clone(&route), Arc::clone(&cpu), Arc::clone(&gate));
        reads.spawn(async move {
            let _permit = gate.acquire().await.map_err(|error| broken(&error))?;
            let decoder = (route.decoder_of)(&partition.bounds);
            let session = route.source.open().await?;
            let stream = session.read(&partition, &Position::Start, Columns::All);
            let columns = by_hand::batches(stream).map_ok(|raw| {
                let bound = Arc::clone(&route.bound);
                cpu.submit(move || decoder.decode(&raw, &bound.schema))
            });
            let rows = |sum, batch: Decoded| async move { Ok(sum + batch.rows.num_rows() as u64) };
            columns.try_buffered(TRANSFORMS).try_fold(0, rows).await
        });
    }
    let mut rows = 0;
    while let Some(read) = reads.join_next().await {
        rows += read.map_err(|error| broken(&error))??;
    }
    Ok(json!({
        "rows": rows,
        "seconds": started.elapsed().as_secs_f64(),
        "ranges": cut,
        "cpu_seconds": cpu_clock::of_process().as_secs_f64(),
        "peak_rss_bytes": peak_rss_bytes(),
    }))
}

/// CPU time of the parts of a transform, each over the same batches.
#[derive(Default)]
struct Parts {
    rows: u64,
    whole: Duration,
    decode: Duration,
    digest: Duration,
    key: Duration,
}

/// Takes the table of a plan's only route from COPY bytes to `RESTORE` payloads on one thread, without a socket in the
/// time, and then once more part by part.
pub async fn transform(plan: &Path) -> Result<Value> {
    let plan = by_hand::plan(plan)?;
    let (_sources, _sink, routes) = connect(&plan, WayChoice::Command, 1).await?;
    let route = only(routes)?;
    let mut parts = Parts::default();
    for partition in route.source.partitions(1, 0).await? {
        let decoder = (route.decoder_of)(&partition.bounds);
        let Decoder::CopyBinary(lead) = decoder else {
            return Err(Error::new(Kind::Config, "only PostgreSQL sends COPY bytes"));
        };
        let session = route.source.open().await?;
        let mut stream = session.read(&partition, &Position::Start, Columns::All);
        while let Some(raw) = stream.next().await {
            // This thread does nothing else, so its CPU time is that of the work.
            parts.add(&route.bound, lead, raw?)?;
        }
    }
    let us = |part: Duration| part.as_secs_f64() * 1e6 / parts.rows.max(1) as f64;
    Ok(json!({
        "rows": parts.rows,
        "own_cpu_us_per_row": us(parts.whole),
        "of_which": {
            "decode": us(parts.decode),
            "row hash": us(parts.digest),
            "key": us(parts.key),
            "encode and the rest": us(parts.whole.saturating_sub(parts.decode + parts.digest + parts.key)),
        },
    }))
}

impl Parts {
    fn add(
        &mut self,
        bound: &Arc<schemas::BoundRoute>,
        lead: Lead,
        raw: stages::RawBatch,
    ) -> Result<()> {
        let again = raw.share();
        let way = Way::Restore(ListpackLimits::default());
        let transform = RedisCommands::new(Arc::clone(bound), lead, Style::Blank, way);
        let (encoded, whole) = timed(|| transform.apply(raw, 0));
        let (decoded, decode) = timed(|| Decoder::CopyBinary(lead).decode(&again, &bound.schema));
        let rows = decoded?.rows;
        let mismatch = |error: schemas::text::TypeMismatch| broken(&error);
        let mut hasher = RowHasher::new(&rows, bound).map_err(mismatch)?;
        let count = rows.num_rows();
        let (sum, digest) =
            timed(|| (0..count).fold(0_u128, |sum, row| sum.wrapping_add(hasher.hash(row))));
        let renderer = bound.key.renderer(&rows).map_err(mismatch)?;
        let mut keys = Vec::new();
        let (key_count, key) =
            timed(|| (0..count).filter(|row| renderer.render(*row, &mut keys).is_ok()).count());
        let encoded = encoded?;
        if encoded.carried != key_count as u64 || encoded.digest.sum != sum {
            return Err(Error::new(Kind::Internal, "the parts do not add up to the whole"));
        }
        self.rows += encoded.rows_read;
        self.whole += whole;
        self.decode += decode;
        self.digest += digest;
        self.key += key;
        Ok(())
    }
}

/// Loads what a plan says through the product's engine, with ledger and journal or with neither. The target has to be
/// empty and is left with the rows alone.
pub async fn carry(plan: &Path, is_bare: bool) -> Result<Value> {
    let plan = by_hand::plan(plan)?;
    let state = tempfile::tempdir().map_err(|error| broken(&error))?;
    let (sources, sink, routes) = connect(&plan, WayChoice::Restore, LANES).await?;
    let target: Arc<dyn stages::load::Sink> = Arc::clone(&sink) as _;
    let ready = ready(&plan, state.path(), target, routes).await?;
    let engine = Arc::clone(&ready.engine);
    let (started, cpu) = (Instant::now(), cpu_clock::of_process());
    let rows = if is_bare { bare(ready).await? } else { loaded(ready).await? };
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_clock::of_process().saturating_sub(cpu);
    sources.release_snapshot().await;
    sink.release(&engine.shared.run_id).await?;
    Ok(json!({ "rows": rows, "seconds": seconds, "cpu_seconds": cpu.as_secs_f64() }))
}

/// Encodes the rows of an arrow IPC stream into blocks, digest included, and decodes them again, on one thread.
pub fn codec(rows: &Path) -> Result<Value> {
    let file = File::open(rows).map_err(|error| broken(&error))?;
    let reader = StreamReader::try_new(BufReader::new(file), None);
    let reader = reader.map_err(|error| broken(&error))?;
    let (mut count, mut bytes) = (0_u64, 0_u64);
    let (mut encode, mut decode) = (Duration::ZERO, Duration::ZERO);
    for batch in reader {
        let batch = [batch.map_err(|error| broken(&error))?];
        let (bodies, took) = timed(|| block::encode(&batch));
        encode += took;
        for body in bodies.map_err(|error| broken(&error))? {
            count += u64::from(body.rows);
            bytes += body.bytes.len() as u64;
            let header = header(&body);
            let value = [header.to_bytes(), body.bytes].concat();
            let (rows, took) = timed(|| {
                let (header, body) = block::open(&value)?;
                block::decode(&header, body)
            });
            decode += took;
            let rows = rows.map_err(|error| broken(&error))?;
            let digest = block::digest(&rows).map_err(|error| broken(&error))?;
            if digest != header.digest {
                return Err(Error::new(Kind::Internal, "a block came back as another"));
            }
        }
    }
    let rate = |took: Duration| count as f64 / took.as_secs_f64().max(1e-9);
    Ok(json!({
        "rows": count,
        "bytes_per_row": bytes as f64 / count.max(1) as f64,
        "encode_rows_per_core_second": rate(encode),
        "decode_rows_per_core_second": rate(decode),
    }))
}

/// The header of a block that is the whole of a table partition.
pub fn header(body: &block::Body) -> Header {
    Header {
        codec: CODEC_ZSTD_ARROW,
        is_last: true,
        rows: body.rows,
        ordinal: 0,
        generation: 1,
        snapshot_us: 0,
        last_modified_us: 0,
        expires_us: None,
        table_created_ms: 0,
        digest: body.digest,
        digest_version: DIGEST_VERSION,
        schema_hash: 0,
        raw_bytes: body.raw_bytes,
        body_bytes: body.bytes.len() as u64,
        body_xxh3: body.xxh3,
        key_id: None,
        table: "logs.build_logs".into(),
        table_id: "p:logs.build_logs".into(),
        table_partition: "20261101".into(),
    }
}

fn only(routes: Vec<pipeline::route::RouteRun>) -> Result<pipeline::route::RouteRun> {
    let count = routes.len();
    let mut routes = routes.into_iter();
    match (routes.next(), count) {
        (Some(route), 1) => Ok(route),
        _ => Err(Error::new(Kind::Config, format!("the plan has {count} routes instead of one"))),
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = cpu_clock::of_thread();
    let done = work();
    (done, cpu_clock::of_thread().saturating_sub(before))
}

fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Internal, error.to_string())
}
