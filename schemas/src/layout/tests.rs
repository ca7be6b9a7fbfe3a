//! Values, null policies, expiry, and the value hash of what Redis gives back.

use super::*;
use crate::bind::tests::{route, schema};
use crate::plan::{Expiry, FieldSpec, Layout, NullPolicy};
use crate::type_map::ColumnType;
use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use std::sync::Arc;
use std::time::Duration;

fn bound(layout: Layout, null: NullPolicy, columns: Option<Vec<FieldSpec>>) -> BoundRoute {
    let mut route = route("k:{id}", layout);
    route.null = null;
    route.columns = columns;
    route.expiry = Some(Expiry::After { column: "t".into(), ttl: Duration::from_millis(5) });
    let table = schema(
        &[("id", ColumnType::Int8), ("name", ColumnType::Text), ("t", ColumnType::Timestamp)],
        &[],
    );
    BoundRoute::bind(&route, table).unwrap()
}

fn rows(bound: &BoundRoute) -> RecordBatch {
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
        Arc::new(StringArray::from(vec![Some("a\"b"), None, None, Some("")])),
        Arc::new(TimestampMicrosecondArray::from(vec![
            Some(-1),
            Some(i64::MAX),
            None,
            Some(i64::MIN),
        ])),
    ];
    RecordBatch::try_new(bound.schema.arrow(), arrays).unwrap()
}

fn json(bound: &BoundRoute, row: usize) -> Result<String, String> {
    let rows = rows(bound);
    let values = RowValues::new(&rows, bound).unwrap();
    let mut out = Vec::new();
    values.json(row, &mut out).map_err(|refusal| refusal.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

fn pairs(bound: &BoundRoute, row: usize) -> Result<(Vec<(String, String)>, u64), String> {
    let rows = rows(bound);
    let values = RowValues::new(&rows, bound).unwrap();
    let mut fields = HashFields::default();
    values.hash_fields(row, &mut fields).map_err(|refusal| refusal.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs = fields
        .spans()
        .iter()
        .map(|span| (bound.fields[span.field].name.clone(), text(fields.value(span))))
        .collect();
    Ok((pairs, fields.value_hash()))
}

#[test]
fn json_follows_the_null_policy() {
    let omit = bound(Layout::Json, NullPolicy::Omit, None);
    assert_eq!(json(&omit, 0).unwrap(), r#"{"name":"a\"b","t":"1969-12-31T23:59:59.999999"}"#);
    assert_eq!(json(&omit, 1).unwrap(), r#"{"t":"infinity"}"#);
    assert_eq!(json(&omit, 2).unwrap(), "{}");
    let empty = bound(Layout::Json, NullPolicy::Empty, None);
    assert_eq!(json(&empty, 2).unwrap(), r#"{"name":null,"t":null}"#);
    let error = bound(Layout::Json, NullPolicy::Error, None);
    assert_eq!(json(&error, 2).unwrap_err(), "column name is null");
}

#[test]
fn hashes_follow_the_null_policy() {
    let omit = bound(Layout::Hash, NullPolicy::Omit, None);
    assert_eq!(pairs(&omit, 3).unwrap().0[0], ("name".into(), String::new()));
    assert_eq!(pairs(&omit, 1).unwrap().0, [("t".into(), "infinity".into())]);
    assert_eq!(
        pairs(&omit, 2).unwrap_err(),
        "every field is null, redis cannot hold an empty hash"
    );
    let empty = bound(Layout::Hash, NullPolicy::Empty, None);
    assert_eq!(pairs(&empty, 2).unwrap().0.len(), 2);
    let constant = Some(vec![
        FieldSpec::Constant { field: "v".into(), value: "1".into() },
        FieldSpec::Column { field: "n".into(), column: "name".into() },
    ]);
    let constant = bound(Layout::Hash, NullPolicy::Omit, constant);
    assert_eq!(pairs(&constant, 2).unwrap().0, [("v".into(), "1".into())]);
}

#[test]
fn strings_follow_the_null_policy() {
    let name = || Some(vec![FieldSpec::Column { field: "name".into(), column: "name".into() }]);
    let string = |null, row| {
        let bound = bound(Layout::String, null, name());
        let rows = rows(&bound);
        let values = RowValues::new(&rows, &bound).unwrap();
        let mut out = Vec::new();
        values.string(row, &mut out).map(|()| out).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(string(NullPolicy::Omit, 0).unwrap(), b"a\"b");
    assert!(string(NullPolicy::Omit, 1).unwrap_err().starts_with("column name is null"));
    assert_eq!(string(NullPolicy::Empty, 1).unwrap(), b"");
    assert_eq!(string(NullPolicy::Error, 1).unwrap_err(), "column name is null");
}

#[test]
fn the_value_hash_does_not_depend_on_the_order_of_the_answer() {
    let bound = bound(Layout::Hash, NullPolicy::Omit, None);
    let (pairs, hash) = pairs(&bound, 0).unwrap();
    let answer: Vec<(&[u8], &[u8])> =
        pairs.iter().rev().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    assert_eq!(hash_value_hash(&bound, answer.iter().copied()), hash);
    let with_stale = answer.iter().copied().chain([(&b"old"[..], &b""[..])]);
    assert_ne!(hash_value_hash(&bound, with_stale), hash);
    assert_ne!(hash_value_hash(&bound, answer[1..].iter().copied()), hash);
}

#[test]
fn expiry_is_rounded_down_and_knows_the_infinities() {
    let bound = bound(Layout::Hash, NullPolicy::Omit, None);
    let rows = rows(&bound);
    let expiry = ExpiryTimes::new(&rows, &bound).unwrap();
    let times: Vec<Option<i64>> = (0..4).map(|row| expiry.expires_ms(row)).collect();
    assert_eq!(times, [Some(4), None, None, Some(i64::MIN)]);
}
