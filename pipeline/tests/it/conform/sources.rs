//! The promises of `Source`, `Session` and `Snapshot`, for every way to read rows.
//!
//! Invariant: a check reads no less than whole partitions, and compares them with what the system says by itself.

use super::breaking;
use super::list::{Line, SOURCES, change, fill, routes};
use super::reading::{Read, batches, drain, keys, read, taken};
use crate::systems::{Systems, Wired, is_soak};
use crate::world::wait_until;
use fixtures::servers::RedisOptions;
use rekindle::route::RouteRun;
use schemas::{Partition, Position};
use stages::extract::{Columns, ReadBefore};
use stages::load::redis::WayChoice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Sessions that are open at once.
const LANES: usize = 4;
/// Where the numbers of partitions begin.
const FIRST: usize = 3;

/// One line, cut, and what it had to read then.
struct Cut<'a> {
    line: &'a Line,
    route: &'a RouteRun,
    partitions: Vec<Partition>,
    ids: Vec<i64>,
}

#[test]
fn every_source_keeps_its_promises() {
    let mut systems = Systems::new(RedisOptions::default());
    // Connections are let go of on a runtime.
    let tokio = systems.cloud.tokio.handle().clone();
    let _inside = tokio.enter();
    fill(&systems);
    let wired = tokio.block_on(systems.wire(&routes(), WayChoice::Auto, LANES));
    let cuts = cut(&systems, &wired);
    for cut in &cuts {
        nothing_is_read_before_it_is_asked(&systems, cut);
    }
    change(&systems, 1);
    let first: Vec<Vec<Read>> =
        while_changing(&systems, || cuts.iter().map(|cut| covers(&systems, cut)).collect());
    for (cut, reads) in cuts.iter().zip(&first) {
        sessions_are_independent(&systems, cut);
        positions_continue(&systems, cut, reads);
        keys_agree(&systems, cut, reads);
        rows_are_found_by_value(&systems, cut, reads);
        estimates_hold(&systems, cut);
        a_dropped_stream_lets_go(&systems, cut);
    }
    let again = tokio.block_on(systems.wire(&routes(), WayChoice::Auto, LANES));
    tokio.block_on(prepare(&again, "second"));
    for (cut, before) in cuts.iter().zip(&first) {
        later_snapshots_go_on(&systems, cut, again.route(cut.line.name), before);
    }
    tokio.block_on(async {
        for route in &again.routes {
            route.source.discard().await.unwrap();
        }
    });
    let lines: Vec<_> = cuts.iter().map(|cut| (cut.line, cut.partitions[0].clone())).collect();
    breaking::errors_have_their_kind(&mut systems, &again, &lines);
}

async fn prepare(wired: &Wired, run: &str) {
    for route in &wired.routes {
        route.source.prepare(run).await.unwrap();
        let relations = route.source.relations();
        route.source.prepare(run).await.unwrap();
        assert_eq!(route.source.relations(), relations, "{}: asked again", route.name());
    }
}

/// Cuts every line, and asks the systems what it has to read.
fn cut<'a>(systems: &Systems, wired: &'a Wired) -> Vec<Cut<'a>> {
    let tokio = &systems.cloud.tokio;
    tokio.block_on(prepare(wired, "first"));
    let cut = |line: &'a Line| {
        let route = wired.route(line.name);
        let partitions = tokio.block_on(route.source.partitions(8, FIRST)).unwrap();
        for (number, partition) in partitions.iter().enumerate() {
            assert_eq!(partition.id.0, format!("{}/{}", line.name, FIRST + number));
            assert_eq!(partition.route, line.name);
        }
        Cut { line, route, partitions, ids: line.ids(systems) }
    };
    SOURCES.iter().map(cut).collect()
}

/// Changes the tables on a thread of its own for as long as `work` takes, and at least once.
fn while_changing<T>(systems: &Systems, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    let rounds = if is_soak() { 60 } else { 9 };
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            for round in 2.. {
                change(systems, round);
                if is_over.load(Ordering::Relaxed) || round == rounds {
                    return;
                }
            }
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        changing.join().unwrap();
        done
    })
}

