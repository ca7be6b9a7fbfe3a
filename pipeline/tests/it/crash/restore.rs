//! Restores of BigQuery, killed at every boundary: a table that is gone, and one that lacks rows.
//!
//! Invariant: the duplicate is written by the test, and tables are compared by what REST shows of them.

use super::{Flow, Matrix, Scenario, State, size};
use crate::lost::Lost;
use crate::restore::lost;
use crate::restore_faults::forget;
use stages::failpoint::Point;
use std::process::Command;

fn command(lost: &Lost, state: &State, more: &[&str]) -> Command {
    let words = ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "20s"];
    state.of(lost.rekindle(&[&words[..], more].concat()))
}

#[test]
fn a_restore_survives_a_crash_at_every_boundary() {
    let state = State::new();
    let mut matrix = Matrix::new(Flow::Restore);
    let (whole, _) = lost(size(1_200, 30_000) as usize, false);
    matrix.kill_everywhere(&Scenario {
        name: "whole",
        also: &[],
        reset: &|| {
            state.forget();
            whole.lose_again();
        },
        command: &|| command(&whole, &state, &[]),
        redis_port: whole.redis.port(),
        check: &|| whole.assert_restored(),
    });
    drop(whole);
    let (filled, _) = lost(size(1_200, 30_000) as usize, true);
    filled.restore(&[]).expect(0);
    matrix.kill_everywhere(&Scenario {
        name: "fill",
        also: &[Point::JobRecorded, Point::JobDone, Point::SettingsPutBack, Point::StatusRecorded],
        reset: &|| {
            state.forget();
            forget(&filled);
        },
        command: &|| command(&filled, &state, &["--fill"]),
        redis_port: filled.redis.port(),
        check: &|| filled.assert_restored(),
    });
    matrix.assert_documented();
}
