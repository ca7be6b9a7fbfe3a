//! Versions: one order, whichever form they come in.

use super::{OLDEST, Stored, VersionKind};
use crate::bind::BoundRoute;
use crate::bind::tests::{route, schema};
use crate::plan::{Layout, OnConflict};
use crate::text::{write_date, write_timestamp};
use crate::type_map::ColumnType;
use proptest::prelude::*;

const KINDS: [VersionKind; 4] =
    [VersionKind::Integer, VersionKind::Date, VersionKind::Timestamp, VersionKind::TimestampTz];

/// The canonical text of a row's version, as a route writes it.
fn canonical(kind: VersionKind, version: i64) -> Vec<u8> {
    let mut text = Vec::new();
    match kind {
        VersionKind::Integer => text.extend_from_slice(version.to_string().as_bytes()),
        VersionKind::Date => {
            let days = match version {
                i64::MAX => i32::MAX,
                OLDEST => i32::MIN,
                days => i32::try_from(days).unwrap(),
            };
            write_date(days, &mut text);
        }
        VersionKind::Timestamp => write_timestamp(version, false, &mut text),
        VersionKind::TimestampTz => write_timestamp(version, true, &mut text),
    }
    text
}

fn digits(kind: VersionKind, version: i64) -> Vec<u8> {
    let mut out = Vec::new();
    kind.write_digits(version, &mut out);
    out
}

/// Versions that PostgreSQL has: its timestamps end in 294276, its dates in 5874897; both begin in 4713 BC.
fn version(kind: VersionKind) -> BoxedStrategy<i64> {
    let range = match kind {
        VersionKind::Integer => return prop_oneof![any::<i64>(), -20..20_i64].boxed(),
        VersionKind::Date => -2_440_588..2_145_031_948_i64,
        VersionKind::Timestamp | VersionKind::TimestampTz => {
            -210_866_803_200_000_000..9_214_646_400_000_000_000_i64
        }
    };
    // Days or microseconds around 1970, which hardly ever meet otherwise.
    let near = -1_000_000..1_000_000_i64;
    prop_oneof![8 => range, 2 => near, 1 => Just(i64::MAX), 1 => Just(OLDEST)].boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn digits_and_texts_have_the_order_of_the_ranks(
        (kind, one, other) in prop::sample::select(&KINDS[..])
            .prop_flat_map(|kind| (Just(kind), version(kind), version(kind))),
    ) {
        let ranks = (kind.rank(one), kind.rank(other));
        prop_assert_eq!(digits(kind, one).cmp(&digits(kind, other)), ranks.0.cmp(&ranks.1));
        prop_assert!(digits(kind, one).iter().all(u8::is_ascii_digit));
        // The smallest integer is the one text that ranks above its own row.
        if !(kind == VersionKind::Integer && one == OLDEST) {
            prop_assert_eq!(Stored::of(kind, &canonical(kind, one)), Stored::At(ranks.0));
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,40}|[0-9:TZ+. BC-]{0,40}") {
        for kind in KINDS {
            let _read = Stored::of(kind, text.as_bytes());
        }
    }
}

