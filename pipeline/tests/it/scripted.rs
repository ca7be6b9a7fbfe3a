//! Faults by script over every kind of source and sink, with the real systems behind them.
//!
//! Invariant: whatever happens to a batch, what is committed is in the target, and the end is whole or the error is the
//! one that happened; another run on the same state makes it whole.

mod bench;
mod held;
mod script;
mod sink;
mod source;

use crate::systems::{Systems, is_soak};
use bench::{Bench, Setting};
use fixtures::fuzz::Dice;
use fixtures::servers::RedisOptions;
use rekindle::tuning::Lanes;
use script::{Fault, Script};
use stages::Kind;
use stages::load::redis::WayChoice;
use std::time::Duration;

/// Rows of each table of PostgreSQL.
const ROWS: u64 = 24_000;
/// Rows that share a key where many do.
const SHARING: u64 = 8;
/// Rows of the table of BigQuery.
const LOGS: u64 = 3_700;

/// One way from a source to a sink.
struct Way {
    name: &'static str,
    choice: WayChoice,
    route: &'static str,
    rows: u64,
    keys: u64,
    /// Whether a row that is refused can be told from those beside it.
    tells_rows: bool,
}

const WAYS: [Way; 6] = [
    Way {
        name: "hashes by command",
        choice: WayChoice::Command,
        route: "table = \"alloydb:leaves\"\nkey = \"h:{id}\"\ntype = \"hash\"",
        rows: ROWS,
        keys: ROWS,
        tells_rows: true,
    },
    Way {
        name: "hashes by payload",
        choice: WayChoice::Restore,
        route: "table = \"alloydb:leaves\"\nkey = \"h:{id}\"\ntype = \"hash\"",
        rows: ROWS,
        keys: ROWS,
        tells_rows: true,
    },
    Way {
        name: "ranges of a view, documents of text",
        choice: WayChoice::Command,
        route: "table = \"alloydb:seen\"\nkey = \"j:{id}\"\ntype = \"json\"\nsplit_by = \"grp\"\non_collision = \"error\"",
        rows: ROWS,
        keys: ROWS,
        tells_rows: true,
    },
    Way {
        name: "keys of many rows",
        choice: WayChoice::Command,
        route: "table = \"alloydb:leaves\"\nkey = \"z:{grp}\"\ntype = \"zset\"\nmember = \"{id}\"\nscore = \"n\"",
        rows: ROWS,
        keys: ROWS / SHARING,
        tells_rows: false,
    },
    Way {
        name: "streams",
        choice: WayChoice::Command,
        route: "table = \"alloydb:leaves\"\nkey = \"s\"\ntype = \"stream\"\nuse = [\"rebuild\"]",
        rows: ROWS,
        keys: 4,
        tells_rows: false,
    },
    Way {
        name: "bigquery",
        choice: WayChoice::Auto,
        route: "table = \"bigquery:d.t\"\nkey = \"b:{id}\"\ntype = \"hash\"\non_collision = \"error\"",
        rows: LOGS,
        keys: LOGS,
        tells_rows: true,
    },
];

/// How a run ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// Whole where a row can be told from those beside it, else with bad data.
    WholeByRow,
    Fails(Kind),
}

/// Faults of reads, faults of writes, and the end.
type Case<'a> = (&'a [(u64, Fault)], &'a [(u64, Fault)], End);

const CASES: [Case<'static>; 13] = [
    (&[], &[(3, Fault::Reject(Kind::Connection))], End::Whole),
    (&[], &[(2, Fault::FailAfter(Kind::Timeout))], End::Whole),
    (
        &[],
        &[(1, Fault::FailAfter(Kind::Unavailable)), (5, Fault::FailAfter(Kind::Connection))],
        End::Whole,
    ),
    (&[], &[(1, Fault::Slow(Duration::from_millis(2)))], End::Whole),
    (&[], &[(2, Fault::Reject(Kind::Refused))], End::WholeByRow),
    (&[], &[(3, Fault::Reject(Kind::Capacity))], End::Fails(Kind::Capacity)),
    (&[], &[(3, Fault::FailAfter(Kind::Fenced))], End::Fails(Kind::Fenced)),
    (&[], &[(2, Fault::FailAfter(Kind::TargetChanged))], End::Fails(Kind::TargetChanged)),
    (&[(2, Fault::Reject(Kind::Connection))], &[], End::Whole),
    (&[(2, Fault::FailAfter(Kind::SnapshotLost))], &[], End::Whole),
    (&[(1, Fault::Slow(Duration::from_millis(2)))], &[], End::Whole),
    (&[(3, Fault::Reject(Kind::Auth))], &[], End::Fails(Kind::Auth)),
    (
        // No fault of a write beside them: it could end the attempt before the lane hears of the read.
        &[(2, Fault::FailAfter(Kind::Timeout)), (4, Fault::FailAfter(Kind::Data))],
        &[],
        End::Fails(Kind::Data),
    ),
];