/// Partitions cover every row once, as of one snapshot, in batches of the size that was told.
fn covers(systems: &Systems, cut: &Cut<'_>) -> Vec<Read> {
    let name = cut.line.name;
    let reads: Vec<Read> = systems.cloud.tokio.block_on(async {
        let mut reads = Vec::new();
        for partition in &cut.partitions {
            reads.push(read(cut.route, partition, &Position::Start).await);
        }
        reads
    });
    let mut ids: Vec<i64> = reads.iter().flat_map(|read| read.ids.clone()).collect();
    ids.sort_unstable();
    assert!(ids == cut.ids, "{name}: {} rows were read, {} are there", ids.len(), cut.ids.len());
    let mut entries = BTreeSet::new();
    for read in &reads {
        let (batch, row) = read.largest;
        assert!(batch <= cut.route.source.batch_bytes() + row, "{name}: a batch of {batch} bytes");
        for key in read.entries.keys() {
            assert!(entries.insert(key.clone()), "{name}: a key in two partitions");
        }
    }
    reads
}

/// Neither the cut nor an open session has touched a row; the first batch has.
fn nothing_is_read_before_it_is_asked(systems: &Systems, cut: &Cut<'_>) {
    let touched = || -> u64 {
        if cut.line.is_bigquery() {
            let calls = systems.cloud.get("stand-in/calls");
            return calls["ReadRows"]["calls"].as_u64().unwrap_or(0);
        }
        let locks = "select count(*) from pg_locks l join pg_class c on c.oid = l.relation \
            where c.relname in ('heap', 'seen', 'parts', 'parts_0', 'parts_1') and l.pid <> pg_backend_pid()";
        systems.sql(locks).parse().unwrap()
    };
    // Counts begin anew.
    systems.cloud.sent();
    let tokio = &systems.cloud.tokio;
    let session = tokio.block_on(cut.route.source.open()).unwrap();
    assert_eq!(touched(), 0, "{}: open reads nothing", cut.line.name);
    let mut stream = session.read(&cut.partitions[0], &Position::Start, Columns::All);
    tokio.block_on(stream.next()).unwrap().unwrap();
    // What is small is over by now.
    if cut.partitions[0].bytes_estimate > 2 << 20 {
        assert_ne!(touched(), 0, "{}: a read reads", cut.line.name);
    }
    tokio.block_on(drain(stream)).unwrap();
}

/// Several sessions see the same at once, and go on when one of them is dropped.
fn sessions_are_independent(systems: &Systems, cut: &Cut<'_>) {
    systems.cloud.tokio.block_on(async {
        let mut streams = Vec::new();
        let mut snapshots = Vec::new();
        for _ in 0..3 {
            let session = cut.route.source.open().await.unwrap();
            snapshots.push(session.snapshot().clone());
            streams.push(session.read(&cut.partitions[0], &Position::Start, Columns::All));
        }
        snapshots.dedup();
        assert_eq!(snapshots.len(), 1, "{}: one snapshot", cut.line.name);
        let mut heads = Vec::new();
        for stream in &mut streams {
            heads.push(stream.next().await.unwrap().unwrap());
        }
        drop((streams.remove(0), heads.remove(0)));
        let mut seen = Vec::new();
        for (head, stream) in heads.into_iter().zip(streams) {
            let mut batches = vec![head];
            batches.extend(drain(stream).await.unwrap());
            seen.push(taken(cut.route, &cut.partitions[0], batches).sorted());
        }
        let alone = read(cut.route, &cut.partitions[0], &Position::Start).await.sorted();
        assert!(seen.iter().all(|seen| *seen == alone), "{}: sessions differ", cut.line.name);
    });
}

