//! The two ends of the duplicate: BigQuery, and the Redis that holds it.
//!
//! Invariant: nothing of a rebuild is shared with it, neither a pinned time nor a mark on the target.

use super::CONNECT_TIMEOUT;
use schemas::Plan;
use stages::connect::{bigquery, redis};
use stages::load::redis::duplicate::Duplicate;
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// Connects to the BigQuery of the plan.
pub async fn connect_backup_source(plan: &Plan) -> Result<bigquery::BigQuery> {
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
    let duplicate = Duplicate::new(endpoint, DUPLICATE_CONNECTIONS)?;
    Ok((duplicate.sealed_with(Arc::new(plan.seals())), warnings))
}
