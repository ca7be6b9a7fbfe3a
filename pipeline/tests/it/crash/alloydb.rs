//! Rebuilds from PostgreSQL, killed at every boundary: all layouts, rows that change in between, streams of another cut,
//! and a cut-over.
//!
//! Invariant: what must be in Redis is asked of PostgreSQL by SQL.

use super::{Flow, Held, Matrix, Scenario, State, assert_held, held, killed, size};
use crate::rdb::loaded;
use crate::world::World;
use stages::failpoint::Point;
use std::cell::Cell;
use std::process::Command;

/// Every layout: rows in one pass, one of them with rejects; keys of many rows, some over several batches; a stream.
const ROUTES: &str = r#"
[[route]]
name = "items"
table = "alloydb:items"
key = "item:{id}"
type = "hash"
[[route]]
name = "docs"
table = "alloydb:items"
key = "doc:{id}"
type = "json"
[[route]]
name = "strict"
table = "alloydb:items"
key = "strict:{id}"
type = "string"
columns = ["b"]
null = "error"
rejects_max = "50%"
[[route]]
name = "authors"
table = "alloydb:builds"
key = "authors:{repo}"
type = "set"
member = "{author}"
[[route]]
name = "by-repo"
table = "alloydb:builds"
key = "repo:{repo}"
type = "zset"
member = "{id}"
score = "minutes"
[[route]]
name = "latest"
table = "alloydb:builds"
key = "latest:{repo}"
type = "list"
member = "{id}"
order_by = "id"
[[route]]
name = "notes"
table = "alloydb:builds"
key = "notes:{repo}"
type = "hash"
member = "{id}"
columns = ["note"]
[[route]]
name = "events"
table = "alloydb:events"
key = "ev"
type = "stream"
use = ["rebuild"]
columns = ["id", "a"]
"#;

/// What Redis must hold of these routes, as key and element.
const WANTED: &str = "select 'item:' || id, 'a=' || a from items union all select 'item:' || id, 'b=' || b from items where b is not null \
    union all select 'doc:' || id, 'a=' || a from items union all select 'doc:' || id, 'b=' || b from items where b is not null \
    union all select 'strict:' || id, b::text from items where b is not null \
    union all select distinct 'authors:' || repo, author from builds \
    union all select 'repo:' || repo, id || '=' || minutes from builds \
    union all select 'notes:' || repo, id || '=' || note from builds \
    union all select 'ev:', 'id=' || id || '|a=' || a from events";

/// A part of them, for a cut-over.
const ITEMS: &str = "[[route]]\nname = \"items\"\ntable = \"alloydb:items\"\nkey = \"item:{id}\"\ntype = \"hash\"\n";

fn filled() -> World {
    let world = World::new();
    let (items, builds) = (size(300, 20_000), size(3_000, 60_000));
    world.sql(&format!(
        "create table items (id bigint primary key, a text not null, b int) with (fillfactor = 40); \
         insert into items select i, md5(i::text), case when i % 13 <> 0 then i end from generate_series(1, {items}) i; \
         create table builds (id bigint primary key, repo bigint not null, author text not null, minutes int not null, note text not null); \
         create index on builds (repo); \
         insert into builds select i, case when i % 4 <> 0 then 1 else i % 40 end, 'w' || i % 17, i % 90, repeat(md5(i::text), 6) \
         from generate_series(1, {builds}) i; \
         create table events (id bigint not null, a text not null) with (fillfactor = 10); \
         insert into events select i / 2, md5(i::text) from generate_series(1, {items}) i; \
         vacuum analyze items, builds, events"
    ));
    world
}

