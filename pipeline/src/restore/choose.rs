//! Which versions of which table partitions a restore takes. Pure.
//!
//! Invariant: a table partition is taken whole in one version or named as left out with the reason; nothing is left
//! out silently.

use super::duplicate::{damaged, named};
use crate::summarize::rfc3339;
use schemas::manifest::{Manifest, Run, Version};
use serde::{Deserialize, Serialize};
use stages::{Error, Kind, Result};

/// BigQuery's name for rows that are in no table partition yet.
pub(super) const UNPARTITIONED: &str = "__UNPARTITIONED__";

/// Table partitions to restore, by name: from and to, both included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// First.
    pub from: String,
    /// Last.
    pub to: String,
}

impl PartitionRange {
    /// Reads `FROM..TO`, or one name.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let is_backwards = match (from.parse::<i64>(), to.parse::<i64>()) {
            (Ok(from), Ok(to)) => from > to,
            _ => from > to,
        };
        if !is_name(from) || !is_name(to) || is_backwards {
            return Err(
                "must be FROM..TO by ids of table partitions, for example 20261101..20261130"
                    .into(),
            );
        }
        Ok(Self { from: from.to_owned(), to: to.to_owned() })
    }

    /// Whether a table partition lies in it. Names such as `__NULL__` must be named themselves.
    pub fn contains(&self, partition: &str) -> bool {
        if partition.starts_with('_') || self.from.starts_with('_') {
            return partition == self.from || partition == self.to;
        }
        // Ids of range partitions are numbers of different lengths; those of time partitions have one length.
        match (partition.parse::<i64>(), self.from.parse::<i64>(), self.to.parse::<i64>()) {
            (Ok(id), Ok(from), Ok(to)) => (from..=to).contains(&id),
            _ => false,
        }
    }
}

/// What was asked of the choice.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted<'a> {
    /// The newest version read at or before, microseconds since 1970.
    pub(super) as_of_us: Option<i64>,
    /// Only these table partitions.
    pub(super) range: Option<&'a PartitionRange>,
    /// Whether copies of a re-created table are taken, too.
    pub(super) accept_recreated: bool,
    /// Versions that a backup keeps of each table partition.
    pub(super) keep_versions: u32,
    /// Now, microseconds since 1970.
    pub(super) now_us: i64,
}

/// One table partition in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) table_partition: String,
    pub(super) version: Version,
}

/// What a restore takes, and what it leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) taken: Vec<Taken>,
    /// Table partitions that BigQuery would let expire at once.
    pub(super) expired: Vec<String>,
    /// Table partitions that did not exist then.
    pub(super) later: Vec<String>,
    /// Whether rows without a table partition are left out.
    pub(super) left_unpartitioned: bool,
}

impl Chosen {
    /// Leaves out the rows that had no table partition yet.
    pub(super) fn leave_out_unpartitioned(&mut self) {
        let before = self.taken.len();
        self.taken
            .retain(|taken| taken.table_partition != UNPARTITIONED || taken.version.rows == 0);
        self.left_unpartitioned = self.taken.len() < before;
    }
}

/// Chooses from all manifests that the record of the last backup names.
pub(super) fn choose(run: &Run, manifests: &[Manifest], wanted: &Wanted<'_>) -> Result<Chosen> {
    let mut chosen = Chosen::default();
    let mut pruned = Vec::new();
    let mut recreated = Vec::new();
    for (entry, manifest) in run.table_partitions.iter().zip(manifests) {
        let name = &manifest.table_partition;
        if wanted.range.is_some_and(|range| !range.contains(name)) {
            continue;
        }
        let found = match wanted.as_of_us {
            Some(at_us) => manifest.as_of(at_us),
            // What a backup under way has published beyond the last complete one is not taken.
            None => manifest.versions.iter().find(|version| version.generation <= entry.generation),
        };
        let Some(version) = found else {
            let is_first_kept = nothing_was_pruned(manifest, wanted.keep_versions);
            if wanted.as_of_us.is_some() && is_first_kept {
                chosen.later.push(name.clone());
            } else {
                pruned.push(name.clone());
            }
            continue;
        };
        if version.table_created_ms > run.table_created_ms && !wanted.accept_recreated {
            recreated.push(name.clone());
        }
        if version.expires_us.is_some_and(|at| at <= wanted.now_us) {
            chosen.expired.push(name.clone());
            continue;
        }
        let table_partition = name.clone();
        chosen.taken.push(Taken { table_partition, version: version.clone() });
    }
    refuse(run, &pruned, &recreated, wanted)?;
    Ok(chosen)
}

/// Whether the oldest version kept is the first there was: it has the first generation, or there was room for more.
fn nothing_was_pruned(manifest: &Manifest, keep_versions: u32) -> bool {
    let is_first = manifest.versions.last().is_some_and(|oldest| oldest.generation <= 1);
    is_first || (manifest.retired.is_empty() && manifest.versions.len() < keep_versions as usize)
}

fn refuse(run: &Run, pruned: &[String], recreated: &[String], wanted: &Wanted<'_>) -> Result<()> {
    if !pruned.is_empty() {
        let when =
            if wanted.as_of_us.is_some() { "that old" } else { "of the last complete backup" };
        return Err(damaged(format!(
            "no version {when} is kept of table partitions {}",
            super::duplicate::named(pruned)
        )));
    }
    if !recreated.is_empty() {
        let message = format!(
            "table {} was created anew after the last complete backup; table partitions {} would be copies of the new table",
            run.table,
            super::duplicate::named(recreated)
        );
        let hint = format!(
            "restore the old table with --as-of TIME, or name the new one: --accept-recreated {}",
            run.table
        );
        return Err(Error::new(Kind::Config, message).with_hint(hint));
    }
    Ok(())
}

