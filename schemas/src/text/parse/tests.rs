//! What is read back, and what is not: equivalents, limits, losses.

use super::*;
use arrow::datatypes::i256;

/// Reads every text as the value beside it.
fn check<T: PartialEq + std::fmt::Debug>(read: fn(&[u8]) -> Parsed<T>, cases: &[(&str, T)]) {
    for (text, value) in cases {
        assert_eq!(read(text.as_bytes()).as_ref(), Ok(value), "{text}");
    }
}

/// Refuses every text.
fn refuse<T: std::fmt::Debug>(read: fn(&[u8]) -> Parsed<T>, texts: &[&str]) {
    for text in texts {
        let refused = read(text.as_bytes());
        assert!(refused.is_err(), "{text:?} was read as {refused:?}");
    }
}

#[test]
fn booleans_and_integers() {
    check(boolean, &[("true", true), ("False", false), ("1", true), ("0", false)]);
    refuse(boolean, &["", "yes", "t", "true ", "01"]);
    check(
        int8,
        &[
            ("0", 0),
            ("-0", 0),
            ("+7", 7),
            ("007", 7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("-0000000000000000000000009223372036854775808", i64::MIN),
        ],
    );
    let beyond = ["9223372036854775808", "-9223372036854775809", "99999999999999999999999"];
    refuse(int8, &beyond);
    refuse(int8, &["", "-", "+", "--1", "1.0", "1e3", " 1", "1_000", "0x1", "１"]);
}

#[test]
fn floats_are_the_nearest_and_never_overflow_or_vanish() {
    check(
        float8,
        &[
            ("1.5", 1.5),
            ("1e+20", 1e20),
            ("5e-324", f64::from_bits(1)),
            ("1.7976931348623157e+308", f64::MAX),
            ("Infinity", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("0.1000000000000000055511151231257827", 0.1),
            ("0e999", 0.0),
        ],
    );
    assert_eq!(float8(b"-0").unwrap().to_bits(), (-0.0_f64).to_bits());
    for nan in ["NaN", "nan", "-NaN"] {
        assert_eq!(float8(nan.as_bytes()).unwrap().to_bits(), f64::NAN.to_bits(), "{nan}");
    }
    refuse(float8, &["1e999", "-1e309", "1e-999", "0.0000e", "", ".", "1,5", "1 ", "0x10"]);
}

#[test]
fn decimals_take_any_spelling_of_their_value_and_lose_nothing() {
    let most = 10_i128.pow(38) - 1;
    check(
        decimal128,
        &[
            ("1.1", 1_100_000_000),
            ("+1.100", 1_100_000_000),
            ("01.1000000000000", 1_100_000_000),
            (".5", 500_000_000),
            ("5.", 5_000_000_000),
            ("-0.000000001", -1),
            ("-0.0", 0),
            ("0e99999999999", 0),
            ("1.5E+3", 1_500_000_000_000),
            ("10e-10", 1),
            ("99999999999999999999999999999.999999999", most),
            ("-99999999999999999999999999999.999999999", -most),
            ("0.00000000000000000000000000000000000000000000001e46", 100_000_000),
        ],
    );
    refuse(decimal128, &["0.0000000001", "15e-10", "1e-99999999999999999"]);
    refuse(decimal128, &["100000000000000000000000000000", "1e29", "1e99999999999999999"]);
    refuse(
        decimal128,
        &["", "-", ".", "e5", "1e", "1.2.3", "NaN", "1 ", "--1", "1e1.5", "1e99999999999999999999"],
    );
    let text = |text: &str| i256::from_string(text).unwrap();
    check(
        decimal256,
        &[
            (
                "-578960446186580977117854925043439539266.34992332820282019728792003956564819968",
                i256::MIN,
            ),
            (
                "578960446186580977117854925043439539266.34992332820282019728792003956564819967",
                i256::MAX,
            ),
            ("0.00000000000000000000000000000000000001", i256::ONE),
            ("-0.5", text("-50000000000000000000000000000000000000")),
            ("1e-38", i256::ONE),
        ],
    );
    refuse(
        decimal256,
        &[
            "578960446186580977117854925043439539266.34992332820282019728792003956564819968",
            "1e39",
            "0.000000000000000000000000000000000000001",
            "1e-39",
        ],
    );
    let shifted = format!("0.{}1e2000", "0".repeat(995));
    refuse(decimal256, &[&shifted]);
    let long = format!("1{}", "0".repeat(1_000));
    refuse(decimal256, &[&long]);
    let zeros = format!("{}1.5{}", "0".repeat(1_000), "0".repeat(1_000));
    check(decimal128, &[(&zeros, 1_500_000_000)]);
}

#[test]
fn base64_is_read_as_it_is_written_only() {
    let read = |text: &str| {
        let mut out = b"before".to_vec();
        base64(text.as_bytes(), &mut out).map(|()| out.split_off(6))
    };
    for (text, bytes) in [
        ("", &b""[..]),
        ("Zg==", b"f"),
        ("Zm8=", b"fo"),
        ("Zm9vYmFy", b"foobar"),
        ("+//+", &[0xfb, 0xff, 0xfe]),
    ] {
        assert_eq!(read(text).as_deref(), Ok(bytes), "{text}");
    }
    for text in ["Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "====", "Z===", "Zm 9", "-__-", "Zg==Zg=="] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn dates_and_times_exist_and_keep_their_microseconds() {
    check(
        date,
        &[
            ("1970-01-01", 0),
            ("0001-01-01", -719_162),
            ("9999-12-31", 2_932_896),
            ("2024-02-29", 19_782),
        ],
    );
    refuse(
        date,
        &["", "2023-02-29", "1900-02-29", "0000-01-01", "10000-01-01", "2024-13-01", "2024-00-01"],
    );
    refuse(
        date,
        &["2024-01-00", "2024-01-32", "2024-1-1", "0044-03-15 BC", "infinity", "2024/01/01"],
    );
    check(
        time,
        &[
            ("00:00:00", 0),
            ("23:59:59.999999", 86_399_999_999),
            ("01:02:03.5", 3_723_500_000),
            ("01:02:03.500000000", 3_723_500_000),
        ],
    );
    refuse(
        time,
        &["24:00:00", "12:60:00", "12:00:60", "12:00:00.", "12:00:00.0000001", "12:00", "1:00:00"],
    );
    check(
        datetime,
        &[
            ("1970-01-02T00:00:00.000001", 86_400_000_001),
            ("1970-01-02 00:00:00.000001", 86_400_000_001),
        ],
    );
    refuse(
        datetime,
        &["1970-01-02", "1970-01-02T00:00:00Z", "1970-01-02_00:00:00", "é970-01-02T00:00:00"],
    );
    check(
        timestamp,
        &[
            ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
            ("1970-01-01 00:00:01+00:00", 1_000_000),
            ("1970-01-01T00:00:01.5+00", 1_500_000),
            ("1970-01-01 00:00:01 UTC", 1_000_000),
        ],
    );
    refuse(
        timestamp,
        &["1970-01-01T00:00:00", "1970-01-01T00:00:00+01:00", "1970-01-01T00:00:00-00:00"],
    );
    refuse(timestamp, &["Z", "", "-infinity", "1970-01-01T00:00:00.0000001Z"]);
}

#[test]
fn intervals_stay_within_bigquery() {
    let of = |months, days, nanoseconds| arrow::datatypes::IntervalMonthDayNano {
        months,
        days,
        nanoseconds,
    };
    check(
        interval,
        &[
            ("0-0 0 0:0:0", of(0, 0, 0)),
            ("-1-2 3 -4:5:6.789", of(-14, 3, -14_706_789_000_000)),
            ("-0-1 -0 00:00:00.000000001", of(-1, 0, 1)),
            ("10000-0 3660000 87840:0:0", of(120_000, 3_660_000, 316_224_000_000_000_000)),
        ],
    );
    refuse(interval, &["10000-1 0 0:0:0", "0-0 3660001 0:0:0", "0-0 0 87840:0:0.000001"]);
    refuse(
        interval,
        &[
            "",
            "0-12 0 0:0:0",
            "0-0 0 0:60:0",
            "0-0 0 0:0:60",
            "0-0 0:0:0",
            "0-0 0 0:0:0.0000000001",
        ],
    );
}
