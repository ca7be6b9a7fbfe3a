//! Rows as bytes that compare in the order of a route, and back.
//!
//! Invariant: `decode(encode(row))` is the row, columns that the order alone needs included; no two rows have equal
//! bytes, because each carries its number, so that rows which are alike are all kept.

use crate::spool::Sorter;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatchOptions;
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use schemas::BoundRoute;
use schemas::bind::OrderBy;
use schemas::plan::NullPolicy;
use stages::extract::BATCH_BYTES;
use stages::transform::arrow_ipc;
use stages::{Error, Kind, RawBatch, Result};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes of a row's number.
const NUMBER_BYTES: usize = size_of::<u64>();

/// A column that rows are ordered by.
struct By {
    index: usize,
    options: SortOptions,
    /// Whether a null is the empty text.
    is_null_empty: bool,
}

/// Codes the rows of one read.
pub(super) struct Coded<'a> {
    bound: &'a BoundRoute,
    by: Vec<By>,
    /// Known from the first batch on.
    shape: Option<Shape>,
    rows: u64,
}

struct Shape {
    converter: RowConverter,
    schema: SchemaRef,
}

impl<'a> Coded<'a> {
    pub(super) fn new(bound: &'a BoundRoute) -> Self {
        let is_empty = bound.route.null == NullPolicy::Empty;
        let by = bound.order().into_iter().filter_map(|by| match by {
            OrderBy::Exactly(index) => {
                Some(By { index, options: SortOptions::default(), is_null_empty: is_empty })
            }
            OrderBy::Column { name, is_descending: descending } => {
                let options = SortOptions { descending, nulls_first: !descending };
                Some(By { index: bound.schema.index_of(name)?, options, is_null_empty: false })
            }
        });
        Self { bound, by: by.collect(), shape: None, rows: 0 }
    }

    /// Codes a batch: what it is ordered by, every column, and the number of the row.
    pub(super) fn push(&mut self, raw: &RawBatch, sorter: &mut Sorter) -> Result<()> {
        let rows = arrow_ipc::decode(&raw.bytes, &self.bound.schema)?;
        let mut columns: Vec<ArrayRef> = self.by.iter().map(|by| by.of(&rows)).collect();
        columns.extend(rows.columns().iter().cloned());
        let shape = match &mut self.shape {
            Some(shape) => shape,
            None => self.shape.insert(Shape {
                converter: converter(&self.by, &columns).map_err(failed)?,
                schema: rows.schema(),
            }),
        };
        let coded = shape.converter.convert_columns(&columns).map_err(failed)?;
        let mut record = Vec::new();
        for row in &coded {
            record.clear();
            record.extend_from_slice(row.as_ref());
            record.extend_from_slice(&self.rows.to_be_bytes());
            self.rows += 1;
            sorter.push(&record)?;
        }
        Ok(())
    }
}

impl By {
    fn of(&self, rows: &RecordBatch) -> ArrayRef {
        let column = rows.column(self.index);
        if !self.is_null_empty || column.data_type() != &DataType::Utf8 {
            return Arc::clone(column);
        }
        let texts = column.as_string::<i32>().iter().map(|text| Some(text.unwrap_or_default()));
        Arc::new(texts.collect::<StringArray>())
    }
}

fn converter(by: &[By], columns: &[ArrayRef]) -> std::result::Result<RowConverter, ArrowError> {
    let field = |(place, column): (usize, &ArrayRef)| {
        let options = by.get(place).map_or_else(SortOptions::default, |by| by.options);
        SortField::new_with_options(column.data_type().clone(), options)
    };
    RowConverter::new(columns.iter().enumerate().map(field).collect())
}

fn failed(error: ArrowError) -> Error {
    Error::new(Kind::Internal, "rows could not be put in order").with_source(error)
}

/// Sends coded rows in batches; the last one is told.
pub(super) struct Emitter {
    shape: Shape,
    ordered_by: usize,
    to: mpsc::Sender<Result<RawBatch>>,
    records: Vec<Vec<u8>>,
    bytes: usize,
    /// Bytes of the source that the next batch counts for.
    bytes_read: u64,
}

impl Emitter {
    /// Begins; `None` where there was no row.
    pub(super) fn new(
        coded: Coded<'_>,
        to: mpsc::Sender<Result<RawBatch>>,
        bytes_read: u64,
    ) -> Option<Self> {
        let (shape, ordered_by) = (coded.shape?, coded.by.len());
        Some(Self { shape, ordered_by, to, records: Vec::new(), bytes: 0, bytes_read })
    }

    /// Takes the next row.
    pub(super) fn take(&mut self, record: &[u8]) -> Result<()> {
        // Sent only once another row is there, so that the last batch is known to be the last.
        if self.bytes >= BATCH_BYTES {
            self.send(false)?;
        }
        self.records.push(record[..record.len() - NUMBER_BYTES].to_vec());
        self.bytes += record.len();
        Ok(())
    }

    /// Sends the rest.
    pub(super) fn end(mut self) -> Result<()> {
        if self.records.is_empty() { Ok(()) } else { self.send(true) }
    }

    fn send(&mut self, is_last: bool) -> Result<()> {
        let rows = self.records.len();
        let bytes = self.encoded().map_err(failed)?;
        self.records.clear();
        self.bytes = 0;
        let bytes_read = std::mem::take(&mut self.bytes_read);
        let batch = RawBatch { bytes, rows, is_last, bytes_read };
        self.to
            .blocking_send(Ok(batch))
            .map_err(|_| Error::new(Kind::Cancelled, "the lane stopped reading"))
    }

    /// The rows as the source sent them: a schema message and one of rows, without a mark at their end.
    fn encoded(&self) -> std::result::Result<Bytes, ArrowError> {
        let parser = self.shape.converter.parser();
        let rows = self.records.iter().map(|record| parser.parse(record));
        let mut columns = self.shape.converter.convert_rows(rows)?;
        columns.drain(..self.ordered_by);
        let options = RecordBatchOptions::new().with_row_count(Some(self.records.len()));
        let schema = Arc::clone(&self.shape.schema);
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
        writer.write(&rows)?;
        writer.flush()?;
        Ok(Bytes::from(writer.get_ref().clone()))
    }
}
