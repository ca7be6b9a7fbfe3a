//! Which of the copies of a table are sealed, and with which key, as the record of its last complete backup tells.
//!
//! Invariant: counts are of newest versions unless they say otherwise; a key is named by its id only.

use crate::cli::figures::{count, things};
use schemas::Seals;
use schemas::manifest::Run;
use schemas::seal::id_text;
use serde::Serialize;
use std::collections::BTreeSet;

/// How the copies of one table are sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sealing {
    /// Id of the key that the plan seals with; absent where it has none.
    pub key_id: Option<String>,
    /// Newest versions of table partitions.
    pub versions: u64,
    /// Those of them that are sealed with that key.
    pub current: u64,
    /// Those that are sealed with another key of the plan.
    pub old: u64,
    /// Those that are sealed with a key that the plan does not have at all: no restore brings them back.
    pub closed: u64,
    /// Those that are not sealed.
    pub unsealed: u64,
    /// Older versions that are kept and are not sealed with that key.
    pub older_versions: u64,
    /// Ids of keys that anything kept is sealed with and that the plan does not have, in order.
    pub missing_keys: Vec<String>,
}

impl Sealing {
    /// Reads it from the record of a backup; `None` where neither plan nor record know of a key.
    pub(super) fn of(seals: &Seals, run: &Run) -> Option<Self> {
        let key_id = seals.key_id().map(id_text);
        let is_sealed = run.table_partitions.iter().any(|part| !part.key_ids.is_empty());
        if key_id.is_none() && !is_sealed {
            return None;
        }
        let mut sealing = Self {
            key_id,
            versions: run.table_partitions.len() as u64,
            current: 0,
            old: 0,
            closed: 0,
            unsealed: 0,
            older_versions: 0,
            missing_keys: Vec::new(),
        };
        for part in &run.table_partitions {
            let newest = part.key_ids.first().filter(|id| !id.is_empty());
            match newest {
                None => sealing.unsealed += 1,
                Some(id) if Some(id) == sealing.key_id.as_ref() => sealing.current += 1,
                Some(id) if seals.has(id) => sealing.old += 1,
                Some(_) => sealing.closed += 1,
            }
            let older = part.key_ids.iter().skip(1);
            let other = older.filter(|id| Some(*id) != sealing.key_id.as_ref());
            sealing.older_versions += other.count() as u64;
        }
        let ids = run.table_partitions.iter().flat_map(|part| &part.key_ids);
        let missing = ids.filter(|id| !id.is_empty() && !seals.has(id)).cloned();
        sealing.missing_keys = missing.collect::<BTreeSet<String>>().into_iter().collect();
        Some(sealing)
    }

    /// Whether the plan has a key, and a newest version lies there unsealed.
    pub(crate) fn is_lacking(&self) -> bool {
        self.key_id.is_some() && self.unsealed > 0
    }

    /// Whether anything that is kept still needs another key, or is not sealed.
    pub(crate) fn is_behind(&self) -> bool {
        self.unsealed + self.old + self.closed + self.older_versions > 0
    }

    /// Returns it in words.
    pub(crate) fn words(&self) -> String {
        let of = things(self.versions, "newest version");
        let mut words = match &self.key_id {
            Some(id) => format!("{} of {of} sealed with key {id}", count(self.current)),
            None => format!("the plan has no encrypt_key for {of}"),
        };
        if self.old > 0 {
            words = format!("{words}, {} sealed with an old key", count(self.old));
        }
        if self.closed > 0 {
            words =
                format!("{words}, {} sealed with a key that the plan lacks", count(self.closed));
        }
        if self.unsealed > 0 {
            words = format!("{words}, {} not sealed", count(self.unsealed));
        }
        if self.older_versions > 0 && self.key_id.is_some() {
            let older = things(self.older_versions, "older version");
            words = format!("{words}, {older} with another key or none");
        }
        if !self.missing_keys.is_empty() {
            words = format!("{words}; missing keys: {}", self.missing_keys.join(", "));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::EncryptKey;
    use schemas::manifest::{FORMAT, RunPartition};

    fn run(parts: &[&[&str]]) -> Run {
        let parts = parts.iter().map(|ids| RunPartition {
            table_partition: "20261101".to_owned(),
            generation: 1,
            rows: 1,
            version_xxh3: String::new(),
            key_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        });
        Run {
            format: FORMAT,
            run_id: "r".to_owned(),
            table: "d.t".to_owned(),
            table_id: "p:d.t".to_owned(),
            table_created_ms: 1,
            snapshot_us: 1,
            completed_us: 1,
            schema_hash: String::new(),
            watermark: None,
            table_partitions: parts.collect(),
            held: Vec::new(),
            census: None,
            check: String::new(),
        }
    }

    #[test]
    fn copies_are_counted_by_the_key_that_opens_them() {
        let key = |digit: &str| EncryptKey::parse(&digit.repeat(64)).unwrap();
        let (seals, id) = (Seals::new(Some(&key("1")), &[key("2")]), key("1").id_text());
        let (id, old) = (id.as_str(), key("2").id_text());
        let old = old.as_str();
        let all = Sealing::of(&seals, &run(&[&[id], &[id, id]])).unwrap();
        assert!(!all.is_lacking() && !all.is_behind());
        assert_eq!(all.words(), format!("2 of 2 newest versions sealed with key {id}"));
        let some = Sealing::of(&seals, &run(&[&[id, old], &[old, ""], &[]])).unwrap();
        assert!(some.is_lacking() && some.is_behind());
        assert_eq!(
            some.words(),
            format!(
                "1 of 3 newest versions sealed with key {id}, 1 sealed with an old key, 1 not sealed, 2 older versions with another key or none"
            )
        );
        assert_eq!(Sealing::of(&Seals::default(), &run(&[&[], &[]])), None);
    }

    #[test]
    fn a_key_that_the_plan_lacks_is_named() {
        let key = EncryptKey::parse(&"1".repeat(64)).unwrap();
        let (seals, id) = (Seals::new(Some(&key), &[]), key.id_text());
        let lost = Sealing::of(&seals, &run(&[&[&id, "0e"], &["0f"]])).unwrap();
        assert_eq!((lost.closed, lost.is_lacking(), lost.is_behind()), (1, false, true));
        assert_eq!(
            lost.words(),
            format!(
                "1 of 2 newest versions sealed with key {id}, 1 sealed with a key that the plan lacks, 1 older version with another key or none; missing keys: 0e, 0f"
            )
        );
        let none = Sealing::of(&Seals::default(), &run(&[&["0f"], &[]])).unwrap();
        assert_eq!((none.closed, none.unsealed, none.is_lacking()), (1, 1, false));
        assert_eq!(
            none.words(),
            "the plan has no encrypt_key for 2 newest versions, 1 sealed with a key that the plan lacks, 1 not sealed; missing keys: 0f"
        );
    }
}
