//! Tests of the journal on a temporary folder, and the values they share.
//!
//! Invariant: nothing sleeps; what has to happen first is waited for.

mod commits;
mod fuzzed;
mod opening;
mod records;
mod restores;

use super::{
    Delta, Journal, NewRoute, NewRun, NewSnapshot, PartitionRecord, RouteRecord, RunRecord,
};
use crate::checkpoint::Counts;
use schemas::drift::{ShapeColumn, TableShape};
use schemas::{Bounds, Digest, Partition, PartitionId, Position};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn open(folder: &TempDir) -> Journal {
    Journal::open(folder.path()).await.unwrap()
}

fn new_run() -> NewRun {
    NewRun {
        command: "rebuild redis".to_owned(),
        plan_fingerprint: "f00d".to_owned(),
        binary_version: "1.2.3".to_owned(),
        lost_at_ms: 1_700_000_000_000,
        lost_at_given: true,
        started_ms: 1_700_000_001_234,
        target_was_empty: true,
    }
}

fn new_snapshot(run: &RunRecord) -> NewSnapshot {
    NewSnapshot {
        run_id: run.id.clone(),
        xmin: 7,
        xmax: u64::from(u32::MAX) + 9,
        taken_us: 1_700_000_001_500_000,
        lsn: "16/B374D848".to_owned(),
        identity: r#"{"system":"1"}"#.to_owned(),
    }
}

fn new_route(name: &str) -> NewRoute {
    NewRoute {
        name: name.to_owned(),
        definition: "key = \"b:{id}\"".to_owned(),
        schema_lines: vec!["id bigint".to_owned(), "who text".to_owned()],
        shape: None,
        relations: r#"[{"oid":1}]"#.to_owned(),
    }
}

fn table_shape() -> TableShape {
    TableShape {
        table: "public.builds".to_owned(),
        identity: Some("1".to_owned()),
        columns: vec![ShapeColumn {
            name: "id".to_owned(),
            source_type: "bigint".to_owned(),
            place: Some(1),
            is_required: true,
        }],
        unique_keys: vec![vec!["id".to_owned()]],
    }
}

fn route(run: &RunRecord, name: &str) -> RouteRecord {
    let NewRoute { name, definition, schema_lines, shape, relations } = new_route(name);
    RouteRecord {
        run_id: run.id.clone(),
        name,
        definition,
        schema_lines,
        shape,
        relations,
        reconcile: false,
        caught_up: None,
        dropped_keys: 0,
        completed_ms: None,
    }
}

fn partition(route: &str, ordinal: u32) -> Partition {
    Partition {
        id: PartitionId(format!("{route}/{ordinal}")),
        route: route.to_owned(),
        bounds: Bounds::Ctid {
            relation: "\"public\".\"builds\"".to_owned(),
            from_block: ordinal * 100,
            to_block: Some(ordinal * 100 + 100),
        },
        rows_estimate: 1000,
        bytes_estimate: 64_000,
        newest_us: Some(-1),
    }
}

/// A journal with one run, one route `builds` and `partitions` partitions.
async fn prepared(folder: &TempDir, partitions: u32) -> (Journal, RunRecord) {
    let journal = open(folder).await;
    let run = journal.create_run(new_run(), vec![new_route("builds")]).await.unwrap();
    let cut: Vec<_> = (0..partitions).map(|ordinal| partition("builds", ordinal)).collect();
    journal.add_partitions(&run.id, &cut, 0).await.unwrap();
    (journal, run)
}

fn at(block: u32) -> Position {
    if block == 0 { Position::Start } else { Position::Ctid { block, offset: 1 } }
}

fn counts(rows: u64) -> Counts {
    let digest = Digest { sum: u128::MAX - 5, count: rows };
    Counts {
        rows,
        bytes: rows * 10,
        written: rows - 1,
        kept: 1,
        folded: 1,
        expired: 0,
        rejects: 0,
        digest,
    }
}

fn delta(partition: &Partition, epoch: u64, from: u32, to: u32) -> Delta {
    Delta {
        partition: partition.id.clone(),
        epoch,
        from: at(from),
        to: at(to),
        counts: counts(10),
        ledger_bytes: u64::from(to) * 8,
    }
}

async fn only(journal: &Journal, run: &RunRecord) -> PartitionRecord {
    let mut partitions = journal.partitions(&run.id).await.unwrap();
    assert_eq!(partitions.len(), 1);
    partitions.remove(0)
}
