//! What a restore would do: what the duplicate holds, how it would be published, what BigQuery itself still has; for
//! `plan`.
//!
//! Invariant: both sides are only read, nothing is looked for by SCAN, and what cannot be asked is called unknown.

use super::choose::{Chosen, Wanted, choose};
use super::duplicate::{Duplicate, damaged, named};
use super::guards;
use super::table::Way;
use super::time_travel::LostTable;
use super::{lacks, target};
use crate::lane::now_ms;
use crate::place::Place;
use crate::plan::{LANE_BASE_BYTES, RUN_BASE_BYTES, mib};
use crate::summarize::{rfc3339, rss_bytes};
use crate::wiring;
use schemas::block::Header;
use schemas::manifest::TableRecord;
use schemas::plan::{Layout, Origin, System};
use schemas::{Plan, Route};
use serde::Serialize;
use stages::connect::bigquery::BigQuery;
use stages::load::bigquery::{IN_FLIGHT_BYTES_MAX, REQUEST_BYTES_MAX};
use stages::{Error, Kind, Result};
use std::fmt::Write as _;

/// Blocks of one lane that are decoded and not yet sent: read ahead, at the door, in hand.
const DECODED_ALIVE: u64 = 4;
/// Copies of a block's rows while it is decoded and encoded: the frame, fitted columns, messages.
const COPIES: u64 = 3;
/// Bytes read of a block; a header is shorter.
const HEAD_BYTES: usize = 16 * 1024;

/// What a restore would do with one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreForecast {
    /// The route.
    pub route: String,
    /// `dataset.table`.
    pub table: String,
    /// `ready`, `refused`, `damaged`, `unknown`, or `absent` where there is no complete backup.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// Up to when everything is in the duplicate, RFC 3339.
    pub data_as_of: Option<String>,
    /// Table partitions that would be restored.
    pub table_partitions: Option<u64>,
    /// Rows in them.
    pub rows: Option<u64>,
    /// Bytes of their blocks in Redis.
    pub stored_bytes: Option<u64>,
    /// Bytes they had in BigQuery, as far as it told.
    pub source_bytes: Option<u64>,
    /// `there`, or `missing or altered`: the table as it was recorded.
    pub recorded_table: Option<&'static str>,
    /// What is in the place of the table now.
    pub destination: Option<String>,
    /// How the rows would be published.
    pub publishing: Option<String>,
    /// Whether BigQuery's own time travel still has the data.
    pub time_travel: Option<String>,
    /// Upper bound of resident memory; from the headers of the largest blocks.
    pub memory_bound_bytes: Option<u64>,
    /// What a person should know, for example what cannot be put back.
    pub notes: Vec<String>,
    /// Bytes of its largest table partition, as far as BigQuery told.
    #[serde(skip)]
    pub(crate) largest_bytes: Option<u64>,
    /// Whether each table partition is published by a job of its own.
    #[serde(skip)]
    pub(crate) is_by_arrival: bool,
}

/// Looks at both sides of the backup routes that are named, or of all.
pub async fn forecast(
    plan: &Plan,
    names: &[String],
    lanes: usize,
    lost_at_ms: Option<i64>,
) -> Vec<RestoreForecast> {
    let is_chosen = |route: &&Route| {
        let is_named = names.is_empty() || names.contains(&route.name);
        route.uses.backup && route.layout == Layout::Blocks && is_named
    };
    let mut routes: Vec<&Route> = plan.routes.iter().filter(is_chosen).collect();
    if routes.is_empty() {
        return Vec::new();
    }
    routes.sort_by_key(|route| route.priority);
    let bigquery = wiring::connect_backup_source(plan).await;
    let mut forecasts = Vec::with_capacity(routes.len());
    for route in routes {
        let Origin::Table { schema, table, system: System::BigQuery } = &route.origin else {
            continue;
        };
        let look = Look { plan, route, dataset: schema, table, lanes, lost_at_ms };
        let mut found = look.nothing_yet();
        if let Err(error) = look.duplicate(&mut found).await {
            found.fail(&error);
        }
        if plan.bigquery.as_ref().is_none_or(|section| section.staging_dataset.is_none()) {
            found.fail(&lacks("staging_dataset in [bigquery]"));
        }
        let asked = match &bigquery {
            Ok(bigquery) => {
                look.bigquery(bigquery, &mut found.forecast, found.recorded.as_ref()).await
            }
            Err(error) => Err(Error::new(error.kind(), error.to_string())),
        };
        if let Err(error) = asked {
            found.fail(&error);
        }
        forecasts.push(found.forecast);
    }
    forecasts
}

/// A forecast on its way.
struct Found {
    forecast: RestoreForecast,
    recorded: Option<TableRecord>,
}

