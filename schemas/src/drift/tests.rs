//! Every kind of change against routes that read the column, and routes that do not.

use super::*;
use crate::bind::tests::route;
use crate::plan::{FieldSpec, Layout, OnCollision};

/// `name type` per column, numbered in order unless it is written as `name type @7`; `!` behind a name is NOT NULL.
fn shape(columns: &[&str]) -> TableShape {
    let column = |(at, text): (i64, &&str)| {
        let (text, place) = match text.split_once(" @") {
            Some((text, place)) => (text, place.parse().unwrap()),
            None => (*text, at),
        };
        let (name, source_type) = text.split_once(' ').unwrap();
        ShapeColumn {
            name: name.trim_end_matches('!').to_owned(),
            source_type: source_type.to_owned(),
            place: Some(place),
            is_required: name.ends_with('!'),
        }
    };
    TableShape {
        table: "public.t".into(),
        identity: Some("1".into()),
        columns: (1..).zip(columns).map(column).collect(),
        unique_keys: vec![vec!["id".into()]],
    }
}

/// A route over the columns `a` and `b` alone, or over all.
fn reads(columns: Option<&[&str]>) -> Route {
    let field = |name: &&str| FieldSpec::Column { field: (*name).into(), column: (*name).into() };
    let columns = columns.map(|columns| columns.iter().map(field).collect());
    Route { columns, ..route("t:{id}", Layout::Hash) }
}

fn told(route: &Route, old: &TableShape, new: &TableShape) -> Vec<String> {
    let short = |drift: &Drift| {
        let (from, to) = drift.ends();
        let ends = [from, to].map(|end| end.unwrap_or("-"));
        let harm = if drift.harm.is_some() { "harm" } else { "none" };
        format!("{} {} {} {harm}", drift.column, drift.word(), ends.join(" "))
    };
    compare(route, old, new).iter().map(short).collect()
}

const OLD: [&str; 4] = ["id! bigint", "a text", "b integer", "c text"];

#[test]
fn changes_harm_a_route_that_reads_the_column_and_no_other() {
    let old = shape(&OLD);
    let cases: [(&[&str], &str, &str); 10] = [
        (&["id! bigint", "a text", "b integer", "c text", "d date"], "d added - date", "none"),
        (&["id! bigint", "a text @2", "b integer @3"], "c dropped text -", "none"),
        (&["id! bigint", "a text", "c text @4"], "b dropped integer -", "harm"),
        (&["id! bigint", "a text", "n integer", "c text"], "b renamed b n", "harm"),
        (&["id! bigint", "a text", "b integer", "n text"], "c renamed c n", "none"),
        (&["id! bigint", "a text", "b real", "c text"], "b retyped integer real", "harm"),
        (&["id! bigint", "a text", "b bigint", "c text"], "b retyped integer bigint", "none"),
        (&["id! bigint", "a text", "b integer", "c date"], "c retyped text date", "none"),
        (&["id! bigint", "a text", "c text @4", "b real @5"], "b replaced integer real", "harm"),
        (&["id bigint", "a text", "b integer", "c text"], "id relaxed - -", "none"),
    ];
    for (new, what, harm) in cases {
        let new = shape(new);
        assert_eq!(told(&reads(Some(&["a", "b"])), &old, &new), [format!("{what} {harm}")]);
    }
    assert!(told(&reads(None), &old, &old).is_empty());
}

#[test]
fn a_route_over_all_columns_reads_what_is_new_and_what_goes() {
    let old = shape(&OLD);
    let added = shape(&["id! bigint", "a text", "b integer", "c text", "d date"]);
    assert_eq!(told(&reads(None), &old, &added), ["d added - date harm"]);
    assert_eq!(told(&reads(None), &added, &old), ["d dropped date - harm"]);
}

#[test]
fn columns_that_swap_names_are_told_from_columns_that_stay() {
    let old = shape(&OLD);
    let swapped = shape(&["id! bigint", "c text", "b integer", "a text"]);
    let expected = ["a renamed a c harm", "c renamed c a harm"];
    assert_eq!(told(&reads(Some(&["a", "b"])), &old, &swapped), expected);
    // A table of the same columns made elsewhere, in another order, is none of it.
    let elsewhere = TableShape { identity: Some("2".into()), ..swapped };
    assert!(told(&reads(Some(&["a", "b"])), &old, &elsewhere).is_empty());
}

