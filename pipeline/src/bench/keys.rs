//! Keys that a bench writes into the plan's own Redis, and their removal.
//!
//! Invariant: every one begins with a prefix that no other bench has, and is in a ledger before it is in Redis; so what the
//! ledgers name is all there is, and nothing else is ever removed. The prefix is on disk before the first key.

use super::COMMAND;
use crate::ledger::{FrameReader, Ledger, io_error};
use crate::plan::PlanReport;
use crate::rebuild::patiently;
use crate::wiring;
use bytes::Bytes;
use schemas::Plan;
use serde::{Deserialize, Serialize};
use stages::load::Sink;
use stages::load::redis::WayChoice;
use stages::{Error, Kind, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the keys of all benches begin with.
pub(crate) const PREFIX: &str = "rekindle:bench:";
/// Keys that one request removes.
const KEYS_AT_ONCE: usize = 1_000;
/// Of a Redis in use a bench leaves a fifth of its limit free.
const CEILING_PERCENT: u64 = 80;

/// The note that a killed bench leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    address: String,
    prefix: String,
}

/// What was written into the plan's own Redis, and is there no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Against {
    /// Where it is, without credentials.
    pub address: String,
    /// What every key of the bench began with.
    pub prefix: String,
    /// Keys that were written and removed.
    pub removed_keys: u64,
}

/// The keys of one bench.
pub(super) struct OwnKeys {
    plan: Plan,
    note: Note,
    path: PathBuf,
    retry_for: Duration,
}

impl OwnKeys {
    /// Names them. None is written yet.
    pub(super) fn begin(plan: &Plan, state: &Path, retry_for: Duration) -> Result<Self> {
        let prefix = format!("{PREFIX}{}:", Uuid::new_v4().simple());
        let address = wiring::redis_endpoint(plan)?.address;
        let mut plan = plan.clone();
        for route in plan.routes.iter_mut().filter(|route| route.uses.rebuild) {
            route.key = route.key.behind(&prefix);
        }
        let note = Note { address, prefix };
        let path = note_in(state);
        let text = serde_json::to_string(&note).map_err(|error| {
            Error::new(Kind::Internal, "the note of a bench is no JSON").with_source(error)
        })?;
        fs::write(&path, text).map_err(|error| io_error("write", &path, error))?;
        Ok(Self { plan, note, path, retry_for })
    }

    /// The plan with the keys of its routes behind the prefix.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Removes what the run in this state folder has written, and its mark; returns how many keys there were.
    pub(super) async fn remove(&self, state: &Path) -> Result<u64> {
        removed(&self.plan, &self.note.prefix, &[state.to_owned()], self.retry_for).await
    }

    /// Ends it: there is nothing to be removed any more.
    pub(super) fn end(&self, removed_keys: u64) -> Result<Against> {
        fs::remove_file(&self.path).map_err(|error| io_error("remove", &self.path, error))?;
        let Note { address, prefix } = self.note.clone();
        Ok(Against { address, prefix, removed_keys })
    }
}

/// Refuses a server that the largest part, this share of all rows, would fill too far.
pub(super) fn check_room(planned: &PlanReport, share: f64) -> Result<()> {
    let memory = &planned.memory;
    let Some(limit) = memory.limit_bytes else { return Ok(()) };
    let needed = memory.bytes as f64 * share;
    let room = (limit / 100 * CEILING_PERCENT) as f64 - memory.used_bytes as f64;
    if needed <= room {
        return Ok(());
    }
    let message = format!(
        "redis at {} has {} of {limit} bytes in use, and the largest part of the bench takes about {needed:.0} more: it leaves a fifth of a redis in use free",
        planned.target.address, memory.used_bytes
    );
    Err(Error::new(Kind::Capacity, message)
        .with_hint("measure fewer rows with --rows, or into a throwaway server without --against"))
}

fn note_in(state: &Path) -> PathBuf {
    state.join("bench.keys")
}

