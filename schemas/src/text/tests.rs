//! Text and JSON forms of every type, against PostgreSQL 15 where it prints the same.

use super::*;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int64Array, ListArray, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

fn both(array: &dyn Array, column_type: &ColumnType, row: usize) -> (String, String) {
    let column = TextColumn::new(array, column_type).unwrap();
    let (mut text, mut json) = (Vec::new(), Vec::new());
    column.write(row, &mut text);
    column.write_json(row, &mut json);
    (String::from_utf8(text).unwrap(), String::from_utf8(json).unwrap())
}

fn check(array: &dyn Array, column_type: &ColumnType, text: &str, json: &str) {
    assert_eq!(both(array, column_type, 0), (text.to_owned(), json.to_owned()));
}

fn float8(value: f64) -> String {
    let mut out = Vec::new();
    write_float8(value, &mut out);
    String::from_utf8(out).unwrap()
}

fn float4(value: f32) -> String {
    let mut out = Vec::new();
    write_float4(value, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn float8_reads_as_postgresql_prints_it() {
    let cases = [
        (1e15, "1e+15"),
        (123_456_789_012_345_678.0, "1.2345678901234568e+17"),
        (5e-324, "5e-324"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (999_999_999_999_999.0, "999999999999999"),
        (9_007_199_254_740_993.0, "9.007199254740992e+15"),
        (123_456_789_012_345.6, "123456789012345.6"),
        (2.225_073_858_507_201_4e-308, "2.2250738585072014e-308"),
        (f64::MAX, "1.7976931348623157e+308"),
        (9.536_743_164_062_5e-7, "9.5367431640625e-07"),
        (-1.5, "-1.5"),
        (100.0, "100"),
        (0.001_25, "0.00125"),
        (-0.0, "-0"),
        (0.0, "0"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
    ];
    for (value, expected) in cases {
        assert_eq!(float8(value), expected);
    }
}

#[test]
fn float4_reads_as_postgresql_prints_it() {
    let cases = [
        (1e5, "100000"),
        (1e6, "1e+06"),
        (16_777_216.0, "1.6777216e+07"),
        (1.1, "1.1"),
        (123_456.7, "123456.7"),
        (-0.0, "-0"),
        (f32::NAN, "NaN"),
        (f32::MAX, "3.4028235e+38"),
    ];
    for (value, expected) in cases {
        assert_eq!(float4(value), expected);
    }
}

proptest! {
    #[test]
    fn floats_round_trip(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let back: f64 = float8(value).parse().unwrap();
        prop_assert!(back.to_bits() == bits || value.is_nan());
        let value = f32::from_bits(u32::try_from(bits >> 32).unwrap());
        let back: f32 = float4(value).parse().unwrap();
        prop_assert!(back.to_bits() == value.to_bits() || value.is_nan());
    }

    #[test]
    fn json_strings_are_read_back(text in any::<String>()) {
        let mut out = Vec::new();
        write_json_string(text.as_bytes(), &mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn civil_days_agree_with_jiff(days in -4_371_587_i64..=2_932_896) {
        let date = jiff::civil::date(1970, 1, 1)
            .checked_add(jiff::Span::new().days(days)).unwrap();
        let civil = Civil::from_days(days);
        prop_assert_eq!(
            (civil.year, i64::from(civil.month), i64::from(civil.day)),
            (date.year().into(), date.month().into(), date.day().into())
        );
        prop_assert_eq!(i64::from(civil.day_of_year()), i64::from(date.day_of_year()));
    }
}

#[test]
fn scalars_have_their_forms() {
    check(&BooleanArray::from(vec![true]), &ColumnType::Bool, "true", "true");
    check(&Int16Array::from(vec![-32768]), &ColumnType::Int2, "-32768", "-32768");
    check(
        &Int64Array::from(vec![i64::MIN]),
        &ColumnType::Int8,
        &i64::MIN.to_string(),
        &i64::MIN.to_string(),
    );
    check(&Float64Array::from(vec![1e20]), &ColumnType::Float8, "1e+20", "1e+20");
    check(&Float32Array::from(vec![f32::NAN]), &ColumnType::Float4, "NaN", "\"NaN\"");
    check(&StringArray::from(vec!["1.10"]), &ColumnType::Numeric, "1.10", "1.10");
    check(
        &StringArray::from(vec!["-Infinity"]),
        &ColumnType::Numeric,
        "-Infinity",
        "\"-Infinity\"",
    );
    check(&StringArray::from(vec!["NaN"]), &ColumnType::Numeric, "NaN", "\"NaN\"");
    check(
        &StringArray::from(vec!["a\"\\\n\u{1}ä"]),
        &ColumnType::Text,
        "a\"\\\n\u{1}ä",
        r#""a\"\\\n\u0001ä""#,
    );
    check(&StringArray::from(vec!["{\"a\": 1}"]), &ColumnType::Jsonb, "{\"a\": 1}", "{\"a\": 1}");
    check(
        &BinaryArray::from(vec![&[0_u8, 0xab][..]]),
        &ColumnType::Bytea,
        "\\x00ab",
        "\"\\\\x00ab\"",
    );
    let uuid: ArrayRef = std::sync::Arc::new(
        FixedSizeBinaryArray::try_from_iter([(0_u8..16).collect::<Vec<_>>()].into_iter()).unwrap(),
    );
    let text = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    check(&uuid, &ColumnType::Uuid, text, &format!("\"{text}\""));
}

#[test]
fn times_have_their_forms() {
    let day = 86_400_000_000_i64;
    let cases = [
        (0, "1970-01-01T00:00:00"),
        (1, "1970-01-01T00:00:00.000001"),
        (-1, "1969-12-31T23:59:59.999999"),
        (253_402_300_800_000_000, "10000-01-01T00:00:00"),
        (-719_162 * day - 1, "0001-12-31T23:59:59.999999 BC"),
        (i64::MAX, "infinity"),
        (i64::MIN, "-infinity"),
    ];
    for (us, expected) in cases {
        let array = TimestampMicrosecondArray::from(vec![us]);
        check(&array, &ColumnType::Timestamp, expected, &format!("\"{expected}\""));
        let utc = match expected.split_once(' ') {
            Some((time, era)) => format!("{time}Z {era}"),
            None if expected.ends_with('y') => expected.to_owned(),
            None => format!("{expected}Z"),
        };
        let array = array.with_timezone("UTC");
        check(&array, &ColumnType::TimestampTz, &utc, &format!("\"{utc}\""));
    }
    let dates = [
        (0, "1970-01-01"),
        (-735_160, "0044-03-15 BC"),
        (2_145_042_905, "5874897-12-31"),
        (i32::MAX, "infinity"),
        (i32::MIN, "-infinity"),
    ];
    for (days, expected) in dates {
        check(
            &Date32Array::from(vec![days]),
            &ColumnType::Date,
            expected,
            &format!("\"{expected}\""),
        );
    }
    for (us, expected) in [(0, "00:00:00"), (day, "24:00:00"), (45_296_000_100, "12:34:56.000100")]
    {
        check(
            &Time64MicrosecondArray::from(vec![us]),
            &ColumnType::Time,
            expected,
            &format!("\"{expected}\""),
        );
    }
}

#[test]
fn arrays_are_json_arrays() {
    let array = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None, Some(-3)]),
        Some(vec![]),
        None,
    ]);
    let column_type = ColumnType::Array(Box::new(ColumnType::Int8));
    check(&array, &column_type, "[1,null,-3]", "[1,null,-3]");
    assert_eq!(both(&array, &column_type, 1).0, "[]");
    assert_eq!(both(&array, &column_type, 2).1, "null");
}

#[test]
fn a_slice_is_read_at_its_own_rows() {
    let array = StringArray::from(vec![Some("a"), None, Some("c")]).slice(1, 2);
    let column = TextColumn::new(&array, &ColumnType::Text).unwrap();
    assert!(column.is_null(0) && !column.is_null(1));
    assert_eq!(both(&array, &ColumnType::Text, 1).0, "c");
}

#[test]
fn another_arrow_type_is_refused() {
    let array = StringArray::from(vec!["1"]);
    let error = TextColumn::new(&array, &ColumnType::Int8).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a column of type int8 cannot be read from an arrow array of type Utf8"
    );
}

/// BigQuery's own types, as text, JSON and nested in each other.
mod bigquery {
    use super::super::*;
    use arrow::array::{
        ArrayRef, BinaryArray, Date32Array, Decimal128Array, Int64Array, ListArray, StringArray,
        StructArray,
    };
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    fn forms(array: &ArrayRef, column_type: &ColumnType, row: usize) -> (String, String) {
        let column = TextColumn::new(array.as_ref(), column_type).unwrap();
        let (mut text, mut json) = (Vec::new(), Vec::new());
        column.write(row, &mut text);
        column.write_json(row, &mut json);
        (String::from_utf8(text).unwrap(), String::from_utf8(json).unwrap())
    }

    #[test]
    fn bytes_are_base64() {
        let array: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[0, 255, 16]]));
        let expected = ("AP8Q".to_owned(), "\"AP8Q\"".to_owned());
        assert_eq!(forms(&array, &ColumnType::Bytes, 0), expected);
    }

    #[test]
    fn a_decimal_of_another_scale_is_no_numeric() {
        let values = Decimal128Array::from(vec![1]).with_precision_and_scale(38, 2).unwrap();
        assert!(TextColumn::new(&values, &ColumnType::Decimal128).is_err());
        let values = values.with_precision_and_scale(38, 9).unwrap();
        let array: ArrayRef = Arc::new(values);
        let number = "0.000000001".to_owned();
        assert_eq!(forms(&array, &ColumnType::Decimal128, 0), (number.clone(), number));
    }

    fn ends() -> StructArray {
        let end = |values: Vec<Option<i32>>| -> ArrayRef { Arc::new(Date32Array::from(values)) };
        StructArray::try_new(
            vec![
                Field::new("start", DataType::Date32, true),
                Field::new("end", DataType::Date32, true),
            ]
            .into(),
            vec![end(vec![Some(0), None, Some(1)]), end(vec![Some(31), Some(1), None])],
            None,
        )
        .unwrap()
    }

    #[test]
    fn ranges_print_their_open_ends() {
        let array: ArrayRef = Arc::new(ends());
        let range = ColumnType::Range(Box::new(ColumnType::Date));
        let texts: Vec<String> = (0..3).map(|row| forms(&array, &range, row).0).collect();
        assert_eq!(
            texts,
            ["[1970-01-01, 1970-02-01)", "[UNBOUNDED, 1970-01-02)", "[1970-01-02, UNBOUNDED)"]
        );
        assert_eq!(forms(&array, &range, 0).1, "\"[1970-01-01, 1970-02-01)\"");
    }

    #[test]
    fn structs_and_lists_nest_and_keep_nulls() {
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a\""), None, Some("c")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None]));
        let fields =
            vec![Field::new("name", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
        let nulls = NullBuffer::from(vec![true, true, false]);
        let structs =
            StructArray::try_new(fields.clone().into(), vec![names, numbers], Some(nulls)).unwrap();
        let item = Field::new("item", DataType::Struct(fields.into()), true);
        let offsets = OffsetBuffer::from_lengths([2, 0, 1]);
        let array: ArrayRef =
            Arc::new(ListArray::try_new(Arc::new(item), offsets, Arc::new(structs), None).unwrap());
        let members =
            vec![("name".to_owned(), ColumnType::Text), ("n".to_owned(), ColumnType::Int8)];
        let column_type = ColumnType::Array(Box::new(ColumnType::Struct(members)));
        let texts: Vec<String> = (0..3).map(|row| forms(&array, &column_type, row).0).collect();
        assert_eq!(texts, [r#"[{"name":"a\"","n":1},{"name":null,"n":2}]"#, "[]", "[null]"]);
        // Rows are told apart in a slice too.
        let sliced = array.slice(2, 1);
        assert_eq!(forms(&sliced, &column_type, 0).1, "[null]");
        let other = ColumnType::Array(Box::new(ColumnType::Struct(vec![])));
        assert!(TextColumn::new(array.as_ref(), &other).is_err());
    }
}
