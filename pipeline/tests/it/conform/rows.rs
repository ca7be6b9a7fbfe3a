//! The promises of what reads an application's rows and a duplicate's values out of a Redis: spool, pages, values.
//!
//! Of the promises of `Source` two have no meaning here: there is no snapshot (a spool names what was there), and no
//! position (an attempt at a partition reads all of it).
//!
//! Invariant: a read is whole or fails; whatever breaks in the middle, none is short and none has answers of another.

use super::readers::{Line, READERS, Read, TEXT_BYTES, endpoint, kind, rows_at};
use super::some_turns;
use crate::systems::is_soak;
use fixtures::servers::{Direction, Proxy, Redis, RedisOptions, Toxic};
use rekindle::spool::check;
use stages::Kind;
use stages::extract::redis_rows::{Commands, RedisRows, Replies, Reply};
use stages::extract::redis_values::RedisValues;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How long a server may stay away where it comes back.
const PATIENT: Duration = Duration::from_secs(30);
/// What a page should weigh.
const PAGE_BYTES: usize = 1 << 20;

fn many() -> u64 {
    if is_soak() { 120_000 } else { 6_000 }
}

struct Bench<'a> {
    redis: &'a Redis,
    line: &'a Line,
    rows: RedisRows,
    folder: &'a Path,
    tokio: &'a Runtime,
}

#[test]
fn every_way_rows_are_kept_is_read_whole_or_fails() {
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tokio = Runtime::new().unwrap();
    let _inside = tokio.enter();
    for line in &READERS {
        redis.cli(&["flushall"]).unwrap();
        let (rows, folder) = (rows_at(redis.port()), folder.path());
        let bench = Bench { redis: &redis, line, rows, folder, tokio: &tokio };
        for few in [0, 1] {
            line.put(&redis, 0..few);
            assert_eq!(
                bench.whole(&bench.rows).ids,
                (0..i64::try_from(few).unwrap()).collect::<Vec<_>>()
            );
        }
        redis.cli(&["flushall"]).unwrap();
        line.put(&redis, 0..many());
        let read = bench.whole(&bench.rows);
        bench.memory_is_bounded(&read);
        bench.is_read_again_the_same_after_cuts(&read);
        bench.a_peer_that_is_lost_is_an_error();
        bench.what_the_server_refuses_is_an_error();
        bench.a_dropped_page_leaves_nothing_behind();
        bench.an_altered_spool_is_not_believed();
        bench.a_search_that_is_cancelled_leaves_no_spool();
        bench.what_is_no_row_is_named();
    }
}

