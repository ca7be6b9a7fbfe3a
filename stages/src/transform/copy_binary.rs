//! PostgreSQL `COPY … (FORMAT binary)` tuples into arrow arrays.
//!
//! Invariant: a batch either decodes to as many rows as it has tuples or fails as a whole because its
//! framing is broken; a value that cannot be carried makes its row bad, with a reason that names the
//! column and never the value. The format is that of the PostgreSQL manual, COPY, "Binary Format".

mod column;
mod inet;
mod numeric;
mod split;
#[cfg(test)]
pub(crate) mod tests;

pub use split::{Part, Split};

use crate::error::{Error, Kind, Result};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use column::ColumnBuilder;
use schemas::TableSchema;
use std::collections::BTreeMap;

/// What every COPY BINARY stream begins with, before its flags and header extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The extra column that the extract puts before the columns of the schema, to know the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// No extra column.
    None,
    /// `ctid`: block number and line pointer.
    Ctid,
    /// The `split_by` column cast to text.
    Key,
}

/// What the lead column says of the end of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastLead {
    /// There is no lead column, or no row.
    None,
    /// The last tuple.
    Ctid {
        /// Block number.
        block: u32,
        /// Line pointer, from 1.
        offset: u16,
    },
    /// The last values of an ordered cut.
    Key {
        /// The last value; `None` when it is null.
        last: Option<String>,
        /// The last value that differs from `last`: all of its rows are in this batch or an earlier one.
        complete: Option<String>,
        /// The row from which on the value is `last`.
        last_from: usize,
    },
}

/// A row with a value that could not be carried; the value is null in the decoded batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Row index in the batch.
    pub row: usize,
    /// Why; names the column.
    pub reason: String,
    /// The tuple as the wire carried it.
    pub raw: Bytes,
}

/// A decoded batch.
#[derive(Debug)]
pub struct Decoded {
    /// The columns of the schema, without the lead column.
    pub rows: RecordBatch,
    /// The end of the batch in its cut.
    pub last: LastLead,
    /// Rows that could not be carried, in row order.
    pub bad: Vec<BadRow>,
    /// Start of every tuple, and the end of the last; empty where the wire has no tuples.
    edges: Vec<u32>,
    bytes: Bytes,
}

impl Decoded {
    /// Makes a batch of rows that arrived as columns, all of them good.
    pub(super) fn of_rows(rows: RecordBatch) -> Self {
        let (edges, bytes) = (Vec::new(), Bytes::new());
        Self { rows, last: LastLead::None, bad: Vec::new(), edges, bytes }
    }

    /// Returns the tuple of a row as the wire carried it; empty where the wire carried columns.
    pub fn raw(&self, row: usize) -> Bytes {
        if self.edges.is_empty() {
            return Bytes::new();
        }
        self.bytes.slice(self.edges[row] as usize..self.edges[row + 1] as usize)
    }
}

/// Decodes whole tuples; a stream header before them and a trailer after them are skipped.
pub fn decode(bytes: &Bytes, lead: Lead, schema: &TableSchema) -> Result<Decoded> {
    if i32::try_from(bytes.len()).is_err() {
        return Err(Error::new(Kind::Internal, "a batch of COPY data is larger than 2 GiB"));
    }
    let mut wire = Wire { bytes, at: 0 };
    wire.skip_header()?;
    let rows_estimate = wire.rows_estimate(schema.columns.len());
    let mut edges = Vec::with_capacity(rows_estimate + 1);
    let mut columns: Vec<ColumnBuilder> = schema
        .columns
        .iter()
        .map(|column| ColumnBuilder::new(&column.column_type, rows_estimate, bytes.len()))
        .collect();
    let mut reader = LeadReader::new(lead);
    let mut bad: BTreeMap<usize, String> = BTreeMap::new();
    let fields_expected = columns.len() + usize::from(lead != Lead::None);
    while wire.at < bytes.len() {
        let start = wire.at;
        let fields = wire.int16()?;
        if fields == -1 {
            wire.at = start;
            break;
        }
        if usize::try_from(fields) != Ok(fields_expected) {
            return Err(broken(
                start,
                &format!("a tuple has {fields} fields, not {fields_expected}"),
            ));
        }
        edges.push(edge(start));
        reader.read(&mut wire)?;
        for (index, column) in columns.iter_mut().enumerate() {
            let Some(field) = wire.field()? else {
                column.push_null();
                continue;
            };
            if let Err(problem) = column.push(field) {
                column.push_null();
                note(&mut bad, edges.len() - 1, &schema.columns[index].name, problem);
            }
        }
    }
    let row_count = edges.len();
    edges.push(edge(wire.at));
    let last = reader.last(bytes)?;
    let rows = finish(columns, schema, row_count, &mut bad)?;
    let bad = bad
        .into_iter()
        .map(|(row, reason)| {
            let raw = bytes.slice(edges[row] as usize..edges[row + 1] as usize);
            BadRow { row, reason, raw }
        })
        .collect();
    Ok(Decoded { rows, last, bad, edges, bytes: bytes.clone() })
}

