//! A table kept as blocks: which table partitions are read, their lanes, and what belongs to the table as a whole.
//!
//! Invariant: every table partition of either side is at least counted; what a sample reads beyond that is chosen by
//! the seed alone.

use super::super::Tier;
use super::Shared;
use super::look::Looked;
use super::read::{self, Blocks};
use super::report::{State, TableReport};
use super::unit::{Depth, Read, Unit};
use crate::progress::Phase;
use crate::readback::detection_power;
use crate::summarize::rfc3339;
use crate::verify::{EXAMPLES_MAX, Verdict};
use futures::stream::{self, StreamExt};
use schemas::Route;
use schemas::manifest::Manifest;
use serde_json::json;
use stages::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Table partitions that a sample reads on both sides, unless the rows asked for need more: damage of 14 % of them is
/// found with 95 % probability.
const PARTS_SAMPLED: usize = 20;
/// Blocks of other table partitions that a sample reads and checks: damage of 1 % of them is found.
const BLOCKS_SAMPLED: usize = 300;
/// Unexplained keys that are remembered.
const UNEXPLAINED_MAX: usize = 100_000;

/// Verifies one route of blocks.
pub(super) async fn verify(shared: &Shared, route: &Route) -> Result<TableReport> {
    let looked = shared.patiently(|| Looked::at(shared, route)).await?;
    let mut report = TableReport::new(&route.name, looked.full_name(), "blocks");
    of_the_whole(&looked, &mut report);
    let units = looked.units();
    let chosen = choose(shared, &looked, &units);
    report.table_partitions = units.len() as u64;
    report.compared = chosen.len() as u64;
    report.detects = detects(shared.tier, chosen.len(), units.len());
    let rows = |id: &String| looked.newest(id).map_or(0, |newest| newest.rows);
    shared.progress.expect(units.len() as u64, units.iter().map(rows).sum());
    let lanes = units.iter().map(|id| {
        let depth = if chosen.contains(id) { Depth::Full } else { Depth::Count };
        let manifest = looked.standing.manifests.get(id).cloned();
        let unit = Unit { shared, table: &looked, id, depth, manifest, is_newer: false };
        unit.verify()
    });
    let mut lanes = stream::iter(lanes).buffer_unordered(shared.lanes);
    while let Some(done) = lanes.next().await {
        let (part, Read { blocks, rows }) = done?;
        if !chosen.contains(&part.table_partition) {
            // What is read is counted as it comes.
            shared.progress.rows(part.rows_in_bigquery.unwrap_or(0), 0);
        }
        shared.progress.part_done();
        report.blocks_read += blocks;
        report.rows_compared += rows;
        if part.state != State::Same {
            report.parts.push(part);
        }
    }
    drop(lanes);
    shared.progress.enter(Phase::LookingAgain);
    report.parts.sort_by(|a, b| a.table_partition.cmp(&b.table_partition));
    if matches!(shared.tier, Tier::Sample(_)) {
        spot(shared, &looked, &chosen, &mut report).await?;
    }
    if shared.tier == Tier::Full {
        unexplained(shared, &looked, &mut report).await?;
    }
    report.judge();
    Ok(report)
}

/// What is wrong with the table or its documents as a whole.
fn of_the_whole(looked: &Looked, report: &mut TableReport) {
    let (name, route) = (looked.full_name(), &looked.route.name);
    let backup = format!("rekindle backup bigquery --route {route}");
    for problem in &looked.damage {
        report.problem(Verdict::Fail, problem.clone(), backup.clone());
    }
    match &looked.standing.run {
        Some(run) => {
            report.data_as_of = Some(rfc3339(run.data_as_of_us() / 1_000));
            if run.table != name {
                let what =
                    format!("the record of the last complete backup is of table {}", run.table);
                report.problem(
                    Verdict::Fail,
                    what,
                    "give every table a key of its own, then: rekindle plan",
                );
            }
        }
        None if looked.damage.is_empty() => {
            let key = looked.keys.run();
            let what = format!("key {key} is missing: there is no record of a complete backup");
            report.problem(Verdict::Fail, what, backup.clone());
        }
        None => {}
    }
    if looked.source.is_none() {
        let restore = format!("rekindle restore bigquery --route {route}");
        report.problem(Verdict::Fail, format!("table {name} is missing in bigquery"), restore);
    }
    if looked.is_made_anew {
        report.notes.push(format!(
            "table {name} was made anew after it was copied; its rows are compared as they are now"
        ));
    }
    if looked.has_windows {
        report.notes.push("rows that came after the newest window are not compared; the next backup makes a window of them".to_owned());
    }
}

/// The table partitions that are read on both sides.
fn choose(shared: &Shared, looked: &Looked, units: &[String]) -> BTreeSet<String> {
    let rows = |id: &String| looked.newest(id).map_or(0, |newest| newest.rows);
    match shared.tier {
        Tier::Count => BTreeSet::new(),
        Tier::Full => units.iter().cloned().collect(),
        Tier::Sample(wanted) => {
            let mut taken = 0;
            let is_enough = |(place, id): &(usize, String)| {
                let goes_on = *place < PARTS_SAMPLED || taken < u64::from(wanted);
                taken += rows(id);
                goes_on
            };
            shuffled(units, shared.seed)
                .into_iter()
                .enumerate()
                .take_while(is_enough)
                .map(|(_, id)| id)
                .collect()
        }
    }
}

