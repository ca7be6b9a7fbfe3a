//! Binary values of every type, edge values, broken framing, and arbitrary bytes.

use super::*;
use arrow::array::{Array, AsArray};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use schemas::text::TextColumn;
use schemas::{Column, ColumnType};

pub(crate) fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
    TableSchema {
        table: "public.t".into(),
        columns: columns
            .iter()
            .map(|(name, column_type)| Column {
                name: (*name).into(),
                column_type: column_type.clone(),
                source_type: column_type.name(),
                as_text: false,
            })
            .collect(),
        unique_keys: Vec::new(),
    }
}

pub(crate) fn tuple(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut bytes = i16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    for field in fields {
        let length = field.map_or(-1, |field| i32::try_from(field.len()).unwrap());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field.unwrap_or_default());
    }
    bytes
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.bytes().map(|b| u8::try_from((b as char).to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Decodes one value and returns its canonical text, or why the row is bad.
fn one(column_type: &ColumnType, field: &[u8]) -> std::result::Result<String, String> {
    let bytes = Bytes::from(tuple(&[Some(field)]));
    let decoded = decode(&bytes, Lead::None, &schema(&[("c", column_type.clone())])).unwrap();
    let array = decoded.rows.column(0).as_ref();
    if let Some(bad) = decoded.bad.first() {
        assert!(array.is_null(0), "a bad value is null");
        assert_eq!(bad.raw, bytes);
        return Err(bad.reason.strip_prefix("column c: ").unwrap().to_owned());
    }
    let mut out = Vec::new();
    TextColumn::new(array, column_type).unwrap().write(0, &mut out);
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn scalars_decode() {
    use ColumnType as T;
    let cases: [(T, &[u8], &str); 16] = [
        (T::Bool, &[1], "true"),
        (T::Int2, &(-2_i16).to_be_bytes(), "-2"),
        (T::Int4, &i32::MIN.to_be_bytes(), "-2147483648"),
        (T::Int8, &i64::MAX.to_be_bytes(), "9223372036854775807"),
        (T::Float4, &1.5_f32.to_be_bytes(), "1.5"),
        (T::Float8, &f64::NEG_INFINITY.to_be_bytes(), "-Infinity"),
        (T::Text, "grüße".as_bytes(), "grüße"),
        (T::Bytea, &[0, 255], "\\x00ff"),
        (T::Uuid, &[0x11; 16], "11111111-1111-1111-1111-111111111111"),
        (T::Date, &0_i32.to_be_bytes(), "2000-01-01"),
        (T::Date, &i32::MAX.to_be_bytes(), "infinity"),
        (T::Time, &86_400_000_000_i64.to_be_bytes(), "24:00:00"),
        (T::Timestamp, &i64::MIN.to_be_bytes(), "-infinity"),
        (T::TimestampTz, &1_i64.to_be_bytes(), "2000-01-01T00:00:00.000001Z"),
        (T::Json, b"{ }", "{ }"),
        (T::Jsonb, b"\x01{}", "{}"),
    ];
    for (column_type, field, expected) in cases {
        assert_eq!(one(&column_type, field).unwrap(), expected, "{}", column_type.name());
    }
}

#[test]
fn values_that_cannot_be_carried_make_the_row_bad() {
    use ColumnType as T;
    let last = i64::MAX - 946_684_800_000_000;
    let cases: [(T, &[u8], &str); 12] = [
        (T::Bool, &[], "unexpected length"),
        (T::Int4, &[0; 8], "unexpected length"),
        (T::Uuid, &[0; 15], "unexpected length"),
        (T::Text, &[b'a', 0xff], "not valid UTF-8"),
        (T::Jsonb, b"\x02{}", "jsonb version"),
        (T::Jsonb, b"", "jsonb version"),
        (T::Date, &(i32::MAX - 1).to_be_bytes(), "out of range"),
        (T::Timestamp, &(i64::MAX - 1).to_be_bytes(), "out of range"),
        (T::TimestampTz, &last.to_be_bytes(), "out of range"),
        (T::Time, &(-1_i64).to_be_bytes(), "out of range"),
        (T::Numeric, &[0; 7], "malformed"),
        (T::Numeric, &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10], "malformed"),
    ];
    for (column_type, field, expected) in cases {
        let reason = one(&column_type, field).unwrap_err();
        assert!(reason.contains(expected), "{}: {reason}", column_type.name());
    }
    assert!(one(&T::Timestamp, &(last - 1).to_be_bytes()).is_ok());
}

/// Both columns are what PostgreSQL 15 prints: `select v, encode(numeric_send(v), 'hex')`.
#[test]
fn numerics_read_as_postgresql_prints_them() {
    let cases = [
        ("0", "0000000000000000"),
        ("0.00", "0000000000000002"),
        ("1.10", "0002000000000002000103e8"),
        ("-1.10", "0002000040000002000103e8"),
        ("10000", "00010001000000000001"),
        ("100000000", "00010002000000000001"),
        ("0.0001", "0001ffff000000040001"),
        ("0.00001", "0001fffe0000000503e8"),
        ("123456789.987654321", "0006000200000009000109291a852694153803e8"),
        ("100000000000000000000", "00010005000000000001"),
        ("0.00000000000000000001", "0001fffb000000140001"),
        ("-0.5", "0001ffff400000011388"),
        ("99999", "00020001000000000009270f"),
        ("12345678901234567890.12345", "000700040000000504d2162e23340d801ed204d21388"),
        ("NaN", "00000000c0000000"),
        ("Infinity", "00000000d0000020"),
        ("-Infinity", "00000000f0000020"),
        ("1000000.0000", "00010001000000040064"),
        ("0.10000000", "0001ffff0000000803e8"),
    ];
    for (expected, hex) in cases {
        assert_eq!(one(&ColumnType::Numeric, &unhex(hex)).unwrap(), expected);
    }
}

fn array(dimensions: &[(i32, i32)], elements: &[Option<&[u8]>]) -> Vec<u8> {
    let mut bytes = i32::try_from(dimensions.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 25]);
    for (size, bound) in dimensions {
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&bound.to_be_bytes());
    }
    bytes.extend_from_slice(&tuple(elements)[2..]);
    bytes
}

