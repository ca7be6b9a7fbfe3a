//! One thing at a time that a network can do, at each system of a rebuild.
//!
//! Invariant: the proxy counted what it did while the run was at work, so no run comes through what it did not meet; then
//! every row is compared, after a resume where the run had to give up.

use crate::cloud::{Cloud, DAY_PARTITIONED};
use crate::items::{self, Wire, assert_complete};
use crate::net::{hits, lead, led, port_of, spawn};
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{Direction, Proxy, RedisOptions, Toxic};
use std::process::Command;
use std::sync::Arc;

/// Rows of a table.
const ROWS: u32 = 12_000;
/// Rows per second, so that a run lasts a second.
const PACE: &str = "12000";
/// Rows that are there when the network goes bad.
const BEFORE: u64 = 2_000;

/// How a run ends that meets a toxic.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// Well, with the toxic to the last.
    WithIt,
    /// Well, once it was hit so often and the toxic is gone.
    After(u64),
    /// With 3 as long as it is there, and well when it goes on afterwards.
    Resumed,
}

/// A rebuild with proxies in front of one of its systems.
struct Bench<'a> {
    proxies: &'a [Arc<Proxy>],
    /// Of Redis itself.
    port: u16,
    /// How many bytes of replies pass before a cut: less than what a connection has to say.
    cut_bytes: u64,
    /// Whether a cut is there before the run: what this system has to say was all read before the first rows are written.
    is_read_at_once: bool,
    command: &'a dyn Fn() -> Command,
    /// Makes the server end its connections, where it can be asked to.
    close: &'a dyn Fn(),
    compare: &'a dyn Fn(),
}

impl Bench<'_> {
    fn meet_all(&self) {
        for (toxic, ends) in [
            (Toxic::Latency { ms: 5, jitter_ms: 15 }, Ends::WithIt),
            (Toxic::Bandwidth { bytes_per_second: 3_000_000 }, Ends::WithIt),
            (Toxic::SlowClose { ms: 300 }, Ends::WithIt),
            (Toxic::Reset, Ends::After(2)),
            (Toxic::CutAfter { bytes: self.cut_bytes }, Ends::After(3)),
            (Toxic::Lost { bytes: self.cut_bytes }, Ends::Resumed),
        ] {
            self.meet(toxic, ends);
        }
    }

    fn meet(&self, toxic: Toxic, ends: Ends) {
        let count = || hits(self.proxies).get(toxic.name()).copied().unwrap_or(0);
        let (mut wire, before) = (Wire::to(self.port), count());
        wire.ask(&["FLUSHALL"]);
        let mut command = (self.command)();
        let patience = if matches!(ends, Ends::Resumed) { "1s" } else { "30s" };
        command.args(["--fresh", "--retry-for", patience, "--max-rows-per-second", PACE]);
        let is_cut = matches!(toxic, Toxic::CutAfter { .. } | Toxic::Lost { .. });
        let set = || self.proxies.iter().for_each(|proxy| proxy.set(toxic, Direction::Both));
        let child = if is_cut && self.is_read_at_once {
            set();
            spawn(command)
        } else {
            let child = spawn(command);
            wait_until("some rows", || wire.dbsize() > BEFORE);
            set();
            child
        };
        if matches!(toxic, Toxic::SlowClose { .. }) {
            (self.close)();
        }
        if let Ends::After(times) = ends {
            wait_until(toxic.name(), || count() >= before + times);
            self.clear();
        }
        let ran = Ran::of(&child.wait_with_output().unwrap());
        // A connection that a run closes as it ends is closed slowly, too.
        wait_until(toxic.name(), || count() > before);
        println!("{toxic:?}: {:?}, {} times", ran.code, count() - before);
        self.clear();
        if matches!(ends, Ends::Resumed) {
            let ran = ran.expect(3).says(&["hint: "]);
            let is_named =
                |proxy: &Arc<Proxy>| ran.stderr.contains(&format!("127.0.0.1:{}", proxy.port()));
            assert!(self.proxies.iter().any(is_named), "{}", ran.stderr);
            let mut resumed = (self.command)();
            resumed.args(["--retry-for", "30s"]);
            let summary = Ran::of(&resumed.output().unwrap()).expect(0).summary();
            assert_eq!(summary["resumed"], 1, "{summary}");
        } else {
            assert_eq!(ran.expect(0).summary()["status"], "done");
        }
        (self.compare)();
    }

    fn clear(&self) {
        for proxy in self.proxies {
            proxy.clear();
        }
    }
}