#[test]
fn without_numbers_a_rename_is_told_by_type_and_place() {
    let of = |columns| TableShape { identity: None, ..shape(columns) };
    let old = of(&OLD);
    let renamed = of(&["id! bigint", "a text", "n integer", "c text"]);
    assert_eq!(told(&reads(Some(&["a", "b"])), &old, &renamed), ["b renamed b n harm"]);
    let other = of(&["id! bigint", "a text", "n date", "c text"]);
    let expected = ["b dropped integer - harm", "n added - date none"];
    assert_eq!(told(&reads(Some(&["a", "b"])), &old, &other), expected);
}

#[test]
fn a_column_that_a_condition_or_a_cut_names_is_read() {
    let old = shape(&OLD);
    let new = shape(&["id! bigint", "a text", "b integer", "c date"]);
    let plain = reads(Some(&["a"]));
    let filtered = Route { filter: Some("lower(C) <> 'x'".into()), ..plain.clone() };
    let other = Route { filter: Some("cc <> 'x'".into()), ..plain.clone() };
    let cut = Route { split_by: Some("c".into()), ..plain.clone() };
    let newest = Route { newest_by: Some("c".into()), ..plain };
    for (route, harm) in [(filtered, "harm"), (other, "none"), (cut, "harm"), (newest, "harm")] {
        assert_eq!(told(&route, &old, &new), [format!("c retyped text date {harm}")]);
    }
}

#[test]
fn a_key_that_nothing_proves_any_more_is_told() {
    let old = shape(&OLD);
    let unproven = TableShape { unique_keys: vec![vec!["a".into()]], ..old.clone() };
    let route = reads(Some(&["a"]));
    assert_eq!(told(&route, &old, &unproven), ["id key lost - - harm"]);
    let checked = Route { on_collision: Some(OnCollision::Error), ..route.clone() };
    assert_eq!(told(&checked, &old, &unproven), ["id key lost - - harm"]);
    let other =
        TableShape { unique_keys: vec![vec!["id".into()], vec!["b".into()]], ..old.clone() };
    assert!(told(&route, &old, &other).is_empty());
}

#[test]
fn every_value_of_a_widened_type_keeps_its_text() {
    for (from, to, is) in [
        ("smallint", "integer", true),
        ("integer", "bigint", true),
        ("bigint", "integer", false),
        ("integer", "numeric", false),
        ("integer", "oid", false),
        ("character varying(10)", "character varying(20)", true),
        ("character varying(20)", "character varying(10)", false),
        ("character varying(10)", "character varying", true),
        ("character varying", "character varying(10)", false),
        ("character varying(10)", "text", true),
        ("text", "character varying", true),
        ("text", "character varying(9)", false),
        ("text", "character(9)", false),
        ("character(9)", "text", false),
        ("numeric(10,2)", "numeric(12,2)", true),
        ("numeric(10,2)", "numeric(12,3)", false),
        ("numeric(10,2)", "numeric(9,2)", false),
        ("numeric(10)", "numeric(12)", true),
        ("numeric(10,2)", "numeric", true),
        ("numeric", "numeric(10,2)", false),
        ("timestamp(3) with time zone", "timestamp(6) with time zone", true),
        ("timestamp(3) with time zone", "timestamp with time zone", true),
        ("timestamp(3) with time zone", "timestamp(3) without time zone", false),
        ("timestamp with time zone", "timestamp(3) with time zone", false),
        ("STRING", "BYTES", false),
        ("INT64", "NUMERIC", false),
    ] {
        assert_eq!(is_widened(from, to), is, "{from} -> {to}");
    }
}

#[test]
fn a_shape_keeps_its_meaning_in_the_journal() {
    let shape = shape(&OLD);
    let text = serde_json::to_string(&shape).unwrap();
    assert_eq!(serde_json::from_str::<TableShape>(&text).unwrap(), shape);
}
