//! The promises of `PassSource` (several routes in one read of their table) and of `Gauge`, against a real PostgreSQL.
//!
//! Of the promises of `Source` a pass has no cut, estimate or catch-up of its own: its routes keep theirs, and are asked
//! for them in `sources`.
//!
//! Invariant: what a pass gives a route is compared with what the route reads alone.

use super::reading::{read, taken};
use super::{readers::kind, some_turns};
use crate::systems::{Systems, Wired};
use crate::world::wait_until;
use fixtures::servers::{RedisOptions, StopMode};
use rekindle::route::RouteRun;
use schemas::{Partition, Position};
use stages::extract::{BATCH_BYTES, Columns, PassSource, Reader};
use stages::load::redis::WayChoice;
use stages::{Kind, RawBatch, Result};
use std::sync::Arc;

const ROUTES: &str = "[[route]]\nname = \"all\"\ntable = \"alloydb:heap\"\nkey = \"a:{id}\"\ntype = \"hash\"\n\
    [[route]]\nname = \"some\"\ntable = \"alloydb:heap\"\nkey = \"s:{id}\"\ntype = \"json\"\nwhere = \"id % 3 = 0\"\n\
    [[route]]\nname = \"pads\"\ntable = \"alloydb:heap\"\nkey = \"p:{id}\"\ntype = \"hash\"\ncolumns = [\"pad\"]\n";

/// Routes of one pass, cut alike.
struct Bench<'a> {
    systems: &'a Systems,
    wired: &'a Wired,
    /// By range, one partition per route.
    ranges: Vec<Vec<Partition>>,
}

#[test]
fn a_pass_gives_every_route_what_it_would_read_alone() {
    let mut systems = Systems::new(RedisOptions::default());
    let tokio = systems.cloud.tokio.handle().clone();
    let _inside = tokio.enter();
    systems.sql(
        "create table heap (id bigint primary key, n int not null, pad text not null); \
         alter table heap owner to rekindle",
    );
    for few in [0, 1] {
        systems.sql(&format!("insert into heap select i, 1, 'x' from generate_series(1, {few}) i"));
        let wired = tokio.block_on(systems.wire(ROUTES, WayChoice::Auto, 3));
        Bench::cut(&systems, &wired).parts_are_what_routes_read(few);
    }
    systems.sql(
        "truncate heap; vacuum heap; \
         insert into heap select i, i % 9, repeat(md5(i::text), 8) from generate_series(1, 60000) i; analyze heap",
    );
    let wired = tokio.block_on(systems.wire(ROUTES, WayChoice::Auto, 3));
    let bench = Bench::cut(&systems, &wired);
    assert!(bench.ranges.len() > 1);
    bench.its_snapshot_is_that_of_its_routes();
    // Its snapshot was taken before.
    systems.sql("delete from heap where id % 7 = 0; update heap set pad = 'new' where id % 5 = 0");
    bench.parts_are_what_routes_read(60_000);
    bench.everybody_goes_on_from_its_own_position();
    bench.a_dropped_pass_lets_go();
    bench.a_session_that_is_killed_is_an_error();
    let source = bench.source();
    systems.postgres.stop(StopMode::Fast).unwrap();
    let opened = tokio.block_on(source.open());
    assert!(opened.is_err_and(|error| error.kind() == Kind::Connection));
}

impl<'a> Bench<'a> {
    fn cut(systems: &'a Systems, wired: &'a Wired) -> Self {
        let cut =
            |route: &RouteRun| systems.cloud.tokio.block_on(route.source.partitions(6, 0)).unwrap();
        let cuts: Vec<Vec<Partition>> = wired.routes.iter().map(cut).collect();
        let ranges = (0..cuts[0].len()).map(|at| {
            let range: Vec<Partition> = cuts.iter().map(|cut| cut[at].clone()).collect();
            assert!(range.iter().all(|part| part.bounds == range[0].bounds), "cut alike");
            range
        });
        Self { systems, wired, ranges: ranges.collect() }
    }

    fn source(&self) -> Arc<dyn PassSource> {
        Arc::clone(&self.wired.routes[0].membership.as_ref().unwrap().source)
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.systems.cloud.tokio.block_on(work)
    }

    /// Reads one range for all routes, each from a position of its own.
    async fn pass(&self, range: &[Partition], from: &[Position]) -> Result<Vec<Vec<RawBatch>>> {
        let session = self.source().open().await?;
        let readers = readers(self.wired, range, from);
        let (mut stream, mut split) = session.read(&range[0].bounds, &readers);
        let mut parts: Vec<Vec<RawBatch>> = range.iter().map(|_| Vec::new()).collect();
        let (mut sent, mut counted) = (0, 0);
        while let Some(raw) = stream.next().await {
            let raw = raw?;
            assert!(raw.bytes.len() < BATCH_BYTES + 4_096, "a batch of {}", raw.bytes.len());
            sent += raw.bytes_read;
            for taken in split.apply(&raw)? {
                counted += taken.batch.bytes_read;
                parts[taken.part].push(taken.batch);
            }
        }
        assert_eq!(counted, sent, "bytes of all parts together");
        Ok(parts)
    }

    fn parts_are_what_routes_read(&self, rows: usize) {
        let mut all = vec![0; self.wired.routes.len()];
        for range in &self.ranges {
            let from: Vec<Position> = range.iter().map(|_| Position::Start).collect();
            let parts = self.block_on(self.pass(range, &from)).unwrap();
            for (at, (part, route)) in parts.into_iter().zip(&self.wired.routes).enumerate() {
                let part = taken(route, &range[at], part);
                let alone = self.block_on(read(route, &range[at], &Position::Start));
                assert!(part.ids == alone.ids, "{}: other rows or another order", range[at].id);
                assert!(part.entries == alone.entries, "{}: other entries", range[at].id);
                let end = |read: &super::reading::Read| read.positions.last().map(|end| end.0);
                assert_eq!(end(&part), end(&alone), "{}", range[at].id);
                all[at] += part.ids.len();
            }
        }
        assert_eq!(all, [rows, rows / 3, rows]);
    }

