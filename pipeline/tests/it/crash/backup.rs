//! Backups of BigQuery, killed at every boundary: the first one, and one of a table that changed after an unfinished one.
//!
//! Invariant: the duplicate is decoded here block by block, and nothing is left that no manifest lists.

use super::{Flow, Matrix, Scenario, State, killed, size};
use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::world::Ran;
use fixtures::servers::RedisOptions;
use stages::failpoint::Point;
use std::cell::Cell;

#[test]
fn a_backup_survives_a_crash_at_every_boundary() {
    let cloud = Cloud::new(RedisOptions::default(), &format!("{ROUTE}keep_versions = 1\n"));
    cloud.table(DAY_PARTITIONED);
    let rows = size(150, 5_000);
    for day in 1..=4 {
        cloud.insert(day, day * 100_000..day * 100_000 + rows);
    }
    let port = cloud.redis.port();
    let state = State::new();
    let command = || state.of(cloud.command(&Cloud::words(&[])));
    let empty = || {
        cloud.redis.cli(&["FLUSHALL"]).unwrap();
        state.forget();
    };
    let check = || {
        cloud.assert_same("id, name, ts");
        assert_eq!(cloud.strays(), Vec::<String>::new());
    };
    let mut matrix = Matrix::new(Flow::Backup);
    matrix.kill_everywhere(&Scenario {
        name: "first",
        also: &[],
        reset: &empty,
        command: &command,
        redis_port: port,
        check: &check,
    });
    let round = Cell::new(0);
    matrix.kill_everywhere(&Scenario {
        name: "next",
        also: &[Point::TargetClaimed, Point::ManifestPublished, Point::BackupRecorded],
        reset: &|| {
            empty();
            Ran::of(&command().output().unwrap()).expect(0);
            let k = round.replace(round.get() + 1);
            cloud.insert(1 + k % 4, 900_000 + k * 10..900_005 + k * 10);
            killed(command(), Point::BlocksProven, port);
        },
        command: &command,
        redis_port: port,
        check: &check,
    });
    matrix.assert_documented();
}
