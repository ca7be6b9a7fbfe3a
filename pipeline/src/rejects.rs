//! Rejected rows, kept as Parquet with reason and origin, told and sent through their routes again.
//!
//! Invariant: a rejected row is in a file before its batch is committed; a file appears complete or not at all, and is
//! readable by its owner only.

mod file;
mod folder;
#[cfg(test)]
mod fuzzed;
mod identity;
pub mod list;
pub mod replay;
mod reread;
mod seal;
mod stock;
mod told;

pub use folder::forget_old;

use crate::ledger::make_folder;
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use schemas::PartitionId;
use stages::failpoint::{Point, pass};
use stages::{Error, Kind, Rejected, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes reject files of one run to `<state>/rejects/<run>`.
#[derive(Debug)]
pub struct RejectWriter {
    folder: PathBuf,
    plan_fingerprint: String,
    written: AtomicU64,
}

impl RejectWriter {
    /// Makes a writer; the folder is made with the first reject.
    pub fn new(state: &Path, run_id: &str, plan_fingerprint: &str) -> Self {
        Self {
            folder: folder::of_run(state, run_id),
            plan_fingerprint: plan_fingerprint.to_owned(),
            written: AtomicU64::new(0),
        }
    }

    /// The folder, for messages.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what earlier attempts at a partition wrote behind the rejects they committed; call it before another one.
    pub fn begin(&self, partition: &PartitionId, committed: u64) -> Result<()> {
        folder::take_back(&self.folder, partition, committed)
    }

    /// Writes the rejects of one batch to a new file and makes it durable.
    ///
    /// Columns: those of the route (null where a value could not be decoded), then `_reason`, `_route`,
    /// `_partition`, `_plan` and `_raw` (the row as the source's wire carried it).
    pub fn write(
        &self,
        route: &str,
        partition: &PartitionId,
        epoch: u64,
        rejected: &Rejected,
    ) -> Result<()> {
        make_folder(&self.folder)?;
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{epoch}-{number}.parquet", folder::prefix_of(partition));
        let path = self.folder.join(name);
        let rows = self.with_origin(route, partition, rejected).map_err(|error| {
            Error::new(Kind::Internal, "cannot shape the rejected rows").with_source(error)
        })?;
        file::write(&path, &rows)?;
        pass(Point::RejectsWritten);
        Ok(())
    }

    fn with_origin(
        &self,
        route: &str,
        partition: &PartitionId,
        rejected: &Rejected,
    ) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
        let count = rejected.reasons.len();
        let repeated = |text: &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, count)))
        };
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let mut fields: Vec<Field> =
            rejected.rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.extend([file::REASON, file::ROUTE, file::PARTITION, file::PLAN].map(text));
        fields.push(Field::new(file::RAW, DataType::Binary, false));
        let mut columns = rejected.rows.columns().to_vec();
        columns.push(Arc::new(StringArray::from_iter_values(&rejected.reasons)));
        columns.extend([repeated(route), repeated(&partition.0), repeated(&self.plan_fingerprint)]);
        columns.push(Arc::new(BinaryArray::from_iter_values(&rejected.raw)));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }
}