fn command(world: &World, state: &State, more: &[&str]) -> Command {
    let words =
        ["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "20s", "--lanes", "2"];
    state.of(world.command(&[&words[..], more].concat()))
}

fn empty(world: &World, state: &State) {
    world.redis(&["FLUSHALL"]);
    state.forget();
}

fn wanted(world: &World, sql: &str) -> Held {
    let mut wanted = Held::new();
    for line in world.sql(sql).lines() {
        let (key, element) = line.split_once('|').unwrap();
        wanted.entry(key.to_owned()).or_default().push(element.to_owned());
    }
    for elements in wanted.values_mut() {
        elements.sort();
    }
    let latest = "select repo, string_agg(id::text, ',' order by id) from builds group by repo";
    for line in world.sql(latest).lines() {
        let (repo, ids) = line.split_once('|').unwrap();
        let ids = ids.split(',').map(str::to_owned).collect();
        wanted.insert(format!("latest:{repo}"), ids);
    }
    wanted
}

#[test]
fn a_rebuild_from_alloydb_survives_a_crash_at_every_boundary() {
    let (world, state) = (filled(), State::new());
    world.plan(ROUTES);
    let port = world.redis.port();
    let mut matrix = Matrix::new(Flow::AlloyDb);
    let check = || assert_held(&held(port, "0", "ev:"), &wanted(&world, WANTED));
    // Every layout into an empty Redis.
    matrix.kill_everywhere(&Scenario {
        name: "rows",
        also: &[],
        reset: &|| empty(&world, &state),
        command: &|| command(&world, &state, &[]),
        redis_port: port,
        check: &check,
    });
    // A run that was killed with everything written, and whose rows changed, moved and vanished since.
    let round = Cell::new(0);
    let change = || {
        empty(&world, &state);
        killed(command(&world, &state, &[]), Point::ReadBack, port);
        let k = round.replace(round.get() + 1);
        world.sql(&format!(
            "update items set a = 'changed {k}' where id % 7 = 0; delete from items where id % 29 = {k} % 29; \
             insert into items select 100000 + 100 * {k} + i, 'new', i from generate_series(1, 9) i; \
             update builds set minutes = {k} where repo = 1 and id % 11 = 0; delete from builds where repo = 1 and id % 101 = {k} % 101; \
             delete from events where id % 31 = {k} % 31"
        ));
    };
    matrix.kill_everywhere(&Scenario {
        name: "changed rows",
        also: &[Point::PartitionsRecorded, Point::RouteRecorded, Point::JournalCommitted],
        reset: &change,
        command: &|| command(&world, &state, &[]),
        redis_port: port,
        check: &check,
    });
    // A Redis that was emptied after a kill.
    matrix.kill_everywhere(&Scenario {
        name: "emptied redis",
        also: &[Point::RouteVoided, Point::AttemptRecorded],
        reset: &|| {
            empty(&world, &state);
            killed(command(&world, &state, &[]), Point::ReadBack, port);
            world.redis(&["FLUSHALL"]);
        },
        command: &|| command(&world, &state, &[]),
        redis_port: port,
        check: &check,
    });
    // Streams of an earlier run, in another cut.
    matrix.kill_everywhere(&Scenario {
        name: "old streams",
        also: &[Point::StaleRemoved, Point::TargetClaimed],
        reset: &|| {
            empty(&world, &state);
            for number in 0..40 {
                world.redis(&["XADD", &format!("ev:{number}"), "1-0", "stale", "1"]);
            }
        },
        command: &|| command(&world, &state, &[]),
        redis_port: port,
        check: &check,
    });
    cut_over(&world, &state, &mut matrix);
    files(&world, &state, &mut matrix);
    matrix.assert_documented();
}

/// Into RDB files, which a server then loads.
fn files(world: &World, state: &State, matrix: &mut Matrix) {
    world.plan(ITEMS);
    let folder = world.folder.path().join("files");
    let sql = "select 'item:' || id, 'a=' || a from items union all \
               select 'item:' || id, 'b=' || b from items where b is not null";
    let check = || {
        let mut rows = wanted(world, sql);
        rows.retain(|key, _| key.starts_with("item:"));
        let redis = loaded(&folder.join("dump.rdb"), &[]);
        assert_held(&held(redis.port(), "0", "ev:"), &rows);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    };
    let command = || command(world, state, &["--to-rdb", "files", "--replace-rdb"]);
    let reset = || {
        empty(world, state);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
    };
    matrix.kill_everywhere(&Scenario {
        name: "files",
        also: &[Point::TargetClaimed, Point::ReadBack, Point::StatusRecorded],
        reset: &reset,
        command: &command,
        redis_port: world.redis.port(),
        check: &check,
    });
    // Partitions that changed leave holes, and what counts is copied together.
    matrix.kill_everywhere(&Scenario {
        name: "changed files",
        also: &[Point::FilesFinished],
        reset: &|| {
            reset();
            killed(command(), Point::ReadBack, world.redis.port());
            // The scenarios before have removed rows, wherever they could.
            let changed = world.sql(
                "with first as (select id from items order by id limit 50) \
                 update items set b = coalesce(b, 0) + 1 from first where first.id = items.id returning 1",
            );
            assert_eq!(changed.lines().filter(|line| *line == "1").count(), 50, "{changed}");
        },
        command: &command,
        redis_port: world.redis.port(),
        check: &check,
    });
}

/// Built in database 3 while database 0 serves.
fn cut_over(world: &World, state: &State, matrix: &mut Matrix) {
    world.plan(ITEMS);
    let port = world.redis.port();
    let sql = "select 'item:' || id, 'a=' || a from items union all \
               select 'item:' || id, 'b=' || b from items where b is not null";
    matrix.kill_everywhere(&Scenario {
        name: "cut-over",
        also: &[
            Point::RunRecorded,
            Point::ServerRecorded,
            Point::ReadBack,
            Point::MarkReleased,
            Point::StatusRecorded,
        ],
        reset: &|| {
            empty(world, state);
            world.redis(&["SET", "serving", "yes"]);
        },
        command: &|| command(world, state, &["--cut-over", "3"]),
        redis_port: port,
        check: &|| {
            let mut rows = wanted(world, sql);
            rows.retain(|key, _| key.starts_with("item:"));
            assert_held(&held(port, "0", "ev:"), &rows);
            let before = Held::from([("serving".to_owned(), vec!["yes".to_owned()])]);
            assert_held(&held(port, "3", "ev:"), &before);
        },
    });
}
