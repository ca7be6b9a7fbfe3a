//! Verifications of BigQuery in tests: how they are run, what they named, and ways to damage a duplicate on purpose.
//!
//! Invariant: what is damaged here is damaged through the documented formats alone, and can be put back byte by byte.

use crate::cloud::Cloud;
use crate::world::Ran;
use arrow::record_batch::RecordBatch;
use redis::Commands;
use schemas::Digest;
use schemas::block::{self, Header};
use schemas::manifest::{BlockEntry, Keys, Manifest, Run, RunPartition};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Every key with its value and its time to live.
pub(crate) type Image = BTreeMap<String, (Vec<u8>, i64)>;

impl Cloud {
    /// Runs `verify bigquery --json` and more words.
    pub(crate) fn verify(&self, more: &[&str]) -> Ran {
        let words = ["verify", "bigquery", "--json", "--progress", "none", "--retry-for", "2s"];
        Ran::of(&self.command(&[&words[..], more].concat()).output().unwrap())
    }

    /// The same of the full tier; asserts the exit code and that nothing was written on either side.
    #[track_caller]
    pub(crate) fn verify_full(&self, code: i32) -> Value {
        let (image, rows) = (self.image(), self.sql("SELECT COUNT(*) FROM d.t"));
        let summary = self.verify(&["--tier", "full"]).expect(code).summary();
        assert!(self.image() == image, "a verification wrote to redis");
        assert_eq!(self.sql("SELECT COUNT(*) FROM d.t"), rows);
        let state = std::fs::read_dir(self.folder.path().join(".rekindle")).unwrap();
        let folders = state.map(Result::unwrap).filter(|entry| entry.path().is_dir());
        let scratch =
            folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("verify"));
        assert_eq!(scratch.count(), 0, "bucket files stay behind");
        summary
    }

    /// Every key of the server.
    pub(crate) fn image(&self) -> Image {
        let mut connection = self.connection();
        let keys: Vec<String> = connection.keys("*").unwrap();
        let mut image = Image::new();
        for key in keys {
            let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut connection).unwrap();
            let expires: i64 = redis::cmd("PEXPIRETIME").arg(&key).query(&mut connection).unwrap();
            image.insert(key, (value, expires));
        }
        image
    }

    /// The findings of the last verification that speak of something, in one field.
    pub(crate) fn found(&self, what: &str, field: &str) -> BTreeSet<String> {
        let path = self.folder.path().join(".rekindle/verify-bigquery.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of = lines.filter(|line| line["what"] == what);
        of.filter_map(|line| line[field].as_str().map(str::to_owned)).collect()
    }

    /// The keys of all blocks, in order.
    pub(crate) fn block_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.connection().keys("log:b:*").unwrap();
        keys.sort();
        keys
    }

    pub(crate) fn value(&self, key: &str) -> Vec<u8> {
        self.connection().get(key).unwrap()
    }

    pub(crate) fn put(&self, key: &str, value: &[u8]) {
        let _: () = self.connection().set(key, value).unwrap();
    }

    /// The published manifest of a table partition.
    pub(crate) fn manifest(&self, id: &str) -> Manifest {
        Manifest::parse(&self.value(&format!("log:m:{id}")), id).unwrap()
    }

    /// Publishes a manifest, and has the record of the last complete backup name it: nothing is left to show that it
    /// is not the one that was written.
    pub(crate) fn publish_as_recorded(&self, mut manifest: Manifest) {
        let key = format!("log:m:{}", manifest.table_partition);
        let mut run: Run = self.recorded();
        for part in &mut run.table_partitions {
            if part.table_partition == manifest.table_partition {
                *part = RunPartition::of(&manifest).unwrap();
            }
        }
        manifest.check.clear();
        self.put(&key, &manifest.to_json());
        self.put("log:run", &run.to_json());
    }

    /// Writes the newest copy of a table partition anew with other rows, every hash and digest right: as if BigQuery
    /// had other rows and did not say so.
    pub(crate) fn falsify(&self, id: &str, change: impl Fn(&RecordBatch) -> RecordBatch) {
        let keys = Keys::new("log");
        let mut manifest = self.manifest(id);
        let version = &mut manifest.versions[0];
        let key = keys.block(id, version.generation, 0);
        assert_eq!(version.blocks.len(), 1, "only a single block is falsified");
        let value = self.value(&key);
        let (header, body) = block::open(&value).unwrap();
        let rows = change(&block::decode(&header, body).unwrap());
        let mut bodies = block::encode(&[rows]).unwrap();
        let body = bodies.remove(0);
        let header = Header {
            rows: body.rows,
            digest: body.digest,
            raw_bytes: body.raw_bytes,
            body_bytes: body.bytes.len() as u64,
            body_xxh3: body.xxh3,
            ..header
        };
        let header = header.to_bytes();
        let entry = BlockEntry::of(&body, header.len());
        let digest: Digest = body.digest;
        version.rows = digest.count;
        version.digest = digest.hex();
        version.stored_bytes = entry.bytes();
        version.blocks = vec![entry];
        self.put(&key, &[header, body.bytes].concat());
        self.publish_as_recorded(manifest);
    }
}

/// The table partition of a name in a summary.
pub(crate) fn part<'a>(summary: &'a Value, id: &str) -> &'a Value {
    let parts = summary["tables"][0]["parts"].as_array().unwrap_or_else(|| panic!("{summary}"));
    let found = parts.iter().find(|part| part["table_partition"] == id);
    found.unwrap_or_else(|| panic!("{id} is not in {summary}"))
}

/// A generator of numbers from a seed (`SplitMix64`).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// So many different numbers below an end.
    pub(crate) fn some(&mut self, count: usize, end: usize) -> BTreeSet<usize> {
        let mut taken = BTreeSet::new();
        while taken.len() < count.min(end) {
            taken.insert(self.below(end));
        }
        taken
    }
}
