//! BigQuery connections: one set of credentials for REST and gRPC, and one client for each.
//!
//! Datasets go through `gcp-bigquery-client`. Tables, policies and jobs are read as raw JSON with the same token,
//! because its models drop fields that a duplicate must not lose; rows go through our own gRPC channel, because its
//! storage client knows neither another host nor offsets.
//!
//! Invariant: no token, key or row value enters an error message.

pub(super) mod credentials;
mod datasets;
mod failure;
mod grpc;
mod grpc_tokens;
mod jobs;
mod rest;
mod tables;

pub use datasets::DatasetFacts;
pub use failure::{from_status, kind_of_status};
pub use grpc::{awaited, is_session_over};
pub use grpc_tokens::TokenChannel;
pub use jobs::{JobStatement, QueryRows};

use crate::error::{Error, Kind, Result};
use credentials::Credentials;
use schemas::plan;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;

/// The messages and clients of the Storage API.
pub use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as storage;

const REST_URL: &str = "https://bigquery.googleapis.com";
const GRPC_URL: &str = "https://bigquerystorage.googleapis.com";

/// A project of BigQuery and how to get in. Cheap to clone.
#[derive(Clone)]
pub struct BigQuery {
    shared: Arc<Shared>,
}

struct Shared {
    project: String,
    location: Option<String>,
    rest_url: String,
    grpc_url: String,
    credentials: Credentials,
    http: reqwest::Client,
    client: gcp_bigquery_client::Client,
    channels: Vec<Channel>,
    next_channel: std::sync::atomic::AtomicUsize,
    max_bytes_billed: Option<u64>,
}

/// One TCP connection has one HTTP/2 flow-control window and one lock in the server: a few share the load.
const CHANNELS: usize = 4;

/// Makes the clients for the `[bigquery]` section and gets a first token.
///
/// Nothing is asked of BigQuery yet: ask for a dataset to learn whether it answers. `timeout` bounds every
/// connection attempt. Fails with `Auth` where no credentials are found.
pub async fn connect(section: &plan::BigQuery, timeout: Duration) -> Result<BigQuery> {
    super::redis::install_crypto();
    let are_named = section.endpoint.is_some() || section.grpc_endpoint.is_some();
    let rest_url = url(section.endpoint.as_deref(), REST_URL, are_named, "endpoint")?;
    let grpc_url = url(section.grpc_endpoint.as_deref(), GRPC_URL, are_named, "grpc_endpoint")?;
    let credentials = if shows_credentials(&rest_url, &grpc_url)? {
        Credentials::application_default(credentials::BIGQUERY).await?
    } else {
        Credentials::none()
    };
    let http = rest::client(timeout)?;
    let client = gcp_bigquery_client::client_builder::ClientBuilder::new()
        .with_v2_base_url(format!("{rest_url}/bigquery/v2"))
        .with_client(http.clone())
        .build_from_authenticator(Arc::new(credentials.clone()))
        .await
        .map_err(|error| failure::from_client(error, "cannot make a client of bigquery"))?;
    let channels = (0..CHANNELS)
        .map(|_| grpc::channel(&grpc_url, timeout))
        .collect::<Result<Vec<Channel>>>()?;
    Ok(BigQuery {
        shared: Arc::new(Shared {
            project: section.project.clone(),
            location: section.location.clone(),
            rest_url,
            grpc_url,
            credentials,
            http,
            client,
            channels,
            next_channel: std::sync::atomic::AtomicUsize::new(0),
            max_bytes_billed: section.max_bytes_billed,
        }),
    })
}

/// Endpoints over TLS are Google's, private ones included, and are shown credentials; a stand-in without TLS never is,
/// because a token in clear text is anybody's. Fails with `Config` where one endpoint is of one kind and one of the other.
fn shows_credentials(rest_url: &str, grpc_url: &str) -> Result<bool> {
    let [rest, grpc] = [rest_url, grpc_url].map(|url| url.starts_with("https://"));
    if rest == grpc {
        return Ok(rest);
    }
    let message = "one endpoint of [bigquery] is https:// and the other is not";
    Err(Error::new(Kind::Config, message).with_hint(
        "name both with https:// (shown credentials), or both with http:// (a stand-in)",
    ))
}

/// Endpoints are named together: one alone would send rows of a test to Google, or the other way round.
fn url(given: Option<&str>, real: &str, are_named: bool, field: &str) -> Result<String> {
    match given {
        Some(url) => Ok(url.trim_end_matches('/').to_owned()),
        None if are_named => Err(Error::new(
            Kind::Config,
            format!("[bigquery] names one endpoint and not \"{field}\""),
        )
        .with_hint("name both endpoints, or none for BigQuery itself")),
        None => Ok(real.to_owned()),
    }
}

impl BigQuery {
    /// Returns the project.
    pub fn project(&self) -> &str {
        &self.shared.project
    }

    /// Returns where jobs run, when the plan says so.
    pub fn location(&self) -> Option<&str> {
        self.shared.location.as_deref()
    }

    /// Returns the address and the project, for messages and the server identity.
    pub fn address(&self) -> String {
        let host = self.shared.rest_url.split_once("://").map_or("", |(_, host)| host);
        format!("{host}/{}", self.shared.project)
    }

    /// Returns how many bytes a query may bill, when the plan says so.
    pub fn max_bytes_billed(&self) -> Option<u64> {
        self.shared.max_bytes_billed
    }

    /// Returns the resource name of a table, as the Storage API writes it.
    pub fn table_path(&self, dataset: &str, table: &str) -> String {
        format!("projects/{}/datasets/{dataset}/tables/{table}", self.shared.project)
    }
}
