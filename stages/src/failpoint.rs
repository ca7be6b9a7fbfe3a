//! Named places at which a run can be killed: one at every boundary where something becomes durable or visible.
//!
//! Invariant: without the feature `failpoints` [`pass`] compiles to nothing, and a process that is asked for one refuses to
//! start; so nobody takes a program for a tested one that cannot be killed where it was asked to be.

use crate::error::{Error, Kind, Result};

/// The environment variable that arms a point.
pub const VARIABLE: &str = "REKINDLE_FAILPOINT";
/// Whether this program can be killed at a point.
pub const IS_COMPILED_IN: bool = cfg!(feature = "failpoints");

macro_rules! points {
    ($($point:ident = $name:literal, $durable:literal;)*) => {
        /// Every boundary, in about the order in which a run passes them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Point {
            $(#[doc = $durable] $point,)*
        }

        impl Point {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$point,)*];

            /// Its name in [`VARIABLE`].
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }

            /// What has just become durable or visible there.
            pub fn durable(self) -> &'static str {
                match self { $(Self::$point => $durable,)* }
            }
        }
    };
}

points! {
    RunRecorded = "run-recorded", "the run and its routes are in the journal; nothing else was touched";
    AttemptRecorded = "attempt-recorded", "a resumed run has counted this attempt";
    ServerRecorded = "server-recorded", "the journal knows the target's process, or the databases of a cut-over";
    PartitionsRecorded = "partitions-recorded", "the cut of a route is in the journal";
    RouteRecorded = "route-recorded", "the state of a route is in the journal";
    QueryStaged = "query-staged", "the result of a query is a table of the staging dataset";
    RouteVoided = "route-voided", "the partitions of a route start over with the same cut; the route does not say so yet";
    RouteRestarted = "route-restarted", "the partitions of a route are void; there is no new cut yet";
    TargetClaimed = "target-claimed", "the target carries the run's mark";
    StaleRemoved = "stale-removed", "streams of an earlier cut are gone from the target";
    SnapshotRecorded = "snapshot-recorded", "the state of the source that is read is in the journal";
    PartitionBegun = "partition-begun", "the journal has fenced the attempt before";
    TemporaryNoted = "temporary-noted", "names of temporary keys are noted; none was sent";
    KeysListed = "keys-listed", "the keys of a batch are in the ledger; none was sent";
    RejectsWritten = "rejects-written", "the rejects of a batch are in their file";
    BatchSent = "batch-sent", "a batch is on its way to redis; no reply was read";
    BatchAcknowledged = "batch-acknowledged", "redis has acknowledged a batch; the journal was not told";
    BatchInFile = "batch-in-file", "a batch is in the rdb files and in the list of their extents; the journal was not told";
    KeyInPlace = "key-in-place", "a key built under a temporary name is in its place; the journal was not told";
    LedgerSynced = "ledger-synced", "the ledger is on disk, the commit that counts on it is not";
    JournalCommitted = "journal-committed", "positions and counts are in the journal; no lane was told";
    PartitionFinished = "partition-finished", "a partition is done in the journal";
    TemporaryRemoved = "temporary-removed", "temporary keys are gone, the list of their names is not";
    ChangesRead = "changes-read", "rows changed since are written; the route does not say so yet";
    DroppedRemoved = "dropped-removed", "keys of vanished rows are gone; the compacted ledger is not written";
    LedgerCompacted = "ledger-compacted", "the compacted ledger is in its place; the route still is to be reconciled";
    FilesJoined = "files-joined", "what counts of the rdb files was copied into files without holes";
    FilesFinished = "files-finished", "the rdb files are whole, under hidden names; nothing was read back";
    ReadBack = "read-back", "the target was read back; nothing says so";
    FilesPublished = "files-published", "the rdb files have their names; the journal was not told";
    DatabasesSwapped = "databases-swapped", "what was built serves; the journal was not told";
    MarkReleased = "mark-released", "the target is free; the journal still calls the run unfinished";
    StatusRecorded = "status-recorded", "the journal says how the run stands, or how it ended";
    FilesReleased = "files-released", "the hidden folder of the rdb files is gone";
    QueryDropped = "query-dropped", "the result of a query is gone";
    LeftBehindRemoved = "left-behind-removed", "blocks that an attempt did not publish are gone; its partitions are not void";
    TableRecorded = "table-recorded", "what bigquery says of the table is in the duplicate";
    BlockWritten = "block-written", "redis has acknowledged a block";
    BlocksProven = "blocks-proven", "all blocks of a table partition were read back; nothing publishes them";
    ManifestPublished = "manifest-published", "the new version is published, the old blocks are listed as retired";
    RetiredRemoved = "retired-removed", "retired blocks are gone, the manifest still lists them";
    ManifestTrimmed = "manifest-trimmed", "the manifest lists nothing retired";
    BackupRecorded = "backup-recorded", "the record of the complete backup is in the duplicate; the journal was not told";
    SpoolWritten = "spool-written", "the keys of an application's rows are in a file; the journal was not told";
    ChoiceRecorded = "choice-recorded", "what is restored, and the name of its staging table, are in the journal";
    StageRecorded = "stage-recorded", "the journal says how far the restore of a table is";
    StagingMade = "staging-made", "the staging table is there; the journal was not told";
    StreamMade = "stream-made", "a write stream is there; the journal does not know its name";
    StreamsRecorded = "streams-recorded", "the journal says how far write streams are";
    RowsSent = "rows-sent", "rows are on their way to a write stream; no answer was read";
    RowsAcknowledged = "rows-acknowledged", "bigquery has acknowledged rows; the journal was not told";
    StreamFinalized = "stream-finalized", "a write stream takes no more rows; the journal was not told";
    StreamsCommitted = "streams-committed", "rows are in the staging table; the journal was not told";
    StagingProven = "staging-proven", "the staging table has the rows and the digest; the journal was not told";
    FilterLifted = "filter-lifted", "queries of the destination need no filter for now";
    DestinationMade = "destination-made", "the destination is there, empty";
    JobRecorded = "job-recorded", "the id of a job, or its end, is in the journal";
    JobDone = "job-done", "rows are in the destination; the journal was not told";
    DestinationProven = "destination-proven", "the destination was read back; nothing says so";
    SettingsPutBack = "settings-put-back", "the destination has what a copy does not carry";
    StagingDropped = "staging-dropped", "the staging table is gone; the journal was not told";
    SpoolRemoved = "spool-removed", "the file of keys is gone; the journal was not told";
}

