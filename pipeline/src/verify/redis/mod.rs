//! `rekindle verify redis`: what the rows of the routes should have left in Redis, beside what it holds.
//!
//! Invariant: a key is called different only after both ends said the same thing twice; nothing is written but by a
//! repair, and by that only what a dry run has shown.

pub(crate) mod again;
mod candidate;
mod conclude;
pub(crate) mod ends;
mod fields;
mod findings;
pub(crate) mod judge;
mod last;
mod many;
pub(crate) mod page;
mod pass;
mod repair;
mod report;
pub(crate) mod rows;
mod run;
mod sample;
mod scan;
mod shown;
mod streams;
mod tell;

pub use findings::Finding;
pub use judge::Difference;
pub use repair::Repaired;
pub use report::{Counted, Example, Report, RouteReport};

use super::{Ended, Options};
use crate::drift;
use crate::journal::StateLock;
use crate::ledger::make_folder;
use crate::outcome::from_journal;
use crate::rebuild::{Watcher, selected_routes};
use ends::Ends;
use run::Run;
use schemas::{Plan, Route};
use shown::Asked;
use stages::{Error, Kind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Verifies Redis. Never panics on bad input; every failure is in `Ended`.
pub async fn verify_redis(plan: &Plan, options: RedisOptions, watcher: Arc<dyn Watcher>) -> Ended {
    let began = Instant::now();
    match Box::pin(prepared(plan, &options)).await {
        Ok(run) => {
            let ended = Box::pin(run.work(&*watcher, began)).await;
            watcher.end();
            ended
        }
        Err(errors) => Ended::failed(errors),
    }
}

/// The folder of verifications in a state folder.
fn folder_of(state: &Path) -> PathBuf {
    state.join("verify")
}

/// The folder of what a verification forgets when it ends.
fn scratch_of(state: &Path) -> PathBuf {
    folder_of(state).join("scratch")
}

async fn prepared(plan: &Plan, options: &RedisOptions) -> Result<Run, Vec<Error>> {
    let one = |error: Error| vec![error];
    let chosen = selected_routes(plan, &options.verify.routes)?;
    let unrepairable: Vec<Error> = chosen.iter().filter_map(unrepairable).collect();
    if options.repair != Repair::No && !unrepairable.is_empty() {
        return Err(unrepairable);
    }
    let names: Vec<String> = chosen.iter().map(|route| route.name.clone()).collect();
    let endpoint = crate::wiring::redis_endpoint(plan).map_err(one)?;
    let asked = Asked::of(plan, &names, &endpoint.address, options);
    let folder = folder_of(&options.verify.state);
    if options.repair == Repair::Yes {
        shown::check(&folder, &asked, options).map_err(one)?;
    }
    make_folder(&folder).map_err(one)?;
    let lock = StateLock::take(&folder.join("lock")).map_err(|error| one(from_journal(error)))?;
    let verify = &options.verify;
    let retry_for = verify.retry_for;
    let scratch = scratch_of(&verify.state);
    let with = (verify.lanes, scratch.as_path());
    let connecting = Ends::connect_patiently(plan, &chosen, with, retry_for, &verify.cancel);
    let ends = match connecting.await {
        Ok(ends) => ends,
        Err(errors) => {
            return Err(drift::explained_by(&verify.state, plan, &chosen, errors).await);
        }
    };
    if let Some(run_id) = &options.take_over {
        ends.sink.release(run_id).await.map_err(one)?;
    }
    ends.refuse_marked().await.map_err(one)?;
    Run::new(plan, options, chosen, asked, ends, lock).map_err(one)
}

/// A stream is replaced whole, which a rebuild does.
fn unrepairable(route: &Route) -> Option<Error> {
    if !route.is_rebuilt_stream() {
        return None;
    }
    let message = format!("route {}: --repair does not write streams", route.name);
    let hint = format!(
        "name the other routes with --route; rekindle rebuild redis --route {}",
        route.name
    );
    Some(Error::new(Kind::Config, message).with_hint(hint))
}
