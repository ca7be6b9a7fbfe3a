//! How rows may get into the destination, and what has to be said before they do.
//!
//! Invariant: a table that holds rows is changed only as a flag says by name.

use super::choose::{Chosen, Taken, UNPARTITIONED};
use super::duplicate::named;
use super::open::Opening;
use super::table::Way;
use super::time_travel::LostTable;
use super::{Shared, rows, scan, target};
use crate::backup::drift::loses;
use crate::backup::rows::is_row_route;
use crate::lane::now_ms;
use schemas::drift::{Drift, What, compare};
use schemas::manifest::TableRecord;
use serde_json::Value;
use stages::connect::bigquery::JobStatement;
use stages::extract::bigquery::resource_shape;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;

/// How the rows to restore are spread; rows of an application are not, whatever their table is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    /// Every row belongs to a table partition that is chosen or left out as a whole.
    is_partitioned: bool,
    /// That table partition is the one of the row's arrival.
    by_arrival: bool,
}

impl Shape {
    /// The shape of a duplicate in blocks.
    pub(super) fn of(recorded: &TableRecord) -> Self {
        Self {
            is_partitioned: target::is_partitioned(&recorded.resource),
            by_arrival: target::is_by_arrival(&recorded.resource),
        }
    }
}

impl Opening<'_> {
    /// How the rows get into the destination, or why they must not.
    pub(super) async fn way(
        &self,
        existing: Option<&Value>,
        location: &str,
        shape: Shape,
        chosen: &mut Chosen,
    ) -> Result<(Way, bool)> {
        let asked = &self.options.asked;
        let name = self.name();
        if let Some(kind) =
            existing.and_then(|table| table["type"].as_str()).filter(|kind| *kind != "TABLE")
        {
            return Err(Error::new(Kind::Config, format!("{name} is a {kind} now, not a table"))
                .with_hint("rename or drop it, then run the same command again"));
        }
        let rows = existing.map_or(0, target::rows);
        let Shape { is_partitioned, by_arrival } = shape;
        if by_arrival && rows > 0 {
            // They arrive without a table partition of their own, so nothing tells whether they are there already.
            chosen.leave_out_unpartitioned();
        }
        let refuse = |what: String| {
            Err(Error::new(Kind::Config, what).with_hint(
                "add what it lacks with --fill, or give up what it holds with --replace",
            ))
        };
        if asked.fill {
            // Rows that a statement inserts arrive today.
            if self.route.backup.row_key.is_some() && !by_arrival {
                return Ok((Way::Rows, false));
            }
            if is_partitioned {
                self.keep_absent(location, chosen).await?;
                return Ok((Way::Partitions, false));
            }
            if rows > 0 {
                return Err(Error::new(
                    Kind::Config,
                    format!("table {name} has {rows} rows and no table partitions: without a row_key its rows cannot be told from lost ones"),
                )
                .with_hint("name a row_key in the route, or give up what the table holds with --replace"));
            }
            return Ok((Way::Whole, false));
        }
        if asked.partitions.is_some() {
            let held = partition_rows(self.shared, self.dataset, self.table, location).await?;
            let full =
                |taken: &&Taken| held.get(&taken.table_partition).is_some_and(|rows| *rows > 0);
            let full: Vec<String> =
                chosen.taken.iter().filter(full).map(|t| t.table_partition.clone()).collect();
            if !full.is_empty() && !asked.replace {
                return refuse(format!("table partitions {} of {name} have rows", named(&full)));
            }
            return Ok((Way::Partitions, asked.replace));
        }
        if rows > 0 && !asked.replace {
            return refuse(format!("table {name} has {rows} rows"));
        }
        if by_arrival && rows > 0 {
            return Err(Error::new(
                Kind::Config,
                format!("table {name} has {rows} rows and is partitioned by the time its rows arrive: no single job can replace it"),
            )
            .with_hint("name what is to be replaced: --partitions FROM..TO --replace; or drop the table first"));
        }
        if by_arrival {
            return Ok((Way::Partitions, false));
        }
        Ok((Way::Whole, asked.replace && existing.is_some()))
    }

    /// Leaves out the table partitions that have rows.
    async fn keep_absent(&self, location: &str, chosen: &mut Chosen) -> Result<()> {
        let held = partition_rows(self.shared, self.dataset, self.table, location).await?;
        chosen.taken.retain(|taken| held.get(&taken.table_partition).is_none_or(|rows| *rows == 0));
        Ok(())
    }

    /// What a person should know before anything is published.
    pub(super) async fn warnings(
        &self,
        existing: Option<&Value>,
        chosen: &Chosen,
        recorded: &TableRecord,
        way: Way,
    ) -> Vec<String> {
        let name = self.name();
        let lost = LostTable {
            bigquery: &self.shared.bigquery,
            dataset: self.dataset,
            table: self.table,
            is_there: existing.is_some(),
            lost_at_ms: self.shared.lost_at_ms,
        };
        // Where the table is not lost but restored beside itself, nothing is to be undeleted.
        let mut lines = match self.options.asked.into {
            None => vec![lost.time_travel().await],
            Some(_) => Vec::new(),
        };
        if existing.is_none() || way == Way::Whole {
            let named = target::not_put_back(recorded, now_ms());
            lines.extend(named.into_iter().map(|what| format!("not put back on {name}: {what}")));
        }
        if !chosen.expired.is_empty() {
            lines.push(format!(
                "table partitions {} of {name} are past their expiry and are not restored",
                named(&chosen.expired)
            ));
        }
        if !chosen.later.is_empty() {
            lines.push(format!(
                "table partitions {} of {name} did not exist at that time",
                named(&chosen.later)
            ));
        }
        // In a table partitioned by ranges, rows outside of all of them have that name.
        let by_arrival = target::is_by_arrival(&recorded.resource);
        let is_unpartitioned = |taken: &&Taken| {
            by_arrival && taken.table_partition == UNPARTITIONED && taken.version.rows > 0
        };
        if let Some(taken) = chosen.taken.iter().find(is_unpartitioned) {
            lines.push(format!(
                "{} rows of {name} were in the streaming buffer at backup and had no table partition yet: they come into that of the day of the restore",
                taken.version.rows
            ));
        }
        if chosen.left_unpartitioned {
            lines.push(format!(
                "rows of {name} that were in the streaming buffer at backup are not restored, because the table has rows: whether they are among them cannot be told"
            ));
        }
        if way == Way::Partitions {
            lines.push(format!(
                "table partitions of {name} are published one by one: each at once, all of them not"
            ));
        }
        if self.options.asked.from_scan {
            let is_rows = is_row_route(self.route);
            let gone = if is_rows { rows::GUARANTEES_GONE } else { scan::GUARANTEES_GONE };
            lines.push(gone.to_owned());
        }
        lines
    }

    /// Refuses to add rows to a table whose columns are not those of its duplicate: no job of BigQuery would take them.
    pub(super) fn check_columns(
        &self,
        existing: Option<&Value>,
        recorded: &TableRecord,
        (way, replaces): (Way, bool),
    ) -> Result<()> {
        let Some(existing) = existing.filter(|_| way != Way::Whole || !replaces) else {
            return Ok(());
        };
        let then = resource_shape(&recorded.table, &recorded.resource);
        let drifts = compare(self.route, &then, &resource_shape(&recorded.table, existing));
        // A copy wants the same columns; a statement names those that it fills.
        let is_added = |drift: &Drift| way != Way::Rows && matches!(drift.what, What::Added(_));
        let lines: Vec<String> = drifts
            .iter()
            .filter(|drift| loses(drift) || is_added(drift))
            .map(ToString::to_string)
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        let message = format!(
            "table {} has other columns than its duplicate, so the rows do not fit it:\n  {}",
            self.name(),
            lines.join("\n  ")
        );
        Err(Error::new(Kind::Schema, message).with_hint(
            "give the table its columns back, or let all of it be what it was, columns included: rekindle restore bigquery --replace",
        ))
    }

    /// What copies hold in columns that the restored table does not have, or has under another name.
    pub(super) async fn older(
        &self,
        taken: &[Taken],
        schema_hash: &str,
        recorded: &TableRecord,
    ) -> Result<Vec<String>> {
        let mut others: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for taken in taken.iter().filter(|taken| taken.version.schema_hash != schema_hash) {
            let hash = taken.version.schema_hash.as_str();
            others.entry(hash).or_default().push(taken.table_partition.clone());
        }
        let now = resource_shape(&recorded.table, &recorded.resource);
        let mut lines = Vec::new();
        for (hash, partitions) in others {
            let then = self.duplicate.table(hash).await?;
            let drifts = compare(self.route, &resource_shape(&then.table, &then.resource), &now);
            let lost: Vec<String> =
                drifts.iter().filter(|drift| loses(drift)).map(ToString::to_string).collect();
            if !lost.is_empty() {
                lines.push(format!(
                    "table partitions {} of {} were copied before its columns changed, and what they hold in those is not restored ({}); --as-of with a time before that takes the table as it was",
                    named(&partitions),
                    self.name(),
                    lost.join("; ")
                ));
            }
        }
        Ok(lines)
    }
}

/// Rows of every table partition of a table; empty where there is no table.
pub(super) async fn partition_rows(
    shared: &Shared,
    dataset: &str,
    table: &str,
    location: &str,
) -> Result<BTreeMap<String, u64>> {
    if shared.patiently(|| shared.bigquery.table(dataset, table)).await?.is_none() {
        return Ok(BTreeMap::new());
    }
    let sql = format!(
        "SELECT partition_id, total_rows FROM `{}.{dataset}`.INFORMATION_SCHEMA.PARTITIONS WHERE table_name = @name",
        shared.bigquery.project()
    );
    let parameters = [("name", "STRING", table)];
    let statement = JobStatement { sql: &sql, parameters: &parameters, location: Some(location) };
    let rows = shared.patiently(|| shared.bigquery.query_rows(&statement)).await?;
    let read = |row: Vec<Value>| {
        let id = row.first()?.as_str()?.to_owned();
        Some((id, row.get(1)?.as_str()?.parse().ok()?))
    };
    Ok(rows.into_iter().filter_map(read).collect())
}
