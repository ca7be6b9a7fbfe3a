//! Row routes in a backup: their rows are the application's, so nothing is copied. The table is recorded, and the rows
//! on both sides are counted.
//!
//! Invariant: what redis lacks is named in every backup until it is there; a table that is missing, was made anew or has
//! other columns changes nothing unless that was accepted.

mod census;

pub(crate) use census::take;

use super::drift::{refusal, since_the_last};
use super::source::{self, SourceTable};
use super::standing::Standing;
use crate::restore::held_in;
use crate::wiring::CONNECT_TIMEOUT;
use schemas::drift::Drift;
use schemas::manifest::{Census, FORMAT, Keys, Run};
use schemas::plan::{Expiry, Layout, Origin};
use schemas::{Plan, Route};
use stages::connect::bigquery::BigQuery;
use stages::connect::redis::Endpoint;
use stages::extract::redis_rows::{Held, RedisRows};
use stages::failpoint::{Point, pass};
use stages::load::TargetState;
use stages::load::store::Store;
use stages::{Error, Kind, Result};

/// The keys of the documents of a backup route: under its prefix for blocks, beside all rows for row routes.
pub(crate) fn keys_of(route: &Route) -> Keys {
    match route.layout {
        Layout::Blocks => Keys::new(route.key.text()),
        _ => Keys::new(format!("rekindle:rows:{}", route.name)),
    }
}

/// Whether a backup route is carried row by row.
pub(crate) fn is_row_route(route: &Route) -> bool {
    route.uses.backup && route.layout != Layout::Blocks
}

/// The server that the application's rows are in; nothing is connected yet.
pub(crate) fn row_server(plan: &Plan) -> Result<RedisRows> {
    let Some(url) = &plan.redis else {
        return Err(Error::new(Kind::Config, "the plan has no [redis] url, where the rows are")
            .with_hint("say where the application writes them: [redis] url = \"…\""));
    };
    RedisRows::new(Endpoint::parse(&url.0, CONNECT_TIMEOUT)?)
}

/// Whether a server could drop rows of a route to make room.
pub(crate) fn may_drop(state: &TargetState, route: &Route) -> bool {
    // The policies for volatile keys touch keys that expire, and no others.
    state.eviction.starts_with("allkeys")
        || (state.eviction.starts_with("volatile") && route.expiry.is_some())
}

/// Refuses a server that could drop rows; returns what a person should know of one that is taken all the same.
pub(crate) fn fit(
    plan: &Plan,
    address: &str,
    state: &TargetState,
    routes: &[Route],
) -> Result<Option<String>> {
    let dropped: Vec<&str> = routes
        .iter()
        .filter(|route| is_row_route(route) && may_drop(state, route))
        .map(|route| route.name.as_str())
        .collect();
    if dropped.is_empty() {
        return Ok(None);
    }
    let problem = format!(
        "redis at {address} may evict the rows of route {} (maxmemory-policy {})",
        dropped.join(", "),
        state.eviction
    );
    if plan.duplicate.as_ref().is_some_and(|section| section.allow_eviction) {
        return Ok(Some(problem));
    }
    Err(Error::new(Kind::Capacity, problem).with_hint(
        "set maxmemory-policy noeviction on [redis], or say allow_eviction = true in [redis.duplicate]",
    ))
}

/// The table of a row route that was looked at.
pub(crate) struct RowTable {
    pub(crate) route: Route,
    pub(crate) dataset: String,
    pub(crate) name: String,
    pub(crate) keys: Keys,
    pub(crate) held: Held,
    pub(crate) source: Option<SourceTable>,
    /// The last record, replaced by the one of this backup.
    pub(crate) run: Option<Run>,
    /// How it differs from what was recorded.
    pub(crate) drift: Vec<Drift>,
    /// Losses and differences, by name.
    pub(crate) findings: Vec<Error>,
    /// Whether anything may be recorded.
    pub(crate) is_open: bool,
}

impl RowTable {
    /// Looks at the table and at its last record.
    pub(crate) async fn inspect(
        bigquery: &BigQuery,
        duplicate: &dyn Store,
        route: &Route,
        accept_loss: bool,
    ) -> Result<Self> {
        let (Origin::Table { schema: dataset, table: name, .. }, Some(held)) =
            (&route.origin, held_in(route.layout))
        else {
            return Err(Error::new(
                Kind::Config,
                format!("route {}: only rows of a table can be duplicated", route.name),
            ));
        };
        let keys = keys_of(route);
        let source = source::inspect(bigquery, dataset, name).await?;
        let standing = Standing::read(duplicate, &keys, None).await?;
        let drift = since_the_last(duplicate, &keys, route, &standing, source.as_ref()).await?;
        let mut table = Self {
            route: route.clone(),
            dataset: dataset.clone(),
            name: name.clone(),
            keys,
            held,
            source,
            drift,
            findings: standing.errors(&format!("{dataset}.{name}")),
            run: standing.run,
            is_open: true,
        };
        table.decide(accept_loss)?;
        Ok(table)
    }

