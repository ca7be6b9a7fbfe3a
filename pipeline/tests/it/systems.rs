//! All systems of one test at once, and routes wired to them in this process, as the binary wires them.
//!
//! Invariant: sources and sinks are the real ones behind their traits; nothing stands in for a system.

use crate::cloud::Cloud;
use fixtures::servers::{Postgres, PostgresOptions, RedisOptions};
use rekindle::route::RouteRun;
use rekindle::wiring::{self, Sources};
use schemas::Plan;
use serde_json::json;
use stages::load::redis::{RedisSink, WayChoice};
use std::sync::Arc;

/// A PostgreSQL, a BigQuery stand-in and a Redis.
pub(crate) struct Systems {
    pub(crate) postgres: Postgres,
    pub(crate) cloud: Cloud,
}

/// Routes wired to the systems, each with its source, and the sink of all of them.
pub(crate) struct Wired {
    pub(crate) plan: Plan,
    pub(crate) sources: Sources,
    pub(crate) sink: Arc<RedisSink>,
    pub(crate) routes: Vec<RouteRun>,
}

impl Systems {
    /// Starts all of them.
    pub(crate) fn new(redis: RedisOptions) -> Self {
        let postgres = Postgres::start(PostgresOptions::default()).unwrap();
        Self { postgres, cloud: Cloud::new(redis, "") }
    }

    /// Runs SQL as superuser of PostgreSQL.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.postgres.psql(sql).unwrap().trim().to_owned()
    }

    /// Fills a table of BigQuery with rows `id, name, ts`: two days of some megabytes each, and rows without a time.
    pub(crate) fn fill_bigquery(&self) {
        self.cloud.table(crate::cloud::DAY_PARTITIONED);
        self.cloud.stream(1, 1..1_801, 2_500);
        self.cloud.stream(2, 1_801..3_601, 2_500);
        self.cloud.stream(0, 3_601..3_701, 10);
    }

    /// Parses a plan of these routes on these systems.
    pub(crate) fn plan(&self, routes: &str) -> Plan {
        let cloud = &self.cloud;
        let text = format!(
            "[alloydb]\nurl = {}\n[bigquery]\nproject = \"p\"\nlocation = \"us-central1\"\nstaging_dataset = \"staging\"\n\
             endpoint = {}\ngrpc_endpoint = {}\n[redis]\nurl = {}\n{routes}",
            json!(self.postgres.url()),
            json!(cloud.bigquery.rest_url()),
            json!(cloud.bigquery.grpc_url()),
            json!(cloud.redis.url()),
        );
        Plan::parse(&text, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap()
    }

    /// Connects, describes and wires, under a snapshot of its own.
    pub(crate) async fn wire(&self, routes: &str, way: WayChoice, lanes: usize) -> Wired {
        let plan = self.plan(routes);
        let mut sources = wiring::connect_sources(&plan, &plan.routes, lanes).await.unwrap();
        sources.sort_in(self.cloud.folder.path().join("sorted"));
        let sink = wiring::make_sink(&plan, way).unwrap();
        let described = wiring::describe_routes(&sources, &plan.routes).await.unwrap();
        let routes = wiring::run_routes(&sources, &sink, described).unwrap();
        Wired { plan, sources, sink, routes }
    }
}

impl Wired {
    /// The route of this name.
    pub(crate) fn route(&self, name: &str) -> &RouteRun {
        self.routes.iter().find(|route| route.name() == name).unwrap()
    }
}

/// Whether the long variants were asked for.
pub(crate) fn is_soak() -> bool {
    std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1")
}
