//! What unfinished backups left behind: the run to take up, and blocks that were never published.
//!
//! Invariant: whoever holds the state folder knows that no other process works on a run of its journal, so what such a run
//! began and did not publish belongs to nobody. Only generations that no manifest lists are removed.

use super::super::Options;
use super::super::publish::remove_generation;
use crate::checkpoint::Status;
use crate::journal::{
    Journal, NewRoute, NewRun, PartitionRecord, RouteRecord, RunRecord, RunStatus,
};
use crate::lane::now_ms;
use crate::outcome::from_journal;
use schemas::manifest::{Keys, Manifest};
use schemas::{Bounds, Plan, Route};
use stages::Result;
use stages::failpoint::{Point, pass};
use stages::load::store::Store;

/// Takes up the unfinished backup of the same routes, or gives it up and begins a new one.
pub(super) async fn open_run(
    journal: &Journal,
    plan: &Plan,
    routes: &[Route],
    duplicate: &dyn Store,
    options: &Options,
) -> Result<RunRecord> {
    let (command, fresh) = (options.to.backup_command(), options.fresh);
    if let Some(mut run) = journal.unfinished_run(command).await.map_err(from_journal)? {
        let records = journal.routes(&run.id).await.map_err(from_journal)?;
        let is_same = |route: &Route| {
            let recorded = records.iter().find(|record| record.name == route.name);
            recorded.is_some_and(|record| prefix_of(record).as_deref() == Some(route.key.text()))
        };
        if routes.iter().all(is_same) && !fresh {
            journal.note_attempt(&run.id).await.map_err(from_journal)?;
            run.attempts += 1;
            let status = RunStatus::Running;
            journal.set_run_status(&run.id, status, None, None).await.map_err(from_journal)?;
            return Ok(run);
        }
        duplicate.release(&run.id).await?;
        let (status, ended) = (RunStatus::Abandoned, Some(now_ms()));
        journal.set_run_status(&run.id, status, ended, None).await.map_err(from_journal)?;
    }
    let started_ms = now_ms();
    let run = NewRun {
        command: command.to_owned(),
        plan_fingerprint: plan.fingerprint(),
        binary_version: env!("CARGO_PKG_VERSION").to_owned(),
        lost_at_ms: started_ms,
        lost_at_given: false,
        started_ms,
        target_was_empty: false,
    };
    let records = routes
        .iter()
        .map(|route| NewRoute {
            name: route.name.clone(),
            definition: route.definition(),
            schema_lines: Vec::new(),
            shape: None,
            relations: "null".to_owned(),
        })
        .collect();
    journal.create_run(run, records).await.map_err(from_journal)
}

/// Removes the blocks of generations that any backup of this journal began and never published.
///
/// What lies under a key prefix that the plan does not have is somebody else's by now, for all that is known: it is left
/// and returned as a warning, unless `fresh` asks for it to go, too.
pub(super) async fn clean(
    journal: &Journal,
    plan: &Plan,
    duplicate: &dyn Store,
    options: &Options,
) -> Result<Vec<String>> {
    let (command, fresh) = (options.to.backup_command(), options.fresh);
    let mut warnings = Vec::new();
    for run in journal.runs_with_unfinished(command).await.map_err(from_journal)? {
        let partitions = journal.partitions(&run.id).await.map_err(from_journal)?;
        for route in journal.routes(&run.id).await.map_err(from_journal)? {
            let left = partitions.iter().filter(|record| {
                record.partition.route == route.name
                    && record.status != Status::Done
                    && record.epoch > 0
            });
            let left: Vec<&PartitionRecord> = left.collect();
            let Some(prefix) = prefix_of(&route).filter(|_| !left.is_empty()) else { continue };
            let keys = Keys::new(&prefix);
            let mut planned = plan.routes.iter().filter(|route| route.uses.backup);
            if fresh || planned.any(|route| route.key.text() == prefix) {
                for record in left {
                    remove(duplicate, &keys, record).await?;
                }
                pass(Point::LeftBehindRemoved);
                let voided = journal.void_partitions(&run.id, &route.name).await;
                voided.map_err(from_journal)?;
                continue;
            }
            let count = count(duplicate, &keys, &left).await?;
            if count > 0 {
                warnings.push(format!(
                    "an unfinished backup of route {}, which the plan has no longer, left {count} unpublished copies of table partitions under {prefix}:b:*; to remove them: rekindle backup bigquery --fresh",
                    route.name
                ));
            }
        }
    }
    Ok(warnings)
}

