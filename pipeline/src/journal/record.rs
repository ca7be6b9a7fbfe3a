//! The records of the journal, as the rest of the program sees them.
//!
//! Invariant: plain data; what a JSON column means is known to its writer, not to the journal.

use crate::checkpoint::{Counts, Status};
use schemas::drift::TableShape;
use schemas::{Partition, PartitionId, Position};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// At work, or killed before it could say otherwise.
    Running,
    /// Stopped by a signal; can be resumed.
    Interrupted,
    /// Ended with an error; can be resumed.
    Failed,
    /// Loaded up to the share that was asked for; can be resumed.
    Partial,
    /// Ended as asked.
    Done,
    /// Given up for a fresh run.
    Abandoned,
}

impl RunStatus {
    /// Returns the word stored in the journal and shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Done => "done",
            Self::Abandoned => "abandoned",
        }
    }

    /// Returns the status a stored word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [
            Self::Running,
            Self::Interrupted,
            Self::Failed,
            Self::Partial,
            Self::Done,
            Self::Abandoned,
        ];
        all.into_iter().find(|status| status.as_str() == word)
    }
}

/// What is known of a run when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// The command, for example `rebuild redis`.
    pub command: String,
    /// Fingerprint of the routes.
    pub plan_fingerprint: String,
    /// Version of this binary.
    pub binary_version: String,
    /// When the data was lost, in milliseconds since 1970.
    pub lost_at_ms: i64,
    /// Whether somebody said so, or the start of the run stands for it.
    pub lost_at_given: bool,
    /// When the run started, in milliseconds since 1970.
    pub started_ms: i64,
    /// Whether the target held nothing when the run started.
    pub target_was_empty: bool,
}

/// One execution of a command, resumes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// A version 7 UUID.
    pub id: String,
    /// The command, for example `rebuild redis`.
    pub command: String,
    /// How it stands.
    pub status: RunStatus,
    /// Fingerprint of the routes.
    pub plan_fingerprint: String,
    /// Version of the binary that created it.
    pub binary_version: String,
    /// When the data was lost, in milliseconds since 1970.
    pub lost_at_ms: i64,
    /// Whether somebody said so, or the start of the run stands for it.
    pub lost_at_given: bool,
    /// When it first started, in milliseconds since 1970.
    pub started_ms: i64,
    /// When it ended, in milliseconds since 1970; absent while it runs.
    pub ended_ms: Option<i64>,
    /// 1 and one more for every resume.
    pub attempts: u32,
    /// Whether the target held nothing when the run started.
    pub target_was_empty: bool,
    /// The JSON summary, once there is one.
    pub summary: Option<String>,
}

/// A route of a run that is about to be added.
#[derive(Debug, Clone)]
pub struct NewRoute {
    /// Route name.
    pub name: String,
    /// What the route means, one `field = value` line each.
    pub definition: String,
    /// The identity lines of its schema.
    pub schema_lines: Vec<String>,
    /// Its whole table, where drift is looked for.
    pub shape: Option<TableShape>,
    /// Identity of the relations it reads.
    pub relations: String,
}

impl NewRoute {
    /// The record at the start of a run.
    pub(super) fn of_run(self, run_id: &str) -> RouteRecord {
        RouteRecord {
            run_id: run_id.to_owned(),
            name: self.name,
            definition: self.definition,
            schema_lines: self.schema_lines,
            shape: self.shape,
            relations: self.relations,
            reconcile: false,
            caught_up: None,
            dropped_keys: 0,
            completed_ms: None,
        }
    }
}

/// A route as this run carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRecord {
    /// The run.
    pub run_id: String,
    /// The route's name.
    pub name: String,
    /// Its canonical definition.
    pub definition: String,
    /// The table schema it was bound to, one column a line.
    pub schema_lines: Vec<String>,
    /// The whole table as it was then; absent where a run of an older version recorded none.
    pub shape: Option<TableShape>,
    /// JSON: identity of the relations read.
    pub relations: String,
    /// Whether keys of rows deleted meanwhile must be looked for.
    pub reconcile: bool,
    /// The snapshot up to which a catch-up read is complete.
    pub caught_up: Option<i64>,
    /// Keys removed from the target because their rows are gone.
    pub dropped_keys: u64,
    /// When the route was complete, in milliseconds since 1970.
    pub completed_ms: Option<i64>,
}

/// A server this run has talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRecord {
    /// The run.
    pub run_id: String,
    /// What the server is to the run.
    pub role: String,
    /// JSON: how the server is recognised.
    pub identity: String,
}

/// What is known of a snapshot when it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The run.
    pub run_id: String,
    /// `pg_snapshot_xmin`: every transaction before it is visible or aborted.
    pub xmin: u64,
    /// `pg_snapshot_xmax`: no transaction from it on is visible.
    pub xmax: u64,
    /// The source's clock when it was taken, in microseconds since 1970.
    pub taken_us: i64,
    /// The source's write-ahead log position.
    pub lsn: String,
    /// JSON: identity of the source.
    pub identity: String,
}

/// A snapshot of the source; later ones have higher ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Its id in the journal.
    pub id: i64,
    /// The run.
    pub run_id: String,
    /// `pg_snapshot_xmin`: every transaction before it is visible or aborted.
    pub xmin: u64,
    /// `pg_snapshot_xmax`: no transaction from it on is visible.
    pub xmax: u64,
    /// The source's clock when it was taken, in microseconds since 1970.
    pub taken_us: i64,
    /// The source's write-ahead log position.
    pub lsn: String,
    /// JSON: identity of the source.
    pub identity: String,
}

/// A partition and its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecord {
    /// The partition as it was cut.
    pub partition: Partition,
    /// Its place in the order of work.
    pub ordinal: i64,
    /// How it stands.
    pub status: Status,
    /// The attempt that owns it, from 1; 0 before the first.
    pub epoch: u64,
    /// Everything up to here is committed.
    pub position: Position,
    /// What was counted up to `position`.
    pub counts: Counts,
    /// The snapshot its first rows were read in.
    pub first_snapshot: Option<i64>,
    /// The snapshot of the last attempt.
    pub last_snapshot: Option<i64>,
    /// Attempts since it was cut or reset.
    pub attempts: u32,
    /// Why the last attempt failed; absent once done.
    pub error: Option<String>,
    /// Time its finished attempts were at work.
    pub busy_ms: u64,
    /// Length of its ledger file that the last commit covers. Survives a reset and a new cut, because the keys in the
    /// ledger may still be in the target.
    pub ledger_bytes: u64,
}

/// What an attempt starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The attempt's epoch; every commit must carry it.
    pub epoch: u64,
    /// Where to continue from.
    pub position: Position,
    /// Length of the ledger file that is committed; anything after it is to be cut off.
    pub ledger_bytes: u64,
    /// Rejects that are committed; files of more are to be removed.
    pub rejects: u64,
}

/// Rows of one partition the target has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The partition.
    pub partition: PartitionId,
    /// The attempt that carried them.
    pub epoch: u64,
    /// Where the span starts: the position of the commit before, or the one `begin` returned.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
    /// What was counted in it.
    pub counts: Counts,
    /// Length of the partition's ledger file that covers it.
    pub ledger_bytes: u64,
}
