//! Cuts the files of a copy into partitions: consecutive files of one table partition.
//!
//! Invariant: every file is in exactly one partition, whatever was wanted; a copy without rows is one partition.

use super::TableCopy;
use schemas::{Bounds, Partition, PartitionId};

/// Cuts a copy into at least about `wanted` partitions, named `<route>/<first>..`.
pub(super) fn partitions(
    copy: &TableCopy,
    route: &str,
    wanted: usize,
    first: usize,
) -> Vec<Partition> {
    let aim = copy.bytes().div_ceil(wanted.max(1) as u64).max(1);
    let mut found: Vec<Partition> = Vec::new();
    for part in &copy.parts {
        let (mut from, mut rows, mut bytes) = (0, 0, 0);
        let last = part.version.blocks.len();
        for (place, file) in part.version.blocks.iter().enumerate() {
            rows += u64::from(file.rows());
            bytes += file.bytes();
            if bytes < aim && place + 1 < last {
                continue;
            }
            let bounds = Bounds::Files {
                table_partition: part.table_partition.clone(),
                generation: part.version.generation,
                from,
                to: ordinal(place + 1),
            };
            found.push(partition(route, first + found.len(), bounds, (rows, bytes)));
            (from, rows, bytes) = (ordinal(place + 1), 0, 0);
        }
    }
    if found.is_empty() {
        found.push(partition(route, first, Bounds::Whole, (0, 0)));
    }
    found
}

/// A manifest numbers its files with 32 bits.
fn ordinal(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn partition(route: &str, number: usize, bounds: Bounds, (rows, bytes): (u64, u64)) -> Partition {
    Partition {
        id: PartitionId(format!("{route}/{number}")),
        route: route.to_owned(),
        bounds,
        rows_estimate: rows,
        bytes_estimate: bytes,
        newest_us: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::CopiedPart;
    use super::*;
    use schemas::manifest::{BlockEntry, Keys, Version};

    fn copy(parts: &[(&str, &[u64])]) -> TableCopy {
        let part = |(name, files): &(&str, &[u64])| CopiedPart {
            table_partition: (*name).to_owned(),
            version: Version {
                generation: 3,
                snapshot_us: 0,
                last_modified_us: 0,
                table_created_ms: 0,
                expires_us: None,
                rows: 10 * files.len() as u64,
                source_bytes: 0,
                stored_bytes: files.iter().sum(),
                digest: String::new(),
                digest_version: 0,
                schema_hash: String::new(),
                key_id: None,
                blocks: files.iter().map(|bytes| BlockEntry(*bytes, 10, String::new())).collect(),
            },
        };
        TableCopy {
            table: "d.t".to_owned(),
            keys: Keys::new("log"),
            parts: parts.iter().map(part).collect(),
            as_of_us: 0,
            identity: String::new(),
        }
    }

    fn told(copy: &TableCopy, wanted: usize) -> Vec<String> {
        let told = |partition: Partition| match partition.bounds {
            Bounds::Files { table_partition, from, to, .. } => {
                format!("{} {table_partition} {from}..{to}", partition.id)
            }
            other => format!("{} {other:?}", partition.id),
        };
        partitions(copy, "hot", wanted, 5).into_iter().map(told).collect()
    }

    #[test]
    fn every_file_is_in_one_partition_and_none_is_of_two_table_partitions() {
        let copy = copy(&[("20261101", &[50, 50, 50]), ("20261102", &[]), ("20261103", &[150])]);
        assert_eq!(
            told(&copy, 3),
            ["hot/5 20261101 0..2", "hot/6 20261101 2..3", "hot/7 20261103 0..1"]
        );
        assert_eq!(told(&copy, 1), ["hot/5 20261101 0..3", "hot/6 20261103 0..1"]);
        assert_eq!(told(&copy, 1_000).len(), 4);
    }

    #[test]
    fn a_copy_without_rows_is_one_partition() {
        assert_eq!(told(&copy(&[]), 8), ["hot/5 Whole"]);
        assert_eq!(told(&copy(&[("20261101", &[])]), 8), ["hot/5 Whole"]);
    }
}
