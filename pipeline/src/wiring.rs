//! The only file that names systems together: plan -> source, transform, sink.
//!
//! Invariant: a new system is one more arm here; nothing else in this crate knows PostgreSQL or Redis.

use crate::route::{RouteRun, mark_shared_keys};
use schemas::plan::{Layout, OnCollision};
use schemas::{BoundRoute, Bounds, Plan, Route};
use stages::connect::{bigquery, postgres, redis};
use stages::extract::postgres::{PostgresServer, PostgresSource, Shape, describe};
use stages::load::redis::duplicate::Duplicate;
use stages::load::redis::{RedisSink, WayChoice};
use stages::transform::copy_binary::Lead;
use stages::transform::redis_command::RedisCommands;
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;

/// How long one attempt to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Types whose order is time or insertion order, so that "newest" means something.
const NEWEST_TYPES: [&str; 6] = ["timestamptz", "timestamp", "date", "int8", "int4", "int2"];

/// Connects to the source of the plan: one connection per lane, one that holds the snapshot, two for control.
pub async fn connect_source(plan: &Plan, lanes: usize) -> Result<Arc<PostgresServer>> {
    let Some(section) = &plan.alloydb else {
        return Err(Error::new(Kind::Config, "the plan has no [alloydb] section"));
    };
    let connections = u32::try_from(lanes + 3).unwrap_or(u32::MAX);
    let server = postgres::connect(&section.url.0, connections, CONNECT_TIMEOUT).await?;
    Ok(Arc::new(PostgresServer::new(server, section.snapshot_max)))
}

/// Connects to the BigQuery of the plan.
pub async fn connect_bigquery(plan: &Plan) -> Result<bigquery::BigQuery> {
    let Some(section) = &plan.bigquery else {
        return Err(Error::new(Kind::Config, "the plan has no [bigquery] section"));
    };
    bigquery::connect(section, CONNECT_TIMEOUT).await
}

/// Connections to the duplicate besides those of its blocks.
const DUPLICATE_CONNECTIONS: usize = 8;

/// Makes the client of the duplicate; nothing is connected yet. Also returns what a person should know.
pub fn make_duplicate(plan: &Plan) -> Result<(Duplicate, Vec<String>)> {
    let mut warnings = Vec::new();
    let url = match (&plan.duplicate, &plan.redis) {
        (Some(section), _) => &section.url,
        (None, Some(url)) => {
            warnings.push(
                "the duplicate lives in the cache of [redis]: whoever empties the cache loses the backup; name an instance of its own in [redis.duplicate]".to_owned(),
            );
            url
        }
        (None, None) => {
            return Err(Error::new(Kind::Config, "the plan names no redis for the duplicate")
                .with_hint("add a url to [redis.duplicate], then: rekindle plan"));
        }
    };
    let endpoint = redis::Endpoint::parse(&url.0, CONNECT_TIMEOUT)?;
    Ok((Duplicate::new(endpoint, DUPLICATE_CONNECTIONS)?, warnings))
}

/// Makes the sink of the plan; nothing is connected yet. `way` matters only where a route writes hashes.
pub fn make_sink(plan: &Plan, way: WayChoice) -> Result<Arc<RedisSink>> {
    let Some(url) = &plan.redis else {
        return Err(Error::new(Kind::Config, "the plan has no [redis] url"));
    };
    let has_hashes = plan.routes.iter().any(|route| route.layout == Layout::Hash);
    let way = has_hashes.then_some(way);
    Ok(Arc::new(RedisSink::new(redis::Endpoint::parse(&url.0, CONNECT_TIMEOUT)?, way)?))
}

/// One route with what is known of its table, for `plan` and `check`.
pub struct Described {
    /// The route bound to its table.
    pub bound: Arc<BoundRoute>,
    /// Its table.
    pub shape: Shape,
}

