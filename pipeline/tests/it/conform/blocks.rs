//! The promises of what writes a duplicate: `BlockWriter`, and everything of `Duplicate` beside it.
//!
//! Of the promises of `Sink` one has no meaning here: a block holds many rows, so the target can refuse no single one.
//!
//! Invariant: what is there is asked of the server itself, by a connection that shares no code with the writer.

use super::readers::{endpoint, kind};
use super::some_turns;
use crate::systems::is_soak;
use bytes::Bytes;
use fixtures::servers::{Direction, Proxy, Redis, RedisOptions, Toxic};
use futures::future::join_all;
use schemas::{EncryptKey, Seals};
use stages::Kind;
use stages::load::Sentinel;
use stages::load::redis::duplicate::{BlockWriter, Duplicate, set_command};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Bytes of a block.
const BLOCK_BYTES: usize = 300_000;

fn blocks() -> u32 {
    if is_soak() { 400 } else { 24 }
}

fn key(number: u32) -> String {
    format!("log:b:{number}")
}

fn block(number: u32, letter: u8) -> Bytes {
    set_command(&key(number), b"head", &vec![letter; BLOCK_BYTES])
}

struct Bench<'a> {
    redis: &'a Redis,
    duplicate: Duplicate,
    tokio: &'a Runtime,
}

#[test]
fn a_writer_of_blocks_keeps_the_promises_of_a_sink() {
    let args = ["--enable-debug-command", "yes"].map(str::to_owned).to_vec();
    let redis = Redis::start(RedisOptions { args, ..RedisOptions::default() }).unwrap();
    let tokio = Runtime::new().unwrap();
    let _inside = tokio.enter();
    let duplicate = Duplicate::new(endpoint(redis.port()), 2).unwrap();
    let bench = Bench { redis: &redis, duplicate, tokio: &tokio };
    tokio.block_on(bench.what_is_acknowledged_is_there());
    tokio.block_on(bench.calls_are_applied_in_order());
    tokio.block_on(bench.a_dropped_write_harms_nobody());
    tokio.block_on(bench.what_is_held_is_not_acknowledged());
    tokio.block_on(bench.refusals_have_their_kind());
    bench.what_arrived_before_a_cut_is_a_prefix();
    tokio.block_on(bench.keys_are_measured_and_removed());
    tokio.block_on(bench.marks_belong_to_their_run());
    tokio.block_on(bench.documents_are_sealed_where_there_is_a_key());
    let Bench { duplicate, .. } = bench;
    let mut redis = redis;
    tokio.block_on(async {
        let writer = duplicate.writer().await.unwrap();
        redis.kill().unwrap();
        assert_eq!(kind(writer.write(block(0, b'a')).await), Kind::Connection);
        assert_eq!(kind(duplicate.get(&key(0)).await), Kind::Connection);
        assert_eq!(kind(duplicate.writer().await.map(drop)), Kind::Connection);
    });
}

