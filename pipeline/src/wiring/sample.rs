//! A few rows of one route, read as cheaply as its system allows, and what they become.
//!
//! Invariant: nothing is left behind in a source: the table that a sampled query of BigQuery is written to is removed.

use super::{Described, On, Sources, describe_routes};
use schemas::plan::{OnCollision, Origin};
use schemas::{BoundRoute, Bounds, Partition, PartitionId, Position, Route};
use stages::extract::Source;
use stages::extract::postgres::Shape;
use stages::transform::copy_binary::{Decoded, Lead};
use stages::transform::many_rows::ManyRows;
use stages::transform::redis_command::{RedisCommands, Way};
use stages::transform::stream_rows::StreamRows;
use stages::transform::{Attempt, Decoder, Style, Transform};
use stages::{Encoded, Error, Kind, RawBatch, Result};
use std::sync::Arc;

/// Partitions of a table that are read at most, where the first of them have too few rows.
const PARTITIONS_MAX: usize = 16;
/// Into how many a table is cut, so that each is as small as it can be.
const CUT: usize = 1_000_000;

/// Reads some rows of one route.
pub struct Sampler {
    bound: Arc<BoundRoute>,
    source: Arc<dyn Source>,
    decoder: Decoder,
    /// `None` where the source is asked how it would be cut.
    partition: Option<Partition>,
    is_query_of_bigquery: bool,
}

/// Makes the sampler of a described route, for up to `rows` rows.
pub async fn sampler(
    sources: &Sources,
    described: &Described,
    rows: usize,
) -> std::result::Result<Sampler, Vec<Error>> {
    let one = |error: Error| vec![error];
    match described {
        Described::Postgres(On { bound, shape }) => {
            // As a query with a limit, which the server stops at.
            let (limited, shape) = limited(bound, shape, rows);
            let source = sources.postgres_source(limited, shape).map_err(one)?;
            Ok(Sampler {
                bound: Arc::clone(bound),
                source,
                decoder: Decoder::CopyBinary(Lead::None),
                partition: Some(whole(&bound.route)),
                is_query_of_bigquery: false,
            })
        }
        Described::Archived(On { bound, shape }) => {
            let source = sources.archived_source(Arc::clone(bound), shape.clone()).map_err(one)?;
            Ok(of_bigquery(bound, source, false))
        }
        Described::BigQuery(On { bound, shape }) => {
            let Origin::Query { system, sql } = &bound.route.origin else {
                let shape = shape.clone();
                let source = sources.bigquery_source(Arc::clone(bound), shape).map_err(one)?;
                return Ok(of_bigquery(bound, source, false));
            };
            let sql = format!("SELECT * FROM ({sql}\n) LIMIT {rows}");
            let origin = Origin::Query { system: *system, sql };
            let route = Route { origin, ..bound.route.clone() };
            let mut described = describe_routes(sources, std::slice::from_ref(&route)).await?;
            let Some(Described::BigQuery(On { bound, shape })) = described.pop() else {
                let message = format!("route {} is no query of bigquery any more", route.name);
                return Err(vec![Error::new(Kind::Internal, message)]);
            };
            let source = sources.bigquery_source(Arc::clone(&bound), shape).map_err(one)?;
            Ok(of_bigquery(&bound, source, true))
        }
    }
}

fn of_bigquery(bound: &Arc<BoundRoute>, source: Arc<dyn Source>, is_query: bool) -> Sampler {
    Sampler {
        bound: Arc::clone(bound),
        source,
        decoder: Decoder::ArrowIpc,
        partition: None,
        is_query_of_bigquery: is_query,
    }
}

