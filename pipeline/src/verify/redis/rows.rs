//! The rows behind some keys, read once more: by value where the source can find them, else by reading everything.
//!
//! Invariant: a key that is not among the rows had none in the state that was read.

use super::judge::Expected;
use super::last::take_last;
use super::many::Groups;
use super::page::Page;
use crate::cpu::CpuPool;
use crate::lane::now_ms;
use crate::route::RouteRun;
use schemas::{BoundRoute, Bounds, Partition, Position};
use stages::extract::Columns;
use stages::transform::{Decoder, Style, Transform};
use stages::{Encoded, RawBatch, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Keys that are looked for by value at once.
pub(crate) const KEYS_BY_VALUE: usize = 1_000;
/// Keys that one read of everything looks for: about 20 MB of them.
pub(super) const KEYS_BY_READING: usize = 200_000;

/// The time at which rows are encoded; see the first look.
pub(crate) const THEN_MS: i64 = 0;

/// A row as its source sent it.
pub(crate) struct RawRow {
    /// Where it was read.
    pub(crate) bounds: Bounds,
    /// The row alone.
    pub(crate) raw: RawBatch,
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
pub(super) async fn find(
    cpu: &CpuPool,
    route: &RouteRun,
    keys: &[&[u8]],
    wants_raw: bool,
) -> Result<Found> {
    let wanted: Arc<HashSet<Vec<u8>>> = Arc::new(keys.iter().map(|key| key.to_vec()).collect());
    let mut found = Found::default();
    for partition in &partitions_of(route, keys).await? {
        let session = route.source.open().await?;
        let transform = (route.transform)(&partition.bounds, Style::Blank);
        let mut stream = session.read(partition, &Position::Start, Columns::All);
        if route.bound.is_many() {
            // Nothing is sent, so no temporary key needs a name of its own.
            let mut groups = Groups::of_keys(route, partition, &wanted, Style::Blank, "verify")?;
            while let Some(batch) = stream.next().await {
                for page in groups.pages(cpu, batch?).await? {
                    found.take_all(&page);
                }
            }
            continue;
        }
        while let Some(batch) = stream.next().await {
            let raw = batch?;
            let batch = Batch {
                transform: Arc::clone(&transform),
                wanted: Arc::clone(&wanted),
                decoder: wants_raw.then(|| (route.decoder_of)(&partition.bounds)),
                bound: Arc::clone(&route.bound),
            };
            for (key, expected, single) in cpu.submit(move || batch.wanted(raw)).await? {
                found.take(key, expected, single.map(|raw| (partition.bounds.clone(), raw)));
            }
        }
    }
    Ok(found)
}

/// What has to be read for the rows of some keys.
pub(super) async fn partitions_of(route: &RouteRun, keys: &[&[u8]]) -> Result<Vec<Partition>> {
    match route.source.rows_of(keys) {
        Some(partition) => Ok(vec![partition]),
        None => route.source.partitions(1, 0).await,
    }
}

impl Found {
    /// Takes the keys of a page.
    fn take_all(&mut self, page: &Page) {
        for (key, expected) in page.iter() {
            self.take(key.to_vec(), expected, None);
        }
    }

    fn take(&mut self, key: Vec<u8>, expected: Expected, row: Option<(Bounds, RawBatch)>) {
        take_last(&mut self.expected, &key, expected, now_ms());
        // Of several rows with one key, the one that counts.
        if let Some((bounds, raw)) = row
            && self.expected.get(&key) == Some(&expected)
        {
            self.raw.insert(key, RawRow { bounds, raw });
        }
    }
}

/// How the rows of a batch are looked through.
struct Batch {
    transform: Arc<dyn Transform>,
    wanted: Arc<HashSet<Vec<u8>>>,
    /// Present where the rows themselves are wanted.
    decoder: Option<Decoder>,
    bound: Arc<BoundRoute>,
}

type Wanted = (Vec<u8>, Expected, Option<RawBatch>);

impl Batch {
    /// Returns the rows of wanted keys, in order.
    fn wanted(&self, raw: RawBatch) -> Result<Vec<Wanted>> {
        let whole = copy(&raw);
        let page = Page::of_batch(self.transform.apply(raw, THEN_MS)?);
        let wanted: Vec<Wanted> = page
            .iter()
            .filter(|(key, _)| self.wanted.contains(*key))
            .map(|(key, expected)| (key.to_vec(), expected, None))
            .collect();
        match self.decoder {
            Some(decoder) if !wanted.is_empty() => self.singles(decoder, &whole),
            _ => Ok(wanted),
        }
    }

    fn singles(&self, decoder: Decoder, whole: &RawBatch) -> Result<Vec<Wanted>> {
        let mut found = Vec::new();
        for raw in decoder.single_rows(whole, &self.bound.schema, whole.rows)? {
            let page = Page::of_batch(self.transform.apply(copy(&raw), THEN_MS)?);
            // A row that cannot be carried has no key.
            let Some((key, expected)) = page.iter().next() else { continue };
            if self.wanted.contains(key) {
                found.push((key.to_vec(), expected, Some(raw)));
            }
        }
        Ok(found)
    }
}

/// The bytes are shared.
pub(crate) fn copy(raw: &RawBatch) -> RawBatch {
    RawBatch {
        bytes: raw.bytes.clone(),
        rows: raw.rows,
        is_last: raw.is_last,
        bytes_read: raw.bytes_read,
    }
}

/// Encodes a row to be written over whatever its key holds, or beside it where the route keeps what is there.
pub(crate) fn encode(route: &RouteRun, row: &RawRow) -> Result<Encoded> {
    let transform: Arc<dyn Transform> =
        (route.transform)(&row.bounds, route.style(&row.bounds, false));
    transform.apply(copy(&row.raw), now_ms())
}
