//! The promises of `Sink`, for every way to write, against a real Redis.
//!
//! Invariant: what is there is asked of the server itself, by a connection that shares no code with the sink.

use super::some_turns;
use super::targets::{Line, SINKS, encoded, fill, rows};
use crate::systems::{Systems, Wired};
use bytes::Bytes;
use fixtures::servers::RedisOptions;
use futures::future::join_all;
use stages::Encoded;
use stages::load::{Difference, Sentinel, Sink, Standing, Versioned, Written};
use stages::transform::Style;

/// `(key, value hash, expiry)` of every entry.
type Expected = Vec<(Bytes, u64, i64)>;

pub(super) fn server() -> RedisOptions {
    RedisOptions {
        json_module: true,
        args: ["--enable-debug-command", "yes"].map(str::to_owned).to_vec(),
        ..RedisOptions::default()
    }
}

#[test]
fn every_way_to_write_keeps_the_promises_of_a_sink() {
    let systems = Systems::new(server());
    let tokio = systems.cloud.tokio.handle().clone();
    let _inside = tokio.enter();
    fill(&systems);
    for line in &SINKS {
        systems.sql("update things set v = 1000 + id, pad = repeat(md5(id::text), 5)");
        systems.cloud.redis.cli(&["flushall"]).unwrap();
        let wired = tokio.block_on(systems.wire(&line.text(), line.way, 2));
        assert_eq!(tokio.block_on(wired.sink.claim("run-1", "a note")).unwrap(), Sentinel::Ours);
        let bench = Bench { systems: &systems, line, wired: &wired };
        let batches = tokio.block_on(encoded(line, &wired, 1));
        let expected = expected(&batches);
        bench.what_is_acknowledged_is_there(&batches, &expected);
        bench.a_repeated_write_changes_nothing(&batches, &expected);
        bench.what_differs_is_found(&expected);
        bench.what_was_there_is_replaced_or_kept(&expected);
        bench.lanes_write_at_once(&expected);
        bench.a_write_that_is_dropped_harms_nobody(&expected);
        bench.calls_of_a_lane_are_applied_in_order(&expected);
        bench.removes_what_it_is_told(&expected);
    }
}

fn expected(batches: &[Encoded]) -> Expected {
    let entries = batches.iter().flat_map(Encoded::keyed);
    entries.map(|(key, e)| (Bytes::copy_from_slice(key), e.value_hash, e.expires_ms)).collect()
}

struct Bench<'a> {
    systems: &'a Systems,
    line: &'a Line,
    wired: &'a Wired,
}

