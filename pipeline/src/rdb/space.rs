//! Whether the files of a run fit where they are to be: projected before the first write.
//!
//! Invariant: what is unknown is said and never taken as fitting; nothing of a run was written when it is refused.

use crate::cli::figures::bytes;
use crate::engine::Engine;
use crate::guard::fits::{Remaining, remaining, rows};
use crate::guard::{PARTITIONS_MAX, PATIENCE, first_batch};
use nix::sys::statvfs::statvfs;
use stages::load::rdb::RdbSink;
use stages::{Error, Kind, Result};
use std::path::Path;

/// Projects what is still to be written and refuses a run without room for it; returns what is unknown.
pub async fn check(engine: &Engine, files: &RdbSink) -> Result<Vec<String>> {
    let (mut needed, mut told, mut unknown) = (0_u64, Vec::new(), Vec::new());
    for left in remaining(engine).await? {
        let name = left.route.name().to_owned();
        let count = rows(&left).await?;
        if left.partitions.is_empty() || count == Some(0) {
            continue;
        }
        let (Some(count), Some(per_row)) = (count, bytes_per_row(&left).await?) else {
            unknown.push(format!("route {name}: what it needs on disk is UNKNOWN and not counted"));
            continue;
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let sum = (count as f64 * per_row) as u64;
        needed = needed.saturating_add(sum);
        told.push(format!("{name}: ~{count} rows x {per_row:.0} B = {}", bytes(sum)));
    }
    let folder = &files.place().folder;
    let Some(free) = free_bytes(folder) else {
        unknown.push(format!("the free space of {} is UNKNOWN", folder.display()));
        return Ok(unknown);
    };
    tracing::info!(needed = bytes(needed), free = bytes(free), "room for the rdb files");
    if needed <= free {
        return Ok(unknown);
    }
    let message = format!(
        "{} has no room for the rdb files: about {} are needed and {} are free\n  {}",
        folder.display(),
        bytes(needed),
        bytes(free),
        told.join("\n  ")
    );
    Err(Error::new(Kind::Capacity, message).with_hint(
        "free space there, name another folder with --to-rdb, or leave routes out with --route",
    ))
}

/// What a row takes in a file, by the beginnings of some partitions; `None` where no row could be looked at in time.
async fn bytes_per_row(left: &Remaining<'_>) -> Result<Option<f64>> {
    let (mut written, mut read) = (0, 0);
    let step = left.partitions.len().div_ceil(PARTITIONS_MAX).max(1);
    for (partition, position) in left.partitions.iter().step_by(step) {
        let reading = tokio::time::timeout(PATIENCE, first_batch(left.route, partition, position));
        let encoded = match reading.await {
            Err(_) => continue,
            Ok(Err(error)) if error.kind().is_transient() => return Err(error),
            Ok(Err(_)) => return Ok(None),
            Ok(Ok(encoded)) => encoded,
        };
        written += encoded.iter().map(|encoded| encoded.payload.len() as u64).sum::<u64>();
        read += encoded.iter().map(|encoded| encoded.rows_read).sum::<u64>();
    }
    Ok((read > 0).then(|| written as f64 / read as f64))
}

/// Free bytes where a folder is or will be.
fn free_bytes(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let there = absolute.ancestors().find(|folder| folder.exists())?;
    let facts = statvfs(there).ok()?;
    Some(facts.blocks_available().saturating_mul(facts.fragment_size()))
}
