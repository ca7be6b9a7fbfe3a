//! Binding rules, one refusal at a time, and what a good route resolves to.

mod reverse;

use super::*;
use crate::key::KeyTemplate;
use crate::plan::{Backup, Layout, NullPolicy, OnConflict, Origin, RejectsMax, System, Uses};
use crate::table::Column;
use crate::type_map::ColumnType;
use std::time::Duration;

pub(crate) fn route(key: &str, layout: Layout) -> Route {
    Route {
        name: "builds".into(),
        origin: Origin::Table {
            system: System::AlloyDb,
            schema: "public".into(),
            table: "builds".into(),
        },
        split_by: None,
        filter: None,
        key: KeyTemplate::parse(key).unwrap(),
        layout,
        columns: None,
        many: None,
        as_text: Vec::new(),
        expiry: None,
        null: NullPolicy::Omit,
        on_collision: None,
        on_conflict: OnConflict::Replace,
        version_by: None,
        catch_up: None,
        priority: 100,
        newest_by: None,
        on_drift: crate::drift::OnDrift::Fail,
        rejects_max: RejectsMax::Rows(0),
        rejects_keep: None,
        uses: Uses { rebuild: true, backup: false },
        backup: Backup::default(),
    }
}

pub(crate) fn schema(columns: &[(&str, ColumnType)], unique: &[&[&str]]) -> TableSchema {
    TableSchema {
        table: "public.builds".into(),
        columns: columns
            .iter()
            .map(|(name, column_type)| Column {
                name: (*name).into(),
                column_type: column_type.clone(),
                source_type: column_type.name(),
                as_text: false,
            })
            .collect(),
        unique_keys: unique
            .iter()
            .map(|names| names.iter().map(|name| (*name).to_owned()).collect())
            .collect(),
    }
}

fn builds() -> TableSchema {
    schema(
        &[
            ("status", ColumnType::Text),
            ("id", ColumnType::Int8),
            ("payload", ColumnType::Jsonb),
            ("finished", ColumnType::TimestampTz),
            ("score", ColumnType::Float8),
        ],
        &[&["id"], &["status", "finished"]],
    )
}

fn messages(route: &Route, schema: TableSchema) -> Vec<String> {
    let mistakes = BoundRoute::bind(route, schema).map(|_| ()).unwrap_err();
    mistakes.into_iter().map(|mistake| mistake.message).collect()
}

fn column(name: &str) -> FieldSpec {
    FieldSpec::Column { field: name.into(), column: name.into() }
}

#[test]
fn a_route_resolves_to_indexes() {
    let mut route = route("build:{id}", Layout::Hash);
    route.expiry =
        Some(Expiry::After { column: "finished".into(), ttl: Duration::from_millis(60_001) });
    let bound = BoundRoute::bind(&route, builds()).unwrap();
    let names: Vec<&str> = bound.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["status", "payload", "finished", "score"]);
    assert_eq!(bound.expiry, Some((3, 60_001)));
    assert_eq!(bound.digest_columns, [3, 1, 2, 4, 0], "in name order");
    assert!(bound.key_is_proven_unique);
}

#[test]
fn a_lossy_key_column_is_carried_and_proves_nothing() {
    let mut route = route("b:{status|lower}:{finished|date:%Y}", Layout::Hash);
    let bound = BoundRoute::bind(&route, builds()).unwrap();
    assert_eq!(bound.fields.len(), 5);
    assert!(!bound.key_is_proven_unique);
    route.key = KeyTemplate::parse("b:{status|urlencode}:{finished|urlencode}").unwrap();
    let bound = BoundRoute::bind(&route, builds()).unwrap();
    assert_eq!(bound.fields.len(), 3);
    assert!(bound.key_is_proven_unique);
}

