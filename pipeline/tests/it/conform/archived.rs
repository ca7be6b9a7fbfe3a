//! The promises of `Source` and `Session`, asked of the source that reads an archive in place of BigQuery.
//!
//! Invariant: it is wired as the binary wires it; what it must read is asked of BigQuery before the archive is all there is.
//! It has no positions to go on from, finds no row by value and catches nothing up, as the source of BigQuery.

use super::reading::{Read, drain, keys, read, taken};
use crate::archive::{backup, in_folder, section};
use crate::cloud::Cloud;
use rekindle::route::RouteRun;
use rekindle::wiring;
use schemas::{Partition, Plan, Position};
use serde_json::{Value, json};
use stages::extract::{Columns, Snapshot};
use stages::load::redis::WayChoice;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;

const ROUTES: &str = r#"
[[route]]
name = "archived"
table = "bigquery:d.t"
key = "a:{id}"
type = "hash"
on_collision = "error"
[[route]]
name = "archived-sorted"
table = "bigquery:d.t"
key = "sorted:{ts}"
type = "set"
member = "{id}"
"#;
/// Where the numbers of partitions begin.
const FIRST: usize = 3;

/// Routes wired to the archive as it is now.
async fn wire(cloud: &Cloud) -> Vec<RouteRun> {
    let text = fs::read_to_string(cloud.folder.path().join("rekindle.toml")).unwrap();
    let no_file = |_: &str| Err(std::io::Error::other("no file"));
    let plan = Plan::parse(&text, &|_| None, &no_file).unwrap();
    let routes: Vec<_> = plan.routes.iter().filter(|route| route.uses.rebuild).cloned().collect();
    let mut sources = wiring::connect_with(&plan, &routes, 2, true).await.unwrap();
    sources.sort_in(cloud.folder.path().join("sorted"));
    let sink = wiring::make_sink(&plan, WayChoice::Auto).unwrap();
    let described = wiring::describe_routes(&sources, &routes).await.unwrap();
    wiring::run_routes(&sources, &sink, described).unwrap()
}

async fn cut(route: &RouteRun, wanted: usize) -> Vec<Partition> {
    let partitions = route.source.partitions(wanted, FIRST).await.unwrap();
    for (number, partition) in partitions.iter().enumerate() {
        assert_eq!(partition.id.0, format!("{}/{}", route.name(), FIRST + number));
        assert_eq!(partition.route, route.name());
    }
    partitions
}

/// Partitions cover every row once, in batches of the size that was told, and their keys are those of the rows.
async fn covers(route: &RouteRun, wanted: usize, ids: &[i64]) {
    let name = route.name();
    let (mut found, mut entries) = (Vec::new(), BTreeSet::new());
    for partition in cut(route, wanted).await {
        let whole: Read = read(route, &partition, &Position::Start).await;
        assert_eq!(whole.ids.len() as u64, partition.rows_estimate, "{}", partition.id);
        let (batch, row) = whole.largest;
        assert!(batch <= route.source.batch_bytes() + row, "{name}: a batch of {batch} bytes");
        let keys = keys(route, &partition).await;
        assert!(keys.keys().eq(whole.entries.keys()), "{}: other keys", partition.id);
        for key in keys.into_keys() {
            assert!(entries.insert(key), "{name}: a key in two partitions");
        }
        found.extend(whole.ids);
    }
    found.sort_unstable();
    assert!(found == ids, "{name}: {} rows were read, {} are there", found.len(), ids.len());
}

/// Several sessions see the same at once, and go on when one of them is dropped.
async fn sessions_are_independent(route: &RouteRun) {
    let partitions = cut(route, 8).await;
    let open = async || {
        let session = route.source.open().await.unwrap();
        session.read(&partitions[0], &Position::Start, Columns::All)
    };
    let (mut dropped, mut kept) = (open().await, open().await);
    let (first, head) = (dropped.next().await.unwrap(), kept.next().await.unwrap().unwrap());
    drop((dropped, first));
    let mut batches = vec![head];
    batches.extend(drain(kept).await.unwrap());
    let alone = read(route, &partitions[0], &Position::Start).await.sorted();
    assert!(taken(route, &partitions[0], batches).sorted() == alone, "{}", route.name());
}

