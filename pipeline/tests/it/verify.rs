//! `verify redis`: every planted damage is found and named, and nothing is written by looking.

use crate::world::{Ran, World};
use redis::Commands;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// Rows of each table.
pub(crate) const ROWS: u64 = 3_000;

const TABLES: &str = "
    create table builds (id bigint primary key, status text, branch text, seconds int);
    insert into builds select n, 'ok', case when n % 3 = 0 then null else 'main' end, n % 100
        from generate_series(1, 3000) n;
    create table users (name text primary key, email text);
    insert into users select 'u ' || n, n || '@town.example' from generate_series(1, 3000) n;
    create table sessions (id uuid primary key, owner text, until timestamptz);
    insert into sessions select md5(n::text)::uuid, 'u' || n,
        case when n % 4 = 0 then null else now() + interval '1 day' + n * interval '1 minute' end
        from generate_series(1, 3000) n;
";

const ROUTES: &str = r#"
[[route]]
name = "builds"
table = "alloydb:public.builds"
key = "build:{id}"
type = "hash"
[[route]]
name = "users"
table = "alloydb:public.users"
key = "user:{name|urlencode}"
type = "json"
[[route]]
name = "sessions"
table = "alloydb:public.sessions"
key = "session:{id}"
type = "string"
columns = ["owner"]
expire_at = "until"
[[unrouted]]
prefix = "cart:"
owner = "shop"
comes_back = "customers fill them"
"#;

/// A world that was rebuilt: 3,000 hashes, as many JSON objects, and strings of which three of four expire.
pub(crate) fn rebuilt() -> World {
    let world = World::new();
    world.sql(TABLES);
    world.plan(ROUTES);
    world.rebuild(&[]).expect(0);
    world
}

/// `verify redis --json --settle 20ms` and more words.
pub(crate) fn verify(world: &World, more: &[&str]) -> Ran {
    world.run(&verify_words(more))
}

/// The words of that command.
pub(crate) fn verify_words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let words = ["verify", "redis", "--json", "--progress", "none", "--retry-for", "2s"];
    [&words[..], &["--settle", "20ms"], more].concat()
}

pub(crate) fn connection(world: &World) -> redis::Connection {
    redis::Client::open(world.redis.url()).unwrap().get_connection().unwrap()
}

/// Every key with its dumped value and its expiry.
pub(crate) fn dumped(connection: &mut redis::Connection) -> BTreeMap<Vec<u8>, (Vec<u8>, i64)> {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
    let mut pipeline = redis::pipe();
    for key in &keys {
        pipeline.cmd("DUMP").arg(key).cmd("PEXPIRETIME").arg(key);
    }
    let answers: Vec<redis::Value> = pipeline.query(connection).unwrap();
    let pairs = answers.chunks(2).map(|pair| {
        let dump = redis::from_redis_value(pair[0].clone()).unwrap();
        (dump, redis::from_redis_value(pair[1].clone()).unwrap())
    });
    keys.into_iter().zip(pairs).collect()
}

/// What the file of findings names: key to difference.
pub(crate) fn findings(summary: &Value, world: &World) -> BTreeMap<String, String> {
    let Some(path) = summary["findings"].as_str() else { return BTreeMap::new() };
    let text = fs::read_to_string(world.folder.path().join(path)).unwrap();
    let named: Vec<(String, String)> = text
        .lines()
        .map(|line| {
            let finding: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| finding[name].as_str().unwrap().to_owned();
            (text("key"), text("difference"))
        })
        .collect();
    let found: BTreeMap<String, String> = named.iter().cloned().collect();
    assert_eq!(found.len(), named.len(), "a key is named twice");
    found
}

/// Numbers from a seed, the same on every machine (`SplitMix64`).
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// A place in a list of so many.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

/// Plants damage of every kind, each key once; returns what a full verification has to name.
pub(crate) fn damage(
    connection: &mut redis::Connection,
    seed: u64,
    number: u64,
) -> BTreeMap<String, String> {
    let mut random = Seeded(seed);
    let mut expected = BTreeMap::new();
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
    keys.sort();
    for planted in 0..number {
        let key = keys.swap_remove(random.place(keys.len()));
        let new = format!("build:{}", 1_000_000 + planted);
        let mut expect = |key: &str, what: &str| expected.insert(key.to_owned(), what.to_owned());
        match random.below(8) {
            0 => {
                flip(connection, &key, &mut random);
                expect(&key, "value");
            }
            1 => {
                let _: u64 = connection.del(&key).unwrap();
                expect(&key, "missing");
            }
            2 => {
                let _: bool = redis::cmd("COPY").arg(&key).arg(&new).query(connection).unwrap();
                expect(&new, "unexplained");
            }
            3 => {
                let _: () = connection.rename(&key, &new).unwrap();
                expect(&key, "missing");
                expect(&new, "unexplained");
            }
            4 => {
                let ttl: i64 = connection.pttl(&key).unwrap();
                let moved = if ttl > 0 { ttl + 7_000 } else { 900_000 };
                let _: bool = connection.pexpire(&key, moved).unwrap();
                expect(&key, "expiry");
            }
            5 => {
                let had: bool = connection.persist(&key).unwrap();
                if had {
                    expect(&key, "expiry");
                } else {
                    // Another type under the same name.
                    let _: u64 = connection.del(&key).unwrap();
                    let _: u64 = connection.rpush(&key, "x").unwrap();
                    expect(&key, "value");
                }
            }
            6 => {
                // A key that fits the template and that no value of its column renders to.
                let strange = format!("build:x{planted}");
                let _: () = connection.set(&strange, "x").unwrap();
                expect(&strange, "unexplained");
            }
            _ => {
                let _: () = connection.set(format!("session:{new}"), "x").unwrap();
                expect(&format!("session:{new}"), "unexplained");
            }
        }
    }
    expected
}

