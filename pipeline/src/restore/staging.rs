//! The staging table: made, filled, and proven by rows and digest before anything is published from it.
//!
//! Invariant: it belongs to this run alone, so dropping it and starting over is always safe.

use super::load::{Lane, Loaded, load};
use super::stage::TableStage;
use super::table::Table;
use super::{PAUSE_MAX, PAUSE_MIN, Shared, prove, target};
use crate::lane::now_ms;
use schemas::Digest;
use serde_json::Value;
use stages::failpoint::{Point, pass};
use stages::load::bigquery::{ReadBack, ReadOptions, WriteTable};
use stages::transform::arrow_rows;
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Instant;

/// One step towards a proven staging table; returns why it has to start over, if it has to.
pub(super) async fn stage(
    shared: &Arc<Shared>,
    table: &mut Table,
) -> std::result::Result<Option<String>, Vec<Error>> {
    let one = |error: Error| vec![error];
    match table.record.stage {
        TableStage::Planned => make_staging(shared, table).await.map_err(one)?,
        TableStage::Staged => {
            let Some(lane) = lane(shared, table).await.map_err(one)? else {
                return Ok(Some("its staging table is gone".to_owned()));
            };
            match load(&lane, table).await? {
                Loaded::Done => table.step(shared, TableStage::Loaded).await.map_err(one)?,
                Loaded::StartOver(reason) => return Ok(Some(reason)),
            }
        }
        _ => {
            table.count_rows(shared).await.map_err(one)?;
            table.note(shared).await.map_err(one)?;
            let expected = table.expected(shared).await.map_err(one)?;
            let found = read_staging(shared, table).await.map_err(one)?;
            if found != Some(expected) {
                return Ok(Some(differs("its staging table", found.unwrap_or_default(), expected)));
            }
            pass(Point::StagingProven);
            table.step(shared, TableStage::Proven).await.map_err(one)?;
        }
    }
    Ok(None)
}

/// Says how rows and digest differ.
pub(super) fn differs(what: &str, found: Digest, expected: Digest) -> String {
    format!(
        "{what} has {} rows with digest {} where {} rows with digest {} were restored",
        found.count,
        found.hex(),
        expected.count,
        expected.hex()
    )
}

async fn make_staging(shared: &Arc<Shared>, table: &mut Table) -> Result<()> {
    let dataset = &shared.staging_dataset;
    let location = &table.choice.location;
    let facts = shared.patiently(|| shared.bigquery.ensure_dataset(dataset, location)).await?;
    if !facts.location.eq_ignore_ascii_case(location) {
        let message = format!(
            "staging_dataset {dataset} is in {} and {} in {location}: rows cannot be copied between places",
            facts.location,
            table.name()
        );
        return Err(
            Error::new(Kind::Config, message).with_hint("name a staging_dataset in the same place")
        );
    }
    let resource = target::staging(&table.recorded, &shared.run_id, now_ms());
    for name in &table.stagings() {
        shared.patiently(|| make(shared, dataset, name, &resource)).await?;
    }
    pass(Point::StagingMade);
    table.step(shared, TableStage::Staged).await
}

/// Makes a table whose name belongs to this run; one that an earlier try made is taken.
pub(super) async fn make(
    shared: &Shared,
    dataset: &str,
    name: &str,
    resource: &Value,
) -> Result<()> {
    match shared.bigquery.insert_table(dataset, name, resource).await {
        Ok(_) => Ok(()),
        Err(error) => match shared.bigquery.table(dataset, name).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(error),
        },
    }
}

/// What lanes need; `None` where the staging table is not there.
async fn lane(shared: &Arc<Shared>, table: &Table) -> Result<Option<Lane>> {
    let dataset = &shared.staging_dataset;
    let names = table.stagings();
    for name in &names {
        if shared.patiently(|| shared.bigquery.table(dataset, name)).await?.is_none() {
            return Ok(None);
        }
    }
    let name = &names[0];
    let options = ReadOptions { streams: 1, ..ReadOptions::default() };
    let session =
        shared.patiently(|| ReadBack::open(&shared.bigquery, dataset, name, &options)).await?;
    let schema = arrow_rows::read_schema(&session.schema)?;
    Ok(Some(Lane {
        shared: Arc::clone(shared),
        index: table.index,
        values: Arc::clone(&table.duplicate.values),
        keys: table.duplicate.keys.clone(),
        write: WriteTable::new(&shared.bigquery, dataset, &table.record.staging),
        by_arrival: table.choice.by_arrival,
        schema_message: arrow_rows::schema_message(&schema)?,
        schema,
        schema_hash: table.choice.schema_hash.clone(),
        staging: table.record.attempt,
    }))
}

/// Reads all staging tables; `None` where one is not there.
async fn read_staging(shared: &Arc<Shared>, table: &Table) -> Result<Option<Digest>> {
    let mut total = Digest::default();
    for name in &table.stagings() {
        let Some(found) = read_one(shared, name).await? else { return Ok(None) };
        total += found;
    }
    Ok(Some(total))
}

/// Reads a staging table, once its streaming buffer is empty; `None` where it is not there.
async fn read_one(shared: &Arc<Shared>, name: &str) -> Result<Option<Digest>> {
    let dataset = &shared.staging_dataset;
    let (started, mut pause) = (Instant::now(), PAUSE_MIN);
    loop {
        match shared.patiently(|| shared.bigquery.table(dataset, name)).await? {
            None => return Ok(None),
            Some(resource) if !target::has_buffer(&resource) => break,
            Some(_) if started.elapsed() >= shared.retry_for => {
                let message = format!("rows of {dataset}.{name} are still in the streaming buffer");
                return Err(Error::new(Kind::Unavailable, message)
                    .with_hint("wait some minutes, then run the same command again"));
            }
            Some(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    prove::digest(shared, dataset, name, None).await.map(Some)
}

/// Drops the staging tables; whether they were there does not matter.
pub(super) async fn drop_staging(shared: &Shared, table: &Table) -> Result<()> {
    for name in &table.stagings() {
        let drop_it = || shared.bigquery.delete_table(&shared.staging_dataset, name);
        shared.patiently(drop_it).await?;
    }
    pass(Point::StagingDropped);
    Ok(())
}