/// The route as one query that ends after some rows; no order, no cut, whatever the route asks for.
fn limited(bound: &BoundRoute, shape: &Shape, rows: usize) -> (Arc<BoundRoute>, Shape) {
    let route = &bound.route;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let from = match &route.origin {
        Origin::Table { schema, table, .. } => format!("{}.{}", quoted(schema), quoted(table)),
        Origin::Query { sql, .. } => format!("({sql}\n) as q"),
    };
    let filter = route.filter.as_ref().map(|filter| format!(" where ({filter}\n)"));
    let sql = format!("select * from {from}{} limit {rows}", filter.unwrap_or_default());
    let route = Route {
        origin: Origin::Query { system: route.origin.system(), sql },
        filter: None,
        split_by: None,
        newest_by: None,
        on_collision: Some(OnCollision::Error),
        ..route.clone()
    };
    let limited = BoundRoute { route, ..bound.clone() };
    (Arc::new(limited), Shape { relations: Vec::new(), ..shape.clone() })
}

fn whole(route: &Route) -> Partition {
    Partition {
        id: PartitionId(format!("{}/sample", route.name)),
        route: route.name.clone(),
        bounds: Bounds::Whole,
        rows_estimate: 0,
        bytes_estimate: 0,
        newest_us: None,
    }
}

impl Sampler {
    /// The route bound to its table.
    pub fn bound(&self) -> &BoundRoute {
        &self.bound
    }

    /// Reads up to `rows` rows, each as a raw batch of its own. `name` names what has to be written for it.
    pub async fn rows(&self, sources: &Sources, rows: usize, name: &str) -> Result<Vec<RawBatch>> {
        self.source.prepare(name).await?;
        let found = self.read(rows).await;
        if self.is_query_of_bigquery {
            let server = sources.bigquery()?;
            let dataset = server.staging_dataset().unwrap_or_default();
            server.bigquery().delete_table(dataset, &self.source.relations()).await?;
        }
        found
    }

    async fn read(&self, rows: usize) -> Result<Vec<RawBatch>> {
        let mut partitions = match &self.partition {
            Some(partition) => vec![partition.clone()],
            None => self.source.partitions(CUT, 0).await?,
        };
        // The smallest of those that hold enough.
        let wanted = rows as u64;
        partitions.sort_by_key(|partition| {
            (
                partition.rows_estimate < wanted,
                partition.rows_estimate == 0,
                partition.bytes_estimate,
            )
        });
        let mut found = Vec::new();
        for partition in partitions.iter().take(PARTITIONS_MAX) {
            let session = self.source.open().await?;
            let wanted = rows - found.len();
            let mut batches = session.sample(partition, &Position::Start, wanted);
            while found.len() < rows
                && let Some(batch) = batches.next().await
            {
                let room = rows - found.len();
                found.extend(self.decoder.single_rows(&batch?, &self.bound.schema, room)?);
            }
            // Dropped with its stream, which ends the read early.
            if found.len() >= rows {
                break;
            }
        }
        Ok(found)
    }

    /// Decodes one of the rows.
    pub fn decode(&self, raw: &RawBatch) -> Result<Decoded> {
        self.decoder.decode(raw, &self.bound.schema)
    }

    /// Encodes one of the rows; hashes go by `HSET`, which can be read.
    ///
    /// A row of a key that many rows make is shown as if it were the only one, an entry as if it were the first.
    pub fn encode(&self, raw: RawBatch, style: Style, now_ms: i64) -> Result<Encoded> {
        let bound = Arc::clone(&self.bound);
        if bound.is_stream() {
            return StreamRows::new(bound, self.decoder).shown(&raw);
        }
        if bound.is_many() {
            let rows = ManyRows::new(bound, self.decoder, style);
            let encoded = rows.apply(raw, now_ms)?;
            let attempt = Attempt { name: "sample", number: 0 };
            let stitched = match (encoded.open, rows.stitcher(&attempt)) {
                (Some(open), Some(mut stitcher)) => stitcher.take(open)?.pop(),
                _ => None,
            };
            return Ok(stitched.unwrap_or_else(Encoded::empty));
        }
        RedisCommands::new(bound, self.decoder, style, Way::Command).apply(raw, now_ms)
    }
}
