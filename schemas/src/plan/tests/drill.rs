//! `[drill]`: what it takes, and every mistake with its place.

use super::json_schema::Validator;
use super::{MINIMAL, mistakes, parse};

fn with(lines: &str) -> String {
    format!("{MINIMAL}[drill]\n{lines}\n")
}

#[test]
fn one_target_is_enough_and_both_are_kept() {
    assert_eq!(parse(MINIMAL).unwrap().drill, None);
    let both = with("redis = \"redis://scratch:6380/1\"\ndataset = \"rekindle_drill\"");
    let drill = parse(&both).unwrap().drill.unwrap();
    assert_eq!(drill.redis.unwrap().0, "redis://scratch:6380/1");
    assert_eq!(drill.dataset.as_deref(), Some("rekindle_drill"));
    let validator = Validator::new();
    assert_eq!(validator.check(&both), Ok(()));
    for one in ["redis = \"redis://scratch\"", "dataset = \"d\""] {
        assert!(parse(&with(one)).is_ok(), "{one}");
        assert_eq!(validator.check(&with(one)), Ok(()), "{one}");
    }
}

#[test]
fn mistakes_are_named_and_invalid_by_the_schema_too() {
    let validator = Validator::new();
    for (lines, told) in [
        ("", "line 11: drill: needs \"redis\", \"dataset\" or both"),
        ("redis = \"http://h\"", "line 12: drill.redis: must start with redis:// or rediss://"),
        (
            "dataset = \"a-b\"",
            "line 12: drill.dataset: must be a dataset's name: letters, digits and underscores",
        ),
        ("redis = 3", "line 12: drill.redis: expected a string, found an integer"),
        (
            "redis = \"redis://h\"\ndatset = \"d\"",
            "line 13: drill: unknown field \"datset\", did you mean \"dataset\"?",
        ),
    ] {
        assert_eq!(mistakes(&with(lines)), told);
        assert!(validator.check(&with(lines)).is_err(), "{lines}");
    }
}
