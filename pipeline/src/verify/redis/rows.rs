//! The rows behind some keys, read once more: by value where the source can find them, else by reading everything.
//!
//! Invariant: a key that is not among the rows had none in the state that was read.

use super::judge::Expected;
use super::last::take_last;
use super::page::Page;
use crate::lane::now_ms;
use crate::route::RouteRun;
use schemas::{Bounds, Partition, Position};
use stages::extract::Columns;
use stages::transform::{Style, Transform};
use stages::{RawBatch, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Keys that are looked for by value at once.
pub(super) const KEYS_BY_VALUE: usize = 1_000;
/// Keys that one read of everything looks for: about 20 MB of them.
pub(super) const KEYS_BY_READING: usize = 200_000;

/// The time at which rows are encoded; see the first look.
const THEN_MS: i64 = 0;

/// A row as its source sent it.
pub(super) struct RawRow {
    /// Where it was read.
    pub(super) bounds: Bounds,
    /// The row alone.
    pub(super) raw: RawBatch,
}

/// What the rows of some keys say.
#[derive(Default)]
pub(super) struct Found {
    pub(super) expected: HashMap<Vec<u8>, Expected>,
    /// The rows themselves, where they were asked for.
    pub(super) raw: HashMap<Vec<u8>, RawRow>,
}

/// Returns how many keys are best looked for at once.
pub(super) fn keys_at_once(route: &RouteRun) -> usize {
    // Whether rows can be found by value depends on the types of the columns, not on the keys.
    if route.source.rows_of(&[]).is_some() { KEYS_BY_VALUE } else { KEYS_BY_READING }
}

/// Reads the rows of keys in the state of the source as it is now; the caller has let the last one go.
pub(super) async fn find(route: &RouteRun, keys: &[&[u8]], wants_raw: bool) -> Result<Found> {
    let wanted: HashSet<&[u8]> = keys.iter().copied().collect();
    let partitions = match route.source.rows_of(keys) {
        Some(partition) => vec![partition],
        None => route.source.partitions(1, 0).await?,
    };
    let mut found = Found::default();
    for partition in &partitions {
        read(route, partition, &wanted, wants_raw, &mut found).await?;
    }
    Ok(found)
}

async fn read(
    route: &RouteRun,
    partition: &Partition,
    wanted: &HashSet<&[u8]>,
    wants_raw: bool,
    found: &mut Found,
) -> Result<()> {
    let session = route.source.open().await?;
    let transform = (route.transform)(&partition.bounds, Style::Blank);
    let mut stream = session.read(partition, &Position::Start, Columns::All);
    while let Some(batch) = stream.next().await {
        let raw = batch?;
        let whole = wants_raw.then(|| copy(&raw));
        let page = Page::of_batch(transform.apply(raw, THEN_MS)?);
        let mut is_wanted = false;
        for (key, expected) in page.iter().filter(|(key, _)| wanted.contains(key)) {
            is_wanted = true;
            take_last(&mut found.expected, key, expected, now_ms());
        }
        if let Some(whole) = whole.filter(|_| is_wanted) {
            take_raw(route, partition, &*transform, &whole, wanted, found)?;
        }
    }
    Ok(())
}

fn take_raw(
    route: &RouteRun,
    partition: &Partition,
    transform: &dyn Transform,
    whole: &RawBatch,
    wanted: &HashSet<&[u8]>,
    found: &mut Found,
) -> Result<()> {
    let decoder = (route.decoder_of)(&partition.bounds);
    for raw in decoder.single_rows(whole, &route.bound.schema, whole.rows)? {
        let page = Page::of_batch(transform.apply(copy(&raw), THEN_MS)?);
        let Some((key, expected)) = page.iter().next() else { continue };
        // Of several rows with one key, the one that counts.
        if wanted.contains(key) && found.expected.get(key) == Some(&expected) {
            let row = RawRow { bounds: partition.bounds.clone(), raw };
            found.raw.insert(key.to_vec(), row);
        }
    }
    Ok(())
}

/// The bytes are shared.
fn copy(raw: &RawBatch) -> RawBatch {
    RawBatch { bytes: raw.bytes.clone(), rows: raw.rows, is_last: raw.is_last }
}

/// Encodes a row to be written over whatever its key holds, or beside it where the route keeps what is there.
pub(super) fn encode(route: &RouteRun, row: &RawRow) -> Result<stages::Encoded> {
    let transform: Arc<dyn Transform> =
        (route.transform)(&row.bounds, route.style(&row.bounds, false));
    transform.apply(copy(&row.raw), now_ms())
}