/// Turns the builders into a batch; texts that are not UTF-8 make their rows bad.
fn finish(
    columns: Vec<ColumnBuilder>,
    schema: &TableSchema,
    row_count: usize,
    bad: &mut BTreeMap<usize, String>,
) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(columns.len());
    for (builder, column) in columns.into_iter().zip(&schema.columns) {
        let finished = builder.finish().map_err(|error| {
            Error::new(Kind::Data, format!("cannot hold column {} of a batch", column.name))
                .with_source(error)
        })?;
        for row in finished.not_utf8 {
            note(bad, row, &column.name, "the text is not valid UTF-8");
        }
        arrays.push(finished.array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(row_count));
    RecordBatch::try_new_with_options(schema.arrow(), arrays, &options).map_err(|error| {
        Error::new(Kind::Internal, "decoded columns do not fit their schema").with_source(error)
    })
}

/// Notes why a row is bad; the first reason stays.
fn note(bad: &mut BTreeMap<usize, String>, row: usize, column: &str, problem: &str) {
    bad.entry(row).or_insert_with(|| format!("column {column}: {problem}"));
}

fn broken(at: usize, problem: &str) -> Error {
    Error::new(Kind::Data, format!("broken COPY data at byte {at} of a batch: {problem}"))
}

/// `decode` has refused batches beyond the range.
#[expect(clippy::cast_possible_truncation, reason = "a batch is at most 2 GiB")]
fn edge(at: usize) -> u32 {
    at as u32
}

/// Reads the framing of tuples; every number is big-endian.
struct Wire<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Wire<'a> {
    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>) {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(broken(self.at, "it ends inside a tuple")),
        }
    }

    #[inline]
    fn int16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take()?))
    }

    #[inline]
    fn int32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    /// Reads one field; `None` is null.
    #[inline]
    fn field(&mut self) -> Result<Option<&'a [u8]>> {
        let at = self.at;
        let Ok(length) = usize::try_from(self.int32()?) else {
            let is_null = self.bytes[at..self.at] == [0xff; 4];
            return if is_null { Ok(None) } else { Err(broken(at, "a field length is negative")) };
        };
        match self.bytes[self.at..].get(..length) {
            Some(field) => {
                self.at += length;
                Ok(Some(field))
            }
            None => Err(broken(at, "a field runs past the end")),
        }
    }

    fn skip_header(&mut self) -> Result<()> {
        if !self.bytes.starts_with(SIGNATURE) {
            return Ok(());
        }
        self.at = SIGNATURE.len();
        let flags = self.int32()?;
        // The upper half holds the flags a reader must know; none is in use since PostgreSQL 12.
        if flags.cast_unsigned() >> 16 != 0 {
            return Err(broken(self.at - 4, "the header has flags that are not known"));
        }
        self.field()?;
        Ok(())
    }

    /// Guesses the rows from the first tuple; only capacities depend on it.
    fn rows_estimate(&self, columns: usize) -> usize {
        let mut first = Wire { bytes: self.bytes, at: self.at };
        let fields = first.int16().unwrap_or(0).max(0);
        let is_whole = (0..fields).all(|_| first.field().is_ok());
        let smallest = 2 + 4 * columns;
        let length = if is_whole { (first.at - self.at).max(smallest) } else { smallest };
        (self.bytes.len() - self.at) / length + 1
    }
}

/// Follows the lead column of a batch.
struct LeadReader<'a> {
    lead: Lead,
    rows: u64,
    ctid: (u32, u16),
    /// The value of the last row, absent before the first one and when it is null.
    key: Option<&'a [u8]>,
    /// The row from which on it is `key`.
    key_from: usize,
    /// The last value that differs from `key`.
    complete: Option<&'a [u8]>,
}

impl<'a> LeadReader<'a> {
    fn new(lead: Lead) -> Self {
        Self { lead, rows: 0, ctid: (0, 0), key: None, key_from: 0, complete: None }
    }

    #[inline]
    fn read(&mut self, wire: &mut Wire<'a>) -> Result<()> {
        self.rows += 1;
        let at = wire.at;
        match self.lead {
            Lead::None => {}
            Lead::Ctid => match wire.field()?.and_then(<[u8]>::split_first_chunk::<4>) {
                Some((block, &[high, low])) => {
                    self.ctid = (u32::from_be_bytes(*block), u16::from_be_bytes([high, low]));
                }
                _ => return Err(broken(at, "a ctid does not have 6 bytes")),
            },
            Lead::Key => {
                let key = wire.field()?;
                if self.key != key {
                    self.complete = self.key;
                    self.key = key;
                    self.key_from = usize::try_from(self.rows - 1).unwrap_or(usize::MAX);
                }
            }
        }
        Ok(())
    }

    fn last(&self, bytes: &[u8]) -> Result<LastLead> {
        let text = |key: Option<&[u8]>| {
            key.map(|key| String::from_utf8(key.to_vec())).transpose().map_err(|_| {
                broken(bytes.len(), "the column that cuts the table is not valid UTF-8")
            })
        };
        Ok(match self.lead {
            Lead::Ctid if self.rows > 0 => {
                LastLead::Ctid { block: self.ctid.0, offset: self.ctid.1 }
            }
            Lead::Key if self.rows > 0 => {
                let (last, complete) = (text(self.key)?, text(self.complete)?);
                LastLead::Key { last, complete, last_from: self.key_from }
            }
            Lead::None | Lead::Ctid | Lead::Key => LastLead::None,
        })
    }
}