impl Bench<'_> {
    fn whole(&self, rows: &RedisRows) -> Read {
        let path = self.folder.join("r.keys");
        let (line, cancel) = (self.line, CancellationToken::new());
        self.tokio.block_on(async {
            let looked = line.look(rows, &path, PATIENT, &cancel).await.unwrap();
            assert_eq!(looked.unfit, 0, "{}", line.name);
            assert_eq!(check(&path, &looked.facts).unwrap(), None);
            let read = line.read(rows, (&path, &looked.facts), PATIENT).await.unwrap();
            assert_eq!((read.rejects.len(), read.vanished), (0, 0), "{}", line.name);
            read
        })
    }

    fn memory_is_bounded(&self, read: &Read) {
        let largest = read.pages.iter().map(bytes::Bytes::len).max().unwrap();
        // What is asked for is sized by the page before, whose rows may be some digits shorter.
        let bound = PAGE_BYTES + PAGE_BYTES / 50 + 2 * TEXT_BYTES;
        assert!(largest <= bound, "{}: a page of {largest} bytes", self.line.name);
        assert!(read.pages.len() > 3, "{}: {} pages", self.line.name, read.pages.len());
    }

    /// Connections that break again and again inside of replies cost time, and no row.
    fn is_read_again_the_same_after_cuts(&self, before: &Read) {
        let again = self.whole(&self.rows);
        assert!(again == *before, "{}: another read is another", self.line.name);
        let proxy = Proxy::start(self.redis.port()).unwrap();
        let bytes = PAGE_BYTES as u64 * 5 / 2;
        proxy.set(Toxic::CutAfter { bytes }, Direction::Both);
        let cut = self.whole(&rows_at(proxy.port()));
        assert!(proxy.hits()["cut"] > 0, "{}: nothing was cut", self.line.name);
        assert!(cut == *before, "{}: a cut connection shows", self.line.name);
    }

    fn a_peer_that_is_lost_is_an_error(&self) {
        let (path, cancel) = (self.folder.join("r.keys"), CancellationToken::new());
        let proxy = Proxy::start(self.redis.port()).unwrap();
        self.tokio.block_on(async {
            let looked = self.line.look(&self.rows, &path, PATIENT, &cancel).await.unwrap();
            // Inside the first page, inside a later one, and before any answer.
            for bytes in [9_000, PAGE_BYTES as u64 / 2, 0] {
                proxy.set(Toxic::CutAfter { bytes }, Direction::Both);
                let rows = rows_at(proxy.port());
                let read = self.line.read(&rows, (&path, &looked.facts), Duration::ZERO).await;
                assert_eq!(kind(read.map(drop)), Kind::Connection, "{}", self.line.name);
            }
            // The last of them answers nothing.
            let (rows, other) = (rows_at(proxy.port()), self.folder.join("lost.keys"));
            let looked = self.line.look(&rows, &other, Duration::ZERO, &cancel).await;
            assert_eq!(kind(looked), Kind::Connection, "{}", self.line.name);
            assert!(!other.exists(), "{}: a spool of half a search", self.line.name);
        });
    }

    fn what_the_server_refuses_is_an_error(&self) {
        let path = self.folder.join("r.keys");
        let cancel = CancellationToken::new();
        self.tokio.block_on(async {
            let looked = self.line.look(&self.rows, &path, PATIENT, &cancel).await.unwrap();
            let command = self.line.command;
            self.redis.cli(&["acl", "setuser", "default", &format!("-{command}")]).unwrap();
            let read = self.line.read(&self.rows, (&path, &looked.facts), PATIENT).await;
            assert_eq!(kind(read.map(drop)), Kind::Auth, "{}", self.line.name);
            self.redis.cli(&["acl", "setuser", "default", &format!("+{command}")]).unwrap();
        });
    }

    /// A page that nobody waits for any more takes its connection along: the next one has the answers to its own.
    fn a_dropped_page_leaves_nothing_behind(&self) {
        self.tokio.block_on(async {
            let mut reader = self.rows.reader();
            let (mut asked, mut other) = (Commands::default(), Commands::default());
            asked.read(self.line.held, self.line.key().as_bytes());
            other.push(&[b"ECHO", b"mine"]);
            for turns in (0..10).map(|power| 1 << power) {
                some_turns(Box::pin(reader.ask(&asked)), turns).await;
                let told = reader.ask(&other).await.unwrap();
                let told = Replies::new(&told).token().unwrap();
                assert!(matches!(told, Reply::Text(b"mine")), "{}: {turns}", self.line.name);
            }
        });
    }

    fn an_altered_spool_is_not_believed(&self) {
        let (path, cancel) = (self.folder.join("r.keys"), CancellationToken::new());
        let look = self.line.look(&self.rows, &path, PATIENT, &cancel);
        let looked = self.tokio.block_on(look).unwrap();
        let mut stored = std::fs::read(&path).unwrap();
        let middle = stored.len() / 2;
        stored[middle] ^= 1;
        std::fs::write(&path, &stored).unwrap();
        assert!(check(&path, &looked.facts).unwrap().is_some(), "{}", self.line.name);
    }

    fn a_search_that_is_cancelled_leaves_no_spool(&self) {
        let path = self.folder.join("cancelled.keys");
        let (proxy, cancel) = (Proxy::start(self.redis.port()).unwrap(), CancellationToken::new());
        proxy.set(Toxic::Reset, Direction::Both);
        let rows = rows_at(proxy.port());
        let found = self.tokio.block_on(async {
            let stopping = async {
                while proxy.hits().is_empty() {
                    tokio::task::yield_now().await;
                }
                cancel.cancel();
            };
            tokio::join!(self.line.look(&rows, &path, PATIENT, &cancel), stopping).0
        });
        assert_eq!(kind(found), Kind::Cancelled, "{}", self.line.name);
        assert!(!path.exists(), "{}: a spool of half a search", self.line.name);
    }

    /// What changed since it was looked for is told, and hides nothing of the others.
    fn what_is_no_row_is_named(&self) {
        let (path, cancel) = (self.folder.join("r.keys"), CancellationToken::new());
        let (line, key) = (self.line, self.line.key());
        let all = many();
        let read = self.tokio.block_on(async {
            let looked = line.look(&self.rows, &path, PATIENT, &cancel).await.unwrap();
            self.redis.cli(&["del", key]).unwrap();
            let read = line.read(&self.rows, (&path, &looked.facts), PATIENT).await.unwrap();
            let lost = match line.name {
                "one stream" => all,
                "many streams" => 30,
                _ => 1,
            };
            // Which entries a stream lost cannot be told; how many were there is in the spool.
            let told = u64::from(lost == 1);
            assert_eq!((read.ids.len() as u64, read.vanished), (all - lost, told), "{}", line.name);
            self.redis.cli(&["sadd", key, "no row"]).unwrap();
            line.read(&self.rows, (&path, &looked.facts), PATIENT).await.unwrap()
        });
        assert!(!read.rejects.is_empty(), "{}", line.name);
        for reject in &read.rejects {
            assert_eq!((reject.key.as_slice(), reject.raw.is_empty()), (key.as_bytes(), false));
        }
    }
}

