//! After a run that used more than one snapshot: finds the keys it wrote whose rows are gone, and removes them.
//!
//! Invariant: only keys from this run's own ledger are ever removed, and only when the source, read whole in
//! one snapshot, no longer renders them. Keys the application wrote are never touched; where versions are compared, not
//! even under a key of this run. A key that only a doubted part of the ledger names may be left of a row that has become a
//! reject; it stays where it is, and the read-back does not ask for it.

use crate::keys::{Buckets, read_keys};
use crate::lane::Shared;
use crate::ledger::{Doubt, Frame, FrameReader, io_error};
use crate::route::RouteRun;
use bytes::Bytes;
use schemas::Partition;
use schemas::key::key_hash;
use schemas::plan::OnConflict;
use schemas::version::OLDEST;
use stages::extract::Snapshot;
use stages::failpoint::{Point, pass};
use stages::load::Versioned;
use stages::{Error, Kind, Result};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Entries per frame of the compacted ledger.
const FRAME_ENTRIES: usize = 4096;

/// What a reconciliation found.
#[derive(Debug)]
pub struct Reconciled {
    /// The snapshot the source was read in; absent when there was nothing to read.
    pub snapshot: Option<Snapshot>,
    /// Keys of rows that are gone, named in the run's list of dropped keys.
    pub dropped: u64,
    /// Whether these are all of the run: where versions are compared, those that were removed before are not found again.
    pub is_total: bool,
}

/// Reconciles one route; `partitions` must cover its rows.
pub async fn reconcile(
    shared: &Shared,
    route: &RouteRun,
    partitions: &[Partition],
) -> Result<Reconciled> {
    let scratch = shared.ledger.scratch();
    let name = route.name();
    let estimate = shared.ledger.entries(name)?;
    let mut written = Buckets::create(&scratch, &format!("{name}-written"), estimate)?;
    spread_ledger(shared, name, &mut written)?;
    // As many buckets as on the other side, or equal keys would not meet.
    let mut present = Buckets::create(&scratch, &format!("{name}-present"), estimate)?;
    let snapshot = read_keys(&shared.cpu, route, partitions, &mut |keys| {
        keys.hashes().try_for_each(|hash| present.push(hash, &[]))
    })
    .await?;
    let mut output = Output::create(shared, route)?;
    let on_conflict = route.bound.route.on_conflict;
    let may_remove = on_conflict == OnConflict::Replace && route.has_own_keys;
    for (written, present) in written.finish()?.into_iter().zip(present.finish()?) {
        // Only what was written is held in memory; the source, which may be far larger, streams past.
        let mut entries: HashMap<u128, (Vec<u8>, bool)> = HashMap::new();
        written.for_each(&mut |record| {
            let stands = |(held, _): &(Vec<u8>, bool)| outdates(&record.payload, held);
            if entries.get(&record.hash).is_none_or(stands) {
                entries.insert(record.hash, (record.payload, false));
            }
            Ok(())
        })?;
        present.for_each(&mut |record| {
            if let Some((_, is_present)) = entries.get_mut(&record.hash) {
                *is_present = true;
            }
            Ok(())
        })?;
        let mut gone = Vec::new();
        for (payload, is_present) in entries.into_values() {
            let entry = unpack(&payload)?;
            if is_present && origin(&payload).is_doubted {
                continue;
            }
            if is_present {
                output.keep(&entry)?;
            } else {
                gone.push(entry);
            }
        }
        if on_conflict == OnConflict::Newest {
            // An application may have removed a key itself, or written one for a row that is there again.
            if route.has_own_keys {
                for at in shared.sink.remove_unless_newer(&route.bound, &gone).await? {
                    output.name(&gone[at].key)?;
                }
            }
            continue;
        }
        gone.iter().try_for_each(|entry| output.name(&entry.key))?;
        if may_remove && !gone.is_empty() {
            let keys: Vec<Bytes> = gone.into_iter().map(|entry| entry.key).collect();
            shared.sink.remove(&keys).await?;
            pass(Point::DroppedRemoved);
        }
    }
    let dropped = output.finish()?;
    Ok(Reconciled { snapshot, dropped, is_total: on_conflict != OnConflict::Newest })
}

fn spread_ledger(shared: &Shared, route: &str, buckets: &mut Buckets) -> Result<()> {
    let mut payload = Vec::new();
    for (file, path) in (0..).zip(shared.ledger.raw_files(route)?) {
        let mut reader = FrameReader::open(&path)?;
        let doubt = Doubt::of(&path)?;
        let mut start = reader.bytes_read();
        while let Some(frame) = reader.next_frame()? {
            let origin = Origin { file, is_doubted: doubt.covers(start) };
            for (index, (key, hash, expires_ms)) in frame.iter().enumerate() {
                let version = frame.version(index).unwrap_or(OLDEST);
                pack(key, (hash, expires_ms, version), origin, &mut payload);
                buckets.push(key_hash(key), &payload)?;
            }
            start = reader.bytes_read();
        }
    }
    Ok(())
}

/// Where in the ledger an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    /// The number of the file, in the order of the cut.
    file: u64,
    /// Whether the write that it describes may not have arrived.
    is_doubted: bool,
}

/// Whether the entry that comes later is what the target holds.
///
/// A later frame of a partition describes a later write, but partitions come in the order of their cut: where versions are
/// compared, one that was read again earlier in that order may have written what is newer, and what is doubted says nothing
/// against a write of another partition that arrived.
fn outdates(later: &[u8], held: &[u8]) -> bool {
    let (from, before) = (origin(later), origin(held));
    let is_hearsay = from.is_doubted && !before.is_doubted && from.file != before.file;
    number(later, 16) >= number(held, 16) && !is_hearsay
}

