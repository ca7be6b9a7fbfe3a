//! Paths that are read and refused, and what they find, compared with `serde_json` on arbitrary documents.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn parse(text: &str) -> JsonPath {
    JsonPath::parse(text).unwrap()
}

fn found(path: &str, json: &str) -> Option<String> {
    let value = parse(path).find(json.as_bytes()).unwrap()?;
    let mut text = Vec::new();
    write_text(value, &mut text).unwrap();
    Some(String::from_utf8(text).unwrap())
}

#[test]
fn a_path_is_written_in_its_shortest_form() {
    for (text, shortest) in [
        ("$", "$"),
        ("$.git.ref", "$.git.ref"),
        ("$[\"git\"][\"ref\"]", "$.git.ref"),
        ("$.a[0][\"b c\"][12].ü_1", "$.a[0][\"b c\"][12].ü_1"),
        ("$[\"\\u0041\\\"]\"]", "$[\"A\\\"]\"]"),
        ("$[\"\"]", "$[\"\"]"),
    ] {
        assert_eq!(parse(text).to_string(), shortest);
        assert_eq!(parse(shortest), parse(text));
    }
}

#[test]
fn what_does_not_name_one_value_is_refused() {
    for (text, why) in [
        ("", "must begin with \"$\""),
        ("git", "must begin with \"$\""),
        ("$git", "must go on with \".name\", [\"name\"] or [index]"),
        ("$ .a", "must go on with \".name\", [\"name\"] or [index]"),
        ("$.", "has a name that must be written as [\"name\"]"),
        ("$..a", "has a name that must be written as [\"name\"]"),
        ("$.*", "has a name that must be written as [\"name\"]"),
        ("$.a b", "has a name that must be written as [\"name\"]"),
        ("$.1a", "has a name that must be written as [\"name\"]"),
        ("$[\"a", "has a \"[\" that is not closed"),
        ("$[\"a\"", "has a \"[\" that is not closed"),
        ("$[0", "has a \"[\" that is not closed"),
        ("$[\"\\x\"]", "has a name that is not a JSON string"),
        ("$[-1]", "has brackets around neither a name such as [\"name\"] nor an index such as [0]"),
        ("$[01]", "has brackets around neither a name such as [\"name\"] nor an index such as [0]"),
        ("$[*]", "has brackets around neither a name such as [\"name\"] nor an index such as [0]"),
        (
            "$['a']",
            "has brackets around neither a name such as [\"name\"] nor an index such as [0]",
        ),
        ("$[]", "has brackets around neither a name such as [\"name\"] nor an index such as [0]"),
    ] {
        assert_eq!(JsonPath::parse(text), Err(why), "{text}");
    }
}

#[test]
fn values_are_found_as_they_are_written() {
    let json = " { \"git\" : {\"ref\": \"main\", \"n\": 1.50e+3, \"ok\" : true, \"no\": null},\n \"a\": [ 1, [2, {\"x\" : \"\\u00e9\\n\" } ], \"\" ] , \"\\u0062\": -0.0} ";
    for (path, text) in [
        ("$.git.ref", Some("main")),
        ("$.git.n", Some("1.50e+3")),
        ("$.git.ok", Some("true")),
        ("$.git.no", None),
        ("$.git.none", None),
        ("$.git.ref.more", None),
        ("$.git[0]", None),
        ("$.a[0]", Some("1")),
        ("$.a[1]", Some("[2,{\"x\":\"\\u00e9\\n\"}]")),
        ("$.a[1][1].x", Some("é\n")),
        ("$.a[2]", Some("")),
        ("$.a[3]", None),
        ("$.a.x", None),
        ("$.b", Some("-0.0")),
        ("$.git", Some("{\"ref\":\"main\",\"n\":1.50e+3,\"ok\":true,\"no\":null}")),
    ] {
        assert_eq!(found(path, json).as_deref(), text, "{path}");
    }
    assert_eq!(found("$", " \"x\" ").as_deref(), Some("x"));
    assert_eq!(found("$", " null "), None);
    assert_eq!(found("$.a", "{\"a\":1,\"a\":2}").as_deref(), Some("2"));
    assert_eq!(found("$.a", "{}"), None);
    assert_eq!(found("$[0]", "[]"), None);
}

#[test]
fn text_that_is_no_json_is_a_fault_and_never_a_panic() {
    for json in [
        "",
        " ",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\" 1}",
        "{\"a\":}",
        "{,}",
        "{\"a\":\"x\\",
    ] {
        assert_eq!(parse("$.a").find(json.as_bytes()), Err(NotJson), "{json}");
    }
    let mut out = Vec::new();
    assert_eq!(write_text(b"\"\\ud800\"", &mut out), Err(NotJson));
    assert_eq!(write_text(b"\"\\", &mut out), Err(NotJson));
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~é🚀\\n\"\\\\{}\\[\\],:]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[ab \"\\\\{}:,]{0,2}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Every place of a document, with the path that leads to it.
fn places<'v>(value: &'v Value, path: &str, all: &mut Vec<(String, &'v Value)>) {
    all.push((path.to_owned(), value));
    match value {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                places(element, &format!("{path}[{index}]"), all);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                places(member, &format!("{path}[{}]", Value::from(name.as_str())), all);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn every_place_of_a_document_is_found_by_its_path(document in document(), is_pretty: bool) {
        let json = if is_pretty {
            serde_json::to_string_pretty(&document).unwrap()
        } else {
            document.to_string()
        };
        let mut all = Vec::new();
        places(&document, "$", &mut all);
        for (path, value) in all {
            let text = match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            prop_assert_eq!(found(&path, &json), text, "{}", path);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, path in "\\$([.\\[][a\"0\\]]{0,3}){0,2}") {
        if let Ok(path) = JsonPath::parse(&path)
            && let Ok(Some(value)) = path.find(&bytes)
        {
            prop_assert!(matches!(write_text(value, &mut Vec::new()), Ok(()) | Err(NotJson)));
        }
    }
}