/// Removes what earlier attempts of a run wrote of table partitions that it completed all the same. Each attempt removes its
/// own blocks when it fails; but that may fail as well, and what was on its way to the server may come after it.
pub(super) async fn remove_attempts(
    journal: &Journal,
    duplicate: &dyn Store,
    (run_id, route): (&str, &str),
    keys: &Keys,
) -> Result<()> {
    let partitions = journal.partitions(run_id).await.map_err(from_journal)?;
    let is_repeated = |record: &&PartitionRecord| {
        record.partition.route == route && record.status == Status::Done && record.epoch > 1
    };
    for record in partitions.iter().filter(is_repeated) {
        remove(duplicate, keys, record).await?;
    }
    Ok(())
}

/// The same of the run before this one, under the prefixes that the plan still has: something may have come after its end.
pub(super) async fn clean_completed(
    journal: &Journal,
    plan: &Plan,
    duplicate: &dyn Store,
    before: Option<&RunRecord>,
) -> Result<()> {
    let Some(run_id) = before.map(|run| run.id.as_str()) else { return Ok(()) };
    for route in journal.routes(run_id).await.map_err(from_journal)? {
        let Some(prefix) = prefix_of(&route) else { continue };
        let mut planned = plan.routes.iter().filter(|route| route.uses.backup);
        if planned.any(|route| route.key.text() == prefix) {
            let of = (run_id, route.name.as_str());
            remove_attempts(journal, duplicate, of, &Keys::new(&prefix)).await?;
        }
    }
    Ok(())
}

/// The key prefix that a route had when it was recorded.
fn prefix_of(route: &RouteRecord) -> Option<String> {
    let key = route.definition.lines().find_map(|line| line.strip_prefix("key = "))?;
    serde_json::from_str(key).ok()
}

/// Returns the generations of a table partition that were begun and that no manifest lists.
async fn unpublished(
    duplicate: &dyn Store,
    keys: &Keys,
    record: &PartitionRecord,
) -> Result<Option<(String, Vec<u64>)>> {
    let Bounds::TablePartition { table_partition, generation_base } = &record.partition.bounds
    else {
        return Ok(None);
    };
    let text = duplicate.get(&keys.manifest(table_partition)).await?;
    let manifest = text.as_deref().and_then(|text| Manifest::parse(text, table_partition).ok());
    let is_published = |generation: &u64| {
        let mut versions = manifest.iter().flat_map(|manifest| &manifest.versions);
        versions.any(|version| version.generation == *generation)
    };
    let begun = (1..=record.epoch).map(|epoch| generation_base + epoch);
    let unpublished = begun.filter(|generation| !is_published(generation)).collect();
    Ok(Some((table_partition.clone(), unpublished)))
}

async fn remove(duplicate: &dyn Store, keys: &Keys, record: &PartitionRecord) -> Result<()> {
    let Some((table_partition, generations)) = unpublished(duplicate, keys, record).await? else {
        return Ok(());
    };
    for generation in generations {
        let removed = remove_generation(duplicate, keys, &table_partition, generation).await?;
        if removed > 0 {
            tracing::info!(removed, generation, %table_partition, "removed what an unfinished backup left");
        }
    }
    Ok(())
}

/// Counts the generations that have a first block.
async fn count(duplicate: &dyn Store, keys: &Keys, left: &[&PartitionRecord]) -> Result<usize> {
    let mut firsts = Vec::new();
    for record in left {
        if let Some((name, generations)) = unpublished(duplicate, keys, record).await? {
            firsts.extend(generations.iter().map(|generation| keys.block(&name, *generation, 0)));
        }
    }
    let lengths = duplicate.lengths(&firsts).await?;
    Ok(lengths.iter().filter(|length| **length > 0).count())
}