/// Puts names into an order that only the seed decides.
fn shuffled(names: &[String], seed: u64) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_by_key(|name| xxh3_64_with_seed(name.as_bytes(), seed));
    names
}

fn detects(tier: Tier, compared: usize, all: usize) -> String {
    match tier {
        Tier::Count => {
            "missing rows and blocks, and blocks of another length; no value was compared"
                .to_owned()
        }
        Tier::Full => "every difference".to_owned(),
        Tier::Sample(_) if compared == all => "every difference of rows".to_owned(),
        Tier::Sample(_) => format!(
            "of the table partitions, {}; all of them were counted",
            detection_power(compared as u64).replace("all values", "all of them")
        ),
    }
}

/// Reads and checks some blocks of the table partitions that were only counted.
async fn spot(
    shared: &Shared,
    looked: &Looked,
    chosen: &BTreeSet<String>,
    report: &mut TableReport,
) -> Result<()> {
    let mut places = Vec::new();
    for (id, manifest) in looked.standing.manifests.iter().filter(|(id, _)| !chosen.contains(*id)) {
        let newest = manifest.newest().into_iter();
        places.extend(newest.flat_map(|newest| {
            (0..).zip(&newest.blocks).map(|(ordinal, _)| {
                let key = looked.keys.block(id, newest.generation, ordinal);
                (xxh3_64_with_seed(key.as_bytes(), shared.seed), id.clone(), ordinal)
            })
        }));
    }
    places.sort_unstable();
    let all = places.len();
    places.truncate(BLOCKS_SAMPLED);
    let taken = places.len();
    let mut by_part: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (_, id, ordinal) in places {
        by_part.entry(id).or_default().push(ordinal);
    }
    for (id, ordinals) in by_part {
        let Some(newest) = looked.newest(&id) else { continue };
        let blocks = Blocks {
            keys: looked.keys.clone(),
            table: looked.full_name(),
            table_partition: id.clone(),
            version: Arc::new(newest.clone()),
        };
        report.blocks_read += ordinals.len() as u64;
        let bad = blocks.read(shared, ordinals, &read::digest(), &mut |_| Ok(())).await?;
        for bad in bad {
            if is_told(report, &id, &bad.key) {
                continue;
            }
            let what = format!("block {} {}", bad.key, bad.what);
            shared.findings.note(&json!({
                "table": report.table, "table_partition": id, "what": "damaged", "key": bad.key, "problem": what,
            }))?;
            report.damaged(&id, what, looked.is_repairable(&id));
        }
    }
    if taken < all {
        let power = detection_power(taken as u64).replace("all values", "all of them");
        report.detects = format!("{}; of the blocks of the others, {power}", report.detects);
    }
    Ok(())
}

/// Whether a block was found missing or altered before.
fn is_told(report: &TableReport, id: &str, key: &str) -> bool {
    let part = report.parts.iter().find(|part| part.table_partition == id);
    part.is_some_and(|part| part.damage.iter().any(|what| what.contains(key)))
}

/// Looks for keys under the prefix that no document accounts for. A backup under way leaves some, too.
async fn unexplained(shared: &Shared, looked: &Looked, report: &mut TableReport) -> Result<()> {
    let keys = &looked.keys;
    let mut known: BTreeSet<String> = looked.units().iter().map(|id| keys.manifest(id)).collect();
    known.extend(looked.records.keys().map(|hash| keys.schema(hash)));
    known.insert(keys.run());
    let prefix = format!("{}:", keys.prefix());
    let mut seen = BTreeSet::new();
    let mut cursor = 0;
    loop {
        let (next, found) = shared.patiently(|| shared.values.scan(cursor, &prefix)).await?;
        for key in found.into_iter().filter(|key| !known.contains(key) && !is_block(looked, key)) {
            // SCAN may show a key twice; beyond what is remembered, it may be counted twice, too.
            if seen.contains(&key) {
                continue;
            }
            shared
                .findings
                .note(&json!({"table": report.table, "what": "unexplained", "key": key}))?;
            report.unexplained += 1;
            if report.unexplained_examples.len() < EXAMPLES_MAX {
                report.unexplained_examples.push(key.clone());
            }
            if seen.len() < UNEXPLAINED_MAX {
                seen.insert(key);
            }
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// Whether a key is a block that its manifest lists, or is about to remove.
fn is_block(looked: &Looked, key: &str) -> bool {
    let Some(block) = looked.keys.parse_block(key) else { return false };
    let manifest = looked.standing.manifests.get(&block.table_partition);
    let versions = manifest.iter().flat_map(|manifest: &&Manifest| &manifest.versions);
    let retired = manifest.iter().flat_map(|manifest| &manifest.retired);
    let listed = versions.map(|version| (version.generation, version.blocks.len() as u64));
    listed.chain(retired.copied()).any(|(generation, count)| {
        generation == block.generation && u64::from(block.ordinal) < count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_what_a_sample_takes() {
        let names: Vec<String> = (0..50).map(|day| format!("day{day:02}")).collect();
        assert_eq!(shuffled(&names, 1), shuffled(&names, 1));
        assert_ne!(shuffled(&names, 1), shuffled(&names, 2));
        let mut sorted = shuffled(&names, 3);
        sorted.sort();
        assert_eq!(sorted, names);
    }
}