/// The 8 bytes at a place.
fn eight(payload: &[u8], at: usize) -> Option<[u8; 8]> {
    payload.get(at..at + 8).and_then(|bytes| bytes.try_into().ok())
}

fn number(payload: &[u8], at: usize) -> Option<i64> {
    eight(payload, at).map(i64::from_le_bytes)
}

fn origin(payload: &[u8]) -> Origin {
    let packed = eight(payload, 24).map_or(0, u64::from_le_bytes);
    Origin { file: packed >> 1, is_doubted: packed & 1 == 1 }
}

fn pack(
    key: &[u8],
    (hash, expires_ms, version): (u64, i64, i64),
    origin: Origin,
    payload: &mut Vec<u8>,
) {
    payload.clear();
    payload.extend_from_slice(&hash.to_le_bytes());
    payload.extend_from_slice(&expires_ms.to_le_bytes());
    payload.extend_from_slice(&version.to_le_bytes());
    payload.extend_from_slice(&(origin.file << 1 | u64::from(origin.is_doubted)).to_le_bytes());
    payload.extend_from_slice(key);
}

fn unpack(payload: &[u8]) -> Result<Versioned> {
    let eight = |at: usize| eight(payload, at);
    match (eight(0), eight(8), eight(16), payload.get(32..)) {
        (Some(hash), Some(expiry), Some(version), Some(key)) => Ok(Versioned {
            key: Bytes::copy_from_slice(key),
            value_hash: u64::from_le_bytes(hash),
            expires_ms: i64::from_le_bytes(expiry),
            version: i64::from_le_bytes(version),
        }),
        _ => Err(Error::new(Kind::Internal, "a spool record is too short")),
    }
}

/// The compacted ledger and the list of dropped keys.
struct Output<'a> {
    shared: &'a Shared,
    route: &'a str,
    temporary: PathBuf,
    compacted: File,
    frame: Frame,
    names_path: PathBuf,
    names: Option<File>,
    dropped: u64,
    has_versions: bool,
}

impl<'a> Output<'a> {
    fn create(shared: &'a Shared, route: &'a RouteRun) -> Result<Self> {
        let has_versions = route.bound.version.is_some();
        let adds_up = route.bound.route.on_conflict == OnConflict::Newest;
        let route = route.name();
        let mut temporary = shared.ledger.compacted(route).into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let compacted = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|error| io_error("create", &temporary, error))?;
        let names_path = shared.ledger.dropped_names(route);
        if !adds_up {
            // All of them are found once more.
            shared.ledger.forget_dropped(route)?;
        }
        let frame = Frame::default();
        Ok(Self {
            shared,
            route,
            temporary,
            compacted,
            frame,
            names_path,
            names: None,
            dropped: 0,
            has_versions,
        })
    }

    fn keep(&mut self, entry: &Versioned) -> Result<()> {
        let Versioned { key, value_hash, expires_ms, version } = entry;
        if self.has_versions {
            self.frame.push_version(key, *value_hash, *expires_ms, *version);
        } else {
            self.frame.push(key, *value_hash, *expires_ms);
        }
        if self.frame.len() >= FRAME_ENTRIES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = self.frame.take_encoded()?;
        self.compacted.write_all(&bytes).map_err(|error| io_error("write", &self.temporary, error))
    }

    fn name(&mut self, key: &[u8]) -> Result<()> {
        self.dropped += 1;
        let failed = |error| io_error("write", &self.names_path, error);
        if self.names.is_none() {
            let file =
                OpenOptions::new().append(true).create(true).mode(0o600).open(&self.names_path);
            self.names = Some(file.map_err(failed)?);
        }
        if let Some(file) = &mut self.names {
            let mut line = key.to_vec();
            line.push(b'\n');
            file.write_all(&line).map_err(failed)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        self.flush()?;
        let failed = |error| io_error("write", &self.temporary, error);
        self.compacted.sync_all().map_err(failed)?;
        std::fs::rename(&self.temporary, self.shared.ledger.compacted(self.route))
            .map_err(failed)?;
        pass(Point::LedgerCompacted);
        Ok(self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_stands_and_of_equal_ones_the_later_write() {
        let of = |origin: Origin, hash: u64, version: i64| {
            let mut payload = Vec::new();
            pack(b"item:1", (hash, 0, version), origin, &mut payload);
            payload
        };
        let sure = Origin { file: 3, is_doubted: false };
        let packed = |hash: u64, version: i64| of(sure, hash, version);
        assert!(outdates(&packed(1, 5), &packed(2, 5)));
        assert!(outdates(&packed(1, 6), &packed(2, 5)));
        assert!(!outdates(&packed(1, 5), &packed(2, 6)));
        assert!(!outdates(&packed(1, OLDEST), &packed(2, -5)));
        // What an attempt listed and may not have sent is no reason to doubt what another partition has written.
        let doubted = |file: u64| of(Origin { file, is_doubted: true }, 9, 5);
        assert!(outdates(&doubted(3), &packed(1, 5)) && outdates(&packed(1, 5), &doubted(3)));
        assert!(!outdates(&doubted(4), &packed(1, 5)) && outdates(&doubted(4), &doubted(3)));
        assert_eq!(origin(&doubted(4)), Origin { file: 4, is_doubted: true });
        let entry = unpack(&packed(7, -5)).unwrap();
        assert_eq!((&entry.key[..], entry.value_hash, entry.version), (&b"item:1"[..], 7, -5));
    }
}
