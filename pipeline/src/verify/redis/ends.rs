//! Both ends of the routes, connected: sources that read, Redis that is asked.
//!
//! Invariant: routes keep their numbers, so ends that are connected anew can stand in for earlier ones.

use crate::guard::PARTIAL_NOTE;
use crate::route::RouteRun;
use crate::wiring::{self, Sources};
use schemas::{Plan, Route};
use stages::Error;
use stages::connect::redis::Endpoint;
use stages::extract::redis_entries;
use stages::extract::redis_rows::RowReader;
use stages::load::redis::WayChoice;
use stages::load::{Sentinel, Sink};
use stages::policy::Retry;
use stages::{Kind, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Sources, routes and target.
pub(crate) struct Ends {
    sources: Sources,
    pub(crate) routes: Vec<Arc<RouteRun>>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) endpoint: Endpoint,
}

impl Ends {
    /// Connects to everything and binds the routes. Rows that come in no order are sorted in `folder`.
    pub(crate) async fn connect(
        plan: &Plan,
        routes: &[Route],
        lanes: usize,
        folder: &Path,
    ) -> std::result::Result<Self, Vec<Error>> {
        let one = |error: Error| vec![error];
        let refused: Vec<Error> = routes.iter().filter_map(refusal).collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let endpoint = wiring::redis_endpoint(plan).map_err(one)?;
        // Repairs are few and one by one: what every server takes is good enough.
        let sink = wiring::make_sink(plan, WayChoice::Command).map_err(one)?;
        if let Some(refusal) = sink.state().await.map_err(one)?.refusal {
            let message = format!("redis at {} cannot be used: {refusal}", sink.address());
            return Err(one(Error::new(Kind::Config, message).with_hint("rekindle check")));
        }
        crate::documents::require(sink.as_ref(), routes).await.map_err(one)?;
        let mut sources = wiring::connect_sources(plan, routes, lanes).await.map_err(one)?;
        sources.sort_in(folder.to_owned());
        let described = wiring::describe_routes(&sources, routes).await?;
        let routes = wiring::run_routes(&sources, &sink, described).map_err(one)?;
        let routes = routes.into_iter().map(Arc::new).collect();
        Ok(Self { sources, routes, sink, endpoint })
    }

    /// The same, and keeps trying while a system is away.
    pub(crate) async fn connect_patiently(
        plan: &Plan,
        routes: &[Route],
        (lanes, folder): (usize, &Path),
        retry_for: Duration,
        cancel: &CancellationToken,
    ) -> std::result::Result<Self, Vec<Error>> {
        let mut retry = Retry::within(retry_for);
        loop {
            let mut errors = match Self::connect(plan, routes, lanes, folder).await {
                Ok(ends) => return Ok(ends),
                Err(errors) => errors,
            };
            let Some(away) = errors.iter().position(|error| error.kind().is_transient()) else {
                return Err(errors);
            };
            let pause = match retry.pause_after(errors.swap_remove(away)) {
                Ok(pause) => pause,
                Err(last) => {
                    errors.insert(away, last);
                    return Err(errors);
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => {
                    return Err(vec![Error::new(Kind::Cancelled, "the command was asked to stop")]);
                }
            }
        }
    }

    /// Makes a reader of Redis with a connection of its own.
    pub(crate) fn reader(&self) -> RowReader {
        RowReader::new(&self.endpoint)
    }

    /// Lets the next read see the source as it is then.
    pub(crate) async fn release_snapshot(&self) {
        self.sources.release_snapshot().await;
    }

    /// Fails where a run is filling the target; one that loaded a share and rests is in nobody's way.
    pub(crate) async fn refuse_marked(&self) -> Result<()> {
        match self.sink.sentinel("").await? {
            Sentinel::Foreign(note) if note.ends_with(PARTIAL_NOTE) => Ok(()),
            Sentinel::Foreign(note) => Err(marked(self.sink.address(), &note)),
            Sentinel::Ours | Sentinel::Missing => Ok(()),
        }
    }
}

/// The refusal when a run's mark is found.
pub(crate) fn marked(address: &str, note: &str) -> Error {
    let run = note.split_whitespace().next().unwrap_or("RUN_ID");
    Error::new(Kind::Fenced, format!("redis at {address} is being written by another run: {note}"))
        .with_hint(format!(
            "wait for that run, or resume it; if it is dead for good: rekindle verify redis --take-over {run}"
        ))
}

fn refusal(route: &Route) -> Option<Error> {
    let reason = redis_entries::refusal(route.layout)?;
    Some(
        Error::new(Kind::Config, format!("route {}: {reason}", route.name))
            .with_hint("name the other routes with --route"),
    )
}