/// Says which copies are older than the backup, because the source had lost rows of them by then.
pub(super) fn held(run: &Run, taken: &[Taken]) -> Option<String> {
    let is_taken = |name: &str| taken.iter().any(|taken| taken.table_partition == name);
    let held = run.held.iter().filter(|held| is_taken(&held.table_partition));
    let names: Vec<String> = held
        .map(|held| {
            let until = rfc3339(held.good_until_us / 1000);
            format!("{} as of {until}", held.table_partition)
        })
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "table partitions {} are older than the last backup: the source had lost rows of them by then",
            named(&names)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::manifest::{FORMAT, RunPartition};

    fn version(generation: u64, snapshot_us: i64) -> Version {
        Version {
            generation,
            snapshot_us,
            last_modified_us: 0,
            table_created_ms: 1,
            expires_us: None,
            rows: 0,
            source_bytes: 0,
            stored_bytes: 0,
            digest: "0".repeat(32),
            digest_version: 1,
            schema_hash: String::new(),
            key_id: None,
            blocks: Vec::new(),
        }
    }

    fn manifest(name: &str, versions: Vec<Version>) -> Manifest {
        Manifest {
            format: FORMAT,
            table: "d.t".into(),
            table_id: "p:d.t".into(),
            table_partition: name.into(),
            versions,
            retired: Vec::new(),
            check: String::new(),
        }
    }

    fn run(manifests: &[Manifest]) -> Run {
        let entry = |manifest: &Manifest| RunPartition {
            table_partition: manifest.table_partition.clone(),
            generation: 3,
            rows: 0,
            version_xxh3: String::new(),
            key_ids: Vec::new(),
        };
        Run {
            format: FORMAT,
            run_id: "r".into(),
            table: "d.t".into(),
            table_id: "p:d.t".into(),
            table_created_ms: 1,
            snapshot_us: 0,
            completed_us: 0,
            schema_hash: String::new(),
            watermark: None,
            table_partitions: manifests.iter().map(entry).collect(),
            held: Vec::new(),
            census: None,
            check: String::new(),
        }
    }

    fn generations(chosen: &Chosen) -> Vec<u64> {
        chosen.taken.iter().map(|taken| taken.version.generation).collect()
    }

    #[test]
    fn the_last_complete_backup_is_taken_not_one_under_way() {
        let manifests = [manifest("20261101", vec![version(4, 40), version(3, 30)])];
        let chosen = choose(&run(&manifests), &manifests, &Wanted::default()).unwrap();
        assert_eq!(generations(&chosen), [3]);
    }

    #[test]
    fn an_earlier_time_takes_what_was_there_then_and_names_the_rest() {
        let manifests = [
            manifest("20261101", vec![version(2, 20), version(1, 10)]),
            manifest("20261102", vec![version(1, 30)]),
        ];
        let wanted = Wanted { as_of_us: Some(15), ..Wanted::default() };
        let chosen = choose(&run(&manifests), &manifests, &wanted).unwrap();
        assert_eq!((generations(&chosen), chosen.later), (vec![1], vec!["20261102".to_owned()]));
        // Versions that old were there, and are not kept any more.
        let pruned = [manifest("20261101", vec![version(3, 20)])];
        let error = choose(&run(&pruned), &pruned, &wanted).unwrap_err();
        assert_eq!(error.kind(), Kind::Difference);
    }

    #[test]
    fn copies_of_a_re_created_table_are_refused_unless_named() {
        let new = Version { table_created_ms: 2, ..version(3, 30) };
        let manifests = [manifest("20261101", vec![new])];
        let error = choose(&run(&manifests), &manifests, &Wanted::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.hint().unwrap().contains("--accept-recreated d.t"));
        let wanted = Wanted { accept_recreated: true, ..Wanted::default() };
        assert_eq!(generations(&choose(&run(&manifests), &manifests, &wanted).unwrap()), [3]);
    }

    #[test]
    fn what_has_expired_is_left_out_by_name() {
        let old = Version { expires_us: Some(5), ..version(1, 1) };
        let manifests = [manifest("20250101", vec![old])];
        let wanted = Wanted { now_us: 5, ..Wanted::default() };
        let chosen = choose(&run(&manifests), &manifests, &wanted).unwrap();
        assert_eq!((chosen.taken.len(), chosen.expired), (0, vec!["20250101".to_owned()]));
    }

    #[test]
    fn ranges_of_table_partitions_include_both_ends() {
        let range = PartitionRange::parse("20261101..20261130").unwrap();
        assert!(range.contains("20261101") && range.contains("20261130"));
        assert!(!range.contains("20261201") && !range.contains("__NULL__"));
        assert!(PartitionRange::parse("__NULL__").unwrap().contains("__NULL__"));
        assert!(PartitionRange::parse("5..100").unwrap().contains("70"));
        for wrong in ["", "..", "b..a", "20261101..", "a b", "x..*"] {
            assert!(PartitionRange::parse(wrong).is_err(), "{wrong}");
        }
    }
}