impl Bench<'_> {
    fn ask(&self, words: &[&str]) -> String {
        self.redis.cli(words).unwrap()
    }

    /// How many blocks are there whole, from the first on; fails where one is behind a hole or not whole.
    fn prefix(&self) -> u32 {
        let length = |number| self.ask(&["strlen", &key(number)]).parse::<usize>().unwrap();
        let lengths: Vec<usize> = (0..blocks()).map(length).collect();
        let there = lengths.iter().take_while(|length| **length == BLOCK_BYTES + 4).count();
        assert!(lengths[there..].iter().all(|length| *length == 0), "{lengths:?}");
        u32::try_from(there).unwrap()
    }

    async fn write_all(&self, writer: &BlockWriter, letter: u8) -> Vec<stages::Result<()>> {
        join_all((0..blocks()).map(|number| writer.clone().write(block(number, letter)))).await
    }

    async fn what_is_acknowledged_is_there(&self) {
        let writer = self.duplicate.writer().await.unwrap();
        assert_eq!(self.duplicate.get(&key(0)).await.unwrap(), None);
        writer.clone().write(set_command("log:empty", b"", b"")).await.unwrap();
        assert_eq!(self.duplicate.get("log:empty").await.unwrap(), Some(Bytes::new()));
        for outcome in self.write_all(&writer, b'a').await {
            outcome.unwrap();
        }
        assert_eq!(self.prefix(), blocks());
        let before = self.ask(&["debug", "digest"]);
        for outcome in self.write_all(&writer, b'a').await {
            outcome.unwrap();
        }
        assert_eq!(self.ask(&["debug", "digest"]), before, "writing again changes nothing");
        self.duplicate.set("log:m:1", b"a manifest").await.unwrap();
        assert_eq!(self.ask(&["get", "log:m:1"]), "a manifest");
    }

    /// Of two writes of one key the later call stays, also when both are on their way.
    async fn calls_are_applied_in_order(&self) {
        let writer = self.duplicate.writer().await.unwrap();
        let calls = (0..20).map(|turn| writer.clone().write(block(0, b'a' + turn)));
        for outcome in join_all(calls).await {
            outcome.unwrap();
        }
        assert_eq!(self.ask(&["getrange", &key(0), "-2", "-1"]), "tt");
    }

    async fn a_dropped_write_harms_nobody(&self) {
        let writer = self.duplicate.writer().await.unwrap();
        for turns in (0..8).map(|power| 1 << power) {
            some_turns(Box::pin(writer.clone().write(block(1, b'x'))), turns).await;
            writer.clone().write(block(2, b'y')).await.unwrap();
            assert_eq!(self.ask(&["getrange", &key(2), "-2", "-1"]), "yy");
            self.ask(&["del", &key(2)]);
        }
    }

    /// A server that holds writes back acknowledges none of them; all arrive once it goes on.
    async fn what_is_held_is_not_acknowledged(&self) {
        self.ask(&["flushall"]);
        let writer = self.duplicate.writer().await.unwrap();
        self.ask(&["client", "pause", "600000", "write"]);
        let writing = async {
            let mut writing = Box::pin(self.write_all(&writer, b'h'));
            some_turns(&mut writing, 500).await;
            assert_eq!(self.ask(&["exists", &key(0)]), "0");
            self.ask(&["client", "unpause"]);
            writing.await
        };
        for outcome in writing.await {
            outcome.unwrap();
        }
        assert_eq!(self.prefix(), blocks());
    }

    async fn refusals_have_their_kind(&self) {
        let writer = self.duplicate.writer().await.unwrap();
        let kind = async || kind(writer.clone().write(block(0, b'r')).await);
        self.ask(&["config", "set", "maxmemory", "1mb"]);
        assert_eq!(kind().await, Kind::Capacity);
        self.ask(&["config", "set", "maxmemory", "0"]);
        self.ask(&["replicaof", "127.0.0.1", "1"]);
        assert_eq!(kind().await, Kind::Unavailable, "a replica");
        self.ask(&["replicaof", "no", "one"]);
        self.ask(&["acl", "setuser", "default", "-set"]);
        assert_eq!(kind().await, Kind::Auth);
        self.ask(&["acl", "setuser", "default", "+set"]);
        writer.clone().write(block(0, b'r')).await.unwrap();
    }

    /// A connection that breaks in the middle fails what was not acknowledged, and leaves whole blocks without a hole.
    fn what_arrived_before_a_cut_is_a_prefix(&self) {
        for acknowledged in [0, 1, 7] {
            self.ask(&["flushall"]);
            let proxy = Proxy::start(self.redis.port()).unwrap();
            let duplicate = Duplicate::new(endpoint(proxy.port()), 1).unwrap();
            let told = self.tokio.block_on(async {
                let writer = duplicate.writer().await.unwrap();
                for number in 0..acknowledged {
                    writer.clone().write(block(number, b'c')).await.unwrap();
                }
                proxy.set(Toxic::Bandwidth { bytes_per_second: 20 << 20 }, Direction::Up);
                let mut writing = Box::pin(self.write_all(&writer, b'c'));
                some_turns(&mut writing, 50).await;
                proxy.set(Toxic::Reset, Direction::Both);
                writing.await
            });
            let taken = told.iter().take_while(|outcome| outcome.is_ok()).count();
            let taken = u32::try_from(taken).unwrap();
            // Ended here too, nothing of it is taken any more while it is looked at.
            self.ask(&["client", "kill", "type", "normal"]);
            let arrived = self.prefix();
            assert!(arrived >= taken.max(acknowledged), "{arrived} of {taken} acknowledged");
            for outcome in told.into_iter().filter(Result::is_err) {
                assert_eq!(kind(outcome), Kind::Connection);
            }
            assert!(taken < blocks(), "nothing was cut");
        }
    }

    async fn keys_are_measured_and_removed(&self) {
        self.ask(&["flushall"]);
        let writer = self.duplicate.writer().await.unwrap();
        for outcome in self.write_all(&writer, b'm').await {
            outcome.unwrap();
        }
        self.ask(&["pexpire", &key(1), "1000000"]);
        let keys: Vec<String> = [0, 1, blocks()].map(key).to_vec();
        assert_eq!(
            self.duplicate.lengths(&keys).await.unwrap(),
            [BLOCK_BYTES as u64 + 4, BLOCK_BYTES as u64 + 4, 0]
        );
        assert_eq!(self.duplicate.expiring(&keys).await.unwrap(), [false, true, false]);
        let some = self.duplicate.get_some(&keys).await.unwrap();
        assert!(some[0].is_some() && some[1].is_some() && some[2].is_none());
        assert_eq!(self.duplicate.unlink(&keys[..1]).await.unwrap(), 1);
        assert_eq!(self.duplicate.unlink_run(1, key).await.unwrap(), u64::from(blocks()) - 1);
        assert_eq!(self.duplicate.unlink_run(0, key).await.unwrap(), 0);
        assert_eq!(self.duplicate.unlink(&[]).await.unwrap(), 0);
        assert_eq!(self.duplicate.lengths(&[]).await.unwrap(), [0_u64; 0]);
        assert!(self.duplicate.get_some(&[]).await.unwrap().is_empty());
    }

    async fn marks_belong_to_their_run(&self) {
        let duplicate = &self.duplicate;
        assert_eq!(duplicate.claim("run-1", "note").await.unwrap(), Sentinel::Ours);
        assert_eq!(duplicate.claim("run-1", "again").await.unwrap(), Sentinel::Ours);
        let foreign = Sentinel::Foreign("run-1 note".into());
        for other in ["run-2", "run", ""] {
            assert_eq!(duplicate.claim(other, "mine").await.unwrap(), foreign, "{other:?}");
            duplicate.release(other).await.unwrap();
        }
        let before = duplicate.state().await.unwrap();
        duplicate.meet("run-1", &before).await.unwrap();
        assert_eq!(kind(duplicate.meet("run-2", &before).await), Kind::TargetChanged);
        self.ask(&["debug", "change-repl-id"]);
        assert_eq!(kind(duplicate.meet("run-1", &before).await), Kind::TargetChanged);
        let now = duplicate.state().await.unwrap();
        duplicate.meet("run-1", &now).await.unwrap();
        duplicate.release("run-1").await.unwrap();
        assert_eq!(kind(duplicate.meet("run-1", &now).await), Kind::TargetChanged);
    }

    async fn documents_are_sealed_where_there_is_a_key(&self) {
        let seals = |digit: &str| {
            let key = EncryptKey::parse(&digit.repeat(64)).unwrap();
            Arc::new(Seals::new(Some(&key), &[]))
        };
        let with = |digit: &str| {
            let duplicate = Duplicate::new(endpoint(self.redis.port()), 1).unwrap();
            duplicate.sealed_with(seals(digit))
        };
        let (duplicate, other) = (with("1"), with("2"));
        self.duplicate.set("log:m:1", b"a manifest").await.unwrap();
        duplicate.set("log:m:2", b"another").await.unwrap();
        assert_eq!(self.ask(&["getrange", "log:m:2", "0", "7"]), "RKSEALED");
        let keys = ["log:m:1", "log:m:2", "log:m:3"].map(str::to_owned);
        let found = duplicate.get_some(&keys).await.unwrap();
        let found: Vec<Option<&[u8]>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, [Some(&b"a manifest"[..]), Some(&b"another"[..]), None]);
        assert_eq!(duplicate.get("log:m:2").await.unwrap().unwrap(), "another");
        for without in [&self.duplicate, &other] {
            assert_eq!(kind(without.get("log:m:2").await), Kind::Config);
            assert_eq!(kind(without.get_some(&keys).await), Kind::Config);
            assert_eq!(without.get("log:m:1").await.unwrap().unwrap(), "a manifest");
        }
    }
}
