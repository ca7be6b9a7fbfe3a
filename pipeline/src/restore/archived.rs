//! What an archive has of a table, for a rebuild of Redis that reads it in place of BigQuery.
//!
//! Invariant: it is chosen, and its manifests and the lengths of its files are checked, as for a restore; nothing is
//! left out that a restore would not leave out too, and what is left out is told.

use super::choose::{Wanted, choose, held};
use super::duplicate::{Duplicate, altered, damaged, named};
use crate::archived::{CopiedPart, TableCopy};
use crate::lane::now_ms;
use futures::stream::{self, StreamExt, TryStreamExt};
use schemas::Route;
use schemas::manifest::{Run, TableRecord};
use stages::load::store::Values;
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// Table partitions whose files are looked for at once.
const LISTED_AT_ONCE: usize = 8;

/// What an archive has of a table.
pub(crate) struct ArchivedTable {
    /// Its files.
    pub(crate) copy: TableCopy,
    /// What BigQuery said of the table.
    pub(crate) record: TableRecord,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// Looks at what an archive has of the table of a backup route; `None` where no backup of it was ever complete.
///
/// Fails with `Difference` where something is missing or altered, and with `Config` where its files have another key than
/// the plan.
pub(crate) async fn archived_table(
    values: &Arc<dyn Values>,
    route: &Route,
) -> Result<Option<ArchivedTable>> {
    let copy = Duplicate::of_values(Arc::clone(values), route.key.text());
    let key = copy.keys.run();
    let Some(text) = values.get(&key).await? else { return Ok(None) };
    let run = Run::parse(&text).map_err(|error| altered(&key, &error))?;
    let table = super::own_name(route);
    if run.table != table {
        let message = format!(
            "{} holds table {} under {}, where route {} of the plan keeps {table}",
            values.place(),
            run.table,
            copy.keys.prefix(),
            route.name
        );
        return Err(Error::new(Kind::Config, message)
            .with_hint("give each archive the routes that wrote it, then: rekindle plan"));
    }
    let manifests = copy.manifests(&run).await?;
    let wanted = Wanted {
        keep_versions: route.backup.keep_versions,
        now_us: now_ms() * 1000,
        ..Wanted::default()
    };
    let chosen = choose(&run, &manifests, &wanted)?;
    let record = copy.table(&run.schema_hash).await?;
    let mut notes: Vec<String> = held(&run, &chosen.taken).into_iter().collect();
    if !chosen.expired.is_empty() {
        notes.push(format!(
            "table partitions {} of {table} are left out: bigquery would have let them expire by now",
            named(&chosen.expired)
        ));
    }
    let part = |taken: super::choose::Taken| CopiedPart {
        table_partition: taken.table_partition,
        version: taken.version,
    };
    let parts: Vec<CopiedPart> = chosen.taken.into_iter().map(part).collect();
    refuse_missing(&copy, &parts).await?;
    let identity = format!("archive of {table}, backup {} {}", run.run_id, run.check);
    let as_of_us = run.data_as_of_us();
    let copy = TableCopy { table, keys: copy.keys, parts, as_of_us, identity };
    Ok(Some(ArchivedTable { copy, record, notes }))
}

/// Names every file that is not there or has another length, before a row is written anywhere.
async fn refuse_missing(copy: &Duplicate, parts: &[CopiedPart]) -> Result<()> {
    let missing: Vec<Vec<String>> = stream::iter(parts)
        .map(|part| copy.missing_blocks(&part.table_partition, &part.version))
        .buffered(LISTED_AT_ONCE)
        .try_collect()
        .await?;
    let missing = missing.concat();
    if missing.is_empty() { Ok(()) } else { Err(damaged(named(&missing))) }
}
