//! Manifests made again from the headers of blocks, for a duplicate that lost them.
//!
//! Invariant: a generation is taken only when its blocks are without a gap from the first to the one that says it is
//! the last; what cannot be known any more is said, never assumed.

use super::duplicate::{Duplicate, damaged};
use schemas::Digest;
use schemas::block::{BlockError, Header};
use schemas::manifest::{BlockEntry, BlockKey, FORMAT, Manifest, Run, RunPartition, Version};
use schemas::seal::id_text;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;

/// Said whenever manifests were made again.
pub(super) const GUARANTEES_GONE: &str = "manifests were made again from the headers of blocks: whole table partitions whose blocks are all gone cannot be noticed, nor generations of an unfinished backup be told from those of a finished one; every block is still checked by itself";

/// Bytes read of each block; a header is shorter.
const HEAD_BYTES: usize = 16 * 1024;

/// Looks for all blocks of a duplicate and makes manifests and the record of a backup from them.
pub(super) async fn rebuild(duplicate: &Duplicate, table: &str) -> Result<(Run, Vec<Manifest>)> {
    let prefix = format!("{}:b:", duplicate.keys.prefix());
    let mut found: BTreeMap<BlockKey, (Header, u64)> = BTreeMap::new();
    let mut cursor = 0;
    loop {
        let (next, keys) = duplicate.redis()?.scan(cursor, &prefix).await?;
        let lengths = duplicate.redis()?.lengths(&keys).await?;
        for (key, length) in keys.iter().zip(lengths) {
            let Some(place) = duplicate.keys.parse_block(key) else { continue };
            let head = duplicate.redis()?.head(key, HEAD_BYTES).await?;
            match Header::parse(&head) {
                Ok((header, _)) => drop(found.insert(place, (header, length))),
                Err(
                    error @ (BlockError::UnknownVersion { .. } | BlockError::UnknownCodec { .. }),
                ) => {
                    return Err(Error::new(Kind::Internal, format!("block {key}: {error}"))
                        .with_hint("use the newer rekindle that wrote this duplicate"));
                }
                Err(error) => return Err(damaged(format!("block {key}: {error}"))),
            }
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let manifests = manifests(&found)?;
    if manifests.is_empty() {
        return Err(damaged(format!("no complete generation of blocks was found under {prefix}")));
    }
    let newest =
        manifests.iter().filter_map(Manifest::newest).max_by_key(|version| version.snapshot_us);
    let (snapshot_us, schema_hash) = newest
        .map(|version| (version.snapshot_us, version.schema_hash.clone()))
        .unwrap_or_default();
    // The oldest: copies of a table created later are refused unless they are named.
    let created = manifests.iter().filter_map(Manifest::newest).map(|v| v.table_created_ms).min();
    let entry = |manifest: &Manifest| RunPartition {
        table_partition: manifest.table_partition.clone(),
        generation: manifest.newest().map_or(0, |version| version.generation),
        rows: manifest.newest().map_or(0, |version| version.rows),
        version_xxh3: String::new(),
        key_ids: Vec::new(),
    };
    let run = Run {
        format: FORMAT,
        run_id: String::new(),
        table: manifests.first().map_or_else(|| table.to_owned(), |m| m.table.clone()),
        table_id: manifests.first().map(|m| m.table_id.clone()).unwrap_or_default(),
        table_created_ms: created.unwrap_or(0),
        snapshot_us,
        completed_us: snapshot_us,
        schema_hash,
        watermark: None,
        table_partitions: manifests.iter().map(entry).collect(),
        held: Vec::new(),
        census: None,
        check: String::new(),
    };
    Ok((run, manifests))
}

/// Makes manifests from headers by key, generations that are not whole left out.
fn manifests(found: &BTreeMap<BlockKey, (Header, u64)>) -> Result<Vec<Manifest>> {
    let mut generations: BTreeMap<(&str, u64), Vec<(&Header, u64)>> = BTreeMap::new();
    for (key, (header, length)) in found {
        let is_own = header.table_partition == key.table_partition
            && header.generation == key.generation
            && header.ordinal == key.ordinal;
        if !is_own {
            return Err(damaged(format!(
                "block {} of table partition {} generation {} holds another block",
                key.ordinal, key.table_partition, key.generation
            )));
        }
        generations
            .entry((&key.table_partition, key.generation))
            .or_default()
            .push((header, *length));
    }
    let mut manifests: BTreeMap<&str, Manifest> = BTreeMap::new();
    let mut broken = Vec::new();
    for ((partition, generation), blocks) in generations {
        // A map of keys is in order of ordinals.
        let is_whole =
            blocks.iter().zip(0..).all(|((header, _), ordinal)| header.ordinal == ordinal)
                && blocks.last().is_some_and(|(header, _)| header.is_last);
        let Some(first) = blocks.first().map(|block| block.0).filter(|_| is_whole) else {
            broken.push(format!("table partition {partition} generation {generation}"));
            continue;
        };
        let manifest = manifests.entry(partition).or_insert_with(|| Manifest {
            format: FORMAT,
            table: first.table.clone(),
            table_id: first.table_id.clone(),
            table_partition: partition.to_owned(),
            versions: Vec::new(),
            retired: Vec::new(),
            check: String::new(),
        });
        manifest.versions.insert(0, version(first, &blocks));
    }
    let lost = broken.iter().filter(|name| {
        manifests
            .keys()
            .all(|partition| !name.starts_with(&format!("table partition {partition} ")))
    });
    let lost: Vec<String> = lost.cloned().collect();
    if !lost.is_empty() {
        return Err(damaged(format!("blocks are missing of {}", super::duplicate::named(&lost))));
    }
    Ok(manifests.into_values().collect())
}

fn version(first: &Header, blocks: &[(&Header, u64)]) -> Version {
    let mut digest = Digest::default();
    for (header, _) in blocks {
        digest += header.digest;
    }
    let entry = |(header, length): &(&Header, u64)| {
        BlockEntry(*length, header.rows, format!("{:016x}", header.body_xxh3))
    };
    Version {
        generation: first.generation,
        snapshot_us: first.snapshot_us,
        last_modified_us: first.last_modified_us,
        table_created_ms: first.table_created_ms,
        expires_us: first.expires_us,
        rows: blocks.iter().map(|(header, _)| u64::from(header.rows)).sum(),
        source_bytes: 0,
        stored_bytes: blocks.iter().map(|(_, length)| length).sum(),
        digest: digest.hex(),
        digest_version: first.digest_version,
        schema_hash: format!("{:032x}", first.schema_hash),
        key_id: first.key_id.map(id_text),
        blocks: blocks.iter().map(entry).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::block::CODEC_ZSTD_ARROW;

    fn block(
        partition: &str,
        generation: u64,
        ordinal: u32,
        is_last: bool,
    ) -> (BlockKey, (Header, u64)) {
        let header = Header {
            codec: CODEC_ZSTD_ARROW,
            is_last,
            rows: 10,
            ordinal,
            generation,
            snapshot_us: 5,
            last_modified_us: 4,
            expires_us: None,
            table_created_ms: 3,
            digest: Digest { sum: 7, count: 10 },
            digest_version: 1,
            schema_hash: 255,
            raw_bytes: 900,
            body_bytes: 90,
            body_xxh3: 1,
            key_id: None,
            table: "d.t".into(),
            table_id: "p:d.t".into(),
            table_partition: partition.into(),
        };
        (BlockKey { table_partition: partition.into(), generation, ordinal }, (header, 100))
    }

    #[test]
    fn whole_generations_become_versions_newest_first() {
        let found = [
            block("20261101", 1, 0, true),
            block("20261101", 2, 0, false),
            block("20261101", 2, 1, true),
            // Unfinished: the newest whole one counts.
            block("20261101", 3, 0, false),
        ];
        let manifests = manifests(&found.into_iter().collect()).unwrap();
        let generations: Vec<u64> = manifests[0].versions.iter().map(|v| v.generation).collect();
        assert_eq!(generations, [2, 1]);
        let newest = &manifests[0].versions[0];
        assert_eq!(
            (newest.rows, newest.stored_bytes, newest.digest()),
            (20, 200, Some(Digest { sum: 14, count: 20 }))
        );
    }

    #[test]
    fn a_table_partition_without_a_whole_generation_is_named() {
        let found = [block("20261101", 1, 0, true), block("20261102", 1, 1, true)];
        let error = manifests(&found.into_iter().collect()).unwrap_err();
        assert!(error.to_string().contains("20261102 generation 1"), "{error}");
        let (key, mut value) = block("20261101", 1, 0, true);
        value.0.ordinal = 4;
        assert!(manifests(&[(key, value)].into_iter().collect()).is_err());
    }
}