/// Marks a boundary: where it is armed, the process ends or stops here.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn pass(_: Point) {}

/// Refuses a wish that this program cannot fulfil.
#[cfg(not(feature = "failpoints"))]
pub fn arm(asked: Option<&str>) -> Result<()> {
    let Some(asked) = asked else { return Ok(()) };
    let message = format!("{VARIABLE}={asked}: this program was built without failpoints");
    Err(Error::new(Kind::Config, message).with_hint(format!(
        "unset {VARIABLE}, or build with: cargo build --release -p rekindle --features failpoints"
    )))
}

#[cfg(feature = "failpoints")]
pub use armed::{arm, pass};

#[cfg(feature = "failpoints")]
mod armed {
    use super::{Error, Kind, Point, Result, VARIABLE};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    static IS_ARMED: AtomicBool = AtomicBool::new(false);
    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// What was asked for.
    #[derive(Debug)]
    enum Armed {
        /// Send this process a signal at the n-th passing of a point.
        Signal { point: Point, at: u64, passed: AtomicU64, signal: Signal },
        /// Write down the name of every point that is passed.
        Record(File),
    }

    /// Marks a boundary: where it is armed, the process ends or stops here.
    #[inline]
    pub fn pass(point: Point) {
        if IS_ARMED.load(Ordering::Relaxed) {
            passed(point);
        }
    }

