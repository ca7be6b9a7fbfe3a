//! What is typed is understood, or refused with 2.
//!
//! Invariant: no flag passes that no command honours.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn shared_flags_may_stand_before_and_after_the_command() {
    for line in [
        "rekindle --lanes 8 --route a --route b rebuild redis --fresh",
        "rekindle rebuild redis --fresh --lanes 8 --route a --route b",
    ] {
        let cli = parse(line).unwrap();
        assert_eq!(
            (cli.shared.lanes, cli.shared.routes.join(" ")),
            (Lanes::fixed(8), "a b".to_owned())
        );
        let Command::Rebuild { target: Target::Redis(redis) } = cli.command else {
            panic!("{line}")
        };
        assert!(redis.run.fresh && !redis.run.no_verify);
    }
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    for flags in [
        "--lanes 0",
        "--lanes 65",
        "--deadline 0s",
        "--deadline 1w",
        "--lost-at 2999-01-01T00:00:00Z",
        "--lost-at yesterday",
        "--lost-at 2026-01-31T04:05:06",
        "--progress loud",
        "--log-level =",
        "--strict",
        "--unknown",
    ] {
        let error = parse(&format!("rekindle rebuild redis {flags}")).expect_err(flags);
        assert_eq!(error.exit_code(), 2, "{flags}");
    }
    assert!(parse("rekindle rebuild redis --lost-at 2026-01-31T04:05:06+01:00 --lanes 64").is_ok());
}

#[test]
fn commands_that_are_not_built_are_known_whatever_follows() {
    for line in ["rekindle demo", "rekindle demo --help"] {
        assert_eq!(parse(line).unwrap().command.not_built(), Some("demo"), "{line}");
    }
    assert_eq!(parse("rekindle dril").unwrap_err().exit_code(), 2);
}