async fn snapshot(route: &RouteRun) -> Snapshot {
    route.source.open().await.unwrap().snapshot().clone()
}

/// Inserts rows of one day that hardly get smaller when they are compressed: 5,000 bytes each.
fn large(cloud: &Cloud, ids: Range<u64>) {
    let mut state = ids.start + 1;
    let mut letter = || {
        // The generator of Knuth's MMIX; its high bits are the random ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + u8::try_from(state >> 58).unwrap())
    };
    let mut row = |id: u64| {
        let name: String = (0..5_000).map(|_| letter()).collect();
        json!({"json": {"id": id.to_string(), "name": name, "ts": "2025-11-01T00:00:00Z"}})
    };
    let rows: Vec<Value> = ids.map(&mut row).collect();
    let path = "bigquery/v2/projects/p/datasets/d/tables/t/insertAll";
    let reply = cloud.post(path, &json!({"rows": rows}));
    assert!(reply.get("insertErrors").is_none(), "{reply}");
}

#[test]
fn an_archive_keeps_the_promises_of_a_source() {
    let (cloud, folder) = in_folder("");
    cloud.plan(&format!("{}{ROUTES}", section(&folder, "")));
    // A day of several files, one of a single file, and rows without a time.
    for from in (0..4_000).step_by(500) {
        large(&cloud, from..from + 500);
    }
    cloud.insert(2, 5_000..5_500);
    cloud.insert(0, 5_500..5_600);
    backup(&cloud, &[]).expect(0);
    let ids = |cloud: &Cloud| -> Vec<i64> {
        let lines = cloud.sql("SELECT id FROM d.t");
        let mut ids: Vec<i64> = lines.iter().map(|line| line.parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    let archived = ids(&cloud);
    let tokio = cloud.tokio.handle().clone();
    let _inside = tokio.enter();
    let routes = tokio.block_on(wire(&cloud));
    // What BigQuery holds by now is not in the archive.
    cloud.insert(3, 900_000..900_100);
    cloud.rows_read();
    let [one, sorted] = &routes[..] else { panic!("two routes") };
    tokio.block_on(async {
        for route in [one, sorted] {
            for wanted in [1, 8, 1_000] {
                covers(route, wanted, &archived).await;
            }
            sessions_are_independent(route).await;
            let estimate = route.source.estimate().await.unwrap().unwrap();
            assert_eq!((estimate.rows, estimate.bytes_billed), (Some(archived.len() as u64), 0));
            assert_eq!(route.source.no_catch_up(), None);
            assert!(route.source.catch_up(0, FIRST).is_empty());
            assert!(snapshot(route).await.is_pinned());
        }
        assert_eq!(cut(sorted, 8).await.len(), 1);
        assert!(cut(one, 1_000).await.len() > cut(one, 1).await.len(), "files are kept apart");
    });
    assert_eq!(cloud.rows_read(), 0, "bigquery was asked");
    // The same backup is the same state, and another one is not.
    let again = tokio.block_on(wire(&cloud));
    backup(&cloud, &[]).expect(0);
    let later = tokio.block_on(wire(&cloud));
    tokio.block_on(async {
        let first = snapshot(one).await;
        assert!(snapshot(&again[0]).await.continues(&first));
        assert!(!snapshot(&later[0]).await.continues(&first));
        assert_eq!(again[0].source.relations(), one.source.relations());
        assert_ne!(later[0].source.relations(), one.source.relations());
    });
    let now = ids(&cloud);
    tokio.block_on(covers(&later[0], 8, &now));
}
