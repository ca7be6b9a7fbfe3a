//! The archive of BigQuery: its documents and blocks as files, each made once and none overwritten.
//!
//! Invariant: a key becomes one path, and two keys never the same. A document is replaced by a file with the next
//! number, which counts from the moment it is whole; the one before it is removed after that.

use super::store::{Store, Values, Writer};
use super::{Sentinel, TargetState};
use crate::connect::archive::{Files, Found, Made};
use crate::error::{Error, Kind, Result};
use crate::transform::form::{Form, Framed};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use schemas::manifest::Keys;
use schemas::plan::Archive as Section;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the file that marks an archive as being written by a backup.
pub const MARK: &str = "rekindle-backup";
/// Reads and lists at once.
const AT_ONCE: usize = 8;
/// What stands between the prefix of a route and what a key is of.
const KINDS: [&str; 3] = [":b:", ":m:", ":s:"];

/// An archive, to read from and to write to.
pub struct Archive {
    files: Arc<Files>,
    form: Form,
}

struct FileWriter {
    files: Arc<Files>,
}

impl Archive {
    /// Opens the archive of a plan.
    pub fn open(section: &Section) -> Result<Self> {
        let key = section.encrypt_key.clone().map(Arc::new);
        Ok(Self { files: Arc::new(Files::open(section)?), form: Form::Parquet(key) })
    }

    fn mark(&self) -> Path {
        self.files.path(&[MARK])
    }

    /// Returns the newest file of a document and its number.
    async fn newest(&self, key: &str) -> Result<Option<(u64, Path, Vec<Found>)>> {
        let all = self.files.list(&document(&self.files, key)).await?;
        let numbered = all.iter().filter_map(|found| Some((number(&found.path)?, found)));
        let newest = numbered.max_by_key(|(number, _)| *number);
        let newest = newest.map(|(number, found)| (number, found.path.clone()));
        Ok(newest.map(|(number, path)| (number, path, all)))
    }

    async fn value(&self, key: &str) -> Result<Option<Bytes>> {
        if let Some(path) = block(&self.files, key) {
            return self.files.read(&path).await;
        }
        match self.newest(key).await? {
            Some((_, path, _)) => self.files.read(&path).await,
            None => Ok(None),
        }
    }

    async fn owner(&self) -> Result<Option<String>> {
        let mark = self.files.read(&self.mark()).await?;
        Ok(mark.map(|note| String::from_utf8_lossy(&note).into_owned()))
    }
}

/// The run id is the first word of a mark.
fn is_of(note: &str, run_id: &str) -> bool {
    note.split_whitespace().next() == Some(run_id)
}

/// Splits a key into the parts of a path; joined by colons they are the key again.
fn parts(key: &str) -> Vec<&str> {
    let at = KINDS.iter().filter_map(|kind| Some((key.find(kind)?, kind.len()))).min();
    match at {
        Some((at, length)) => vec![&key[..at], &key[at + 1..at + length - 1], &key[at + length..]],
        None => match key.rsplit_once(':') {
            Some((prefix, word)) => vec![prefix, word],
            None => vec![key],
        },
    }
}

/// The folder of a document.
fn document(files: &Files, key: &str) -> Path {
    files.path(&parts(key))
}

/// The number of a file of a document, which is its name.
fn number(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".json")?;
    (digits.len() == NUMBER_DIGITS).then(|| digits.parse().ok()).flatten()
}

const NUMBER_DIGITS: usize = 20;

/// The file of a block, or `None` for the key of a document: those do not end with two numbers.
fn block(files: &Files, key: &str) -> Option<Path> {
    let (prefix, rest) = key.split_once(":b:")?;
    let (rest, ordinal) = rest.rsplit_once(':')?;
    let (table_partition, generation) = rest.rsplit_once(':')?;
    let (generation, ordinal): (u64, u32) = (generation.parse().ok()?, ordinal.parse().ok()?);
    let (generation, name) = (format!("{generation:020}"), format!("{ordinal:010}.parquet"));
    Some(files.path(&[prefix, "b", table_partition, &generation, &name]))
}

/// The folder of one generation of a table partition.
fn generation_folder(
    files: &Files,
    keys: &Keys,
    table_partition: &str,
    generation: u64,
) -> Result<Path> {
    let first = keys.block(table_partition, generation, 0);
    // Never the folder of everything: what is in it may be removed.
    block(files, &first).as_ref().and_then(Path::parent).ok_or_else(no_block)
}

fn no_block() -> Error {
    Error::new(Kind::Internal, "the key names no block")
}

/// The folder that a path is in.
fn above(path: &Path) -> Path {
    path.parent().unwrap_or_default()
}

fn occupied(path: &Path, address: &str) -> Error {
    let message =
        format!("{path} of the archive {address} is there already and is not overwritten");
    Error::new(Kind::Fenced, message)
        .with_hint("see that no other backup writes this archive, then run the same command again")
}

#[async_trait]
impl Values for Archive {
    fn place(&self) -> String {
        format!("the archive {}", self.address())
    }

    fn address(&self) -> String {
        self.files.address().to_owned()
    }

