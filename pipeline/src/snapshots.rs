//! The source states a run has used, each journaled once.
//!
//! Invariant: ids grow with time; a partition never begins under a snapshot the journal does not know.

use crate::journal::{Journal, NewSnapshot, SnapshotRecord};
use crate::outcome::from_journal;
use stages::Result;
use stages::extract::Snapshot;
use tokio::sync::Mutex;

/// Snapshots of one run, by id.
pub struct Snapshots {
    journal: Journal,
    run_id: String,
    known: Mutex<Vec<(i64, Snapshot)>>,
}

impl Snapshots {
    /// Loads the snapshots of a run.
    pub async fn load(journal: Journal, run_id: &str) -> Result<Self> {
        let records = journal.snapshots(run_id).await.map_err(from_journal)?;
        let known = records.into_iter().map(|record| (record.id, snapshot_of(record))).collect();
        Ok(Self { journal, run_id: run_id.to_owned(), known: Mutex::new(known) })
    }

    /// Returns the id of a snapshot, journaling it when it is new.
    pub async fn record(&self, snapshot: &Snapshot) -> Result<i64> {
        let mut known = self.known.lock().await;
        if let Some((id, _)) = known.iter().find(|(_, other)| other == snapshot) {
            return Ok(*id);
        }
        let record = NewSnapshot {
            run_id: self.run_id.clone(),
            xmin: snapshot.xmin,
            xmax: snapshot.xmax,
            taken_us: snapshot.taken_us,
            lsn: snapshot.lsn.to_string(),
            identity: snapshot.identity.clone(),
        };
        let id = self.journal.add_snapshot(&record).await.map_err(from_journal)?;
        known.push((id, snapshot.clone()));
        Ok(id)
    }

    /// Returns a snapshot by id.
    pub async fn get(&self, id: i64) -> Option<Snapshot> {
        let known = self.known.lock().await;
        known.iter().find(|(other, _)| *other == id).map(|(_, snapshot)| snapshot.clone())
    }

    /// Returns all snapshots journaled, in order.
    pub async fn all(&self) -> Vec<Snapshot> {
        self.known.lock().await.iter().map(|(_, snapshot)| snapshot.clone()).collect()
    }

    /// Returns the last snapshot journaled of the kind of `other`: one run may read two systems, and several tables of an
    /// archive, each as of its own time.
    pub async fn last_like(&self, other: &Snapshot) -> Option<Snapshot> {
        let known = self.known.lock().await;
        let is_like = |snapshot: &&Snapshot| {
            if other.is_pinned() {
                snapshot.identity == other.identity
            } else {
                !snapshot.is_pinned()
            }
        };
        known.iter().rev().map(|(_, snapshot)| snapshot).find(is_like).cloned()
    }
}

fn snapshot_of(record: SnapshotRecord) -> Snapshot {
    Snapshot {
        xmin: record.xmin,
        xmax: record.xmax,
        taken_us: record.taken_us,
        // Written by this program as a number; anything else continues nothing.
        lsn: record.lsn.parse().unwrap_or(u64::MAX),
        identity: record.identity,
    }
}