    /// The read begins where the one that is furthest behind stands, and nobody gets a row again.
    fn everybody_goes_on_from_its_own_position(&self) {
        let range = &self.ranges[0];
        let whole = |(route, part)| self.block_on(read(route, part, &Position::Start));
        let wholes: Vec<_> = self.wired.routes.iter().zip(range).map(whole).collect();
        let at = |read: &super::reading::Read, part: usize| {
            let place = (read.positions.len() - 1) * part / 2;
            read.positions[place].1.clone()
        };
        for turn in 0..3 {
            let from: Vec<Position> =
                wholes.iter().enumerate().map(|(i, read)| at(read, (turn + i) % 3)).collect();
            let parts = self.block_on(self.pass(range, &from)).unwrap();
            for (at, (part, route)) in parts.into_iter().zip(&self.wired.routes).enumerate() {
                let part = taken(route, &range[at], part);
                let alone = self.block_on(read(route, &range[at], &from[at]));
                assert!(part.ids == alone.ids, "{} from {:?}", range[at].id, from[at]);
            }
        }
    }

    fn its_snapshot_is_that_of_its_routes(&self) {
        self.block_on(async {
            let source = self.source();
            let (one, two) = (source.open().await.unwrap(), source.open().await.unwrap());
            let alone = self.wired.routes[0].source.open().await.unwrap();
            assert_eq!(one.snapshot(), two.snapshot());
            assert_eq!(one.snapshot(), alone.snapshot());
        });
    }

    fn a_dropped_pass_lets_go(&self) {
        let range = &self.ranges[0];
        self.block_on(async {
            let session = self.source().open().await.unwrap();
            let from = [Position::Start, Position::Start, Position::Start];
            let (mut stream, _split) =
                session.read(&range[0].bounds, &readers(self.wired, range, &from));
            stream.next().await.unwrap().unwrap();
        });
        let reading =
            "select count(*) from pg_stat_activity where query like 'copy %' and state <> 'idle'";
        wait_until("the end of a pass nobody waits for", || self.systems.sql(reading) == "0");
    }

    fn a_session_that_is_killed_is_an_error(&self) {
        let range = &self.ranges[0];
        let from = [Position::Start, Position::Start, Position::Start];
        let told = self.block_on(async {
            let session = self.source().open().await.unwrap();
            self.systems.sql(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rekindle'",
            );
            let (mut stream, _split) =
                session.read(&range[0].bounds, &readers(self.wired, range, &from));
            loop {
                match stream.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                }
            }
        });
        let error = told.expect_err("a short read");
        assert!(error.kind().is_transient(), "{error}");
        let again = self.block_on(async {
            let route = &self.wired.routes[0];
            drop(route.source.open().await?.read(&range[0], &Position::Start, Columns::All));
            self.pass(range, &from).await
        });
        assert!(again.is_ok(), "{:?}", again.err());
    }
}

fn readers(wired: &Wired, range: &[Partition], from: &[Position]) -> Vec<Reader> {
    let reader = |((route, part), from): ((&RouteRun, &Partition), &Position)| Reader {
        route: route.membership.as_ref().unwrap().place,
        partition: part.id.clone(),
        from: from.clone(),
    };
    wired.routes.iter().zip(range).zip(from).map(reader).collect()
}

#[test]
fn a_gauge_tells_what_the_server_tells_or_fails() {
    let mut systems = Systems::new(RedisOptions::default());
    let tokio = systems.cloud.tokio.handle().clone();
    let _inside = tokio.enter();
    systems.sql(
        "create table heap (id bigint primary key, v int); alter table heap owner to rekindle",
    );
    let route =
        "[[route]]\nname = \"r\"\ntable = \"alloydb:heap\"\nkey = \"r:{id}\"\ntype = \"hash\"\n";
    let wired = tokio.block_on(systems.wire(route, WayChoice::Auto, 2));
    let gauge = wired.sources.gauge().unwrap();
    systems.sql("revoke pg_monitor, pg_read_all_stats from rekindle");
    assert_eq!(kind(tokio.block_on(gauge.check_rights())), Kind::Auth);
    systems.sql("grant pg_monitor to rekindle");
    tokio.block_on(gauge.check_rights()).unwrap();
    let look = || tokio.block_on(gauge.look()).unwrap();
    let quiet = look();
    assert_eq!((quiet.active, quiet.replica_lag), (0, None));
    assert!(!quiet.latency.is_zero());
    std::thread::scope(|scope| {
        // Ended from outside, so that its failure is expected.
        let busy = scope.spawn(|| systems.postgres.psql("select pg_sleep(600)").is_err());
        wait_until("a query of somebody else", || look().active == 1);
        systems.sql("select pg_cancel_backend(pid) from pg_stat_activity where query = 'select pg_sleep(600)'");
        assert!(busy.join().unwrap());
    });
    wait_until("the end of it", || look().active == 0);
    for turns in (0..6).map(|power| 1 << power) {
        tokio.block_on(some_turns(gauge.look(), turns));
        assert_eq!(look().active, 0);
    }
    systems.postgres.stop(StopMode::Fast).unwrap();
    assert!(kind(tokio.block_on(gauge.look())).is_transient());
}