impl Bench<'_> {
    fn sink(&self) -> &dyn Sink {
        &*self.wired.sink
    }

    fn ask(&self, words: &[&str]) -> String {
        self.systems.cloud.redis.cli(words).unwrap()
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.systems.cloud.tokio.block_on(work)
    }

    fn encoded(&self, attempt: usize) -> Vec<Encoded> {
        self.block_on(encoded(self.line, self.wired, attempt))
    }

    fn write(&self, batches: &[Encoded]) -> Written {
        let mut sum = Written::default();
        for batch in batches {
            let written = self.block_on(self.sink().write(0, batch)).unwrap();
            assert_eq!(written.written + written.kept, batch.carried, "{}", self.line.name);
            sum.written += written.written;
            sum.kept += written.kept;
            sum.folded += written.folded;
        }
        sum
    }

    fn differences(&self, expected: &Expected) -> Vec<(usize, Difference)> {
        self.block_on(self.sink().compare(&self.wired.routes[0].bound, expected)).unwrap()
    }

    /// What an acknowledged write left is there for everybody, whole, and nothing else is.
    fn what_is_acknowledged_is_there(&self, batches: &[Encoded], expected: &Expected) {
        let name = self.line.name;
        let written = self.write(batches);
        assert_eq!((written.written, written.kept), (rows(), 0), "{name}");
        let folded = if name == "set" { rows() / 2 } else { 0 };
        assert_eq!(written.folded, folded, "{name}: rows whose member was there");
        assert_eq!(self.ask(&["dbsize"]), (expected.len() + 1).to_string(), "{name}");
        assert_eq!(self.differences(expected), [], "{name}");
        let mut keys: Vec<Bytes> = expected.iter().map(|(key, ..)| key.clone()).collect();
        keys.push(keys[0].clone());
        keys.push(Bytes::from_static(b"nobody"));
        let existing = self.block_on(self.sink().count_existing(&keys)).unwrap();
        assert_eq!(existing, expected.len() as u64 + 1, "{name}: a key given twice counts twice");
        let expires: i64 = self.ask(&["pexpiretime", text(&expected[0].0)]).parse().unwrap();
        assert_eq!(expires, if expected[0].2 == 0 { -1 } else { expected[0].2 }, "{name}");
    }

    fn a_repeated_write_changes_nothing(&self, batches: &[Encoded], expected: &Expected) {
        let before = self.ask(&["debug", "digest"]);
        let written = self.write(batches);
        // What exists is kept, and what has the same version is written again.
        let kept = if self.line.keeps() { rows() } else { 0 };
        assert_eq!(written.kept, kept, "{}", self.line.name);
        assert_eq!(self.ask(&["debug", "digest"]), before, "{}", self.line.name);
        assert_eq!(self.differences(expected), []);
    }

    /// Puts other things in the places of three keys.
    fn damage(&self, expected: &Expected) {
        self.ask(&["del", text(&expected[0].0)]);
        self.ask(&["set", text(&expected[1].0), "something else"]);
        if expected.len() > 2 {
            self.ask(&["pexpire", text(&expected[2].0), "100000000"]);
        }
    }

    fn what_differs_is_found(&self, expected: &Expected) {
        if expected.len() < 3 {
            // One stream: every entry of it counts.
            self.ask(&["xdel", text(&expected[0].0), "7-0"]);
            assert_eq!(self.differences(expected), [(0, Difference::Value)]);
            self.ask(&["del", text(&expected[0].0)]);
            assert_eq!(self.differences(expected), [(0, Difference::Missing)]);
            return;
        }
        self.damage(expected);
        let found = self.differences(expected);
        let all = [(0, Difference::Missing), (1, Difference::Value), (2, Difference::Expiry)];
        assert_eq!(found, all, "{}", self.line.name);
        let bound = &self.wired.routes[0].bound;
        if bound.is_many() {
            let keys: Vec<&[u8]> = expected.iter().map(|(key, ..)| &key[..]).collect();
            let stored = self.block_on(self.sink().stored(bound, &keys)).unwrap();
            assert_eq!(stored.len(), keys.len());
        }
    }

    /// Writing again leaves exactly these rows, but for a way that keeps what is there.
    fn what_was_there_is_replaced_or_kept(&self, expected: &Expected) {
        let again = self.encoded(2);
        if self.line.style == Style::Blank {
            // It may only be used where nothing is under the keys.
            self.sweep(expected);
        }
        let written = self.write(&again);
        let found = self.differences(expected);
        if self.line.keeps() {
            assert_eq!(written.kept, rows() - 1);
            assert_eq!(found, [(1, Difference::Value), (2, Difference::Expiry)]);
            self.ask(&["del", text(&expected[1].0), text(&expected[2].0)]);
            self.write(&again);
        } else {
            assert_eq!((found, written.kept), (vec![], 0), "{}", self.line.name);
        }
        assert_eq!(self.differences(expected), [], "{}", self.line.name);
    }

    fn sweep(&self, expected: &Expected) {
        let keys: Vec<Bytes> = expected.iter().map(|(key, ..)| key.clone()).collect();
        self.block_on(self.sink().remove(&keys)).unwrap();
    }

    fn lanes_write_at_once(&self, expected: &Expected) {
        if self.wired.routes[0].bound.is_many() || self.wired.routes[0].bound.is_stream() {
            // Batches of one attempt belong together; lanes have partitions of their own.
            return;
        }
        self.sweep(expected);
        let batches = self.encoded(3);
        let writes = batches.iter().enumerate().map(|(lane, batch)| self.sink().write(lane, batch));
        let written = self.block_on(join_all(writes));
        let sum: u64 = written.into_iter().map(|written| written.unwrap().written).sum();
        assert_eq!(sum, rows(), "{}", self.line.name);
        assert_eq!(self.differences(expected), []);
    }

    fn a_write_that_is_dropped_harms_nobody(&self, expected: &Expected) {
        for attempt in 0..4 {
            let batches = self.encoded(10 + attempt);
            self.block_on(some_turns(self.sink().write(0, &batches[0]), attempt + 1));
            let other = self.encoded(20 + attempt);
            self.write(&other);
        }
        assert_eq!(self.differences(expected), [], "{}", self.line.name);
    }

    /// Of two writes to the same keys the one that was called later stays, also when both are on their way.
    fn calls_of_a_lane_are_applied_in_order(&self, expected: &Expected) {
        if self.line.keeps() || self.line.style == Style::Blank {
            return;
        }
        let old = self.encoded(30);
        self.systems.sql("update things set v = v + 5, pad = md5(pad)");
        let newer = self.block_on(self.systems.wire(&self.line.text(), self.line.way, 2));
        let new = self.block_on(encoded(self.line, &newer, 31));
        let changed = self::expected(&new);
        self.block_on(async {
            let calls = old.iter().chain(&new).map(|batch| self.sink().write(0, batch));
            for written in join_all(calls).await {
                written.unwrap();
            }
        });
        assert_eq!(self.differences(&changed), [], "{}", self.line.name);
        if self.line.name == "newest" {
            self.newer_versions_stay(&old, &changed, expected);
        }
    }

    fn newer_versions_stay(&self, old: &[Encoded], changed: &Expected, expected: &Expected) {
        assert_eq!(self.write(old).kept, rows());
        assert_eq!(self.differences(changed), []);
        let bound = &self.wired.routes[0].bound;
        let versions = old.iter().flat_map(|batch| batch.versions.iter().copied());
        let entries: Vec<Versioned> = expected
            .iter()
            .zip(versions)
            .map(|((key, value_hash, expires_ms), version)| Versioned {
                key: key.clone(),
                value_hash: *value_hash,
                expires_ms: *expires_ms,
                version,
            })
            .collect();
        let standing = self.block_on(self.sink().standing(bound, &entries)).unwrap();
        assert!(standing.iter().all(|standing| *standing == Standing::Newer));
        let removed = self.block_on(self.sink().remove_unless_newer(bound, &entries)).unwrap();
        assert_eq!(removed, [0_usize; 0]);
    }

    fn removes_what_it_is_told(&self, expected: &Expected) {
        let mut keys: Vec<Bytes> = expected.iter().map(|(key, ..)| key.clone()).collect();
        keys.push(Bytes::from_static(b"nobody"));
        let bound = &self.wired.routes[0].bound;
        if bound.is_stream() {
            let numbered = self.block_on(self.sink().numbered(bound)).unwrap();
            assert_eq!((numbered.streams.len(), numbered.others), (expected.len(), 0));
            let removed = self.block_on(self.sink().unlink(&keys)).unwrap();
            assert_eq!(removed, expected.len() as u64);
        } else {
            let removed = self.block_on(self.sink().remove(&keys)).unwrap();
            assert_eq!(removed, expected.len() as u64, "{}", self.line.name);
        }
        // What dropped attempts began has a name of its own, and expires.
        let left = self.ask(&["--scan"]);
        let strays = left.lines().filter(|key| !key.starts_with("rekindle:")).count();
        assert_eq!(strays, 0, "{}: {left}", self.line.name);
    }
}

fn text(key: &Bytes) -> &str {
    str::from_utf8(key).unwrap()
}
