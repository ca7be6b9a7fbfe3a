//! Routes of many rows per key: what is read, and every mistake in it.

use super::{MINIMAL, parse};
use crate::plan::{Layout, Many, Order, Score, ScoreUnit};

fn with(layout: &str, lines: &str) -> String {
    let text = MINIMAL.replace("\"hash\"", &format!("\"{layout}\""));
    format!("{}{lines}\n", text.replace("build:{id}", "repo:{repo}"))
}

fn many(layout: &str, lines: &str) -> Many {
    let plan = parse(&with(layout, lines)).unwrap();
    plan.routes[0].many.clone().unwrap()
}

fn mistakes(layout: &str, lines: &str) -> Vec<String> {
    let errors = parse(&with(layout, lines)).expect_err(lines);
    let path = "route \"builds\"";
    let of = |path_of: &str| path_of.replacen(path, "", 1).trim_start_matches(": ").to_owned();
    errors.0.into_iter().map(|e| format!("{}: {}", of(&e.path), e.message)).collect()
}

#[test]
fn scores_and_orders_name_a_unit_and_a_direction() {
    let score =
        |score: &str| many("zset", &format!("member = \"{{id}}\"\nscore = \"{score}\"")).score;
    let wanted = |unit| Some(Score { column: "at".into(), unit });
    assert_eq!(score("at"), wanted(None));
    assert_eq!(score("at|s"), wanted(Some(ScoreUnit::Seconds)));
    assert_eq!(score("at|ms"), wanted(Some(ScoreUnit::Milliseconds)));
    assert_eq!(score("at|us"), wanted(Some(ScoreUnit::Microseconds)));
    let order =
        |order: &str| many("list", &format!("member = \"{{id}}\"\norder_by = \"{order}\"")).order;
    let wanted = |is_descending| Some(Order { column: "at".into(), is_descending });
    assert_eq!(order("at"), wanted(false));
    assert_eq!(order("at|asc"), wanted(false));
    assert_eq!(order("at|desc"), wanted(true));
    let hash = parse(&with("hash", "member = \"{id}\"\ncolumns = [\"status\"]")).unwrap();
    assert_eq!(hash.routes[0].layout, Layout::Hash);
    assert_eq!(hash.routes[0].many.as_ref().unwrap().member.text(), "{id}");
    assert!(parse(MINIMAL).unwrap().routes[0].many.is_none());
}

#[test]
fn every_part_is_in_the_definition_of_the_route() {
    let definition =
        |layout: &str, lines: &str| parse(&with(layout, lines)).unwrap().routes[0].definition();
    let zset = definition("zset", "member = \"{id}\"\nscore = \"at|ms\"");
    assert!(zset.ends_with("member = \"{id}\"\nscore = \"at\" in ms\n"), "{zset}");
    let list = definition("list", "member = \"{id}\"\norder_by = \"at|desc\"");
    assert!(list.ends_with("member = \"{id}\"\norder_by = \"at\" descending\n"), "{list}");
    // Runs of plans without such routes go on.
    let plain = parse(MINIMAL).unwrap().routes[0].definition();
    assert!(plain.ends_with("on_conflict = replace\n"), "{plain}");
}

#[test]
fn every_mistake_is_named() {
    let id = "member = \"{id}\"";
    for (layout, lines, expected) in [
        ("set", String::new(), ": field \"member\" is missing"),
        ("zset", id.into(), ": field \"score\" is missing"),
        ("list", id.into(), ": field \"order_by\" is missing"),
        ("json", id.into(), "member: goes with type \"set\", \"zset\", \"list\" and \"hash\" only"),
        ("set", format!("{id}\nscore = \"a\""), "score: goes with type \"zset\" only"),
        (
            "set",
            format!("{id}\norder_by = \"a\""),
            "order_by: does not go with type \"set\", which has no order",
        ),
        (
            "zset",
            format!("{id}\nscore = \"a|m\""),
            "score: must be a column, or a column of times and its unit: column|s, column|ms, column|us",
        ),
        (
            "list",
            format!("{id}\norder_by = \"a|down\""),
            "order_by: must be a column, or a column and a direction: column|asc, column|desc",
        ),
        (
            "set",
            "member = \"{a|lower}\"".into(),
            "member: column a cannot be read back from the member, so equal members could not be found; let a query compute it",
        ),
        (
            "set",
            "member = \"{a}{b}\"".into(),
            "member: member template {a}{b} has no literal between {a} and {b}, so a key could not be taken apart",
        ),
        (
            "hash",
            format!("{id}\ncolumns = [\"a\", \"b\"]"),
            "columns: a field of a hash of many rows holds one column, not 2",
        ),
        (
            "set",
            format!("{id}\nsplit_by = \"a\""),
            "split_by: must be a column of the key, or one key would be cut apart",
        ),
    ] {
        assert_eq!(mistakes(layout, &lines), [expected], "{layout} {lines}");
    }
    // What a list keeps need not be told apart.
    assert!(parse(&with("list", "member = \"{a|lower}\"\norder_by = \"b\"")).is_ok());
}

#[test]
fn hash_tags_are_closed_and_not_empty() {
    let parsed = |key: &str| parse(&MINIMAL.replace("build:{id}", key));
    for key in ["{{{id}}}:x", "u:{{user:{id}}}:{x}", "}}{id}", "a{{b}}{{{id}", "{id}:{{x}}"] {
        assert!(parsed(key).is_ok(), "{key}");
    }
    for (key, said) in [
        ("{{}}x:{id}", "has an empty hash tag {}"),
        ("x{{{id}", "never closes it"),
        ("}}{{{id}", "never closes it"),
    ] {
        let said_of_it = parsed(key).unwrap_err().to_string();
        assert!(said_of_it.contains(said), "{key}: {said_of_it}");
    }
}
