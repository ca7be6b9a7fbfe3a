//! `rekindle init`: its flags, and what it tells.
//!
//! Invariant: a URL that was given is written as it is, so `${env:…}` keeps a secret out of the file; it is never shown.

use super::args::Shared;
use super::figures::things;
use super::{print, tell_errors};
use crate::init::{Systems, init};
use crate::outcome::Exit;
use clap::Args;

/// Flags of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The source: a URL, or `${env:ALLOYDB_URL}` in single quotes
    #[arg(long, value_name = "URL", required_unless_present = "bigquery_project")]
    pub alloydb: Option<String>,
    /// The target: a URL, or `${env:REDIS_URL}` in single quotes
    #[arg(long, value_name = "URL")]
    pub redis: String,
    /// The project whose BigQuery tables are to be kept in Redis
    #[arg(long, value_name = "PROJECT")]
    pub bigquery_project: Option<String>,
    /// REST endpoint of a stand-in for BigQuery
    #[arg(long, value_name = "URL", requires_all = ["bigquery_project", "bigquery_grpc_endpoint"])]
    pub bigquery_endpoint: Option<String>,
    /// gRPC endpoint of a stand-in for BigQuery
    #[arg(long, value_name = "URL", requires = "bigquery_endpoint")]
    pub bigquery_grpc_endpoint: Option<String>,
}

/// Writes the plan file, and tells what is in it.
pub(super) async fn write(shared: &Shared, flags: &Init) -> Exit {
    let endpoints = flags.bigquery_endpoint.clone().zip(flags.bigquery_grpc_endpoint.clone());
    let systems = Systems {
        alloydb: flags.alloydb.clone(),
        redis: flags.redis.clone(),
        bigquery_project: flags.bigquery_project.clone(),
        bigquery_endpoints: endpoints,
    };
    let lookup = |name: &str| std::env::var(name).ok();
    match Box::pin(init(&shared.plan, &systems, &lookup)).await {
        Ok(written) => print(shared.json, &written, || {
            format!(
                "wrote {}: {}, {} left out with the reason in a comment\nnext: read it, then rekindle check\n",
                written.plan.display(),
                things(written.routes as u64, "route"),
                things(written.commented_out as u64, "table"),
            )
        }),
        Err(error) => tell_errors(&[error], None, shared.json),
    }
}