impl Found {
    /// Notes an error; the first one names the state, later ones are told.
    fn fail(&mut self, error: &Error) {
        let state = match error.kind() {
            Kind::Difference => "damaged",
            kind if kind.is_transient() => "unknown",
            _ => "refused",
        };
        let cause = std::error::Error::source(error);
        let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        let text = error.hint().map_or_else(|| text.clone(), |hint| format!("{text} ({hint})"));
        if self.forecast.reason.is_some() {
            self.forecast.notes.push(text);
        } else {
            (self.forecast.state, self.forecast.reason) = (state, Some(text));
        }
    }
}

/// What looking at one table needs.
struct Look<'a> {
    plan: &'a Plan,
    route: &'a Route,
    dataset: &'a str,
    table: &'a str,
    lanes: usize,
    lost_at_ms: Option<i64>,
}

impl Look<'_> {
    fn name(&self) -> String {
        format!("{}.{}", self.dataset, self.table)
    }

    fn nothing_yet(&self) -> Found {
        let forecast = RestoreForecast {
            route: self.route.name.clone(),
            table: self.name(),
            state: "ready",
            reason: None,
            data_as_of: None,
            table_partitions: None,
            rows: None,
            stored_bytes: None,
            source_bytes: None,
            recorded_table: None,
            destination: None,
            publishing: None,
            time_travel: None,
            memory_bound_bytes: None,
            notes: Vec::new(),
            largest_bytes: None,
            is_by_arrival: false,
        };
        Found { forecast, recorded: None }
    }

    /// Looks at the duplicate: the record of the last backup, manifests, recorded table, blocks.
    async fn duplicate(&self, found: &mut Found) -> Result<()> {
        let duplicate = Duplicate::new(self.plan, Place::Redis, self.route.key.text(), self.lanes)?;
        let key = duplicate.keys.run();
        if duplicate.values.get(&key).await?.is_none() {
            found.forecast.state = "absent";
            found.forecast.reason =
                Some(format!("there is no record of a complete backup (key {key})"));
            return Ok(());
        }
        let run = duplicate.run().await?;
        found.forecast.data_as_of = Some(rfc3339(run.data_as_of_us() / 1000));
        match duplicate.table(&run.schema_hash).await {
            Ok(recorded) => {
                found.forecast.recorded_table = Some("there");
                found.recorded = Some(recorded);
            }
            Err(error) if error.kind() == Kind::Difference => {
                found.forecast.recorded_table = Some("missing or altered");
                found.fail(&error);
            }
            Err(error) => return Err(error),
        }
        let manifests = duplicate.manifests(&run).await?;
        let wanted = Wanted {
            keep_versions: self.route.backup.keep_versions,
            now_us: now_ms() * 1000,
            ..Wanted::default()
        };
        let chosen = choose(&run, &manifests, &wanted)?;
        let versions = || chosen.taken.iter().map(|taken| &taken.version);
        let forecast = &mut found.forecast;
        forecast.table_partitions = Some(chosen.taken.len() as u64);
        forecast.rows = Some(versions().map(|version| version.rows).sum());
        forecast.stored_bytes = Some(versions().map(|version| version.stored_bytes).sum());
        let source_bytes: u64 = versions().map(|version| version.source_bytes).sum();
        // A source that did not tell the size of rows is not one without bytes.
        let is_told = source_bytes > 0 || forecast.rows == Some(0);
        forecast.source_bytes = is_told.then_some(source_bytes);
        let largest = versions().map(|version| version.source_bytes).max();
        forecast.largest_bytes = largest.filter(|_| is_told);
        forecast.is_by_arrival =
            found.recorded.as_ref().is_some_and(|of| target::is_by_arrival(&of.resource));
        if !chosen.expired.is_empty() {
            forecast.notes.push(format!(
                "table partitions {} are past their expiry and would not be restored",
                named(&chosen.expired)
            ));
        }
        let mut missing = Vec::new();
        for taken in &chosen.taken {
            missing.extend(duplicate.missing_blocks(&taken.table_partition, &taken.version).await?);
        }
        forecast.memory_bound_bytes = Some(self.memory(&duplicate, &chosen).await?);
        if missing.is_empty() { Ok(()) } else { Err(damaged(named(&missing))) }
    }

    /// Bounds resident memory by what the lanes hold of the largest blocks, by bytes and by rows.
    async fn memory(&self, duplicate: &Duplicate, chosen: &Chosen) -> Result<u64> {
        let blocks = || {
            chosen.taken.iter().flat_map(|taken| {
                (0..)
                    .zip(&taken.version.blocks)
                    .map(move |(ordinal, entry)| (taken, ordinal, entry))
            })
        };
        let largest = blocks().max_by_key(|(_, _, entry)| entry.bytes());
        let longest = blocks().max_by_key(|(_, _, entry)| entry.rows());
        let mut raw = 0;
        for (taken, ordinal, entry) in largest.into_iter().chain(longest) {
            let generation = taken.version.generation;
            let key = duplicate.keys.block(&taken.table_partition, generation, ordinal);
            let head = duplicate.redis()?.head(&key, HEAD_BYTES).await?;
            // A block that is missing or altered is named elsewhere.
            let told = Header::parse(&head).map_or(0, |(header, _)| header.raw_bytes);
            raw = raw.max(told).max(entry.bytes());
        }
        let sent = (IN_FLIGHT_BYTES_MAX + REQUEST_BYTES_MAX) as u64;
        let lane = LANE_BASE_BYTES + sent + DECODED_ALIVE * COPIES * raw;
        Ok(rss_bytes() + RUN_BASE_BYTES + self.lanes as u64 * lane)
    }

    /// Looks at what is in the place of the table, and says how it would be published.
    async fn bigquery(
        &self,
        bigquery: &BigQuery,
        forecast: &mut RestoreForecast,
        recorded: Option<&TableRecord>,
    ) -> Result<()> {
        let name = self.name();
        let existing = bigquery.table(self.dataset, self.table).await?;
        let rows = existing.as_ref().map_or(0, target::rows);
        forecast.destination = Some(match &existing {
            None => "no such table".to_owned(),
            Some(_) => format!("a table with {rows} rows"),
        });
        let lost = LostTable {
            bigquery,
            dataset: self.dataset,
            table: self.table,
            is_there: existing.is_some(),
            lost_at_ms: self.lost_at_ms,
        };
        forecast.time_travel = Some(lost.time_travel().await);
        let Some(recorded) = recorded else { return Ok(()) };
        target::refuse_kind(recorded)?;
        forecast.publishing = Some(self.publishing(existing.is_some(), rows, recorded));
        let not_put_back = target::not_put_back(recorded, now_ms());
        forecast
            .notes
            .extend(not_put_back.into_iter().map(|what| format!("not put back on {name}: {what}")));
        let (present, unknown) = match existing {
            Some(_) => guards::present_policies(bigquery, self.dataset, self.table).await?,
            None => (Vec::new(), None),
        };
        forecast.notes.extend(unknown);
        let known = guards::policies(recorded.row_access_policies.as_ref());
        let lost = guards::lost_policies(&known, &present, Way::Whole);
        let accepted = [name.clone()];
        forecast.notes.extend(guards::name_policies(&name, &lost, &accepted)?);
        guards::name_policies(&name, &lost, &[])?;
        if rows == 0 {
            return Ok(());
        }
        Err(Error::new(Kind::Config, format!("table {name} has {rows} rows"))
            .with_hint("add what it lacks with --fill, or give up what it holds with --replace"))
    }

    /// How rows would get into the destination, flags included where it has rows.
    fn publishing(&self, is_there: bool, rows: u64, recorded: &TableRecord) -> String {
        let by_arrival = target::is_by_arrival(&recorded.resource);
        if by_arrival && rows == 0 {
            return "one copy job for each table partition".to_owned();
        }
        if by_arrival {
            return "with --fill: one copy job for each table partition without rows; with --partitions and --replace: one for each of those".to_owned();
        }
        if !is_there {
            return "one copy job into a table made as it was recorded".to_owned();
        }
        if rows == 0 {
            return "one copy job into the empty table".to_owned();
        }
        let fill = match &self.route.backup.row_key {
            Some(key) => format!("one MERGE of the rows whose {key} is absent"),
            None if target::is_partitioned(&recorded.resource) => {
                "one copy job for each table partition without rows".to_owned()
            }
            None => "refused without a row_key in the plan".to_owned(),
        };
        format!("with --fill: {fill}; with --replace: one copy job over it")
    }
}