#[test]
fn arrays_decode() {
    let texts = ColumnType::Array(Box::new(ColumnType::Text));
    assert_eq!(one(&texts, &array(&[], &[])).unwrap(), "[]");
    let value = array(&[(3, 1)], &[Some(b"a\""), None, Some(b"")]);
    assert_eq!(one(&texts, &value).unwrap(), r#"["a\"",null,""]"#);
    let cases = [
        (array(&[(1, 1), (1, 1)], &[Some(b"a")]), "more than one dimension"),
        (array(&[(1, 0)], &[Some(b"a")]), "index 1"),
        (array(&[(2, 1)], &[Some(b"a")]), "malformed"),
        (array(&[(1, 1)], &[Some(b"a"), Some(b"b")]), "malformed"),
        (array(&[(-1, 1)], &[]), "malformed"),
        (array(&[(1, 1)], &[Some(b"\xff")]), "UTF-8"),
        (vec![0; 3], "malformed"),
    ];
    for (value, expected) in cases {
        let reason = one(&texts, &value).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    }
    let integers = ColumnType::Array(Box::new(ColumnType::Int4));
    let reason = one(&integers, &array(&[(2, 1)], &[Some(&[0; 4]), Some(&[0; 3])])).unwrap_err();
    assert_eq!(reason, "the value has an unexpected length");
}

#[test]
fn a_bad_row_does_not_touch_its_neighbours() {
    let table = schema(&[
        ("i", ColumnType::Int4),
        ("t", ColumnType::Text),
        ("a", ColumnType::Array(Box::new(ColumnType::Text))),
    ]);
    let good = array(&[(1, 1)], &[Some(b"x")]);
    let rows = [
        tuple(&[Some(&[0, 0, 0, 1]), Some(b"one"), Some(&good)]),
        tuple(&[Some(&[0]), Some(b"\xff"), Some(&array(&[(2, 1)], &[Some(b"\xff"), None]))]),
        tuple(&[Some(&[0, 0, 0, 3]), Some(b"three"), Some(&array(&[(1, 1)], &[Some(b"\xc3")]))]),
        tuple(&[None, Some("ü".as_bytes()), Some(&good)]),
    ];
    let decoded = decode(&Bytes::from(rows.concat()), Lead::None, &table).unwrap();
    let bad: Vec<(usize, &str)> =
        decoded.bad.iter().map(|bad| (bad.row, bad.reason.as_str())).collect();
    assert_eq!(
        bad,
        [
            (1, "column i: the value has an unexpected length"),
            (2, "column a: the text is not valid UTF-8"),
        ]
    );
    assert_eq!(decoded.bad[1].raw, rows[2]);
    assert_eq!(decoded.raw(3), rows[3]);
    let texts = decoded.rows.column(1).as_string::<i32>();
    let texts: Vec<Option<&str>> = texts.iter().collect();
    assert_eq!(texts, [Some("one"), None, Some("three"), Some("ü")]);
    assert_eq!(array_value_to_string(decoded.rows.column(2), 3).unwrap(), "[x]");
}

#[test]
fn header_and_trailer_are_skipped() {
    let table = schema(&[("i", ColumnType::Int2)]);
    let row = tuple(&[Some(&[0, 7])]);
    let mut stream = SIGNATURE.to_vec();
    stream.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 9, 9]);
    stream.extend_from_slice(&row);
    stream.extend_from_slice(&[0xff, 0xff]);
    let decoded = decode(&Bytes::from(stream.clone()), Lead::None, &table).unwrap();
    assert_eq!((decoded.rows.num_rows(), decoded.raw(0)), (1, Bytes::from(row)));
    stream[12] = 1;
    assert!(decode(&Bytes::from(stream), Lead::None, &table).is_err());
    let empty = decode(&Bytes::new(), Lead::Ctid, &table).unwrap();
    assert_eq!((empty.rows.num_rows(), empty.last), (0, LastLead::None));
}

