//! `[[unrouted]]`: what is read, and every mistake in it.

use super::{MINIMAL, Unrouted, mistakes, parse};

fn with(entries: &str) -> String {
    format!("{MINIMAL}{entries}")
}

fn entry(prefix: &str) -> String {
    format!("[[unrouted]]\nprefix = \"{prefix}\"\nowner = \"web\"\ncomes_back = \"by itself\"\n")
}

#[test]
fn entries_are_read_and_prefixes_may_nest() {
    let text = with(&[entry("session:"), entry("session:admin:"), entry("buildx:")].concat());
    let plan = parse(&text).unwrap();
    let unrouted = |prefix: &str| Unrouted {
        prefix: prefix.into(),
        owner: "web".into(),
        comes_back: "by itself".into(),
    };
    let expected = ["session:", "session:admin:", "buildx:"].map(unrouted);
    assert_eq!(plan.unrouted, expected);
    assert_eq!(parse(MINIMAL).unwrap().unrouted, []);
    assert_eq!(plan.fingerprint(), parse(MINIMAL).unwrap().fingerprint());
}

#[test]
fn every_mistake_has_its_line() {
    let text = with(
        r#"[[unrouted]]
prefix = "session:"
owner = "web"
comes_back = "by logging in"
[[unrouted]]
prefix = "session:"
ownr = "web"
comes_back = ""
[[unrouted]]
prefix = "build:log:"
owner = 5
comes_back = "x"
[[unrouted]]
prefix = "bui"
owner = "web"
comes_back = "x"
[[unrouted]]
prefix = "rekindle:run"
owner = "web"
comes_back = "x"
[[unrouted]]
"#,
    );
    assert_eq!(
        mistakes(&text),
        r#"line 15: unrouted[1]: field "owner" is missing
line 16: unrouted[1].prefix: another [[unrouted]] has this prefix
line 17: unrouted[1]: unknown field "ownr", did you mean "owner"?
line 18: unrouted[1].comes_back: must not be empty
line 20: unrouted[2].prefix: reaches into the keys of route "builds", which begin with "build:"
line 21: unrouted[2].owner: expected a string, found an integer
line 24: unrouted[3].prefix: reaches into the keys of route "builds", which begin with "build:"
line 28: unrouted[4].prefix: reaches into "rekindle:", the keys of rekindle itself
line 31: unrouted[5]: field "prefix" is missing
line 31: unrouted[5]: field "owner" is missing
line 31: unrouted[5]: field "comes_back" is missing"#
    );
}

#[test]
fn a_route_without_a_literal_start_leaves_no_room_and_a_duplicate_only_its_own() {
    let anything = with(&entry("session:")).replace("build:{id}", "{id}");
    assert_eq!(
        mistakes(&anything),
        "line 12: unrouted[0].prefix: reaches into the keys of route \"builds\", which may begin with anything"
    );
    let duplicate = |prefix: &str| {
        let blocks = with(&entry(prefix)).replace("\"hash\"", "\"blocks\"");
        let blocks = blocks.replace("build:{id}", "dup:builds");
        blocks.replace("alloydb:builds", "bigquery:logs.builds") + "[bigquery]\nproject = \"p\"\n"
    };
    assert!(parse(&duplicate("dup:buildings:")).is_ok());
    assert!(mistakes(&duplicate("dup:")).contains("which begin with \"dup:builds:\""));
}

#[test]
fn a_substituted_prefix_is_not_shown() {
    let text = with(&entry("${env:SECRET}")).replace("build:{id}", "{id}");
    let shown = mistakes(&text);
    assert!(shown.ends_with("reaches into the keys of a route"), "{shown}");
}

#[test]
fn a_table_in_place_of_an_array_is_said() {
    assert!(
        mistakes(&with("[unrouted]\n"))
            .contains("unrouted: expected an array of tables, written [[unrouted]], found a table")
    );
}
