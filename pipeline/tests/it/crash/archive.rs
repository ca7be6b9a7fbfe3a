//! The archive, killed at every boundary: backups into it, restores of BigQuery from it, rebuilds of Redis from it.
//!
//! Invariant: its files are read here by the parquet crate and the manifests alone, what a restore leaves is compared by
//! queries of the stand-in, and what Redis must hold is made from the numbers that the rows are made from.

use super::{Flow, Held, Matrix, Scenario, State, assert_held, held, killed, size};
use crate::archive::{backup, files, in_folder, section, tables};
use crate::archive_rebuild::ROUTES;
use crate::cloud::Cloud;
use crate::world::Ran;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::manifest::{Manifest, Run};
use stages::failpoint::Point;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const DAYS: u32 = 4;

/// A table with rows of some days, and a plan with an archive of one version.
fn with_rows(rows: u32, routes: &str) -> (Cloud, PathBuf) {
    let (cloud, folder) = in_folder("");
    cloud.plan(&format!("{}keep_versions = 1\n{routes}", section(&folder, "")));
    for day in 1..=DAYS {
        cloud.insert(day, day * 100_000..day * 100_000 + rows);
    }
    (cloud, folder)
}

/// The text of a document: the file with the highest number.
fn document(folder: &Path) -> Vec<u8> {
    fs::read(files(folder).pop().unwrap()).unwrap()
}

/// The rows of a file as `id|name|ts`.
fn lines_of(rows: &RecordBatch, lines: &mut Vec<String>) {
    let column = |name: &str| rows.column_by_name(name).unwrap();
    let (ids, names) =
        (column("id").as_primitive::<Int64Type>(), column("name").as_string::<i32>());
    let times = column("ts").as_primitive::<TimestampMicrosecondType>();
    for row in 0..rows.num_rows() {
        assert!(times.is_valid(row), "every row has a time");
        lines.push(format!("{}|{}|{}", ids.value(row), names.value(row), times.value(row)));
    }
}

/// Asserts that the archive holds the table as it is, and no file of rows that no manifest lists.
fn assert_archived(cloud: &Cloud, folder: &Path) {
    let log = folder.join("log");
    let run = Run::parse(&document(&log.join("run"))).unwrap();
    let (mut lines, mut listed) = (Vec::new(), BTreeSet::new());
    for entry in &run.table_partitions {
        let name = &entry.table_partition;
        let manifest = Manifest::parse(&document(&log.join("m").join(name)), name).unwrap();
        assert!(entry.is_met_by(&manifest), "{name}");
        assert_eq!(manifest.versions.len(), 1, "{name}");
        let newest = manifest.newest().unwrap();
        let generation = log.join("b").join(name).join(format!("{:020}", newest.generation));
        for ordinal in 0..newest.blocks.len() {
            let path = generation.join(format!("{ordinal:010}.parquet"));
            let reader =
                ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
            for rows in reader.build().unwrap() {
                lines_of(&rows.unwrap(), &mut lines);
            }
            listed.insert(path);
        }
    }
    lines.sort();
    let source = cloud.source("id, name, ts");
    assert_eq!(lines.len(), source.len());
    assert!(lines == source, "the rows differ");
    let found: BTreeSet<PathBuf> = files(&log.join("b")).into_iter().collect();
    let strays: Vec<&PathBuf> = found.difference(&listed).collect();
    assert!(strays.is_empty(), "{strays:?}");
    assert!(!folder.join("rekindle-backup").exists());
}

#[test]
fn a_backup_to_the_archive_survives_a_crash_at_every_boundary() {
    let (cloud, folder) = with_rows(size(150, 5_000), "");
    let (state, port) = (State::new(), cloud.redis.port());
    let command = || state.of(cloud.command(&Cloud::words(&["--to", "archive"])));
    let empty = || {
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        state.forget();
    };
    let check = || assert_archived(&cloud, &folder);
    let mut matrix = Matrix::new(Flow::ToArchive);
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
            cloud.insert(1 + k % DAYS, 900_000 + k * 10..900_005 + k * 10);
            killed(command(), Point::BlocksProven, port);
        },
        command: &command,
        redis_port: port,
        check: &check,
    });
    matrix.assert_documented();
}

#[test]
fn a_restore_from_the_archive_survives_a_crash_at_every_boundary() {
    let (cloud, _folder) = with_rows(size(300, 10_000), "");
    backup(&cloud, &[]).expect(0);
    let original = cloud.source("id, name, ts");
    let state = State::new();
    let words = ["restore", "bigquery", "--from", "archive", "--json", "--progress", "none"];
    let words = [&words[..], &["--retry-for", "20s"]].concat();
    let mut matrix = Matrix::new(Flow::FromArchive);
    matrix.kill_everywhere(&Scenario {
        name: "whole",
        also: &[],
        reset: &|| {
            state.forget();
            if tables(&cloud).contains(&"t".to_owned()) {
                cloud.delete_table();
            }
        },
        command: &|| state.of(cloud.command(&words)),
        redis_port: cloud.redis.port(),
        check: &|| {
            let restored = cloud.source("id, name, ts");
            assert_eq!(restored.len(), original.len());
            assert!(restored == original, "the rows differ");
        },
    });
    matrix.assert_documented();
}

/// What Redis must hold.
fn wanted(rows: u32) -> Held {
    let mut held = Held::new();
    for day in 1..=DAYS {
        for id in day * 100_000..day * 100_000 + rows {
            let name = format!("name {}", id % 7);
            let ts = format!("2025-11-{day:02}T00:{:02}:{:02}Z", id / 60 % 60, id % 60);
            held.insert(format!("hot:{id}"), vec![format!("name={name}"), format!("ts={ts}")]);
            held.entry(format!("by:{name}")).or_default().push(id.to_string());
            held.entry("ev:".to_owned()).or_default().push(format!("id={id}"));
        }
    }
    for elements in held.values_mut() {
        elements.sort();
    }
    held
}

#[test]
fn a_rebuild_from_the_archive_survives_a_crash_at_every_boundary() {
    let rows = size(150, 3_000);
    let (cloud, _folder) = with_rows(rows, ROUTES);
    backup(&cloud, &[]).expect(0);
    let (state, port, wanted) = (State::new(), cloud.redis.port(), wanted(rows));
    let words = ["rebuild", "redis", "--from", "archive", "--json", "--progress", "none"];
    let words = [&words[..], &["--lanes", "2"]].concat();
    let command = || state.of(cloud.command(&words));
    let empty = || {
        cloud.redis.cli(&["FLUSHALL"]).unwrap();
        state.forget();
    };
    let check = || assert_held(&held(port, "0", "ev:"), &wanted);
    let mut matrix = Matrix::new(Flow::RebuildFromArchive);
    matrix.kill_everywhere(&Scenario {
        name: "rows",
        also: &[],
        reset: &empty,
        command: &command,
        redis_port: port,
        check: &check,
    });
    // Another backup was completed after a kill: its routes start over.
    matrix.kill_everywhere(&Scenario {
        name: "next backup",
        also: &[],
        reset: &|| {
            empty();
            killed(command(), Point::ReadBack, port);
            backup(&cloud, &[]).expect(0);
        },
        command: &command,
        redis_port: port,
        check: &check,
    });
    matrix.assert_documented();
}