#[test]
fn what_applications_write_ranks_with_the_row_and_what_is_not_exact_is_unreadable() {
    let same = |kind: VersionKind, row: i64, texts: &[&str]| {
        for text in texts {
            let read = Stored::of(kind, text.as_bytes());
            assert_eq!(read, Stored::At(kind.rank(row)), "{text}");
        }
    };
    let unreadable = |kind, texts: &[&str]| {
        for text in texts {
            assert_eq!(Stored::of(kind, text.as_bytes()), Stored::Unreadable, "{text}");
        }
    };
    same(VersionKind::Integer, 7, &["7", "+7", "007"]);
    same(VersionKind::Integer, 0, &["0", "-0", "000"]);
    same(VersionKind::Integer, i64::MAX, &["9223372036854775807", "+009223372036854775807"]);
    let no_integers =
        ["9223372036854775808", "-9223372036854775809", "1.0", "1e3", "", "+", " 1", "0x1", "true"];
    assert_eq!(Stored::of(VersionKind::Integer, b""), Stored::Nothing);
    unreadable(
        VersionKind::Integer,
        &no_integers.map(|text| if text.is_empty() { "-" } else { text }),
    );
    let us = 1_709_161_198_120_000;
    same(
        VersionKind::TimestampTz,
        us,
        &[
            "2024-02-28T22:59:58.12Z",
            "2024-02-28T22:59:58.120000Z",
            "2024-02-28 22:59:58.120+00",
            "2024-02-28t22:59:58.1200000000+00:00",
            "2024-02-28 22:59:58.12 UTC",
            "2024-02-28 22:59:58.12z",
        ],
    );
    unreadable(
        VersionKind::TimestampTz,
        &[
            "2024-02-28T22:59:58.12",
            "2024-02-28T22:59:58.12+01:00",
            "2024-02-28T22:59:58.1200001Z",
            "2024-02-30T22:59:58Z",
            "2023-02-29T22:59:58Z",
            "2024-02-28T24:00:00Z",
            "2024-02-28T22:59:58.Z",
            "2024-02-28Z",
            "0000-02-28T22:59:58Z",
            "12345678-02-28T22:59:58Z",
            "1709161198",
        ],
    );
    same(VersionKind::Timestamp, us, &["2024-02-28T22:59:58.12", "2024-02-28 22:59:58.120000"]);
    unreadable(VersionKind::Timestamp, &["2024-02-28T22:59:58Z", "2024-02-28"]);
    same(VersionKind::Date, 19_781, &["2024-02-28"]);
    unreadable(VersionKind::Date, &["2024-02-28T00:00:00", "2024-2-28", "24-02-28"]);
}

#[test]
fn the_version_of_a_stored_value_is_that_of_its_field() {
    let mut route = route("k:{id}", Layout::Hash);
    (route.on_conflict, route.version_by) = (OnConflict::Newest, Some("v".into()));
    let table = schema(&[("id", ColumnType::Int8), ("v", ColumnType::Int8)], &[&["id"]]);
    let bound = BoundRoute::bind(&route, table).unwrap();
    let at = |number: i64| Stored::At(VersionKind::Integer.rank(number));
    let hash = |pairs: &[(&str, &str)]| {
        Stored::in_hash(
            &bound,
            pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
    };
    assert_eq!(hash(&[("name", "1"), ("v", "5")]), at(5));
    assert_eq!(hash(&[("name", "1"), ("v", "")]), Stored::Nothing);
    assert_eq!(hash(&[("name", "1")]), Stored::Nothing);
    assert_eq!(hash(&[("v", "five")]), Stored::Unreadable);
    for (text, expected) in [
        (r#"{"v":5}"#, at(5)),
        (r#" { "a" : {"v":6,"w":["}",{}]} , "v" : "5" , "b" : null } "#, at(5)),
        (r#"{"v":4,"v":5}"#, at(5)),
        (r#"{"\u0076":5}"#, at(5)),
        (r#"{"v":null}"#, Stored::Nothing),
        (r#"{"v":""}"#, Stored::Nothing),
        (r#"{"a":{"v":5}}"#, Stored::Nothing),
        (r#"["v",5]"#, Stored::Nothing),
        ("5", Stored::Nothing),
        ("", Stored::Nothing),
        (r#"{"v":5.0}"#, Stored::Unreadable),
        (r#"{"v":[5]}"#, Stored::Unreadable),
        (r#"{"v":true}"#, Stored::Unreadable),
        (r#"{"v":9007199254740993}"#, at(9_007_199_254_740_993)),
    ] {
        assert_eq!(Stored::in_json(&bound, text.as_bytes()), expected, "{text}");
    }
}