/// A read from any position on has what the whole read had behind it: no hole, nothing twice.
fn positions_continue(systems: &Systems, cut: &Cut<'_>, reads: &[Read]) {
    for (partition, whole) in cut.partitions.iter().zip(reads) {
        let last = whole.positions.len().saturating_sub(1);
        for place in BTreeSet::from([0, last / 2, last]) {
            let Some((upto, position)) = whole.positions.get(place) else { continue };
            let rest = systems.cloud.tokio.block_on(read(cut.route, partition, position));
            let had = whole.ids.len() - rest.ids.len();
            let mut behind = whole.ids[had..].to_vec();
            behind.sort_unstable();
            assert!(rest.sorted() == behind, "{}: not what is behind {position:?}", partition.id);
            // What is behind the position is read again, but never more than was left to read.
            assert!(had <= *upto, "{}: {position:?} skips rows", partition.id);
            let is_kept = !matches!(position, Position::Start | Position::Unordered);
            assert_eq!(had > 0, is_kept && !whole.ids.is_empty(), "{}: {position:?}", partition.id);
        }
    }
}

/// A read of the keys alone renders the keys of the rows.
fn keys_agree(systems: &Systems, cut: &Cut<'_>, reads: &[Read]) {
    for (partition, whole) in cut.partitions.iter().zip(reads) {
        let keys = systems.cloud.tokio.block_on(keys(cut.route, partition));
        assert!(keys.keys().eq(whole.entries.keys()), "{}: other keys", partition.id);
    }
}

/// Rows are found by their keys and by the values of their columns, where the source says that they can be.
fn rows_are_found_by_value(systems: &Systems, cut: &Cut<'_>, reads: &[Read]) {
    let entries: BTreeMap<&[u8], u64> = reads
        .iter()
        .flat_map(|read| read.entries.iter().map(|(key, hash)| (&key[..], *hash)))
        .collect();
    let every = entries.len() / 3;
    let mut wanted: Vec<&[u8]> = entries.keys().copied().step_by(every.max(1)).take(3).collect();
    let found = |partition: &Partition| {
        systems.cloud.tokio.block_on(read(cut.route, partition, &Position::Start))
    };
    let is_postgres = !cut.line.is_bigquery();
    // Only the order of a whole read tells which row is last.
    let is_told = is_postgres && cut.line.name != "last";
    let stray = format!("{}:-5", cut.line.name);
    wanted.push(stray.as_bytes());
    let by_key = cut.route.source.rows_of(&wanted);
    assert_eq!(by_key.is_some(), is_told, "{}: rows_of", cut.line.name);
    if let Some(partition) = by_key {
        let read = found(&partition);
        for key in wanted.iter().filter(|key| **key != stray.as_bytes()) {
            assert_eq!(read.entries.get(*key), entries.get(key), "{}: {key:?}", cut.line.name);
        }
        assert!(read.entries.len() < entries.len(), "{}: everything was read", cut.line.name);
    }
    let id = cut.route.bound.schema.index_of("id").unwrap();
    let texts: Vec<String> =
        [cut.ids[0], cut.ids[cut.ids.len() / 2], -7].iter().map(i64::to_string).collect();
    let tuples: Vec<Vec<&[u8]>> = texts.iter().map(|text| vec![text.as_bytes()]).collect();
    let by_value = cut.route.source.rows_with(&[id], &tuples);
    assert_eq!(by_value.is_some(), is_postgres, "{}: rows_with", cut.line.name);
    if let Some(partition) = by_value {
        let ids = found(&partition).sorted();
        assert_eq!(ids, [cut.ids[0], cut.ids[cut.ids.len() / 2]], "{}", cut.line.name);
    }
}

/// What a source tells of its size beforehand is right, where it counts, and near, where it guesses.
fn estimates_hold(systems: &Systems, cut: &Cut<'_>) {
    let source = &cut.route.source;
    let tokio = &systems.cloud.tokio;
    if let Some(estimate) = tokio.block_on(source.estimate()).unwrap()
        && let Some(rows) = estimate.rows
    {
        assert_eq!(rows, cut.ids.len() as u64, "{}: estimated rows", cut.line.name);
        assert!(estimate.bytes_billed > 0);
    }
    if let Some(rows) = tokio.block_on(source.rows_expected()).unwrap() {
        assert!((1..=60_000).contains(&rows), "{}: {rows} rows expected", cut.line.name);
    }
    assert_eq!(tokio.block_on(source.contradictions()).unwrap(), 0, "{}", cut.line.name);
    assert!(!source.relations().is_empty() || cut.line.name == "whole");
}

