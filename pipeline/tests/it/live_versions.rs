//! The script that compares versions on the server, against the reference in Rust.
//!
//! Invariant: for every stored text and every row, the script writes exactly where the reference says that the row is
//! not older.

use crate::items::{Reply, Wire, random};
use fixtures::servers::{Redis, RedisOptions};
use schemas::version::{OLDEST, Stored, VersionKind};
use schemas::{BoundRoute, Column, ColumnType, Plan, TableSchema};
use serde_json::json;
use stages::transform::redis_command::{NEWEST_SCRIPT, NEWEST_SHA1};
use std::hash::{BuildHasher, RandomState};

const KINDS: [(VersionKind, ColumnType); 4] = [
    (VersionKind::Integer, ColumnType::Int8),
    (VersionKind::Date, ColumnType::Date),
    (VersionKind::Timestamp, ColumnType::Timestamp),
    (VersionKind::TimestampTz, ColumnType::TimestampTz),
];

/// What may be stored: canonical forms, what applications write, and what is nearly one of them.
const TEXTS: [&str; 78] = [
    "",
    "0",
    "-0",
    "+0",
    "1",
    "-1",
    "7",
    "007",
    "+7",
    "-7",
    "10",
    "9",
    "-9",
    "-10",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775809",
    "00000000000000000000000007",
    "99999999999999999999",
    "1.0",
    "1e3",
    "0x7",
    " 7",
    "7 ",
    "seven",
    "true",
    "null",
    "-",
    "+",
    "infinity",
    "-infinity",
    "Infinity",
    "infinity BC",
    "1970-01-01",
    "1969-12-31",
    "2024-02-29",
    "2023-02-29",
    "2100-02-29",
    "2000-02-29",
    "0001-01-01",
    "0001-12-31 BC",
    "0044-03-15 BC",
    "0005-02-29 BC",
    "0004-02-29 BC",
    "4713-01-01 BC",
    "5001-01-01 BC",
    "0000-01-01",
    "10000-01-01",
    "294247-01-10",
    "5874897-12-31",
    "9994999-12-31",
    "9995000-01-01",
    "12345678-01-01",
    "2024-13-01",
    "2024-04-31",
    "2024-00-10",
    "2024-04-00",
    "24-04-01",
    "2024-02-28T22:59:58",
    "2024-02-28T22:59:58Z",
    "2024-02-28 22:59:58.1z",
    "2024-02-28t22:59:58.12+00",
    "2024-02-28 22:59:58.123456+00:00",
    "2024-02-28 22:59:58.1234560 UTC",
    "2024-02-28T22:59:58.1234561Z",
    "2024-02-28T22:59:58.Z",
    "2024-02-28T22:59:58+01:00",
    "2024-02-28T24:00:00Z",
    "2024-02-28T23:60:00Z",
    "0044-03-15T12:00:00Z BC",
    "0044-03-15T12:00:00 BC",
    "2024-02-28T22:59:60Z",
];

/// Rows to compare them with.
fn rows(kind: VersionKind) -> Vec<i64> {
    let near: &[i64] = match kind {
        VersionKind::Integer => &[
            0,
            1,
            -1,
            7,
            -7,
            10,
            -10,
            9_007_199_254_740_992,
            9_007_199_254_740_993,
            i64::MAX,
            i64::MAX - 1,
            i64::MIN + 1,
        ],
        VersionKind::Date => {
            &[0, -1, 19_782, 10_957 + 59, -719_162, -735_160, 2_145_031_948, i64::MAX]
        }
        VersionKind::Timestamp | VersionKind::TimestampTz => &[
            0,
            -1,
            1,
            1_709_161_198_000_000,
            1_709_161_198_100_000,
            1_709_161_198_120_000,
            1_709_161_198_123_456,
            1_709_161_198_123_457,
            -63_517_780_800_000_000,
            i64::MAX,
        ],
    };
    near.iter().copied().chain([OLDEST]).collect()
}

