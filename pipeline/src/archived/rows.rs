//! Rows of a file as BigQuery would have sent them: the columns of the route, as arrow messages.
//!
//! Invariant: no value is changed: columns are found by name, and one that the table got after the file was written is
//! null in its rows, or empty where it repeats, which is what BigQuery says of such rows.

use super::Wanted;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{and, filter_record_batch, is_not_null};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatchOptions;
use bytes::{Bytes, BytesMut};
use schemas::text::TextColumn;
use schemas::{Column, TableSchema};
use stages::transform::arrow_rows::{cut, fit, schema_message};
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// Makes messages of about so many bytes, each behind its schema, and says how many rows each has.
pub(super) fn messages(
    rows: &RecordBatch,
    wanted: &Wanted,
    batch_bytes: usize,
) -> Result<Vec<(Bytes, usize)>> {
    let rows = projected(&whole(rows, &wanted.never_null)?, &wanted.schema)?;
    let schema = schema_message(rows.schema_ref())?;
    // A batch is a message behind its schema.
    let bytes_max = batch_bytes.saturating_sub(schema.len()).max(1);
    let messages = cut(&rows, bytes_max)?.into_iter().map(|message| {
        let mut bytes = BytesMut::with_capacity(schema.len() + message.bytes.len());
        bytes.extend_from_slice(&schema);
        bytes.extend_from_slice(&message.bytes);
        (bytes.freeze(), message.rows)
    });
    Ok(messages.collect())
}

fn failed(error: ArrowError) -> Error {
    Error::new(Kind::Internal, "rows of the archive cannot be shaped").with_source(error)
}

fn found<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    let fields = rows.schema_ref().fields();
    let place = fields.iter().position(|field| field.name().eq_ignore_ascii_case(name))?;
    Some(rows.column(place))
}

/// Leaves out rows in which one of these columns is null.
fn whole(rows: &RecordBatch, never_null: &[String]) -> Result<RecordBatch> {
    let mut kept: Option<BooleanArray> = None;
    for name in never_null {
        // A column that the table got later is null in all of them.
        let Some(column) = found(rows, name) else { return Ok(rows.slice(0, 0)) };
        let is_there = is_not_null(column.as_ref()).map_err(failed)?;
        kept = Some(match kept {
            Some(kept) => and(&kept, &is_there).map_err(failed)?,
            None => is_there,
        });
    }
    match kept {
        Some(kept) => filter_record_batch(rows, &kept).map_err(failed),
        None => Ok(rows.clone()),
    }
}

/// Takes the columns of a schema, in its order.
fn projected(rows: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch> {
    let columns = schema
        .columns
        .iter()
        .map(|column| taken(rows, column))
        .collect::<Result<Vec<ArrayRef>>>()?;
    let fields: Vec<Field> = schema
        .columns
        .iter()
        .zip(&columns)
        .map(|(column, array)| Field::new(&column.name, array.data_type().clone(), true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(failed)
}

fn taken(rows: &RecordBatch, column: &Column) -> Result<ArrayRef> {
    let array = found(rows, &column.name);
    if let Some(array) = array
        && TextColumn::new(array.as_ref(), &column.column_type).is_ok()
    {
        return Ok(Arc::clone(array));
    }
    // The table got the column, or a member of it, after the file was written.
    let field = |array: &ArrayRef| Field::new(&column.name, array.data_type().clone(), true);
    let fields: Vec<Field> = array.map(field).into_iter().collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let arrays = array.cloned().into_iter().collect();
    let alone = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(failed)?;
    let target = Schema::new(vec![Field::new(&column.name, column.column_type.arrow(), true)]);
    let fitted = fit(&alone, &Arc::new(target)).map_err(|error| {
        let message =
            format!("column {} has another type in a file of the archive: {error}", column.name);
        Error::new(Kind::Schema, message).with_hint(
            "copy the table anew: rekindle backup bigquery --to archive --full; or leave the column out of the route",
        )
    })?;
    Ok(Arc::clone(fitted.column(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, Int64Array, StringArray, StructArray};
    use arrow::datatypes::Int64Type;
    use schemas::ColumnType;
    use stages::RawBatch;
    use stages::transform::Decoder;

    fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
        let column = |(name, column_type): &(&str, ColumnType)| Column {
            name: (*name).to_owned(),
            column_type: column_type.clone(),
            source_type: column_type.name(),
            as_text: false,
        };
        let columns = columns.iter().map(column).collect();
        TableSchema { table: "d.t".into(), columns, unique_keys: Vec::new() }
    }

    fn rows() -> RecordBatch {
        let member: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 9]));
        let record = StructArray::from(vec![(
            Arc::new(Field::new("a", member.data_type().clone(), true)),
            member,
        )]);
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
            ("name", Arc::new(StringArray::from(vec![Some("x"), None, Some("z")]))),
            ("rec", Arc::new(record)),
        ])
        .unwrap()
    }

    #[test]
    fn columns_are_taken_by_name_and_later_ones_are_null_or_empty() {
        let members = vec![("a".to_owned(), ColumnType::Int8), ("b".to_owned(), ColumnType::Text)];
        let wanted = schema(&[
            ("later", ColumnType::Text),
            ("Name", ColumnType::Text),
            ("tags", ColumnType::Array(Box::new(ColumnType::Text))),
            ("rec", ColumnType::Struct(members)),
        ]);
        let taken = projected(&rows(), &wanted).unwrap();
        assert_eq!((taken.num_rows(), taken.column(0).null_count()), (3, 3));
        assert_eq!(taken.column(1).as_string::<i32>().value(2), "z");
        let tags = taken.column(2).as_list::<i32>();
        assert_eq!((tags.null_count(), tags.value_length(1)), (0, 0));
        let record = taken.column(3).as_struct();
        assert_eq!(record.column(0).as_primitive::<Int64Type>().value(1), 8);
        assert_eq!(record.column(1).null_count(), 3);
    }

    #[test]
    fn another_type_is_refused_by_name() {
        let error = projected(&rows(), &schema(&[("id", ColumnType::Text)])).unwrap_err();
        assert_eq!(error.kind(), Kind::Schema);
        assert!(error.to_string().contains("column id"), "{error}");
    }

    #[test]
    fn messages_hold_every_row_that_is_whole() {
        let schema = schema(&[("id", ColumnType::Int8), ("name", ColumnType::Text)]);
        let read = |never_null: Vec<String>| -> Vec<i64> {
            let wanted = Wanted { schema: schema.clone(), never_null };
            let found = messages(&rows(), &wanted, 1).unwrap();
            let ids = found.iter().flat_map(|(bytes, count)| {
                // It fails where the rows are not as many as are told.
                let raw = RawBatch::new(bytes.clone(), *count, false);
                let decoded = Decoder::ArrowIpc.decode(&raw, &schema).unwrap();
                decoded.rows.column(0).as_primitive::<Int64Type>().values().to_vec()
            });
            ids.collect()
        };
        assert_eq!(read(Vec::new()), [1, 2, 3]);
        assert_eq!(read(vec!["name".to_owned()]), [1, 3]);
        assert_eq!(read(vec!["later".to_owned()]), [] as [i64; 0]);
    }
}
