//! COPY BINARY of PostgreSQL: what a real server sends of every type, with other bytes, lengths, rows and cuts.

use super::{fuzz, table};
use crate::batch::RawBatch;
use crate::error::Kind;
use crate::transform::TakeApart;
use crate::transform::copy_binary::tests::tuple;
use crate::transform::copy_binary::{Lead, Part, Split, decode};
use arrow::compute::concat_batches;
use bytes::Bytes;
use fixtures::fuzz::Told;
use fixtures::servers::{Postgres, PostgresOptions};
use schemas::text::TextColumn;
use schemas::{ColumnType, TableSchema};

const TABLE: &str = "\
    create table types (id int8, b bool, i2 int2, i4 int4, f4 float4, f8 float8, n numeric, tx text, by bytea, u uuid, \
    d date, ti time, ts timestamp, tz timestamptz, j json, jb jsonb, ip inet, ai int4[], at text[]); \
    insert into types (id) values (1); \
    insert into types values (2, true, 1, -2, 1.5, 0.1, 123456789.987654321, 'größe', '\\x00ff', \
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2024-02-29', '12:34:56', '2024-02-29 12:34:56.5', '2024-02-29 12:34:56+02', \
    '{\"z\" : 1}', '{\"b\": [1, null]}', '10.0.0.1/8', '{1,NULL,-3}', '{\"a,b\",NULL,\"\"}'), \
    (-3, false, 32767, 2147483647, 'Infinity', 'NaN', 'NaN', '', '', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'infinity', \
    '24:00:00', '-infinity', 'infinity', 'null', 'null', '::1', '{}', '{}')";

fn columns() -> Vec<(&'static str, ColumnType)> {
    use ColumnType as T;
    let list = |element| T::Array(Box::new(element));
    vec![
        ("id", T::Int8),
        ("b", T::Bool),
        ("i2", T::Int2),
        ("i4", T::Int4),
        ("f4", T::Float4),
        ("f8", T::Float8),
        ("n", T::Numeric),
        ("tx", T::Text),
        ("by", T::Bytea),
        ("u", T::Uuid),
        ("d", T::Date),
        ("ti", T::Time),
        ("ts", T::Timestamp),
        ("tz", T::TimestampTz),
        ("j", T::Json),
        ("jb", T::Jsonb),
        ("ip", T::Inet),
        ("ai", list(T::Int4)),
        ("at", list(T::Text)),
    ]
}

/// What PostgreSQL makes of the table, its header and trailer included.
fn stream() -> Vec<u8> {
    let server = Postgres::start(PostgresOptions::default()).unwrap();
    server.psql(TABLE).unwrap();
    let path = server.data_dir().join("types.copy");
    server
        .psql(&format!("copy (select ctid, * from types) to '{}' (format binary)", path.display()))
        .unwrap();
    std::fs::read(path).unwrap()
}

/// Bytes after the header, and without the trailer.
fn tuples(stream: &[u8]) -> &[u8] {
    &stream[19..stream.len() - 2]
}

fn check_cut(bytes: &Bytes, schema: &TableSchema, at: usize) {
    let whole = decode(bytes, Lead::Ctid, schema).unwrap();
    let rows = whole.rows.num_rows();
    let at = at % (rows + 1);
    let before: usize = (0..at).map(|row| whole.raw(row).len()).sum();
    // A header stands before the first tuple only.
    let all: usize = (0..rows).map(|row| whole.raw(row).len()).sum();
    let body = bytes.slice_ref(&whole.raw(0)).as_ptr() as usize - bytes.as_ptr() as usize;
    let halves = [bytes.slice(..body + before), bytes.slice(body + before..body + all)];
    let halves = halves.map(|half| decode(&half, Lead::Ctid, schema).unwrap());
    let bad: Vec<&str> =
        halves.iter().flat_map(|half| &half.bad).map(|bad| bad.reason.as_str()).collect();
    assert_eq!(bad, whole.bad.iter().map(|bad| bad.reason.as_str()).collect::<Vec<_>>());
    let joined =
        concat_batches(&whole.rows.schema(), halves.iter().map(|half| &half.rows)).unwrap();
    assert_eq!(joined, whole.rows, "the cut changes what is read");
    check_split(bytes, schema, rows);
}

