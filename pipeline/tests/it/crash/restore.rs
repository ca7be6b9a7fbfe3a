//! Restores of BigQuery, killed at every boundary: a table that is gone, and one that lacks rows.
//!
//! Invariant: the duplicate is written by the test, and tables are compared by what REST shows of them.

use super::{Flow, Matrix, Scenario, size};
use crate::lost::Lost;
use crate::restore::lost;
use crate::restore_faults::forget;
use stages::failpoint::Point;
use std::process::Command;

fn command(lost: &Lost, more: &[&str]) -> Command {
    let words = ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "20s"];
    lost.rekindle(&[&words[..], more].concat())
}

#[test]
fn a_restore_survives_a_crash_at_every_boundary() {
    let mut matrix = Matrix::new(Flow::Restore);
    let (whole, _) = lost(size(1_200, 30_000) as usize, false);
    matrix.kill_everywhere(&Scenario {
        name: "whole",
        also: &[],
        reset: &|| whole.lose_again(),
        command: &|| command(&whole, &[]),
        redis_port: whole.redis.port(),
        check: &|| whole.assert_restored(),
    });
    drop(whole);
    let (filled, _) = lost(size(1_200, 30_000) as usize, true);
    filled.restore(&[]).expect(0);
    matrix.kill_everywhere(&Scenario {
        name: "fill",
        also: &[Point::JobRecorded, Point::JobDone, Point::SettingsPutBack, Point::StatusRecorded],
        reset: &|| forget(&filled),
        command: &|| command(&filled, &["--fill"]),
        redis_port: filled.redis.port(),
        check: &|| filled.assert_restored(),
    });
    matrix.assert_documented();
}
