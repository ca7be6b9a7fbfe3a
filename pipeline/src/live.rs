//! A source and a target that are in use: passes that bring a route near its source, and a second look at what the
//! read-back found.
//!
//! Invariant: every pass is a catch-up under a snapshot taken after the pass began, so its lag is never told too small;
//! a key is called different only where a newer look at its row still says so.

mod second_look;

pub use second_look::read_back;

use crate::catch_up::{CaughtUp, catch_up};
use crate::engine::Engine;
use crate::outcome::from_journal;
use crate::route::RouteRun;
use crate::wiring::Sources;
use schemas::duration;
use schemas::plan::OnConflict;
use stages::Error;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Passes after which a route that does not come near enough is left where it is: each takes as long as its source
/// makes it take, and more of them change nothing.
pub const PASSES_MAX: usize = 5;

/// How far behind its source a route was when its last pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// From the snapshot to the end of the pass.
    pub reached: Duration,
    /// What the plan allows.
    pub allowed: Duration,
    /// Passes made.
    pub passes: usize,
}

impl Lag {
    /// Whether it is as near as the plan asks.
    pub fn is_met(&self) -> bool {
        self.reached <= self.allowed
    }

    /// Says that it is not, with the way out.
    pub fn told(&self, route: &str) -> String {
        format!(
            "route {route}: catch_up = \"{}\" was not reached in {} passes; the last one ended {:.1} s behind the source. A \
             pass reads every row that changed and all keys: raise catch_up, or rebuild at a quieter hour",
            duration::format(self.allowed),
            self.passes,
            self.reached.as_secs_f64()
        )
    }
}

/// Whether the values of a route tell which of two is newer.
pub fn compares_versions(route: &RouteRun) -> bool {
    route.bound.route.on_conflict == OnConflict::Newest
}

/// Brings every route to one snapshot, and those with `catch_up` as near to the source as it asks.
///
/// What was done for each route, and the lag of those that follow.
pub async fn follow(
    engine: &Arc<Engine>,
    sources: &Sources,
) -> Result<(BTreeMap<String, CaughtUp>, BTreeMap<String, Lag>), Vec<Error>> {
    let (mut done, mut lags) = (BTreeMap::new(), BTreeMap::new());
    let following: Vec<(&Arc<RouteRun>, Duration)> = engine
        .routes
        .iter()
        .filter_map(|route| Some((route, route.bound.route.catch_up?)))
        .collect();
    for route in engine.routes.iter().filter(|route| route.bound.route.catch_up.is_none()) {
        one_pass(engine, route, &mut done).await?;
    }
    for passes in 1..=PASSES_MAX {
        if following.is_empty() {
            break;
        }
        // All of them under one snapshot: the lag of one is not what the others take.
        let begun = Instant::now();
        sources.release_snapshot().await;
        for (route, allowed) in &following {
            one_pass(engine, route, &mut done).await?;
            let lag = Lag { reached: begun.elapsed(), allowed: *allowed, passes };
            lags.insert(route.name().to_owned(), lag);
        }
        if lags.values().all(Lag::is_met) {
            break;
        }
    }
    Ok((done, lags))
}

async fn one_pass(
    engine: &Arc<Engine>,
    route: &Arc<RouteRun>,
    done: &mut BTreeMap<String, CaughtUp>,
) -> Result<(), Vec<Error>> {
    let records = engine.shared.journal.routes(&engine.shared.run_id).await;
    let records = records.map_err(|error| vec![from_journal(error)])?;
    if let Some(mut record) = records.into_iter().find(|record| record.name == route.name()) {
        done.insert(route.name().to_owned(), catch_up(engine, route, &mut record).await?);
    }
    Ok(())
}