    /// `dataset.table`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.dataset, self.name)
    }

    fn decide(&mut self, accept_loss: bool) -> Result<()> {
        let name = self.full_name();
        let created = self.source.as_ref().map(|source| source.record.table_created_ms);
        let recorded = self.run.as_ref().map(|run| run.table_created_ms);
        let problem = match (created, recorded) {
            (None, None) => {
                return Err(Error::new(Kind::Config, format!("bigquery has no table {name}"))
                    .with_hint("mend the plan, then: rekindle plan"));
            }
            (None, Some(_)) => "is missing in bigquery",
            (Some(now), Some(before)) if now != before && !accept_loss => {
                "was made anew in bigquery"
            }
            _ => {
                let refusal = refusal(&self.route, &name, &self.drift).filter(|_| !accept_loss);
                self.is_open = refusal.is_none();
                self.findings.extend(refusal);
                return Ok(());
            }
        };
        self.is_open = false;
        // A table that is meant to be gone leaves nothing to record.
        if !accept_loss {
            let message = format!("table {name} {problem}; its record stays as it is");
            self.findings.push(Error::new(Kind::Difference, message).with_hint(format!(
                "if that was meant: rekindle backup bigquery --accept-loss {name}; if not: rekindle restore bigquery"
            )));
        }
        Ok(())
    }

    /// What the counts say, by name.
    fn judge(&mut self, census: &Census) {
        let (name, route) = (self.full_name(), self.route.name.clone());
        let lacking = census.lacking();
        if lacking > 0 {
            let message = format!(
                "the duplicate lacks {lacking} rows: table {name} has {} and redis has {} of route {route}",
                census.rows,
                census.held()
            );
            let hint = if self.route.uses.rebuild {
                format!("rekindle rebuild redis --route {route}")
            } else {
                "see why the application does not write them, then: rekindle backup bigquery"
                    .to_owned()
            };
            self.findings.push(Error::new(Kind::Difference, message).with_hint(hint));
        }
        if let Some(distinct) = census.distinct_keys.filter(|distinct| *distinct != census.rows) {
            let message = format!(
                "route {route} is derived: {} rows of table {name} have {distinct} keys, so it cannot be restored from redis",
                census.rows
            );
            self.findings.push(Error::new(Kind::Difference, message).with_hint(
                "add a column to key that tells the rows apart, or back the table up with type = \"blocks\"",
            ));
        }
    }

    /// Records the table and its census: the last thing of all.
    pub(crate) async fn complete(
        &mut self,
        duplicate: &dyn Store,
        census: Census,
        (run_id, snapshot_us, now_us): (&str, i64, i64),
    ) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let (text, hash) = source.record.to_json();
        let schema_hash = format!("{hash:032x}");
        let before = self.run.as_ref().and_then(|run| run.census.as_ref()?.complete_us);
        let is_whole = census.lacking() == 0;
        self.judge(&census);
        let Some(source) = &self.source else { return Ok(()) };
        duplicate.set(&self.keys.schema(&schema_hash), &text).await?;
        pass(Point::TableRecorded);
        let complete_us = if is_whole { Some(snapshot_us) } else { before };
        let run = Run {
            format: FORMAT,
            run_id: run_id.to_owned(),
            table: self.full_name(),
            table_id: source.record.table_id.clone(),
            table_created_ms: source.record.table_created_ms,
            snapshot_us,
            completed_us: now_us,
            schema_hash,
            watermark: None,
            table_partitions: Vec::new(),
            held: Vec::new(),
            census: Some(Census { complete_us, ..census }),
            check: String::new(),
        };
        duplicate.set(&self.keys.run(), &run.to_json()).await?;
        pass(Point::BackupRecorded);
        self.run = Some(run);
        Ok(())
    }
}

/// The column of an expiry, and how long after its time a key lives, microseconds.
fn expiry(route: &Route) -> Option<(&str, i64)> {
    let added_us = match route.expiry.as_ref()? {
        Expiry::At { .. } => 0,
        Expiry::After { ttl, .. } => i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX),
    };
    Some((route.expiry.as_ref()?.column(), added_us))
}
