//! Decoding by example: what is read, what is refused and with which words.

mod cells;
mod fuzzed;
mod inverse;

use crate::bind::ReverseRoute;
use crate::bind::tests::{route, schema};
use crate::key::KeyTemplate;
use crate::layout::RowDecoder;
use crate::plan::{FieldSpec, Layout, NullPolicy, Origin, Route, System};
use crate::type_map::ColumnType;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

fn bigquery(key: &str, layout: Layout) -> Route {
    let mut route = route("k:{id}", layout);
    route.key = KeyTemplate::parse_shared(key).unwrap();
    route.origin =
        Origin::Table { system: System::BigQuery, schema: "logs".into(), table: "builds".into() };
    route
}

fn kinds() -> Vec<(&'static str, ColumnType)> {
    let link = vec![
        ("url".to_owned(), ColumnType::Text),
        ("at".to_owned(), ColumnType::TimestampTz),
        ("tags".to_owned(), ColumnType::Array(Box::new(ColumnType::Text))),
    ];
    vec![
        ("service", ColumnType::Text),
        ("id", ColumnType::Int8),
        ("cost", ColumnType::Decimal128),
        ("ok", ColumnType::Bool),
        ("meta", ColumnType::Json),
        ("links", ColumnType::Array(Box::new(ColumnType::Struct(link)))),
        ("during", ColumnType::Range(Box::new(ColumnType::Date))),
    ]
}

/// The arrow schema of the table, where `required` columns hold no null.
fn arrow(required: &[&str]) -> SchemaRef {
    let field = |(name, kind): (&str, ColumnType)| {
        let is_nullable = !required.contains(&name) && !matches!(kind, ColumnType::Array(_));
        Field::new(name, kind.arrow(), is_nullable)
    };
    Arc::new(Schema::new(kinds().into_iter().map(field).collect::<Vec<_>>()))
}

fn decoder(route: &Route) -> RowDecoder {
    let reverse = ReverseRoute::bind(route, schema(&kinds(), &[])).unwrap();
    RowDecoder::new(&reverse, arrow(&["id", "ok"]), 4).unwrap()
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn pairs(decoder: &mut RowDecoder, key: &str, pairs: Pairs<'_>) -> Result<(), String> {
    let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    decoder.pairs(key.as_bytes(), pairs).map_err(|fault| fault.to_string())
}

fn json(decoder: &mut RowDecoder, key: &str, value: &str) -> Result<(), String> {
    decoder.json(key.as_bytes(), value.as_bytes()).map_err(|fault| fault.to_string())
}

fn texts<'a>(rows: &'a RecordBatch, column: &str) -> Vec<Option<&'a str>> {
    rows.column_by_name(column).unwrap().as_string::<i32>().iter().collect()
}

#[test]
fn a_log_of_the_application_is_read() {
    let mut decoder = decoder(&bigquery("log:{service}:{id}", Layout::Hash));
    let full: Pairs<'_> = &[
        ("meta", "{\"a\": 1.50}"),
        ("ok", "true"),
        ("cost", "1.10"),
        ("links", r#"[{"at":"2026-01-01 00:00:00+00:00","url":"h\u00e9"}, {"tags":["a"]}]"#),
        ("during", "[2026-01-01,UNBOUNDED)"),
    ];
    assert_eq!(pairs(&mut decoder, "log:api:7", full), Ok(()));
    assert_eq!(pairs(&mut decoder, "log::8", &[("ok", "0")]), Ok(()));
    let rows = decoder.finish();
    assert_eq!(rows.column(1).as_primitive::<Int64Type>().values(), &[7, 8]);
    assert_eq!(texts(&rows, "service"), [Some("api"), Some("")]);
    assert_eq!(texts(&rows, "meta"), [Some("{\"a\": 1.50}"), None]);
    let links = rows.column_by_name("links").unwrap().as_list::<i32>();
    assert_eq!((links.value_length(0), links.value_length(1), links.null_count()), (2, 0, 0));
    let during = rows.column_by_name("during").unwrap().as_struct();
    assert!(during.column(0).is_valid(0) && during.column(1).is_null(0) && during.is_null(1));
}

