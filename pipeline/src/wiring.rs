//! The only module that names systems together: plan -> source, transform, sink.
//!
//! Invariant: a new system is one more arm here; nothing else in this crate knows PostgreSQL, BigQuery or Redis.

mod archived;
mod described;
mod duplicate;
mod listing;
mod passes;
mod sample;
mod sources;

pub(crate) use archived::is_archived;
pub use archived::{ArchiveRead, ArchivedShape, archive_reads, connect_with, refuse_unarchived};
pub use described::{Described, Facts, On, describe_postgres, describe_routes, table_shape};
pub use duplicate::{connect_backup_source, make_duplicate, make_store, make_values, open_archive};
pub use listing::{ARRIVAL_TIME, ListedBigQuery, ListedColumn, PostgresListing, list_bigquery};
pub use sample::{Sampler, sampler};
pub use sources::{Sources, connect_bigquery, connect_postgres, connect_sources};

use crate::rebuild::Options;
use crate::route::{RouteRun, mark_shared_keys};
use schemas::plan::{Layout, OnCollision};
use schemas::{BoundRoute, Bounds, Plan, SlotCut};
use stages::connect::redis;
use stages::extract::{Estimate, Source};
use stages::load::Sink;
use stages::load::rdb::{Place, RdbSink};
use stages::load::redis::cut_over::CutOver;
use stages::load::redis::{RedisSink, WayChoice};
use stages::transform::copy_binary::Lead;
use stages::transform::many_rows::ManyRows;
use stages::transform::redis_command::{FileForm, ListpackLimits, RedisCommands};
use stages::transform::stream_rows::StreamRows;
use stages::transform::{Decoder, Transform};
use stages::{Error, Kind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long one attempt to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the sink of the plan; nothing is connected yet. `way` matters only where a route writes hashes.
pub fn make_sink(plan: &Plan, way: WayChoice) -> Result<Arc<RedisSink>> {
    make_sink_in(plan, way, None)
}

/// Makes the same sink on another database of its server, where one is named.
pub fn make_sink_in(plan: &Plan, way: WayChoice, database: Option<u32>) -> Result<Arc<RedisSink>> {
    let mut endpoint = redis_endpoint(plan)?;
    if let Some(database) = database {
        endpoint = endpoint.with_database(database);
    }
    let has_hashes =
        plan.routes.iter().any(|route| route.layout == Layout::Hash && route.many.is_none());
    let way = has_hashes.then_some(way);
    Ok(Arc::new(RedisSink::new(endpoint, way)?))
}

/// Makes the cut-over from a database that is built to the one of the plan; nothing is connected yet.
pub fn make_cut_over(plan: &Plan, build: u32) -> Result<CutOver> {
    CutOver::new(&redis_endpoint(plan)?, build)
}

/// How entries are written for a target.
#[derive(Clone)]
pub enum Encoding {
    /// As the commands that this server takes.
    Commands(Arc<RedisSink>),
    /// As entries of RDB files.
    Files(FileForm),
}

/// Where a rebuild writes, and how.
pub struct Written {
    /// The target.
    pub sink: Arc<dyn Sink>,
    /// How entries are written for it.
    pub encoding: Encoding,
    /// The same target, where it is files.
    pub files: Option<Arc<RdbSink>>,
}

/// Makes the target that was asked for; nothing is connected or created yet. Fails where files would be overwritten.
pub fn written(plan: &Plan, options: &Options) -> Result<Written> {
    let Some(asked) = &options.to_rdb else {
        let sink = make_sink_in(plan, options.way, options.cut_over)?;
        let encoding = Encoding::Commands(Arc::clone(&sink));
        return Ok(Written { sink, encoding, files: None });
    };
    let files = make_files(plan, asked.folder.clone(), asked.nodes)?;
    if !asked.replace {
        files.refuse_existing()?;
    }
    let (limits, cut) = (ListpackLimits::default(), Arc::clone(&files.place().cut));
    let encoding = Encoding::Files(FileForm { limits, cut });
    let sink: Arc<dyn Sink> = Arc::<RdbSink>::clone(&files);
    Ok(Written { sink, encoding, files: Some(files) })
}

/// Makes the files that the routes of a plan are written into; nothing is created yet.
fn make_files(plan: &Plan, folder: PathBuf, nodes: u16) -> Result<Arc<RdbSink>> {
    let database = match &plan.redis {
        Some(_) => u32::try_from(redis_endpoint(plan)?.database()).unwrap_or(0),
        None => 0,
    };
    if database != 0 && nodes > 1 {
        let message = format!(
            "--rdb-nodes {nodes}: a cluster has database 0 alone, and [redis] names database {database}"
        );
        return Err(Error::new(Kind::Config, message)
            .with_hint("name no database in the url of [redis], or write one file"));
    }
    let cut = Arc::new(SlotCut::even(nodes));
    Ok(Arc::new(RdbSink::new(Place { folder, cut, database })))
}

/// Names the Redis of the plan; nothing is connected yet.
pub fn redis_endpoint(plan: &Plan) -> Result<redis::Endpoint> {
    let Some(url) = &plan.redis else {
        return Err(Error::new(Kind::Config, "the plan has no [redis] url"));
    };
    redis::Endpoint::parse(&url.0, CONNECT_TIMEOUT)
}

/// Makes the runnable routes of described ones, written to a server.
pub fn run_routes(
    sources: &Sources,
    sink: &Arc<RedisSink>,
    described: Vec<Described>,
) -> Result<Vec<RouteRun>> {
    run_routes_as(sources, &Encoding::Commands(Arc::clone(sink)), described)
}

/// Makes the runnable routes of described ones.
pub fn run_routes_as(
    sources: &Sources,
    encoding: &Encoding,
    described: Vec<Described>,
) -> Result<Vec<RouteRun>> {
    let mut routes = Vec::with_capacity(described.len());
    let memberships = passes::passes(sources, &described)?;
    for (index, described) in described.into_iter().enumerate() {
        let bound = Arc::clone(described.bound());
        let facts = described.facts();
        let (shape, is_archived) = (described.table_shape(), described.is_archived());
        let (source, decoder_of, key_decoder) = source_of(sources, described)?;
        if let (Some(_), Some(reason)) = (bound.route.catch_up, source.no_catch_up()) {
            let name = &bound.route.name;
            let message = format!("route {name}: catch_up cannot be kept, because {reason}");
            return Err(Error::new(Kind::Config, message)
                .with_hint("leave catch_up out; the summary then tells the stale window"));
        }
        let (encoded, encoding) = (Arc::clone(&bound), encoding.clone());
        let transform = Box::new(move |bounds: &Bounds, style| -> Arc<dyn Transform> {
            let decoder = decoder_of(bounds);
            let sink = match &encoding {
                Encoding::Files(form) => {
                    let encoded = Arc::clone(&encoded);
                    return Arc::new(RedisCommands::into_files(encoded, decoder, form));
                }
                Encoding::Commands(sink) => sink,
            };
            if encoded.is_stream() {
                return Arc::new(StreamRows::new(Arc::clone(&encoded), decoder));
            }
            if encoded.is_many() {
                return Arc::new(ManyRows::new(Arc::clone(&encoded), decoder, style));
            }
            let commands = RedisCommands::new(Arc::clone(&encoded), decoder, style, sink.way());
            Arc::new(commands)
        });
        let mut route = RouteRun::new(index, bound, source, transform, decoder_of, key_decoder);
        route.shape = Some(shape);
        route.is_archived = is_archived;
        route.membership = memberships.iter().find(|(of, _)| *of == index).map(|(_, m)| m.clone());
        route.has_row_estimate = facts.rows.is_some() || facts.is_counted_by_cut;
        routes.push(route);
    }
    mark_shared_keys(&mut routes);
    Ok(routes)
}

/// A source, how its batches are decoded, and how those that hold keys only.
type Wired = (Arc<dyn Source>, fn(&Bounds) -> Decoder, Decoder);

fn source_of(sources: &Sources, described: Described) -> Result<Wired> {
    Ok(match described {
        Described::Postgres(On { bound, shape }) => {
            (sources.postgres_source(bound, shape)?, tuples, Decoder::CopyBinary(Lead::None))
        }
        Described::BigQuery(On { bound, shape }) => {
            (sources.bigquery_source(bound, shape)?, |_| Decoder::ArrowIpc, Decoder::ArrowIpc)
        }
        Described::Archived(On { bound, shape }) => {
            (sources.archived_source(bound, shape)?, |_| Decoder::ArrowIpc, Decoder::ArrowIpc)
        }
    })
}

/// Returns what a read of a described route would take, as far as its system tells.
pub async fn read_estimate(sources: &Sources, described: Described) -> Result<Option<Estimate>> {
    let (source, ..) = source_of(sources, described)?;
    source.estimate().await
}

/// Whether `on_collision = "error"` still has to be checked, because no index proves it.
pub fn needs_collision_check(bound: &BoundRoute) -> bool {
    !bound.is_many()
        && !bound.key_is_proven_unique
        && bound.route.on_collision == Some(OnCollision::Error)
}

fn tuples(bounds: &Bounds) -> Decoder {
    Decoder::CopyBinary(match bounds {
        Bounds::Ctid { .. } | Bounds::ChangedSince { .. } => Lead::Ctid,
        Bounds::Key { .. } => Lead::Key,
        Bounds::KeyNull
        | Bounds::Whole
        | Bounds::Filter { .. }
        | Bounds::TablePartition { .. }
        | Bounds::Files { .. } => Lead::None,
    })
}
