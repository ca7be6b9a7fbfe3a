//! The documented table of crashes: one row per point, one column per flow, written by the tests that find it out.
//!
//! Invariant: the file says what the tests found, or they fail; `REKINDLE_CRASHES=write` lets them write it.

use super::Cell;
use stages::failpoint::Point;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What is killed; each is a column.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flow {
    AlloyDb,
    BigQuery,
    Backup,
    Restore,
    ToArchive,
    FromArchive,
    RebuildFromArchive,
}

const COLUMNS: usize = 7;
const NEVER: &str = "–";
const HEAD: &str = "# Crashes

The program is killed (SIGKILL) at each of these points, at its first passing and at one in the middle, the same command
is typed again, and what it leaves is compared with what an uninterrupted run leaves: key by key, row by row.
In every cell it was the same. A cell says what the second command did, and in which scenario it was tried:
*resumed* the run that was killed, began *a new run*, or *refused*, because what it would write is there already.
A dash: the flow does not pass this point. `REKINDLE_SOAK=1` tries more passings, larger tables, and a second kill.

Written by the tests: `REKINDLE_CRASHES=write cargo nextest run --workspace --release -E 'test(crash)'`.
To be killed at the N-th passing of a point: `REKINDLE_FAILPOINT=NAME:N`.

| Point | There and then | rebuild from AlloyDB | rebuild from BigQuery | backup | restore | backup to the archive | restore from the archive | rebuild from the archive |
|---|---|---|---|---|---|---|---|---|
";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/CRASHES.md")
}

/// The cells of the file, by name of the point.
fn read(text: &str) -> BTreeMap<String, Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), COLUMNS + 2, "{row}");
        let name = cells[0].trim_matches('`').to_owned();
        (name, cells[2..].iter().map(|cell| (*cell).to_owned()).collect())
    })
    .collect()
}

fn render(cells: &BTreeMap<String, Vec<String>>) -> String {
    let row = |point: &Point| {
        let empty = vec![NEVER.to_owned(); COLUMNS];
        let cells = cells.get(point.name()).unwrap_or(&empty).join(" | ");
        format!("| `{}` | {} | {cells} |\n", point.name(), point.durable())
    };
    std::iter::once(HEAD.to_owned()).chain(Point::ALL.iter().map(row)).collect()
}

fn told(cell: Option<&Cell>) -> String {
    let Some(cell) = cell else { return NEVER.to_owned() };
    let told = cell.iter().map(|(did, scenarios)| format!("{did} ({})", scenarios.join(", ")));
    told.collect::<Vec<_>>().join("; ")
}

/// Asserts that a column of the file says this, and writes it where that is asked for.
pub(super) fn assert_column(flow: Flow, found: &BTreeMap<Point, Cell>) {
    let is_written = std::env::var("REKINDLE_CRASHES").is_ok_and(|value| value == "write");
    let lock = File::options().create(true).append(true).open(path()).unwrap();
    lock.lock().unwrap();
    let text = fs::read_to_string(path()).unwrap();
    let mut cells = read(&text);
    for point in Point::ALL {
        let row = cells.entry(point.name().to_owned());
        row.or_insert_with(|| vec![NEVER.to_owned(); COLUMNS])[flow as usize] =
            told(found.get(point));
    }
    let expected = render(&cells);
    if is_written {
        fs::write(path(), expected).unwrap();
        return;
    }
    let differing: Vec<(&str, &str)> =
        text.lines().zip(expected.lines()).filter(|(old, new)| old != new).collect();
    assert!(text == expected, "fixtures/CRASHES.md says otherwise: {differing:#?}");
}

#[test]
fn every_point_is_passed_by_some_flow() {
    let text = fs::read_to_string(path()).unwrap();
    let cells = read(&text);
    let never = |point: &&Point| {
        cells.get(point.name()).is_none_or(|cells| cells.iter().all(|cell| cell == NEVER))
    };
    let never: Vec<&Point> = Point::ALL.iter().filter(never).collect();
    assert!(never.is_empty(), "no test is killed at {never:?}");
    assert_eq!(cells.len(), Point::ALL.len());
}
