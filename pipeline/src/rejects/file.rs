//! One Parquet file of rejected rows: written whole, read batch by batch.
//!
//! Invariant: a file gets its name only when it is durable; what is not as it was written, or lacks the columns of origin, is
//! refused by name.

use super::seal;
use crate::ledger::io_error;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use stages::{Error, Kind, Result};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Why a row was rejected; names columns, never values.
pub(super) const REASON: &str = "_reason";
/// The route that could not carry it.
pub(super) const ROUTE: &str = "_route";
/// The partition it was read in.
pub(super) const PARTITION: &str = "_partition";
/// Fingerprint of the plan.
pub(super) const PLAN: &str = "_plan";
/// The row as the wire carried it.
pub(super) const RAW: &str = "_raw";
/// What a file is called until it is durable.
pub(super) const UNFINISHED: &str = ".tmp";

/// Rows decoded at once.
const ROWS_AT_ONCE: usize = 1024;

/// Writes a file that nobody else writes and makes it durable under its name.
pub(super) fn write(path: &Path, rows: &RecordBatch) -> Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = Path::new(&unfinished);
    let failed = |error| {
        Error::new(Kind::Internal, format!("cannot write {}", path.display()))
            .with_hint("free space under --state, then run the same command again: it resumes")
            .with_source(error)
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(unfinished)
        .map_err(|error| io_error("create", unfinished, error))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(seal::KEY.into(), seal::BLANK.to_owned())]))
        .build();
    let durable = file.try_clone().map_err(|error| io_error("open", path, error))?;
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).map_err(failed)?;
    writer.write(rows).map_err(failed)?;
    writer.close().map_err(failed)?;
    seal::close(&durable).map_err(|error| io_error("write", path, error))?;
    durable.sync_all().map_err(|error| io_error("write", path, error))?;
    rename(unfinished, path)
}

/// Renames a file and makes its new name durable.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| io_error("rename", from, error))?;
    let folder = to.parent().unwrap_or(to);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| io_error("make durable", folder, error))
}

/// Some rows of a file, with the texts of their origin.
pub(super) struct RejectBatch {
    /// All columns of the file.
    pub(super) rows: RecordBatch,
    pub(super) reasons: StringArray,
    pub(super) routes: StringArray,
    pub(super) plans: StringArray,
}

/// Number of rows in a file.
pub(super) fn rows(path: &Path) -> Result<u64> {
    let file = File::open(path).map_err(|error| io_error("open", path, error))?;
    let opened = guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file));
    let rows = opened?.metadata().file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| foreign(path, "it has a negative number of rows"))
}

/// Reads a file from its first row to its last, some rows at a time.
pub(super) fn read(path: &Path, take: &mut dyn FnMut(RejectBatch) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|error| io_error("open", path, error))?;
    if !seal::holds(&file).map_err(|error| io_error("read", path, error))? {
        return Err(foreign(path, "it has no checksum, or another one than its bytes"));
    }
    let opened = guarded(path, || {
        ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(ROWS_AT_ONCE).build()
    });
    let mut batches = opened?;
    while let Some(rows) = guarded(path, || batches.next().transpose().map_err(Into::into))? {
        take(RejectBatch {
            reasons: text(path, &rows, REASON)?,
            routes: text(path, &rows, ROUTE)?,
            plans: text(path, &rows, PLAN)?,
            rows,
        })?;
    }
    Ok(())
}

/// What a damaged file makes of the decoder is an error, whether it says so or panics.
fn guarded<T>(path: &Path, decode: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|error| foreign(path, &error.to_string())),
        Err(_) => Err(foreign(path, "its data cannot be decoded")),
    }
}

fn text(path: &Path, rows: &RecordBatch, name: &str) -> Result<StringArray> {
    let found = own(rows, name)
        .filter(|column| *column.data_type() == DataType::Utf8 && column.null_count() == 0);
    match found {
        Some(column) => Ok(column.as_string::<i32>().clone()),
        None => Err(foreign(path, &format!("it has no column {name}"))),
    }
}

/// The last column of a name: those of origin stand behind those of the table.
fn own<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    let place = rows.schema().fields().iter().rposition(|field| field.name() == name)?;
    Some(rows.column(place))
}

/// Returns the rows with another reason each and the fingerprint of another plan.
pub(super) fn with_reasons(
    rows: &RecordBatch,
    reasons: &[String],
    plan: &str,
) -> Result<RecordBatch> {
    let schema = rows.schema();
    let mut columns = rows.columns().to_vec();
    for (name, texts) in [
        (REASON, StringArray::from_iter_values(reasons)),
        (PLAN, StringArray::from_iter_values(std::iter::repeat_n(plan, reasons.len()))),
    ] {
        if let Some(place) = schema.fields().iter().rposition(|field| field.name() == name) {
            columns[place] = std::sync::Arc::new(texts);
        }
    }
    RecordBatch::try_new(schema, columns).map_err(|error| {
        Error::new(Kind::Internal, "cannot shape the rejected rows").with_source(error)
    })
}

/// The refusal of a file that is none of ours, or damaged.
pub(super) fn foreign(path: &Path, what: &str) -> Error {
    Error::new(
        Kind::Internal,
        format!("{} is damaged, or no file of rejected rows", path.display()),
    )
    .with_hint("move it out of the folder, then run the same command again; nothing was written")
    .with_source(what.to_owned())
}