const REBUILD: &[&str] = &["rebuild", "redis", "--json", "--progress", "none", "--lanes", "2"];

fn filled() -> World {
    let world = World::new();
    items::fill_with(&world, ROWS.into());
    world.plan(items::HASH);
    world
}

#[test]
fn a_rebuild_meets_each_at_postgres() {
    let world = filled();
    let proxy = Arc::new(Proxy::start(world.postgres.port()).unwrap());
    Bench {
        proxies: std::slice::from_ref(&proxy),
        port: world.redis.port(),
        cut_bytes: 60_000,
        is_read_at_once: true,
        command: &|| {
            let mut command = world.command(REBUILD);
            let led = led(&world.postgres.url(), world.postgres.port(), &proxy);
            command.env("ALLOYDB_URL", led);
            command
        },
        close: &|| assert!(items::end_sessions(&world) > 0),
        compare: &|| assert_complete(&world),
    }
    .meet_all();
}

#[test]
fn a_rebuild_meets_each_at_redis() {
    let world = filled();
    let proxy = Arc::new(Proxy::start(world.redis.port()).unwrap());
    Bench {
        proxies: std::slice::from_ref(&proxy),
        port: world.redis.port(),
        cut_bytes: 1_000,
        is_read_at_once: false,
        command: &|| {
            let mut command = world.command(REBUILD);
            command.env("REDIS_URL", led(&world.redis.url(), world.redis.port(), &proxy));
            command
        },
        close: &|| assert!(Wire::open(&world).kill_others() > 0),
        compare: &|| assert_complete(&world),
    }
    .meet_all();
}

#[test]
fn a_rebuild_meets_each_at_bigquery() {
    let route = "[[route]]\nname = \"logs\"\ntable = \"bigquery:d.t\"\nkey = \"log:{id}\"\ntype = \"hash\"\non_collision = \"error\"\n";
    let cloud = Cloud::new(RedisOptions::default(), route);
    cloud.table(DAY_PARTITIONED);
    for day in 1..=6 {
        cloud.stream(day, (day - 1) * ROWS / 6..day * ROWS / 6, 1_000);
    }
    // Each block of rows comes only after a while, so that there is something left to meet.
    cloud.fault("ReadRows", "delay_ms:100", 0, 1_000_000);
    let ports = [port_of(&cloud.bigquery.rest_url()), port_of(&cloud.bigquery.grpc_url())];
    let proxies = ports.map(|port| {
        let proxy = Arc::new(Proxy::start(port).unwrap());
        lead(cloud.folder.path(), port, &proxy);
        proxy
    });
    let source = cloud.source("id, name");
    Bench {
        proxies: &proxies,
        port: cloud.redis.port(),
        cut_bytes: 60_000,
        is_read_at_once: false,
        command: &|| cloud.command(REBUILD),
        close: &|| {},
        compare: &|| {
            let found = Wire::to(cloud.redis.port()).everything();
            let name = |key: &str| key.trim_start_matches("log:").to_owned();
            let mut lines: Vec<String> = found
                .iter()
                .map(|(key, fields)| format!("{}|{}", name(key), fields["name"]))
                .collect();
            lines.sort();
            assert!(lines.len() == ROWS as usize && lines == source, "the rows differ");
        },
    }
    .meet_all();
}
