//! The plan file with its substitutions, key templates and keys, durations, SQL and paths in it.

use super::fuzz;
use crate::key::{Filter, KeyTemplate};
use crate::plan::Plan;
use crate::{JsonPath, duration};
use fixtures::fuzz::Told;
use std::fs;
use std::io::{Error, ErrorKind};

const SECRET: &str = "hunter2\"\n[[route]]";

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

/// Every plan of the fixtures: between them they have every field.
fn plans() -> Vec<String> {
    let folder = fixtures::plan_path("code-town").parent().unwrap().to_owned();
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn a_plan_file_of_anybody() {
    let lookup = |name: &str| match name {
        "SECRET" => Some(SECRET.to_owned()),
        "EMPTY" => Some(String::new()),
        _ if name.contains("ALLOYDB") => Some("postgres://app:hunter2@db:5432/app".to_owned()),
        _ if name.contains("REDIS") => Some("redis://app:hunter2@cache:6380/1".to_owned()),
        _ => None,
    };
    let read_file = |path: &str| match path {
        "/run/redis" => Ok("rediss://app:hunter2@cache:6380/1\n".to_owned()),
        _ => Err(Error::from(ErrorKind::NotFound)),
    };
    let taken = |text: &str| Plan::parse(text, &lookup, &read_file).is_ok();
    let plans = plans().into_iter();
    let plans: Vec<String> = plans.filter(|text| text.len() < 4_000 && taken(text)).collect();
    assert!(plans.len() > 2, "the plans of the fixtures are no corpus");
    let corpus: Vec<&str> = plans.iter().map(String::as_str).collect();
    let words = [
        "${env:SECRET}",
        "${env:EMPTY}",
        "${env:NONE}",
        "${file:/run/redis}",
        "${file:/none}",
        "${",
        "${env:",
        "[[route]]",
        "[redis]",
        "\"\"\"",
        "key = \"{id}\"",
        "\nwhere = \"a\"",
        "$$",
        "[[",
        "{{",
        "}}",
        "\\u0000",
    ];
    // A syntax error shows its line; a plan is a few hundred bytes per route, each a hundred fields to look for.
    fuzz("a plan file", &corpus).words(&words).heap(4 << 20, 256).longest(4 << 10).run(
        |input, _| match Plan::parse(&text(input), &lookup, &read_file) {
            Ok(plan) => {
                let names: Vec<&str> =
                    plan.routes.iter().map(|route| route.name.as_str()).collect();
                assert!(names.iter().all(|name| !name.is_empty()));
                Told::Taken
            }
            Err(errors) => {
                let said = errors.to_string();
                assert!(
                    !said.is_empty() && !said.contains("hunter2"),
                    "a secret or nothing is shown"
                );
                Told::Refused
            }
        },
    );
}

/// A template, a zero byte, and a key that it is asked about.
#[test]
fn a_key_template_and_a_key_of_anybody() {
    let corpus = [
        "build:{id}\0build:1",
        "r:{repo|urlencode}:{id}\0r:a%3Ab:7",
        "{{t}}{a|lower}-{b}\0{t}x-y",
        "day:{at|date:%Y%m%d%H}\0day:2026010203",
        "ü{a}::{b}\0ü1::2",
        "{a|urlencode}%{b}\0a%3A%b",
    ];
    let words =
        ["{{", "}}", "|urlencode", "|lower", "|date:%Y%m", "%3A", "%", "{a}", "\0", "%Y%Y", "%2"];
    fuzz("a key template", &corpus).words(&words).run(|input, _| {
        let (template, key) =
            input.split_at(input.iter().position(|b| *b == 0).unwrap_or(input.len()));
        let key = key.strip_prefix(b"\0").unwrap_or(key);
        let Ok(template) = KeyTemplate::parse(&text(template)) else { return Told::Refused };
        assert_eq!(KeyTemplate::parse(template.text()).as_ref(), Ok(&template));
        let _hash_tag = template.check_hash_tag();
        let Some(texts) = template.parse_key(key) else { return Told::Refused };
        // What stands under a column without a filter is put together again to the very key.
        assert_eq!(texts.len(), template.placeholders().len());
        if template.columns().all(|(_, filter)| *filter == Filter::None) {
            let mut again = template.leading_literal().as_bytes().to_vec();
            for (text, placeholder) in texts.iter().zip(template.placeholders()) {
                again.extend_from_slice(text);
                again.extend_from_slice(placeholder.literal.as_bytes());
            }
            assert_eq!(again, key);
        }
        Told::Taken
    });
}

#[test]
fn a_duration_of_anybody() {
    let corpus = ["1s", "90m", "24h", "3650d"];
    fuzz("a duration", &corpus).words(&["ms", "s", "d", "0", "99999999"]).heap(4096, 16).run(
        |input, _| {
            let parsed = duration::parse(&text(input));
            if let Ok(parsed) = parsed {
                assert!(!parsed.is_zero() && parsed <= duration::LONGEST);
                assert_eq!(duration::parse(&duration::format(parsed)), Ok(parsed));
            }
            Told::from(&parsed)
        },
    );
}

/// A path, a zero byte, and the JSON that it leads into.
#[test]
fn a_path_into_json_of_anybody() {
    let corpus = [
        "$\0null",
        "$.a.b\0{\"a\":{\"b\":[1,2.50]}}",
        "$[\"k \\u00e9\"][1]\0{\"k é\":[1,\"\\ud83d\\ude80\"]}",
        "$.a[0]\0{\"a\" : [ -1e9 , {} ]}",
    ];
    let words = [
        "[",
        "{\"a\":",
        "]",
        "}",
        "\\u",
        "\\ud800",
        "\"",
        "$.a",
        "\0",
        "[0]",
        "[18446744073709551615]",
    ];
    fuzz("a path into JSON", &corpus).words(&words).run(|input, _| {
        let (path, json) =
            input.split_at(input.iter().position(|b| *b == 0).unwrap_or(input.len()));
        let json = json.strip_prefix(b"\0").unwrap_or(json);
        let path = JsonPath::parse(&text(path));
        let mut out = Vec::new();
        let compact = crate::json_path::write_compact(json, &mut out);
        let whole = JsonPath::parse("$").unwrap();
        let found = path.as_ref().unwrap_or(&whole).find(json);
        if let Ok(Some(value)) = found {
            out.clear();
            let _text = crate::json_path::write_text(value, &mut out);
        }
        if path.is_ok() && compact.is_ok() && found.is_ok() { Told::Taken } else { Told::Refused }
    });
}
