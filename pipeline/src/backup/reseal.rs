//! Seals again, under the key of the plan, the documents that a full backup would leave as they are.
//!
//! Invariant: only the seal changes, one SET for each document; blocks stay, because their versions are published.

use super::standing::Standing;
use schemas::manifest::{Keys, TableRecord};
use stages::Result;
use stages::load::store::Store;
use std::collections::BTreeSet;

/// Writes every manifest and every recorded table that a version names once more, so that a former key is needed for
/// nothing but the blocks of older versions. Does nothing where there is no key to seal with.
pub(super) async fn documents(
    duplicate: &dyn Store,
    keys: &Keys,
    standing: &Standing,
) -> Result<()> {
    if duplicate.form().key_id().is_none() {
        return Ok(());
    }
    for (name, manifest) in &standing.manifests {
        duplicate.set(&keys.manifest(name), &manifest.to_json()).await?;
    }
    let versions = standing.manifests.values().flat_map(|manifest| &manifest.versions);
    let hashes: BTreeSet<&str> = versions.map(|version| version.schema_hash.as_str()).collect();
    for hash in hashes {
        let key = keys.schema(hash);
        let Some(text) = duplicate.get(&key).await? else { continue };
        // A damaged one is told by whoever needs it, and must not be sealed as if it were whole.
        if TableRecord::parse(&text, hash).is_ok() {
            duplicate.set(&key, &text).await?;
        }
    }
    Ok(())
}
