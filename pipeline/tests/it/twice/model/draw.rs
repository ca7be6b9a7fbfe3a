//! What is drawn: values of every plain type in all their forms, tables, and routes over them.
//!
//! Invariant: a text reaches SQL as hex, so that nothing of it means something to SQL or to psql.

use super::{Case, Cell, Column, Conflict, FIXED, Field, KEYS, Layout, Planted, Route, TIMES, V};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;

fn bare(text: &impl ToString, sql_type: &str) -> Cell {
    let text = text.to_string();
    Cell { sql: format!("'{text}'::{sql_type}"), json: text.clone(), text }
}

pub(super) fn quoted(text: &str, sql: String) -> Cell {
    Cell { sql, text: text.to_owned(), json: serde_json::to_string(text).unwrap() }
}

/// The text as hex, so that nothing of it means something to SQL or psql.
fn text(text: &str) -> Cell {
    let hex = text.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    quoted(text, format!("convert_from('\\x{hex}', 'UTF8')"))
}

fn texts() -> impl Strategy<Value = String> {
    let any = any::<String>().prop_map(|text| text.replace('\0', ""));
    prop_oneof![2 => any, 1 => "[a-cA-C:%/{} \\\\\"'äßİ\u{301}]{0,6}", 1 => Just(String::new())]
}

/// A type of PostgreSQL, and values of it.
fn kind() -> impl Strategy<Value = (&'static str, BoxedStrategy<Cell>)> {
    let fixed = |sql_type: &'static str, values: &'static [&'static str]| {
        (sql_type, select(values).prop_map(move |value| bare(&value, sql_type)).boxed())
    };
    let digits = "(-?[1-9][0-9]{0,30}|0)(\\.[0-9]{1,12})?"
        .prop_map(|digits| bare(&digits, "numeric"))
        .boxed();
    let bytes = vec(any::<u8>(), 0..12).prop_map(|bytes| {
        let hex = bytes.iter().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
        quoted(&hex, format!("'{hex}'::bytea"))
    });
    let days = (1..=9999_u32, 1..=12_u32, 1..=28_u32).prop_map(|(year, month, day)| {
        let day = format!("{year:04}-{month:02}-{day:02}");
        quoted(&day, format!("'{day}'::date"))
    });
    let ids = any::<u128>().prop_map(|bits| {
        let id = uuid_text(bits);
        quoted(&id, format!("'{id}'::uuid"))
    });
    let lists = vec(option::of(texts()), 0..4).prop_map(|items| {
        let json = serde_json::to_string(&items).unwrap();
        let sql: Vec<String> = items
            .iter()
            .map(|item| item.as_deref().map_or("null".to_owned(), |item| text(item).sql))
            .collect();
        Cell { sql: format!("array[{}]::text[]", sql.join(", ")), text: json.clone(), json }
    });
    prop_oneof![
        Just(fixed("boolean", &["true", "false"])),
        Just(("integer", any::<i32>().prop_map(|n| bare(&n, "integer")).boxed())),
        Just(("numeric", digits)),
        Just(("text", texts().prop_map(|value| text(&value)).boxed())),
        Just(("bytea", bytes.boxed())),
        Just(("date", days.boxed())),
        Just(("uuid", ids.boxed())),
        Just(fixed(
            "jsonb",
            &["{}", "null", "\"ü\\n\"", "[1, null, 1.50]", "{\"a\": {\"b\": []}}"]
        )),
        Just(("text[]", lists.boxed())),
    ]
}

fn uuid_text(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Draws a table of up to 30 rows and a route of every layout.
pub(in super::super) fn case() -> impl Strategy<Value = Case> {
    let odd = select(vec!["c", "C ", "ü\"", "select"]);
    vec((odd, kind()), 1..5).prop_flat_map(|more| {
        let mut columns: Vec<Column> = FIXED
            .iter()
            .map(|(name, sql_type)| Column { name: (*name).to_owned(), sql_type })
            .collect();
        let mut cells = vec![
            texts().prop_map(|value| text(&value)).boxed(),
            (-3..4_i64).prop_map(|n| bare(&n, "bigint")).boxed(),
            select(&TIMES[..])
                .prop_map(|(at, _)| quoted(at, format!("'{at}'::timestamptz")))
                .boxed(),
        ];
        for (index, (name, (sql_type, values))) in more.into_iter().enumerate() {
            columns.push(Column { name: format!("{name}{index}"), sql_type });
            cells.push(values);
        }
        let row: Vec<_> =
            cells.into_iter().map(|cell| option::weighted(0.8, cell).boxed()).collect();
        let rows = vec((any::<i64>(), row), 0..30);
        let count = columns.len();
        let routes = [Layout::Hash, Layout::Json, Layout::Text].map(|layout| route(layout, count));
        (Just(columns), rows, routes).prop_map(|(columns, rows, routes)| {
            let mut ids = BTreeSet::new();
            let rows = rows.into_iter().filter(|(id, _)| ids.insert(*id));
            let rows = rows.map(|(id, cells)| {
                std::iter::once(Some(bare(&id, "bigint"))).chain(cells).collect()
            });
            Case { columns, rows: rows.collect(), routes: routes.into() }
        })
    })
}

fn route(layout: Layout, columns: usize) -> impl Strategy<Value = Route> {
    let field = prop_oneof![
        4 => (0..columns).prop_map(|column| Field::Column(String::new(), column)),
        1 => texts().prop_map(|value| Field::Constant(String::new(), value)),
    ];
    let conflicts = match layout {
        Layout::Text => vec![Conflict::Replace, Conflict::Keep],
        _ => vec![Conflict::Replace, Conflict::Keep, Conflict::Newest],
    };
    let planted = prop_oneof![
        2 => Just(Planted::Nothing),
        1 => Just(Planted::List),
        2 => (option::of(-3..4_i64), any::<bool>()).prop_map(|(v, dies)| Planted::Entry(v, dies)),
    ];
    let drawn = (
        0..KEYS.len(),
        option::of(vec(field, 1..5)),
        select(vec!["omit", "empty", "error"]),
        select(conflicts),
        0..3_usize,
        vec(planted, 30),
    );
    drawn.prop_map(move |(key, fields, null, conflict, expiry, planted)| {
        let mut fields = fields;
        if layout == Layout::Text {
            fields = Some(vec![Field::Column("value".to_owned(), columns - 1)]);
        } else if let Some(fields) = &mut fields {
            if conflict == Conflict::Newest {
                fields.push(Field::Column(String::new(), V));
            }
            for (index, field) in fields.iter_mut().enumerate() {
                match field {
                    Field::Column(name, _) | Field::Constant(name, _) => {
                        *name = format!("f\"ü {index}");
                    }
                }
            }
        }
        Route { layout, key, fields, null, conflict, expiry, planted }
    })
}