#[test]
fn a_version_has_an_exact_order_and_is_in_the_value() {
    let mut route = route("build:{id}", Layout::Json);
    (route.on_conflict, route.version_by) = (OnConflict::Newest, Some("finished".into()));
    route.columns = Some(vec![
        column("status"),
        FieldSpec::Column { field: "at".into(), column: "finished".into() },
    ]);
    let version = BoundRoute::bind(&route, builds()).unwrap().version.unwrap();
    let kind = crate::version::VersionKind::TimestampTz;
    assert_eq!((version.column, version.field, version.kind), (3, 1, kind));
    route.columns = Some(vec![column("status")]);
    let not_there = "version_by column finished is not in the value, so what is stored cannot be compared; add it to columns";
    assert_eq!(messages(&route, builds()), [not_there]);
    route.columns = None;
    route.version_by = Some("score".into());
    let found = messages(&route, builds());
    assert!(
        found[0].starts_with("version_by column score has type float8; it must be"),
        "{found:?}"
    );
    route.version_by = Some("nothing".into());
    assert_eq!(messages(&route, builds()), ["unknown column nothing"]);
    // In the key alone it is not in the value.
    route.version_by = Some("id".into());
    assert!(messages(&route, builds())[0].contains("id is not in the value"));
}

#[test]
fn key_types_are_judged() {
    let found =
        messages(&route("{payload}:{score}:{id|date:%Y}:{finished}:x", Layout::Hash), builds());
    assert_eq!(
        found,
        [
            "key column payload has type jsonb, which cannot be in a key",
            "key column score has type float8, which cannot be in a key",
            "filter date needs a date, timestamp or timestamptz column, id is int8",
        ]
    );
    let found = messages(&route("{finished}:{id}", Layout::Hash), builds());
    assert!(found[0].contains("key column finished always contains \":\""), "{found:?}");
}

#[test]
fn layouts_are_judged() {
    let mut string = route("b:{id}", Layout::String);
    assert!(messages(&string, builds())[0].contains("exactly one column, this route has 4 fields"));
    string.columns = Some(vec![FieldSpec::Constant { field: "v".into(), value: "1".into() }]);
    assert!(messages(&string, builds())[0].contains("exactly one column"));
    string.columns = Some(vec![column("payload")]);
    assert!(BoundRoute::bind(&string, builds()).is_ok());

    let mut hash = route("b:{id}", Layout::Hash);
    hash.columns = Some(Vec::new());
    assert!(messages(&hash, builds())[0].contains("at least one field"));
    hash.columns = Some(vec![column("status"), column("status")]);
    assert_eq!(messages(&hash, builds()), ["field status appears twice"]);
}

#[test]
fn expiry_needs_a_time() {
    let mut route = route("b:{id}", Layout::Hash);
    route.expiry = Some(Expiry::At { column: "status".into() });
    assert!(messages(&route, builds())[0].contains("expiry column status has type text"));
}

#[test]
fn every_unknown_column_is_reported_once_with_the_nearest_name() {
    let mut route = route("b:{idd}", Layout::Hash);
    route.columns = Some(vec![column("statsu"), column("zzz")]);
    route.expiry = Some(Expiry::At { column: "idd".into() });
    route.newest_by = Some("finishd".into());
    let all: Vec<String> = builds().columns.iter().map(|c| c.name.clone()).collect();
    let found: Vec<String> =
        columns_needed(&route, &all).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "route builds: unknown column idd; did you mean id?",
            "route builds: unknown column statsu; did you mean status?",
            "route builds: unknown column zzz",
            "route builds: unknown column finishd; did you mean finished?",
        ]
    );
}

#[test]
fn only_what_is_read_is_needed_in_source_order() {
    let mut route = route("b:{id}", Layout::Hash);
    route.columns = Some(vec![column("status")]);
    route.expiry = Some(Expiry::At { column: "finished".into() });
    route.newest_by = Some("score".into());
    let all: Vec<String> = builds().columns.iter().map(|c| c.name.clone()).collect();
    assert_eq!(columns_needed(&route, &all).unwrap(), ["status", "id", "finished"]);
}

#[test]
fn the_key_alone_is_rebound_to_its_columns() {
    let bound =
        BoundRoute::bind(&route("b:{finished|date:%Y}:{id}:{id}", Layout::Hash), builds()).unwrap();
    let key_only = bound.key_only();
    let names: Vec<&str> = key_only.schema.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["finished", "id"]);
    assert_eq!(key_only.key.indexes().collect::<Vec<_>>(), [0, 1, 1]);
}