/// A route with version `v` of a type, which only a JSON object is read by.
fn route(column_type: &ColumnType) -> BoundRoute {
    let text = "[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"r\"\n\
        table = \"alloydb:t\"\nkey = \"k:{id}\"\ntype = \"json\"\non_conflict = \"newest\"\nversion_by = \"v\"\n";
    let plan = Plan::parse(text, &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
    let column = |name: &str, column_type: &ColumnType| Column {
        name: name.into(),
        column_type: column_type.clone(),
        source_type: column_type.name(),
        as_text: false,
    };
    let columns = vec![column("id", &ColumnType::Int8), column("v", column_type)];
    let table = TableSchema { table: "t".into(), columns, unique_keys: vec![vec!["id".into()]] };
    BoundRoute::bind(&plan.routes[0], table).unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One question: what is stored, the commands that store it, and the row that comes.
struct Case {
    told: String,
    stored: Stored,
    layout: char,
    store: Vec<String>,
    row: i64,
}

/// Rows that one call of the script takes, as a batch sends them.
const ROWS_PER_CALL: usize = 32;

fn ask(wire: &mut Wire, kind: VersionKind, cases: &[Case]) {
    for layout in ['h', 'j'] {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.layout == layout).collect();
        for cases in cases.chunks(ROWS_PER_CALL) {
            ask_once(wire, kind, layout, cases);
        }
    }
}

/// Puts what is stored under a key per case, and runs the script once over all of them.
fn ask_once(wire: &mut Wire, kind: VersionKind, layout: char, cases: &[&Case]) {
    let mut commands = Vec::new();
    let keys: Vec<String> = (0..cases.len()).map(|number| format!("k{number}")).collect();
    let mut eval = words(&["EVALSHA", NEWEST_SHA1, &cases.len().to_string()]);
    eval.extend(keys.iter().cloned());
    eval.extend([format!("{layout}{}", char::from(kind.letter())), "v".to_owned()]);
    for (case, key) in cases.iter().zip(&keys) {
        let mut digits = Vec::new();
        kind.write_digits(case.row, &mut digits);
        commands.push(words(&["DEL", key]));
        let mut store = case.store.clone();
        store.iter_mut().filter(|word| *word == "k").for_each(|word| word.clone_from(key));
        commands.push(store);
        eval.extend([String::from_utf8(digits).unwrap(), "0".to_owned()]);
        eval.extend(if layout == 'h' { words(&["2", "v", "new"]) } else { words(&["1", "new"]) });
    }
    commands.push(eval);
    for key in &keys {
        commands.push(if layout == 'h' {
            words(&["HGET", key, "v"])
        } else {
            words(&["GET", key])
        });
    }
    let mut replies = wire.pipeline(&commands).into_iter().skip(2 * cases.len());
    let answer = replies.next().unwrap();
    let mut kept = 0;
    for (case, left) in cases.iter().zip(replies) {
        let writes = match case.stored {
            Stored::Nothing => true,
            Stored::Unreadable => false,
            Stored::At(rank) => rank <= kind.rank(case.row),
        };
        kept += i64::from(!writes);
        let Case { told, row, stored, .. } = case;
        let is_new = matches!(&left, Reply::Text(Some(text)) if text == "new");
        assert_eq!(
            is_new, writes,
            "{kind:?}: {told} against {row} left {left:?}, reference {stored:?}"
        );
    }
    assert!(
        matches!(answer, Reply::Number(number) if number == -1 - kept),
        "{kind:?}: {answer:?} where {kept} rows are kept"
    );
}

/// Every text as a hash field, as a JSON string, and bare where JSON has such a value.
fn cases_of(bound: &BoundRoute, kind: VersionKind, texts: &[String], rows: &[i64]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (text, row) in texts.iter().flat_map(|text| rows.iter().map(move |row| (text, *row))) {
        cases.push(Case {
            told: format!("hash {text:?}"),
            stored: Stored::of(kind, text.as_bytes()),
            layout: 'h',
            store: words(&["HSET", "k", "v", text, "other", "1"]),
            row,
        });
        let mut objects =
            vec![json!({"a": [{"v": 1}, "}\\\"v\":"], "v": text, "b": {}}).to_string()];
        if serde_json::from_str::<serde_json::Value>(text).is_ok() {
            objects.push(format!("{{ \"v\" : {text} }} "));
        }
        for object in objects {
            cases.push(Case {
                stored: Stored::in_json(bound, object.as_bytes()),
                layout: 'j',
                store: words(&["SET", "k", &object]),
                told: format!("json {object}"),
                row,
            });
        }
    }
    cases
}

#[test]
fn the_script_decides_as_the_reference_for_every_form() {
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let mut wire = Wire::to(redis.port());
    let sha1 = wire.ask(&["SCRIPT", "LOAD", NEWEST_SCRIPT]).text().unwrap();
    assert_eq!(sha1, NEWEST_SHA1, "the text of the script and its SHA-1 differ");
    let mut seed = RandomState::new().hash_one(());
    println!("seed {seed}");
    for (kind, column_type) in KINDS {
        let bound = route(&column_type);
        let mut texts: Vec<String> = TEXTS.map(str::to_owned).to_vec();
        // Texts that are nearly versions: one byte of another one changed, left out, or doubled.
        for _ in 0..400 {
            let mut text =
                texts[usize::try_from(random(&mut seed, TEXTS.len() as u64)).unwrap()].clone();
            let at = usize::try_from(random(&mut seed, text.len().max(1) as u64)).unwrap();
            let put = ["", "0", "9", "-", "+", ":", ".", " ", "T", "Z"];
            let put = put[usize::try_from(random(&mut seed, 10)).unwrap()];
            text.replace_range(at..(at + 1).min(text.len()), put);
            texts.push(text);
        }
        let cases = cases_of(&bound, kind, &texts, &rows(kind));
        println!("{kind:?}: {} cases", cases.len());
        for cases in cases.chunks(1_000) {
            ask(&mut wire, kind, cases);
        }
    }
}

#[test]
fn keys_without_a_version_or_of_another_type_give_way() {
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let mut wire = Wire::to(redis.port());
    wire.ask(&["SCRIPT", "LOAD", NEWEST_SCRIPT]);
    let kind = VersionKind::Integer;
    let stores: [(char, &[&str]); 10] = [
        ('h', &["PING"]),
        ('h', &["SET", "k", "{\"v\":9}"]),
        ('h', &["RPUSH", "k", "9"]),
        ('h', &["HSET", "k", "other", "9"]),
        ('j', &["PING"]),
        ('j', &["HSET", "k", "v", "9"]),
        ('j', &["ZADD", "k", "9", "v"]),
        ('j', &["SET", "k", "9"]),
        ('j', &["SET", "k", "{\"w\":9}"]),
        ('j', &["SET", "k", "{\"v\":null}"]),
    ];
    for row in [1, OLDEST] {
        let cases: Vec<Case> = stores
            .iter()
            .map(|(layout, store)| Case {
                told: format!("{store:?}"),
                stored: Stored::Nothing,
                layout: *layout,
                store: words(store),
                row,
            })
            .collect();
        ask(&mut wire, kind, &cases);
    }
}
