//! A run that builds beside the database that serves, and takes its place when it is proven.
//!
//! Invariant: nothing is swapped before the read-back, and nothing twice: the journal says what was proven, the mark of
//! the run says which database it is in.

use crate::journal::{Journal, ServerRecord};
use crate::outcome::from_journal;
use crate::readback::ReadBack;
use crate::rebuild::{COMMAND, Options, patiently};
use crate::summary::CutOverSummary;
use crate::wiring;
use schemas::Plan;
use serde::{Deserialize, Serialize};
use stages::failpoint::{Point, pass};
use stages::load::redis::cut_over::{CutOver, Marked};
use stages::{Error, Kind, Result};

/// Role of both databases in the journal's list of servers.
const ROLE: &str = "cut-over";

/// What the journal says of a cut-over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    serving: u32,
    build: u32,
    is_swapped: bool,
    /// What the read-back found before the swap.
    proof: Option<ReadBack>,
}

/// The cut-over of one run.
pub struct CutOverRun {
    databases: CutOver,
    record: Record,
}

impl CutOverRun {
    /// Checks what a cut-over needs, before anything is written; `None` where none is asked for.
    pub async fn prepare(
        plan: &Plan,
        options: &Options,
        journal: &Journal,
    ) -> Result<Option<Self>> {
        let unfinished = journal.unfinished_run(COMMAND).await.map_err(from_journal)?;
        let mut recorded = None;
        if let Some(run) = unfinished.as_ref().filter(|_| !options.fresh) {
            recorded = read(journal, &run.id).await?;
            // A run that was killed before it knew any server has begun in no database yet.
            let servers = journal.servers(&run.id).await.map_err(from_journal)?;
            if !servers.is_empty() {
                refuse_other(options.cut_over, recorded.as_ref(), &run.id)?;
            }
        }
        let Some(build) = options.cut_over else { return Ok(None) };
        let databases = wiring::make_cut_over(plan, build)?;
        patiently(options.retry_for, &options.cancel, || databases.check()).await?;
        let run_id = unfinished.map(|run| run.id).unwrap_or_default();
        let marked = databases.marked(&run_id).await?;
        if options.fresh && marked == Marked::Serving {
            databases.release(&run_id).await?;
        }
        let is_resumed = recorded.is_some();
        let is_swapped = recorded.as_ref().is_some_and(|record| record.is_swapped);
        let is_ours = is_swapped || (is_resumed && marked != Marked::Nowhere);
        if !is_ours {
            refuse_filled(&databases).await?;
        }
        let serving = databases.serving;
        let mut record = recorded.unwrap_or(Record { serving, build, ..Record::default() });
        // Swapped, and killed before the journal heard of it.
        record.is_swapped |= is_resumed && marked == Marked::Serving;
        Ok(Some(Self { databases, record }))
    }

    /// Journals which databases they are.
    pub async fn begin(&self, journal: &Journal, run_id: &str) -> Result<()> {
        self.store(journal, run_id).await
    }

    /// What was proven, where the databases were swapped already.
    pub fn proven(&self) -> Option<ReadBack> {
        self.record.is_swapped.then(|| self.record.proof.clone().unwrap_or_default())
    }

    /// Swaps the databases, once.
    pub async fn swap(
        &mut self,
        journal: &Journal,
        run_id: &str,
        options: &Options,
        proof: Option<&ReadBack>,
    ) -> Result<()> {
        if self.record.is_swapped {
            return Ok(());
        }
        self.record.proof = proof.cloned();
        self.store(journal, run_id).await?;
        let swap = || self.databases.swap(run_id);
        patiently(options.retry_for, &options.cancel, swap).await?;
        pass(Point::DatabasesSwapped);
        self.record.is_swapped = true;
        self.store(journal, run_id).await
    }

    /// Removes the run's mark from the database that serves; false where it is still in the other one.
    pub async fn release(&self, run_id: &str) -> Result<bool> {
        if self.record.is_swapped {
            self.databases.release(run_id).await?;
        }
        Ok(self.record.is_swapped)
    }

    /// What is told of it.
    pub fn summary(&self) -> CutOverSummary {
        CutOverSummary {
            serving_db: self.databases.serving,
            build_db: self.databases.build,
            is_swapped: self.record.is_swapped,
            way_back: self.databases.way_back(),
        }
    }

    async fn store(&self, journal: &Journal, run_id: &str) -> Result<()> {
        let identity = serde_json::to_string(&self.record).map_err(|error| {
            Error::new(Kind::Internal, "cannot journal the cut-over").with_source(error)
        })?;
        let server = ServerRecord { run_id: run_id.to_owned(), role: ROLE.to_owned(), identity };
        journal.put_server(&server).await.map_err(from_journal)
    }
}

async fn read(journal: &Journal, run_id: &str) -> Result<Option<Record>> {
    let servers = journal.servers(run_id).await.map_err(from_journal)?;
    let Some(server) = servers.into_iter().find(|server| server.role == ROLE) else {
        return Ok(None);
    };
    let record = serde_json::from_str(&server.identity).map_err(|error| {
        Error::new(Kind::Internal, "the journal does not tell the databases of the cut-over")
            .with_hint("rekindle rebuild redis --fresh")
            .with_source(error)
    })?;
    Ok(Some(record))
}

/// A resumed run goes on in the database it began in.
fn refuse_other(asked: Option<u32>, recorded: Option<&Record>, run_id: &str) -> Result<()> {
    let begun = recorded.map(|record| record.build);
    if begun == asked {
        return Ok(());
    }
    let (place, hint) = match begun {
        Some(build) => (
            format!("database {build}, for a cut-over"),
            format!("resume it with: rekindle rebuild redis --cut-over {build}"),
        ),
        None => ("the database of [redis]".into(), "resume it without --cut-over".into()),
    };
    let message = format!("run {run_id} is not done and builds in {place}");
    Err(Error::new(Kind::Config, message).with_hint(format!("{hint}; or start over with --fresh")))
}

/// A database that holds anything is somebody's: it is never built into, and never swapped in.
async fn refuse_filled(databases: &CutOver) -> Result<()> {
    let entries = databases.built().await?.entries;
    if entries == 0 {
        return Ok(());
    }
    let (serving, build) = (databases.serving, databases.build);
    let message =
        format!("--cut-over {build}: database {build} is not empty, it holds {entries} keys");
    Err(Error::new(Kind::Config, message).with_hint(format!(
        "name an empty one; if it is what served before an earlier cut-over of {serving} and is not needed any more, \
         empty it: redis-cli -n {build} FLUSHDB"
    )))
}
