//! The two ends of a copy: BigQuery, and the Redis or the archive that holds it.
//!
//! Invariant: nothing of a rebuild is shared with it, neither a pinned time nor a mark on the target.

use super::CONNECT_TIMEOUT;
use crate::place::Place;
use schemas::Plan;
use stages::connect::{bigquery, redis};
use stages::extract::redis_values::RedisValues;
use stages::load::archive::Archive;
use stages::load::redis::duplicate::Duplicate;
use stages::load::store::Store;
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

/// Makes what reads the duplicate, of so many connections; nothing is connected yet.
pub fn make_values(plan: &Plan, connections: usize) -> Result<RedisValues> {
    let own = plan.duplicate.as_ref().map(|section| &section.url);
    let Some(url) = own.or(plan.redis.as_ref()) else {
        return Err(Error::new(Kind::Config, "the plan has neither [redis.duplicate] nor [redis]")
            .with_hint("say where the duplicate is: [redis.duplicate] url = \"…\""));
    };
    let endpoint = redis::Endpoint::parse(&url.0, CONNECT_TIMEOUT)?;
    Ok(RedisValues::new(&endpoint, connections)?.sealed_with(Arc::new(plan.seals())))
}

/// Opens the archive of the plan.
pub fn open_archive(plan: &Plan) -> Result<Archive> {
    let Some(section) = &plan.archive else {
        return Err(Error::new(Kind::Config, "the plan has no [archive] section").with_hint(
            "say where the archive is: [archive] url = \"gs://BUCKET/PREFIX\" or \"file:///FOLDER\"",
        ));
    };
    Archive::open(section)
}

/// Makes the client of the place that a copy is kept in. Also returns what a person should know.
pub fn make_store(plan: &Plan, place: Place) -> Result<(Arc<dyn Store>, Vec<String>)> {
    match place {
        Place::Redis => {
            let (duplicate, warnings) = make_duplicate(plan)?;
            Ok((Arc::new(duplicate), warnings))
        }
        Place::Archive => Ok((Arc::new(open_archive(plan)?), Vec::new())),
    }
}