/// A pass that one route reads alone hands out what it was given.
fn check_split(bytes: &Bytes, schema: &TableSchema, rows: usize) {
    let fields = schema.columns.len() + 1;
    let part = Part { wanted: None, columns: (1..fields).collect(), after: None };
    let mut split = Split::new(fields, vec![part], 1 << 16);
    let taken = split.apply(&RawBatch::new(bytes.clone(), rows, true)).unwrap();
    let again = decode(&taken[0].batch.bytes, Lead::Ctid, schema).unwrap();
    assert_eq!(again.rows, decode(bytes, Lead::Ctid, schema).unwrap().rows);
}

#[test]
fn a_copy_stream_of_anybody_however_it_is_cut() {
    let schema = table(&columns());
    let stream = stream();
    let only = tuples(&stream).to_vec();
    fuzz("a copy stream", vec![stream, only]).heap(4 << 20, 256).run(|input, dice| {
        let bytes = Bytes::copy_from_slice(input);
        let decoded = decode(&bytes, Lead::Ctid, &schema);
        let _key = decode(&bytes, Lead::Key, &schema);
        match &decoded {
            Ok(decoded) => {
                let mut out = Vec::new();
                for (column, array) in schema.columns.iter().zip(decoded.rows.columns()) {
                    let texts = TextColumn::new(array.as_ref(), &column.column_type).unwrap();
                    (0..decoded.rows.num_rows()).for_each(|row| texts.write(row, &mut out));
                }
                if decoded.rows.num_rows() > 0 {
                    check_cut(&bytes, &schema, dice.below(100));
                }
            }
            Err(error) => assert_eq!(error.kind(), Kind::Data),
        }
        Told::from(&decoded)
    });
}

/// One value, tried as every type.
#[test]
fn a_copy_value_of_anybody() {
    let stream = stream();
    let schema = table(&columns());
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let body = Bytes::copy_from_slice(tuples(&stream));
    for row in 0..3 {
        let raw = decode(&body, Lead::Ctid, &schema).unwrap().raw(row);
        let mut rest = &raw[2..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            corpus.push(after[..length].to_vec());
            rest = &after[length..];
        }
    }
    let schemas: Vec<TableSchema> = columns().into_iter().map(|column| table(&[column])).collect();
    corpus.retain(|value| is_more_than_text(value, &schemas));
    assert!(corpus.len() > 30, "only {} values are left", corpus.len());
    fuzz("a copy value", corpus).heap(1 << 20, 256).run(|input, _| {
        if is_more_than_text(input, &schemas) { Told::Taken } else { Told::Refused }
    });
}

/// Decodes a value as each type; whether one of those takes it that do not take almost everything.
fn is_more_than_text(value: &[u8], schemas: &[TableSchema]) -> bool {
    let bytes = Bytes::from(tuple(&[Some(value)]));
    let mut is_taken = false;
    for schema in schemas {
        let column_type = &schema.columns[0].column_type;
        // A framed value is never a broken stream, however little sense it makes.
        let decoded = decode(&bytes, Lead::None, schema).unwrap();
        assert_eq!(decoded.rows.num_rows(), 1);
        let mut text = Vec::new();
        let texts = TextColumn::new(decoded.rows.column(0).as_ref(), column_type).unwrap();
        texts.write(0, &mut text);
        assert!(decoded.bad.is_empty() || texts.is_null(0), "a bad value is null");
        let is_text =
            matches!(column_type, ColumnType::Bytea | ColumnType::Text | ColumnType::Json);
        is_taken |= decoded.bad.is_empty() && !is_text;
    }
    is_taken
}
