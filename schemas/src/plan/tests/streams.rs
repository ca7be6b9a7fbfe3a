//! Streams that a rebuild makes: what their route needs and excludes, and what their keys are.
//!
//! Invariant: the parser and the JSON Schema refuse the same routes.

use super::json_schema::Validator;
use super::*;

fn stream(key: &str, lines: &str) -> String {
    let route = format!("key = \"{key}\"\ntype = \"stream\"\nuse = [\"rebuild\"]\n{lines}\n");
    MINIMAL.replace("key = \"build:{id}\"\ntype = \"hash\"\n", &route)
}

#[test]
fn a_rebuilt_stream_has_a_prefix_and_is_replaced_whole() {
    let plan = parse(&stream("{{t}}:log", "on_conflict = \"replace\"\nsplit_by = \"a\"")).unwrap();
    let route = &plan.routes[0];
    assert!(route.uses.rebuild && !route.uses.backup && route.is_rebuilt_stream());
    assert_eq!(route.stream_key(12), b"{t}:log:12");
    for (key, number) in [
        ("{t}:log:0", Some(0)),
        ("{t}:log:18446744073709551615", Some(u64::MAX)),
        ("{t}:log:18446744073709551616", None),
        ("{t}:log:07", None),
        ("{t}:log:+7", None),
        ("{t}:log:", None),
        ("{t}:log", None),
        ("{t}:log:7:8", None),
    ] {
        assert_eq!(route.stream_number(key.as_bytes()), number, "{key}");
        assert_eq!(route.fits(key.as_bytes()), number.is_some(), "{key}");
    }
    let without = "does not go with type \"stream\", whose entries are rows without a key or expiry of their own";
    for (key, lines, expected) in [
        ("b:{id}", "", "key: key b:{id} is a prefix: it takes no column such as {id}".to_owned()),
        (
            "b",
            "on_conflict = \"keep\"",
            "on_conflict: \"keep\" does not go with type \"stream\", which is replaced whole; say \"replace\" or leave it out".to_owned(),
        ),
        ("b", "expire_at = \"a\"", format!("expire_at: {without}")),
        ("b", "on_collision = \"error\"", format!("on_collision: {without}")),
        ("b", "row_key = \"a\"", "row_key: goes with use = [\"backup\"] only".to_owned()),
    ] {
        let found = mistakes(&stream(key, lines));
        assert!(found.ends_with(&format!("route \"builds\": {expected}")), "{found}");
    }
}

#[test]
fn a_stream_is_rebuilt_or_read_back_and_not_both() {
    let both = stream("b", "").replace("[\"rebuild\"]", "[\"backup\", \"rebuild\"]");
    let both = both.replace("alloydb:builds", "bigquery:logs.builds");
    let found = mistakes(&format!("{both}[bigquery]\nproject = \"p\"\n"));
    assert!(found.ends_with(
        "use: a rebuild names its streams after partitions, a backup reads streams that the application names; write two routes"
    ), "{found}");
}

#[test]
fn no_other_route_has_keys_that_begin_alike() {
    for (key, is_apart) in [
        ("log:{id}", false),
        ("{id}", false),
        ("log:m:{id}", false),
        ("log2:{id}", true),
        ("lo:{id}", true),
    ] {
        let other = format!(
            "[[route]]\nname = \"o\"\ntable = \"alloydb:o\"\nkey = \"{key}\"\ntype = \"hash\"\n"
        );
        assert_eq!(parse(&format!("{}{other}", stream("log", ""))).is_ok(), is_apart, "{key}");
    }
}

#[test]
fn the_schema_refuses_what_no_stream_has() {
    let validator = Validator::new();
    assert_eq!(validator.check(&stream("log", "on_conflict = \"replace\"")), Ok(()));
    for lines in ["expire_at = \"a\"", "on_conflict = \"keep\"", "order_by = \"a\""] {
        let text = stream("log", lines);
        assert!(parse(&text).is_err() && validator.check(&text).is_err(), "{lines}");
    }
    let both = stream("log", "").replace("[\"rebuild\"]", "[\"backup\", \"rebuild\"]");
    assert!(parse(&both).is_err() && validator.check(&both).is_err());
}
