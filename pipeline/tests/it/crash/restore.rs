//! Restores of BigQuery, killed at every boundary: a table that is gone, one that lacks rows, and one whose
//! rows an application keeps.
//!
//! Invariant: the duplicate is written by the test, and tables are compared by what REST shows of them.

use super::{Flow, Matrix, Scenario, State, size};
use crate::app_logs::{HASHES, Logs};
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
        also: &[
            Point::JobRecorded,
            Point::JobDone,
            Point::SettingsPutBack,
            Point::StagingDropped,
            Point::StatusRecorded,
        ],
        reset: &|| {
            state.forget();
            forget(&filled);
        },
        command: &|| command(&filled, &state, &["--fill"]),
        redis_port: filled.redis.port(),
        check: &|| filled.assert_restored(),
    });
    drop(filled);
    rows(&mut matrix, &state);
    matrix.assert_documented();
}

/// Rows that an application keeps one by one.
fn rows(matrix: &mut Matrix, state: &State) {
    let logs = Logs::plain(HASHES);
    logs.cloud.insert(1, 0..size(1_000, 20_000));
    logs.rebuild().expect(0);
    logs.cloud.backup(&[]).expect(0);
    let original = logs.rows();
    let words = ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "20s"];
    matrix.kill_everywhere(&Scenario {
        name: "rows",
        also: &[Point::StageRecorded, Point::StreamsRecorded, Point::StreamFinalized],
        reset: &|| {
            state.forget();
            logs.lose();
        },
        command: &|| state.of(logs.cloud.command(&words)),
        redis_port: logs.cloud.redis.port(),
        check: &|| logs.assert_restored(&original),
    });
}