/// Describes and binds routes; every mistake of every route at once.
pub async fn describe_routes(
    server: &PostgresServer,
    routes: &[Route],
) -> std::result::Result<Vec<Described>, Vec<Error>> {
    let mut described = Vec::new();
    let mut mistakes = Vec::new();
    for route in routes {
        match describe(server, route).await {
            Err(error) if error.kind().is_transient() => return Err(vec![error]),
            Err(error) => mistakes.push(in_route(route, error)),
            Ok(shape) => match bind(route, &shape) {
                Ok(bound) => described.push(Described { bound: Arc::new(bound), shape }),
                Err(found) => mistakes.extend(found),
            },
        }
    }
    if mistakes.is_empty() { Ok(described) } else { Err(mistakes) }
}

/// Binds a route to its table and checks what only both together can tell.
pub fn bind(route: &Route, shape: &Shape) -> std::result::Result<BoundRoute, Vec<Error>> {
    let refused = |message: String| {
        Error::new(Kind::Schema, message).with_hint("mend the plan, then: rekindle plan")
    };
    let schema = shape
        .schema(route)
        .map_err(|mistakes| mistakes.into_iter().map(refused).collect::<Vec<_>>())?;
    let bound = BoundRoute::bind(route, schema).map_err(|mistakes| {
        mistakes.iter().map(|mistake| refused(mistake.to_string())).collect::<Vec<_>>()
    })?;
    let mut mistakes = Vec::new();
    if !bound.key_is_proven_unique && route.on_collision.is_none() {
        mistakes.push(
            Error::new(
                Kind::Config,
                format!(
                    "route {}: nothing proves that key {} is unique: no primary key or unique index lies inside its columns",
                    route.name,
                    route.key.text()
                ),
            )
            .with_hint("say on_collision = \"error\" (checked before the first write) or \"last\" with order_by"),
        );
    }
    if let Some(name) = &route.newest_by {
        let column = shape.columns.iter().find(|column| &column.name == name);
        if let Some(column) = column.filter(|c| !NEWEST_TYPES.contains(&c.pg_type.name.as_str())) {
            mistakes.push(refused(format!(
                "route {}: newest_by column {name} has type {}; it must be a timestamp, a date or an integer",
                route.name, column.type_name
            )));
        }
    }
    if mistakes.is_empty() { Ok(bound) } else { Err(mistakes) }
}

/// Makes the runnable routes of described ones.
pub fn run_routes(
    server: &Arc<PostgresServer>,
    sink: &Arc<RedisSink>,
    described: Vec<Described>,
) -> Vec<RouteRun> {
    let mut routes: Vec<RouteRun> = described
        .into_iter()
        .enumerate()
        .map(|(index, Described { bound, shape })| {
            let source = PostgresSource::new(Arc::clone(server), Arc::clone(&bound), shape);
            let (encoded, sink) = (Arc::clone(&bound), Arc::clone(sink));
            let transform = Box::new(move |bounds: &Bounds, style| {
                let commands =
                    RedisCommands::new(Arc::clone(&encoded), lead_of(bounds), style, sink.way());
                Arc::new(commands) as Arc<dyn stages::transform::Transform>
            });
            RouteRun::new(index, bound, Arc::new(source), transform)
        })
        .collect();
    mark_shared_keys(&mut routes);
    routes
}

/// Whether `on_collision = "error"` still has to be checked, because no index proves it.
pub fn needs_collision_check(bound: &BoundRoute) -> bool {
    !bound.key_is_proven_unique && bound.route.on_collision == Some(OnCollision::Error)
}

fn lead_of(bounds: &Bounds) -> Lead {
    match bounds {
        Bounds::Ctid { .. } | Bounds::ChangedSince { .. } => Lead::Ctid,
        Bounds::Key { .. } => Lead::Key,
        Bounds::KeyNull | Bounds::Whole | Bounds::TablePartition { .. } => Lead::None,
    }
}

fn in_route(route: &Route, error: Error) -> Error {
    let message = format!("route {}: {error}", route.name);
    let hint = error.hint().map(str::to_owned);
    let shaped = Error::new(error.kind(), message).with_source(error);
    match hint {
        Some(hint) => shaped.with_hint(hint),
        None => shaped,
    }
}
