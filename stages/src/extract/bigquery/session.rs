//! What a read session is asked for, and how it is made.
//!
//! Invariant: columns, filter and snapshot time are the service's business; what arrives is what is carried.

use crate::connect::bigquery::storage::arrow_serialization_options::CompressionCodec;
use crate::connect::bigquery::storage::read_session::table_read_options::OutputFormatSerializationOptions;
use crate::connect::bigquery::storage::read_session::{Schema, TableModifiers, TableReadOptions};
use crate::connect::bigquery::storage::{
    ArrowSerializationOptions, CreateReadSessionRequest, DataFormat, ReadSession,
};
use crate::connect::bigquery::{BigQuery, awaited};
use crate::error::{Error, Kind, Result};
use crate::extract::Columns;
use bytes::Bytes;
use schemas::plan::Route;
use schemas::{BoundRoute, Bounds};

/// Streams of a large partition, read at once into one channel.
const STREAMS: i32 = 4;
/// Below this one stream is as fast.
const ONE_STREAM_BYTES: u64 = 64 * 1024 * 1024;
/// The end-of-stream marker of arrow IPC, which some servers put behind a schema.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// A table and when it is read.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) path: String,
    pub(super) snapshot_us: Option<i64>,
}

/// Everything that makes a session.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) table: Table,
    pub(super) selected: Vec<String>,
    pub(super) restriction: String,
    pub(super) streams: i32,
}

/// A session that was made.
pub(super) struct Made {
    /// The schema message of every batch.
    pub(super) schema: Bytes,
    pub(super) streams: Vec<String>,
    /// Bytes that a read of it scans.
    pub(super) bytes: u64,
    /// Rows that it may return, where told.
    pub(super) rows: Option<u64>,
}

/// How many streams a partition of this size is read in.
pub(super) fn streams(bytes: u64) -> i32 {
    if bytes < ONE_STREAM_BYTES { 1 } else { STREAMS }
}

/// The columns to send.
pub(super) fn selected(bound: &BoundRoute, columns: Columns) -> Vec<String> {
    let names = |schema: &schemas::TableSchema| {
        schema.columns.iter().map(|column| column.name.clone()).collect()
    };
    match columns {
        Columns::All => names(&bound.schema),
        Columns::Key => names(&bound.key_only().schema),
    }
}

/// The filter of a partition and that of its route.
pub(super) fn restriction(route: &Route, bounds: &Bounds) -> String {
    let cut = match bounds {
        Bounds::Filter { condition } => Some(condition.as_str()),
        _ => None,
    };
    match (cut, route.filter.as_deref()) {
        // On a line of its own, so that a comment at the end of one does not swallow the other.
        (Some(cut), Some(filter)) => format!("({cut}) AND ({filter}\n)"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => String::new(),
    }
}

/// The filter of rows that are elements of their keys, where many rows make one and nulls are left out.
pub(super) fn has_element(bound: &BoundRoute, restriction: String) -> String {
    let names: Vec<String> =
        bound.never_null().into_iter().map(|name| format!("`{name}` IS NOT NULL")).collect();
    match (names.is_empty(), restriction.is_empty()) {
        (true, _) => restriction,
        (false, true) => names.join(" AND "),
        (false, false) => format!("({restriction}\n) AND {}", names.join(" AND ")),
    }
}

/// Makes a session.
pub(super) async fn create(bigquery: &BigQuery, wanted: &Wanted, partition: &str) -> Result<Made> {
    let arrow = ArrowSerializationOptions {
        buffer_compression: CompressionCodec::Lz4Frame.into(),
        ..ArrowSerializationOptions::default()
    };
    let options = TableReadOptions {
        selected_fields: wanted.selected.clone(),
        row_restriction: wanted.restriction.clone(),
        output_format_serialization_options: Some(
            OutputFormatSerializationOptions::ArrowSerializationOptions(arrow),
        ),
        ..TableReadOptions::default()
    };
    let modifiers =
        wanted.table.snapshot_us.map(|us| TableModifiers { snapshot_time: Some(timestamp(us)) });
    let session = ReadSession {
        data_format: DataFormat::Arrow.into(),
        table: wanted.table.path.clone(),
        table_modifiers: modifiers,
        read_options: Some(options),
        trace_id: "rekindle".to_owned(),
        ..ReadSession::default()
    };
    let request = CreateReadSessionRequest {
        parent: format!("projects/{}", bigquery.project()),
        read_session: Some(session),
        max_stream_count: wanted.streams,
        preferred_min_stream_count: 0,
    };
    let routing = [("read_session.table", wanted.table.path.as_str())];
    let request = bigquery.request(request, &routing).await?;
    let what = format!("cannot begin to read partition {partition}");
    let session = awaited(bigquery.read_client().create_read_session(request))
        .await
        .map_err(|status| bigquery.failed(&status, &what))?
        .into_inner();
    let schema = match session.schema {
        Some(Schema::ArrowSchema(schema)) => without_end(schema.serialized_schema),
        _ => {
            return Err(Error::new(
                Kind::Internal,
                format!("{what}: bigquery sent no arrow schema"),
            ));
        }
    };
    let streams = session.streams.into_iter().map(|stream| stream.name).collect();
    Ok(Made {
        schema,
        streams,
        bytes: u64::try_from(session.estimated_total_bytes_scanned).unwrap_or(0),
        rows: u64::try_from(session.estimated_row_count).ok().filter(|rows| *rows > 0),
    })
}

/// Cuts an end-of-stream marker off, so that a batch can follow.
pub(super) fn without_end(message: Bytes) -> Bytes {
    if message.ends_with(&END_OF_STREAM) {
        let end = message.len() - END_OF_STREAM.len();
        return message.slice(..end);
    }
    message
}

fn timestamp(us: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
    prost_types::Timestamp { seconds: us.div_euclid(1_000_000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_marker_is_cut_off_once() {
        let mut bytes = b"schema".to_vec();
        bytes.extend_from_slice(&END_OF_STREAM);
        assert_eq!(without_end(Bytes::from(bytes)), Bytes::from_static(b"schema"));
        assert_eq!(without_end(Bytes::from_static(b"schema")), Bytes::from_static(b"schema"));
    }

    #[test]
    fn times_before_1970_have_positive_nanos() {
        let time = timestamp(-1);
        assert_eq!((time.seconds, time.nanos), (-1, 999_999_000));
    }
}
