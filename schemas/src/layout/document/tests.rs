//! What documents hold, and the hash that does not depend on how they are given back.

use super::*;
use proptest::prelude::*;

fn written(value: &str) -> Result<String, NotHeld> {
    let mut documents = Documents { value: value.into(), ..Documents::default() };
    let mut out = Vec::new();
    documents.write(&mut out).map(|()| String::from_utf8(out).unwrap())
}

fn hash(text: &str) -> Option<u64> {
    DocumentHasher::default().hash(text.as_bytes())
}

#[test]
fn numbers_are_held_exactly_or_refused() {
    let held = [
        ("0", "0"),
        ("0.000", "0"),
        ("-0", "-0.0"),
        ("-0.0", "-0.0"),
        ("7.00", "7"),
        ("1.50", "1.5"),
        ("-19.990", "-19.99"),
        ("0.1", "0.1"),
        ("12345678.9012345", "12345678.9012345"),
        ("0.00001230", "0.0000123"),
        ("1e-22", "0.0000000000000000000001"),
        ("999999999999999e-22", "0.0000000999999999999999"),
        ("1E+5", "100000"),
        ("1e15", "1000000000000000"),
        ("9007199254740993", "9007199254740993"),
        ("9007199254740993.0", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1e20", "1e20"),
        ("-123e20", "-123e20"),
        ("999999999999999e22", "999999999999999e22"),
    ];
    for (value, wanted) in held {
        assert_eq!(written(value).as_deref(), Ok(wanted), "{value}");
        assert_eq!(hash(value), hash(wanted), "{value}");
    }
    let refused = [
        "18446744073709551616",
        "18446744073709552e3",
        "-9223372036854775809",
        "1234567890123456.5",
        "0.1234567890123456",
        "-382941.14614453795",
        "0.30000000000000004",
        "1e-23",
        "1e23",
        "10e22",
        "1e400",
        "1e-400",
        "5e-324",
        "1e99999999999999999999",
        "1e-9223372036854775808",
    ];
    for value in refused {
        assert_eq!(written(value), Err(NotHeld::Number), "{value}");
        assert_eq!(written(&format!("{{\"a\":[{value}]}}")), Err(NotHeld::Number), "{value}");
    }
}

#[test]
fn what_is_not_given_back_is_refused() {
    assert_eq!(written(r#"{"a":1,"b":{"a":1}}"#).as_deref(), Ok(r#"{"a":1,"b":{"a":1}}"#));
    assert_eq!(written(r#"[{"a":1,"b":2,"\u0061":3}]"#), Err(NotHeld::Twice));
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(written(&deep(126)).is_ok() && hash(&deep(127)).is_some());
    assert_eq!((written(&deep(127)), hash(&deep(128))), (Err(NotHeld::Depth), None));
    for text in
        ["", "{", "1 2", "[1,]", "{\"a\"}", "nul", "01", "1.", r#""\ud800""#, "\"\u{1}\"", "'a'"]
    {
        assert_eq!((written(text), hash(text)), (Err(NotHeld::Text), None), "{text}");
    }
    let mut documents = Documents { value: b"\"\xff\"".to_vec(), ..Documents::default() };
    assert_eq!(documents.write(&mut Vec::new()), Err(NotHeld::Text));
}

#[test]
fn strings_are_sent_with_the_fewest_escapes() {
    let value =
        r#" { "\u0041\/" : "\u00e9\u0000\n\ud83d\ude00" , "b" : [ true , false , null ] } "#;
    let wanted = "{\"A/\":\"é\\u0000\\n\u{1f600}\",\"b\":[true,false,null]}";
    assert_eq!(written(value).as_deref(), Ok(wanted));
    assert_eq!(hash(value), hash(wanted));
}

#[test]
fn only_what_is_said_counts() {
    let same = [
        r#"{"a":1.5,"b":[1,"x",null],"c":{"d":-0.0,"e":1e20}}"#,
        r#"{"c":{"e":100000000000000000000,"d":-0},"b":[1.0,"\u0078",null],"a":15e-1}"#,
        " { \"b\" : [ 1 , \"x\" , null ],\n\"c\":{\"d\":-0e7,\"e\":1.0E+20} , \"a\":1.50 } ",
    ];
    assert_eq!((hash(same[0]), hash(same[0])), (hash(same[1]), hash(same[2])));
    let others = [
        r#"{"a":1.5,"b":[1,"x",null],"c":{"d":0.0,"e":1e20}}"#,
        r#"{"a":1.5,"b":["x",1,null],"c":{"d":-0.0,"e":1e20}}"#,
        r#"{"a":1.5,"b":[1,"x"],"c":{"d":-0.0,"e":1e20}}"#,
        r#"{"a":1.5,"b":[1,"x",null],"c":{"d":-0.0,"e":1e21}}"#,
        r#"{"a":"1.5","b":[1,"x",null],"c":{"d":-0.0,"e":1e20}}"#,
        r#"{"a":1.5,"b":[1,"x",false],"c":{"d":-0.0,"e":1e20}}"#,
        r#"{"a":1.5,"b":[1,"x",null],"c":{"e":-0.0,"d":1e20}}"#,
        r#"{"a":1.5,"c":[1,"x",null],"b":{"d":-0.0,"e":1e20}}"#,
        r#"[1.5,[1,"x",null],{"d":-0.0,"e":1e20}]"#,
        "[]",
        "{}",
        "null",
        "\"null\"",
        "0",
        "\"\"",
        "[[]]",
        "[{}]",
        "[null]",
        "[0]",
        "[0,0]",
        "{\"\":0}",
    ];
    let mut hashes: Vec<u64> =
        others.iter().chain(&same[..1]).map(|text| hash(text).unwrap()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), others.len() + 1);
}

/// A value, and two ways to write it.
fn written_twice() -> impl Strategy<Value = (String, String)> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "false"])
            .prop_map(|word| (word.to_owned(), format!(" {word} "))),
        (-999_999_999_999_999_i64..1_000_000_000_000_000, -22..=0).prop_map(
            |(digits, exponent)| (
                format!("{digits}e{exponent}"),
                format!("{digits}0.00E{}", exponent - 1)
            )
        ),
        any::<String>().prop_map(|text| {
            let mut plain = Vec::new();
            write_json_string(text.as_bytes(), &mut plain);
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            let escaped = units.collect::<Vec<_>>().concat();
            (String::from_utf8(plain).unwrap(), format!("\"{escaped}\""))
        }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let members = prop::collection::btree_map("[a-z\"\u{e9}]{0,3}", inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|elements| {
                let (one, other): (Vec<_>, Vec<_>) = elements.into_iter().unzip();
                (format!("[{}]", one.join(",")), format!("[ {}\n]", other.join(" ,\t")))
            }),
            members.prop_map(|members| {
                let member = |name: &String, value: &String| {
                    format!("{}:{value}", serde_json::Value::from(name.as_str()))
                };
                let one: Vec<_> =
                    members.iter().map(|(name, (one, _))| member(name, one)).collect();
                let other: Vec<_> =
                    members.iter().rev().map(|(name, (_, other))| member(name, other)).collect();
                (format!("{{{}}}", one.join(",")), format!("{{ {} }}", other.join(" , ")))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn every_way_to_write_a_value_has_its_hash((one, other) in written_twice()) {
        prop_assert_eq!(hash(&one), hash(&other));
        let sent = written(&one);
        prop_assert_eq!(&sent, &written(&other).map(|_| sent.clone().unwrap()));
        prop_assert_eq!(hash(&sent.unwrap()), hash(&one));
    }
}