#[test]
fn a_row_is_refused_with_the_column_and_without_the_value() {
    let mut decoder = decoder(&bigquery("log:{service}:{id}", Layout::Hash));
    let key = "log:s:1";
    let refused: [(&str, Pairs<'_>, &str); 14] = [
        (key, &[("ok", "secret")], "column ok is no BOOL"),
        (key, &[("cost", "1")], "column ok is null, which the table or the plan does not allow"),
        (key, &[("ok", "1"), ("ok", "1")], "field ok comes twice"),
        (key, &[("ok", "1"), ("id", "1")], "the route has no field \"id\""),
        (
            key,
            &[("ok", "1"), ("cost", "0.0000000001")],
            "column cost has more than 9 digits behind the point, which NUMERIC cannot hold",
        ),
        (key, &[("ok", "1"), ("meta", "{\"secret\"")], "column meta is no JSON"),
        (
            key,
            &[("ok", "1"), ("links", r#"[{"tags":["a",null]}]"#)],
            "column links.tags is null, which the table or the plan does not allow",
        ),
        (
            key,
            &[("ok", "1"), ("links", "[{\"tag\":1}]")],
            "column links has a member that the type does not have",
        ),
        (key, &[("ok", "1"), ("links", "[{\"url\":1}]")], "column links.url is no JSON string"),
        (
            key,
            &[("ok", "1"), ("during", "[2026-01-01, 2026-01-01)")],
            "column during is a RANGE that ends before it starts",
        ),
        (
            "log:s:01",
            &[("ok", "1")],
            "column id does not render to the text that the key has for it",
        ),
        ("log:s:x", &[("ok", "1")], "column id is no INT64"),
        ("log:s", &[("ok", "1")], "the key does not fit the template of the route"),
        (key, &[], "there is no field"),
    ];
    for (key, row, expected) in refused {
        assert_eq!(pairs(&mut decoder, key, row), Err(expected.to_owned()));
        assert_eq!(decoder.rows(), 0, "{expected}");
    }
    assert_eq!(pairs(&mut decoder, key, &[("ok", "1")]), Ok(()));
    assert_eq!(decoder.finish().num_rows(), 1);
}

#[test]
fn json_members_keep_numbers_and_embedded_texts_as_they_are() {
    let mut decoder = decoder(&bigquery("log:{service}:{id}", Layout::Json));
    let value =
        " {\"cost\" : 12345678901234567890.123456789, \"meta\":{\"n\": 1.0e400} ,\"ok\":true} ";
    assert_eq!(json(&mut decoder, "log:a:1", value), Ok(()));
    assert_eq!(json(&mut decoder, "log:a:2", "{\"ok\":false,\"meta\":null,\"cost\":null}"), Ok(()));
    assert_eq!(json(&mut decoder, "log:a:3", "{\"ok\":false,\"cost\":\"1.5\"}"), Ok(()));
    for (value, expected) in [
        ("[]", "the value is no JSON object"),
        ("{\"ok\":true", "the value is no JSON"),
        ("{\"ok\":true,}", "the value is no JSON"),
        ("{\"ok\":true} x", "the value is no JSON"),
        ("{\"ok\":1}", "column ok is no BOOL: JSON's true or false"),
        ("{\"ok\":null}", "column ok is null, which the table or the plan does not allow"),
        ("{\"ok\":true,\"cost\":01}", "column cost is no JSON"),
        ("{\"ok\":true,\"secret\":1}", "the route has no field \"secret\""),
    ] {
        assert_eq!(json(&mut decoder, "log:a:4", value), Err(expected.to_owned()), "{value}");
    }
    let rows = decoder.finish();
    assert_eq!(texts(&rows, "meta"), [Some("{\"n\": 1.0e400}"), Some("null"), None]);
    let costs = rows.column_by_name("cost").unwrap();
    let costs = costs.as_primitive::<arrow::datatypes::Decimal128Type>();
    assert_eq!(costs.value(0), 12_345_678_901_234_567_890_123_456_789);
    assert!(costs.is_null(1));
    assert_eq!(costs.value(2), 1_500_000_000);
}

#[test]
fn entries_of_one_stream_share_a_key_and_constants_are_checked() {
    let mut stream = bigquery("log:stream", Layout::Stream);
    let column = |name: &str| FieldSpec::Column { field: name.into(), column: name.into() };
    let mut columns: Vec<FieldSpec> = kinds().iter().map(|(name, _)| column(name)).collect();
    columns.push(FieldSpec::Constant { field: "v".into(), value: "2".into() });
    stream.columns = Some(columns);
    let mut decoder = decoder(&stream);
    let entry: Pairs<'_> = &[("id", "1"), ("ok", "1"), ("v", "2")];
    for _ in 0..3 {
        assert_eq!(pairs(&mut decoder, "log:stream", entry), Ok(()));
    }
    let refused = Err("field v does not have the value that the plan gives it".to_owned());
    assert_eq!(pairs(&mut decoder, "log:stream", &[("id", "1"), ("ok", "1"), ("v", "1")]), refused);
    assert_eq!(pairs(&mut decoder, "log:stream", &[("id", "1"), ("ok", "1")]), refused);
    assert!(pairs(&mut decoder, "log:streams", entry).is_err());
    assert_eq!(decoder.finish().num_rows(), 3);
}

#[test]
fn a_column_in_the_key_and_in_a_field_has_to_agree() {
    let mut hash = bigquery("log:{service|lower}:{id}", Layout::Hash);
    let column = |name: &str| FieldSpec::Column { field: name.into(), column: name.into() };
    hash.columns = Some(kinds().iter().map(|(name, _)| column(name)).collect());
    let mut decoder = decoder(&hash);
    let row: Pairs<'_> = &[("service", "API"), ("id", "7"), ("ok", "1")];
    assert_eq!(pairs(&mut decoder, "log:api:7", row), Ok(()));
    let refused = |column: &str| {
        Err(format!("column {column} does not render to the text that the key has for it"))
    };
    assert_eq!(pairs(&mut decoder, "log:api:8", row), refused("id"));
    assert_eq!(pairs(&mut decoder, "log:app:7", row), refused("service"));
    let without: Pairs<'_> = &[("id", "7"), ("ok", "1")];
    assert_eq!(pairs(&mut decoder, "log:api:7", without), refused("service"));
    assert_eq!(texts(&decoder.finish(), "service"), [Some("API")]);
}

#[test]
fn null_policies_say_what_is_no_value() {
    let mut empty = bigquery("log:{id}", Layout::Hash);
    empty.null = NullPolicy::Empty;
    let required = ["service".to_owned()];
    let reverse = ReverseRoute::bind_required(&empty, schema(&kinds(), &[]), &required).unwrap();
    let mut decoder = RowDecoder::new(&reverse, arrow(&["service"]), 4).unwrap();
    let blank: Pairs<'_> =
        &[("service", ""), ("cost", ""), ("ok", ""), ("meta", ""), ("links", "")];
    assert_eq!(pairs(&mut decoder, "log:1", blank), Ok(()));
    let rows = decoder.finish();
    assert_eq!(texts(&rows, "service"), [Some("")]);
    assert_eq!(rows.column(2).null_count() + rows.column(3).null_count(), 2);
    assert_eq!(texts(&rows, "meta"), [None]);

    let mut error = bigquery("log:{service}:{id}", Layout::Hash);
    error.null = NullPolicy::Error;
    let mut decoder = self::decoder(&error);
    assert_eq!(
        pairs(&mut decoder, "log:a:1", &[("ok", "1"), ("cost", "1"), ("meta", "1")]),
        Err("column during is null, which the table or the plan does not allow".to_owned())
    );
}

#[test]
fn an_arrow_schema_of_another_table_is_refused() {
    let route = bigquery("log:{service}:{id}", Layout::Hash);
    let reverse = ReverseRoute::bind(&route, schema(&kinds(), &[])).unwrap();
    let swap = |from: &str, to: Field| {
        let field = |field: &Arc<Field>| {
            if field.name() == from { to.clone() } else { field.as_ref().clone() }
        };
        let fields: Vec<Field> = arrow(&[]).fields().iter().map(field).collect();
        RowDecoder::new(&reverse, Arc::new(Schema::new(fields)), 1).map(|_| ())
    };
    assert_eq!(swap("none", Field::new("none", ColumnType::Int8.arrow(), true)), Ok(()));
    for (from, to) in [
        ("id", Field::new("di", ColumnType::Int8.arrow(), true)),
        ("id", Field::new("id", ColumnType::Float8.arrow(), true)),
        ("cost", Field::new("cost", ColumnType::Decimal256.arrow(), true)),
        (
            "during",
            Field::new("during", ColumnType::Range(Box::new(ColumnType::Time)).arrow(), true),
        ),
    ] {
        assert!(swap(from, to).is_err(), "{from}");
    }
    let fewer = Arc::new(Schema::new(vec![Field::new("service", ColumnType::Text.arrow(), true)]));
    assert!(RowDecoder::new(&reverse, fewer, 1).is_err());
}
