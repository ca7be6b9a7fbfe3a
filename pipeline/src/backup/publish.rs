//! Publishes a manifest, and removes the blocks of generations that nothing publishes.
//!
//! Invariant: a generation is removed only after the manifest that no longer lists it as a version was stored.

use schemas::manifest::{Keys, Manifest};
use stages::Result;
use stages::failpoint::{Point, pass};
use stages::load::store::Store;

/// Makes a manifest the published one, then removes the generations it retires.
pub async fn publish(
    duplicate: &dyn Store,
    keys: &Keys,
    mut manifest: Manifest,
) -> Result<Manifest> {
    let key = keys.manifest(&manifest.table_partition);
    duplicate.set(&key, &manifest.to_json()).await?;
    pass(Point::ManifestPublished);
    if manifest.retired.is_empty() {
        return Ok(manifest);
    }
    for (generation, _) in &manifest.retired {
        remove_generation(duplicate, keys, &manifest.table_partition, *generation).await?;
    }
    pass(Point::RetiredRemoved);
    manifest.retired.clear();
    duplicate.set(&key, &manifest.to_json()).await?;
    pass(Point::ManifestTrimmed);
    Ok(manifest)
}

/// Removes the blocks of one generation; returns how many there were.
pub async fn remove_generation(
    duplicate: &dyn Store,
    keys: &Keys,
    table_partition: &str,
    generation: u64,
) -> Result<u64> {
    duplicate.remove_generation(keys, table_partition, generation).await
}