#[test]
fn broken_framing_is_an_error_with_its_place() {
    let table = schema(&[("i", ColumnType::Int2)]);
    let row = tuple(&[Some(&[0, 7])]);
    let cases = [
        (row[..3].to_vec(), "byte 2 of a batch: it ends inside a tuple"),
        (row[..7].to_vec(), "byte 2 of a batch: a field runs past the end"),
        (vec![0, 2, 0, 0], "byte 0 of a batch: a tuple has 2 fields, not 1"),
        (vec![0, 1, 0xff, 0xff, 0xff, 0xfe], "byte 2 of a batch: a field length is negative"),
    ];
    for (bytes, expected) in cases {
        let error = decode(&Bytes::from(bytes), Lead::None, &table).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert_eq!(error.to_string(), format!("broken COPY data at {expected}"));
    }
}

#[test]
fn the_lead_column_tells_the_position() {
    let table = schema(&[("i", ColumnType::Int2)]);
    let rows = |leads: &[Option<&[u8]>]| {
        let tuples: Vec<Vec<u8>> = leads.iter().map(|lead| tuple(&[*lead, None])).collect();
        Bytes::from(tuples.concat())
    };
    let ctid = decode(&rows(&[Some(&[0; 6]), Some(&[0, 1, 0, 2, 0, 9])]), Lead::Ctid, &table);
    assert_eq!(ctid.unwrap().last, LastLead::Ctid { block: 65_538, offset: 9 });
    assert!(decode(&rows(&[Some(&[0; 5])]), Lead::Ctid, &table).is_err());
    assert!(decode(&rows(&[None]), Lead::Ctid, &table).is_err());

    let last = |leads: &[&'static str]| {
        let leads: Vec<Option<&[u8]>> = leads.iter().map(|lead| Some(lead.as_bytes())).collect();
        decode(&rows(&leads), Lead::Key, &table).unwrap().last
    };
    let key = |last: &str, complete: Option<&str>, last_from| LastLead::Key {
        last: Some(last.into()),
        complete: complete.map(Into::into),
        last_from,
    };
    assert_eq!(last(&["a", "b", "b"]), key("b", Some("a"), 1));
    assert_eq!(last(&["b", "b"]), key("b", None, 0));
    assert_eq!(last(&["a", "b", "b", "c"]), key("c", Some("b"), 3));
    let null = decode(&rows(&[None, None]), Lead::Key, &table).unwrap().last;
    assert_eq!(null, LastLead::Key { last: None, complete: None, last_from: 0 });
}