fn filled() -> Systems {
    let systems = Systems::new(RedisOptions::default());
    let leaf = |n| {
        format!(
            "create table leaf_{n} partition of leaves for values with (modulus 4, remainder {n});"
        )
    };
    systems.sql(&format!(
        "create table leaves (id bigint primary key, grp int not null, n int not null, pad text not null) partition by hash (id); \
         {} insert into leaves select i, i / {SHARING}, i % 1000, repeat(md5(i::text), 4) from generate_series(0, {ROWS} - 1) i; \
         create view seen as select id, grp % 90 as grp, pad from leaves; \
         grant select on seen to rekindle; vacuum analyze",
        (0..4).map(leaf).collect::<String>()
    ));
    systems.fill_bigquery();
    systems
}

fn route(way: &Way) -> String {
    format!("[[route]]\nname = \"r\"\n{}\n", way.route)
}

async fn carry(systems: &Systems, way: &Way, (reads, writes, end): &Case<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let routes = route(way);
    let setting = Setting { systems, routes: &routes, way: way.choice, lanes: Lanes::fixed(2) };
    let none = || Script::of(&[]);
    let bench = Bench::open(&setting, folder.path(), Script::of(reads), Script::of(writes)).await;
    let failures = bench.load().await;
    let what = format!("{}, reads {reads:?}, writes {writes:?}", way.name);
    let expected = match end {
        End::WholeByRow if !way.tells_rows => End::Fails(Kind::Data),
        End::WholeByRow => End::Whole,
        end => *end,
    };
    let kinds: Vec<Kind> = failures.iter().map(stages::Error::kind).collect();
    bench.committed_rows_are_there().await;
    let bench = if let End::Fails(kind) = expected {
        assert_eq!(kinds, [kind], "{what}: {failures:?}");
        drop(bench);
        let again = Bench::open(&setting, folder.path(), none(), none()).await;
        let failures = again.load().await;
        assert!(failures.is_empty(), "{what}, again: {failures:?}");
        again
    } else {
        assert!(kinds.is_empty(), "{what}: {failures:?}");
        bench
    };
    bench.is_whole(way.rows, way.keys).await;
}

#[test]
fn every_script_over_every_way_ends_right_or_says_why() {
    let systems = filled();
    for way in &WAYS {
        for case in &CASES {
            let started = std::time::Instant::now();
            systems.cloud.redis.cli(&["flushall"]).unwrap();
            systems.cloud.tokio.block_on(carry(&systems, way, case));
            println!("{}: {:?} {:?} in {:?}", way.name, case.0, case.1, started.elapsed());
        }
    }
}

/// What a run gets over, whatever batch it happens to.
const PASSING: [Fault; 7] = [
    Fault::Reject(Kind::Connection),
    Fault::Reject(Kind::Timeout),
    Fault::Reject(Kind::Unavailable),
    Fault::FailAfter(Kind::Connection),
    Fault::FailAfter(Kind::Timeout),
    Fault::FailAfter(Kind::Unavailable),
    Fault::Slow(Duration::from_millis(1)),
];

/// Some faults at random batches, in their order.
fn some(dice: &mut Dice) -> Vec<(u64, Fault)> {
    let count = dice.below(5);
    (0..count).map(|_| (1 + dice.below(40) as u64, *dice.one_of(&PASSING))).collect()
}

#[test]
fn random_scripts_over_every_way_end_whole() {
    let systems = filled();
    let (first, seeds) = match std::env::var("REKINDLE_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (1, if is_soak() { 60 } else { 1 }),
    };
    for seed in first..first + seeds {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        for way in &WAYS {
            let (reads, writes) = (some(&mut dice), some(&mut dice));
            systems.cloud.redis.cli(&["flushall"]).unwrap();
            systems.cloud.tokio.block_on(carry(&systems, way, &(&reads, &writes, End::Whole)));
        }
    }
}
