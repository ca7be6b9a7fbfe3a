//! `rekindle verify redis`: what the rows of the routes should have left in Redis, beside what it holds.
//!
//! Invariant: a key is called different only after both ends said the same thing twice.

use super::{Ended, Options};
use crate::rebuild::Watcher;
use schemas::Plan;
use stages::{Error, Kind};
use std::sync::Arc;
use std::time::Duration;

/// What only a verification of Redis knows.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// What every verification knows.
    pub verify: Options,
    /// How long an application may take between its write to the source and its write to Redis.
    pub settle: Duration,
    /// What is done about differences.
    pub repair: Repair,
    /// Keys, or prefixes that end in `*`, whose unexplained keys a repair removes.
    pub remove_unexplained: Vec<String>,
    /// Remove the mark of this dead run first.
    pub take_over: Option<String>,
}

/// What is done about differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    No,
    /// They are told and kept for a repair.
    DryRun,
    /// What the last dry run found is written again.
    Yes,
}

/// Verifies Redis.
pub async fn verify_redis(
    _plan: &Plan,
    _options: RedisOptions,
    _watcher: Arc<dyn Watcher>,
) -> Ended {
    Ended::failed(vec![Error::new(Kind::Config, "`rekindle verify redis` is not built yet")])
}
