//! The destination: made where there is none, proven after publishing, and given back what a copy does not carry.
//!
//! Invariant: what this run changes on a table that was there before (the filter that queries need) is journaled first
//! and put back at the end.

use super::choose::UNPARTITIONED;
use super::run::Proof;
use super::staging::{differs, make};
use super::table::{Part, Table, Way};
use super::{Shared, prove, target, way};
use crate::lane::now_ms;
use serde_json::{Map, Value, json};
use stages::failpoint::{Point, pass};
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;

/// Makes the destination where there is none, and lets all of it be read.
pub(super) async fn prepare_destination(shared: &Arc<Shared>, table: &mut Table) -> Result<()> {
    let bigquery = &shared.bigquery;
    let (dataset, name) = (table.dataset.clone(), table.table.clone());
    let existing = shared.patiently(|| bigquery.table(&dataset, &name)).await?;
    if let Some(resource) = &existing
        && !table.findings.makes_destination
    {
        return lift_filter(shared, table, resource).await;
    }
    table.findings.makes_destination = true;
    table.note(shared).await?;
    if existing.is_none() {
        let location = table.choice.location.clone();
        shared.patiently(|| bigquery.ensure_dataset(&dataset, &location)).await?;
        let mut resource = target::destination(&table.recorded, now_ms());
        if shared.is_scratch {
            target::expire_soon(&mut resource, now_ms());
        }
        shared.patiently(|| make(shared, &dataset, &name, &resource)).await?;
        pass(Point::DestinationMade);
    }
    // Before there are rows to be seen.
    if let Some(policy) = table.recorded.iam_policy.as_ref().and_then(target::policy) {
        let set =
            shared.patiently(|| bigquery.set_table_iam_policy(&dataset, &name, &policy)).await;
        if let Err(error) = set {
            let line = format!("the IAM policy of {} could not be put back: {error}", table.name());
            tracing::warn!("{line}");
            table.findings.warnings.push(line);
        }
    }
    Ok(())
}

/// Lets all of the destination be read again, where an attempt that was killed has put its settings back already.
pub(super) async fn reopen_destination(shared: &Shared, table: &mut Table) -> Result<()> {
    let (dataset, name) = (table.dataset.clone(), table.table.clone());
    let existing = shared.patiently(|| shared.bigquery.table(&dataset, &name)).await?;
    match existing {
        Some(resource) => lift_filter(shared, table, &resource).await,
        None => Ok(()),
    }
}

/// Lifts the filter that queries need; journaled first, so that it comes back.
async fn lift_filter(shared: &Shared, table: &mut Table, resource: &Value) -> Result<()> {
    if !target::needs_filter(resource) {
        return Ok(());
    }
    table.findings.lifts_filter = true;
    table.note(shared).await?;
    let change = json!({"requirePartitionFilter": false});
    let lift = || shared.bigquery.patch_table(&table.dataset, &table.table, &change);
    shared.patiently(lift).await?;
    pass(Point::FilterLifted);
    Ok(())
}

/// Compares the destination with what was restored.
pub(super) async fn prove_destination(
    shared: &Arc<Shared>,
    table: &Table,
    proof: &mut Proof,
) -> Result<()> {
    let expected = table.expected(shared).await?;
    let (dataset, name) = (&table.dataset, &table.table);
    let refuse = |what: String| {
        let hint = format!(
            "the restored rows are kept in {}.{}; see what else writes to the table, then run the same command again",
            shared.staging_dataset, table.record.staging
        );
        Err(Error::new(Kind::Difference, what).with_hint(hint))
    };
    let found = match (table.choice.way, &table.choice.row_key) {
        (Way::Rows, Some(key)) => {
            let keys =
                prove::keys(shared, &shared.staging_dataset, &table.record.staging, key).await?;
            let found = prove::digest_of_keys(shared, dataset, name, key, keys).await?;
            if found.count != expected.count {
                return refuse(differs(
                    &format!("under the restored keys table {}", table.name()),
                    found,
                    expected,
                ));
            }
            // Equal keys with other values are rows that were changed since the backup, and kept.
            found
        }
        (Way::Partitions, _) => {
            let found = prove_partitions(shared, table).await?;
            if found < table.findings.written {
                return refuse(format!(
                    "the table partitions restored into {} have {found} rows where {} were copied",
                    table.name(),
                    table.findings.written
                ));
            }
            proof.counted += found;
            return Ok(());
        }
        _ => {
            // As of the end of the job: what applications write after it is theirs.
            let at_ms = table.findings.published_ms + 1;
            let wait = at_ms - now_ms();
            if let Ok(wait) = u64::try_from(wait) {
                tokio::time::sleep(Duration::from_millis(wait.min(2_000) + 1)).await;
            }
            let found = prove::digest(shared, dataset, name, Some(at_ms)).await?;
            if found != expected {
                return refuse(differs(&format!("table {}", table.name()), found, expected));
            }
            found
        }
    };
    proof.counted += found.count;
    proof.compared += found.count;
    Ok(())
}

/// Counts the rows of the table partitions that were copied.
async fn prove_partitions(shared: &Arc<Shared>, table: &Table) -> Result<u64> {
    let counted =
        way::partition_rows(shared, &table.dataset, &table.table, &table.choice.location).await?;
    let is_unpartitioned = |part: &Part| part.table_partition == UNPARTITIONED && part.rows > 0;
    if table.choice.by_arrival && table.choice.parts.iter().any(is_unpartitioned) {
        // Those rows are in the table partition of the day they were copied; the table had none before.
        return Ok(counted.values().sum());
    }
    let mut total = 0;
    for part in table.choice.parts.iter().filter(|part| part.rows > 0) {
        total += counted.get(&part.table_partition).copied().unwrap_or(0);
    }
    Ok(total)
}

/// Puts back what a copy does not carry.
pub(super) async fn put_back(shared: &Shared, table: &Table) -> Result<()> {
    let is_whole = table.findings.makes_destination
        || (table.choice.way == Way::Whole && table.choice.replaces);
    let mut change = if is_whole { target::put_back(&table.recorded, now_ms()) } else { json!({}) };
    if table.findings.lifts_filter {
        change["requirePartitionFilter"] = true.into();
    }
    if change.as_object().is_some_and(Map::is_empty) {
        return Ok(());
    }
    let patch = || shared.bigquery.patch_table(&table.dataset, &table.table, &change);
    shared.patiently(patch).await?;
    pass(Point::SettingsPutBack);
    Ok(())
}