impl RestoreForecast {
    /// Renders it for people.
    pub fn render(&self) -> String {
        let number = |value: Option<u64>| value.map_or("unknown".to_owned(), |n| n.to_string());
        let size = |value: Option<u64>| value.map_or("unknown".to_owned(), mib);
        let mut text = format!(
            "restore of {}: {} table partitions, {} rows as of {}; {} in redis, {} in bigquery\n",
            self.table,
            number(self.table_partitions),
            number(self.rows),
            self.data_as_of.as_deref().unwrap_or("unknown"),
            size(self.stored_bytes),
            size(self.source_bytes),
        );
        let mut line = |label: &str, value: &str| {
            writeln!(text, "  {label:<12} {value}").expect("writing to a string cannot fail");
        };
        let reason = self.reason.as_deref().map(|reason| format!(": {reason}"));
        line("state", &format!("{}{}", self.state, reason.unwrap_or_default()));
        line("recorded", self.recorded_table.unwrap_or("unknown"));
        line("destination", self.destination.as_deref().unwrap_or("unknown"));
        line("publishing", self.publishing.as_deref().unwrap_or("unknown"));
        line("memory bound", &size(self.memory_bound_bytes));
        line("time travel", self.time_travel.as_deref().unwrap_or("unknown"));
        for note in &self.notes {
            writeln!(text, "  note: {note}").expect("writing to a string cannot fail");
        }
        text
    }
}