    #[cold]
    fn passed(point: Point) {
        match ARMED.get() {
            Some(Armed::Signal { point: armed, at, passed, signal }) if *armed == point => {
                if passed.fetch_add(1, Ordering::SeqCst) + 1 != *at {
                    return;
                }
                if kill(Pid::this(), *signal).is_err() {
                    std::process::abort();
                }
                // The signal reaches the process before long; this thread must not go on until then.
                if *signal == Signal::SIGKILL {
                    loop {
                        std::thread::park();
                    }
                }
            }
            Some(Armed::Record(file)) => {
                // One write, so that lines of several threads do not mix.
                let mut file = file;
                if file.write_all(format!("{}\n", point.name()).as_bytes()).is_err() {
                    std::process::abort();
                }
            }
            _ => {}
        }
    }

    /// Arms what was asked for: `NAME`, `NAME:N` (SIGKILL at the n-th passing), `NAME:N:hold` (SIGSTOP instead), or
    /// `record:FILE`, which appends the name of every point that is passed.
    pub fn arm(asked: Option<&str>) -> Result<()> {
        let Some(asked) = asked else { return Ok(()) };
        let armed = parse(asked)?;
        tracing::warn!("failpoint {asked}: this process ends or stops there");
        if ARMED.set(armed).is_ok() {
            IS_ARMED.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn parse(asked: &str) -> Result<Armed> {
        let refuse = |why: String| {
            Error::new(Kind::Config, format!("{VARIABLE}={asked}: {why}"))
                .with_hint("say NAME, NAME:N, NAME:N:hold or record:FILE")
        };
        if let Some(path) = asked.strip_prefix("record:") {
            let file = OpenOptions::new().append(true).create(true).open(path);
            return file.map(Armed::Record).map_err(|error| refuse(error.to_string()));
        }
        let mut words = asked.split(':');
        let name = words.next().unwrap_or_default();
        let point = Point::ALL.iter().copied().find(|point| point.name() == name);
        let point = point.ok_or_else(|| refuse(format!("there is no point {name}")))?;
        let at = words.next().map_or(Ok(1), str::parse::<u64>);
        let at = at.ok().filter(|at| *at > 0);
        let at = at.ok_or_else(|| refuse("the passing is no number from 1 on".into()))?;
        let signal = match (words.next(), words.next()) {
            (None, _) => Signal::SIGKILL,
            (Some("hold"), None) => Signal::SIGSTOP,
            _ => return Err(refuse("it says something else behind the passing".into())),
        };
        Ok(Armed::Signal { point, at, passed: AtomicU64::new(0), signal })
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::collections::BTreeSet;

        #[test]
        fn names_differ_and_say_no_colon() {
            let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
            assert_eq!(names.len(), Point::ALL.len());
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(names.iter().all(|name| name.chars().all(is_plain) && *name != "record"));
        }

        #[test]
        fn what_is_asked_for_is_read_or_refused_by_name() {
            let armed = |asked: &str| match parse(asked).unwrap() {
                Armed::Signal { point, at, signal, .. } => (point, at, signal),
                Armed::Record(_) => panic!("{asked}"),
            };
            assert_eq!(armed("run-recorded"), (Point::RunRecorded, 1, Signal::SIGKILL));
            assert_eq!(armed("status-recorded:7"), (Point::StatusRecorded, 7, Signal::SIGKILL));
            assert_eq!(
                armed("status-recorded:7:hold"),
                (Point::StatusRecorded, 7, Signal::SIGSTOP)
            );
            for asked in [
                "",
                "run",
                "status-recorded:0",
                "status-recorded:x",
                "status-recorded:1:stop",
                "status-recorded:1:hold:2",
            ] {
                let error = parse(asked).unwrap_err();
                assert!(error.to_string().contains(VARIABLE) && error.hint().is_some(), "{asked}");
            }
        }
    }
}