    fn form(&self) -> &Form {
        &self.form
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.value(key).await
    }

    async fn get_some(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        let keys = keys.to_vec();
        let values = stream::iter(keys).map(|key| async move { self.value(&key).await });
        values.buffered(AT_ONCE).try_collect().await
    }

    async fn lengths(&self, keys: &[String]) -> Result<Vec<u64>> {
        let paths: Vec<Option<Path>> = keys.iter().map(|key| block(&self.files, key)).collect();
        // The blocks of a generation are in one folder: one list tells all of them.
        let mut folders: Vec<Path> = paths.iter().flatten().map(above).collect();
        folders.dedup();
        let listed: Vec<Vec<Found>> = stream::iter(folders)
            .map(|folder| async move { self.files.list(&folder).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let found: BTreeMap<Path, u64> =
            listed.into_iter().flatten().map(|found| (found.path, found.bytes)).collect();
        let length = |path: &Path| found.get(path).copied();
        Ok(paths.iter().map(|path| path.as_ref().and_then(length).unwrap_or(0)).collect())
    }
}

#[async_trait]
impl Store for Archive {
    async fn state(&self) -> Result<TargetState> {
        // Whether it answers at all is found out here, before anything is decided.
        self.owner().await?;
        Ok(TargetState {
            process_id: String::new(),
            history_id: String::new(),
            version: String::new(),
            entries: 0,
            used_bytes: 0,
            limit_bytes: None,
            eviction: "noeviction".to_owned(),
            evicted: 0,
            refusal: None,
        })
    }

    async fn claim(&self, run_id: &str, note: &str) -> Result<Sentinel> {
        let text = Bytes::from(format!("{run_id} {note}"));
        if self.files.create(&self.mark(), text).await? == Made::Written {
            return Ok(Sentinel::Ours);
        }
        Ok(match self.owner().await? {
            Some(note) if is_of(&note, run_id) => Sentinel::Ours,
            Some(note) => Sentinel::Foreign(note),
            None => Sentinel::Foreign("unknown, which has ended just now".to_owned()),
        })
    }

    async fn meet(&self, run_id: &str, _before: &TargetState) -> Result<()> {
        if self.owner().await?.is_some_and(|note| is_of(&note, run_id)) {
            return Ok(());
        }
        let message = format!(
            "{} lost the mark of this backup since it began: it was emptied, replaced or taken over",
            self.place()
        );
        Err(Error::new(Kind::TargetChanged, message)
            .with_hint("run the same command again: it looks at everything anew"))
    }

    async fn release(&self, run_id: &str) -> Result<()> {
        if self.owner().await?.is_some_and(|note| is_of(&note, run_id)) {
            self.files.remove(vec![self.mark()]).await?;
        }
        Ok(())
    }

    async fn writer(&self) -> Result<Arc<dyn Writer>> {
        Ok(Arc::new(FileWriter { files: Arc::clone(&self.files) }))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let newest = self.newest(key).await?;
        let (last, before) = match newest {
            Some((_, path, _)) if self.files.read(&path).await?.as_deref() == Some(value) => {
                return Ok(());
            }
            Some((last, _, all)) => (last, all),
            None => (0, Vec::new()),
        };
        let name = format!("{:020}.json", last + 1);
        let path = document(&self.files, key).join(name);
        if self.files.create(&path, Bytes::copy_from_slice(value)).await? == Made::Occupied {
            return Err(occupied(&path, self.files.address()));
        }
        let before = before.into_iter().filter(|found| number(&found.path).is_some());
        let removed = self.files.remove(before.map(|found| found.path).collect()).await;
        if let Err(error) = removed {
            // The highest number counts, so that older files take room and nothing else.
            tracing::warn!(%error, key, "what this document said before stays in the archive");
        }
        Ok(())
    }

    async fn remove_generation(
        &self,
        keys: &Keys,
        table_partition: &str,
        generation: u64,
    ) -> Result<u64> {
        let folder = generation_folder(&self.files, keys, table_partition, generation)?;
        let found = self.files.list(&folder).await?;
        self.files.remove(found.into_iter().map(|found| found.path).collect()).await
    }

    async fn highest_generation(&self, keys: &Keys, table_partition: &str) -> Result<u64> {
        let folder = above(&generation_folder(&self.files, keys, table_partition, 0)?);
        let found = self.files.list(&folder).await?;
        let depth = folder.parts().count();
        let generation =
            |found: &Found| -> Option<u64> { found.path.parts().nth(depth)?.as_ref().parse().ok() };
        Ok(found.iter().filter_map(generation).max().unwrap_or(0))
    }
}

impl Writer for FileWriter {
    fn write(&self, key: &str, block: Framed) -> BoxFuture<'static, Result<()>> {
        // A file says all of itself in its body.
        let (files, bytes) = (Arc::clone(&self.files), Bytes::from(block.body));
        let path = self::block(&files, key);
        async move {
            let path = path.ok_or_else(no_block)?;
            match files.create(&path, bytes).await? {
                Made::Written => Ok(()),
                Made::Occupied => Err(occupied(&path, files.address())),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
#[path = "archive/tests.rs"]
mod tests;