/// A stream that is dropped midway ends its task and what it holds on the server.
fn a_dropped_stream_lets_go(systems: &Systems, cut: &Cut<'_>) {
    systems.cloud.tokio.block_on(async {
        let session = cut.route.source.open().await.unwrap();
        let mut stream = session.read(&cut.partitions[0], &Position::Start, Columns::All);
        stream.next().await.unwrap().unwrap();
    });
    if !cut.line.is_bigquery() {
        let reading =
            "select count(*) from pg_stat_activity where query like 'copy %' and state <> 'idle'";
        wait_until("the end of a read nobody waits for", || systems.sql(reading) == "0");
    }
    // The next reader finds a connection that works.
    let again = systems.cloud.tokio.block_on(read(cut.route, &cut.partitions[0], &Position::Start));
    assert!(!again.ids.is_empty() || cut.partitions.len() > 1, "{}", cut.line.name);
}

/// Under a later snapshot the old cut still has every row once, what changed is told, and what did not is known.
fn later_snapshots_go_on(systems: &Systems, cut: &Cut<'_>, route: &RouteRun, before: &[Read]) {
    let name = cut.line.name;
    let tokio = &systems.cloud.tokio;
    let snapshot_of =
        |route: &RouteRun| tokio.block_on(route.source.open()).unwrap().snapshot().clone();
    let (earlier, later) = (snapshot_of(cut.route), snapshot_of(route));
    assert_eq!(later.continues(&earlier), !cut.line.is_bigquery(), "{name}: {later:?}");
    assert!(later.continues(&later) && !earlier.continues(&later), "{name}");
    let now = Cut {
        line: cut.line,
        route,
        partitions: cut.partitions.clone(),
        ids: cut.line.ids(systems),
    };
    let after = covers(systems, &now);
    let source = &route.source;
    let parts: Vec<ReadBefore<'_>> = cut
        .partitions
        .iter()
        .zip(before)
        .map(|(part, read)| ReadBefore {
            bounds: &part.bounds,
            xmin: earlier.xmin,
            rows: read.ids.len() as u64,
        })
        .collect();
    let told = tokio.block_on(source.unchanged(&parts)).unwrap();
    assert_eq!(told.is_some(), source.tells_unchanged(), "{name}");
    if let Some((_, told)) = told {
        let same: Vec<bool> =
            before.iter().zip(&after).map(|(old, new)| old.bytes == new.bytes).collect();
        assert_eq!(told, same, "{name}: unchanged");
        assert!(told.contains(&true) && told.contains(&false), "{name}: {told:?}");
    }
    let entries = |reads: &[Read]| -> BTreeMap<Vec<u8>, u64> {
        reads.iter().flat_map(|read| read.entries.clone()).collect()
    };
    let (old, new) = (entries(before), entries(&after));
    let caught_up = source.catch_up(earlier.xmin, 100);
    if source.no_catch_up().is_some() || cut.line.is_bigquery() {
        assert!(caught_up.is_empty() || source.no_catch_up().is_some(), "{name}");
        return;
    }
    let reads: Vec<Read> =
        caught_up.iter().map(|part| tokio.block_on(read(route, part, &Position::Start))).collect();
    let caught = entries(&reads);
    let changed: Vec<_> = new.iter().filter(|(key, hash)| old.get(*key) != Some(hash)).collect();
    assert!(!changed.is_empty() && caught.len() < new.len(), "{name}");
    assert!(
        changed.iter().all(|(key, hash)| caught.get(*key) == Some(hash)),
        "{name}: a change was missed"
    );
    assert!(caught.keys().all(|key| new.contains_key(key)), "{name}: rows of nowhere");
    assert!(tokio.block_on(batches(route, &caught_up[0], &Position::Start, Columns::Key)).is_ok());
}