/// Changes the value of a key in the least way that its type allows; the expiry stays.
fn flip(connection: &mut redis::Connection, key: &str, random: &mut Seeded) {
    let type_name: String = redis::cmd("TYPE").arg(key).query(connection).unwrap();
    if type_name == "hash" {
        match random.below(3) {
            0 => {
                let _: u64 = connection.hset(key, "status", "OK").unwrap();
            }
            1 => {
                let _: u64 = connection.hdel(key, "seconds").unwrap();
            }
            _ => {
                let _: u64 = connection.hset(key, "extra", "").unwrap();
            }
        }
    } else {
        let _: u64 = connection.append(key, " ").unwrap();
    }
}

/// What a summary counts of each difference.
pub(crate) fn counts(summary: &Value) -> [u64; 4] {
    ["missing", "different_value", "different_expiry", "unexplained"]
        .map(|name| summary[name].as_u64().unwrap())
}

#[test]
fn what_is_as_it_should_be_passes_at_every_tier_and_is_not_touched() {
    let world = rebuilt();
    let mut connection = connection(&world);
    // Keys of others, which no route explains and none claims.
    let _: () = connection.set("cart:1", "apples").unwrap();
    let _: () = connection.set("elsewhere", "1").unwrap();
    let before = dumped(&mut connection);
    for tier in ["count", "sample", "full"] {
        let summary = verify(&world, &["--tier", tier]).expect(0).summary();
        assert_eq!(summary["status"], "pass", "{summary:#}");
        assert_eq!((&summary["tier"], &summary["command"]), (&tier.into(), &"verify redis".into()));
        assert_eq!((&summary["rows"], &summary["keys"]), (&(3 * ROWS).into(), &(3 * ROWS).into()));
        let compared = if tier == "count" { 0 } else { 3 * ROWS };
        assert_eq!(summary["compared"], compared, "{tier}");
        assert_eq!(summary["unexplained"].is_null(), tier != "full", "{tier}");
        assert!(summary["findings"].is_null() && summary["data_as_of"].is_string());
    }
    assert_eq!(dumped(&mut connection), before);
    // No file stays behind but the list of findings, which is empty.
    let left: Vec<String> = fs::read_dir(world.state().join("verify"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        left.iter().all(|name| ["lock", "findings.jsonl"].contains(&name.as_str())),
        "{left:?}"
    );
}

#[test]
fn full_names_every_planted_damage_and_writes_nothing() {
    for (seed, number) in [(1, 1), (2, 1), (3, 1), (4, 10), (5, 100), (6, 1_000)] {
        let world = rebuilt();
        let mut connection = connection(&world);
        let expected = damage(&mut connection, seed, number);
        let before = dumped(&mut connection);
        let summary = verify(&world, &["--tier", "full"]).expect(4).summary();
        assert_eq!(findings(&summary, &world), expected, "seed {seed}, {number} planted");
        let count = |what: &str| expected.values().filter(|found| *found == what).count() as u64;
        let planted = ["missing", "value", "expiry", "unexplained"].map(count);
        assert_eq!((counts(&summary), &summary["moving"]), (planted, &0.into()));
        assert_eq!(summary["status"], "fail");
        assert_eq!(dumped(&mut connection), before);
    }
}

#[test]
fn the_text_names_keys_and_fields_and_never_a_value() {
    let world = rebuilt();
    let mut connection = connection(&world);
    for id in 1..=7 {
        let _: u64 = connection.del(format!("build:{id}")).unwrap();
    }
    let _: u64 = connection.hset("build:8", "status", "s3cret").unwrap();
    let _: u64 = connection.hdel("build:8", "branch").unwrap();
    let _: () = connection.set("build:x", "s3cret").unwrap();
    let words = ["verify", "redis", "--tier", "full", "--settle", "20ms", "--progress", "none"];
    let ran = world.run(&words).expect(4);
    for line in [
        "verify redis: fail, tier full, 127.0.0.1:",
        "  builds    fail          3,000 rows, 3,000 keys asked for, 3,000 values compared, 7 missing, 1 another value, 1 unexplained\n",
        "    missing: build:",
        " and 2 more\n",
        "    another value: build:8 (branch, status)\n",
        "    unexplained: build:x\n",
        "  users     pass          3,000 rows, 3,000 keys asked for, 3,000 values compared\n",
        "  it would have found: any missing, different or unexplained key\n",
        "  every key that differs is named in .rekindle/verify/findings.jsonl\n",
    ] {
        assert!(ran.stdout.contains(line), "{line:?} is not in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("s3cret") && !ran.stderr.contains("s3cret"));
    let ran = world.run(&["verify", "redis", "--log-level", "debug", "--tier", "full"]);
    assert!(!ran.expect(4).stderr.contains("s3cret"));
}