fn every_type() -> TableSchema {
    use ColumnType as T;
    schema(&[
        ("c0", T::Bool),
        ("c1", T::Int2),
        ("c2", T::Int4),
        ("c3", T::Int8),
        ("c4", T::Float4),
        ("c5", T::Float8),
        ("c6", T::Numeric),
        ("c7", T::Text),
        ("c8", T::Bytea),
        ("c9", T::Uuid),
        ("c10", T::Date),
        ("c11", T::Time),
        ("c12", T::Timestamp),
        ("c13", T::TimestampTz),
        ("c14", T::Json),
        ("c15", T::Jsonb),
        ("c16", T::Array(Box::new(T::Numeric))),
        ("c17", T::Array(Box::new(T::Text))),
    ])
}

/// Decodes and prints everything; whatever the bytes, nothing may panic.
fn exercise(bytes: Vec<u8>, lead: Lead, table: &TableSchema) {
    let Ok(decoded) = decode(&Bytes::from(bytes), lead, table) else { return };
    let mut out = Vec::new();
    for (column, array) in table.columns.iter().zip(decoded.rows.columns()) {
        let values = TextColumn::new(array.as_ref(), &column.column_type).unwrap();
        for row in 0..array.len() {
            values.write_json(row, &mut out);
        }
    }
    for bad in &decoded.bad {
        assert_eq!(bad.raw, decoded.raw(bad.row));
    }
}

fn lead() -> impl Strategy<Value = Lead> {
    prop::sample::select(vec![Lead::None, Lead::Ctid, Lead::Key])
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), lead in lead()) {
        exercise(bytes, lead, &schema(&[("c", ColumnType::Int2)]));
    }

    #[test]
    fn arbitrary_fields_never_panic(
        fields in prop::collection::vec(
            prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 18..=18),
        exact in prop::collection::vec(any::<u8>(), 16..=16),
    ) {
        let table = every_type();
        let fields: Vec<Option<&[u8]>> = fields.iter().map(Option::as_deref).collect();
        let mut bytes = tuple(&fields);
        // A second row in which every fixed-width field has its width, so that values are reached.
        let widths = [1, 2, 4, 8, 4, 8, 8, 16, 16, 16, 4, 8, 8, 8, 16, 16, 12, 12];
        let sized: Vec<Option<&[u8]>> = widths.iter().map(|width| Some(&exact[..*width])).collect();
        bytes.extend_from_slice(&tuple(&sized));
        exercise(bytes, Lead::None, &table);
    }

    #[test]
    fn mutated_streams_never_panic(at in 0_usize..400, byte in any::<u8>(), cut in 0_usize..400) {
        let table = every_type();
        let one = array(&[(1, 1)], &[Some(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 1])]);
        let texts = array(&[(2, 1)], &[Some("ü".as_bytes()), None]);
        let fields: [&[u8]; 18] = [
            &[1], &[0; 2], &[0; 4], &[0; 8], &[0; 4], &[0; 8],
            &[0, 2, 0, 0, 0, 0, 0, 2, 0, 1, 3, 0xe8], "aü".as_bytes(), &[1, 2], &[7; 16], &[0; 4],
            &[0; 8], &[0; 8], &[0; 8], b"{}", b"\x01{}", &one, &texts,
        ];
        let fields: Vec<Option<&[u8]>> = fields.iter().map(|field| Some(*field)).collect();
        let mut bytes = [tuple(&fields), tuple(&fields)].concat();
        exercise(bytes.clone(), Lead::None, &table);
        let length = bytes.len();
        bytes[at % length] = byte;
        exercise(bytes.clone(), Lead::None, &table);
        bytes.truncate(cut % length);
        exercise(bytes, Lead::None, &table);
    }
}
