//! `rekindle verify bigquery`: what the duplicate holds, beside the tables of BigQuery.
//!
//! Invariant: it only reads.

use super::{Ended, Options};
use crate::rebuild::Watcher;
use schemas::Plan;
use stages::{Error, Kind};
use std::sync::Arc;

/// Verifies BigQuery against its duplicate.
pub async fn verify_bigquery(_plan: &Plan, _options: Options, _watcher: Arc<dyn Watcher>) -> Ended {
    Ended::failed(vec![Error::new(Kind::Config, "`rekindle verify bigquery` is not built yet")])
}