/// Values of a duplicate: blocks, manifests, records.
#[test]
fn every_value_is_read_whole_or_fails() {
    let mut redis = Redis::start(RedisOptions::default()).unwrap();
    let tokio = Runtime::new().unwrap();
    let _inside = tokio.enter();
    let large = "y".repeat(3 << 20);
    redis.cli(&["eval", "redis.call('set', 'k:large', string.rep('y', 3145728))", "0"]).unwrap();
    redis.cli(&["set", "k:empty", ""]).unwrap();
    redis.cli(&["sadd", "k:set", "1"]).unwrap();
    redis.cli(&["set", "k*", "others"]).unwrap();
    let values = RedisValues::new(&endpoint(redis.port()), 2).unwrap();
    tokio.block_on(async {
        assert_eq!(values.get("k:large").await.unwrap().unwrap(), large.as_bytes());
        assert_eq!(values.get("k:empty").await.unwrap().unwrap().len(), 0);
        assert_eq!(values.get("k:none").await.unwrap(), None);
        assert_eq!(kind(values.get("k:set").await), Kind::Refused);
        let keys = ["k:large", "k:empty", "k:none"].map(str::to_owned);
        assert_eq!(values.lengths(&keys).await.unwrap(), [3 << 20, 0, 0]);
        assert_eq!(values.lengths(&[]).await.unwrap(), [0_u64; 0]);
        assert_eq!(values.head("k:large", 5).await.unwrap(), "yyyyy".as_bytes());
        assert_eq!(values.head("k:none", 5).await.unwrap().len(), 0);
        let (mut cursor, mut found) = (0, Vec::new());
        loop {
            let page = values.scan(cursor, "k:").await.unwrap();
            found.extend(page.1);
            cursor = page.0;
            if cursor == 0 {
                break;
            }
        }
        found.sort();
        assert_eq!(found, ["k:empty", "k:large", "k:set"]);
        for turns in (0..10).map(|power| 1 << power) {
            some_turns(Box::pin(values.get("k:large")), turns).await;
            assert_eq!(values.get("k:empty").await.unwrap().unwrap().len(), 0, "{turns} turns");
        }
    });
    let proxy = Proxy::start(redis.port()).unwrap();
    proxy.set(Toxic::CutAfter { bytes: 1 << 20 }, Direction::Both);
    let cut = RedisValues::new(&endpoint(proxy.port()), 2).unwrap();
    assert_eq!(kind(tokio.block_on(cut.get("k:large"))), Kind::Connection);
    assert!(proxy.hits()["cut"] > 0);
    proxy.clear();
    assert_eq!(tokio.block_on(cut.get("k:large")).unwrap().unwrap().len(), 3 << 20);
    redis.kill().unwrap();
    assert_eq!(kind(tokio.block_on(values.get("k:large"))), Kind::Connection);
}
