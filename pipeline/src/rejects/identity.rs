//! What tells a rejected row from the others of its table, so that it is found again in the source.
//!
//! Invariant: two rows of a table never have the same identity where its columns are a unique key of the table; where
//! the identity is the route's key, every row that has it is met, so that a second one shows.

use crate::route::RouteRun;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use schemas::text::{TextColumn, TypeMismatch};
use schemas::{BoundRoute, Partition};
use stages::{Error, Kind, Result};
use std::sync::Arc;

/// One identity per row.
type Identities = std::result::Result<Vec<Option<Vec<u8>>>, TypeMismatch>;

/// How rows of a route are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// By the texts of these columns, which a unique key of the table holds distinct.
    Columns(Vec<usize>),
    /// By the key that the route renders.
    Key,
}

impl Identity {
    /// Chooses for a route: a unique key that rows are found by, which a row has whatever its route says of it.
    pub(super) fn of(route: &RouteRun) -> Self {
        let schema = &route.bound.schema;
        if !route.bound.key_is_proven_unique {
            // Another row may have taken the key meanwhile; only who looks for all rows of a key sees that.
            return Self::Key;
        }
        let places = |unique: &Vec<String>| -> Option<Vec<usize>> {
            unique.iter().map(|column| schema.index_of(column)).collect()
        };
        let found = schema.unique_keys.iter().filter_map(places);
        found
            .filter(|columns| route.source.rows_with(columns, &[]).is_some())
            .min_by_key(Vec::len)
            .map_or(Self::Key, Self::Columns)
    }

    /// Returns the identity of every row; `None` where it has none, because a column of it is null.
    pub(super) fn of_rows(
        &self,
        bound: &BoundRoute,
        rows: &RecordBatch,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        match self {
            Self::Columns(columns) => by_columns(bound, columns, rows),
            Self::Key => by_key(bound, rows),
        }
        .map_err(|error| {
            Error::new(Kind::Internal, "a column of a row has the wrong arrow type")
                .with_source(error)
        })
    }

    /// A partition of the rows with these identities; `None` where everything has to be read.
    pub(super) fn partition(&self, route: &RouteRun, identities: &[&[u8]]) -> Option<Partition> {
        match self {
            Self::Columns(columns) => {
                let texts: Vec<Vec<&[u8]>> = identities.iter().map(|bytes| split(bytes)).collect();
                route.source.rows_with(columns, &texts)
            }
            Self::Key => route.source.rows_of(identities),
        }
    }
}

fn by_columns(bound: &BoundRoute, columns: &[usize], rows: &RecordBatch) -> Identities {
    let texts: Vec<TextColumn<'_>> = columns
        .iter()
        .map(|place| {
            TextColumn::new(rows.column(*place), &bound.schema.columns[*place].column_type)
        })
        .collect::<std::result::Result<_, _>>()?;
    let identity = |row: usize| {
        let mut bytes = Vec::new();
        for text in &texts {
            if text.is_null(row) {
                return None;
            }
            let at = bytes.len();
            bytes.extend_from_slice(&[0; 4]);
            text.write(row, &mut bytes);
            let length = u32::try_from(bytes.len() - at - 4).ok()?;
            bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        Some(bytes)
    };
    Ok((0..rows.num_rows()).map(identity).collect())
}

/// Takes an identity of columns apart: each text behind its length.
fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((text, rest)) = rest.split_at_checked(length) else { break };
        texts.push(text);
        bytes = rest;
    }
    texts
}

fn by_key(bound: &BoundRoute, rows: &RecordBatch) -> Identities {
    let renderer = bound.key.renderer(rows)?;
    let identity = |row: usize| {
        let mut key = Vec::new();
        renderer.render(row, &mut key).ok().map(|()| key)
    };
    Ok((0..rows.num_rows()).map(identity).collect())
}

/// Returns rows of a file in the shape of the route's table as it is now: a column that the file lacks, or has in
/// another type, is null.
pub(super) fn in_shape(bound: &BoundRoute, rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = bound.schema.arrow();
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| {
            let found = rows.schema().index_of(field.name()).ok().map(|place| rows.column(place));
            match found {
                Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
                _ => new_null_array(field.data_type(), rows.num_rows()),
            }
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| {
        Error::new(Kind::Internal, "rejected rows cannot be put into shape").with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_of_columns_is_taken_apart_as_it_was_made() {
        let bytes = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c";
        assert_eq!(split(bytes), [&b"ab"[..], b"", b"c"]);
        assert_eq!(split(b"\x09\0\0\0ab"), Vec::<&[u8]>::new());
    }
}
