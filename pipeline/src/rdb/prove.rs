//! Reads the finished files back, whole, and compares them with the ledger.
//!
//! Invariant: every byte of a file is read and summed up, every key and expiry is compared with the ledger, entry by entry
//! in the order they were written, and the values of a sample; the reader shares no code with what wrote the files.
//! Memory: two batches per thread.

use crate::catch_up::partitions_of;
use crate::engine::Engine;
use crate::ledger::FrameReader;
use crate::readback::{ReadBack, SAMPLE};
use futures::{StreamExt, TryStreamExt};
use schemas::key::key_hash;
use schemas::{BoundRoute, PartitionId, SlotCut};
use stages::crc64::{checksum, joined};
use stages::extract::rdb_entries::{FileBytes, ValueHasher};
use stages::load::Difference;
use stages::load::rdb::{Extent, Finished, RdbSink};
use stages::{Error, Kind, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What stands behind the entries: one byte, and the checksum.
const TAIL_BYTES: usize = 9;
const END: u8 = 0xff;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Proof {
    pub(super) found: ReadBack,
    /// What is wrong with files as a whole.
    faults: Vec<String>,
}

impl Proof {
    /// What the files differ in, if in anything.
    pub(super) fn difference(&self) -> Option<Error> {
        let ReadBack { missing, different, examples, .. } = &self.found;
        if self.found.differences() == 0 && self.faults.is_empty() {
            return None;
        }
        let told: Vec<&str> = self.faults.iter().chain(examples).map(String::as_str).collect();
        let message = format!(
            "the rdb files were read back with {missing} keys missing and {different} different: {}",
            told.join(", ")
        );
        Some(Error::new(Kind::Difference, message).with_hint(
            "see to the disk and the memory of this machine, then run the same command again: it writes everything again",
        ))
    }
}

/// What one partition wrote, to be read back.
struct Job {
    partition: PartitionId,
    bound: Arc<BoundRoute>,
    ledger: PathBuf,
    batches: Vec<Vec<Extent>>,
    /// Of all keys one in so many is compared by its value.
    every: u128,
    shared: Arc<Files>,
}

/// The files, open for reading.
struct Files {
    files: Vec<(PathBuf, File)>,
    cut: Arc<SlotCut>,
}

/// What reading one partition gave.
struct Read {
    found: ReadBack,
    faults: Vec<String>,
    /// Node, offset, bytes, and the checksum of what was read.
    sums: Vec<(u16, u64, u64, u64)>,
}

/// Reads everything back.
pub(super) async fn prove(
    engine: &Engine,
    files: &RdbSink,
    finished: &[Finished],
) -> Result<Proof> {
    let open = |file: &Finished| {
        let opened = File::open(&file.hidden).map_err(|error| unreadable(&file.hidden, &error))?;
        Ok((file.hidden.clone(), opened))
    };
    let cut = Arc::clone(&files.place().cut);
    let open = finished.iter().map(open).collect::<Result<Vec<_>>>()?;
    let shared = Arc::new(Files { files: open, cut });
    let mut jobs = Vec::new();
    for route in &engine.routes {
        let entries = engine.shared.ledger.entries(route.name())?;
        for record in partitions_of(engine, route.name()).await? {
            let partition = record.partition.id;
            jobs.push(Job {
                bound: Arc::clone(&route.bound),
                ledger: engine.shared.ledger.path(&partition),
                batches: files.batches(&partition)?,
                every: u128::from((entries / SAMPLE).max(1)),
                shared: Arc::clone(&shared),
                partition,
            });
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let reads = futures::stream::iter(jobs)
        .map(|job| super::blocking(move || job.read()))
        .buffer_unordered(threads);
    let mut proof = Proof::default();
    let mut sums = vec![Vec::new(); finished.len()];
    let mut reads = std::pin::pin!(reads);
    while let Some(Read { found, faults, sums: read }) = reads.try_next().await? {
        proof.found.add(&found);
        proof.faults.extend(faults);
        for (node, offset, bytes, sum) in read {
            sums[usize::from(node)].push((offset, bytes, sum));
        }
    }
    for ((file, (path, opened)), mut sums) in finished.iter().zip(&shared.files).zip(sums) {
        sums.sort_unstable();
        let fault = whole(file, opened, &sums).map_err(|error| unreadable(path, &error))?;
        proof.faults.extend(fault.map(|fault| format!("{}: {fault}", path.display())));
    }
    Ok(proof)
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Internal, format!("cannot read {} back: {error}", path.display()))
        .with_hint("see to the disk, then run the same command again: it resumes")
}

/// Whether what stands around the entries is right, and the checksum at the end that of all bytes before it.
fn whole(
    file: &Finished,
    opened: &File,
    sums: &[(u64, u64, u64)],
) -> std::io::Result<Option<String>> {
    let length = opened.metadata()?.len();
    let mut head = vec![0; usize::try_from(file.header_bytes).unwrap_or(0)];
    opened.read_exact_at(&mut head, 0)?;
    let mut tail = [0; TAIL_BYTES];
    opened.read_exact_at(&mut tail, length.saturating_sub(TAIL_BYTES as u64))?;
    let (mut crc, mut at) = (checksum(&head), file.header_bytes);
    for (offset, bytes, sum) in sums {
        if *offset != at {
            return Ok(Some(format!("entries from {at} to {offset} belong to no partition")));
        }
        crc = joined(crc, *sum, *bytes);
        at += bytes;
    }
    let crc = joined(crc, checksum(&tail[..1]), 1);
    let mut bytes = FileBytes::new(&head);
    Ok(match bytes.head() {
        Err(error) => Some(error.to_string()),
        Ok(_) if bytes.at() as u64 != file.header_bytes => Some("its head is too long".into()),
        Ok(found) if (found.keys, found.expiring) != (file.keys, file.expiring) => {
            Some(format!("it says that it has {} keys, and has {}", found.keys, file.keys))
        }
        Ok(found) if found.version != super::RDB_VERSION => Some("it is of another version".into()),
        Ok(_) if length != at + TAIL_BYTES as u64 || tail[0] != END => {
            Some("it does not end where it should".into())
        }
        Ok(_) if tail[1..] != crc.to_le_bytes() => {
            Some("its checksum is not that of its bytes".into())
        }
        Ok(_) => None,
    })
}

impl Job {
    /// Reads the batches beside the frames of the ledger: both are in the order of the attempt that wrote them.
    fn read(self) -> Result<Read> {
        let mut read = Read { found: ReadBack::default(), faults: Vec::new(), sums: Vec::new() };
        if self.batches.is_empty() && !self.ledger.exists() {
            return Ok(read);
        }
        let mut frames = FrameReader::open(&self.ledger)?;
        let mut hasher = ValueHasher::new(&self.bound);
        let mut buffers: Vec<(u16, Vec<u8>)> = Vec::new();
        for batch in &self.batches {
            let Some(frame) = frames.next_frame()? else {
                read.faults
                    .push(format!("partition {} has more batches than the ledger", self.partition));
                break;
            };
            self.load(batch, &mut buffers, &mut read)?;
            let mut nodes: Vec<(u16, FileBytes<'_>)> =
                buffers.iter().map(|(node, bytes)| (*node, FileBytes::new(bytes))).collect();
            for (key, hash, expires_ms) in frame.iter() {
                read.found.counted += 1;
                let wanted = self.shared.cut.node_of(key);
                let node = nodes.iter_mut().find(|(node, _)| usize::from(*node) == wanted);
                let entry = node.and_then(|(_, bytes)| bytes.entry().ok().flatten());
                let Some(entry) = entry.filter(|entry| entry.key == key) else {
                    read.found.note(key, Difference::Missing);
                    continue;
                };
                if entry.expires_ms != expires_ms {
                    read.found.note(key, Difference::Expiry);
                }
                let is_compared = key_hash(key).is_multiple_of(self.every);
                read.found.compared += u64::from(is_compared);
                if is_compared && hasher.hash(entry.value).ok().flatten() != Some(hash) {
                    read.found.note(key, Difference::Value);
                }
            }
            if nodes.iter_mut().any(|(_, bytes)| !matches!(bytes.entry(), Ok(None))) {
                read.faults
                    .push(format!("a batch of partition {} has entries of no row", self.partition));
            }
        }
        if frames.next_frame()?.is_some() {
            read.faults.push(format!(
                "the ledger of partition {} has more batches than the files",
                self.partition
            ));
        }
        Ok(read)
    }

    /// Reads the extents of a batch, and compares their sums with those of what was encoded.
    fn load(
        &self,
        batch: &[Extent],
        buffers: &mut Vec<(u16, Vec<u8>)>,
        read: &mut Read,
    ) -> Result<()> {
        buffers.resize_with(batch.len(), || (0, Vec::new()));
        for (Extent { offset, part }, (node, buffer)) in batch.iter().zip(buffers) {
            let (path, file) = &self.shared.files[usize::from(part.node)];
            *node = part.node;
            buffer.resize(usize::try_from(part.bytes).unwrap_or(usize::MAX), 0);
            file.read_exact_at(buffer, *offset).map_err(|error| unreadable(path, &error))?;
            let sum = checksum(buffer);
            if sum != part.crc {
                read.faults.push(format!("{} was altered behind byte {offset}", path.display()));
            }
            read.sums.push((part.node, *offset, part.bytes, sum));
        }
        Ok(())
    }
}
