//! Takes a raw batch apart into batches of one row each, or picks some of its rows.
//!
//! Invariant: every part decodes to exactly the row that it was in the whole.

use super::Decoder;
use super::copy_binary::Decoded;
use crate::batch::RawBatch;
use crate::error::{Error, Kind, Result};
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use schemas::TableSchema;

impl Decoder {
    /// Returns the first rows of a batch, at most `rows_max`, each as a batch of its own.
    pub fn single_rows(
        self,
        raw: &RawBatch,
        schema: &TableSchema,
        rows_max: usize,
    ) -> Result<Vec<RawBatch>> {
        let decoded = self.decode(raw, schema)?;
        let rows = decoded.rows.num_rows().min(rows_max);
        (0..rows).map(|row| self.pick(&decoded, &[row])).collect()
    }

    /// Returns some rows of a decoded batch, in order, as a batch of their own.
    pub fn pick(self, decoded: &Decoded, rows: &[usize]) -> Result<RawBatch> {
        let bytes = match (self, rows) {
            (Self::CopyBinary(_), [row]) => decoded.raw(*row),
            (Self::CopyBinary(_), rows) => {
                let tuples: Vec<Bytes> = rows.iter().map(|row| decoded.raw(*row)).collect();
                Bytes::from(tuples.concat())
            }
            (Self::ArrowIpc, [row]) => message(&decoded.rows.slice(*row, 1))?,
            (Self::ArrowIpc, rows) => {
                let places = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
                let picked = take_record_batch(&decoded.rows, &places).map_err(torn)?;
                message(&picked)?
            }
        };
        Ok(RawBatch::new(bytes, rows.len(), true))
    }
}

/// A schema message and one record batch message, as a batch of the wire has them.
fn message(rows: &RecordBatch) -> Result<Bytes> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).map_err(torn)?;
    writer.write(rows).map_err(torn)?;
    // Not finished: that would put an end-of-stream marker behind the rows.
    writer.flush().map_err(torn)?;
    Ok(Bytes::from(std::mem::take(writer.get_mut())))
}

fn torn(error: ArrowError) -> Error {
    Error::new(Kind::Internal, "a row cannot be taken out of its batch").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::copy_binary::Lead;
    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;
    use schemas::{Column, ColumnType};
    use std::sync::Arc;

    fn table(columns: &[(&str, ColumnType)]) -> TableSchema {
        let column = |(name, column_type): &(&str, ColumnType)| Column {
            name: (*name).to_owned(),
            column_type: column_type.clone(),
            source_type: column_type.name(),
            as_text: false,
        };
        let columns = columns.iter().map(column).collect();
        TableSchema { table: "t".into(), columns, unique_keys: Vec::new() }
    }

    #[test]
    fn arrow_rows_come_one_by_one() {
        let schema = table(&[
            ("a", ColumnType::Int8),
            ("b", ColumnType::Text),
            ("l", ColumnType::Array(Box::new(ColumnType::Int8))),
        ]);
        let list = [Some(vec![Some(1), None]), None, Some(vec![Some(3)])];
        let whole = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec![Some("x"), Some("yy"), None]))),
            ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(list))),
        ])
        .unwrap();
        let raw = RawBatch::new(message(&whole).unwrap(), 3, true);
        let singles = Decoder::ArrowIpc.single_rows(&raw, &schema, 2).unwrap();
        assert_eq!(singles.len(), 2);
        let decoded = Decoder::ArrowIpc.decode(&raw, &schema).unwrap();
        for (row, single) in singles.iter().enumerate() {
            let one = Decoder::ArrowIpc.decode(single, &schema).unwrap();
            assert_eq!(one.rows, decoded.rows.slice(row, 1));
        }
    }

    #[test]
    fn tuples_come_one_by_one_without_header_and_trailer() {
        let schema = table(&[("a", ColumnType::Int4), ("b", ColumnType::Text)]);
        let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for (number, text) in [(1_i32, "x"), (2, "yy"), (3, "")] {
            bytes.extend_from_slice(&2_i16.to_be_bytes());
            bytes.extend_from_slice(&4_i32.to_be_bytes());
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.extend_from_slice(&i32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&[0xff, 0xff]);
        let tuples = Decoder::CopyBinary(Lead::None);
        let raw = RawBatch::new(Bytes::from(bytes), 3, true);
        let singles = tuples.single_rows(&raw, &schema, 10).unwrap();
        let decoded = tuples.decode(&raw, &schema).unwrap();
        assert_eq!(singles.len(), 3);
        for (row, single) in singles.iter().enumerate() {
            let one = tuples.decode(single, &schema).unwrap();
            assert_eq!(one.rows, decoded.rows.slice(row, 1));
        }
    }
}