/// Removes what a killed bench left, by the ledgers in its folder.
pub(super) async fn clean(
    plan: &Plan,
    state: &Path,
    folder: &Path,
    retry_for: Duration,
) -> Result<()> {
    let path = note_in(state);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("read", &path, error)),
    };
    // A note is written before any key is: a torn one names none.
    if let Ok(note) = serde_json::from_str::<Note>(&text) {
        let address = wiring::redis_endpoint(plan)?.address;
        if address != note.address {
            let message = format!(
                "a bench that was killed has left keys {}* in redis at {}, which is not that of the plan",
                note.prefix, note.address
            );
            return Err(Error::new(Kind::Config, message).with_hint(format!(
                "run rekindle {COMMAND} with a plan of that redis, or see that the keys are gone and remove {}",
                path.display()
            )));
        }
        let removed = removed(plan, &note.prefix, &folders(folder)?, retry_for).await?;
        tracing::info!(removed, "keys that a killed bench left in redis were removed");
    }
    fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))
}

/// The folders in a folder; none where it is not there.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("read", folder, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| io_error("read", folder, error))?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

async fn removed(
    plan: &Plan,
    prefix: &str,
    states: &[PathBuf],
    retry_for: Duration,
) -> Result<u64> {
    let sink = wiring::make_sink(plan, WayChoice::Auto)?;
    // They have to go after a signal too.
    let never = CancellationToken::new();
    let mut removed = 0;
    for state in states {
        for run in folders(&state.join("runs"))? {
            let run_id = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let ledger = Ledger::open(state, &run_id)?;
            removed +=
                patiently(retry_for, &never, || remove_run(sink.as_ref(), &ledger, prefix)).await?;
            // The mark of a run that did not end well would keep every rebuild away.
            patiently(retry_for, &never, || sink.release(&run_id)).await?;
        }
    }
    Ok(removed)
}

/// Removes every key of a ledger, and counts that none is left.
async fn remove_run(sink: &dyn Sink, ledger: &Ledger, prefix: &str) -> Result<u64> {
    let (mut removed, mut left) = (0, 0);
    for keys in ledger.temporary()?.chunks(KEYS_AT_ONCE) {
        sink.unlink(keys).await?;
    }
    for path in ledger.all_files()? {
        let mut reader = FrameReader::open(&path)?;
        while let Some(frame) = reader.next_frame()? {
            let keys: Vec<Bytes> =
                frame.iter().map(|(key, ..)| Bytes::copy_from_slice(key)).collect();
            if keys.iter().any(|key| !key.starts_with(prefix.as_bytes())) {
                let message = format!("a ledger of a bench names a key outside of {prefix}");
                return Err(Error::new(Kind::Internal, message));
            }
            for keys in keys.chunks(KEYS_AT_ONCE) {
                removed += sink.unlink(keys).await?;
                left += sink.count_existing(keys).await?;
            }
        }
    }
    if left == 0 {
        return Ok(removed);
    }
    let message = format!(
        "{left} keys {prefix}* of the bench are still in redis at {} after they were removed",
        sink.address()
    );
    Err(Error::new(Kind::Difference, message)
        .with_hint(format!("run it again, which removes them: rekindle {COMMAND}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_rebuilds_alone_are_behind_a_prefix_of_their_own() {
        let text = "[alloydb]\nurl = \"postgres://a/b\"\n[bigquery]\nproject = \"p\"\n\
            [redis]\nurl = \"redis://127.0.0.1:1\"\n\
            [[route]]\nname = \"items\"\ntable = \"alloydb:items\"\nkey = \"item:{id}\"\ntype = \"hash\"\n\
            [[route]]\nname = \"logs\"\ntable = \"bigquery:d.t\"\nkey = \"log\"\ntype = \"blocks\"\n";
        let no_file = |_: &str| Err(std::io::Error::from(ErrorKind::NotFound));
        let plan = Plan::parse(text, &|_| None, &no_file).unwrap();
        let state = tempfile::tempdir().unwrap();
        let own = OwnKeys::begin(&plan, state.path(), Duration::from_secs(1)).unwrap();
        let key = own.plan().routes[0].key.text().to_owned();
        assert!(key.starts_with(PREFIX) && key.ends_with(":item:{id}"), "{key}");
        assert_eq!(own.plan().routes[1].key.text(), "log");
        let other = OwnKeys::begin(&plan, state.path(), Duration::from_secs(1)).unwrap();
        assert_ne!(other.plan().routes[0].key.text(), key);
        // The note names what is to be removed, and goes when nothing is.
        let note: Note =
            serde_json::from_str(&fs::read_to_string(note_in(state.path())).unwrap()).unwrap();
        assert_eq!(note, other.note);
        assert_eq!(other.end(7).unwrap().removed_keys, 7);
        assert!(!note_in(state.path()).exists());
    }
}
