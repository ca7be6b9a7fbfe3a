//! Key templates: refusals, rendering, and `parse_key` as the inverse of `render`.

use super::*;
use crate::bind::tests::schema;
use crate::type_map::ColumnType;
use arrow::array::{ArrayRef, Date32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use std::sync::Arc;

/// Renders the key of one row with an int8 `id`, texts `a` and `b`, a date `d` and a timestamptz `t`.
fn render(template: &str, a: Option<&str>, b: &str, t: i64) -> Result<String, String> {
    let table = schema(
        &[
            ("id", ColumnType::Int8),
            ("a", ColumnType::Text),
            ("b", ColumnType::Text),
            ("d", ColumnType::Date),
            ("t", ColumnType::TimestampTz),
        ],
        &[],
    );
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![-7])),
        Arc::new(StringArray::from(vec![a])),
        Arc::new(StringArray::from(vec![b])),
        Arc::new(Date32Array::from(vec![i32::try_from(t / 86_400_000_000).unwrap_or(i32::MAX)])),
        Arc::new(TimestampMicrosecondArray::from(vec![t]).with_timezone("UTC")),
    ];
    let rows = RecordBatch::try_new(table.arrow(), arrays).unwrap();
    let key = BoundKey::new(&KeyTemplate::parse(template).unwrap(), &table).unwrap();
    let renderer = key.renderer(&rows).unwrap();
    let mut out = b"before".to_vec();
    let outcome = renderer.render(0, &mut out).map_err(|error| error.to_string());
    let text = String::from_utf8(out.split_off(6)).unwrap();
    assert!(outcome.is_ok() || text.is_empty(), "a refused row leaves nothing behind");
    outcome.map(|()| text)
}

#[test]
fn bad_templates_are_refused_by_name() {
    let cases = [
        ("", "empty"),
        ("builds", "no {column}"),
        ("{a}{b}", "no literal between {a} and {b}"),
        ("{a|lowr}", "unknown filter lowr; did you mean lower?"),
        ("{a|zzzzzz}", "known are lower, date, urlencode"),
        ("{a|date}", "needs a format"),
        ("{a|date:%Q}", "unknown date directive %Q"),
        ("{a|date:x}", "no directive"),
        ("{a|date:%Y%}", "ends in a single %"),
        ("{}", "no column name"),
        ("{|lower}", "no column name"),
        ("{a", "without its }"),
        ("a}:{b}", "without its {"),
        ("{a{b}", "{ inside a placeholder"),
    ];
    for (template, expected) in cases {
        let message = KeyTemplate::parse(template).unwrap_err();
        assert!(message.contains(expected), "{template}: {message}");
        assert!(!message.ends_with('.'));
    }
}

#[test]
fn a_template_tells_its_parts() {
    let template = KeyTemplate::parse("{{user}}:{id}:{a|lower}:{a|urlencode}").unwrap();
    assert_eq!(template.leading_literal(), "{user}:");
    assert_eq!(template.lossless_columns(), ["id", "a"]);
    let columns: Vec<&str> = template.columns().map(|(column, _)| column).collect();
    assert_eq!(columns, ["id", "a", "a"]);
    assert_eq!(template.text(), "{{user}}:{id}:{a|lower}:{a|urlencode}");
    assert_eq!(template.to_string(), template.text());
}

#[test]
fn keys_are_rendered() {
    let t = 1_709_210_096_123_456; // 2024-02-29T12:34:56.123456Z
    let cases = [
        ("build:{id}", "build:-7"),
        ("{{b:{id}}}:x", "{b:-7}:x"),
        ("{a|lower}", "strasse ÄÖ".to_lowercase().leak()),
        ("{b|urlencode}:{id}", "x%3Ay%25%C3%A4~:-7"),
        ("{d}/{t}", "2024-02-29/2024-02-29T12:34:56.123456Z"),
        ("{d|date:%Y%m%d-%H}:", "20240229-00:"),
        ("{t|date:%Y-%m-%dT%H:%M:%S %j %%}", "2024-02-29T12:34:56 060 %"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template, Some("Strasse ÄÖ"), "x:y%ä~", t).unwrap(), expected);
    }
}

#[test]
fn rows_without_a_sound_key_are_refused() {
    assert_eq!(render("k:{a}", None, "", 0).unwrap_err(), "key column a is null");
    assert_eq!(
        render("{b}:{id}", None, "x:y", 0).unwrap_err(),
        "key column b contains \":\", the text that follows it in the key; use {b|urlencode}"
    );
    // The literal may begin inside the value.
    assert!(render("{b}::{id}", None, "x:", 0).is_err());
    assert_eq!(render("{b}::{id}", None, "x:y", 0).unwrap(), "x:y::-7");
    // Percent-encoding does not touch unreserved characters.
    assert!(render("{b|urlencode}-{id}", None, "x-y", 0).is_err());
    assert_eq!(render("{b|urlencode}:{id}", None, "x-y:", 0).unwrap(), "x-y%3A:-7");
    // Nothing follows the last placeholder.
    assert_eq!(render("k:{b}", None, "a:b:c", 0).unwrap(), "k:a:b:c");
    for t in [i64::MAX, i64::MIN, -62_135_596_800_000_001, 253_402_300_800_000_000] {
        assert_eq!(
            render("{t|date:%Y}", None, "", t).unwrap_err(),
            "key column t is not a date from year 1 to 9999"
        );
    }
}

#[test]
fn keys_that_do_not_fit_are_not_parsed() {
    let template = KeyTemplate::parse("k:{a}:{b|urlencode}!").unwrap();
    for key in ["", "k:", "x:1:2!", "k:1:2", "k:1:2!!", "k:1:%4!", "k:1:%zz!", "k:1:ä!", "k:1:%41!"]
    {
        assert_eq!(template.parse_key(key.as_bytes()), None, "{key}");
    }
    assert_eq!(template.parse_key(b"k::%3A!"), Some(vec![b"".to_vec(), b":".to_vec()]));
}

#[test]
fn a_template_behind_a_prefix_is_the_one_of_its_text() {
    for (text, prefix) in [("k:{id}", "a:"), ("{{tag}}:{id}", "b{"), ("{a|lower}:{id}", "c}")] {
        let template = KeyTemplate::parse(text).unwrap().behind(prefix);
        assert_eq!(KeyTemplate::parse(template.text()), Ok(template.clone()), "{text}");
        assert!(template.leading_literal().starts_with(prefix), "{template:?}");
    }
}

proptest! {
    #[test]
    fn parse_key_undoes_render(
        a in "[a-c:%|{} ä-]{0,6}",
        b in "\\PC{0,8}",
        literal in prop::sample::select(vec![":", "::", "-", "ab", "%", "{{", ":a:"]),
        is_encoded in any::<bool>(),
    ) {
        let filter = if is_encoded { "|urlencode" } else { "" };
        let text = format!("p{literal}{{a{filter}}}{literal}{{id}}{literal}{{b}}");
        let template = KeyTemplate::parse(&text).unwrap();
        if let Ok(key) = render(&text, Some(&a), &b, 0) {
            let parsed = template.parse_key(key.as_bytes());
            prop_assert_eq!(parsed, Some(vec![a.into_bytes(), b"-7".to_vec(), b.into_bytes()]));
        } else {
            prop_assert!(!is_encoded || !literal.contains([':', '{']), "a reserved literal never fails");
        }
    }

    #[test]
    fn parse_key_never_panics(key in prop::collection::vec(any::<u8>(), 0..40)) {
        let template = KeyTemplate::parse("k{a|urlencode}:{b}x").unwrap();
        template.parse_key(&key);
    }
}
