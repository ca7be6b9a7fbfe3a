//! The rows of a route, read in lanes and reduced to hashes.
//!
//! Invariant: each row counts once, however often its partition was attempted: the hashes of an attempt lie in a file of
//! their own until it has reached its end.

use super::super::page::Tally;
use super::{Share, Sided};
use crate::cpu::CpuPool;
use crate::ledger::{io_error, make_folder};
use crate::rebuild::patiently;
use crate::route::RouteRun;
use futures::{StreamExt, TryStreamExt};
use schemas::{Partition, Position};
use stages::extract::{Columns, Snapshot};
use stages::transform::stream_rows::StreamRows;
use stages::{Error, Kind, Result};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How rows are read.
pub(super) struct Rows<'a> {
    pub(super) cpu: &'a CpuPool,
    pub(super) folder: &'a Path,
    pub(super) share: Share,
    pub(super) lanes: usize,
    pub(super) retry_for: Duration,
    pub(super) cancel: &'a CancellationToken,
}

/// What was read.
#[derive(Default)]
pub(super) struct ReadRows {
    pub(super) tally: Tally,
    /// Rows whose hashes are compared.
    pub(super) compared: u64,
    pub(super) snapshots: Vec<Snapshot>,
}

/// One partition that was read to its end.
struct Attempted {
    tally: Tally,
    compared: u64,
    snapshot: Snapshot,
    path: PathBuf,
}

impl Rows<'_> {
    /// Reads all partitions, some at once.
    pub(super) async fn read(
        &self,
        route: &RouteRun,
        cut: &[Partition],
        sided: &mut Sided,
    ) -> Result<ReadRows> {
        make_folder(self.folder)?;
        let attempts = cut.iter().enumerate().map(|(number, partition)| {
            let attempt = move || self.attempt(route, partition, number);
            patiently(self.retry_for, self.cancel, attempt)
        });
        let mut attempts = futures::stream::iter(attempts).buffer_unordered(self.lanes.max(1));
        let mut read = ReadRows::default();
        while let Some(Attempted { tally, compared, snapshot, path }) = attempts.try_next().await? {
            each_hash(&path, &mut |hash| sided.push_row(hash))?;
            std::fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
            read.tally.add(&tally);
            read.compared += compared;
            if !read.snapshots.contains(&snapshot) {
                read.snapshots.push(snapshot);
            }
        }
        Ok(read)
    }

    /// Reads one partition; another attempt writes its file anew.
    async fn attempt(
        &self,
        route: &RouteRun,
        partition: &Partition,
        number: usize,
    ) -> Result<Attempted> {
        let session = route.source.open().await?;
        let snapshot = session.snapshot().clone();
        let path = self.folder.join(format!("partition{number}"));
        let failed = |error| io_error("write", &path, error);
        let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
        let rows = StreamRows::new(Arc::clone(&route.bound), (route.decoder_of)(&partition.bounds));
        let rows = Arc::new(rows);
        let mut batches = session.read(partition, &Position::Start, Columns::All);
        let (mut tally, mut compared) = (Tally::default(), 0);
        while let Some(raw) = batches.next().await {
            if self.cancel.is_cancelled() {
                return Err(Error::new(Kind::Cancelled, "the command was asked to stop"));
            }
            let (raw, rows) = (raw?, Arc::clone(&rows));
            let found = self.cpu.submit(move || rows.hashes(&raw)).await?;
            tally.rows += found.rows;
            tally.bytes += found.bytes_read;
            tally.rejects += found.rejects;
            for hash in found.hashes.into_iter().filter(|hash| self.share.has(*hash)) {
                compared += 1;
                file.write_all(&hash.to_le_bytes()).map_err(failed)?;
            }
        }
        file.flush().map_err(failed)?;
        Ok(Attempted { tally, compared, snapshot, path })
    }
}

fn each_hash(path: &Path, take: &mut dyn FnMut(u128) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|error| io_error("open", path, error))?;
    let mut file = BufReader::with_capacity(256 << 10, file);
    let mut hash = [0; 16];
    loop {
        match file.read_exact(&mut hash) {
            Ok(()) => take(u128::from_le_bytes(hash))?,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(io_error("read", path, error)),
        }
    }
}
