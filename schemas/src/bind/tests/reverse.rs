//! What can be read backwards, and every reason why something cannot.

use super::*;

fn bigquery(key: &str, layout: Layout) -> Route {
    let mut route = route("k:{id}", layout);
    route.key = KeyTemplate::parse_shared(key).unwrap();
    route.origin =
        Origin::Table { system: System::BigQuery, schema: "logs".into(), table: "builds".into() };
    route
}

fn logs() -> TableSchema {
    let pair = vec![("j".to_owned(), ColumnType::Json)];
    let pairs = ColumnType::Array(Box::new(ColumnType::Struct(pair)));
    schema(
        &[
            ("service", ColumnType::Text),
            ("id", ColumnType::Int8),
            ("at", ColumnType::TimestampTz),
            ("payload", ColumnType::Json),
            ("raw", ColumnType::Bytes),
            ("pairs", pairs),
        ],
        &[],
    )
}

fn plain() -> TableSchema {
    let mut table = logs();
    table.columns.pop();
    table
}

fn reasons(route: &Route, table: TableSchema) -> Vec<String> {
    let mistakes = ReverseRoute::bind(route, table).map(|_| ()).unwrap_err();
    mistakes.into_iter().map(|mistake| mistake.message).collect()
}

#[test]
fn a_route_that_carries_every_column_can_be_read_back() {
    for layout in [Layout::Hash, Layout::Json, Layout::Stream] {
        let route = bigquery("log:{service}:{id}", layout);
        let reverse = ReverseRoute::bind(&route, plain()).unwrap();
        assert_eq!(reverse.key_columns(), ["service", "id"]);
        assert_eq!(reverse.schema(), &plain());
    }
    let stream = ReverseRoute::bind(&bigquery("log:all", Layout::Stream), plain()).unwrap();
    assert!(stream.key_columns().is_empty());
}

#[test]
fn every_reason_is_given_at_once() {
    let mut route = bigquery("log:{service|lower}:{at|date:%Y}:{idd}", Layout::Hash);
    route.filter = Some("id > 0".into());
    route.null = NullPolicy::Empty;
    route.as_text = vec!["raw".into()];
    route.columns = Some(vec![
        column("raw"),
        FieldSpec::Column { field: "again".into(), column: "raw".into() },
        FieldSpec::Path {
            field: "part".into(),
            column: "doc".into(),
            path: crate::JsonPath::parse("$.a[0]").unwrap(),
        },
        column("payload"),
        FieldSpec::Constant { field: "payload".into(), value: String::new() },
        column("pairs"),
    ]);
    assert_eq!(
        reasons(&route, logs()),
        [
            "where leaves rows out, so the table cannot be read back from it",
            "as_text of raw leaves the type of a value behind; bigquery's types are all carried without it",
            "field payload appears twice",
            "unknown column idd; did you mean id?",
            "column raw is in two fields, raw and again; keep one of them",
            "field part holds only $.a[0] of column doc; carry the column itself",
            "column service is in the key through a filter that loses it; add it to columns",
            "column id is left out; add it to columns",
            "column at is in the key through a filter that loses it; add it to columns",
            "null = \"empty\" writes a null of column raw (bytes) as an empty value; say null = \"omit\"",
            "column pairs is struct<j json>[]: null of a JSON member of a struct may be NULL or JSON's null",
        ]
    );
}

#[test]
fn null_as_empty_is_refused_where_it_is_a_value_only() {
    let mut route = bigquery("log:{service}:{id}", Layout::Json);
    route.null = NullPolicy::Empty;
    assert_eq!(
        reasons(&route, plain()),
        [
            "null = \"empty\" writes a null of column payload (json) as JSON's null; say null = \"omit\""
        ]
    );
    let required = ["payload".to_owned()];
    assert!(ReverseRoute::bind_required(&route, plain(), &required).is_ok());
    route.layout = Layout::Stream;
    assert_eq!(reasons(&route, plain()).len(), 1);
}

#[test]
fn layouts_sources_and_types_without_a_way_back_are_refused() {
    let mut string = bigquery("log:{service}:{id}", Layout::String);
    string.columns = Some(vec![column("raw")]);
    assert!(reasons(&string, plain())[0].starts_with("type string is not read back row by row"));
    let mut query = bigquery("log:{service}:{id}", Layout::Hash);
    query.origin = Origin::Query { system: System::BigQuery, sql: "SELECT 1".into() };
    assert!(reasons(&query, plain())[0].starts_with("it reads a query"));
    let alloydb = route("log:{id}", Layout::Hash);
    let table = schema(&[("id", ColumnType::Int8), ("u", ColumnType::Uuid)], &[]);
    assert_eq!(
        reasons(&alloydb, table),
        [
            "it names no table of bigquery to restore",
            "column u has type uuid, which is not read back into bigquery"
        ]
    );
    let keys_only = schema(&[("id", ColumnType::Int8)], &[]);
    for layout in [Layout::Hash, Layout::Stream] {
        let found = reasons(&bigquery("log:{id}", layout), keys_only.clone());
        assert_eq!(
            found,
            [format!("type {} needs at least one field; list one in columns", layout.word())]
        );
    }
    let float = schema(&[("id", ColumnType::Float8), ("b", ColumnType::Bool)], &[]);
    assert_eq!(
        reasons(&bigquery("log:{id}", Layout::Hash), float),
        ["key column id has type float8, which cannot be in a key"]
    );
}
