//! Passes over the keys of a whole route in bounded memory.
//!
//! Invariant: memory is one bucket, whatever the number of keys: records are spread over bucket files by the
//! hash of their key, so that equal keys meet in the same bucket.

mod bucket;

pub use bucket::{Bucket, Buckets, Record};

use crate::cpu::CpuPool;
use crate::route::RouteRun;
use schemas::{Partition, Position};
use stages::extract::{Columns, Snapshot};
use stages::transform::keys::{RenderedKeys, render_keys};
use stages::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;

/// Reads the key columns of all `partitions` and hands every batch of keys to `take`.
///
/// Returns the snapshot the keys were read in; fails with `SnapshotLost` when it changed on the way, because
/// the keys of two snapshots prove nothing together.
pub async fn read_keys(
    cpu: &CpuPool,
    route: &RouteRun,
    partitions: &[Partition],
    take: &mut (dyn FnMut(&RenderedKeys) -> Result<()> + Send),
) -> Result<Option<Snapshot>> {
    let mut used: Option<Snapshot> = None;
    for partition in partitions {
        let session = route.source.open().await?;
        let snapshot = session.snapshot().clone();
        if used.as_ref().is_some_and(|earlier| *earlier != snapshot) {
            return Err(Error::new(
                Kind::SnapshotLost,
                format!("the snapshot changed while the keys of route {} were read", route.name()),
            ));
        }
        used = Some(snapshot);
        let mut stream = session.read(partition, &Position::Start, Columns::Key);
        while let Some(batch) = stream.next().await {
            let raw = batch?;
            let key_only = Arc::clone(&route.key_only);
            let decoder = route.key_decoder;
            let keys = cpu.submit(move || render_keys(&raw, decoder, &key_only)).await?;
            take(&keys)?;
        }
    }
    Ok(used)
}

/// Looks for two rows with one key, before the first write.
///
/// Fails with `Data`, naming up to five keys, when there are any.
pub async fn check_collisions(
    cpu: &CpuPool,
    route: &RouteRun,
    partitions: &[Partition],
    scratch: &Path,
) -> Result<()> {
    let rows: u64 = partitions.iter().map(|partition| partition.rows_estimate).sum();
    let mut buckets = Buckets::create(scratch, &format!("{}-keys", route.name()), rows)?;
    read_keys(cpu, route, partitions, &mut |keys| {
        keys.iter().zip(keys.hashes()).try_for_each(|(key, hash)| buckets.push(hash, key))
    })
    .await?;
    let mut colliding = 0_u64;
    let mut examples: Vec<String> = Vec::new();
    for bucket in buckets.finish()? {
        let mut seen = std::collections::HashSet::new();
        bucket.for_each(&mut |record: Record| {
            if !seen.insert(record.hash) {
                colliding += 1;
                if examples.len() < 5 {
                    examples.push(String::from_utf8_lossy(&record.payload).into_owned());
                }
            }
            Ok(())
        })?;
    }
    if colliding == 0 {
        return Ok(());
    }
    Err(Error::new(
        Kind::Data,
        format!(
            "route {}: {colliding} rows render to a key that another row has too, for example {}",
            route.name(),
            examples.join(", ")
        ),
    )
    .with_hint(
        "add a column to key, or say on_collision = \"last\" with order_by; nothing was written",
    ))
}
